"""Every node on the event executor, alone, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.graphs import SINGLE, lif, random_node, sequence
from tests.runtime.test_event import assert_bits, assert_same, chain
from tests.runtime.test_event_memory import joined
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Edge, Graph, Kind, Node, Signal
from unscan.compiler.nodes import (
    GLU,
    LIF,
    Activation,
    AdaptiveLIF,
    AvgPool2d,
    Concatenate,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    DiagonalSSM,
    Embedding,
    Input,
    LayerNorm,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    RMSNorm,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.neurons import FIRES, RESETS
from unscan.compiler.nodes.stateless import FUNCTIONS
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.reference import Reference

SHAPES = {
    Conv1d: (4, 9),
    Conv2d: (4, 6, 7),
    SumPool2d: (2, 6, 7),
    AvgPool2d: (2, 6, 7),
    MaxPool2d: (2, 6, 7),
    Linear: (70,),
    DiagonalSSM: (70,),
}
KINDS = [Kind.SPIKE, Kind.GRADED, Kind.REAL]


def agree(graph: Graph, steps: int, *, rate: float | None = 0.4) -> None:
    """Assert that the event executor gives what the reference gives, in one run and in two."""
    x = sequence(graph, steps, 2, rate=rate)
    executor = EventDriven(graph, np.float64)
    whole = executor.run(x)
    assert_same(whole, Reference(graph).run(x))
    if steps > 1:
        cut = (steps + 2) // 3
        first = executor.run(x[:cut])
        assert_bits(joined(first, executor.run(x[cut:], first.state)), whole)
    single = EventDriven(graph, np.float32).run(x)
    assert single.outputs.dtype == np.float32
    assert np.isfinite(single.outputs).all()
    if not whole.spikes:
        scale = max(1.0, float(abs(whole.outputs).max()))
        np.testing.assert_allclose(single.outputs, whole.outputs, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("node", SINGLE, ids=lambda node: node.__name__)
def test_a_node_on_the_input(node: type[Node], kind: Kind, steps: int) -> None:
    signal = Signal(kind, SHAPES.get(node, (3, 6)))
    made = random_node(np.random.default_rng(steps), node, signal)
    assert made is not None
    agree(chain(made, shape=signal.shape, kind=kind), steps)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_functions(function: Any) -> None:
    x = np.concatenate([np.linspace(-8, 8, 101), [0.0, -0.0, 1e-9, -1e-9]])[:, None, None]
    for dtype, tolerance in ((np.float64, 1e-14), (np.float32, 1e-5)):
        graph = chain(Activation(function))
        got, wanted = EventDriven(graph, dtype).run(x).outputs, Reference(graph).run(x).outputs
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("stride", [1, (2, 3)])
@pytest.mark.parametrize("dilation", [1, (2, 1)])
@pytest.mark.parametrize("padding", [0, (1, 0, 2, 3)])
def test_convolutions(padding: Any, dilation: Any, stride: Any, groups: int, kind: Kind) -> None:
    rng = np.random.default_rng(1)
    node = Conv2d(
        weight=rng.standard_normal((12, 6 // groups, 3, 2)),
        bias=rng.standard_normal(12),
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
    )
    graph = chain(node, lif(threshold=0.7), shape=(6, 7, 8), kind=kind)
    x = sequence(graph, 5, 2, rate=0.2)
    assert_same(EventDriven(graph).run(x), Reference(graph).run(x))


def test_a_convolution_that_two_signals_feed() -> None:
    rng = np.random.default_rng(2)
    nodes: dict[str, Node] = {
        "in": Input((3, 8), Kind.SPIKE),
        "s": Threshold(threshold=np.array(0.5)),
        "r": Activation("sigmoid"),
        "conv": Conv1d(weight=rng.standard_normal((4, 3, 3))),
        "out": Output(),
    }
    pairs = [("in", "s"), ("in", "r"), ("s", "conv"), ("r", "conv"), ("conv", "out")]
    agree(Graph(nodes, [Edge(*pair) for pair in pairs]), 20)


@pytest.mark.parametrize("kinds", [(a, b) for a in KINDS for b in KINDS])
@pytest.mark.parametrize("node", [Multiply(), Concatenate(2), Concatenate(2, 1)])
def test_nodes_of_two_inputs(node: Node, kinds: tuple[Kind, Kind]) -> None:
    """What is spiking stays so: a Linear behind it adds weights."""
    makers: dict[Kind, Node] = {
        Kind.SPIKE: Threshold(threshold=np.array(0.5)),
        Kind.GRADED: TopK(2),
        Kind.REAL: Activation("sigmoid"),
    }
    shape = (6,) if isinstance(node, Concatenate) and node.axis == 0 else (2, 6)
    a, b = (makers[kind] for kind in kinds)
    first, second = node.ports
    nodes: dict[str, Node] = {"in": Input(shape), "a": a, "b": b, "node": node, "out": Output()}
    edges = [Edge("in", "a"), Edge("in", "b"), Edge("a", "node", first), Edge("b", "node", second)]
    last = "node"
    if len(shape) == 1:
        nodes["fc"] = Linear(np.random.default_rng(0).standard_normal((4, 12)))
        edges, last = [*edges, Edge("node", "fc")], "fc"
    agree(Graph(nodes, [*edges, Edge(last, "out")]), 20, rate=1.0)


@pytest.mark.parametrize("count", [1, 2, 5, 6])
def test_top_k_keeps_the_first_of_equals(count: int) -> None:
    graph = chain(TopK(count), shape=(2, 6))
    x = np.random.default_rng(0).integers(-2, 3, (200, 2, 2, 6)).astype(float)
    assert_bits(EventDriven(graph).run(x), Reference(graph).run(x))


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("fires", FIRES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties(reset: Any, fires: Any, dtype: Any) -> None:
    """Numbers of few bits, so that every sum is exact, ties are frequent and all formats must agree."""
    half, quarter = np.array(0.5), np.array(0.25)
    settings: dict[str, Any] = {
        "beta": half,
        "threshold": half,
        "reset": reset,
        "trained_reset": reset,
        "fires": fires,
    }
    nodes = {
        "b": Threshold(threshold=half, fires=fires),
        "c": CubaLIF(**settings, alpha=half),
        "d": AdaptiveLIF(**settings, kappa=quarter, rho=half),
        "e": LIF(**settings),
    }
    weight = np.random.default_rng(4).integers(-4, 9, (40, 70)) / 4
    edges = [Edge("in", "a"), *(Edge("a", name) for name in nodes), *(Edge(name, "out") for name in nodes)]
    graph = Graph({"in": Input((70,), Kind.SPIKE), "a": Linear(weight), **nodes, "out": Output()}, edges)
    x = sequence(graph, 12, 3, rate=0.03)
    got, wanted = EventDriven(graph, dtype).run(x), Reference(graph).run(x)
    for name in nodes:
        assert (wanted.membranes[name] == 0.5).any(), "no tie was tested"
        np.testing.assert_array_equal(got.spikes[name], wanted.spikes[name])
        np.testing.assert_array_equal(got.membranes[name], wanted.membranes[name])


@pytest.mark.parametrize("steps", [1, 63, 100])
def test_an_embedding(steps: int) -> None:
    weight = np.random.default_rng(3).standard_normal((9, 17))
    agree(chain(Embedding(weight), LayerNorm(np.ones(17)), kind=Kind.INDEX), steps, rate=None)


def test_an_index_without_a_row_is_refused() -> None:
    executor = EventDriven(chain(Embedding(np.ones((4, 2))), kind=Kind.INDEX))
    assert executor.run(np.full((1, 1, 1), 3)).outputs.shape == (1, 1, 2)
    for bad in (4, -1, 0.5, np.nan):
        with pytest.raises(InvalidInput):
            executor.run(np.full((1, 1, 1), bad))
        with pytest.raises(InvalidInput):
            executor.step(np.full((1, 1), bad))


@pytest.mark.parametrize("steps", [1.0, 4.0, np.array([1, 2, 5, 3, 1, 1])])
def test_a_delay_in_a_line(steps: Any) -> None:
    node = Delay(steps=np.asarray(steps), shape=(6,), kind=Kind.SPIKE)
    for length in (1, 2, 3, 63, 100):
        agree(chain(node, Linear(np.eye(6)), shape=(6,), kind=Kind.SPIKE), length)


@pytest.mark.parametrize("late", [1.0, 3.0])
@pytest.mark.parametrize("length", [1, 2, 63, 100])
def test_neurons_that_feed_themselves(length: int, late: float) -> None:
    """Two loops, one within the other, and a delay outside them."""
    rng = np.random.default_rng(7)
    width = 12
    nodes: dict[str, Node] = {
        "in": Input((width,), Kind.SPIKE),
        "before": Delay(steps=np.array(2.0), shape=(width,), kind=Kind.SPIKE),
        "n": lif(threshold=0.6, reset="subtract"),
        "fc": Linear(rng.standard_normal((width, width))),
        "m": CubaLIF(beta=np.array(0.8), alpha=np.array(0.5), threshold=np.array(0.9), trained_reset="zero"),
        "short": Delay(steps=np.array(late), shape=(width,), kind=Kind.SPIKE),
        "long": Delay(steps=rng.integers(1, 6, width).astype(float), shape=(width,), kind=Kind.REAL),
        "back": Linear(rng.standard_normal((width, width)) * 0.5),
        "out": Output(),
    }
    pairs = [
        ("in", "before"),
        ("in", "n"),
        ("before", "n"),
        ("n", "fc"),
        ("fc", "m"),
        ("n", "short"),
        ("short", "fc"),
    ]
    pairs += [("m", "back"), ("back", "long"), ("long", "n"), ("m", "out")]
    graph = Graph(nodes, [Edge(*pair) for pair in pairs])
    assert graph.recurrent
    agree(graph, length)


def test_norms_over_several_axes_and_long_rows() -> None:
    rng = np.random.default_rng(0)
    for node in (
        LayerNorm(rng.standard_normal((3, 70)), rng.standard_normal((3, 70))),
        RMSNorm(rng.standard_normal(70)),
    ):
        agree(chain(node, GLU(), shape=(2, 3, 70)), 10)


def test_filters_forget_nothing_over_a_long_run() -> None:
    """Modes on the unit circle, so that an error in the first step lasts."""
    angle = np.linspace(0, 3, 8).reshape(2, 4)
    node = DiagonalSSM(
        a=np.stack([np.cos(angle), np.sin(angle)], -1), c=np.ones((2, 4, 2)) * 0.1, d=np.array([0.0, 1.0])
    )
    graph = chain(node, shape=(2,))
    x = sequence(graph, 2000, 1, rate=0.02)
    assert_same(EventDriven(graph).run(x), Reference(graph).run(x))


def test_numbers_that_float32_cannot_hold_are_refused() -> None:
    with pytest.raises(Unsupported, match="rounds to 0"):
        EventDriven(chain(Threshold(threshold=np.array(1e-60))), np.float32)
    wide = np.broadcast_to(np.float32(0), (2**24 + 1, 1))
    with pytest.raises(Unsupported, match="can count"):
        EventDriven(chain(Embedding(wide), kind=Kind.INDEX), np.float32)
