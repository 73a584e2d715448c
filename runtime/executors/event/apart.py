"""Functions compiled apart from the kernel that calls them, and only for programs that need them.

Linked into it, they would be compiled again with it, and for every program: three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cfunc, typeof, types

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.integers import integers
from unscan.runtime.executors.event.late import recall
from unscan.runtime.executors.event.layers import layers
from unscan.runtime.executors.event.memory import memorise
from unscan.runtime.executors.event.others import others
from unscan.runtime.executors.event.program import Code, Op, Program
from unscan.runtime.executors.event.sparse import scatter, wake
from unscan.runtime.executors.event.synapses import arriving
from unscan.runtime.executors.event.tables import tell
from unscan.runtime.executors.event.whole_layers import whole_layers

RUN_BY: dict[int, Callable[..., None]] = {
    Op.GATHER: arriving,
    Op.MULTIPLY: arriving,
    Op.FIRE: layers,
    Op.LAYER: layers,
    **{op: others for op in Op if Op.STORE < op < Op.MEMORY},
    Op.MEMORY: memorise,
    **{op: integers for op in Op if Op.MEMORY < op < Op.RECALL},
    Op.RECALL: recall,
    Op.NARROW: whole_layers,
    Op.WHOLE_LAYER: whole_layers,
    Op.SCATTER: scatter,
    Op.WAKE: wake,
    Op.TELL: tell,
}
"""Operation -> the function that runs its rows; the kernel itself runs those that are not named."""

COMPILED: dict[tuple[Any, ...], Any] = {}
"""(function, number format) -> the compiled function, kept so that its address stays good."""


def addresses(program: Program, room: Any) -> Array:
    """Return the address of the function that runs each `Op`, for a program and its workspace; 0 where unneeded.

    There is one more, of no operation: its rows do nothing.
    """
    found = np.zeros(len(Op) + 1, np.int64)
    for op in program.ops & RUN_BY.keys():
        found[op] = address(RUN_BY[op], program.code, room)
    return found


def address(function: Callable[..., None], code: Code, room: Any) -> int:
    """Return the address of a function that runs one row."""
    key = (function, code.params.dtype)
    if key not in COMPILED:
        typed: Callable[[Any], Any] = typeof
        numbers = typed(room.values)
        arrays = (typed(code), typed(room), typed(code.table[0]), numbers, typed(room.live), numbers)
        signature = types.void(*arrays, *(types.int64,) * 6)
        COMPILED.setdefault(key, cfunc(signature, cache=True, error_model="numpy")(function))
    return int(COMPILED[key].address)
