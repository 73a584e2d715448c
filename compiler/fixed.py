"""Number formats of whole numbers, as behaviour: what a format holds, and what becomes of what it cannot hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from unscan.compiler.ir import Array


@dataclass(frozen=True, order=True)
class Fixed:
    """A whole number of `bits` bits, a sign among them where `signed`, that counts units of 2^-fraction.

    The range is symmetric: from -max to max where signed, from 0 else. The functions take and return arrays of whole
    numbers in a floating-point format, which holds them exactly up to 2^53.
    """

    bits: int
    fraction: int = 0
    signed: bool = True

    @classmethod
    def holding(cls, largest: int, fraction: int = 0, *, signed: bool = True) -> Self:
        """Return the narrowest format that holds the numbers up to `largest` (in its units)."""
        return cls(max(1, int(largest).bit_length()) + signed, fraction, signed)

    @property
    def max(self) -> int:
        """The largest number, in units."""
        return int(2 ** (self.bits - self.signed) - 1)

    @property
    def min(self) -> int:
        """The smallest number, in units."""
        return -self.max if self.signed else 0

    def allowed(self, values: Array) -> bool:
        """Say whether all values are whole numbers that it holds."""
        return bool(np.all((values == np.floor(values)) & (values >= self.min) & (values <= self.max)))

    def saturated(self, values: Array) -> Array:
        """Return the values, those beyond the range as its nearest end."""
        return np.clip(values, self.min, self.max)

    def wrapped(self, values: Array) -> Array:
        """Return the values modulo 2^bits, in (-2^(bits - 1), 2^(bits - 1)], as a Loihi 2 current overflows."""
        around = 2.0**self.bits
        return values - around * np.ceil(values / around - 0.5)

    def nearest(self, values: Array) -> Array:
        """Return real values in units: the nearest whole numbers, half to even, saturated."""
        return self.saturated(np.rint(np.asarray(values, np.float64) * 2.0**self.fraction))

    def __str__(self) -> str:
        return f"{'' if self.signed else 'u'}int{self.bits}" + (
            f" x 2^-{self.fraction}" if self.fraction else ""
        )


SPIKES = Fixed(1, signed=False)
"""What a spike is: 0 or 1."""
