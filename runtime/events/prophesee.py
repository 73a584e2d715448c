"""Recordings of Prophesee's cameras: DAT, EVT2 and EVT3, decoded by expelliarmus."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unscan.compiler.errors import DamagedFile, Unsupported
from unscan.runtime.events.events import Events
from unscan.runtime.events.files import Asked, fixed_tick, package, unasked

ENCODINGS = {"2.0": "evt2", "EVT2": "evt2", "3.0": "evt3", "EVT3": "evt3"}
WORD = {"dat": 8, "evt2": 4, "evt3": 2}
"""Bytes of which each encoding is made."""
SMALLEST = 16
"""The fewest events that expelliarmus reads at once."""


def parts(path: Path, asked: Asked) -> Iterator[Events]:
    """Read a recording part after part; see `files.chunks`."""
    unasked(path, asked, "sample")
    fixed_tick(path, asked)
    header, start = read_header(path)
    encoding = "dat" if path.suffix.lower() == ".dat" else raw_encoding(path, header)
    body = path.stat().st_size - start - (2 if encoding == "dat" else 0)
    if body <= 0 or body % WORD[encoding]:
        raise DamagedFile(
            f"{path} has {max(body, 0)} bytes of events after its header, wanted a multiple of {WORD[encoding]} "
            f"({encoding}): it is truncated, or something else. Copy it again."
        )
    sensor = asked.sensor or sensor_size(header)
    expelliarmus = package("expelliarmus", path, f"a recording in Prophesee's format {encoding.upper()}")
    wizard = expelliarmus.Wizard(encoding=encoding, fpath=path, chunk_size=max(SMALLEST, asked.size))
    found = 0
    for part in wizard.read_chunk():
        found += len(part)
        yield Events(
            part["t"].astype(np.int64),
            np.stack([part["p"], part["y"], part["x"]], axis=1).astype(np.int32),
            sensor=sensor,
            source=str(path),
        )
    if not wizard.cargo.events_info.finished:
        raise DamagedFile(
            f"{path} has something that is no {encoding.upper()} within the {asked.size} events after event {found}: "
            "it is damaged, or something else. Copy it again."
        )


def read_header(path: Path) -> tuple[list[str], int]:
    """Return the lines of a header, each begun by a percent sign, and where the events start."""
    lines, start = [], 0
    with path.open("rb") as file:
        while (line := file.readline(4096)).startswith(b"%"):
            lines.append(line[1:].decode("latin-1").strip())
            start = file.tell()
            if lines[-1] == "end":
                break
    if not lines:
        raise DamagedFile(
            f"{path} has no header of lines that begin with %: it is no recording of Prophesee's."
        )
    return lines, start


def raw_encoding(path: Path, header: list[str]) -> str:
    """Return which encoding a .raw file has."""
    said = re.search(r"^(?:evt|format) +([\w.]+)", "\n".join(header), flags=re.MULTILINE | re.IGNORECASE)
    if said is None or said[1].upper() not in ENCODINGS:
        raise Unsupported(
            f"{path} says {'no encoding' if said is None else f'the encoding {said[1]}'}; wanted EVT2 or EVT3. Convert "
            "it with the maker's software."
        )
    return ENCODINGS[said[1].upper()]


def sensor_size(header: list[str]) -> tuple[int, int] | None:
    """Return (height, width) where a header says them."""
    text = "\n".join(header)
    if both := re.search(r"geometry +(\d+)x(\d+)", text, flags=re.IGNORECASE):
        return int(both[2]), int(both[1])
    height, width = (
        re.search(rf"\b{name}[ =]+(\d+)", text, flags=re.IGNORECASE) for name in ("height", "width")
    )
    return (int(height[1]), int(width[1])) if height and width else None
