"""Arrays that compiled code is handed by their addresses: to unpack forty of them takes longer than a step."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.program import Code
from unscan.runtime.executors.event.vector import instructions, kernel
from unscan.runtime.executors.event.workspace import Workspace

ARRAYS = 7
"""The arrays of a `Code`; those of a `Workspace` stand behind them."""


def frame(code: Code, room: Workspace) -> Array:
    """Return (n, 3): the address, rows and columns of every array of a program and its workspace, which must stay."""
    arrays = (*(field for field in code if isinstance(field, np.ndarray)), *room)
    return np.array([placed(array) for array in arrays], np.int64)


def placed(array: Array) -> tuple[int, int, int]:
    """Return the address, rows and columns of an array; one of one axis has no columns."""
    columns = array.shape[1] if array.ndim > 1 else 0
    return array.__array_interface__["data"][0], len(array), columns


@instructions
def at_address(typing: Any, address: Any) -> Any:
    """Return the pointer to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.int64), generate


@kernel
def flat(held: Array, k: int, dtype: Any) -> Array:
    """Return an array of one axis."""
    return carray(at_address(held[k, 0]), held[k, 1], dtype)


@kernel
def rows(held: Array, k: int, dtype: Any) -> Array:
    """Return an array of two axes."""
    return carray(at_address(held[k, 0]), (held[k, 1], held[k, 2]), dtype)


@kernel
def opened(entry: int, spiking: bool, chunk: int, held: Array, numbers: Array) -> tuple[Code, Workspace]:
    """Return the program and the workspace of a frame; numbers: any array of the format that is computed in."""
    real, r = numbers.dtype, ARRAYS
    code = Code(
        entry, spiking, rows(held, 0, np.int64), flat(held, 1, real), flat(held, 2, np.int8), flat(held, 3, np.int32),
        rows(held, 4, np.int64), rows(held, 5, np.int64), chunk, rows(held, 6, np.int64),
    )  # fmt: skip
    room = Workspace(
        flat(held, r, real), flat(held, r + 1, np.uint8), flat(held, r + 2, np.int32), flat(held, r + 3, np.int32),
        flat(held, r + 4, np.uint8), flat(held, r + 5, np.int64), flat(held, r + 6, np.uint64),
        flat(held, r + 7, np.int32), flat(held, r + 8, real), flat(held, r + 9, np.int32), flat(held, r + 10, real),
        flat(held, r + 11, real), flat(held, r + 12, np.int32), flat(held, r + 13, np.int64),
        flat(held, r + 14, np.int64), flat(held, r + 15, np.int64), flat(held, r + 16, np.int64),
        rows(held, r + 17, np.int32), rows(held, r + 18, np.int64),
    )  # fmt: skip
    return code, room
