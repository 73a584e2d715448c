"""A random stream that every form of a model shares: each number is a pure function of seed, step and lane.

There is no generator and so no order of drawing: a whole sequence, a single step and a chip that knows its step
counter compute the same number. With mix the 32-bit function below,

    r(seed, t, lane) = (floor(h / 512) + 1/2) / 2^23        h = mix(mix(mix(seed) + t) xor mix(lane + 2654435769))

all integers modulo 2^32. r takes 2^23 values evenly spaced in (0, 1), each exact in float32 and in float64. A layer
keeps one 32-bit word per lane, draws one per step, and spends one mix and one xor on a number.
"""

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
_APART = 2654435769  # keeps lane 0 from the fixed point of mix, which is 0
_CELLS = 1 << 16  # numbers worked out at a time, so that they stay in cache


def mix(word: Tensor) -> Tensor:
    """Scramble 32-bit words (int64 tensors of 0 to 2^32 - 1), one to one.

        h <- h xor (h >> 16)        h <- 2246822507 h        h <- h xor (h >> 13)
        h <- 3266489909 h           h <- h xor (h >> 16)

    modulo 2^32: the finaliser of MurmurHash3. The factors stand below as negative numbers, which are the same modulo
    2^32 and keep every product within 64 bits.
    """
    h = word ^ (word >> 16)
    h.mul_(2246822507 - (1 << 32)).bitwise_and_(_WORD)
    h.bitwise_xor_(h >> 13)
    h.mul_(3266489909 - (1 << 32)).bitwise_and_(_WORD)
    return h.bitwise_xor_(h >> 16)


def uniform(seed: int, first: Tensor, steps: int, lanes: int, dtype: torch.dtype) -> Tensor:
    """Work out r(seed, t, lane) for `steps` steps from t = `first` on and all lanes: (T, lanes), within (0, 1).

    first: the step's number, an int64 tensor () on the device where the stream is wanted. Steps are counted modulo
    2^32. Rounded to a dtype shorter than float32 the numbers may reach 0 or 1.
    """
    device = first.device
    root = mix(torch.tensor(seed, device=device))
    of_steps = mix((root + first + torch.arange(steps, device=device)) & _WORD)
    of_lanes = mix((torch.arange(lanes, device=device) + _APART) & _WORD)
    rows = max(1, _CELLS // lanes)
    numbers = torch.empty(steps, lanes, dtype=dtype, device=device)
    for begin in range(0, steps, rows):
        part = mix(of_steps[begin : begin + rows, None] ^ of_lanes)
        numbers[begin : begin + rows] = (part >> 9).float().add_(0.5).mul_(2**-23)
    return numbers
