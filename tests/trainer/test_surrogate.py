import math

import numpy as np
import pytest
import torch
from numba import njit

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recurrence.vector import load, spread, store
from unscan.trainer.surrogate import SURROGATES, digest, fire, surrogate_gradient, surrogate_named

EXPECTED = {
    "atan": lambda x, w: 1 / (w * (1 + (math.pi * x / w) ** 2)),
    "fast_sigmoid": lambda x, w: 1 / (1 + abs(x) / w) ** 2,
    "piecewise_quadratic": lambda x, w: max(0.0, 1 / w - abs(x) / w**2),
    "triangular": lambda x, w: 0.3 * max(0.0, 1 - abs(x) / w),
    "rectangular": lambda x, w: 1 / w if abs(x) <= w / 2 else 0.0,
}
POINTS = [-3.0, -1.0, -0.5, -0.251, -0.04, 0.0, 0.01, 0.249, 0.5, 0.999, 2.0]


@pytest.mark.parametrize("width", [None, 0.5, 2.0])
@pytest.mark.parametrize("name", SURROGATES)
def test_equals_its_equation(name, width):
    w = SURROGATES[name].width if width is None else width
    got = surrogate_gradient(torch.tensor(POINTS, dtype=torch.float64), name, width)
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got, [EXPECTED[name](x, w) for x in POINTS], rtol=1e-14, atol=1e-300)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SURROGATES)
def test_kernel_and_torch_agree_bit_for_bit(name, dtype):
    found, width = surrogate_named(name)
    curve = found.curve

    @njit(error_model="numpy")
    def along(x, out, p, q):
        for i in range(x.size):
            out[i] = curve(x[i], p, q)

    x = np.concatenate([np.linspace(-2, 2, 1001), POINTS]).astype(dtype)
    out = np.full_like(x, np.nan)
    along(x, out, *(dtype(c) for c in found.coefficients(width)))
    want = surrogate_gradient(torch.from_numpy(x), name)
    assert want.dtype == torch.from_numpy(x).dtype
    np.testing.assert_array_equal(out, want)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", SURROGATES)
def test_vectors_of_lanes_and_torch_agree_bit_for_bit(name, dtype):
    found, width = surrogate_named(name)
    curve = found.curve

    @njit(error_model="numpy")
    def along(x, out, p, q):
        for i in range(x.shape[0]):
            store(curve(load(x, i, 0), spread(p), spread(q)), out, i, 0)

    x = np.resize(np.concatenate([np.linspace(-2, 2, 1001), POINTS]), (16, 64)).astype(dtype)
    out = np.full_like(x, np.nan)
    along(x, out, *(dtype(c) for c in found.coefficients(width)))
    np.testing.assert_array_equal(out, surrogate_gradient(torch.from_numpy(x), name))


@pytest.mark.parametrize("name", ["atan", "piecewise_quadratic", "rectangular"])
def test_area_is_one(name):
    x = torch.linspace(-400, 400, 4_000_001, dtype=torch.float64)
    assert torch.trapezoid(surrogate_gradient(x, name), x).item() == pytest.approx(1, abs=1e-3)


def test_a_tie_fires_as_told():
    x = torch.tensor([-1e-300, 0.0, 1e-300], dtype=torch.float64)
    assert fire(x, ">=").tolist() == [0, 1, 1]
    assert fire(x, ">").tolist() == [0, 0, 1]


def test_gradient_of_a_spike_is_the_surrogate():
    x = torch.randn(20, dtype=torch.float64).requires_grad_()
    fire(x, surrogate="triangular", width=0.7).sum().backward()
    torch.testing.assert_close(x.grad, surrogate_gradient(x.detach(), "triangular", 0.7))


def test_refuses_what_it_does_not_know():
    with pytest.raises(InvalidInput, match=r"'atam'.*atan, fast_sigmoid"):
        surrogate_named("atam")
    for width in (0, -1, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="positive number"):
            surrogate_named("atan", width)


def test_another_formula_has_another_digest():
    assert digest(SURROGATES["atan"]) != digest(SURROGATES["fast_sigmoid"])
    assert digest(SURROGATES["triangular"]) == digest(SURROGATES["piecewise_quadratic"])
