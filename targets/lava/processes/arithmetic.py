"""The arithmetic of whole numbers, in int64: how they decay, are rescaled, saturate and overflow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Whole = NDArray[Any]
"""An array of int64."""
WIDEST = 2**31
"""More than any number of 32 bits."""


def fade(decay: Whole, x: Whole, bits: int) -> Whole:
    """Return decay x / 2^bits, truncated towards zero."""
    return truncated(decay * x, bits)


def truncated(x: Whole, bits: int) -> Whole:
    """Return x / 2^bits, truncated towards zero."""
    whole: Whole = np.sign(x) * (np.abs(x) >> bits)
    return whole


def shifted(x: Whole, shift: Whole | int) -> Whole:
    """Return x >> shift, rounded to the nearest, ties upwards; x 2^-shift where shift <= 0.

    Numbers beyond 32 bits stay beyond them, but may become smaller where shift < 0, so that int64 holds the product.
    """
    down, up = np.maximum(shift, 0), np.maximum(np.negative(shift), 0)
    half = (1 << down) >> 1
    return np.where(up > 0, np.clip(x, -WIDEST, WIDEST) << up, (x + half) >> down)


def saturated(x: Whole, bits: int, signed: bool = True) -> Whole:
    """Return x in the symmetric range of `bits` bits, what lies beyond it as its nearest end."""
    largest = (1 << (bits - signed)) - 1
    return np.clip(x, -largest if signed else 0, largest)


def wrapped(x: Whole, bits: int) -> Whole:
    """Return x modulo 2^bits, in (-2^(bits - 1), 2^(bits - 1)]."""
    half = 1 << (bits - 1)
    return half - (half - x) % (2 * half)


def looked_up(x: Whole, table: Whole, shift: int) -> Whole:
    """Return table[clip(x >> shift, -n/2, n/2 - 1) + n/2], for a table of n numbers."""
    half = len(table) // 2
    read: Whole = table[np.clip(shifted(x, shift), -half, half - 1) + half]
    return read
