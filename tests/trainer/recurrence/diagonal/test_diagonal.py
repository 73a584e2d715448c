"""The convolution and the kernels of the diagonal recurrence against its step loop."""

import math

import pytest
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence import lanes
from unscan.trainer.recurrence.diagonal import COMPLEX, diagonal, fused, settle_form
from unscan.trainer.recurrence.diagonal.convolution import kernel, powers
from unscan.trainer.recurrence.diagonal.naive import diagonal_loop, diagonal_step_pairs

NAMES = ("y", "state", "x", "a", "c", "skip", "initial state")


def case(steps, batch, channels, modes, dtype=torch.float64, seed=0):
    """x, a, c, skip, state, with the spectrum that S4D-Lin starts from, the slowest decay being 0.9995."""
    torch.manual_seed(seed)
    dt = torch.exp(torch.rand(channels, 1).double() * math.log(100) + math.log(0.001))
    spectrum = torch.complex(torch.full((modes,), -0.5).double(), math.pi * torch.arange(modes).double())
    a = torch.exp(dt * spectrum)
    c = torch.randn(channels, modes, dtype=torch.complex128) * (a - 1) / spectrum
    x, skip = torch.randn(steps, batch, channels), torch.randn(channels)
    state = torch.randn(batch, channels, modes, dtype=torch.complex128)
    kind = COMPLEX[dtype]
    return x.to(dtype), a.to(kind), c.to(kind), skip.to(dtype), state.to(kind)


def loss_weights(y, state):
    torch.manual_seed(7)
    return (torch.randn(tensor.shape, dtype=torch.float64).to(tensor.dtype) for tensor in (y, state.real))


def outcome(form, inputs, which=(1, 1)):
    """Run forward and backward; hand back everything that two forms must agree on."""
    x, a, c, skip, state = inputs = [value.clone().requires_grad_() for value in inputs]
    y, last = diagonal(x, a, c, state, skip=skip, form=form)
    loss = sum(
        w * (tensor * weight).sum().real
        for w, tensor, weight in zip(which, (y, last), loss_weights(y, last), strict=True)
    )
    loss.backward()
    return (y.detach(), last.detach(), *(value.grad for value in inputs))


def assert_same(got, want, tolerance=1e-10):
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        assert (a - b).abs().max() <= tolerance * b.abs().max(), name


@pytest.mark.parametrize("form", ["fused", "fft"])
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 63, 64, 65, 100, 1024])
def test_lengths(form, steps):
    inputs = case(steps, 2, 19, 3)
    assert_same(outcome(form, inputs), outcome("loop", inputs))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["fused", "fft"])
def test_a_long_sequence(form):
    inputs = case(16384, 1, 3, 4)
    assert_same(outcome(form, inputs), outcome("loop", inputs))


@pytest.mark.parametrize("form", ["fused", "fft"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 7, 5), (2, 16, 1), (5, 33, 2), (1, 128, 32)])
def test_channels_and_states(form, shape):
    inputs = case(70, *shape)
    assert_same(outcome(form, inputs), outcome("loop", inputs))


@pytest.mark.parametrize("form", ["fused", "fft"])
@pytest.mark.parametrize("which", [(1, 0), (0, 1)])
def test_gradient_of_one_output_alone(form, which):
    inputs = case(71, 2, 20, 3)
    got, want = outcome(form, inputs, which), outcome("loop", inputs, which)
    if which == (0, 1):
        for output in (got, want):
            for i in (4, 5):  # the last state depends on neither c nor the skip
                assert output[i].abs().max() == 0
        got, want = ((*o[:4], *o[6:], *o[:2]) for o in (got, want))
    assert_same(got, want)


def walk(drive, decay, error):
    """What a state can be at most, and how far rounding can take it: bounds at each step, from those of its inputs.

    m_t = |a| m_{t-1} + |x_t|. A block of four steps rounds its coefficients once each (complex: 2 u) and no sum in
    it more than 6 times, so 8 u of the largest possible magnitude covers a step: e_t = |a| e_{t-1} + 8 u m_t.
    """
    m = e = torch.zeros_like(drive[0])
    magnitudes, errors = [], []
    for d, f in zip(drive, error, strict=True):
        m = decay * m + d
        e = decay * e + 8 * 2**-24 * m + f
        magnitudes.append(m)
        errors.append(e)
    return torch.stack(magnitudes), torch.stack(errors)


def float32_bounds(inputs):
    """Largest rounding errors of y and the gradients of x, a, c and skip, from zeros and with a loss of y alone."""
    x, a, c, skip = (value.to(torch.complex128 if value.is_complex() else torch.float64) for value in inputs)
    u, modes, steps = 2**-24, a.shape[1], x.shape[0]
    decay, weight = a.abs(), 2 * c.abs()
    dy = next(iter(loss_weights(x, x[0]))).to(inputs[0].dtype).double().abs()
    entered = x.abs().unsqueeze(-1).expand(*x.shape, modes)
    m, e = walk(entered, decay, torch.zeros_like(entered))
    sent = dy.unsqueeze(-1) * weight
    mg, eg = (value.flip(0) for value in walk(sent.flip(0), decay, 8 * u * sent.flip(0)))
    sums = (fused.SEGMENT // fused.BLOCK + steps / fused.SEGMENT + modes + 16) * u  # additions in a row
    y = (weight * (e + sums * m)).sum(-1) + 4 * u * (skip * x).abs()
    dx = (eg + sums * mg).sum(-1) + 4 * u * dy * skip.abs()
    before, off = m.roll(1, 0), e.roll(1, 0)
    before[0] = off[0] = 0
    da = (mg * (off + sums * before) + eg * before).sum((0, 1))
    dc = (2 * dy.unsqueeze(-1) * (e + sums * m)).sum((0, 1))
    return y, dx, da, dc, sums * (dy * x.abs()).sum((0, 1))


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
def test_float32_is_within_its_rounding(steps):
    inputs = case(steps, 2, 19, 3, torch.float32)[:4]

    def run(form, values):
        x, a, c, skip = values = [value.clone().requires_grad_() for value in values]
        y, _ = diagonal(x, a, c, skip=skip, form=form, state_after=False)
        (y * next(iter(loss_weights(y, y[0])))).sum().backward()
        return (y.detach(), *(value.grad for value in values))

    wide = [v.to(torch.complex128 if v.is_complex() else torch.float64) for v in inputs]
    want, bounds = run("loop", wide), float32_bounds(inputs)
    assert bounds[0].max() < 1e-2 * want[0].abs().max()
    for name, got, exact, bound in zip(
        ("y", "x", "a", "c", "skip"), run("fused", inputs), want, bounds, strict=True
    ):
        assert ((got - exact).abs() <= bound).all(), name


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
def test_float32_convolution_is_within_its_rounding(steps):
    """A transform of n numbers is off by at most 3 log2(n) u in the norm, and there are three of them."""
    x, a, c, _, _ = case(steps, 2, 19, 3, torch.float32)
    want, _ = diagonal(x.double(), a.to(torch.complex128), c.to(torch.complex128), form="loop")
    got, _ = diagonal(x, a, c, form="fft")
    taps = kernel(a.to(torch.complex128), c.to(torch.complex128), steps)
    taps_off = (2 * c.abs().double().sum(-1) * 16 * 2**-24) * math.sqrt(steps)
    norm = x.double().norm(dim=0)
    bound = (9 * math.log2(4 * steps) * 2**-24 * taps.norm(dim=0) + taps_off) * norm
    assert ((got - want).abs() <= bound).all()


@pytest.mark.parametrize("form", ["fused", "fft", "loop"])
@pytest.mark.parametrize("cut", [1, 64, 77, 147])
def test_a_sequence_in_two_parts_is_one_run(form, cut):
    def in_two(inputs):
        x, a, c, skip, state = inputs = [value.clone().requires_grad_() for value in inputs]
        first, state = diagonal(x[:cut], a, c, state, skip=skip, form=form)
        second, last = diagonal(x[cut:], a, c, state, skip=skip, form=form)
        y = torch.cat((first, second))
        sum((t * w).sum().real for t, w in zip((y, last), loss_weights(y, last), strict=True)).backward()
        return (y.detach(), last.detach(), *(value.grad for value in inputs))

    inputs = case(150, 3, 20, 3)
    assert_same(in_two(inputs), outcome("loop", inputs))


def test_real_pairs_are_the_complex_numbers():
    x, a, c, skip, state = case(40, 3, 5, 4)
    pair, outputs = (state.real, state.imag), []
    for x_t in x:
        y, pair = diagonal_step_pairs(x_t, pair, torch.view_as_real(a), torch.view_as_real(c), skip)
        outputs.append(y)
    want, last = diagonal_loop(x, a, c, skip, state)
    torch.testing.assert_close(torch.stack(outputs), want, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(torch.complex(*pair), last, rtol=1e-13, atol=1e-13)


def test_an_impulse_gives_the_kernel():
    _, a, c, _, _ = case(1, 1, 4, 3)
    x = torch.zeros(200, 1, 4, dtype=torch.float64)
    x[0] = 1
    want = torch.stack([2 * (c * a**lag).sum(-1).real for lag in range(200)])
    torch.testing.assert_close(kernel(a, c, 200), want, rtol=1e-12, atol=1e-12)
    for form in ("fused", "fft", "loop"):
        y, _ = diagonal(x, a, c, form=form)
        torch.testing.assert_close(y[:, 0], want, rtol=1e-12, atol=1e-12)


def test_powers_stay_exact_far_out():
    a = torch.tensor([[0.9995 + 0.03j]], dtype=torch.complex128)
    a = a / a.abs()
    lags = torch.tensor([16384.0, 1e6], dtype=torch.float64)
    angles = torch.angle(a[0, 0]) * lags
    want = torch.polar(torch.ones(2).double(), angles)
    assert (powers(a, lags)[0, 0] - want).abs().max() < 1e6 * 2**-52


@pytest.mark.parametrize("form", ["fused", "fft", "loop"])
def test_derivatives_are_those_of_finite_differences(form):
    def run(x, a, c, skip, state):
        y, last = diagonal(x, a, c, state, skip=skip, form=form)
        return y, last

    inputs = [value.requires_grad_() for value in case(9, 2, 2, 2)]
    assert torch.autograd.gradcheck(run, inputs, atol=1e-6)


@pytest.mark.parametrize("form", ["fused", "fft"])
def test_no_state_and_no_skip_are_zeros(form):
    x, a, c, skip, state = case(70, 2, 5, 3)
    want, last = diagonal(x, a, c, 0 * state, skip=0 * skip, form=form)
    y, same = diagonal(x, a, c, form=form)
    torch.testing.assert_close(y, want, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(same, last, rtol=1e-14, atol=1e-14)
    assert diagonal(x, a, c, form=form, state_after=False)[1] is None


@pytest.mark.parametrize("form", ["fused", "fft", "loop"])
def test_any_batch_shape(form):
    x, a, c, skip, state = case(11, 6, 5, 3)
    want, last = diagonal(x, a, c, state, skip=skip, form=form)
    y, end = diagonal(x.view(11, 2, 3, 5), a, c, state.view(2, 3, 5, 3), skip=skip, form=form)
    assert torch.equal(y.view(11, 6, 5), want)
    assert torch.equal(end.view(6, 5, 3), last)
    y, end = diagonal(x[:, 0], a, c, state[0], skip=skip, form=form)
    torch.testing.assert_close(y, want[:, 0], rtol=1e-13, atol=1e-13)
    assert end.shape == (5, 3)


def test_inputs_that_are_not_contiguous():
    x, a, c, skip, state = case(40, 20, 3, 3)
    turned = (
        x.transpose(1, 2),
        a[:1].expand(20, 3),
        c[:1].expand(20, 3),
        skip[:1].expand(20),
        state.transpose(0, 1),
    )
    assert_same(outcome("fused", turned), outcome("loop", turned))


def test_inputs_stay_as_they_were():
    inputs = case(66, 2, 16, 3)
    copies = [value.clone() for value in inputs]
    outcome("fused", inputs)
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_gradients_handed_in_stay_as_they_were():
    x, a, c, _, state = case(64, 2, 16, 3)
    outputs = diagonal(x.requires_grad_(), a, c, state, form="fused")
    gradients = [torch.randn_like(output) for output in outputs]
    copies = [gradient.clone() for gradient in gradients]
    torch.autograd.backward(outputs, gradients)
    assert all(torch.equal(a, b) for a, b in zip(gradients, copies, strict=True))


def test_no_step_reads_what_nobody_wrote(monkeypatch):
    def poisoned(steps, width, dtype):
        return torch.full((steps, width), torch.nan, dtype=dtype)

    monkeypatch.setattr(fused, "fresh", poisoned)
    inputs = case(150, 3, 25, 3)
    assert_same(outcome("fused", inputs), outcome("loop", inputs))


def test_threads_change_nothing_but_the_order_of_sums(monkeypatch):
    monkeypatch.setattr(lanes, "_THREADS_FROM", 1)
    before = torch.get_num_threads()
    inputs = case(70, 5, 50, 3)
    try:
        torch.set_num_threads(1)
        want = outcome("fused", inputs)
        torch.set_num_threads(3)
        got = outcome("fused", inputs)
    finally:
        torch.set_num_threads(before)
    assert_same(got, want, 1e-14)
    assert all(torch.equal(got[i], want[i]) for i in (0, 1, 2, 6))


def test_changing_the_input_before_backward_is_caught():
    x, a, c, _, _ = case(20, 2, 16, 3)
    x.requires_grad_()
    current = x * 1
    y, _ = diagonal(current, a, c, form="fused")
    current.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_the_form_of_auto():
    assert settle_form("auto", torch.zeros(1)) == "fused"
    assert settle_form("auto", torch.zeros(1, device="meta")) == "fft"
    assert settle_form("fused", torch.zeros(1, device="meta")) == "fft"
    assert [settle_form(form, torch.zeros(1)) for form in ("fft", "loop")] == ["fft", "loop"]


def test_refuses_what_does_not_fit():
    x, a, c, skip, state = case(5, 2, 4, 3)
    nan = a.clone()
    nan[0, 0] = torch.nan
    for wrong, message in (
        (lambda: diagonal(x, a, c, form="quick"), "Option form is 'quick'"),
        (lambda: diagonal(x.half(), a, c), "float32 or float64"),
        (lambda: diagonal(x[:0], a, c), r"shape \(0, 2, 4\).*time first"),
        (lambda: diagonal(x[0, 0], a, c), "time first"),
        (lambda: diagonal(x, a[:3], c[:3]), r"a have shape \(3, 3\).*\(4, M\)"),
        (lambda: diagonal(x, a, c[:, :2]), r"c \(4, 2\)"),
        (lambda: diagonal(x, a.real, c), "decays a of the diagonal recurrence: got torch.float64"),
        (lambda: diagonal(x.float(), a, c), "needs torch.complex64"),
        (
            lambda: diagonal(x, a, c, state[:1]),
            r"state of the diagonal recurrence: got .* \(1, 4, 3\).*\(2, 4, 3\)",
        ),
        (lambda: diagonal(x, a, c, skip=skip[:2]), r"skip .* \(2,\).*\(4,\)"),
        (lambda: diagonal(x, nan, c), "NaN or infinite"),
    ):
        with pytest.raises(InvalidInput, match=message):
            wrong()
