"""The truth itself is checked against numbers worked out by hand and the paper's own backward equations."""

import pytest
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence.naive import Firing, li_loop, lif_loop
from unscan.trainer.surrogate import surrogate_gradient


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("how", "membranes", "spikes", "state"),
    [
        (Firing("none"), [0.5, 1.25, 0.625, 1.3125], [0, 1, 0, 1], 1.3125),
        (Firing("subtract"), [0.5, 1.25, 0.125, 1.0625], [0, 1, 0, 1], 0.0625),
        (Firing("zero"), [0.5, 1.25, 0.0, 1.0], [0, 1, 0, 1], 0.0),
        (Firing("zero", fires=">"), [0.5, 1.25, 0.0, 1.0], [0, 1, 0, 0], 1.0),
        (Firing("subtract", "next"), [0.5, 1.25, -0.375, 0.8125], [0, 1, 0, 0], 0.8125),
        (Firing("zero", "next"), [0.5, 1.25, 0.0, 1.0], [0, 1, 0, 1], 1.0),
        (Firing("none", gain="1-beta"), [0.25, 0.625, 0.3125, 0.65625], [0, 0, 0, 0], 0.65625),
    ],
)
def test_by_hand(how, membranes, spikes, state):
    x = numbers(0.5, 1.0, 0.0, 1.0).reshape(4, 1)
    s, m, u = lif_loop(x, numbers(0.0), numbers(0.5), numbers(1.0), how)
    assert m.flatten().tolist() == membranes
    assert s.flatten().tolist() == spikes
    assert u.item() == state


def test_phase_next_reads_the_spike_off_the_state():
    how = Firing("zero", "next")
    s, m, _ = lif_loop(numbers(0.9).reshape(1, 1), numbers(3.0), numbers(0.5), numbers(1.0), how)
    assert (s.item(), m.item()) == (0, 0)


@pytest.mark.parametrize("backward", ["bptt", "sltt"])
def test_hard_reset_gradient_is_the_papers(backward):
    """papers/003, supplement: equations 4-9 for BPTT, 13-14 for SLTT."""
    torch.manual_seed(0)
    steps, beta, theta = 30, 0.7, 0.6
    x = torch.randn(steps, 1, dtype=torch.float64).requires_grad_()
    threshold = numbers(theta).requires_grad_()
    delta = torch.randn(steps, dtype=torch.float64)
    s, m, _ = lif_loop(x, numbers(0.0), numbers(beta), threshold, Firing("zero", backward=backward))
    assert 3 <= s.sum() < 20
    (s.flatten() * delta).sum().backward()

    spikes, u = s.detach().flatten(), m.detach().flatten()
    slope = surrogate_gradient(u - theta, "atan")
    want_x, want_theta, from_later = torch.zeros(steps, dtype=torch.float64), 0.0, 0.0
    for t in reversed(range(steps)):
        want_x[t] = delta[t] * slope[t] + from_later * (1 - spikes[t] - u[t] * slope[t])
        want_theta -= slope[t] * (delta[t] - from_later * u[t])
        from_later = beta * want_x[t] if backward == "bptt" else 0.0
    torch.testing.assert_close(x.grad.flatten(), want_x)
    torch.testing.assert_close(threshold.grad.squeeze(), torch.as_tensor(want_theta))


def test_integrator_is_a_geometric_sum():
    u = li_loop(torch.ones(50, 1, dtype=torch.float64), numbers(0.0), numbers(0.5))
    torch.testing.assert_close(u.flatten(), 2 - 0.5 ** torch.arange(50, dtype=torch.float64))


@pytest.mark.parametrize(
    "wrong", [{"reset": "soft"}, {"phase": "late"}, {"fires": "="}, {"gain": 1}, {"backward": "rtrl"}]
)
def test_refuses_options_that_do_not_exist(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(InvalidInput, match=f"Option {name} is {value!r}. Choose one of"):
        Firing(**wrong)
