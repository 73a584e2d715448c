"""The neuron that fires by chance: the same chance in every form, the stated probability, the stated gradient."""

import math

import pytest
import torch

from tests.trainer.neurons.shared import (
    assert_gradients_are_those_of_the_steps,
    assert_learns,
    assert_refuses_wrong_shapes,
    assert_steps_are_the_sequence,
    sequence,
    stepped,
)
from tests.trainer.recurrence.agreement import lattice
from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.stochastic import StochasticLeaky
from unscan.trainer.recurrence.stream import uniform


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_steps_are_the_sequence(steps, dtype):
    layer = StochasticLeaky(6, torch.linspace(0.1, 0.97, 6), 0.5, seed=9)
    spikes = assert_steps_are_the_sequence(layer, sequence(steps, dtype=dtype))
    assert 0 < spikes.mean() < 1


@pytest.mark.slow
def test_steps_are_the_sequence_when_it_is_long():
    assert_steps_are_the_sequence(StochasticLeaky(6, 0.99), sequence(16384))


def test_gradients_are_those_of_the_steps():
    layer = StochasticLeaky(6, [0.8] * 6, 0.5, learn_beta=True, learn_threshold=True).double()
    assert_gradients_are_those_of_the_steps(layer, sequence(100), 1e-12)


@pytest.mark.parametrize("width", [0.5, 1.0, 3.0])
def test_fires_with_the_stated_probability(width):
    n = 200_000
    layer = StochasticLeaky(1, 0.0, 1.0, width=width, seed=4)
    for u in (1 - 0.6 * width, 1 - 0.4 * width, 1.0, 1 + 0.25 * width, 1 + 0.6 * width):
        p = min(1.0, max(0.0, (u - 1) / width + 0.5))
        rate = layer(torch.full((n, 1), u, dtype=torch.float64)).mean().item()
        assert abs(rate - p) <= 5 * math.sqrt(p * (1 - p) / n)


def test_gradient_is_that_of_the_probability():
    layer = StochasticLeaky(6, 0.8, 0.5, width=2.0).double()
    x = sequence().requires_grad_()
    spikes, membrane = layer(x, return_membrane=True)
    weight = sequence(40)
    (got,) = torch.autograd.grad((spikes * weight).sum(), x, retain_graph=True)
    probability = ((membrane - layer.threshold) / 2.0 + 0.5).clamp(0, 1)
    (want,) = torch.autograd.grad((probability * weight).sum(), x)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_float32_leaves_float64_within_rounding_of_the_level():
    x = lattice(1024, 4, 6)
    layer = StochasticLeaky(6, 1.0, width=2.0**-22)
    s32 = layer(x)
    s64, membrane = layer.double()(x.double(), return_membrane=True)
    differs = s32 != s64
    assert differs.any()
    unit, off, bounds = 2.0**-24, torch.zeros(4, 6).double(), []
    before = torch.cat((torch.zeros_like(membrane[:1]), membrane[:-1]))
    for u, m in zip(before, membrane, strict=True):
        off = layer.beta * off + unit * ((layer.beta * u).abs() + m.abs())
        bounds.append(off)
    level = layer.width * (uniform(0, torch.tensor(0), 1024, 24, torch.float64).view(1024, 4, 6) - 0.5)
    distance = membrane - layer.threshold
    bound = 1.001 * (torch.stack(bounds) + unit * (distance.abs() + level.abs()))
    assert ((distance - level).abs() <= bound)[differs].all()


def test_the_stream_belongs_to_seed_step_and_lane():
    x = sequence(200)
    one, same, other = (StochasticLeaky(6, seed=seed)(x) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    layer = StochasticLeaky(6, 0.0, 0.5)
    still = torch.full((50, 2, 6), 0.5)
    late, state = layer(still, (torch.zeros(2, 6), torch.tensor(2**32 - 10)), return_state=True)
    assert not torch.equal(late, layer(still))
    assert state[1].item() == 40
    assert torch.equal(late[10:], layer(still)[:40])  # steps are counted modulo 2^32
    assert torch.equal(layer(still.reshape(50, 12, 1).expand(50, 12, 6))[:, :2], layer(still))


def test_the_state_is_membrane_and_steps_done():
    layer, x = StochasticLeaky(6), sequence()
    _, (u, done) = layer(x, return_state=True)
    assert u.shape == (2, 6)
    assert done.item() == 40
    assert done.dtype == torch.int64
    assert stepped(layer, x)[1][1].item() == 40


def test_no_numbers_but_decay_and_threshold_are_stored():
    layer = StochasticLeaky(6, learn_beta=True)
    assert layer.state_dict().keys() == {"stored_beta", "stored_threshold"}
    assert (layer.reset, layer.fires, layer.seed, layer.width) == ("none", ">=", 0, 1.0)
    assert "seed=0" in repr(layer)


def test_learns():
    assert_learns(StochasticLeaky(40, learn_beta=True, width=2.0))


def test_refuses_what_does_not_fit():
    assert_refuses_wrong_shapes(StochasticLeaky)
    x, u = torch.zeros(5, 2, 6), torch.zeros(2, 6)
    for seed in (-1, 2**32, 0.5, True):
        with pytest.raises(InvalidInput, match="seed"):
            StochasticLeaky(6, seed=seed)
    for width in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="width"):
            StochasticLeaky(6, width=width)
    with pytest.raises(InvalidInput, match="Option fires"):
        StochasticLeaky(6, fires="=")
    with pytest.raises(InvalidInput, match="state is a Tensor, but it must be the membrane and the number"):
        StochasticLeaky(6)(x, u)
    with pytest.raises(InvalidInput, match="must be one torch.int64"):
        StochasticLeaky(6)(x, (u, u))
    with pytest.raises(InvalidInput, match=r"state has shape \(3, 6\)"):
        StochasticLeaky(6)(x, (torch.zeros(3, 6), torch.tensor(0)))
