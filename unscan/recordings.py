"""Recordings of events as a command line names them: `--event NAME=VALUE`, read and gathered into steps of a graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph


def sizes(text: str) -> tuple[int, ...]:
    """Return the sizes in 700 or 34x34. Raises ValueError for other text."""
    return tuple(int(size) for size in text.replace(",", "x").split("x"))


EVENT: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "sensor": (sizes, "HEIGHTxWIDTH such as 34x34, or a number of neurons"),
    "polarity": (str, "channels, merged, on or off"),
    "downsample": (int, "a whole number"),
    "several": (str, "one or count"),
    "start": (Fraction, "seconds"),
    "steps": (int, "a whole number"),
    "tick": (Fraction, "seconds such as 1e-9"),
    "sample": (int, "the number of a recording, from 0 up"),
}
"""What is said of events, by the names that `unscan.runtime.events` takes: how its text is read, and what is wanted."""


class Gathered(NamedTuple):
    """Steps x (T, B, ...), the labels (B,) that the file holds or None, and what the steps are."""

    x: Array
    labels: Array | None
    description: str


def settings_of(event: Sequence[str]) -> dict[str, Any]:
    """Return what texts NAME=VALUE say of events, by name.

    Raises:
        InvalidInput: another name, a value that it cannot have, or a name twice.
    """
    found: dict[str, Any] = {}
    for text in event:
        name, equals, value = text.partition("=")
        if not equals or name not in EVENT:
            raise InvalidInput(
                f"Got {text!r} of events; write --event NAME=VALUE, with a name of {', '.join(EVENT)}."
            )
        if name in found:
            raise InvalidInput(f"Got --event {name} twice; give it once.")
        read, wanted = EVENT[name]
        try:
            found[name] = read(value)
        except (ValueError, ZeroDivisionError):
            raise InvalidInput(f"Got --event {text}; wanted {wanted}.") from None
    return found


def gathered(graph: Graph, path: Path, dt: float, event: Sequence[str], limit: int | None) -> Gathered:
    """Read the recordings of a file, and gather each into steps of a graph.

    Args:
        graph: what the steps are for.
        path: see `events.read_all`.
        dt: seconds of a step.
        event: texts NAME=VALUE, see `EVENT`.
        limit: read the first so many of a file of several.

    Raises:
        InvalidInput, DamagedFile, MissingDependency: as `settings_of`, `events.read_all` and `events.binned` do.
    """
    from unscan.runtime.events import binned, binning, read_all

    asked = settings_of(event)
    of_file = {name: asked.pop(name) for name in ("tick", "sample") if name in asked}
    steps = asked.pop("steps", None)
    into = binning(graph, dt, **asked)
    recordings = read_all(path, limit=limit, sensor=asked.get("sensor"), **of_file)
    x, tally = binned(recordings.events, into, steps=steps)
    how = "".join(f", {text}" for text in event)
    return Gathered(x, recordings.labels, f"{path} in steps of {dt:g} s{how}: {tally}")
