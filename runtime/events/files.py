"""Event files, read part after part: which reader a file takes is seen from its name and its first bytes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidInput, MissingDependency
from unscan.compiler.ir import Array
from unscan.compiler.storage import writing
from unscan.runtime.events.events import Events, columns_of, exact, joined

READERS: dict[str, tuple[str, str]] = {
    ".npy": ("tables", "numpy arrays: structured, or (E, 2) t, neuron; (E, 3) t, x, y; (E, 4) t, x, y, p"),
    ".npz": ("tables", "numpy archives of columns, as `write` makes them"),
    ".csv": ("tables", "text with commas, its columns named in the first line or in the order of .npy"),
    ".txt": ("tables", "the same with blanks"),
    ".h5": ("hdf5", "events/{t,x,y,p}, or spikes/{times,units} of many recordings (h5py)"),
    ".hdf5": ("hdf5", "the same"),
    ".aedat": ("aedat", "AEDAT 3.1 and 4 (4: aedat)"),
    ".aedat4": ("aedat", "the same"),
    ".bin": ("nmnist", "N-MNIST and N-Caltech101, events of 40 bits"),
    ".dat": ("prophesee", "Prophesee DAT (expelliarmus)"),
    ".raw": ("prophesee", "Prophesee EVT2 and EVT3 (expelliarmus)"),
}
"""Suffix -> module that reads it, and what it holds."""
PART = 2**16
"""Events that are read at once."""


@dataclass(frozen=True)
class Asked:
    """What a user said of a file.

    Attributes:
        size: how many events a part has, about.
        tick: seconds that a time of 1 stands for; see `Events.of`. Cameras' formats count microseconds.
        sensor: (neurons,) or (height, width); what the file says where None.
        sample: which recording of a file of several, or which stream of an AEDAT 4 file.
    """

    size: int = PART
    tick: float | Fraction | None = None
    sensor: tuple[int, ...] | None = None
    sample: int | None = None


Reader = Callable[[Path, Asked], Iterator[Events]]


def chunks(
    path: str | os.PathLike[str],
    *,
    size: int = PART,
    tick: float | Fraction | None = None,
    sensor: tuple[int, ...] | None = None,
    sample: int | None = None,
) -> Iterator[Events]:
    """Read a file in parts of about `size` events, in memory that does not grow with it.

    .npz archives, compressed ones above all, and recordings of spikes/{times,units} are read whole and given in parts.

    Args:
        path: a file whose suffix is one of `READERS`.
        size, tick, sensor, sample: see `Asked`.

    Raises:
        InvalidInput: no such file, another suffix, or settings that the file does not take.
        DamagedFile: it is not what its name says.
        MissingDependency: the package that reads it is not installed.
    """
    path = Path(path)
    reader = READERS.get(path.suffix.lower())
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; event files are {', '.join(READERS)}.")
    if reader is None:
        raise InvalidInput(
            f"{path} has the suffix {path.suffix!r}; event files are {', '.join(READERS)}. Others: read them with the "
            "package of their maker and hand the arrays to Events.of."
        )
    if size < 1:
        raise InvalidInput(f"Got parts of {size} events, wanted 1 or more.")
    read_parts: Reader = import_module(f"unscan.runtime.events.{reader[0]}").parts
    return read_parts(path, Asked(size, tick, sensor, sample))


def read(
    path: str | os.PathLike[str],
    *,
    tick: float | Fraction | None = None,
    sensor: tuple[int, ...] | None = None,
    sample: int | None = None,
) -> Events:
    """Read a file of events whole.

    Args:
        path, tick, sensor, sample: see `chunks`.

    Raises:
        InvalidInput: the file holds no events, or what `chunks` raises.
        DamagedFile, MissingDependency: see `chunks`.
    """
    parts = chunks(path, tick=tick, sensor=sensor, sample=sample)
    return joined(parts, str(path) if sample is None else f"{path}, recording {sample}")


@dataclass(frozen=True)
class Recordings:
    """Recordings of one file, and their classes (B,), None where it holds none."""

    events: Sequence[Events]
    labels: Array | None


def read_all(
    path: str | os.PathLike[str],
    *,
    limit: int | None = None,
    tick: float | Fraction | None = None,
    sensor: tuple[int, ...] | None = None,
    sample: int | None = None,
) -> Recordings:
    """Read every recording of a file; of a file of spikes/{times,units} (SHD, SSC) all, with its `labels`.

    Args:
        path, tick, sensor: see `chunks`.
        sample: read this recording alone, and its label.
        limit: read the first so many of a file of several.

    Raises:
        InvalidInput, DamagedFile, MissingDependency: see `read`; DamagedFile, too, where labels do not belong.
    """
    path = Path(path)
    if path.is_file() and READERS.get(path.suffix.lower(), ("",))[0] == "hdf5":
        from unscan.runtime.events.hdf5 import several

        found = several(path, Asked(tick=tick, sensor=sensor, sample=sample), limit)
        if found is not None:
            return Recordings(*found)
    return Recordings([read(path, tick=tick, sensor=sensor, sample=sample)], None)


def write(events: Events, path: str | os.PathLike[str]) -> None:
    """Write events to a .npz file, from which `read` gives the same ones. Raises InvalidInput for another suffix."""
    path = Path(path)
    if path.suffix != ".npz":
        raise InvalidInput(f"Got the output {path}; events are written to .npz files.")
    facts: dict[str, Any] = {"tick": np.array([events.tick.numerator, events.tick.denominator])}
    if events.sensor is not None:
        facts["sensor"] = np.array(events.sensor)
    with writing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **columns_of(events), **facts)


def package(name: str, path: Path, what: str) -> Any:
    """Return an optional package. Raises MissingDependency naming the command that adds it."""
    try:
        return import_module(name)
    except ModuleNotFoundError as fault:
        if fault.name != name:
            raise
        raise MissingDependency(
            f"{path} is {what}, which the package {name} reads, and it is not installed: pip install {name}."
        ) from None


def cut(events: Events, size: int) -> Iterator[Events]:
    """Give events in parts."""
    for first in range(0, max(1, len(events)), size):
        here, invalid = slice(first, first + size), 0 if first else events.invalid
        yield Events(events.t[here], events.places[here], events.tick, events.sensor, events.source, invalid)


def fixed_tick(path: Path, asked: Asked) -> None:
    """Raise InvalidInput where a tick is given for a format that counts microseconds."""
    if asked.tick is not None and exact(asked.tick) != Fraction(1, 10**6):
        raise InvalidInput(
            f"Got a tick of {asked.tick} s for {path}, whose format counts microseconds; leave it out."
        )


def unasked(path: Path, asked: Asked, *names: str) -> None:
    """Raise InvalidInput where something was said that a file does not take."""
    for name in names:
        if getattr(asked, name) is not None:
            raise InvalidInput(f"Got {name}={getattr(asked, name)} for {path}, which takes none.")
