"""The rounds of reset annealing against the step loop, and what they converge to against the exact neuron."""

import pytest
import torch

from unscan.trainer.recurrence import annealing, lanes
from unscan.trainer.recurrence.annealing import annealed, annealed_loop, converged_step
from unscan.trainer.recurrence.fused import lif
from unscan.trainer.recurrence.naive import Firing, lif_loop

NAMES = ("spikes", "membrane", "state", "x", "initial state", "beta", "threshold", "strength")
SUBTRACT = Firing("subtract")


def case(steps, shape, rounds=1, dtype=torch.float64, shared=False, seed=0):
    torch.manual_seed(seed)
    channels = () if shared else shape[-1:]
    made = (
        torch.randn(steps, *shape) * 0.7 + 0.2,
        torch.cat((torch.randn(1, *shape), torch.rand(rounds, *shape))),
        torch.rand(channels) * 0.6 + 0.39,
        torch.rand(channels) * 0.5 + 0.5,
        torch.rand(channels) * 0.6 + 0.3,
    )
    return tuple(value.to(dtype) for value in made)


def fast(x, state, beta, threshold, strength, how):
    return tuple(annealed(x, state, beta, threshold, strength, len(state) - 1, how))[:3]


def outcome(run, inputs, how, weights=(1, 1, 1), learn=True):
    """Run forward and backward; hand back everything that two implementations must agree on."""
    x, state, *numbers = (value.clone() for value in inputs)
    for value in (x, state, *(numbers if learn else ())):
        value.requires_grad_()
    outputs = run(x, state, *numbers, how)
    torch.manual_seed(7)
    loss = torch.zeros((), dtype=x.dtype)
    for output, weight in zip(outputs, weights, strict=True):
        if weight:
            loss = loss + (output * torch.randn(output.shape, dtype=output.dtype)).sum()
    loss.backward()
    return (*(o.detach() for o in outputs), x.grad, state.grad, *(n.grad for n in numbers))


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


@pytest.mark.parametrize("rounds", [1, 2, 5])
@pytest.mark.parametrize("gain", ["1", "1-beta"])
@pytest.mark.parametrize("fires", [">=", ">"])
def test_equals_the_loop(rounds, fires, gain):
    how = Firing(fires=fires, gain=gain)
    inputs = case(100, (3, 25), rounds)  # 75 lanes: two tiles of 64 that overlap
    want = outcome(annealed_loop, inputs, how)
    if gain == "1":
        assert 0.05 < want[0].mean() < 0.7
    assert_same(outcome(fast, inputs, how), want, 1e-12)


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
def test_lengths(steps):
    inputs = case(steps, (2, 40))
    assert_same(outcome(fast, inputs, Firing()), outcome(annealed_loop, inputs, Firing()), 1e-12)


@pytest.mark.slow
def test_a_long_sequence():
    inputs = case(16384, (2, 4))
    assert_same(outcome(fast, inputs, Firing()), outcome(annealed_loop, inputs, Firing()), 1e-11)


@pytest.mark.parametrize("shape", [(1,), (3, 7), (64,), (65,), (2, 3, 50)])
@pytest.mark.parametrize("shared", [True, False])
def test_lane_shapes(shape, shared):
    inputs = case(40, shape, 2, shared=shared)
    assert_same(outcome(fast, inputs, Firing()), outcome(annealed_loop, inputs, Firing()), 1e-12)


@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "piecewise_quadratic", "triangular", "rectangular"])
def test_surrogates(surrogate):
    how = Firing(surrogate=surrogate, width=0.8)
    inputs = case(70, (70,), 2)
    assert_same(outcome(fast, inputs, how), outcome(annealed_loop, inputs, how), 1e-12)


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_gradient_of_one_output_alone(weights):
    inputs = case(50, (70,), 2)
    got, want = (outcome(run, inputs, Firing(), weights) for run in (fast, annealed_loop))
    assert_same(got, want, 1e-12)


def test_numbers_that_do_not_learn():
    inputs = case(60, (70,), 2)
    got, want = (outcome(run, inputs, Firing(), learn=False) for run in (fast, annealed_loop))
    assert_same(got, want, 1e-12)


def test_float32_equals_the_float32_loop_bit_for_bit_forward():
    inputs = case(300, (2, 40), 2, torch.float32)
    assert_same(outcome(fast, inputs, Firing()), outcome(annealed_loop, inputs, Firing()), 2e-5)


def test_float32_first_leaves_float64_at_a_tie():
    inputs = case(1024, (2, 40), 1, torch.float32)
    s32, _, _ = fast(*inputs, Firing())
    x, state, beta, threshold, strength = (value.double() for value in inputs)
    s64, m64, _ = fast(x, state, beta, threshold, strength, Firing())
    s0, u0, _ = lif(x, state[0], beta, threshold, Firing("none"))
    s0_32, _, _ = lif(inputs[0], inputs[1][0], inputs[2], inputs[3], Firing("none"))
    differs = (s32 != s64) | (s0_32 != s0)
    near = torch.minimum((m64 - threshold).abs(), (u0 - threshold).abs())
    first = differs.to(torch.int8).argmax(0)
    off = differs.any(0)
    assert (near.gather(0, first[None])[0][off] < 1e-5).all()  # membranes reach 20: 100 times their rounding


@pytest.mark.parametrize("cut", [1, 37, 99])
@pytest.mark.parametrize("rounds", [1, 3])
def test_a_sequence_in_two_parts_is_one_run(cut, rounds):
    def in_two(x, state, *rest):
        s, m, state = fast(x[:cut], state, *rest)
        s2, m2, state = fast(x[cut:], state, *rest)
        return torch.cat((s, s2)), torch.cat((m, m2)), state

    inputs = case(100, (3, 25), rounds)
    assert_same(outcome(in_two, inputs, Firing()), outcome(fast, inputs, Firing()), 1e-12)


@pytest.mark.parametrize("beta", [0.125, 0.9])
@pytest.mark.parametrize("steps", [1, 63, 100, 512])
def test_rounds_without_a_limit_converge_to_the_exact_neuron(beta, steps):
    torch.manual_seed(steps)
    x = torch.randn(steps, 3, 25, dtype=torch.float64) * 0.7 + 0.3
    numbers = torch.tensor(beta).double(), torch.tensor(1.0).double()
    got = annealed(x, None, *numbers, torch.tensor(1.0).double(), None, Firing())
    spikes, membrane, last = lif_loop(x, torch.zeros_like(x[0]), *numbers, SUBTRACT)
    assert got.converged
    assert 1 <= got.rounds_used <= steps
    if steps > 1:
        assert spikes.sum() > 10
        assert got.rounds_used > 1
    assert torch.equal(got.spikes, spikes)
    torch.testing.assert_close(got.membrane, membrane, rtol=1e-11, atol=1e-11)
    after = got.state[0] - got.state[1] / numbers[0]  # r already holds the decay of the step to come
    torch.testing.assert_close(after, last, rtol=1e-10, atol=1e-10)
    enough = annealed(x, None, *numbers, torch.tensor(1.0).double(), got.rounds_used, Firing())
    assert torch.equal(enough.spikes, spikes)
    if got.rounds_used > 2:
        short = annealed(x, None, *numbers, torch.tensor(1.0).double(), got.rounds_used - 2, Firing())
        assert not short.converged
        assert not torch.equal(short.spikes, spikes)


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_rounds_without_a_limit_are_the_converged_step(strength):
    x, state, beta, threshold, _ = case(100, (3, 5))
    strength = torch.tensor(strength).double()
    whole = annealed(x, state, beta, threshold, strength, None, Firing())
    first = annealed(x[:41], state, beta, threshold, strength, None, Firing())
    second = annealed(x[41:], first.state, beta, threshold, strength, None, Firing())
    assert torch.equal(torch.cat((first.spikes, second.spikes)), whole.spikes)
    assert torch.equal(second.state, whole.state)
    for t, x_t in enumerate(x):
        s, m, state = converged_step(x_t, state, beta, threshold, strength, Firing())
        assert torch.equal(s, whole.spikes[t])
        assert torch.equal(m, whole.membrane[t])
    assert torch.equal(state, whole.state)


def test_the_gradient_of_as_many_rounds_as_steps_is_that_of_the_exact_neuron():
    x, state, beta, threshold, strength = case(20, (70,), 20)
    state[1:] = 0.0
    got = outcome(annealed_loop, (x, state, beta, threshold, torch.ones_like(strength)), Firing(), (1, 1, 0))
    want = outcome(lambda *a: lif_loop(*a[:4], SUBTRACT), (x, state[0], beta, threshold), Firing(), (1, 1, 0))
    assert torch.equal(got[0], want[0])
    for ours, exact in zip((got[3], got[4][0], *got[5:7]), want[3:], strict=True):
        torch.testing.assert_close(ours, exact, rtol=1e-10, atol=1e-10)


def test_the_gradient_without_a_limit_is_that_of_the_rounds_that_were_run():
    x, _, *numbers = case(60, (70,))
    used = annealed(x, None, *numbers, None, Firing()).rounds_used
    state = torch.zeros(used + 1, 70, dtype=torch.float64)

    def without_limit(x, state, *rest):
        return (*annealed(x, state[:2], *rest[:3], None, rest[3])[:2], torch.zeros(1))

    got, want = (
        outcome(run, (x, state, *numbers), Firing(), (1, 1, 0)) for run in (without_limit, annealed_loop)
    )
    assert 3 < used < 60
    for ours, loops in zip((got[3], got[4][0], *got[5:]), (want[3], want[4][0], *want[5:]), strict=True):
        torch.testing.assert_close(ours, loops, rtol=1e-10, atol=1e-10)


def test_no_strength_is_no_reset():
    x, state, beta, threshold, strength = case(100, (3, 25), 2)
    got = annealed(x, state, beta, threshold, strength * 0, 2, Firing())
    spikes, membrane, _ = lif(x, state[0], beta, threshold, Firing("none"))
    assert torch.equal(got.spikes, spikes)
    assert torch.equal(got.membrane, membrane)
    assert (got.converged, annealed(x, None, beta, threshold, strength * 0, 2, Firing()).rounds_used) == (
        True,
        1,
    )


def test_rounds_do_not_end_early_where_later_ones_start_from_another_reset():
    x = torch.full((3, 64), 0.1, dtype=torch.float64)
    half, one = torch.tensor(0.5).double(), torch.tensor(1.0).double()
    state = torch.zeros(3, 64, dtype=torch.float64)
    state[2] = -4.0  # the second round starts from a reset that lifts the membrane above the threshold
    got = annealed(x, state, half, one, one, 2, Firing())
    want = annealed_loop(x, state, half, one, one, Firing())
    assert want[0].sum() > 0
    assert torch.equal(got.spikes, want[0])
    assert (got.rounds_used, got.converged) == (2, False)


def test_ties():
    x = torch.zeros(2, 64, dtype=torch.float64)
    x[0] = 1.0
    for fires, spike in ((">=", 1.0), (">", 0.0)):
        got = annealed(
            x, None, x.new_tensor(0.5), x.new_tensor(1.0), x.new_tensor(1.0), 1, Firing(fires=fires)
        )
        assert got.spikes[:, 0].tolist() == [spike, 0]


def test_no_step_reads_what_nobody_wrote(monkeypatch):
    def poisoned(steps, width, dtype):
        return torch.full((steps, width), torch.nan, dtype=dtype)

    monkeypatch.setattr(annealing, "fresh", poisoned)
    inputs = case(70, (3, 25), 2)
    assert_same(outcome(fast, inputs, Firing()), outcome(annealed_loop, inputs, Firing()), 1e-12)


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(lanes, "_THREADS_FROM", 1)
    before = torch.get_num_threads()
    inputs = case(70, (5, 50), 2)
    try:
        torch.set_num_threads(1)
        want = outcome(fast, inputs, Firing())
        torch.set_num_threads(3)
        got = outcome(fast, inputs, Firing())
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_other_types_go_through_plain_torch():
    inputs = case(20, (3, 4), 2, torch.bfloat16)
    got, want = (outcome(run, inputs, Firing()) for run in (fast, annealed_loop))
    assert_same((*got[:3], *want[3:]), want, 0)
    assert all(g.isfinite().all() for g in got[3:])


def test_plain_torch_rounds_are_the_kernels(monkeypatch):
    inputs = case(40, (3, 25), 3)
    want = outcome(fast, inputs, Firing())
    monkeypatch.setattr(annealing, "runs_fused", lambda x: False)
    assert_same(outcome(fast, inputs, Firing()), want, 1e-12)
