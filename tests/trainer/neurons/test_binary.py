"""The threshold alone."""

import pytest
import torch

from tests.trainer.neurons.shared import (
    assert_gradients_are_those_of_the_steps,
    assert_learns,
    assert_refuses_wrong_shapes,
    assert_steps_are_the_sequence,
    sequence,
)
from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.binary import BinaryThreshold
from unscan.trainer.neurons.leaky import Leaky


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_the_sequence(steps, dtype):
    x = sequence(steps, dtype=dtype)
    spikes = assert_steps_are_the_sequence(BinaryThreshold(6, 0.3), x)
    assert spikes.dtype == dtype
    assert torch.equal(spikes, (x >= torch.tensor(0.3).to(dtype)).to(dtype))


def test_is_the_leaky_neuron_that_forgets_at_once():
    x = sequence()
    layers = (BinaryThreshold(6, 0.3, learn_threshold=True), Leaky(6, 0.0, 0.3, "none", learn_threshold=True))
    results = []
    for layer in layers:
        leaf = x.clone().requires_grad_()
        spikes = layer(leaf)
        (spikes * sequence(40)).sum().backward()
        results.append((spikes.detach(), leaf.grad, layer.stored_threshold.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


def test_gradients_are_those_of_the_steps():
    layer = BinaryThreshold(6, [0.3] * 6, learn_threshold=True).double()
    assert_gradients_are_those_of_the_steps(layer, sequence(), 1e-13)


@pytest.mark.parametrize(("fires", "spikes"), [(">=", 1.0), (">", 0.0)])
def test_an_input_exactly_at_the_threshold(fires, spikes):
    assert BinaryThreshold(6, 0.3, fires=fires)(torch.full((1, 6), 0.3)).unique().tolist() == [spikes]


def test_returns_in_the_stated_order():
    layer, x = BinaryThreshold(6), sequence()
    spikes, membrane, state = layer(x, return_membrane=True, return_state=True)
    assert membrane is x
    assert state is None
    assert layer(x, return_state=True)[1] is None
    assert layer.step(x[0])[1] is None
    assert torch.equal(layer(x), spikes)


def test_has_a_threshold_and_nothing_else():
    layer = BinaryThreshold(6, [0.5] * 6, learn_threshold=True)
    assert layer.state_dict().keys() == {"stored_threshold"}
    assert (layer.reset, layer.phase, layer.fires, layer.gain) == ("none", "now", ">=", "1")
    assert "6" in repr(layer)


def test_learns():
    assert_learns(BinaryThreshold(20, learn_threshold=True))


def test_refuses_what_does_not_fit():
    assert_refuses_wrong_shapes(BinaryThreshold)
    with pytest.raises(InvalidInput, match="has no state, but a Tensor"):
        BinaryThreshold(6)(torch.zeros(3, 2, 6), torch.zeros(2, 6))
    with pytest.raises(InvalidInput, match="has no state"):
        BinaryThreshold(6).step(torch.zeros(2, 6), torch.zeros(2, 6))
    with pytest.raises(InvalidInput, match="threshold"):
        BinaryThreshold(6, 0)
    with pytest.raises(InvalidInput, match="Option fires"):
        BinaryThreshold(6, fires="=")
