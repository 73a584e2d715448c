import numpy as np
import pytest
from torch import nn

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Builder
from unscan.compiler.frontends.resting import Membrane, raised, spiking
from unscan.compiler.ir import Dialect
from unscan.compiler.nodes import LIF, CubaLIF, Input, Output
from unscan.compiler.spec import check
from unscan.runtime.executors.reference import Reference

NEURONS = 6
RANGE = np.linspace(-0.2, 0.3, NEURONS)


def read(membrane, alpha=None):
    """Return the graph of a membrane."""
    to = Builder(np.float64)
    x = to.add("input", Input((NEURONS,)))
    to.add("output", Output(), spiking(nn.Identity(), to, "neuron", x, membrane, alpha))
    return check(to.graph(), Dialect.ITERATIVE)


def fired(membrane, x, alpha=0.0):
    """Run the equation of a membrane in its own units."""
    v, i, spikes = np.broadcast_to(np.asarray(membrane.start, float), x[0].shape), 0.0, []
    beta = np.asarray(membrane.beta)
    for x_t in x:
        i = alpha * i + x_t
        v = beta * v + (1 - beta) * membrane.rest + (1 - beta if membrane.gain == "1-beta" else 1) * i
        s = v >= membrane.threshold if membrane.fires == ">=" else v > membrane.threshold
        v = v - membrane.threshold * s if membrane.low is None else np.where(s, membrane.low, v)
        spikes.append(s)
    return np.array(spikes, float)


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("alpha", [None, 0.4])
@pytest.mark.parametrize("gain", ["1", "1-beta"])
@pytest.mark.parametrize("low", [None, 0.0, -0.4, RANGE])
@pytest.mark.parametrize(("rest", "start"), [(0.0, 0.0), (0.2, -3.0), (RANGE, RANGE), (0.1, 0.6)])
def test_a_membrane_fires_as_its_equation_does(steps, alpha, gain, low, rest, start):
    membrane = Membrane(
        np.linspace(0.3, 0.9, NEURONS), np.linspace(0.5, 0.9, NEURONS), low, rest, start, ">=", gain
    )
    x = 0.3 + np.random.default_rng(steps).normal(size=(steps, 3, NEURONS))
    graph = read(membrane, alpha)
    expected = fired(membrane, x, alpha or 0.0)
    np.testing.assert_array_equal(Reference(graph).run(x).outputs, expected)
    assert steps == 1 or 0.05 < expected.mean() < 0.95


def test_a_sequence_cut_in_two_equals_one_run():
    membrane = Membrane(0.8, 0.7, -0.3, 0.1, 0.5, ">", "1-beta")
    reference = Reference(read(membrane, 0.5))
    x = 1.5 * np.random.default_rng(0).normal(size=(63, 2, NEURONS))
    whole = reference.run(x)
    first = reference.run(x[:20])
    second = reference.run(x[20:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    assert whole.outputs.any()


def test_a_settled_membrane_is_one_node():
    settled = Membrane(0.8, 0.7, 0.1, 0.1, 0.1, ">")
    assert [type(node) for node in read(settled).nodes.values()] == [Input, LIF, Output]
    assert [type(node) for node in read(settled, 0.5).nodes.values()] == [Input, CubaLIF, Output]


def test_what_a_membrane_is_read_less_is_noted():
    notes = read(Membrane(0.8, 0.7, 0.1, 0.1, 0.1, ">")).history
    assert notes == ("neuron: its membrane and threshold are read less 0.1, where a spike leaves it",)


@pytest.mark.parametrize(
    ("membrane", "alpha", "said"),
    [
        (Membrane(0.5, 0.2, 0.2, 0.0, 0.0, ">="), None, "its threshold, 0.2, is not above 0.2"),
        (Membrane(0.5, 0.0, None, 0.0, 0.0, ">="), None, "its threshold, 0, is not above 0,"),
        (Membrane(-0.5, 1.0, None, 0.0, 0.0, ">="), None, "its membrane is multiplied by -0.5 at each step"),
        (Membrane(0.5, 1.0, None, 0.0, 0.0, ">="), 1.5, "its current is multiplied by 1.5 at each step"),
    ],
)
def test_what_no_node_says_is_refused(membrane, alpha, said):
    with pytest.raises(Unsupported, match=said):
        read(membrane, alpha)


def test_a_number_is_added_to_each_neuron():
    to = Builder(np.float64)
    to.add("output", Output(), raised(to, "raised", to.add("input", Input((NEURONS,))), RANGE))
    x = np.random.default_rng(0).normal(size=(3, 2, NEURONS))
    np.testing.assert_array_equal(Reference(check(to.graph())).run(x).outputs, x + RANGE)
