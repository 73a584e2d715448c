"""The fused kernels and the chunked form of the delta rule against the step loop."""

from functools import partial

import pytest
import torch

from unscan.trainer.recurrence import lanes
from unscan.trainer.recurrence.delta import fused
from unscan.trainer.recurrence.delta.chunked import delta_chunked
from unscan.trainer.recurrence.delta.fused import delta, segment_steps
from unscan.trainer.recurrence.delta.naive import delta_loop, unit_keys
from unscan.trainer.recurrence.naive import Firing

FORMS = pytest.mark.parametrize("form", [delta, delta_chunked], ids=["fused", "chunked"])
NAMES = ("y", "membranes", "state", "v", "k", "alpha", "beta", "q", "initial state", "threshold")
# (d, n, r): less than a vector of rows, exactly one, and a second that is partly empty; r = 0 is no q.
SIZES = [(5, 7, 3), (64, 20, 1), (70, 9, 5), (70, 6, 64), (5, 3, 130), (16, 16, 0), (66, 17, 0), (1, 1, 1)]


def case(steps, d=5, n=7, r=3, dtype=torch.float64, batch=2, alpha=None, beta=None, seed=0):
    torch.manual_seed(seed)
    made = [
        torch.randn(steps, batch, d),
        unit_keys(torch.randn(steps, batch, n)),
        torch.rand(steps, batch) if alpha is None else torch.full((steps, batch), alpha),
        torch.rand(steps, batch) if beta is None else torch.full((steps, batch), beta),
        torch.randn(steps, batch, n, r),
        torch.randn(batch, d, n),
        torch.tensor(0.1),
    ]
    return [value.to(dtype) if value.numel() or value.dim() < 4 else None for value in made]


def outcome(run, inputs, how=Firing("none"), weights=(1, 1, 1)):  # noqa: B008
    """Run forward and backward; hand back everything that two implementations must agree on."""
    inputs = [None if value is None else value.clone().requires_grad_() for value in inputs]
    outputs = run(*inputs, how)
    torch.manual_seed(7)
    loss = 0
    for output, weight in zip(outputs, weights, strict=True):
        random = torch.randn(output.shape, dtype=torch.float64).to(output.dtype)
        loss = loss + (output * random).sum() if weight else loss
    loss.backward()
    return [*(o.detach() for o in outputs), *(None if value is None else value.grad for value in inputs)]


def assert_same(got, want, threshold, tolerance=1e-10):
    for name, a, b in zip(NAMES, got, want, strict=True):
        if b is None:
            assert a is None or not a.any(), name
            continue
        assert (a.shape, a.dtype) == (b.shape, b.dtype), name
        assert (a - b).abs().max() <= tolerance * b.abs().max(), name
    assert torch.equal(got[1] >= threshold, want[1] >= threshold)


def compare(form, inputs, how=Firing("none"), weights=(1, 1, 1)):  # noqa: B008
    want = outcome(delta_loop, inputs, how, weights)
    got = outcome(form, inputs, how, weights)
    assert_same(got, want, inputs[-1])
    if inputs[4] is None:
        assert torch.equal(got[0], want[0])
    return want


@FORMS
@pytest.mark.parametrize(("d", "n", "r"), SIZES)
def test_equals_the_loop(form, d, n, r):
    want = compare(form, case(100, d, n, r))
    spikes = want[1] >= 0.1
    assert 0.05 < spikes.double().mean() < 0.6 or d == 1


@FORMS
@pytest.mark.parametrize("steps", [1, 2, 32, 63, 64, 65, 100, 1024])
def test_lengths(form, steps):
    compare(form, case(steps))


@FORMS
@pytest.mark.parametrize("beta", [0.0, 1e-6, 0.5, 1 - 1e-6, 1.0])
@pytest.mark.parametrize("alpha", [0.0, 0.005, 0.5, 0.9999, 1.0])
def test_gates_from_end_to_end(form, alpha, beta):
    compare(form, case(130, 6, 8, 2, alpha=alpha, beta=beta))


@FORMS
@pytest.mark.parametrize("cut", [1, 77, 128])
@pytest.mark.parametrize("r", [0, 2])
def test_a_sequence_in_two_parts_is_one_run(form, cut, r):
    def in_two(*arguments):
        parts, state, rest = arguments[:5], arguments[5], arguments[6:]
        outputs = []
        for part in (slice(None, cut), slice(cut, None)):
            y, m, state = form(*(p if p is None else p[part] for p in parts), state, *rest)
            outputs.append((y, m))
        return *(torch.cat(o) for o in zip(*outputs, strict=True)), state

    inputs = case(150, 9, 6, r)
    assert_same(outcome(in_two, inputs), outcome(form, inputs), inputs[-1])


@FORMS
@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
@pytest.mark.parametrize("r", [0, 2])
def test_gradient_of_one_output_alone(form, weights, r):
    compare(form, case(70, 9, 6, r), weights=weights)


@FORMS
@pytest.mark.parametrize(
    "how", [Firing("none", surrogate="fast_sigmoid", width=0.8), Firing("none", fires=">", width=0.5)]
)
def test_surrogates_and_ties(form, how):
    inputs = case(70)
    inputs[5] = inputs[-1].expand_as(inputs[5])
    inputs[2][:3], inputs[3][:3] = 1.0, 0.0  # for three steps the memory stays exactly at the threshold
    want = compare(form, inputs, how)
    assert (want[1][:3] == inputs[-1]).all()
    assert (want[0][:3].any()) == (how.fires == ">=")


@FORMS
def test_some_keys_are_zero(form):
    inputs = case(100)
    inputs[1][::3] = 0.0
    inputs[1][40:60] = 0.0
    compare(form, inputs)


@FORMS
@pytest.mark.parametrize("alpha", [0.005, 0.5, 0.99, 0.9999])
@pytest.mark.parametrize("r", [0, 2])
def test_float32_is_within_rounding(form, alpha, r):
    steps, n = 1024, 20
    inputs = case(steps, 40, n, r, torch.float32, alpha=alpha)
    y, membranes, state = form(*inputs, Firing("none"))
    wide = [None if value is None else value.double() for value in inputs]
    _, want, want_state = delta_loop(*wide, Firing("none"))
    # A step multiplies the error of a row by alpha (I - b k k^T), of norm alpha at most, and adds its roundings:
    # n in the dot product and 8 more, each of half an eps of a number no larger than |S_i| + |v_i|.
    rounding = torch.finfo(torch.float32).eps / 2 * (n + 8)
    size = torch.linalg.vector_norm(want, dim=-1).max() + wide[0].abs().max()
    bound = rounding * size * min(steps, 1 / (1 - alpha))
    assert torch.linalg.vector_norm(membranes - want, dim=-1).max() <= bound
    assert torch.linalg.vector_norm(state - want_state, dim=-1).max() <= bound
    # The threshold is 0.1 rounded to float32 on both sides. No reset: a spike that differs changes nothing else.
    differs = (membranes >= inputs[-1]) != (want >= wide[-1])
    assert ((want - wide[-1]).abs()[differs] <= bound).all()
    if r == 0:
        assert torch.equal(y, (membranes >= inputs[-1]).float())
    else:
        spikes = (membranes >= inputs[-1]).double()
        most = wide[4].abs().sum(-2).max()
        assert (y - spikes @ wide[4]).abs().max() <= rounding * most


@FORMS
@pytest.mark.parametrize("r", [0, 2])
def test_float32_gradients_are_within_rounding(form, r):
    steps, d, n = 100, 40, 20
    inputs = case(steps, d, n, r, torch.float32)
    got = outcome(form, inputs)
    want = outcome(delta_loop, [None if value is None else value.double() for value in inputs])
    same = (got[1] >= inputs[-1]) == (want[1] >= inputs[-1].double())
    assert same.all()  # else dq would differ by a whole dy
    # Forward and backward each contract the error of the step before by alpha (0.5 on average, so about twice one
    # step's in all) and sum n products; what is summed over the d n entries of S adds their roundings at random.
    for name, a, b in zip(NAMES[3:], got[3:], want[3:], strict=True):
        if b is not None:
            rounding = torch.finfo(torch.float32).eps / 2 * 4 * (n + 8)
            assert (a - b).abs().max() <= rounding * b.abs().max(), name


@pytest.mark.slow
@FORMS
@pytest.mark.parametrize("alpha", [0.005, 0.9, 0.9999])
def test_16384_steps(form, alpha):
    compare(form, case(16384, 8, 8, 1, alpha=alpha))


@pytest.mark.parametrize("size", [1, 7, 200])
def test_any_size_of_chunk(size):
    compare(partial(delta_chunked, size=size), case(100))


@pytest.mark.parametrize("r", [0, 2])
@FORMS
def test_without_membranes(form, r):
    inputs = case(100, 9, 6, r)
    got = outcome(lambda *a: (*form(*a, membrane=False)[::2],), inputs, weights=(1, 1))
    want = outcome(lambda *a: (*delta_loop(*a)[::2],), inputs, weights=(1, 1))
    for a, b in zip(got, want, strict=True):
        assert (a is None and b is None) or (a - b).abs().max() <= 1e-10 * b.abs().max()
    assert form(*inputs, Firing("none"), membrane=False)[1] is None


def test_chunked_takes_half_precision():
    y, membranes, state = delta_chunked(*case(50, dtype=torch.bfloat16), Firing("none"))
    want = delta_loop(*case(50), Firing("none"))
    assert y.dtype == membranes.dtype == state.dtype == torch.bfloat16
    assert (membranes - want[1]).abs().max() < 0.1


def test_segments_are_shorter_for_more_columns():
    assert segment_steps(4, 4) == 64
    assert segment_steps(64, 4) == 32
    assert segment_steps(1000, 8) == 16


def test_inputs_that_are_not_contiguous():
    inputs = case(60, 9, 6, 2)
    turned = [value.mT.contiguous().mT if value.dim() > 1 else value for value in inputs]
    assert not turned[0].is_contiguous()
    assert_same(outcome(delta, turned), outcome(delta, inputs), inputs[-1], 0)


def test_inputs_and_gradients_stay_as_they_were():
    inputs = [value.requires_grad_() for value in case(20, 64, 4, 1)]
    outputs = delta(*inputs, Firing("none"))
    gradients = [torch.randn_like(output) for output in outputs]
    before = [value.detach().clone() for value in (*inputs, *gradients)]
    torch.autograd.backward(outputs, gradients)
    assert all(torch.equal(a, b) for a, b in zip((*inputs, *gradients), before, strict=True))


@pytest.mark.parametrize("r", [0, 3])
def test_no_step_reads_what_nobody_wrote(monkeypatch, r):
    def poisoned(steps, width, dtype):
        return torch.full((steps, width), torch.nan, dtype=dtype)

    monkeypatch.setattr(fused, "fresh", poisoned)
    compare(delta, case(100, 70, 9, r))


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(lanes, "_THREADS_FROM", 1)
    before = torch.get_num_threads()
    inputs = case(70, 70, 9, 3, batch=3)
    try:
        torch.set_num_threads(1)
        want = outcome(delta, inputs)
        torch.set_num_threads(4)
        got = outcome(delta, inputs)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@FORMS
@pytest.mark.parametrize("r", [0, 1])
def test_training_memory_holds_no_states_of_all_steps(form, r):
    inputs = [None if value is None else value.requires_grad_() for value in case(500, 64, 64, r)]
    sizes = {}

    def pack(tensor):
        sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        form(*inputs, Firing("none"), membrane=False)
    assert 0 < sum(sizes.values()) < 500 * 2 * 64 * 64 * 8 / 4


def test_changing_the_input_before_backward_is_caught():
    inputs = case(20)
    current = inputs[0].requires_grad_() * 1
    y, _, _ = delta(current, *inputs[1:], Firing("none"))
    current.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
