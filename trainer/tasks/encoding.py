"""How brightness in [0, 1] becomes the input of a spiking network.

With one pixel per step a pixel has no time of its own, so every encoding gives each pixel a window of K steps
and the sequence is pixels x K steps long: step k of pixel p is step p K + k.

- **direct**: the brightness itself, a real number, held for the K steps of the window.
- **rate**: in each of the K steps a spike with probability equal to the brightness. The K draws of a pixel are
  its rate; K = 1 is one coin per pixel.
- **latency**: exactly one spike in each window, the earlier the brighter: brightness b fires at step
  round((1 - b)(K - 1)), so white fires at once and black in the last step. K = 1 would carry nothing and is
  refused.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from unscan.compiler.errors import InvalidInput

Encoding = Literal["direct", "rate", "latency"]
ENCODINGS: tuple[Encoding, ...] = ("direct", "rate", "latency")

_SEED = 20_000


def encode(x: Tensor, encoding: Encoding, steps_per_pixel: int = 1, *, first_sample: int = 0) -> Tensor:
    """Encode brightness `x` (N, T, F) in [0, 1] as (N, T K, F), K = `steps_per_pixel`.

    The spikes of the rate encoding are drawn from a generator of their own for each sample, numbered from
    `first_sample`, so that a sample has the same spikes in every run and in every subset. Raises InvalidInput
    for an unknown encoding, a K below 1, and latency with K = 1.
    """
    if encoding not in ENCODINGS:
        raise InvalidInput(f"unknown encoding {encoding!r}; allowed: {', '.join(ENCODINGS)}")
    if steps_per_pixel < 1:
        raise InvalidInput(f"steps_per_pixel is {steps_per_pixel}; allowed: a whole number from 1")
    held = x.repeat_interleave(steps_per_pixel, dim=1)
    if encoding == "direct":
        return held
    if encoding == "rate":
        return _rate(held, first_sample)
    if steps_per_pixel == 1:
        raise InvalidInput(
            "latency encoding with steps_per_pixel 1 carries nothing, since every pixel would fire in its only "
            "step; allowed: steps_per_pixel from 2"
        )
    phase = torch.arange(steps_per_pixel).repeat(x.shape[1])[None, :, None]
    return (phase == torch.round((1 - held) * (steps_per_pixel - 1))).to(x.dtype)


def _rate(probability: Tensor, first_sample: int) -> Tensor:
    spikes = torch.empty_like(probability)
    for index, sample in enumerate(probability):
        draws = np.random.Generator(np.random.Philox(key=[_SEED, first_sample + index]))
        spikes[index] = torch.from_numpy(draws.random(tuple(sample.shape), dtype=np.float32)) < sample
    return spikes
