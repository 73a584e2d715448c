"""The reference against loops written out by hand, one neuron at a time, from the equations."""

import itertools

import numpy as np
import pytest

from tests.graphs import chain, lif, linear, sequence, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import LI, Activation, BatchNorm, Flatten, Input, Output, Scale
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES, RESETS
from unscan.runtime.executors.reference import Reference

RNG = np.random.default_rng(3)


def by_hand(x, beta, theta, reset, phase, fires, gain):
    """One neuron, from the page of equations: spikes and membranes before the reset."""
    spikes, membranes, u, fired = [], [], 0.0, False
    for current in x:
        u = beta * u + (current if gain == "1" else (1 - beta) * current)
        if phase == "next" and fired:
            u = u - theta if reset == "subtract" else 0.0 if reset == "zero" else u
        fired = u >= theta if fires == ">=" else u > theta
        spikes.append(fired)
        membranes.append(u)
        if phase == "now" and fired:
            u = u - theta if reset == "subtract" else 0.0 if reset == "zero" else u
    return np.array(spikes), np.array(membranes)


@pytest.mark.parametrize(
    ("reset", "phase", "fires", "gain"), [*itertools.product(RESETS, PHASES, FIRES, GAINS)]
)
@pytest.mark.parametrize("steps", [1, 63, 100])
def test_lif_is_its_equation(reset, phase, fires, gain, steps):
    beta, theta = RNG.uniform(0, 1, 4), RNG.uniform(0.3, 1, 4)
    node = lif(beta, theta, reset=reset, phase=phase, fires=fires, gain=gain)
    graph = chain(input=Input((4,)), n=node, output=Output())
    x = RNG.normal(0.3, 1, (steps, 3, 4))
    run = Reference(graph).run(x)
    for sample, neuron in itertools.product(range(3), range(4)):
        spikes, membranes = by_hand(
            x[:, sample, neuron], beta[neuron], theta[neuron], reset, phase, fires, gain
        )
        np.testing.assert_array_equal(run.spikes["n"][:, sample, neuron], spikes)
        np.testing.assert_allclose(run.membranes["n"][:, sample, neuron], membranes, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(run.outputs, run.spikes["n"])


@pytest.mark.parametrize(("fires", "expected"), [(">=", True), (">", False)])
def test_a_tie_fires_as_the_node_says(fires, expected):
    graph = chain(input=Input((1,)), n=lif(0.5, 1.0, fires=fires), output=Output())
    run = Reference(graph).run(np.array([0.5, 0.75]).reshape(2, 1, 1))
    assert run.membranes["n"].ravel().tolist() == [0.5, 1.0]
    assert run.spikes["n"].ravel().tolist() == [False, expected]


def test_a_spike_at_the_first_and_the_last_step_resets():
    graph = chain(input=Input((1,)), n=lif(1.0, 1.0, reset="subtract"), output=Output())
    run = Reference(graph).run(np.array([1.5, 0.0, 0.6]).reshape(3, 1, 1))
    np.testing.assert_allclose(run.membranes["n"].ravel(), [1.5, 0.5, 1.1])
    np.testing.assert_allclose(run.state["n.u"].ravel(), [0.1])


def test_stateless_nodes_are_their_equations():
    x = RNG.normal(size=(2, 3, 2, 3))
    w = linear(RNG, 6, 4)
    norm = BatchNorm(*(RNG.uniform(0.5, 1.5, 6) for _ in range(4)), epsilon=0.1)
    scale = RNG.normal(size=6)
    graph = chain(input=Input((2, 3)), flat=Flatten(), norm=norm, scale=Scale(scale), fc=w, output=Output())
    flat = x.reshape(2, 3, 6)
    normed = (flat - norm.mean) / np.sqrt(norm.variance + 0.1) * norm.weight + norm.bias
    np.testing.assert_allclose(
        Reference(graph).run(x).outputs, (normed * scale) @ w.weight.T + w.bias, atol=1e-13
    )


@pytest.mark.parametrize("function", ["relu", "sigmoid", "tanh", "silu", "gelu"])
def test_activations_are_those_of_torch(function):
    import torch

    x = np.concatenate([RNG.normal(0, 3, 50), [0.0, -800.0, 800.0]]).reshape(-1, 1, 1)
    ours = Reference(chain(input=Input((1,)), f=Activation(function), output=Output())).run(x).outputs
    named = getattr(torch.nn.functional, function)
    np.testing.assert_allclose(ours, named(torch.from_numpy(x)).numpy(), rtol=1e-12, atol=1e-15)


def test_edges_into_one_port_add_up():
    nodes = {
        "input": Input((3,)),
        "fc": linear(RNG, 3, 3),
        "li": LI(beta=np.float64(0.5)),
        "output": Output(),
    }
    edges = [
        Edge("input", "fc"),
        Edge("fc", "li"),
        Edge("input", "li"),
        Edge("li", "output"),
        Edge("input", "output"),
    ]
    x = RNG.normal(size=(1, 2, 3))
    fc = x @ nodes["fc"].weight.T + nodes["fc"].bias
    np.testing.assert_allclose(Reference(Graph(nodes, edges)).run(x).outputs, fc + 2 * x, atol=1e-14)


@pytest.mark.parametrize("cut", [1, 31, 62])
@pytest.mark.parametrize("reset", RESETS)
def test_a_sequence_cut_in_two_is_one_run(cut, reset):
    graph = two_layers(reset)
    x = sequence(graph, 63, 3)
    whole = Reference(graph).run(x)
    first = Reference(graph).run(x[:cut])
    second = Reference(graph).run(x[cut:], first.state)
    for name in whole.spikes:
        joined = np.concatenate([first.spikes[name], second.spikes[name]])
        np.testing.assert_array_equal(joined, whole.spikes[name])
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    assert all((second.state[key] == whole.state[key]).all() for key in graph.states)
    assert (first.counts + second.counts).total == whole.counts.total


def test_step_after_step_is_one_run():
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 20, 2)
    reference, state, outputs = Reference(graph), None, []
    for x_t in x:
        y, state = reference.step(x_t, state)
        outputs.append(y)
    np.testing.assert_array_equal(outputs, reference.run(x).outputs)


def test_without_recording_only_outputs_are_kept():
    graph = two_layers()
    x = sequence(graph, 5, 2)
    bare = Reference(graph).run(x, record=False)
    assert bare.spikes == {}
    assert bare.membranes == {}
    np.testing.assert_array_equal(bare.outputs, Reference(graph).run(x).outputs)


WRONG = {
    "a batch is missing": (np.zeros((5, 6)), r"shape \(5, 6\), wanted \(T, B, 6\)"),
    "another width": (np.zeros((5, 2, 7)), r"wanted \(T, B, 6\)"),
    "no step": (np.zeros((0, 2, 6)), "at least one step"),
    "not a number": (np.full((5, 2, 6), np.nan), "60 numbers that are not finite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_says_got_and_wanted(case):
    x, message = WRONG[case]
    with pytest.raises(InvalidInput, match=message):
        Reference(two_layers()).run(x)


def test_numbers_where_spikes_are_taken_are_refused():
    with pytest.raises(InvalidInput, match="takes spikes"):
        Reference(two_layers(kind=Kind.SPIKE)).run(np.full((5, 2, 6), 0.5))


def test_a_state_of_another_batch_is_refused():
    graph = two_layers()
    state = Reference(graph).run(sequence(graph, 5, 2)).state
    with pytest.raises(InvalidInput, match=r"carried state does not fit.*lif1\.u"):
        Reference(graph).run(sequence(graph, 5, 3), state)
