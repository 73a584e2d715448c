"""The neuron with an adaptive threshold: kernels against the loop, and the loop against what it must reduce to."""

import pytest
import torch

from tests.trainer.recurrence.agreement import assert_same, first_partings, lattice, outcome
from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence.adaptive import adaptive, adaptive_loop, adaptive_step
from unscan.trainer.recurrence.fused import segment_steps
from unscan.trainer.recurrence.naive import Firing, lif_loop

RESETS = ["none", "subtract", "zero"]


def case(steps, shape, dtype=torch.float64, shared=False, seed=0):
    """x, u, a, beta, theta, kappa, rho."""
    torch.manual_seed(seed)
    of = () if shared else shape[-1:]
    made = (
        torch.randn(steps, *shape),
        torch.randn(*shape),
        torch.rand(*shape) * 2,
        torch.rand(of) * 0.6 + 0.39,
        torch.rand(of) * 0.5 + 0.5,
        torch.rand(of) * 0.3 + 0.01,
        torch.rand(of) * 0.5 + 0.45,
    )
    return tuple(value.to(dtype) for value in made)


def runs(run, how):
    return lambda x, u, a, *parameters: run(x, (u, a), parameters, how)


def both(inputs, how, learn=None):
    return (outcome(runs(run, how), inputs, learn) for run in (adaptive, adaptive_loop))


@pytest.mark.parametrize("fires", [">=", ">"])
@pytest.mark.parametrize("reset", RESETS)
def test_equals_the_loop(reset, fires):
    got, want = both(case(150, (3, 25)), Firing(reset, fires=fires))
    assert 0.05 < want[0][0].mean() < 0.4
    assert_same(got, want, 1e-13)


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
@pytest.mark.parametrize("reset", RESETS)
def test_lengths(steps, reset):
    assert_same(*both(case(steps, (2, 40)), Firing(reset)), 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("reset", RESETS)
def test_a_long_sequence(reset):
    assert_same(*both(case(16384, (2, 40)), Firing(reset)), 1e-12)


@pytest.mark.parametrize("shape", [(1,), (3, 7), (64,), (65,), (2, 3, 50), (2, 128)])
@pytest.mark.parametrize("shared", [True, False])
def test_lane_shapes(shape, shared):
    assert_same(*both(case(40, shape, shared=shared), Firing("subtract", fires=">")), 1e-13)


def test_many_lanes():
    assert segment_steps(2500) < segment_steps(75)
    assert_same(*both(case(2 * segment_steps(2500) + 3, (5, 500)), Firing("subtract")), 1e-13)


def test_fixed_parameters():
    assert_same(*both(case(100, (2, 40)), Firing("subtract"), learn=3), 1e-13)


def test_another_surrogate():
    how = Firing("zero", surrogate="piecewise_quadratic", width=0.8)
    assert_same(*both(case(100, (70,)), how), 1e-13)


@pytest.mark.parametrize("reset", RESETS)
def test_float32_equals_the_float32_loop(reset):
    assert_same(*both(case(500, (2, 40), torch.float32), Firing(reset)), 2e-5)


@pytest.mark.parametrize("reset", RESETS)
def test_float32_first_leaves_float64_within_rounding_of_the_threshold(reset):
    x = lattice(1024, 64)
    per_lane = torch.arange(64) % 4
    numbers = ((0.5 + per_lane // 2 / 2), torch.ones(64), torch.full((64,), 0.3), per_lane % 2 / 2)
    how = Firing(reset)
    zeros = torch.zeros(64)
    s32, _, _ = adaptive(x, (zeros, zeros), numbers, how)

    # What rounding to 24 bits can have added up to in membrane and threshold, as long as the spikes are the same.
    unit = 2.0**-24
    beta, theta, kappa, rho = wide = tuple(n.double() for n in numbers)
    state = (zeros.double(), zeros.double())
    off_u, off_a = state
    spikes, distances, bounds = [], [], []
    for x_t in x.double():
        u, a = state
        raised = theta + kappa * a
        s, m, state = adaptive_step(x_t, state, wide, how)
        off_m = beta * off_u + unit * ((beta * u).abs() + m.abs())
        off_raised = kappa * off_a + unit * (kappa * a + raised)
        off_a = rho * off_a + unit * (rho * a + state[1])
        off_u = off_m * (1 - s) if reset == "zero" else off_m + unit * state[0].abs() * s
        spikes.append(s)
        distances.append((m - raised).abs())
        bounds.append(1.001 * (off_m + off_raised))  # 1.001: roundings of what is rounded already
    first, parted = first_partings(s32, torch.stack(spikes))
    distance = torch.stack(distances).gather(0, first)[0]
    assert (distance[parted] <= torch.stack(bounds).gather(0, first)[0][parted]).all()


@pytest.mark.parametrize("reset", RESETS)
def test_without_adaptation_it_is_the_leaky_neuron(reset):
    x, u, _, beta, theta, _, rho = case(150, (3, 25))
    nothing = torch.zeros_like(u)
    how = Firing(reset)
    s, m, (last, _) = adaptive(x, (u, nothing), (beta, theta, torch.zeros_like(beta), rho), how)
    for a, b in zip((s, m, last), lif_loop(x, u, beta, theta, how), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("cut", [1, 77])
def test_a_sequence_in_two_parts_is_one_run(reset, cut):
    def in_two(x, u, a, *parameters):
        s, m, state = adaptive(x[:cut], (u, a), parameters, how)
        s2, m2, state = adaptive(x[cut:], state, parameters, how)
        return torch.cat((s, s2)), torch.cat((m, m2)), state

    inputs, how = case(150, (3, 25)), Firing(reset)
    assert_same(outcome(in_two, inputs), outcome(runs(adaptive, how), inputs), 1e-13)


def test_no_state_is_zeros_and_no_membrane_changes_nothing():
    x, u, _, *parameters = case(50, (3, 25))
    nothing = torch.zeros_like(u)
    s, _, state = adaptive(x, (nothing, nothing), tuple(parameters), Firing())
    got, membrane, last = adaptive(x, None, tuple(parameters), Firing(), membrane=False)
    assert membrane is None
    assert torch.equal(got, s)
    assert all(torch.equal(a, b) for a, b in zip(last, state, strict=True))


@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_reset_on_the_first_and_on_the_last_step(reset):
    x = torch.zeros(129, 64, dtype=torch.float64)
    x[0], x[-1] = 2.0, 3.0
    inputs = (x, *torch.zeros(2, 64).double(), *torch.tensor([0.5, 1.0, 0.2, 0.9]).double())
    got, want = both(inputs, Firing(reset))
    assert want[0][0][[0, -1]].all()
    assert_same(got, want, 1e-13)


@pytest.mark.parametrize(("fires", "spikes"), [(">=", 1.0), (">", 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_membrane_exactly_at_the_raised_threshold(fires, spikes, dtype):
    theta, kappa, a = (torch.tensor(value, dtype=dtype) for value in (1.0, 0.3, 0.7))
    at = (theta + kappa * a).expand(64)
    for x, want in ((at, spikes), (torch.nextafter(at, 2 * at), 1), (torch.nextafter(at, 0 * at), 0)):
        parameters = (torch.zeros((), dtype=dtype), theta, kappa, theta)
        s, _, _ = adaptive(x[None], (0 * at, a.expand(64)), parameters, Firing("none", fires=fires))
        assert s.unique().tolist() == [want]


def test_threads_change_nothing(monkeypatch):
    from unscan.trainer.recurrence import lanes

    monkeypatch.setattr(lanes, "_THREADS_FROM", 1)
    before = torch.get_num_threads()
    inputs, how = case(70, (5, 50)), Firing()
    try:
        torch.set_num_threads(3)
        got = outcome(runs(adaptive, how), inputs)
    finally:
        torch.set_num_threads(before)
    assert_same(got, outcome(runs(adaptive_loop, how), inputs), 1e-13)


def test_other_types_go_through_the_loop():
    assert_same(*both(case(20, (3, 4), torch.bfloat16), Firing()), 0)


@pytest.mark.parametrize("run", [adaptive, adaptive_loop])
def test_refuses_what_it_does_not_have(run):
    x, u, a, *parameters = case(3, (4,))
    for how in (Firing(phase="next"), Firing(gain="1-beta"), Firing(backward="sltt")):
        with pytest.raises(InvalidInput, match="adaptive neuron resets at once"):
            run(x, (u, a), tuple(parameters), how)
