"""The forms of the matrix memory against its step loop: readouts, membranes, states and every gradient."""

import pytest
import torch

from unscan.trainer.recurrence import lanes
from unscan.trainer.recurrence.matrix import layout
from unscan.trainer.recurrence.matrix.chunked import decays, memory_chunked
from unscan.trainer.recurrence.matrix.fused import memory_fused
from unscan.trainer.recurrence.matrix.kernels import CHUNK
from unscan.trainer.recurrence.matrix.naive import memory_loop, memory_step
from unscan.trainer.recurrence.naive import Firing

HOW = Firing("none")
FAST = {"chunked": memory_chunked, "fused": memory_fused}
NAMES = ("y", "membranes", "last state", "v", "k", "alpha", "q", "state", "threshold")


def case(shape, dtype=torch.float64, seed=0):
    """v, k, alpha, q, state, threshold for (T, B, d, n, r), r = 0 for no q. Float32 numbers in any dtype."""
    steps, batch, d, n, r = shape
    torch.manual_seed(seed)
    made = (
        torch.randn(steps, batch, d),
        torch.randn(steps, batch, n),
        torch.sigmoid(2 * torch.randn(steps, batch, n) + 1),
        torch.randn(steps, batch, n, r) if r else None,
        torch.randn(batch, d, n),
        torch.tensor(0.7),
    )
    return tuple(None if value is None else value.to(dtype) for value in made)


def outcome(run, inputs, how=HOW, weights=(1, 1, 1), learn=True):
    """Run forward and backward; hand back everything that two implementations must agree on."""
    leaves = [None if value is None else value.clone() for value in inputs]
    for leaf in leaves if learn else leaves[:5]:
        if leaf is not None:
            leaf.requires_grad_()
    outputs = run(*leaves, how)
    torch.manual_seed(7)
    draws = [torch.randn(output.shape, dtype=torch.float64).to(output.dtype) for output in outputs]
    sum((o * w * draw).sum() for o, w, draw in zip(outputs, weights, draws, strict=True) if w).backward()
    return [
        *(output.detach() for output in outputs),
        *(None if leaf is None else leaf.grad for leaf in leaves),
    ]


def assert_same(got, want, exact, tolerance=1e-12):
    """Compare with the loop: bit for bit what is named in `exact`, the rest within the tolerance of the largest."""
    for name, a, b in zip(NAMES, got, want, strict=True):
        if b is None:
            assert a is None or not a.any(), name
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        if name in exact:
            assert torch.equal(a, b), name
        else:
            assert (a - b).abs().max() <= tolerance * b.abs().max(), name


def spikes(outputs, threshold=0.7):
    return outputs[1] >= torch.tensor(threshold, dtype=torch.float32).to(outputs[1].dtype)


def check(form, shape, how=HOW, **settings):
    """Compare a form with the loop in float64. Spikes are equal; the fused states even bit for bit."""
    inputs = case(shape)
    want = outcome(memory_loop, inputs, how, **settings)
    got = outcome(FAST[form], inputs, how, **settings)
    assert torch.equal(spikes(got), spikes(want))
    no_q = inputs[3] is None
    exact = (("membranes", "last state") if form == "fused" else ()) + (("y",) if no_q else ())
    assert_same(got, want, exact)
    return want


def test_a_step_is_its_equation():
    v, k, alpha, q, S, threshold = case((1, 2, 3, 4, 5))
    y, last = memory_step(v[0], k[0], alpha[0], q[0], S, threshold, HOW)
    for b in range(2):
        want = S[b] @ torch.diag(alpha[0, b]) + torch.outer(v[0, b], k[0, b])
        torch.testing.assert_close(last[b], want, rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(y[b], (want >= threshold).double() @ q[0, b], rtol=1e-14, atol=1e-14)
    Z, same = memory_step(v[0], k[0], alpha[0], None, S, threshold, HOW)
    assert torch.equal(same, last)
    assert torch.equal(Z, (last >= threshold).double())


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
@pytest.mark.parametrize("r", [0, 1, 3])
def test_lengths(form, steps, r):
    want = check(form, (steps, 2, 5, 7, r))
    assert 0.05 < spikes(want).double().mean() < 0.6


@pytest.mark.slow
@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1])
def test_a_long_sequence(form, r):
    check(form, (16384, 1, 5, 7, r))


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1, 2])
@pytest.mark.parametrize(
    ("d", "n"), [(1, 1), (3, 2), (70, 4), (1, 16), (16, 16), (9, 33), (3, 64), (2, 65), (5, 130)]
)
def test_sizes(form, r, d, n):
    check(form, (70, 2, d, n, r))


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1, 3])
def test_a_span_of_one_chunk(form, r, monkeypatch):
    monkeypatch.setattr(layout, "_SCRATCH", 1)
    check(form, (3 * CHUNK + 5, 2, 5, 7, r))
    check(form, (2 * CHUNK, 2, 16, 16, r))


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "piecewise_quadratic", "triangular", "rectangular"])
def test_surrogates(form, surrogate):
    check(form, (70, 2, 5, 7, 1), Firing("none", surrogate=surrogate, width=0.8))


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1, 3])
@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_gradient_of_one_output_alone(form, r, weights):
    check(form, (70, 2, 5, 7, r), weights=weights)


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1, 3])
def test_without_membranes(form, r):
    def bare(*inputs):
        y, membranes, last = FAST[form](*inputs, membrane=False)
        assert membranes is None
        return y, last

    def loop(*inputs):
        y, _, last = memory_loop(*inputs)
        return y, last

    inputs = case((150, 2, 5, 7, r))
    for learn in (False, True):
        got, want = (outcome(run, inputs, weights=(1, 1), learn=learn) for run in (bare, loop))
        for a, b in zip(got, want, strict=True):
            assert (a is None) == (b is None)
            assert b is None or (a - b).abs().max() <= 1e-12 * b.abs().max()


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize(("fires", "fired"), [(">=", 1), (">", 0)])
@pytest.mark.parametrize("r", [0, 1, 3])
def test_ties(form, fires, fired, r):
    v, k, alpha, q, S, threshold = case((70, 2, 5, 7, r), torch.float32)
    tied = torch.zeros_like(S) + 0.7
    inputs = (
        torch.zeros_like(v),
        k,
        torch.ones_like(alpha),
        None if q is None else q * 0 + 1,
        tied,
        threshold,
    )
    y, membranes, _ = FAST[form](*inputs, Firing("none", fires=fires))
    assert (membranes == threshold).all()
    assert (y == fired * (7 if r else 1)).all()


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1, 3])
@pytest.mark.parametrize("cut", [1, 77, 128])
def test_a_sequence_in_two_parts_is_one_run(form, r, cut):
    def in_two(v, k, alpha, q, S, threshold, how):
        first, second = slice(cut), slice(cut, None)
        q1, q2 = (None, None) if q is None else (q[first], q[second])
        y1, m1, S = FAST[form](v[first], k[first], alpha[first], q1, S, threshold, how)
        y2, m2, S = FAST[form](v[second], k[second], alpha[second], q2, S, threshold, how)
        return torch.cat((y1, y2)), torch.cat((m1, m2)), S

    inputs = case((150, 2, 5, 7, r))
    exact = ("membranes", "last state") if form == "fused" else ()
    assert_same(outcome(in_two, inputs), outcome(memory_loop, inputs), exact)


@pytest.mark.parametrize("form", FAST)
def test_decays_of_0_and_1_and_such_that_underflow(form):
    v, k, alpha, q, S, threshold = case((300, 2, 4, 6, 1))
    for column, value in enumerate((0.0, 1.0, 1e-300, 1e-30, 0.005)):
        alpha[..., column] = value
    alpha[100:110] = 0.0
    inputs = (v, k, alpha, q, S, threshold)
    got, want = outcome(FAST[form], inputs), outcome(memory_loop, inputs)
    assert all(value.isfinite().all() for value in got)
    assert torch.equal(spikes(got), spikes(want))
    assert_same(got, want, ())


@pytest.mark.parametrize("steps", [1, 2, 3, 32, 45])
def test_decays_are_products(steps):
    torch.manual_seed(0)
    alpha = torch.rand(2, steps, dtype=torch.float64)
    D = decays(alpha)
    for t in range(steps):
        for s in range(steps):
            want = alpha[:, s + 1 : t + 1].prod(1) if s <= t else torch.zeros(2, dtype=torch.float64)
            torch.testing.assert_close(D[:, t, s], want, rtol=1e-13, atol=0)


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1, 3])
def test_float32_parts_from_float64_only_at_the_threshold(form, r):
    shape = (1024, 2, 16, 16, r)
    _, m32, last = FAST[form](*case(shape, torch.float32), HOW)
    _, m64, last64 = memory_loop(*case(shape), HOW)
    # One product and one sum a step, each rounded; what was rounded decays with the memory. In a chunk the chunked
    # form adds as many terms of the same size. The bound grows as the memory of all magnitudes does.
    v, k, alpha, q, S, threshold = (None if value is None else value.abs() for value in case(shape))
    size = memory_loop(v, k, alpha, q, S, threshold, HOW)[1]
    allowed = torch.finfo(torch.float32).eps * 64 * size
    assert ((m32 - m64).abs() <= allowed).all()
    parted = (m32 >= threshold.float()) != (m64 >= threshold)
    assert ((m64 - threshold).abs() <= allowed)[parted].all()
    torch.testing.assert_close(last.double(), last64, rtol=1e-5, atol=1e-5)


def test_float32_states_equal_the_float32_loop_bit_for_bit():
    inputs = case((300, 2, 16, 16, 1), torch.float32)
    got, want = outcome(memory_fused, inputs), outcome(memory_loop, inputs)
    # Gradients add up 300 steps x 16 rows in another order: 2e-5 is 170 roundings of the largest.
    assert_same(got, want, ("membranes", "last state"), 2e-5)


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("decay", [0.005, 0.1, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("steps", [100, pytest.param(16384, marks=pytest.mark.slow)])
def test_float32_is_within_1e_5_of_float64(form, decay, steps):
    v, k, alpha, q, S, threshold = case((steps, 1, 8, 8, 1), torch.float32)
    alpha = torch.full_like(alpha, decay)
    _, m32, last = FAST[form](v, k, alpha, q, S, threshold, HOW)
    _, m64, last64 = memory_loop(*(value.double() for value in (v, k, alpha, q, S, threshold)), HOW)
    assert (m32 - m64).abs().max() <= 1e-5 * m64.abs().max()
    assert (last - last64).abs().max() <= 1e-5 * last64.abs().max()


@pytest.mark.parametrize("r", [0, 1, 3])
def test_threads_change_nothing(monkeypatch, r):
    monkeypatch.setattr(lanes, "_THREADS_FROM", 1)
    before = torch.get_num_threads()
    inputs = case((70, 3, 5, 70, r))
    try:
        torch.set_num_threads(1)
        want = outcome(memory_fused, inputs)
        torch.set_num_threads(3)
        got = outcome(memory_fused, inputs)
    finally:
        torch.set_num_threads(before)
    assert_same(got, want, NAMES if r < 2 else ("membranes", "last state"))


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("r", [0, 1, 3])
def test_inputs_and_gradients_handed_in_stay_as_they_were(form, r):
    leaves = [None if value is None else value.requires_grad_() for value in case((70, 2, 16, 16, r))]
    copies = [None if value is None else value.detach().clone() for value in leaves]
    outputs = FAST[form](*leaves, HOW)
    gradients = [torch.randn_like(output) for output in outputs]
    kept = [gradient.clone() for gradient in gradients]
    torch.autograd.backward(outputs, gradients)
    assert all(torch.equal(a, b) for a, b in zip(gradients, kept, strict=True))
    assert all(a is None or torch.equal(a, b) for a, b in zip(leaves, copies, strict=True))


@pytest.mark.parametrize("form", FAST)
def test_inputs_that_are_not_contiguous(form):
    v, k, alpha, q, S, threshold = case((70, 6, 6, 6, 6))
    inputs = (
        v.mT,
        k.transpose(0, 2)[:, :, :1].expand(-1, -1, 70).permute(2, 0, 1),
        alpha.mT,
        q.mT,
        S.mT,
        threshold,
    )
    assert_same(outcome(FAST[form], inputs), outcome(memory_loop, inputs), ())


@pytest.mark.parametrize("r", [0, 1, 3])
def test_no_step_reads_what_nobody_wrote(monkeypatch, r):
    def poisoned(steps, width, dtype):
        return torch.full((steps, width), torch.nan, dtype=dtype)

    from unscan.trainer.recurrence.matrix import fused

    monkeypatch.setattr(fused, "fresh", poisoned)
    monkeypatch.setattr(
        torch.Tensor,
        "new_empty",
        lambda self, *shape: self.new_full(
            torch.Size(shape[0] if isinstance(shape[0], tuple) else shape), torch.nan
        ),
    )
    inputs = case((150, 2, 5, 7, r))
    assert_same(outcome(memory_fused, inputs), outcome(memory_loop, inputs), ())


def test_other_types_are_chunked():
    inputs = case((70, 2, 4, 6, 2), torch.bfloat16)
    got, want = (run(*inputs, HOW) for run in (memory_fused, memory_chunked))
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
