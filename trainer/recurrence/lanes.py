"""How the fused kernels lay out their work: lanes side by side, in tiles of one vector.

A lane is one neuron of one sample; lanes never speak to each other. A kernel walks a tile of 64 lanes through
some steps of time, then the next tile. A last tile that would be partly empty starts earlier and computes some
lanes a second time, to the same numbers; fewer lanes than one tile are padded. Per-lane values are therefore
handed over as (tiles, 64).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any
from weakref import ref

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from unscan.trainer.recurrence.vector import LANES

_THREADS_FROM = 1 << 20  # lane-steps; below it, starting a thread costs more than it saves
_LARGE = 1 << 17  # bytes; less comes from memory that the system does not take back
_KEPT_BYTES = 1 << 27
_kept: dict[int, tuple[Any, Any]] = {}  # memory of results, each with a weak reference to the result


def tile_count(lanes: int) -> int:
    """How many tiles cover the lanes."""
    return -(-lanes // LANES)


@lru_cache(maxsize=64)
def _index(lanes: int) -> Tensor:
    """The lane that stands at each place of each tile, (tiles, 64)."""
    starts = torch.arange(0, lanes, LANES).clamp(max=lanes - LANES)
    return starts[:, None] + torch.arange(LANES)


def to_tiles(values: Tensor, lanes: int) -> Tensor:
    """Lay per-channel or per-lane values (..., n), where n divides `lanes`, out as (..., tiles, 64)."""
    values = values.detach()
    outer, n = values.shape[:-1], values.shape[-1]
    if n != lanes:
        values = values.repeat(*(1,) * len(outer), lanes // n)
    if lanes < LANES:
        return functional.pad(values, (0, LANES - lanes), value=1.0).unsqueeze(-2)
    if lanes % LANES:
        return values[..., _index(lanes)]
    return values.reshape(*outer, -1, LANES).contiguous()


def from_tiles(tiles: Tensor, lanes: int) -> Tensor:
    """The way back: (tiles, 64) -> (lanes,)."""
    if lanes < LANES or tiles.numel() == lanes:
        return tiles.reshape(-1)[:lanes]
    values = tiles.new_empty(lanes)
    values[_index(lanes)] = tiles
    return values


def padded(x: Tensor) -> Tensor:
    """A sequence (T, ...) as contiguous (T, lanes), padded with zeros to one tile at least."""
    rows = x.reshape(x.shape[0], -1)
    missing = LANES - rows.shape[1]
    return functional.pad(rows, (0, missing)) if missing > 0 else rows.contiguous()


def unpadded(rows: Tensor, shape: torch.Size) -> Tensor:
    """Rows (T, lanes) without their padding, in the shape of the sequence they came from."""
    if rows.numel() == shape.numel():
        return rows.view(shape)
    return rows[:, : shape[1:].numel()].reshape(shape)


def _memory(size: int) -> Any:
    """Bytes that nobody uses: those of a result that is gone, or else new ones."""
    for key, (memory, user) in list(_kept.items()):
        if memory.size == size and user() is None and _kept.pop(key, None):
            return memory
    room = _KEPT_BYTES - size - sum(memory.size for memory, _ in list(_kept.values()))
    for key, (memory, user) in list(_kept.items()):
        if room < 0 and user() is None and _kept.pop(key, None):
            room += memory.size
    return np.empty(size, np.uint8)


def fresh(steps: int, lanes: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised (T, lanes) tensor that is cheap to touch for the first time.

    The first write to new memory is dearer than all the arithmetic here, and the system takes large results back
    as soon as they are gone. So some memory is kept for the next result of the same size. New memory comes from
    numpy, which asks for large pages when an array is large (a quarter of the time on Linux).
    """
    number = np.dtype(np.float32 if dtype == torch.float32 else np.float64)
    size = steps * lanes * number.itemsize
    if size < _LARGE:
        return torch.empty(steps, lanes, dtype=dtype)
    memory = _memory(size + 64)
    start = -memory.ctypes.data % 64
    array = memory[start : start + size].view(number).reshape(steps, lanes)
    if sum(other.size for other, _ in list(_kept.values())) + memory.size <= _KEPT_BYTES:
        _kept[id(memory)] = memory, ref(array)  # the tensor's storage is all that holds this array
    return torch.from_numpy(array)


def run_tiles(kernel: Callable[..., None], tiles: int, work: int, *arguments: Any) -> None:
    """Call kernel(*arguments, first, last) over all tiles, on torch's number of threads when it is worth it.

    The threads live for one call: nothing outlives a fork, and kernels from several Python threads may overlap.
    """
    arrays = [a.detach().numpy() if isinstance(a, Tensor) else a for a in arguments]
    threads = min(torch.get_num_threads(), tiles) if work >= _THREADS_FROM else 1
    if threads == 1:
        kernel(*arrays, 0, tiles)
        return
    cuts = [tiles * i // threads for i in range(threads + 1)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda i: kernel(*arrays, cuts[i], cuts[i + 1]), range(threads)))
