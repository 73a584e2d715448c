"""The delta rule's step, by hand; top-k and keys of length 1."""

import pytest
import torch

from unscan.trainer.recurrence.delta.naive import delta_loop, delta_step, unit_keys
from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.recurrence.top_k import keep_largest

HOW = Firing("none")


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_a_step_by_hand():
    state = tensor([[4.0, 2.0], [0.0, 1.0]])
    v, k, alpha, beta = tensor([3.0, 5.0]), tensor([0.6, 0.8]), tensor(0.5), tensor(0.25)
    y, s = delta_step(v, k, alpha, beta, None, state, torch.tensor(1.5).double(), HOW)
    # alpha S (I - b k k^T) + b v k^T, with k k^T = (0.36 0.48; 0.48 0.64)
    erase = torch.eye(2) - 0.25 * tensor([0.36, 0.48], [0.48, 0.64])
    want = 0.5 * state[0] @ erase + 0.25 * v.mT * k
    torch.testing.assert_close(s[0], want, rtol=1e-15, atol=1e-15)
    assert torch.equal(y, (s >= 1.5).double())
    q = tensor([[2.0], [-1.0]])
    y, _ = delta_step(v, k, alpha, beta, q, state, torch.tensor(1.5).double(), HOW)
    assert torch.equal(y[0], (s[0] >= 1.5).double() @ q[0])


def test_a_full_write_replaces_what_stood_at_the_key():
    torch.manual_seed(0)
    k = unit_keys(torch.randn(1, 6, dtype=torch.float64))
    other = torch.randn(1, 6, dtype=torch.float64)
    other = other - (other @ k.mT) * k
    v, state = torch.randn(1, 4, dtype=torch.float64), torch.randn(1, 4, 6, dtype=torch.float64)
    one = tensor(1.0)
    _, s = delta_step(v, k, one, one, None, state, one[0], HOW)
    torch.testing.assert_close((s @ k.mT)[..., 0], v)
    torch.testing.assert_close(s @ other.mT, state @ other.mT)


@pytest.mark.parametrize(("fires", "spikes"), [(">=", 1.0), (">", 0.0)])
def test_a_membrane_exactly_at_the_threshold(fires, spikes):
    zero = torch.zeros(1, 1)
    y, _ = delta_step(
        zero,
        zero,
        torch.ones(1),
        zero[0],
        None,
        torch.full((1, 1, 1), 0.7),
        torch.tensor(0.7),
        Firing("none", fires=fires),
    )
    assert y.item() == spikes


def test_derivatives_are_those_of_finite_differences():
    torch.manual_seed(0)
    inputs = [
        torch.rand(shape, dtype=torch.float64) for shape in ((4, 2, 3), (4, 2, 5), (4, 2), (4, 2), (2, 3, 5))
    ]

    def states(v, k, alpha, beta, state):
        return delta_loop(v, unit_keys(k), alpha, beta, None, state, tensor(1.0)[0], HOW)[1:]

    assert torch.autograd.gradcheck(states, [value.requires_grad_() for value in inputs])


def test_the_largest_are_kept_and_of_equals_the_first():
    values = tensor(
        [1.0, -3.0, 2.0, 3.0, -2.0], [0.0, 0.0, 0.0, 0.0, 0.0], [5.0, 1.0, 1.0, 1.0, -1.0]
    ).requires_grad_()
    kept = keep_largest(values, 3)
    assert kept.tolist() == [[0, -3, 2, 3, 0], [0, 0, 0, 0, 0], [5, 1, 1, 0, 0]]
    kept.sum().backward()
    assert values.grad.tolist() == [[0, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 0, 0]]
    assert torch.equal(keep_largest(values, 5), values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keys_have_length_one_or_none(dtype):
    torch.manual_seed(0)
    keys = torch.randn(20, 3, 7, dtype=dtype) * torch.logspace(-6, 6, 20, dtype=dtype)[:, None, None]
    keys[3, 1], keys[5, 2] = 0.0, 1e-14
    keys.requires_grad_()
    unit = unit_keys(keys)
    length = torch.linalg.vector_norm(unit, dim=-1)
    none = torch.zeros(20, 3, dtype=torch.bool)
    none[3, 1] = none[5, 2] = True
    assert torch.equal(length[none], torch.zeros(2, dtype=dtype))
    eps = torch.finfo(dtype).eps
    assert (length[~none] - 1).abs().max() < 8 * eps
    unit.square().cumsum(-1).sum().backward()
    assert keys.grad.isfinite().all()
    assert not keys.grad[none].any()
    assert keys.grad[~none].any(-1).all()


def test_a_key_of_zero_only_lets_the_memory_decay():
    torch.manual_seed(0)
    state = torch.randn(2, 3, 4)
    zero, half = torch.zeros(2, 4), torch.full((2,), 0.5)
    _, s = delta_step(torch.randn(2, 3), unit_keys(zero), half, half, None, state, half[0], HOW)
    assert torch.equal(s, 0.5 * state)
