"""What a format of whole numbers holds, and what becomes of what it cannot hold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unscan.compiler.fixed import SPIKES, Fixed


def test_ranges_are_symmetric():
    assert (Fixed(8).min, Fixed(8).max) == (-127, 127)
    assert (Fixed(8, signed=False).min, Fixed(8, signed=False).max) == (0, 255)
    assert (SPIKES.min, SPIKES.max) == (0, 1)


def test_a_format_says_what_it_is():
    assert str(Fixed(8)) == "int8"
    assert str(Fixed(12, 4, signed=False)) == "uint12 x 2^-4"


@pytest.mark.parametrize("largest", [0, 1, 2, 127, 128, 255, 256, 2**31 - 1])
@pytest.mark.parametrize("signed", [False, True])
def test_the_narrowest_format_holds_the_largest_number_and_one_bit_less_does_not(largest: int, signed: bool):
    found = Fixed.holding(largest, signed=signed)
    assert found.max >= largest
    if largest > 1:
        assert Fixed(found.bits - 1, signed=signed).max < largest


def test_only_whole_numbers_in_range_are_allowed():
    assert Fixed(8).allowed(np.array([-127.0, 0, 127]))
    assert not Fixed(8).allowed(np.array([128.0]))
    assert not Fixed(8).allowed(np.array([-128.0]))
    assert not Fixed(8).allowed(np.array([0.5]))
    assert not Fixed(8, signed=False).allowed(np.array([-1.0]))


def test_real_numbers_become_the_nearest_units_half_to_even():
    got = Fixed(8, 2).nearest(np.array([0.0, 0.125, 0.375, -0.3, 100.0, -100.0]))
    np.testing.assert_array_equal(got, [0, 0, 2, -1, 127, -127])


def test_wrapping_goes_round_as_a_loihi_2_current_does():
    top = 2.0**23
    around = Fixed(24).wrapped(np.array([top, top + 1, -top, -top + 1, 0.0]))
    np.testing.assert_array_equal(around, [top, -top + 1, top, -top + 1, 0])


@given(st.integers(-(2**40), 2**40), st.integers(2, 32))
def test_wrapping_is_modulo_and_in_range(value: int, bits: int):
    got = int(Fixed(bits).wrapped(np.array(float(value))))
    assert (got - value) % 2**bits == 0
    assert -(2 ** (bits - 1)) < got <= 2 ** (bits - 1)


@given(st.integers(-(2**40), 2**40), st.integers(2, 32), st.booleans())
def test_what_is_saturated_is_allowed_and_what_is_allowed_stays(value: int, bits: int, signed: bool):
    width = Fixed(bits, signed=signed)
    got = width.saturated(np.array(float(value)))
    assert width.allowed(got)
    assert not width.allowed(np.array(float(value))) or got == value
