"""Random graphs of every node and every regime of size and activity: the event executor is the reference.

Float64: equal spikes (F1 1.0 in every layer) and counts, numbers to rounding. Whole numbers, and float networks in
which every sum is exact: bit for bit, final states too. Float32: it parts from float64 at ties alone, as
`unscan.runtime.rounding` bounds them.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.graphs import MEMORIES, SINGLE, graphs, random_memory, random_node, sequence
from tests.regimes import REGIMES, Regime, quiet, stack, stacks
from tests.runtime.test_event import assert_bits, assert_same, assert_same_counts
from tests.whole_graphs import WHOLE_SINGLE, whole_graphs, whole_node
from unscan.compiler.ir import Array, Dialect, Graph, Kind, Node, Signal
from unscan.compiler.nodes import NODES, Input
from unscan.compiler.spec import RULES
from unscan.runtime.agreement import compare
from unscan.runtime.executors.base import Execution, State
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.reference import Reference
from unscan.runtime.rounding import Rounding, explained

LENGTHS = st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 100])
"""Around a chunk of 32 steps, and the bits of a mask."""
ACTIVE = st.sampled_from([0.0, 0.02, 0.2, 0.6, 1.0])
FLOAT64 = Rounding(2.0**-52, 0.0, 0.0)
FLOAT32 = Rounding(2.0**-23, 0.0, 0.0)
EXACT_IN_SINGLE = 2.0**24


def some(examples: int) -> Any:
    """Return the settings of a property that is tried on so many graphs, the same ones at every run."""
    return settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
    )


def in_parts(executor: EventDriven, x: Array, cuts: list[int], state: State | None = None) -> Execution:
    """Run a sequence cut before some of its steps, with carried state, as one execution without counts."""
    runs = []
    for part in np.split(x, cuts):
        runs.append(executor.run(part, state))
        state = runs[-1].state
    first = runs[0]
    return Execution(
        outputs=np.concatenate([run.outputs for run in runs]),
        spikes={name: np.concatenate([run.spikes[name] for run in runs]) for name in first.spikes},
        membranes={name: np.concatenate([run.membranes[name] for run in runs]) for name in first.membranes},
        state=runs[-1].state,
        counts=None,
    )


def cut_anywhere(steps: int, seed: int) -> list[int]:
    """Draw up to three places between the first step and the last."""
    places = np.arange(1, steps)
    return sorted(np.random.default_rng(seed).permutation(places)[:3].tolist())


def alike(graph: Graph, x: Array, seed: int, *, exact: bool = False) -> tuple[Execution, Execution]:
    """Hold every way to run a sequence against the reference; return both executions.

    Recorded and not, on one to three threads, cut anywhere, each sample alone. Bit for bit where `exact`.
    """
    wanted = Reference(graph).run(x)
    executor = EventDriven(graph, np.float64, threads=1 + seed % 3)
    got = executor.run(x)
    if exact:
        assert_bits(got, wanted)
        assert_same_counts(got, wanted)
    else:
        assert_same(got, wanted)
    unrecorded = executor.run(x, record=False)
    assert_bits(unrecorded, replace(got, spikes={}, membranes={}))
    assert_same_counts(unrecorded, got)
    if len(x) > 1:
        assert_bits(in_parts(executor, x, cut_anywhere(len(x), seed)), got)
    one = seed % x.shape[1]
    alone = executor.run(x[:, one : one + 1], record=False)
    np.testing.assert_array_equal(alone.outputs[:, 0], got.outputs[:, one])
    for name, state in got.state.items():
        np.testing.assert_array_equal(alone.state[name][0], state[one])
    return got, wanted


def every_node(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    alike(graph, sequence(graph, steps, samples, seed, rate=rate), seed)


def every_whole_node(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    x = sequence(graph, steps, samples, seed, rate=rate)
    numbers = graph.signals[graph.of(Input)[0]].kind in (Kind.GRADED, Kind.REAL)
    alike(graph, 4 * x if numbers else x, seed, exact=True)  # some are more than 8 bits hold


def every_regime(drawn: tuple[Graph, Regime], steps: int, samples: int, seed: int) -> None:
    graph, regime = drawn
    x = quiet(graph, steps, samples, seed)
    got, wanted = alike(graph, x, seed, exact=regime.exact)
    if not regime.exact:
        assert_bounded(graph, got, wanted, x, FLOAT64)


def assert_bounded(graph: Graph, got: Execution, wanted: Execution, x: Array, rounding: Rounding) -> None:
    """Assert that executions part at ties alone, and that the last membranes of the others differ by rounding.

    Below the smallest normal number of a format rounding is absolute, no longer a share of what is rounded.
    """
    found = compare(graph, wanted, got, x=x, rounding=rounding)
    assert all(parting.tie for parting in found.partings), str(found.first)
    parted = {parting.sample for parting in found.partings}
    last, tiny = len(x) - 1, float(np.finfo(got.outputs.dtype).tiny)
    for name, membranes in wanted.membranes.items():
        if name not in wanted.spikes:
            continue
        at = tuple(np.indices(membranes.shape[2:]).reshape(membranes.ndim - 2, -1))
        for sample in set(range(x.shape[1])) - parted:
            _, granted = explained(graph, name, (wanted, got), (last, sample), at, rounding, x)
            apart = np.abs(got.membranes[name][last, sample][at] - membranes[last, sample][at])
            assert np.all(apart <= granted + tiny), (
                f"{name}: {apart.max()} apart, rounding explains {granted.max()}"
            )


SEEDS = st.integers(0, 2**32 - 1)


@given(graphs(), LENGTHS, st.integers(1, 4), ACTIVE, SEEDS)
@some(90)
def test_every_node(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    every_node(graph, steps, samples, rate, seed)


@given(whole_graphs(), LENGTHS, st.integers(1, 4), ACTIVE, SEEDS)
@some(90)
def test_every_node_of_whole_numbers(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    every_whole_node(graph, steps, samples, rate, seed)


@given(stacks(layers=2, widest=640), LENGTHS, st.integers(1, 4), SEEDS)
@some(20)
def test_every_regime(drawn: tuple[Graph, Regime], steps: int, samples: int, seed: int) -> None:
    every_regime(drawn, steps, samples, seed)


@pytest.mark.slow
@given(graphs(), LENGTHS, st.integers(1, 4), ACTIVE, SEEDS)
@some(2500)
def test_every_node_on_thousands(graph: Graph, steps: int, samples: int, rate: float, seed: int) -> None:
    every_node(graph, steps, samples, rate, seed)


@pytest.mark.slow
@given(whole_graphs(), LENGTHS, st.integers(1, 4), ACTIVE, SEEDS)
@some(2000)
def test_every_node_of_whole_numbers_on_thousands(
    graph: Graph, steps: int, samples: int, rate: float, seed: int
) -> None:
    every_whole_node(graph, steps, samples, rate, seed)


@pytest.mark.slow
@given(stacks(), LENGTHS, st.integers(1, 4), SEEDS)
@some(300)
def test_every_regime_on_hundreds(drawn: tuple[Graph, Regime], steps: int, samples: int, seed: int) -> None:
    every_regime(drawn, steps, samples, seed)


@pytest.mark.parametrize("regime", REGIMES, ids=str)
def test_layers_of_a_thousand_neurons(regime: Regime) -> None:
    graph = stack(4, regime, layers=2)
    assert max(signal.shape[0] for signal in graph.signals.values()) == 1030
    every_regime((graph, regime), 40, 2, 0)


@pytest.mark.parametrize("regime", [REGIMES[0], REGIMES[1], REGIMES[3]], ids=str)
def test_long_runs(regime: Regime) -> None:
    graph = stack(1, regime, layers=2, widest=65)
    every_regime((graph, regime), 2000, 1, 5)


@given(graphs(), SEEDS)
@some(2)
def test_long_runs_of_every_node(graph: Graph, seed: int) -> None:
    every_node(graph, 2000, 1, 0.1, seed)


@given(stacks((REGIMES[0],), layers=2, widest=640), LENGTHS, st.integers(1, 3), SEEDS)
@some(15)
def test_float32_parts_at_ties_alone(
    drawn: tuple[Graph, Regime], steps: int, samples: int, seed: int
) -> None:
    graph = drawn[0].astype(np.float32)
    x = quiet(graph, steps, samples, seed)
    got, wanted = EventDriven(graph).run(x), EventDriven(graph, np.float64).run(x)
    assert got.outputs.dtype == np.float32
    assert_bounded(graph, got, wanted, x, FLOAT32)


@given(stacks((REGIMES[1],), layers=2, widest=640), LENGTHS, st.integers(1, 3), SEEDS)
@some(12)
def test_float32_is_exact_where_sums_are(
    drawn: tuple[Graph, Regime], steps: int, samples: int, seed: int
) -> None:
    graph = drawn[0]
    x = quiet(graph, steps, samples, seed)
    wanted = EventDriven(graph, np.float64).run(x)
    reached = max(float(np.abs(held).max()) for held in wanted.membranes.values())
    assume(reached < EXACT_IN_SINGLE)
    got = EventDriven(graph, np.float32).run(x)
    assert_bits(got, wanted)
    assert_same_counts(got, wanted)


Drawn = dict[str, set[Any]]
"""`Class.field` -> the settings drawn; for an array whether there was one."""
UNREAD = "trained_reset"
"""The setting that no execution reads."""


def note(node: Node, drawn: Drawn) -> None:
    """Add the settings of one node."""
    drawn.setdefault(type(node).__name__, set())
    for field in get_type_hints(type(node)):
        value = getattr(node, field, None)
        drawn.setdefault(f"{type(node).__name__}.{field}", set()).add(
            "array" if isinstance(value, np.ndarray) else value
        )


def lawful(node: Node, field: str, value: Any) -> bool:
    """Say whether a node may have another setting."""
    changed = replace(node, **{field: value})
    return all(holds(changed) for owner, _, holds in RULES if isinstance(changed, owner))


def wanted_of(node: Node, field: str, hint: Any) -> set[Any]:
    """Return what must have been drawn of a setting: every choice, both truths, None where it may be."""
    if get_origin(hint) is Literal:
        return {value for value in get_args(hint) if lawful(node, field, value)}
    if hint is bool:
        return {False, True}
    return {None} if type(None) in get_args(hint) else set()


def test_the_generators_make_every_node_and_every_setting() -> None:
    """A census over what is drawn: a new node or setting that no generator makes fails here."""
    drawn: Drawn = {}
    examples: dict[str, Node] = {}
    built: dict[str, set[bool]] = {"loop": set(), "several edges into a port": set()}

    def take(node: Node | None) -> None:
        if node is not None:
            note(node, drawn)
            examples[type(node).__name__] = node

    for generator, many in ((graphs(), 250), (whole_graphs(), 100)):

        @given(generator)
        @some(many)
        def draw(graph: Graph) -> None:
            built["loop"].add(graph.recurrent)
            for name, node in graph.nodes.items():
                take(node)
                built["several edges into a port"].add(len(graph.into(name)) > len(node.ports))

        draw()
    nodes = {name for name, node in NODES.items() if node.dialect is not Dialect.PARALLEL}
    assert nodes - drawn.keys() == set(), "no generator makes these; see tests/graphs.py and whole_graphs.py"
    assert all(both == {False, True} for both in built.values())
    rng = np.random.default_rng(0)
    for shape in [(70,), (4, 9), (2, 6, 5)] * 40:
        signal = Signal(Kind.SPIKE, shape)
        for kind in SINGLE:
            take(random_node(rng, kind, signal))
        for kind in WHOLE_SINGLE:
            take(whole_node(rng, kind, signal))
        for memory in MEMORIES:
            take(random_memory(rng, memory))
    missing = {
        f"{name}.{field}": lacking
        for name in nodes
        for field, hint in get_type_hints(type(examples[name])).items()
        if field != UNREAD and hasattr(examples[name], field)
        if (lacking := wanted_of(examples[name], field, hint) - drawn[f"{name}.{field}"])
    }
    assert missing == {}, "no generator draws these settings"


def test_the_regimes_reach_every_activity() -> None:
    """Silent layers and layers of which more than half fire; sparse and dense weights; wide and narrow ones."""
    rates, densities, widths, joined = [], [], [], 0
    for seed in range(30):
        graph = stack(seed, REGIMES[seed % len(REGIMES)], layers=2, widest=640)
        run = EventDriven(graph).run(quiet(graph, 32, 2, seed))
        rates += [float(fired.mean()) for fired in run.spikes.values()]
        assert run.counts is not None
        densities += [1 - share for share in run.counts.weight_sparsity.values()]
        widths += [signal.shape[0] for signal in graph.signals.values()]
        joined += sum(name.startswith("f") and len(graph.into(name)) > 1 for name in graph.nodes)
    for held, edges in ((rates, [0, 1e-9, 0.05, 0.5, 1.01]), (densities, [0, 1e-9, 0.02, 0.2, 0.6, 1.01])):
        assert np.histogram(held, edges)[0].min() > 0, edges
    assert min(widths) == 1
    assert max(widths) > 512
    assert joined > 3
