"""Targets: what an iterative graph can be written as. `find` loads one by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph
from unscan.targets.base import Target


def _c() -> Target:
    from unscan.targets.c import TARGET

    return TARGET


def _lava() -> Target:
    from unscan.targets.lava import TARGET

    return TARGET


def _nir() -> Target:
    from unscan.targets.nir import TARGET

    return TARGET


def _onnx() -> Target:
    from unscan.targets.onnx import TARGET

    return TARGET


TARGETS: dict[str, Callable[[], Target]] = {"nir": _nir, "onnx": _onnx, "lava": _lava, "c": _c}
"""Name -> what loads the target, so that naming one does not import the others."""


def find(name: str) -> Target:
    """Return the target of a name. Raises InvalidInput listing the names."""
    if name not in TARGETS:
        raise InvalidInput(f"There is no target {name!r}; the targets are {', '.join(TARGETS)}.")
    return TARGETS[name]()


def export(graph: Graph, path: Path | str, *, target: str, **options: Any) -> None:
    """Write an iterative graph as a target's file.

    Args:
        graph: what is written.
        path: the file; of Lava also a folder.
        target: a name from `TARGETS`.
        options: what the target's `emit` takes: `profile` for nir, `form` (step, scan) and `states` (optional, fed) for
            onnx, `flash` and `ram` (a budget) and `compiler` for c.

    Raises:
        InvalidInput: an unknown target, or an option that it does not take.
        Unsupported: a node that the target cannot express; nothing is written.
    """
    aim = find(target)
    for name in options:
        if name not in aim.options:
            raise InvalidInput(
                f"The target {target} takes no option {name!r}; its options are: {', '.join(aim.options) or 'none'}."
            )
    aim.emit(graph, path, **options)


__all__ = ["TARGETS", "Target", "export", "find"]
