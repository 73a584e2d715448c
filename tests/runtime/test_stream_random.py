"""Streams of random graphs: step by step, with resets and refusals between, they are a run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import graphs, sequence, two_layers
from tests.regimes import Regime, quiet, stacks
from tests.whole_graphs import whole_graphs
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.executors.base import State
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.simulate import simulate_stream
from unscan.runtime.stream import Stream

SEEDS = st.integers(0, 2**32 - 1)
EITHER = st.one_of(graphs(), whole_graphs())


def some(examples: int) -> Any:
    """Return the settings of a property that is tried on so many graphs, the same ones at every run."""
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )


def assert_states(got: State | None, wanted: State) -> None:
    assert got is not None
    assert got.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


def unfit(graph: Graph, x: Array, seed: int) -> list[Array]:
    """Return inputs (B, ...) of one step that a stream has to refuse."""
    kind = graph.signals[graph.of(Input)[0]].kind
    place = tuple(np.random.default_rng(seed).integers(0, size) for size in x.shape)
    found = [np.zeros((len(x) + 1, *x.shape[1:])), np.zeros((*x.shape, 2)), np.zeros(())]
    worse = [
        np.nan,
        np.inf,
        *([0.5, 2, -1] if kind is Kind.SPIKE else [-1, 0.5, 10**6] if kind is Kind.INDEX else []),
    ]
    for number in worse:
        bad = x.astype(np.float64)
        bad[place] = number
        found.append(bad)
    return found


def assert_streams(graph: Graph, x: Array, seed: int) -> None:
    """Step through a sequence, refused inputs between, reset, go on from a state, and hold all against one run."""
    wanted = EventDriven(graph).run(x)
    stream = Stream(graph)
    wrong = unfit(graph, x[0], seed)
    for t, x_t in enumerate(x):
        np.testing.assert_array_equal(stream.step(x_t), wanted.outputs[t])
        with pytest.raises(InvalidInput):
            stream.step(wrong[(t + seed) % len(wrong)])
    assert_states(stream.state, wanted.state)
    assert stream.counts is not None
    assert wanted.counts is not None
    assert stream.counts.by_node == wanted.counts.by_node
    assert stream.counts.peaks == wanted.counts.peaks
    assert (stream.counts.steps, stream.counts.samples) == x.shape[:2]
    cut = seed % len(x)
    stream.reset()
    again = [stream.step(x_t) for x_t in x[:cut]]
    kept = stream.state
    stream.reset(kept)
    again += [stream.step(x_t) for x_t in x[cut:]]
    np.testing.assert_array_equal(np.stack(again), wanted.outputs)
    assert_states(stream.state, wanted.state)
    stream.reset()
    one = seed % x.shape[1]
    alone = np.stack([stream.step(x_t[one]) for x_t in x])
    np.testing.assert_array_equal(alone, wanted.outputs[:, one])


def assert_parts(graph: Graph, x: Array, seed: int) -> None:
    """Run parts of any lengths one after the other and hold what is left of them against one run."""
    wanted = EventDriven(graph).run(x)
    assert wanted.counts is not None
    rng = np.random.default_rng(seed)
    cuts = sorted(rng.permutation(np.arange(1, len(x)))[:4].tolist())
    kept: list[Array] = []
    got = simulate_stream(graph, iter(np.split(x, cuts)), each=lambda run: kept.append(run.outputs))
    np.testing.assert_array_equal(np.concatenate(kept), wanted.outputs)
    np.testing.assert_array_equal(got.last, wanted.outputs[-1])
    mean = wanted.outputs.mean(axis=0, dtype=np.float64)
    scale = max(1.0, float(np.abs(wanted.outputs).max()))
    np.testing.assert_allclose(got.mean, mean, rtol=0, atol=len(x) * 2.0**-52 * scale)
    assert_states(got.state, wanted.state)
    assert got.counts is not None
    assert got.counts.by_node == wanted.counts.by_node
    assert got.counts.per_sample == wanted.counts.per_sample
    assert got.counts.peaks == wanted.counts.peaks
    assert (got.steps, got.samples) == x.shape[:2]
    with pytest.raises(InvalidInput, match="samples, those before"):
        simulate_stream(graph, [x, x[:, :1], np.concatenate([x, x], axis=1)])


@given(EITHER, st.sampled_from([1, 2, 9, 33]), st.integers(1, 3), st.sampled_from([0.0, 0.2, 1.0]), SEEDS)
@some(40)
def test_every_node_streams(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    assert_streams(graph, sequence(graph, steps, samples, seed, rate=rate), seed)


@given(stacks(layers=2, widest=640), st.sampled_from([1, 9, 33]), st.integers(1, 2), SEEDS)
@some(10)
def test_every_regime_streams(drawn: tuple[Graph, Regime], steps: int, samples: int, seed: int) -> None:
    graph, _ = drawn
    x = quiet(graph, steps, samples, seed)
    assert_streams(graph, x, seed)
    if samples == 1:
        stream, wanted = Stream(graph), EventDriven(graph).run(x).outputs[:, 0]
        rng = np.random.default_rng(seed)
        got = [stream.step_events(rng.permutation(np.flatnonzero(x_t))) for x_t in x]
        np.testing.assert_array_equal(np.stack(got), wanted)


@given(EITHER, st.sampled_from([1, 5, 63, 100]), st.integers(1, 3), st.sampled_from([0.0, 0.2, 1.0]), SEEDS)
@some(30)
def test_every_node_in_parts(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    assert_parts(graph, sequence(graph, steps, samples, seed, rate=rate), seed)


@pytest.mark.slow
@given(EITHER, st.sampled_from([1, 9, 33, 70]), st.integers(1, 3), SEEDS)
@some(1000)
def test_a_thousand_graphs_stream(graph: Graph, steps: int, samples: int, seed: int) -> None:
    x = sequence(graph, steps, samples, seed, rate=(0.0, 0.1, 0.5, 1.0)[seed % 4])
    assert_streams(graph, x, seed)
    assert_parts(graph, x, seed)


@given(SEEDS, st.integers(2, 3))
@some(10)
def test_a_batch_beyond_float32_says_that_it_must_be_reset(seed: int, samples: int) -> None:
    graph = two_layers(seed=seed, dtype=np.float32)
    x = np.random.default_rng(seed).standard_normal((6, samples, 6))
    stream, wanted = Stream(graph), EventDriven(graph).run(x)
    stream.step(x[0])
    far = x[1].copy()
    far[-1, 0] = 1e300
    with pytest.raises(InvalidInput, match="has to be reset then"):
        stream.step(far)
    stream.reset()
    np.testing.assert_array_equal(np.stack([stream.step(x_t) for x_t in x]), wanted.outputs)
