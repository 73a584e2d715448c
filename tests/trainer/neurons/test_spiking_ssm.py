"""The SpikingSSM block: step against sequence, its threshold's gradient, and that it learns."""

import pytest
import torch
from torch import nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer import Leaky
from unscan.trainer.neurons.spiking_ssm import SpikingSSM


def block(seed=0, channels=20, **options):
    torch.manual_seed(seed)
    made = SpikingSSM(channels, 8, **options).double()
    if made.ln_vth is not None:
        nn.init.uniform_(made.ln_vth, -0.5, 0.5)
    return made


def sequence(steps=200, batch=3, channels=20):
    torch.manual_seed(5)
    return torch.randn(steps, batch, channels, dtype=torch.float64)


def recorded(made):
    """Collect what the spiking layer puts out in a sequence and, by its own method, in steps."""
    seen, step = [], made.neuron.step
    made.neuron.register_forward_hook(
        lambda module, given, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )

    def noted(x, state):
        spikes, state = step(x, state)
        seen.append(spikes)
        return spikes, state

    made.neuron.step = noted
    return seen


@pytest.mark.parametrize("form", ["auto", "fft"])
@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("threshold", ["fixed", "learned"])
def test_steps_are_the_sequence(norm, threshold, form):
    made, x = block(norm=norm, threshold=threshold, form=form, dropout=0.2), sequence()
    made.train()
    made(x + 1)  # so that a batch norm has running values of its own
    made.eval()
    seen = recorded(made)
    y, (filtered, fired) = made(x, return_state=True)
    state, steps = None, []
    for x_t in x:
        one, state = made.step(x_t, state)
        steps.append(one)
    spikes = seen[0]
    assert 0.02 < spikes.mean() < 0.6
    assert torch.equal(spikes, torch.stack(seen[1:]))
    torch.testing.assert_close(torch.stack(steps), y, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state[0], filtered, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(state[1], fired, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(made(x), y, rtol=0, atol=0)


def test_a_sequence_in_two_parts_is_one_run():
    made, x = block(norm="layer", threshold="learned"), sequence()
    whole, (filtered, fired) = made(x, return_state=True)
    first, state = made(x[:77], return_state=True)
    second, (filtered_end, fired_end) = made(x[77:], state, return_state=True)
    torch.testing.assert_close(torch.cat((first, second)), whole, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(filtered_end, filtered, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(fired_end, fired, rtol=1e-11, atol=1e-11)


def test_is_the_equation():
    made, x = block(norm="layer", threshold="learned"), sequence()
    with torch.no_grad():
        currents = made.ssm(made.norm(x)) / made.ln_vth.exp()
        spikes = made.neuron(currents)
        left, right = (spikes @ made.mix.weight.T + made.mix.bias).split(20, -1)
        torch.testing.assert_close(made(x), x + left * right.sigmoid(), rtol=1e-12, atol=1e-12)


def test_the_default_neuron_is_the_papers():
    neuron = block().neuron
    assert isinstance(neuron, Leaky)
    assert (neuron.beta.item(), neuron.threshold.item(), neuron.reset, neuron.fires) == (
        0.125,
        1,
        "zero",
        ">=",
    )
    assert (neuron.surrogate, neuron.surrogate_width) == ("piecewise_quadratic", 1.0)


@pytest.mark.parametrize("backward", ["bptt", "sltt"])
def test_gradient_of_the_threshold_is_equation_24(backward):
    """dL/dv_th = sum_t delta_t g' (-x_t / v_th^2): delta_t g' is the gradient of the current, x_t / v_th."""
    neuron = Leaky(
        20, 0.125, surrogate="piecewise_quadratic", surrogate_width=1.0, backward=backward
    ).double()
    made, x = block(threshold="learned", neuron=neuron), sequence()
    weight = sequence().cos()
    (made(x) * weight).sum().backward()
    threshold = made.ln_vth.detach().exp()
    with torch.no_grad():
        filtered = made.ssm(x)
    currents = (filtered / threshold).requires_grad_()
    mixed = made.mix(neuron(currents))
    ((x + torch.nn.functional.glu(mixed, -1)) * weight).sum().backward()
    want = (currents.grad * (-filtered / threshold**2)).sum((0, 1))
    assert want.abs().min() > 0
    torch.testing.assert_close(made.ln_vth.grad / threshold, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("threshold", ["fixed", "learned"])
def test_gradients_are_those_of_the_loops(threshold):
    gradients = []
    for form in ("fused", "loop"):
        neuron = Leaky(20, 0.125, surrogate="piecewise_quadratic", surrogate_width=1.0, form=form)
        made = block(threshold=threshold, form=form, neuron=neuron, norm="layer").double()
        x = sequence(63).requires_grad_()
        (made(x) * sequence(63).cos()).sum().backward()
        gradients.append({"x": x.grad, **{name: p.grad for name, p in made.named_parameters()}})
    assert gradients[0].keys() == gradients[1].keys()
    for name, want in gradients[1].items():
        assert (gradients[0][name] - want).abs().max() <= 1e-9 * want.abs().max(), name


def test_float32_leaves_float64_at_a_tie():
    """Until a spike differs, m_t is sum_k beta^k of currents since a reset: off by theirs and two roundings a step."""
    torch.manual_seed(0)
    made, x = SpikingSSM(20, 8), sequence(1024).float()
    currents32 = made.ssm(x)
    s32, m32 = made.neuron(currents32, return_membrane=True)
    currents = made.double().ssm(x.double())
    s64, m64 = made.neuron(currents, return_membrane=True)
    bound = ((currents32 - currents).abs().max() + 2 * 2**-24 * m64.abs().max()) / (1 - 0.125)
    assert bound < 1e-4
    differs = (s32 != s64).cummax(0).values
    first = differs.to(torch.int8).argmax(0)
    off = differs[-1]
    assert off.sum() < 0.1 * off.numel()
    assert ((m64 - 1).abs().gather(0, first[None])[0][off] <= bound).all()
    assert ((m32 - m64).abs()[~differs] <= bound).all()


def test_dropout_is_for_training_only():
    made, x = block(dropout=0.5), sequence(20)
    assert not torch.equal(made(x), made(x))
    made.eval()
    assert torch.equal(made(x), made(x))


def test_slow_parameters_are_those_of_the_filter():
    made = block(threshold="learned")
    assert [id(p) for p in made.slow_parameters()] == [id(p) for p in made.ssm.slow_parameters()]
    names = dict(block().named_parameters())
    assert "ln_vth" not in names
    assert "ln_vth" in dict(made.named_parameters())


def test_learns():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(1, 16), SpikingSSM(16, 8, threshold="learned", norm="layer"), nn.Linear(16, 2)
    )
    x = torch.randn(40, 32, 1)
    want = (x[:20].mean((0, 2)) > 0).long()  # the sum of the first half, asked for at the end
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x).mean(0), want)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_refuses_what_does_not_fit():
    made, x = block(), sequence(5)
    for wrong, message in (
        (lambda: SpikingSSM(4, threshold="soft"), "Option threshold is 'soft'"),
        (lambda: SpikingSSM(4, norm="group"), "Option norm is 'group'"),
        (lambda: SpikingSSM(4, dropout=1.0), r"dropout=1\.0"),
        (lambda: SpikingSSM(4, neuron=nn.ReLU()), "ReLU, which has no step"),
        (lambda: SpikingSSM(4, neuron=Leaky(5)), r"4 channels, but its neuron Leaky has 5"),
        (lambda: SpikingSSM(4, 3), "even number"),
        (lambda: made(x[..., :3]), r"\(T, B, 20\)"),
        (lambda: made(x, x[0]), "it is a pair"),
    ):
        with pytest.raises(InvalidInput, match=message):
            wrong()
