"""How the fused kernels lay out their work: lanes side by side, in tiles of a width the compiler knows.

A lane is one neuron of one sample; lanes never speak to each other. A kernel walks time outside and a tile of
lanes inside. With the tile's width a constant of the kernel, its inner loop becomes straight vector code.
A last tile that would be partly empty starts earlier and computes some lanes a second time, to the same
numbers; fewer lanes than one tile are padded. Per-lane vectors are therefore handed over as (tiles, width).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

NARROW = 64
WIDE = 512  # long rows are read with fewer jumps, once there are lanes enough to fill them
_WIDE_FROM = 2048
_THREADS_FROM = 1 << 20  # lane-steps; below it, starting a thread costs more than it saves
_LARGE = 1 << 22  # bytes


def tile_width(lanes: int) -> int:
    """Choose the width of a tile."""
    return WIDE if lanes >= _WIDE_FROM else NARROW


@lru_cache(maxsize=64)
def _index(lanes: int, width: int) -> Tensor:
    """The lane that stands at each place of each tile, (tiles, width)."""
    starts = torch.arange(0, lanes, width).clamp(max=lanes - width)
    return starts[:, None] + torch.arange(width)


def to_tiles(values: Tensor, lanes: int, width: int) -> Tensor:
    """Lay per-channel or per-lane values (..., n), where n divides `lanes`, out as (..., tiles, width)."""
    values = values.detach()
    outer, n = values.shape[:-1], values.shape[-1]
    if n != lanes:
        values = values.repeat(*(1,) * len(outer), lanes // n)
    if lanes < width:
        return functional.pad(values, (0, width - lanes), value=1.0).unsqueeze(-2)
    if lanes % width:
        return values[..., _index(lanes, width)]
    return values.reshape(*outer, -1, width).contiguous()


def from_tiles(tiles: Tensor, lanes: int) -> Tensor:
    """The way back: (tiles, width) -> (lanes,)."""
    width = tiles.shape[1]
    if lanes < width or tiles.numel() == lanes:
        return tiles.reshape(-1)[:lanes]
    values = tiles.new_empty(lanes)
    values[_index(lanes, width)] = tiles
    return values


def padded(x: Tensor) -> Tensor:
    """A sequence (T, ...) as contiguous (T, lanes), padded with zeros to one tile at least."""
    rows = x.reshape(x.shape[0], -1)
    missing = NARROW - rows.shape[1]
    return functional.pad(rows, (0, missing)) if missing > 0 else rows.contiguous()


def unpadded(rows: Tensor, shape: torch.Size) -> Tensor:
    """Rows (T, lanes) without their padding, in the shape of the sequence they came from."""
    lanes = shape[1:].numel()
    return rows[:, :lanes].reshape(shape)


def fresh(steps: int, lanes: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised (T, lanes) tensor that is cheap to touch for the first time.

    The first write to new memory is dearer than all the arithmetic here. numpy asks the kernel for large pages
    when an array is large (a quarter of the time on Linux); torch does not unless it was told to before import.
    """
    size = torch.finfo(dtype).bits // 8
    if steps * lanes * size < _LARGE:
        return torch.empty(steps, lanes, dtype=dtype)
    spare = 64 // size
    memory = np.empty(steps * lanes + spare, dtype=np.float32 if size == 4 else np.float64)
    start = (-memory.ctypes.data % 64) // size
    return torch.from_numpy(memory[start : start + steps * lanes].reshape(steps, lanes))


def run_tiles(kernel: Callable[..., None], tiles: int, work: int, *arguments: Any) -> None:
    """Call kernel(*arguments, first, last) over all tiles, on torch's number of threads when it is worth it.

    The threads live for one call: nothing outlives a fork, and kernels from several Python threads may overlap.
    """
    arrays = [a.numpy() if isinstance(a, Tensor) else a for a in arguments]
    threads = min(torch.get_num_threads(), tiles) if work >= _THREADS_FROM else 1
    if threads == 1:
        kernel(*arrays, 0, tiles)
        return
    cuts = [tiles * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: kernel(*arrays, cuts[i], cuts[i + 1]), range(threads)))
