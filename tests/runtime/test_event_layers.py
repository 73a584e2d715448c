"""Layers whose rows run at once, dense products and narrow weights: the bits of those that run one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graphs import lif
from tests.runtime.test_event import assert_bits, assert_same, assert_same_counts, chain
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import LI, IntegerLIF, Linear
from unscan.compiler.nodes.neurons import FIRES, GAINS, RESETS
from unscan.runtime.executors.event import EventDriven, dense, stateful
from unscan.runtime.executors.event.program import Op
from unscan.runtime.executors.reference import Reference

WIDTH = 150
LENGTHS = [1, 63, 100]


def ops(executor: EventDriven) -> frozenset[int]:
    return executor._program.ops


def given(steps: int, rate: float, kind: Kind = Kind.SPIKE) -> Array:
    """Draw spikes, or numbers that are 0 but for a share."""
    draws = np.random.default_rng(steps)
    x = (draws.random((steps, 2, WIDTH)) < rate).astype(np.float32)
    return x if kind is Kind.SPIKE else x * draws.normal(size=x.shape).astype(np.float32)


def layered(kind: Kind, *, alike: bool, bias: bool, **neuron: Any) -> Graph:
    """Return a layer of 130 neurons, and one of 70 behind it."""
    draws = np.random.default_rng(7)
    beta, theta = (0.9, 1.0) if alike else (draws.uniform(0.5, 1, 130), draws.uniform(0.5, 2, 130))
    offset = draws.normal(0, 0.2, 130).astype(np.float32) if bias else None
    return chain(
        Linear(draws.normal(0, 0.2, (130, WIDTH)).astype(np.float32), offset),
        lif(beta, theta, **neuron),
        Linear(draws.normal(0, 0.3, (70, 130)).astype(np.float32)),
        lif(0.8, 1.0, **neuron),
        Linear(draws.normal(size=(5, 70)).astype(np.float32)),
        LI(beta=np.array(0.9)),
        shape=(WIDTH,),
        kind=kind,
    )


def one_after_the_other(graph: Graph, *arguments: Any) -> EventDriven:
    """Return the executor that runs every row by itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stateful, "NEAR", -1)
        executor = EventDriven(graph, *arguments)
    assert not {Op.LAYER, Op.WHOLE_LAYER} & ops(executor)
    return executor


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("kind", [Kind.SPIKE, Kind.REAL])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_layer_at_once(kind: Kind, rate: float, steps: int, dtype: Any) -> None:
    graph, x = layered(kind, alike=True, bias=False), given(steps, rate, kind)
    at_once = EventDriven(graph, dtype)
    assert Op.LAYER in ops(at_once)
    got, wanted = at_once.run(x), one_after_the_other(graph, dtype).run(x)
    assert_bits(got, wanted)
    assert_same_counts(got, wanted)
    if dtype == np.float64:
        assert_same(got, Reference(graph).run(x))


@pytest.mark.parametrize("alike", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("fires", FIRES)
@pytest.mark.parametrize(("reset", "phase"), [(r, p) for r in RESETS for p in ("now", "next")])
def test_every_neuron_at_once(alike: bool, bias: bool, gain: Any, fires: Any, reset: Any, phase: Any) -> None:
    graph = layered(Kind.SPIKE, alike=alike, bias=bias, gain=gain, fires=fires, reset=reset, phase=phase)
    x = given(63, 0.1)
    executor = EventDriven(graph, np.float64)
    got = executor.run(x)
    assert_bits(got, one_after_the_other(graph, np.float64).run(x))
    assert_same(got, Reference(graph).run(x))
    first = executor.run(x[:20])
    np.testing.assert_array_equal(executor.run(x[20:], first.state).outputs, got.outputs[20:])


@pytest.mark.parametrize("rate", [0.4, 0.6, 1.0])
@pytest.mark.parametrize("kind", [Kind.SPIKE, Kind.REAL])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_dense_product_has_the_bits_of_events(kind: Kind, rate: float, dtype: Any) -> None:
    """By 8 steps at once or step by step, as which of the two is cheaper must not change what is computed."""
    graph, x = layered(kind, alike=True, bias=True), given(100, rate, kind)
    executor = EventDriven(graph, dtype)
    whole = executor.run(x)
    state, outputs = None, []
    for step in x:
        y, state = executor.step(step, state)
        outputs.append(y)
    np.testing.assert_array_equal(np.stack(outputs), whole.outputs)


def test_the_product_is_taken_where_much_arrives() -> None:
    """From a share of the inputs on, over 8 steps, but never where weights are in the nearest cache."""
    weights = np.zeros((150, 130), np.float32)
    half = int(dense.SHARE * 150)
    assert not dense.denser(weights, np.full(dense.GROUP, half))
    assert dense.denser(weights, np.full(dense.GROUP, half + 1))
    assert not dense.denser(weights[:, :50].copy(), np.full(dense.GROUP, 150))


def whole(most: int, *, alike: bool, bias: bool, wide: bool = False, **neuron: Any) -> Graph:
    """Return a layer of 130 neurons of whole numbers, and one of 70 behind it, with weights up to `most`."""
    draws = np.random.default_rng(most)
    beta = np.array(3686) if alike else draws.integers(0, 4097, 130)
    theta = np.array(3 * most) if alike else draws.integers(most, 4 * most, 130)
    offset = draws.integers(-most, most, 130).astype(np.int32) if bias else None
    settings = {"bits": 24 if wide else 16, "trained_reset": neuron["reset"], **neuron}

    def drawn(*shape: int) -> Array:
        weights = draws.integers(-most, most + 1, shape)
        weights[0, 0] = most
        return weights.astype(np.int32)

    return chain(
        Linear(drawn(130, WIDTH), offset),
        IntegerLIF(beta=beta, threshold=theta, bias=draws.integers(-3, 4, 130) if bias else None, **settings),
        Linear(drawn(70, 130)),
        IntegerLIF(beta=np.array(2048), threshold=np.array(2 * most), **settings),
        Linear(drawn(5, 70)),
        shape=(WIDTH,),
        kind=Kind.SPIKE,
    )


@pytest.mark.parametrize("steps", LENGTHS)
@pytest.mark.parametrize("most", [127, 32767])
@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("wraps", [True, False])
def test_whole_numbers_at_once(most: int, rate: float, wraps: bool, steps: int) -> None:
    graph = whole(most, alike=rate > 0.1, bias=wraps, wide=most > 127, reset="subtract", wraps=wraps)
    executor, x = EventDriven(graph), given(steps, rate)
    assert {Op.WHOLE_LAYER, Op.NARROW} <= ops(executor)
    got = executor.run(x)
    assert_bits(got, Reference(graph).run(x))
    assert_same(got, Reference(graph).run(x))
    assert_bits(got, one_after_the_other(graph).run(x))
    if steps > 1:
        first = executor.run(x[: steps // 2])
        again = executor.run(x[steps // 2 :], first.state)
        np.testing.assert_array_equal(again.outputs, got.outputs[steps // 2 :])


@pytest.mark.parametrize(("reset", "phase"), [(r, p) for r in RESETS for p in ("now", "next")])
@pytest.mark.parametrize("shift", [0, 6])
def test_every_neuron_of_whole_numbers_at_once(reset: Any, phase: Any, shift: int) -> None:
    graph = whole(127, alike=False, bias=False, reset=reset, phase=phase, shift=shift)
    x = given(100, 0.2)
    got, wanted = EventDriven(graph).run(x), Reference(graph).run(x)
    assert_bits(got, wanted)
    assert_same(got, wanted)
    assert got.counts is not None
    if shift == 6:
        assert got.counts.tallies["b"]["saturated"] > 0


def test_more_rows_than_16_bits_hold() -> None:
    """300 inputs of the weight 127 give 38 100."""
    graph = chain(
        Linear(np.full((3, 300), 127, np.int8)),
        IntegerLIF(beta=np.array(0), threshold=np.array(38_099), bits=24, trained_reset="zero"),
        shape=(300,),
        kind=Kind.SPIKE,
    )
    x = np.ones((2, 1, 300), np.float32)
    x[1, 0, 0] = 0
    np.testing.assert_array_equal(EventDriven(graph).run(x).outputs[:, 0], [[1, 1, 1], [0, 0, 0]])


@pytest.mark.parametrize("weight", [0.5, 40_000.0])
def test_other_weights_are_not_narrow(weight: float) -> None:
    graph = chain(Linear(np.full((3, 4), weight)), lif(), shape=(4,), kind=Kind.SPIKE)
    assert Op.NARROW not in ops(EventDriven(graph, np.float64))
    assert Op.NARROW not in ops(
        EventDriven(chain(Linear(np.ones((3, 4))), shape=(4,), kind=Kind.SPIKE), np.float32)
    )
