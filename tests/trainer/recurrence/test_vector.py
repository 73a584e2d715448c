"""Each operation on a vector of lanes against numpy's on the same numbers, bit for bit."""

import numpy as np
import pytest
from numba import njit
from numba.core.errors import TypingError

from unscan.trainer.recurrence.vector import LANES, load, select, spread, store

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0, 1e-40, 3.5]


def numbers(dtype):
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((2, 2 * LANES)).astype(dtype)
    pairs = np.array(np.meshgrid(SPECIAL, SPECIAL)).reshape(2, -1)
    rows[:, : pairs.shape[1]] = pairs
    return rows


def applied(operation, rows):
    """Apply operation(a, b, zero, one) to the two rows; start from an odd column too, which overlaps."""

    @njit(error_model="numpy")
    def run(rows, out):
        zero, one = spread(rows.dtype.type(0.0)), spread(rows.dtype.type(1.0))
        for column in (0, 13, LANES):
            a, b = load(rows, 0, column), load(rows, 1, column)
            store(operation(a, b, zero, one), out, 0, column)

    out = np.full((1, rows.shape[1]), 99, rows.dtype)
    run(rows, out)
    return out[0]


CASES = {
    "add": lambda a, b, zero, one: a + b,
    "sub": lambda a, b, zero, one: a - b,
    "mul": lambda a, b, zero, one: a * b,
    "truediv": lambda a, b, zero, one: a / b,
    "neg": lambda a, b, zero, one: -a,
    "abs": lambda a, b, zero, one: abs(a),
    "nothing is contracted": lambda a, b, zero, one: a * b + a,
}
CHOOSING = {
    "ge": (lambda a, b, zero, one: select(a >= b, one, zero), lambda a, b: np.where(a >= b, 1, 0)),
    "le": (lambda a, b, zero, one: select(a <= b, a, b), lambda a, b: np.where(a <= b, a, b)),
    "mask as a factor": (lambda a, b, zero, one: a * (a >= b), lambda a, b: np.where(a >= b, a, 0)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_arithmetic_is_numpys(name, dtype):
    rows = numbers(dtype)
    got = applied(njit(CASES[name]), rows)
    with np.errstate(all="ignore"):
        want = CASES[name](*rows, 0, 1)
    np.testing.assert_array_equal(got, want)
    there = ~np.isnan(want)
    assert np.array_equal(np.signbit(got[there]), np.signbit(want[there]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHOOSING)
def test_comparisons_choose_as_numpys(name, dtype):
    rows = numbers(dtype)
    operation, meaning = CHOOSING[name]
    np.testing.assert_array_equal(applied(njit(operation), rows), meaning(*rows))


def test_types_do_not_mix():
    @njit
    def mixed(rows, wide):
        store(load(rows, 0, 0) + load(wide, 0, 0), rows, 0, 0)

    with pytest.raises(TypingError, match="Vector.float32., Vector.float64."):
        mixed(numbers(np.float32), numbers(np.float64))
