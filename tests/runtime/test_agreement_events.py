import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.graphs import SINGLE, chain, graphs, lif, linear, random_node, sequence
from tests.integers import integer_network, memory_network, spikes_for
from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Edge, Graph, Kind, Signal
from unscan.compiler.nodes import (
    LI,
    SPIKING,
    AdaptiveLIF,
    Concatenate,
    CubaLIF,
    Delay,
    Input,
    LIFAnnealed,
    LIFConvolution,
    LIFScan,
    LIFSurrogate,
    Linear,
    Output,
    Quantize,
    Shift,
    Threshold,
)
from unscan.runtime.agreement import Mismatch
from unscan.runtime.agreement_account import account
from unscan.runtime.agreement_events import Own, feeding, largest, left, pulled, reaching
from unscan.runtime.agreement_replay import Replay, Side
from unscan.runtime.executors.integer_steps import step
from unscan.runtime.executors.reference import Reference

NOWHERE = Mismatch(0, 0, "", (), 0.0, 0.0, 1.0, 0.0)


def a_side(graph: Graph, x: np.ndarray) -> Side:
    return Side(Reference(graph).run(x), graph, x, exact=True)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(SINGLE), st.sampled_from([(6,), (4, 5), (2, 4, 5)]))
def test_weights_pulled_back_are_those_of_the_step(seed, kind, shape):
    rng = np.random.default_rng(seed)
    signal = Signal(Kind.REAL, shape)
    node = random_node(rng, kind, signal)
    assume(node is not None)
    inputs = {"x": signal}
    out = node.signal(inputs).shape
    weights = rng.standard_normal(out)
    back = pulled(node, weights, inputs)
    affine = {
        "Linear",
        "Conv1d",
        "Conv2d",
        "SumPool2d",
        "AvgPool2d",
        "Scale",
        "BatchNorm",
        "Flatten",
        "Reshape",
    }
    assert (back is not None) is (kind.__name__ in affine)
    if back is not None:
        x = rng.standard_normal((1, *shape))
        added = step(node, {}, x=x).value[0] - step(node, {}, x=np.zeros_like(x)).value[0]
        assert (weights * added).sum() == pytest.approx((back["x"] * x[0]).sum(), abs=1e-9)


def test_weights_go_through_what_joins_and_what_rounds():
    joined = Concatenate(2, 1)
    inputs = {"x0": Signal(Kind.REAL, (2, 3)), "x1": Signal(Kind.REAL, (2, 1))}
    back = pulled(joined, np.arange(8.0).reshape(2, 4), inputs)
    assert back["x0"].tolist() == [[0, 1, 2], [4, 5, 6]]
    assert back["x1"].tolist() == [[3], [7]]
    shift = pulled(Shift(shift=np.array([2, -1]), bits=8), np.ones(2), {"x": Signal(Kind.REAL, (2,))})
    assert shift["x"].tolist() == [0.25, 2.0]
    read = pulled(Quantize(bits=8, fraction=5), np.ones(2), {"x": Signal(Kind.REAL, (2,))})
    assert read["x"].tolist() == [32.0, 32.0]


def test_what_feeds_a_neuron_is_found_through_several_paths():
    first, second = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[10.0, 0.0], [0.0, 10.0]])
    graph = Graph(
        {
            "in": Input((2,), Kind.SPIKE),
            "a": Linear(first, np.array([0.5, 0.25])),
            "b": Linear(second),
            "neuron": lif(),
            "out": Output(),
        },
        [Edge("in", "a"), Edge("a", "b"), Edge("a", "neuron"), Edge("b", "neuron"), Edge("neuron", "out")],
    )
    fed = feeding(graph, "neuron", "x", (1,))
    assert list(fed.weights) == ["in"]
    assert fed.weights["in"].tolist() == [33.0, 44.0]
    assert fed.constant == 0.25 * 11


def every_neuron(graph: Graph, x: np.ndarray, rng: np.random.Generator):
    """One account at a neuron and step of each layer, drawn, beside the membranes of the layer."""
    side = a_side(graph, x)
    for name in graph.of(*SPIKING):
        membranes = side.execution.membranes[name]
        sample = int(rng.integers(x.shape[1]))
        at = int(rng.choice([0, len(x) - 1, rng.integers(len(x))]))
        neuron = tuple(int(rng.integers(n)) for n in membranes.shape[2:])
        one = side.only(sample)
        yield account(one, name, neuron, at, NOWHERE, 5), membranes[:, sample]


@settings(max_examples=60, deadline=None)
@given(graphs(), st.sampled_from([1, 25]), st.integers(0, 2**32 - 1))
def test_events_constants_and_resets_make_the_membrane(graph, steps, seed):
    rng = np.random.default_rng(seed)
    for found, membranes in every_neuron(graph, sequence(graph, steps, 2, seed % 97), rng):
        parts = [each.left for each in found.events]
        scale = 1 + np.abs(membranes).max() + sum(map(abs, parts)) + abs(found.constant) + abs(found.resets)
        assert found.follows == pytest.approx(found.membrane, abs=1e-9 * scale)
        assert abs(found.rest) < 1e-9 * scale
        assert not found.off
        assert found.arrived >= len([e for e in found.events if e.value])


def surrogate(rng: np.random.Generator) -> LIFSurrogate:
    sizes = {
        "temporal": (8, 8),
        "temporal_bias": (8,),
        "mixing": (8, 8),
        "mixing_bias": (8,),
        "readout": (8,),
    }
    drawn = {name: rng.normal(0, 0.3, size) for name, size in sizes.items()}
    return LIFSurrogate(
        beta=np.float64(0.1), threshold=np.float64(0.6), readout_bias=np.zeros(1), reset="zero", **drawn
    )


@pytest.mark.parametrize("kind", ["scan", "convolution", "annealed", "surrogate"])
def test_neurons_as_trained_have_an_account(kind):
    rng = np.random.default_rng(2)
    leaky = {"beta": np.float64(0.8), "threshold": np.float64(0.6)}
    node = {
        "scan": LIFScan(**leaky, reset="subtract", phase="next"),
        "convolution": LIFConvolution(**leaky, reset="none"),
        "annealed": LIFAnnealed(**leaky, reset="subtract", strength=np.float64(0.5), rounds=2),
        "surrogate": surrogate(rng),
    }[kind]
    graph = chain(input=Input((5,)), fc=linear(rng, 5, 7), neuron=node, output=Output())
    x = sequence(graph, 40, 2)
    for _ in range(10):
        for found, _ in every_neuron(graph, x, rng):
            assert found.follows == pytest.approx(found.membrane, abs=1e-12)
            assert not found.off
            if kind in ("scan", "convolution"):
                assert abs(found.rest) < 1e-12


@pytest.mark.parametrize("seed", range(12))
def test_whole_numbers_follow_exactly_and_the_rest_is_what_they_round(seed):
    rng = np.random.default_rng(seed)
    graph = integer_network(seed, stress=False) if seed % 3 else memory_network(seed)
    x = spikes_for(graph, 40, 3, seed)
    for found, _ in every_neuron(graph, x, rng):
        assert found.follows == found.membrane
        assert not found.off


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("phase", ["now", "next"])
def test_what_is_left_is_what_one_event_more_adds(reset, phase):
    rng = np.random.default_rng(5)
    fired = rng.random(20) < 0.2
    settings = {"reset": reset, "trained_reset": reset, "phase": phase, "threshold": np.float64(1)}
    for node in (
        lif(0.8, reset=reset, phase=phase),
        CubaLIF(beta=np.float64(0.8), alpha=np.float64(0.6), gain="1-beta", **settings),
    ):
        kept = left(node, Own((0,), (1,), fired.astype(float)))
        for s in range(20):
            i = u = 0.0
            for t in range(20):
                i = (0.6 * i if isinstance(node, CubaLIF) else 0.0) + (t == s)
                u = 0.8 * u + (0.2 if node.gain == "1-beta" else 1.0) * i
                if phase == "next" and reset == "zero" and t > 0 and fired[t - 1]:
                    u = 0.0
                reached = u
                if phase == "now" and reset == "zero" and fired[t]:
                    u = 0.0
            assert kept.arrived[s] == pytest.approx(reached)


def test_a_node_without_a_membrane_has_no_account():
    with pytest.raises(Unsupported, match="Output"):
        left(Output(), Own((0,), (1,), np.zeros(3)))


def test_events_are_ranked_by_size():
    events = {"a": np.array([[0.1, -3.0], [0.0, 2.0]]), "b": np.array([[2.5], [0.0]])}
    assert largest(events, 3) == [("a", 0, (1,)), ("b", 0, (0,)), ("a", 1, (1,))]
    assert largest(events, 99)[-1] == ("a", 0, (0,))
    assert len(largest(events, 99)) == 4


def test_layers_that_reach_a_neuron_are_found_through_delays_and_what_is_not_linear():
    graph = chain(
        input=Input((3,)),
        first=Threshold(threshold=np.float64(0.5)),
        late=Delay(steps=np.float64(4), shape=(3,), kind=Kind.SPIKE),
        fc=Linear(np.array([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])),
        second=lif(),
        leak=LI(beta=np.float64(0.5)),
        third=AdaptiveLIF(
            beta=np.float64(0.5), threshold=np.float64(1), kappa=np.float64(1), rho=np.float64(0.5),
            reset="zero", trained_reset="zero",
        ),
        output=Output(),
    )  # fmt: skip
    stops = frozenset({"first", "second", "third"})
    ((name, mask, lag),) = reaching(graph, "second", (0,), 9, stops)
    assert (name, mask.tolist(), lag) == ("first", [1, 0, 1], 4)
    assert reaching(graph, "second", (0,), 3, stops) == []
    ((name, mask, lag),) = reaching(graph, "third", (0,), 9, stops)
    assert (name, mask.tolist(), lag) == ("second", [1, 1], 0)


@settings(max_examples=30, deadline=None)
@given(graphs(), st.integers(0, 99))
def test_a_replay_sends_what_the_reference_sent(graph, seed):
    x = sequence(graph, 12, 2, seed)
    side = a_side(graph, x)
    sent = Replay(graph, side, 1, 12).sent(graph.of(Output)[0])
    np.testing.assert_allclose(sent, side.execution.outputs[:, 1], rtol=1e-12, atol=1e-12)
