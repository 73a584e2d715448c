"""The short filter: one fused pass against the loop of steps."""

import pytest
import torch

from tests.trainer.recurrence.agreement import assert_same, outcome
from unscan.trainer.recurrence.fir import fir, fir_loop, fir_step


def case(steps, shape, order, dtype=torch.float64, shared=False):
    torch.manual_seed(0)
    taps = (order,) if shared else (shape[-1], order)
    made = (torch.randn(steps, *shape), torch.randn(order - 1, *shape), torch.randn(*taps))
    return tuple(value.to(dtype) for value in made)


def both(inputs, learn=None):
    return (outcome(run, inputs, learn) for run in (fir, fir_loop))


@pytest.mark.parametrize("steps", [1, 5, 31, 32, 33, 63, 100, 1024])
@pytest.mark.parametrize("order", [1, 2, 8])
def test_equals_the_loop(steps, order):
    assert_same(*both(case(steps, (3, 25), order)), 1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_long_sequence(dtype):
    assert_same(*both(case(16384, (3, 25), 8, dtype)), 1e-12 if dtype == torch.float64 else 2e-5)


@pytest.mark.parametrize("order", [3, 40, 70])
def test_more_taps_than_a_block_or_than_steps(order):
    assert_same(*both(case(50, (70,), order)), 1e-13)


@pytest.mark.parametrize("shape", [(1,), (64,), (65,), (2, 3, 50), (5, 500)])
@pytest.mark.parametrize("shared", [True, False])
def test_lane_shapes(shape, shared):
    assert_same(*both(case(40, shape, 4, shared=shared)), 1e-13)


def test_float32_equals_the_float32_loop():
    assert_same(*both(case(500, (2, 40), 8, torch.float32)), 2e-5)


def test_fixed_weights():
    assert_same(*both(case(70, (3, 25), 8), learn=2), 1e-13)


@pytest.mark.parametrize("cut", [1, 3, 77])
def test_a_sequence_in_two_parts_is_one_run(cut):
    def in_two(x, before, weight):
        second = torch.cat((before, x[:cut]))[cut:]
        return torch.cat((fir(x[:cut], before, weight), fir(x[cut:], second, weight)))

    inputs = case(100, (3, 25), 8)
    assert_same(outcome(in_two, inputs), outcome(fir, inputs), 1e-13)


def test_an_impulse_comes_out_as_the_weights():
    x = torch.zeros(9, 1).double()
    x[2] = 1
    weight = torch.tensor([1.0, 0.5, -2.0]).double()
    assert fir(x, torch.zeros(2, 1).double(), weight).flatten().tolist() == [0, 0, 1, 0.5, -2, 0, 0, 0, 0]
    before = torch.tensor([[3.0], [5.0]]).double()
    u, after = fir_step(torch.tensor([7.0]).double(), before, weight)
    assert u.tolist() == [7 + 2.5 - 6]
    assert after.flatten().tolist() == [5, 7]


def test_derivatives_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(fir, [value.requires_grad_() for value in case(5, (2, 2), 3)])


def test_other_types_go_through_the_loop():
    assert_same(*both(case(20, (3, 4), 3, torch.bfloat16)), 0)
