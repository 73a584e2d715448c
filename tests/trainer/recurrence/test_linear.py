"""The three fast forms of the leak without a reset, scan, FFT and direct convolution, against the loop."""

import pytest
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence.convolution import convolve_direct, convolve_fft, kernel_length
from unscan.trainer.recurrence.naive import li_loop
from unscan.trainer.recurrence.scan import scan

FORMS = {"scan": scan, "fft": convolve_fft, "direct": convolve_direct}


def case(steps, shape, channels, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    made = (torch.randn(steps, *shape), torch.randn(*shape), torch.rand(channels) * 0.98)
    return tuple(value.to(dtype) for value in made)


def outcome(run, inputs):
    x, state, beta = (value.clone().requires_grad_() for value in inputs)
    u = run(x, state, beta)
    torch.manual_seed(7)
    (u * torch.randn(u.shape, dtype=u.dtype)).sum().backward()
    return u.detach(), x.grad, state.grad, beta.grad


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [1, 31, 32, 33, 63, 100, 1024])
def test_equals_the_loop(form, steps):
    inputs = case(steps, (3, 25), (25,))
    for a, b in zip(outcome(FORMS[form], inputs), outcome(li_loop, inputs), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("shape", "channels"), [((3,), ()), ((64,), ()), ((2, 3, 50), (50,)), ((5, 500), (500,))]
)
def test_lane_shapes(form, shape, channels):
    inputs = case(40, shape, channels)
    for a, b in zip(outcome(FORMS[form], inputs), outcome(li_loop, inputs), strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-12 * b.abs().max()


def test_scan_in_float32_is_the_loop_bit_for_bit_forward():
    inputs = case(500, (2, 40), (40,), dtype=torch.float32)
    assert torch.equal(scan(*inputs), li_loop(*inputs))
    got, want = outcome(scan, inputs), outcome(li_loop, inputs)
    assert all((a - b).abs().max() <= 2e-6 * b.abs().max() for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("form", FORMS)
def test_derivatives_are_those_of_finite_differences(form):
    inputs = case(4, (2, 2), (2,))
    assert torch.autograd.gradcheck(FORMS[form], [value.requires_grad_() for value in inputs])


def test_scan_with_a_fixed_beta():
    x, state, beta = case(70, (66,), ())
    x.requires_grad_()
    scan(x, state, beta).sum().backward()
    got, x.grad = x.grad, None
    li_loop(x, state, beta).sum().backward()
    torch.testing.assert_close(got, x.grad, rtol=1e-13, atol=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beta", [0.0, 1.0])
def test_at_the_ends_of_the_range(form, beta):
    x, state, _ = case(50, (2, 4), ())
    inputs = (x, state, torch.tensor(beta, dtype=torch.float64))
    for a, b in zip(outcome(FORMS[form], inputs), outcome(li_loop, inputs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["fft", "direct"])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-9])
def test_a_cut_kernel_keeps_its_bound(form, tolerance):
    x, state, _ = case(600, (64,), ())
    beta = torch.tensor(0.9, dtype=torch.float64)
    taps = kernel_length(600, beta, tolerance)
    assert taps < 600
    assert 0.9**taps / 0.1 <= tolerance < 0.9 ** (taps - 1) / 0.1
    for signs in (x, torch.ones_like(x)):  # a constant input is the worst case
        worst = (FORMS[form](signs, state, beta, tolerance) - li_loop(signs, state, beta)).abs().max()
        assert worst <= tolerance * signs.abs().max() + 1e-12


def test_length_of_a_kernel():
    half = torch.tensor(0.5)
    assert kernel_length(100, half, 0.0) == 100
    assert kernel_length(100, half, 0.25) == 3
    assert kernel_length(2, half, 0.25) == 2
    assert kernel_length(100, torch.tensor([0.1, 1.0]), 0.25) == 100
    assert kernel_length(100, torch.tensor(0.0), 0.25) == 1
    with pytest.raises(InvalidInput, match="tolerance"):
        kernel_length(100, half, -1.0)
