"""The S4D layer: its kernel by the formula, its step against its sequence, its parameters, its errors."""

import cmath
import math

import pytest
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.s4d import S4D


def layer(channels=6, states=8, seed=0, **options):
    torch.manual_seed(seed)
    return S4D(channels, states, **options).double()


def sequence(steps=100, batch=2, channels=6):
    torch.manual_seed(3)
    return torch.randn(steps, batch, channels, dtype=torch.float64)


@pytest.mark.parametrize("form", ["auto", "fused", "fft", "loop"])
def test_the_kernel_is_that_of_the_formula(form):
    filtered = layer(form=form)
    with torch.no_grad():
        filtered.log_A_real.add_(torch.randn(6, 4) * 0.1)
        filtered.A_imag.add_(torch.randn(6, 4) * 0.1)
    x, want = torch.zeros(300, 1, 6).double(), torch.zeros(300, 6).double()
    x[0] = 1
    for h in range(6):
        dt = math.exp(filtered.log_dt[h].item())
        for n in range(4):
            a = complex(-math.exp(filtered.log_A_real[h, n].item()), filtered.A_imag[h, n].item())
            c = complex(*filtered.C[h, n].tolist()) * (cmath.exp(dt * a) - 1) / a
            for lag in range(300):
                want[lag, h] += 2 * (c * cmath.exp(dt * a * lag)).real
    want[0] += filtered.D.detach()
    torch.testing.assert_close(filtered(x)[:, 0].detach(), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", ["fused", "fft", "loop"])
@pytest.mark.parametrize("scaled", [False, True])
def test_steps_are_the_sequence(form, scaled):
    filtered, x = layer(form=form), sequence()
    scale = torch.linspace(0.5, 2, 6).double() if scaled else None
    y, last = filtered(x, return_state=True, scale=scale)
    state = pair = None
    for t, x_t in enumerate(x):
        one, state = filtered.step(x_t, state, scale=scale)
        same, pair = filtered.step_pairs(x_t, pair, scale=scale)
        torch.testing.assert_close(one, y[t], rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(same, one, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(state, last, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(torch.complex(*pair), state, rtol=1e-13, atol=1e-13)
    if scaled:
        torch.testing.assert_close(y, filtered(x) * scale, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", ["fused", "fft", "loop"])
def test_a_sequence_in_two_parts_is_one_run(form):
    filtered, x = layer(form=form), sequence()
    whole, last = filtered(x, return_state=True)
    first, state = filtered(x[:37], return_state=True)
    second, end = filtered(x[37:], state, return_state=True)
    torch.testing.assert_close(torch.cat((first, second)), whole, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(end, last, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", ["fused", "fft"])
def test_gradients_are_those_of_the_loop(form):
    gradients = []
    for chosen in (form, "loop"):
        filtered, x = layer(form=chosen), sequence().requires_grad_()
        (filtered(x) * sequence().cos()).sum().backward()
        gradients.append((x.grad, *(p.grad for p in filtered.parameters())))
    assert len(gradients[0]) == 6
    for got, want in zip(*gradients, strict=True):
        assert want.abs().max() > 0
        assert (got - want).abs().max() <= 1e-10 * want.abs().max()


def test_starts_as_s4d_lin_does():
    torch.manual_seed(0)
    filtered = S4D(4096, 6, dt_min=0.002, dt_max=0.05)
    assert torch.equal(filtered.A_imag[17], math.pi * torch.arange(3))
    torch.testing.assert_close(-filtered.log_A_real.exp(), torch.full((4096, 3), -0.5))
    dt = filtered.log_dt.exp()
    assert 0.002 * 0.999 <= dt.min() < 0.0021
    assert 0.0495 < dt.max() <= 0.05 * 1.001
    middle = (filtered.log_dt < 0.5 * (math.log(0.002) + math.log(0.05))).double().mean().item()
    assert abs(middle - 0.5) < 4 * 0.5 / 64  # four standard deviations
    assert abs(filtered.C.pow(2).sum(-1).mean().item() - 1) < 4 / math.sqrt(4096 * 3)
    assert abs(filtered.D.pow(2).mean().item() - 1) < 4 * math.sqrt(2) / 64


def test_parameters_that_learn_slowly():
    filtered = layer()
    names = {
        name for name, p in filtered.named_parameters() for slow in filtered.slow_parameters() if p is slow
    }
    assert names == {"log_dt", "log_A_real", "A_imag"}


def test_small_steps_lose_no_digits():
    torch.manual_seed(0)
    filtered = S4D(4, 8, dt_min=1e-5, dt_max=1e-4)
    _, c, _ = filtered.coefficients(torch.float32)
    a = torch.complex(-filtered.log_A_real.double().exp(), filtered.A_imag.double())
    by = filtered.log_dt.double().exp().unsqueeze(-1) * a
    series = filtered.log_dt.double().exp().unsqueeze(-1) * (1 + by / 2 + by**2 / 6 + by**3 / 24)
    want = torch.view_as_complex(filtered.C.double()) * series
    assert ((c - want).abs() <= 1e-7 * want.abs()).all()


def test_float32_parameters_in_float64():
    filtered = S4D(6, 8)
    assert filtered(sequence()).dtype == torch.float64
    assert filtered(sequence().float()).dtype == torch.float32
    y, state = filtered(sequence().float(), return_state=True)
    assert (y.shape, state.shape, state.dtype) == ((100, 2, 6), (2, 6, 4), torch.complex64)


def test_refuses_what_does_not_fit():
    filtered, x = layer(), sequence()
    for wrong, message in (
        (lambda: S4D(0), "channels=0"),
        (lambda: S4D(4, 2.0), r"states=2\.0"),
        (lambda: S4D(4, 7), "even number, such as 8"),
        (lambda: S4D(4, dt_min=0.1, dt_max=0.01), "dt_min <= dt_max"),
        (lambda: S4D(4, dt_min=0.0), "0 < dt_min"),
        (lambda: S4D(4, form="quick"), "Option form is 'quick'"),
        (lambda: filtered(x[..., :5]), r"\(100, 2, 5\).*\(T, B, 6\)"),
        (lambda: filtered(x[0, 0]), "time first"),
        (lambda: filtered(x.long()), "int64"),
        (lambda: filtered(x, torch.zeros(2, 6, 4)), r"float32.*complex128 \(2, 6, 4\)"),
        (lambda: filtered.step(x[0], torch.zeros(3, 6, 4).cdouble()), r"\(3, 6, 4\).*\(2, 6, 4\)"),
        (lambda: filtered.step(x[0, :, :2]), r"\(B, 6\)"),
    ):
        with pytest.raises(InvalidInput, match=message):
            wrong()


def test_a_parameter_that_became_nan_is_an_error():
    filtered = layer()
    with torch.no_grad():
        filtered.log_dt[0] = math.nan
    with pytest.raises(InvalidInput, match="Training diverged"):
        filtered(sequence())
