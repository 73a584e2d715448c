"""What the neuron layers add to the recurrences: parameters, states, shapes and errors."""

import math

import pytest
import torch
from torch import nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer import Leaky, LeakyIntegrator, LinearLeaky, StateLeaky
from unscan.trainer.neurons.leaky_integrator import settle_form

LAYERS = {
    "leaky": lambda **k: Leaky(6, **k),
    "state": lambda **k: StateLeaky(6, **k),
    "integrator": lambda **k: LeakyIntegrator(6, **k),
}
RESETS = [("none", "now"), ("subtract", "now"), ("zero", "now"), ("subtract", "next"), ("zero", "next")]


def sequence(steps=40, *shape):
    torch.manual_seed(3)
    return torch.randn(steps, *(shape or (2, 6)), dtype=torch.float64)


def stepped(layer, x, state=None):
    outputs = []
    for x_t in x:
        y, state = layer.step(x_t, state)
        outputs.append(y)
    return torch.stack(outputs), state


@pytest.mark.parametrize(("reset", "phase"), RESETS)
@pytest.mark.parametrize("form", ["fused", "loop"])
def test_leaky_steps_are_the_sequence(reset, phase, form):
    layer = Leaky(6, 0.8, reset=reset, phase=phase, gain="1-beta", threshold=0.2, form=form)
    x = sequence()
    spikes, membrane, state = layer(x, return_membrane=True, return_state=True)
    want, last = stepped(layer, x)
    assert spikes.sum() > 10
    assert torch.equal(spikes, want)
    assert torch.equal(state, last)
    assert torch.equal(spikes, (membrane >= layer.threshold.double()).double())
    first, carried = layer(x[:17], return_state=True)
    assert torch.equal(torch.cat((first, layer(x[17:], carried))), spikes)


@pytest.mark.parametrize("form", ["auto", "scan", "fft", "direct"])
@pytest.mark.parametrize("gain", ["1", "1-beta"])
@pytest.mark.parametrize("fires", [">=", ">"])
def test_state_leaky_forms_are_the_steps(form, gain, fires):
    layer = StateLeaky(6, torch.linspace(0.1, 0.97, 6), 0.3, gain=gain, fires=fires, form=form)
    x = sequence(200)
    spikes, membrane, state = layer(x, return_membrane=True, return_state=True)
    want, last = stepped(layer, x)
    assert torch.equal(spikes, want)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(membrane[-1], last, rtol=1e-12, atol=1e-12)
    first, carried = layer(x[:77], return_state=True)
    assert torch.equal(torch.cat((first, layer(x[77:], carried))), spikes)


@pytest.mark.parametrize("form", ["scan", "fft", "direct"])
def test_state_leaky_gradients_are_those_of_the_loop(form):
    grads = []
    for layer in (
        StateLeaky(6, 0.9, learn_beta=True, learn_threshold=True, form=form),
        Leaky(6, 0.9, reset="none", learn_beta=True, learn_threshold=True, form="loop"),
    ):
        layer.double()
        x, state = sequence().requires_grad_(), sequence(2)[0].clone().requires_grad_()
        spikes, membrane, last = layer(x, state, return_membrane=True, return_state=True)
        (spikes.sin() * sequence()).sum().add((membrane**2).mean()).add(last.sum()).backward()
        grads.append((x.grad, state.grad, layer.stored_beta.grad, layer.stored_threshold.grad))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", ["auto", "scan", "fft", "direct"])
@pytest.mark.parametrize("gain", ["1", "1-beta"])
def test_integrator_forms_are_the_steps(form, gain):
    layer = LeakyIntegrator(6, 0.95, gain=gain, form=form)
    x = sequence(100)
    u, state = layer(x, return_state=True)
    want, last = stepped(layer, x)
    torch.testing.assert_close(u, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer(x[60:], u[59]), u[60:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gain", ["1", "1-beta"])
def test_integrator_derivatives_are_those_of_finite_differences(gain):
    layer = LeakyIntegrator(6, 0.7, gain=gain, learn_beta=True).double()
    assert torch.autograd.gradcheck(layer, [sequence(5).requires_grad_(), sequence(1)[0].requires_grad_()])
    x = sequence(5)
    layer(x).sum().backward()
    beta, by = layer.stored_beta, 1e-6
    with torch.no_grad():
        beta += by
        up = layer(x).sum()
        beta -= 2 * by
        down = layer(x).sum()
    assert beta.grad.item() == pytest.approx(((up - down) / (2 * by)).item(), rel=1e-6)


def test_auto_picks_the_scan_on_the_cpu():
    assert settle_form("auto", torch.zeros(1)) == "scan"
    assert settle_form("auto", torch.zeros(1, dtype=torch.float64)) == "scan"
    assert settle_form("auto", torch.zeros(1, dtype=torch.bfloat16)) == "direct"
    assert settle_form("auto", torch.zeros(1, device="meta")) == "fft"
    assert settle_form("fft", torch.zeros(1)) == "fft"


def test_linear_leaky_is_linear_then_state_leaky():
    layer = LinearLeaky(5, 6, 0.7, 0.4, fires=">", learn_beta=True).double()
    x = sequence(30, 2, 5)
    spikes, membrane, state = layer(x, return_membrane=True, return_state=True)
    assert torch.equal(spikes, layer.neuron(layer.linear(x)))
    assert membrane.shape == spikes.shape == (30, 2, 6)
    want, last = stepped(layer, x)
    torch.testing.assert_close(spikes, want, rtol=0, atol=0)
    torch.testing.assert_close(state, last)
    assert LinearLeaky(5, 6, bias=False).linear.bias is None
    with pytest.raises(InvalidInput, match=r"takes 5 features.*\(30, 2, 6\)"):
        layer(spikes)


def test_returns_in_the_stated_order():
    layer, x = Leaky(6), sequence()
    assert isinstance(layer(x), torch.Tensor)
    assert [o.shape for o in layer(x, return_membrane=True)] == [(40, 2, 6)] * 2
    assert [o.shape for o in layer(x, return_state=True)] == [(40, 2, 6), (2, 6)]
    assert layer(x[:, 0]).shape == (40, 6)
    assert layer(x[:, :, None].expand(40, 2, 3, 6)).shape == (40, 2, 3, 6)


def test_stands_in_a_sequential_and_learns():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 20),
        Leaky(20, learn_beta=True, learn_threshold=True),
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


def test_float64_is_the_same_model():
    layer = Leaky(6, 0.9, 0.3, learn_beta=True)
    beta = layer.beta.item()
    assert layer.double().beta.item() == beta
    assert layer.stored_beta.item() == beta


def test_a_number_past_its_bound_is_used_at_it_and_can_come_back():
    layer = Leaky(6, learn_beta=True, learn_threshold=True)
    with torch.no_grad():
        layer.stored_beta.fill_(1.2)
        layer.stored_threshold.fill_(-0.1)
    assert layer.beta.item() == 1
    assert layer.threshold.item() > 0
    (layer.beta + layer.threshold).backward()
    assert layer.stored_beta.grad.item() == 1
    assert layer.stored_threshold.grad.item() == 1


def test_parameters_are_shared_or_per_channel():
    layer = Leaky(6, [0.5] * 6, 1.0, learn_beta=True)
    assert layer.beta.shape == (6,)
    assert layer.threshold.shape == ()
    assert dict(layer.named_parameters()).keys() == {"stored_beta"}
    assert layer.state_dict().keys() == {"stored_beta", "stored_threshold"}
    again = Leaky(6, [0.1] * 6, 0.3)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.beta, layer.beta)
    assert (layer.channels, layer.reset, layer.phase, layer.fires, layer.gain) == (
        6,
        "zero",
        "now",
        ">=",
        "1",
    )
    assert (layer.surrogate, layer.form) == ("atan", "fused")


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_refuses_wrong_shapes(make):
    layer = make()
    for x, message in (
        (torch.zeros(6), "time first"),
        (torch.zeros(0, 2, 6), "no steps"),
        (torch.zeros(5, 2, 7), r"6 channels, but its input ends in \(7,\)"),
        (torch.zeros(5, 0, 6), "empty"),
        (torch.zeros(5, 2, 6, dtype=torch.int64), "floating point"),
    ):
        with pytest.raises(InvalidInput, match=message):
            layer(x)
    with pytest.raises(InvalidInput, match=r"state has shape \(3, 6\).*\(2, 6\)"):
        layer(torch.zeros(5, 2, 6), torch.zeros(3, 6))
    with pytest.raises(InvalidInput, match="channels"):
        layer.step(torch.zeros(2, 7))


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_refuses_wrong_numbers(make):
    for beta in (-0.1, 1.1, math.nan, [0.5] * 5, "fast", None, [[0.5] * 6]):
        with pytest.raises(InvalidInput, match="beta"):
            make(beta=beta)
    with pytest.raises(InvalidInput, match="Option form is 'quick'"):
        make(form="quick")


def test_refuses_wrong_thresholds_and_channels():
    for threshold in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="threshold is .* greater than 0"):
            Leaky(6, threshold=threshold)
    for channels in (0, -1, 2.0, True):
        with pytest.raises(InvalidInput, match="channels"):
            Leaky(channels)
    with pytest.raises(InvalidInput, match="no surrogate"):
        Leaky(6, surrogate="bump")


def test_a_number_that_became_nan_is_an_error():
    layer = Leaky(6, learn_beta=True)
    with torch.no_grad():
        layer.stored_beta.fill_(math.nan)
    with pytest.raises(InvalidInput, match="beta has become NaN"):
        layer(torch.zeros(3, 2, 6))
