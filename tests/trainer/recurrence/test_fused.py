"""The fused kernels against the step loop: spikes, membranes, states and every gradient."""

import pytest
import torch

from unscan.trainer.recurrence import lanes
from unscan.trainer.recurrence.fused import lif, segment_steps
from unscan.trainer.recurrence.naive import Firing, lif_loop

RESETS = [("none", "now"), ("subtract", "now"), ("zero", "now"), ("subtract", "next"), ("zero", "next")]
NAMES = ("spikes", "membrane", "state", "x", "initial state", "beta", "threshold")


def case(steps, shape, dtype=torch.float64, shared=False, seed=0):
    torch.manual_seed(seed)
    channels = () if shared else shape[-1:]
    made = (
        torch.randn(steps, *shape),
        torch.randn(*shape),
        torch.rand(channels) * 0.6 + 0.39,
        torch.rand(channels) * 0.5 + 0.5,
    )
    return tuple(value.to(dtype) for value in made)


def outcome(run, inputs, how, weights=(1, 1, 1), learn=True):
    """Run forward and backward; hand back everything that two implementations must agree on."""
    x, state, beta, threshold = (value.clone() for value in inputs)
    for value in (x, state, *((beta, threshold) if learn else ())):
        value.requires_grad_()
    outputs = run(x, state, beta, threshold, how)
    torch.manual_seed(7)
    loss = torch.zeros((), dtype=x.dtype)
    for output, weight in zip(outputs, weights, strict=True):
        if weight:
            loss = loss + (output * torch.randn(output.shape, dtype=output.dtype)).sum()
    loss.backward()
    return (*(o.detach() for o in outputs), x.grad, state.grad, beta.grad, threshold.grad)


def assert_same(got, want, tolerance):
    for name, a, b in zip(NAMES, got, want, strict=True):
        if b is None:
            assert a is None, name
            continue
        assert a.shape == b.shape, name
        assert a.dtype == b.dtype, name
        if name in NAMES[:3]:
            assert torch.equal(a, b), name  # the same roundings in the same order
        else:
            assert (a - b).abs().max() <= tolerance * b.abs().max(), name


@pytest.mark.parametrize("backward", ["bptt", "sltt"])
@pytest.mark.parametrize("gain", ["1", "1-beta"])
@pytest.mark.parametrize("fires", [">=", ">"])
@pytest.mark.parametrize(("reset", "phase"), RESETS)
def test_equals_the_loop(reset, phase, fires, gain, backward):
    how = Firing(reset, phase, fires, gain, backward=backward)
    inputs = case(150, (3, 25))  # 75 lanes: two tiles of 64 that overlap; 150 steps: two segments
    want = outcome(lif_loop, inputs, how)
    if gain == "1":
        assert 0.05 < want[0].mean() < 0.6
    assert_same(outcome(lif, inputs, how), want, 1e-13)


@pytest.mark.parametrize("steps", [1, 63, 100, 128, 129, 1024])
def test_lengths(steps):
    inputs = case(steps, (2, 40))
    assert_same(outcome(lif, inputs, Firing()), outcome(lif_loop, inputs, Firing()), 1e-13)


@pytest.mark.parametrize("shape", [(1,), (1, 1), (3, 7), (64,), (65,), (2, 3, 50)])
def test_lane_shapes(shape):
    inputs = case(40, shape)
    assert_same(outcome(lif, inputs, Firing()), outcome(lif_loop, inputs, Firing()), 1e-13)


@pytest.mark.parametrize(("reset", "phase"), RESETS)
def test_many_lanes(reset, phase):
    how = Firing(reset, phase)
    assert segment_steps(2500) < segment_steps(75)
    inputs = case(2 * segment_steps(2500) + 3, (5, 500))
    assert_same(outcome(lif, inputs, how), outcome(lif_loop, inputs, how), 1e-13)


@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "piecewise_quadratic", "triangular", "rectangular"])
def test_surrogates(surrogate):
    how = Firing(surrogate=surrogate, width=0.8)
    inputs = case(100, (70,))
    assert_same(outcome(lif, inputs, how), outcome(lif_loop, inputs, how), 1e-13)


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_gradient_of_one_output_alone(weights):
    inputs = case(50, (70,))
    got, want = (outcome(run, inputs, Firing(), weights) for run in (lif, lif_loop))
    assert_same(got, want, 1e-13)


@pytest.mark.parametrize(("reset", "phase"), [("zero", "now"), ("subtract", "next")])
def test_fixed_and_shared_parameters(reset, phase):
    how = Firing(reset, phase)
    inputs = case(100, (2, 40), shared=True)
    for learn in (False, True):
        assert_same(
            outcome(lif, inputs, how, learn=learn), outcome(lif_loop, inputs, how, learn=learn), 1e-13
        )


@pytest.mark.parametrize(("reset", "phase"), [("zero", "now"), ("subtract", "next")])
def test_float32_equals_the_float32_loop_bit_for_bit_forward(reset, phase):
    how = Firing(reset, phase)
    inputs = case(1000, (2, 40), torch.float32)
    assert_same(outcome(lif, inputs, how), outcome(lif_loop, inputs, how), 2e-5)


def test_float32_first_leaves_float64_at_a_tie():
    inputs = case(1024, (2, 40), torch.float32)
    s32, _, _ = lif(*inputs, Firing())
    s64, m64, _ = lif(*(value.double() for value in inputs), Firing())
    differs = s32 != s64
    first = differs.to(torch.int8).argmax(0)
    lanes_off = differs.any(0)
    distance = (m64 - inputs[3].double()).abs().gather(0, first[None])[0]
    assert (distance[lanes_off] < 1e-6).all()


@pytest.mark.parametrize(("reset", "phase"), RESETS)
def test_reset_on_the_first_and_on_the_last_step(reset, phase):
    x = torch.zeros(129, 64, dtype=torch.float64)
    x[0], x[-1] = 2.0, 3.0
    inputs = (x, torch.zeros(64).double(), torch.tensor(0.5).double(), torch.tensor(1.0).double())
    how = Firing(reset, phase)
    want = outcome(lif_loop, inputs, how)
    assert want[0][0].all()
    assert want[0][-1].all()
    assert_same(outcome(lif, inputs, how), want, 1e-13)


@pytest.mark.parametrize(("fires", "spikes"), [(">=", 1.0), (">", 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [1.0, 0.1, 0.7])
def test_a_membrane_exactly_at_the_threshold(fires, spikes, dtype, threshold):
    at = torch.full((64,), threshold, dtype=dtype)
    x = torch.stack((at, torch.nextafter(at, 2 * at), torch.nextafter(at, 0 * at)))
    s, _, _ = lif(x, torch.zeros_like(at), torch.zeros((), dtype=dtype), at[0], Firing("none", fires=fires))
    assert s.unique(dim=1).flatten().tolist() == [spikes, 1, 0]


@pytest.mark.parametrize(("reset", "phase"), RESETS)
@pytest.mark.parametrize("cut", [1, 77, 128])
def test_a_sequence_in_two_parts_is_one_run(reset, phase, cut):
    def in_two(x, state, beta, threshold, how):
        s, m, u = lif(x[:cut], state, beta, threshold, how)
        s2, m2, u = lif(x[cut:], u, beta, threshold, how)
        return torch.cat((s, s2)), torch.cat((m, m2)), u

    inputs = case(150, (3, 25))
    how = Firing(reset, phase)
    assert_same(outcome(in_two, inputs, how), outcome(lif, inputs, how), 1e-13)


def test_inputs_that_are_not_contiguous():
    x, state, beta, _ = case(60, (25, 3))
    inputs = (x.transpose(1, 2), state.T, beta.new_full((25,), 0.8)[::1], torch.ones(50).double()[::2])
    assert_same(outcome(lif, inputs, Firing()), outcome(lif_loop, inputs, Firing()), 1e-13)


def test_inputs_stay_as_they_were():
    inputs = case(60, (80,))
    copies = [value.clone() for value in inputs]
    outcome(lif, inputs, Firing())
    assert all(torch.equal(a, b) for a, b in zip(inputs, copies, strict=True))


def test_no_step_reads_what_nobody_wrote(monkeypatch):
    def poisoned(steps, width, dtype):
        return torch.full((steps, width), torch.nan, dtype=dtype)

    from unscan.trainer.recurrence import fused

    monkeypatch.setattr(fused, "fresh", poisoned)
    inputs = case(150, (3, 25))
    assert_same(outcome(lif, inputs, Firing()), outcome(lif_loop, inputs, Firing()), 1e-13)


@pytest.mark.parametrize("shape", [(2, 128), (3, 1), (2, 64), (1, 200)])
@pytest.mark.parametrize("shared", [True, False])
def test_settings_of_one_number_of_whole_tiles_and_of_any_channels(shape, shared):
    how = Firing("subtract", fires=">", gain="1-beta")
    inputs = case(70, shape, shared=shared)
    assert_same(outcome(lif, inputs, how), outcome(lif_loop, inputs, how), 1e-13)
    mixed = (*inputs[:2], inputs[2].flatten()[0], inputs[3].expand(shape[-1]))
    assert_same(outcome(lif, mixed, how), outcome(lif_loop, mixed, how), 1e-13)


def test_no_state_is_zeros():
    x, state, beta, threshold = case(50, (3, 25))
    want = lif(x, torch.zeros_like(state), beta, threshold, Firing())
    got = lif(x, None, beta, threshold, Firing())
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    assert lif(x, None, beta, threshold, Firing(), membrane=False, state_after=False)[1:] == (None, None)


def test_gradients_handed_in_stay_as_they_were():
    x, state, beta, threshold = case(20, (64,))
    outputs = lif(x.requires_grad_(), state, beta, threshold, Firing())
    gradients = [torch.randn_like(output) for output in outputs]
    copies = [gradient.clone() for gradient in gradients]
    torch.autograd.backward(outputs, gradients)
    assert all(torch.equal(a, b) for a, b in zip(gradients, copies, strict=True))


def test_memory_of_a_result_is_used_again_only_when_nobody_holds_it(monkeypatch):
    monkeypatch.setattr(lanes, "_kept", {})
    first = lanes.fresh(1024, 64, torch.float32)
    view, where = first[3:, 5], first.data_ptr()
    del first
    second = lanes.fresh(1024, 64, torch.float32)
    assert second.data_ptr() != where
    del view
    assert lanes.fresh(1024, 64, torch.float32).data_ptr() == where
    assert lanes.fresh(512, 64, torch.float64).data_ptr() == where  # as many bytes


def test_memory_that_is_kept_is_bounded(monkeypatch):
    monkeypatch.setattr(lanes, "_kept", {})
    monkeypatch.setattr(lanes, "_KEPT_BYTES", 3 << 20)
    held = [lanes.fresh(steps, 64, torch.float32) for steps in range(1024, 4096, 256)]
    kept = [memory.size for memory, _ in lanes._kept.values()]
    assert 1 << 20 < sum(kept) <= 3 << 20
    del held
    large = lanes.fresh(8192, 64, torch.float32)
    assert any(user() is not None for _, user in lanes._kept.values())  # the idle ones made room for it
    assert sum(memory.size for memory, _ in lanes._kept.values()) <= 3 << 20
    assert large.shape == (8192, 64)


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(lanes, "_THREADS_FROM", 1)
    before = torch.get_num_threads()
    inputs = case(70, (5, 50))
    try:
        torch.set_num_threads(1)
        want = outcome(lif, inputs, Firing())
        torch.set_num_threads(3)
        got = outcome(lif, inputs, Firing())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_large_buffers_are_aligned_and_the_right_shape():
    for dtype in (torch.float32, torch.float64):
        buffer = lanes.fresh(1024, 2050, dtype)
        assert (buffer.shape, buffer.dtype) == ((1024, 2050), dtype)
        assert buffer.data_ptr() % 64 == 0
        assert buffer.is_contiguous()


def test_other_types_go_through_the_loop():
    inputs = case(20, (3, 4), torch.bfloat16)
    assert_same(outcome(lif, inputs, Firing()), outcome(lif_loop, inputs, Firing()), 0)


def test_changing_the_input_before_backward_is_caught():
    x, state, beta, threshold = case(20, (64,))
    x.requires_grad_()
    current = x * 1
    spikes, _, _ = lif(current, state, beta, threshold, Firing())
    current.detach().add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.sum().backward()
