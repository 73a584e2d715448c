"""Lists of events in .npy, .npz, .csv and .txt files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path
from tokenize import TokenError
from typing import Any, TextIO

import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.ir import Array
from unscan.runtime.events.events import NAMES, Events
from unscan.runtime.events.files import Asked, cut, unasked

Line = tuple[int, str]
"""A line's number, from 1 up, and its text without remarks."""
ORDER = {2: ("t", "neuron"), 3: ("t", "x", "y"), 4: ("t", "x", "y", "p")}


def parts(path: Path, asked: Asked) -> Iterator[Events]:
    """Read a table part after part; see `files.chunks`."""
    unasked(path, asked, "sample")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return arrays(path, asked)
    if suffix == ".npz":
        return archive(path, asked)
    return text(path, asked)


def arrays(path: Path, asked: Asked) -> Iterator[Events]:
    """Read a .npy file; it is mapped, not loaded."""
    try:
        listed: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError, TokenError):
        raise DamagedFile(
            f"{path} is not a complete .npy file of numbers: it is truncated, altered, or something else. Copy it "
            "again, or save it again with numpy.save."
        ) from None
    if listed.ndim == 0:
        raise InvalidInput(f"{path} holds one number, wanted a list of events.")
    for first in range(0, max(1, len(listed)), asked.size):
        part = np.asarray(listed[first : first + asked.size])
        yield Events.of(part, tick=asked.tick, sensor=asked.sensor, source=str(path))


def archive(path: Path, asked: Asked) -> Iterator[Events]:
    """Read a .npz file: columns, and perhaps a tick (numerator, denominator) and the sensor's size."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            columns = dict(held)
    except (
        ValueError,
        EOFError,
        OSError,
        AttributeError,
        TypeError,
        TokenError,
        zipfile.BadZipFile,
    ):
        raise DamagedFile(
            f"{path} is not a complete .npz file of numbers: it is truncated, altered, or something else. Copy it "
            "again, or save it again with numpy.savez."
        ) from None
    tick, sensor = asked.tick, asked.sensor
    if "tick" in columns:
        said = columns.pop("tick")
        if said.shape != (2,) or said.min() < 1:
            raise InvalidInput(
                f"{path} has a tick of shape {said.shape}; wanted two whole numbers, the fraction of a second."
            )
        tick = Fraction(int(said[0]), int(said[1])) if tick is None else tick
    if "sensor" in columns:
        size = tuple(int(length) for length in columns.pop("sensor").ravel())
        sensor = size if sensor is None else sensor
    yield from cut(Events.of(columns, tick=tick, sensor=sensor, source=str(path)), asked.size)


def text(path: Path, asked: Asked) -> Iterator[Events]:
    """Read a text file line after line; `#` begins a remark."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            yield from _text(path, asked, file)
        except UnicodeDecodeError as fault:
            raise DamagedFile(f"{path} is not text ({fault}).") from None


def _text(path: Path, asked: Asked, file: TextIO) -> Iterator[Events]:
    comma = "," if path.suffix.lower() == ".csv" else None
    lines: Iterator[Line] = (
        (number, text)
        for number, line in enumerate(file, 1)
        if (text := line.partition("#")[0]) and text.strip()
    )
    first = next(lines, None)
    if first is None:
        raise InvalidInput(f"{path} holds no events.")
    names = [word.strip().lower() for word in first[1].split(comma)]
    if all(_number(name) for name in names):
        if len(names) not in ORDER:
            raise InvalidInput(
                f"{path} has {len(names)} columns and no names for them; wanted t, neuron, or t, x, y, or t, x, y, p, "
                "or a first line that names them."
            )
        lines = chain([first], lines)
        names = list(ORDER[len(names)])
    listed = list(islice(lines, asked.size))
    known = [name in NAMES["t"] for name in names]
    points = [
        any(mark in word.lower() for mark in ".en") for word in (listed[0][1].split(comma) if listed else [])
    ]
    types = [
        np.float64 if not time or (k < len(points) and points[k]) else np.int64
        for k, time in enumerate(known)
    ]
    rows = np.dtype({"names": names, "formats": types}) if len(set(names)) == len(names) else None
    if rows is None:
        raise InvalidInput(f"{path} names a column twice: {', '.join(names)}.")
    while listed:
        try:
            table = np.loadtxt([line for _, line in listed], rows, delimiter=comma, ndmin=1)
        except ValueError:
            where = wrong(listed, comma, dict(zip(names, types, strict=True)))
            raise DamagedFile(
                f"{path} has a line that is not {', '.join(names)}: {where}. Mend it; times are all written with a "
                "point, or all without."
            ) from None
        yield Events.of(table, tick=asked.tick, sensor=asked.sensor, source=str(path))
        listed = list(islice(lines, asked.size))


def wrong(listed: Iterable[Line], comma: str | None, types: Mapping[str, type[np.number[Any]]]) -> str:
    """Say which is the first of some lines that does not hold a number of its type in each column, and why."""
    for number, line in listed:
        words = line.split(comma)
        if len(words) != len(types):
            return f"line {number} has {len(words)} column{'s' * (len(words) != 1)}, wanted {len(types)}"
        for word, (name, kind) in zip(words, types.items(), strict=True):
            try:
                kind(word)
            except (ValueError, OverflowError):
                whole = "whole number" if kind is np.int64 else "number"
                return f"line {number} has {word.strip()!r} as {name}, wanted a {whole}"
    return "one of its numbers is written as none that is known"


def _number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
