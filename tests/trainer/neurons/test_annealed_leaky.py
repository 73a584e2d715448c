"""The annealed neuron: its schedule, its steps, and the two neurons that it lies between."""

import math

import pytest
import torch
from torch import nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer import LeakyIntegrator, StateLeaky
from unscan.trainer.neurons.annealed_leaky import AnnealedLeaky, scheduled


def sequence(steps=40, *shape):
    torch.manual_seed(3)
    return torch.randn(steps, *(shape or (2, 6)), dtype=torch.float64)


def stepped(layer, x, state=None):
    outputs = []
    for x_t in x:
        y, state = layer.step(x_t, state)
        outputs.append(y)
    return torch.stack(outputs), state


@pytest.mark.parametrize("rounds", [1, 2, 6, None])
@pytest.mark.parametrize("progress", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("gain", ["1", "1-beta"])
def test_steps_are_the_sequence(rounds, progress, gain):
    layer = AnnealedLeaky(6, 0.8, 0.3, rounds=rounds, gain=gain)
    layer.anneal(progress)
    x = sequence(100)
    spikes, membrane, state = layer(x, return_membrane=True, return_state=True)
    want, last = stepped(layer, x)
    assert spikes.sum() > 10
    assert torch.equal(spikes, want)
    assert torch.equal(state, last)
    assert torch.equal(spikes, (membrane >= layer.threshold.double()).double())
    first, carried = layer(x[:17], return_state=True)
    assert torch.equal(torch.cat((first, layer(x[17:], carried))), spikes)
    assert torch.equal(stepped(layer, x[17:], carried)[0], spikes[17:])


@pytest.mark.parametrize("beta", [0.125, 0.9])
def test_no_strength_is_state_leaky_and_gradients_agree(beta):
    grads = []
    options = {"learn_beta": True, "learn_threshold": True}
    for layer in (AnnealedLeaky(6, beta, 0.4, **options), StateLeaky(6, beta, 0.4, form="scan", **options)):
        layer.double()
        x = sequence(100).requires_grad_()
        spikes, membrane = layer(x, return_membrane=True)
        (spikes.sin() * sequence(100)).sum().add((membrane**2).mean()).backward()
        grads.append((spikes, membrane, x.grad, layer.stored_beta.grad, layer.stored_threshold.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    assert torch.equal(grads[0][0], grads[1][0])


@pytest.mark.parametrize("beta", [0.125, 0.9])
@pytest.mark.parametrize("steps", [1, 63, 100, 512])
def test_enough_rounds_are_the_deployed_neuron(beta, steps):
    layer = AnnealedLeaky(6, beta, 0.7, rounds=None, learn_threshold=True)
    layer.anneal(1.0)
    x = sequence(steps, 4, 6)
    spikes = layer(x)
    exact = layer.deployed()
    assert (exact.reset, exact.phase, exact.how.fires) == ("subtract", "now", ">=")
    assert torch.equal(spikes, exact(x))
    assert layer.converged
    limited = AnnealedLeaky(6, beta, 0.7, rounds=layer.rounds_used)
    limited.anneal(1.0)
    assert torch.equal(limited(x), spikes)
    assert limited.rounds_used == layer.rounds_used
    if steps > 1:
        assert layer.rounds_used > (2 if beta == 0.9 else 1)
        once = AnnealedLeaky(6, beta, 0.7)
        once.anneal(1.0)
        assert torch.equal(once(x), spikes) == (layer.rounds_used == 2)  # the second found nothing to change
        assert (once.rounds_used, once.converged) == (1, False)


def test_the_exact_neuron_has_the_same_numbers():
    layer = AnnealedLeaky(6, torch.linspace(0.1, 0.9, 6), 0.4, fires=">", gain="1-beta").double()
    exact = layer.deployed()
    assert torch.equal(exact.beta, layer.beta)
    assert exact.beta.dtype == torch.float64
    assert (exact.fires, exact.gain, exact.threshold.item()) == (">", "1-beta", layer.threshold.item())


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        ("linear", [0, 0, 0.5 * 0.8, 0.8]),
        ("cosine", [0, 0, 0.5 * 0.8, 0.8]),
        ("constant", [0, 0.8, 0.8, 0.8]),
    ],
)
def test_schedules(schedule, values):
    layer = AnnealedLeaky(6, schedule=schedule, warm_up=0.2, end=0.8)
    assert layer.strength.item() == 0
    for progress, value in zip((0.1, 0.2, 0.6, 1.0), values, strict=True):
        layer.anneal(progress)
        assert layer.strength.item() == pytest.approx(value, abs=1e-7)
        assert layer.strength.item() == pytest.approx(scheduled(schedule, progress, 0.2, 0.8), abs=1e-7)


def test_schedules_between_their_ends():
    assert scheduled("linear", 0.25, 0.0, 1.0) == 0.25
    assert scheduled("cosine", 0.25, 0.0, 1.0) == pytest.approx((1 - math.sqrt(0.5)) / 2)
    assert AnnealedLeaky(6, schedule="constant", warm_up=0.0, end=0.6).strength.item() == pytest.approx(0.6)
    steps = [scheduled("cosine", i / 100, 0.1, 1.0) for i in range(101)]
    assert steps == sorted(steps)
    assert (steps[10], steps[100]) == (0, 1)


def test_the_strength_is_saved_with_the_weights():
    layer = AnnealedLeaky(6)
    layer.anneal(0.7)
    again = AnnealedLeaky(6)
    again.load_state_dict(layer.state_dict())
    assert again.strength.item() == layer.strength.item() > 0.5
    assert layer.state_dict().keys() == {"stored_beta", "stored_threshold", "stored_strength"}


def test_a_learned_strength_has_a_gradient_and_no_schedule():
    layer = AnnealedLeaky(6, 0.8, 0.5, learn_reset=True, end=0.5).double()
    layer.anneal(0.0)
    assert layer.strength.item() == 0.5
    _, membrane = layer(sequence(), return_membrane=True)
    membrane.sum().backward()
    by = 1e-6
    sums = []
    for strength in (0.5 - by, 0.5 + by):
        with torch.no_grad():
            layer.stored_strength.fill_(strength)
            sums.append(layer(sequence(), return_membrane=True)[1].sum().item())
    assert layer.stored_strength.grad.item() == pytest.approx((sums[1] - sums[0]) / (2 * by), rel=1e-6)


def test_stands_in_a_sequential_and_learns():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 20),
        AnnealedLeaky(20, learn_beta=True, learn_reset=True),
        nn.Linear(20, 3),
        LeakyIntegrator(3),
    )
    x, want = sequence(25, 8, 6).float(), torch.randint(3, (8,))
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x)[-1], want)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]


def test_annealing_shrinks_the_gap():
    x = sequence(200, 4, 6)
    gaps = []
    for progress in (0.0, 0.5, 1.0):
        layer = AnnealedLeaky(6, 0.5, 0.8, rounds=3)
        layer.anneal(progress)
        gaps.append((layer(x) != layer.deployed()(x)).sum().item())
    assert gaps[0] > gaps[1] > gaps[2]


def test_half_precision_inputs_are_taken_as_float32():
    layer = AnnealedLeaky(6, 0.8, 0.3)
    x = sequence().bfloat16()
    spikes, membrane = layer(x, return_membrane=True)
    assert membrane.dtype == torch.float32
    assert torch.equal(spikes, layer(x.float()))


def test_refuses_what_does_not_fit():
    for options, message in (
        ({"rounds": 0}, "rounds is 0"),
        ({"rounds": True}, "rounds is True"),
        ({"schedule": "step"}, "Option schedule is 'step'"),
        ({"warm_up": 1.0}, "warm_up is 1.0"),
        ({"end": 1.5}, "end is 1.5"),
        ({"end": math.nan}, "end is nan"),
        ({"beta": 1.2}, "beta is 1.2"),
        ({"surrogate": "bump"}, "no surrogate"),
    ):
        with pytest.raises(InvalidInput, match=message):
            AnnealedLeaky(6, **options)
    layer = AnnealedLeaky(6)
    for progress in (-0.1, 1.1, math.nan):
        with pytest.raises(InvalidInput, match="progress of training"):
            layer.anneal(progress)
    with pytest.raises(InvalidInput, match=r"state has shape \(2, 6\).*\(2, 2, 6\)"):
        layer(sequence(), torch.zeros(2, 6))
    with pytest.raises(InvalidInput, match="channels"):
        layer.step(torch.zeros(2, 7))
    with pytest.raises(InvalidInput, match="time first"):
        layer(torch.zeros(6))
