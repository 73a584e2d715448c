"""What Lava makes of a weight matrix: the same numbers, or others without a word.

A netx layer scales its matrix to fill the synapse (an exponent that W and the recurrent W share), and the synapse then
cuts low bits off each of the two by its own sign. Both steps are repeated here in Lava's integer arithmetic, in which
a shift by a negative number of bits leaves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array

LOWEST, HIGHEST = -256, 254
"""The weights that a layer with both signs holds."""
HIGHEST_ALONE = 255
"""The largest weight of a layer without negative ones."""


def as_synapses(matrices: Sequence[Array]) -> list[Array]:
    """Return what Lava computes with instead of matrices (out, in) that share one exponent, int64.

    Raises:
        Unsupported: all weights are 0, which Lava ends with OverflowError.
    """
    joined = np.hstack([matrix.astype(np.int64) for matrix in matrices])
    low, high = int(joined.min()), int(joined.max())
    if low == high == 0:
        raise Unsupported("all of its weights are 0, which Lava cannot read; leave the layer out")
    if (high > HIGHEST and low < 0) or (low < LOWEST and high > 0):
        joined = np.clip(joined, LOWEST, HIGHEST)
        low, high = int(joined.min()), int(joined.max())
    mixed = high >= 0 > low
    if high < 0:
        scale = -256 / low
    elif not mixed:
        scale = 255 / high
    else:
        scale = min(-128 / low, 127 / high if high else np.inf)
    exponent = int(np.floor(np.log2(scale))) + mixed
    shared = next((n for n in range(8, 0, -1) if not np.any(joined % 2**n)), 0) - mixed
    bits = 8 - exponent - shared
    scaled = joined << exponent if exponent >= 0 else np.zeros_like(joined)
    parts = np.split(scaled, np.cumsum([matrix.shape[1] for matrix in matrices])[:-1], axis=1)
    return [_cut(part, bits) >> exponent if exponent >= 0 else part for part in parts]


def _cut(part: Array, bits: int) -> Array:
    """Return scaled weights as one synapse holds them: clipped to 8 bits and a sign, low bits cut off."""
    sign = -1 if part.max() <= 0 and part.min() < 0 else 1
    mixed = bool(part.min() < 0 < part.max())
    held = np.clip(sign * part, -256 if mixed else 0, HIGHEST_ALONE)
    cut = 8 - bits + mixed
    return sign * (held >> cut << cut) if cut >= 0 else np.zeros_like(part)


def insist_on_weights(matrices: dict[str, Array]) -> None:
    """Raise Unsupported where Lava would change a weight of matrices (out, in) that share one layer, by node."""
    for (name, wanted), got in zip(matrices.items(), as_synapses(list(matrices.values())), strict=True):
        wrong = np.argwhere(got != wanted)
        if len(wrong):
            at = tuple(int(i) for i in wrong[0])
            raise Unsupported(
                f"Lava would change {len(wrong)} of {wanted.size} weights of {name!r} without a word: {wanted[at]} at "
                f"{at} would become {got[at]}, where the weights lie from {wanted.min()} to {wanted.max()}; quantize "
                "with profile loihi2, which chooses weights that survive"
            )


def insist_on_kernel(name: str, kernel: Array) -> None:
    """Raise Unsupported where a weight of a convolution does not fit a synapse of Loihi 2; Lava does not check it."""
    low, high = int(kernel.min()), int(kernel.max())
    most = HIGHEST if low < 0 else HIGHEST_ALONE
    if low < LOWEST or high > most:
        raise Unsupported(
            f"the weights of {name!r} lie from {low} to {high}, wanted {LOWEST} to {most}; quantize with profile loihi2"
        )
