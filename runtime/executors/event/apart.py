"""Functions compiled apart from the kernel that calls them, and only for programs that need them.

Linked into it, they would be compiled again with it, and for every program: three times as long.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import cfunc, typeof, types

from unscan.runtime.executors.event.memory import memorise
from unscan.runtime.executors.event.others import others
from unscan.runtime.executors.event.program import Code, Op, Program

COMPILED: dict[tuple[Any, ...], Any] = {}
"""(function, number format) -> the compiled function, kept so that its address stays good."""


def addresses(program: Program, room: Any) -> tuple[int, int]:
    """Return the addresses of `others` and of `memorise` for a program and its workspace; 0 where unneeded."""
    code, ops = program.code, program.ops
    return (
        address(others, code, room) if any(Op.STORE < op < Op.MEMORY for op in ops) else 0,
        address(memorise, code, room) if Op.MEMORY in ops else 0,
    )


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
