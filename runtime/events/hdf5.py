"""Events in HDF5 files: events/{t,x,y,p} of one recording, or spikes/{times,units} of many, as in SHD and SSC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput, MissingDependency
from unscan.compiler.ir import Array
from unscan.runtime.events.events import NAMES, Events
from unscan.runtime.events.files import Asked, cut, unasked


def parts(path: Path, asked: Asked) -> Iterator[Events]:
    """Read an HDF5 file part after part; see `files.chunks`."""
    with opened(path) as (_, columns):
        yield from (many if ragged(columns) else one)(path, asked, columns)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Open a file, and give it and the columns of its events."""
    with suppress(ModuleNotFoundError):
        import_module("hdf5plugin")  # its filters are known to h5py from then on
    try:
        file = h5py.File(path)
    except OSError as fault:
        raise DamagedFile(f"{path} is not a complete HDF5 file ({fault}).") from None
    with file:
        try:
            columns = found(file)
        except (RuntimeError, KeyError, OSError) as fault:
            raise DamagedFile(f"{path} is not a complete HDF5 file ({fault}).") from None
        if columns is None:
            raise InvalidInput(
                f"{path} holds {', '.join(map(str, file)) or 'nothing'}; wanted events/{{t,x,y,p}} or "
                "spikes/{times,units}."
            )
        yield file, columns


def several(path: Path, asked: Asked, limit: int | None) -> tuple[list[Events], Array | None] | None:
    """Return recordings of a file of several, all, the first or one, and their labels; None where it holds one."""
    with opened(path) as (file, columns):
        if not ragged(columns):
            return None
        lengths = {name: len(column) for name, column in columns.items()}
        count = min(lengths.values())
        classes = classes_of(path, file, count)
        if len(set(lengths.values())) > 1 or not count:
            raise DamagedFile(
                f"{path} has columns of {lengths} recordings, wanted as many in each, and one at least: it is "
                "truncated, or something else. Copy it again."
            )
        numbers = range(count if limit is None else min(limit, count))
        if asked.sample is not None:
            numbers = range(count)[chosen(path, asked, count) :][:1]
        listed = [recording(path, asked, columns, number) for number in numbers]
        return listed, None if classes is None else classes[numbers.start : numbers.stop]


def classes_of(path: Path, file: Any, count: int) -> Array | None:
    """Return the labels of a file of recordings, one class for each; None where it has none."""
    try:
        held = file.get("labels")
    except (RuntimeError, KeyError, OSError) as fault:
        raise DamagedFile(f"{path} is damaged at labels ({fault}). Copy it again.") from None
    if not isinstance(held, h5py.Dataset):
        return None
    if held.shape != (count,) or held.dtype.kind not in "iu":
        raise DamagedFile(
            f"{path} has labels of shape {held.shape} in {held.dtype} for {count} recordings, wanted a whole number "
            "for each: it is truncated, or something else. Copy it again."
        )
    return loaded(path, held, slice(None)).astype(np.int64)


def found(file: Any) -> dict[str, Any] | None:
    """Return the columns of the group that holds events, or of the file itself."""
    for group in (file.get("events"), file.get("spikes"), file):
        if isinstance(group, h5py.Dataset) and group.dtype.names:
            return {"": group}
        if isinstance(group, h5py.Group):
            held = {name: each for name, each in group.items() if isinstance(each, h5py.Dataset)}
            if any(name.lower() in NAMES["t"] for name in held):
                known = {word for words in NAMES.values() for word in words}
                return {name: each for name, each in held.items() if name.lower() in known}
    return None


def ragged(columns: dict[str, Any]) -> bool:
    """Say whether each row is the list of one recording."""
    return all(h5py.check_vlen_dtype(column.dtype) is not None for column in columns.values())


def one(path: Path, asked: Asked, columns: dict[str, Any]) -> Iterator[Events]:
    """Read the one recording of a file."""
    unasked(path, asked, "sample")
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DamagedFile(
            f"{path} has columns of different lengths, {lengths}: it is truncated, or something else."
        )
    for first in range(0, max(1, *lengths.values()), asked.size):
        here = slice(first, first + asked.size)
        part = {name: loaded(path, column, here) for name, column in columns.items()}
        listed = part.get("", part)
        yield Events.of(listed, tick=asked.tick, sensor=asked.sensor, source=str(path))


def many(path: Path, asked: Asked, columns: dict[str, Any]) -> Iterator[Events]:
    """Read one of the recordings of a file."""
    number = chosen(path, asked, min(map(len, columns.values())))
    yield from cut(recording(path, asked, columns, number), asked.size)


def chosen(path: Path, asked: Asked, count: int) -> int:
    """Return which recording of a file was asked for. Raises InvalidInput where it has none of that number."""
    if asked.sample is None or not 0 <= asked.sample < count:
        got = "nothing said which" if asked.sample is None else f"got {asked.sample}"
        raise InvalidInput(
            f"{path} holds {count} recordings, and {got}; give sample=0 to {count - 1} (on the command line --event "
            f"sample=0 to {count - 1})."
        )
    return asked.sample


def recording(path: Path, asked: Asked, columns: dict[str, Any], number: int) -> Events:
    """Read one recording of a file of several."""
    held = {name: loaded(path, column, number) for name, column in columns.items()}
    source = f"{path}, recording {number}"
    return Events.of(held, tick=asked.tick, sensor=asked.sensor, source=source)


def loaded(path: Path, column: Any, where: slice | int) -> Array:
    """Read a part of a column."""
    try:
        return np.asarray(column[where])
    except (OSError, RuntimeError, ValueError) as fault:
        if "filter" not in str(fault) and "plugin" not in str(fault):
            raise DamagedFile(f"{path} is damaged at {column.name}: {fault}.") from None
        raise MissingDependency(
            f"{path} is compressed by a filter that h5py does not have ({fault}): pip install hdf5plugin."
        ) from None
