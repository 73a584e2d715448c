"""Recordings of N-MNIST and N-Caltech101: events of 40 bits, one after the other.

Of each event the first byte is x and the second y; of the 24 bits that follow, the highest first, one is the polarity
and 23 are microseconds. An event at y = 240, which the sensor does not have, says that 2^13 us are to be added to all
times from it on. (G. Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using
saccades", Frontiers in Neuroscience 9, 2015, and the read-me of the data set.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unscan.compiler.errors import DamagedFile
from unscan.runtime.events.events import Events
from unscan.runtime.events.files import Asked, fixed_tick, unasked

BYTES = 5
OVERFLOW, MORE = 240, 2**13
"""The y of an event that lengthens time, and by how many microseconds."""
BACK = 10**6
"""By how many microseconds times of a recording never go back."""


def parts(path: Path, asked: Asked) -> Iterator[Events]:
    """Read a recording part after part; see `files.chunks`."""
    unasked(path, asked, "sample")
    fixed_tick(path, asked)
    size = path.stat().st_size
    if size % BYTES:
        raise DamagedFile(
            f"{path} has {size} bytes, wanted a multiple of {BYTES}, the bytes of an event: it is truncated, or "
            "something else. Copy it again."
        )
    later, latest, seen = 0, 0, 0
    with path.open("rb") as file:
        while body := file.read(BYTES * asked.size):
            listed = np.frombuffer(body, np.uint8).reshape(-1, BYTES).astype(np.int64)
            x, y, high, middle, low = listed.T
            longer = y == OVERFLOW
            added = later + MORE * np.cumsum(longer)
            t = added + ((high & 0x7F) << 16 | middle << 8 | low)
            steps = np.diff(t, prepend=latest)
            if steps.min() < -BACK:
                worst = int(steps.argmin())
                raise DamagedFile(
                    f"{path} goes back in time by {-steps[worst] / 1e6:.3g} s at event {seen + worst}, as no recording "
                    "does: it is damaged, or something else. Copy it again."
                )
            later, latest, seen = int(added[-1]), int(t[-1]), seen + len(t)
            places = np.stack([high >> 7, y, x], axis=1)[~longer]
            yield Events(t[~longer], places.astype(np.int32), sensor=asked.sensor, source=str(path))
