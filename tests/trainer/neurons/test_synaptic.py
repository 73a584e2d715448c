"""The neuron behind a synaptic current: two fused passes against the loop of steps."""

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
from tests.trainer.recurrence.agreement import assert_same, first_partings, lattice, outcome
from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.leaky import Leaky
from unscan.trainer.neurons.synaptic import Synaptic
from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.recurrence.synaptic import synaptic, synaptic_loop, synaptic_step

RESETS = [("none", "now"), ("subtract", "now"), ("zero", "now"), ("subtract", "next"), ("zero", "next")]


def case(steps, shape, dtype=torch.float64):
    """x, i, u, alpha, beta, threshold."""
    torch.manual_seed(0)
    made = (
        torch.randn(steps, *shape) / 2,
        torch.randn(*shape),
        torch.randn(*shape),
        torch.rand(shape[-1]) * 0.8 + 0.1,
        torch.rand(shape[-1]) * 0.6 + 0.39,
        torch.rand(shape[-1]) * 0.5 + 0.5,
    )
    return tuple(value.to(dtype) for value in made)


def both(inputs, how):
    return (
        outcome(lambda x, i, u, *numbers, run=run: run(x, (i, u), *numbers, how), inputs)
        for run in (synaptic, synaptic_loop)
    )


@pytest.mark.parametrize("gain", ["1", "1-beta"])
@pytest.mark.parametrize("fires", [">=", ">"])
@pytest.mark.parametrize(("reset", "phase"), RESETS)
def test_equals_the_loop(reset, phase, fires, gain):
    got, want = both(case(150, (3, 25)), Firing(reset, phase, fires, gain))
    assert want[0][0].any()
    assert_same(got, want, 1e-12)


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
def test_lengths(steps, reset):
    assert_same(*both(case(steps, (2, 40)), Firing(reset)), 1e-12)


@pytest.mark.slow
def test_a_long_sequence():
    assert_same(*both(case(16384, (2, 40)), Firing("subtract")), 1e-12)


def test_float32_equals_the_float32_loop():
    assert_same(*both(case(500, (2, 40), torch.float32), Firing("subtract")), 2e-5)


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
def test_float32_first_leaves_float64_within_rounding_of_the_threshold(reset):
    x = lattice(1024, 64) / 2
    numbers = (torch.arange(64) % 2 / 2, torch.tensor(1.0), torch.tensor(0.7))
    how = Firing(reset)
    s32, _, _ = synaptic(x, None, *numbers, how)
    alpha, beta, threshold = wide = tuple(n.double() for n in numbers)

    # What rounding to 24 bits can have added up to in current and membrane, as long as the spikes are the same.
    unit = 2.0**-24
    off_i = off_u = torch.zeros(64).double()
    state = (off_i, off_u)
    spikes, distances, bounds = [], [], []
    for x_t in x.double():
        i, u = state
        s, m, state = synaptic_step(x_t, state, *wide, how)
        off_i = alpha * off_i + unit * ((alpha * i).abs() + state[0].abs())
        off_m = beta * off_u + off_i + unit * ((beta * u).abs() + m.abs())
        off_u = off_m * (1 - s) if reset == "zero" else off_m + unit * state[1].abs() * s
        spikes.append(s)
        distances.append((m - threshold).abs())
        bounds.append(1.001 * off_m)  # 1.001: roundings of what is rounded already
    first, parted = first_partings(s32, torch.stack(spikes))
    distance = torch.stack(distances).gather(0, first)[0]
    assert (distance[parted] <= torch.stack(bounds).gather(0, first)[0][parted]).all()


@pytest.mark.parametrize(("reset", "phase"), RESETS)
def test_steps_are_the_sequence(reset, phase):
    layer = Synaptic(6, torch.linspace(0.1, 0.9, 6), 0.8, 0.4, reset, phase=phase, gain="1-beta")
    spikes = assert_steps_are_the_sequence(layer, sequence(100))
    assert spikes.sum() > 10


def test_gradients_are_those_of_the_steps():
    layer = Synaptic(
        6, [0.7] * 6, 0.8, reset="subtract", learn_alpha=True, learn_beta=True, learn_threshold=True
    )
    assert_gradients_are_those_of_the_steps(layer.double(), sequence(100), 1e-12)


def test_without_a_current_of_its_own_it_is_the_leaky_neuron():
    x = sequence(100)
    assert torch.equal(Synaptic(6, 0.0, 0.8, reset="subtract")(x), Leaky(6, 0.8, reset="subtract")(x))


def test_stores_its_numbers():
    layer = Synaptic(6, [0.5] * 6, learn_alpha=True)
    assert layer.state_dict().keys() == {"stored_alpha", "stored_beta", "stored_threshold"}
    assert [name for name, _ in layer.named_parameters()] == ["stored_alpha"]
    assert (layer.reset, layer.phase, layer.fires, layer.gain) == ("zero", "now", ">=", "1")
    assert "reset='zero'" in repr(layer)


def test_learns():
    assert_learns(Synaptic(20, learn_alpha=True, learn_beta=True))


def test_refuses_what_does_not_fit():
    assert_refuses_wrong_shapes(Synaptic)
    x, u = torch.zeros(5, 2, 6), torch.zeros(2, 6)
    for alpha in (-0.1, 1.1, math.nan, [0.5] * 5):
        with pytest.raises(InvalidInput, match="alpha"):
            Synaptic(6, alpha)
    with pytest.raises(InvalidInput, match="Option reset"):
        Synaptic(6, reset="soft")
    with pytest.raises(InvalidInput, match="state is a Tensor, but it must be two tensors"):
        Synaptic(6)(x, u)
    with pytest.raises(InvalidInput, match=r"state has shape \(3, 6\)"):
        Synaptic(6).step(x[0], (u, torch.zeros(3, 6)))
    layer = Synaptic(6, learn_alpha=True)
    with torch.no_grad():
        layer.stored_alpha.fill_(math.nan)
    with pytest.raises(InvalidInput, match="alpha has become NaN"):
        layer(x)
