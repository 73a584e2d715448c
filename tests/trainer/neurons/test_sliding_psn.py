"""The sliding parallel spiking neuron."""

import math

import pytest
import torch

from tests.trainer.neurons.shared import (
    assert_gradients_are_those_of_the_steps,
    assert_learns,
    assert_refuses_wrong_shapes,
    assert_steps_are_the_sequence,
    sequence,
)
from tests.trainer.recurrence.agreement import lattice
from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.sliding_psn import SlidingPSN
from unscan.trainer.neurons.state_leaky import StateLeaky
from unscan.trainer.recurrence.fir import fir_loop


@pytest.mark.parametrize("steps", [1, 3, 7, 8, 63, 100, 1024])
@pytest.mark.parametrize("order", [1, 2, 8])
def test_steps_are_the_sequence(steps, order):
    spikes = assert_steps_are_the_sequence(SlidingPSN(6, order, 0.8, 0.3, fires=">"), sequence(steps))
    assert spikes.any()


@pytest.mark.parametrize("beta", [0.7, [0.2, 0.3, 0.5, 0.6, 0.7, 0.9]])
def test_gradients_are_those_of_the_steps(beta):
    layer = SlidingPSN(6, 5, beta, 0.3, learn_threshold=True).double()
    assert_gradients_are_those_of_the_steps(layer, sequence(100), 1e-12)


def test_starts_as_the_reset_free_leaky_neuron_cut_short():
    x = sequence(20)
    for beta in (0.7, torch.linspace(0.1, 0.9, 6)):
        full, _, _ = SlidingPSN(6, 20, beta)(x, return_membrane=True, return_state=True)
        assert torch.equal(full, StateLeaky(6, beta)(x))
    assert SlidingPSN(6, 4, 0.5).weight.tolist() == [1, 0.5, 0.25, 0.125]
    assert SlidingPSN(6, 4, [0.5] * 6).weight.shape == (6, 4)


def test_float32_leaves_float64_within_rounding_of_the_threshold():
    layer = SlidingPSN(6, 8, 0.5, 0.5)
    x = lattice(1024, 2, 6)
    s32 = layer(x)
    s64, membrane, _ = layer.double()(x.double(), return_membrane=True, return_state=True)
    differs = s32 != s64
    assert differs.any()
    # k products and k - 1 additions, each rounded to 24 bits: at most k roundings on any term.
    weight = layer.weight.detach().abs()
    bound = 8.001 * 2.0**-24 * fir_loop(x.double().abs(), torch.zeros(7, 2, 6).double(), weight)
    assert ((membrane - 0.5).abs() <= bound)[differs].all()


def test_returns_in_the_stated_order():
    layer, x = SlidingPSN(6, 4), sequence()
    spikes, membrane, state = layer(x, return_membrane=True, return_state=True)
    assert torch.equal(state, x[-3:])
    assert torch.equal(spikes, (membrane >= 1).double())
    assert [o.shape for o in layer(x, return_state=True)] == [(40, 2, 6), (3, 2, 6)]
    assert layer(x[:, 0]).shape == (40, 6)
    _, short = layer(x[:2], return_state=True)
    assert torch.equal(short, torch.cat((torch.zeros_like(x[:1]), x[:2])))


def test_has_weights_and_a_threshold_and_nothing_else():
    layer = SlidingPSN(6, 4)
    assert layer.state_dict().keys() == {"weight", "stored_threshold"}
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert not SlidingPSN(6, 4, learn_weight=False).weight.requires_grad
    assert (layer.order, layer.reset, layer.phase, layer.fires, layer.gain) == (4, "none", "now", ">=", "1")
    assert "order=4" in repr(layer)


def test_learns():
    assert_learns(SlidingPSN(20, 4, learn_threshold=True))


def test_refuses_what_does_not_fit():
    assert_refuses_wrong_shapes(SlidingPSN)
    for order in (0, -1, 2.0, True):
        with pytest.raises(InvalidInput, match="order"):
            SlidingPSN(6, order)
    for beta in (-0.1, 1.1, math.nan, [0.5] * 5):
        with pytest.raises(InvalidInput, match="beta"):
            SlidingPSN(6, 4, beta)
    with pytest.raises(
        InvalidInput, match=r"state has shape \(2, 6\), but the last 3 inputs have \(3, 2, 6\)"
    ):
        SlidingPSN(6, 4)(torch.zeros(5, 2, 6), torch.zeros(2, 6))
    layer = SlidingPSN(6, 4)
    with torch.no_grad():
        layer.weight[0] = math.nan
    with pytest.raises(InvalidInput, match="weight has become NaN"):
        layer(torch.zeros(5, 2, 6))
