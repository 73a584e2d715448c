"""What the event executor counts on random graphs: what is counted event by event, by another reckoning."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.counting import RULES, reckon
from tests.graphs import graphs, sequence
from tests.regimes import Regime, quiet, stacks
from tests.whole_graphs import whole_graphs
from unscan.compiler.ir import Array, Dialect, Graph
from unscan.compiler.nodes import NODES
from unscan.runtime.costs import Operations
from unscan.runtime.counts import senders
from unscan.runtime.executors.event import EventDriven

SEEDS = st.integers(0, 2**32 - 1)


def some(examples: int) -> Any:
    """Return the settings of a property that is tried on so many graphs, the same ones at every run."""
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )


def flat(done: Operations) -> Counter[str]:
    """Return operations as a counter: the kinds of updates beside the numbers, those that are 0 left out."""
    told = done.to_json()
    del told["rate"]
    return Counter({kind: n for kind, n in (told | told.pop("updates")).items() if n})


def assert_counted(graph: Graph, x: Array, threads: int) -> None:
    """Assert that the counts of a run are those of the reckoning: by node and sample, in all, and the peaks."""
    wanted, peaks = reckon(graph, x)
    runs = [
        EventDriven(graph, np.float64, threads=threads).run(x, record=record).counts
        for record in (True, False)
    ]
    for counts in runs:
        assert counts is not None
        for name in graph.nodes:
            for b, each in enumerate(wanted):
                assert flat(counts.sample(b)[name]) == +each[name], f"{name} in sample {b}"
            together = sum((each[name] for each in wanted), Counter[str]())
            assert flat(counts.by_node[name]) == +together, name
        everything = sum((each[name] for each in wanted for name in graph.nodes), Counter[str]())
        assert flat(counts.total) == +everything
        assert counts.peaks is not None
        assert dict(counts.peaks.nodes) == {name: peaks[name] for name in senders(graph)}
        assert counts.peaks.graph == peaks[""]
        for name, share in counts.activation_sparsity.items():
            sent = sum(each[name]["events_out"] for each in wanted)
            slots = x.shape[0] * x.shape[1] * int(np.prod(graph.signals[name].shape))
            assert share == 1 - sent / slots


def test_every_node_is_reckoned() -> None:
    assert RULES.keys() == {node for node in NODES.values() if node.dialect is not Dialect.PARALLEL}


@given(graphs(), st.sampled_from([1, 12, 33]), st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.5]), SEEDS)
@some(40)
def test_every_node(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    assert_counted(graph, sequence(graph, steps, samples, seed, rate=rate), 1 + seed % 3)


@given(
    whole_graphs(), st.sampled_from([1, 12, 33]), st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.5]), SEEDS
)
@some(40)
def test_every_node_of_whole_numbers(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    assert_counted(graph, sequence(graph, steps, samples, seed, rate=rate), 1 + seed % 3)


@given(stacks(layers=2, widest=200), st.sampled_from([1, 12, 33]), st.integers(1, 2), SEEDS)
@some(10)
def test_every_regime(drawn: tuple[Graph, Regime], steps: int, samples: int, seed: int) -> None:
    assert_counted(drawn[0], quiet(drawn[0], steps, samples, seed), 1 + seed % 2)


@pytest.mark.slow
@given(st.one_of(graphs(), whole_graphs()), st.sampled_from([1, 33, 70]), st.integers(1, 4), SEEDS)
@some(1000)
def test_every_node_on_a_thousand_graphs(graph: Graph, steps: int, samples: int, seed: int) -> None:
    rate = (0.0, 0.05, 0.3, 1.0)[seed % 4]
    assert_counted(graph, sequence(graph, steps, samples, seed, rate=rate), 1 + seed % 3)
