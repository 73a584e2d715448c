"""Lists of events: when something fired, and where. Times are whole ticks, so that bins have exact edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array

MICROSECOND, NANOSECOND = Fraction(1, 10**6), Fraction(1, 10**9)
AXES = {1: "neuron", 2: "y, x", 3: "p, y, x"}
NAMES = {
    "t": ("t", "ts", "time", "times", "timestamp", "timestamps"),
    "neuron": ("neuron", "neurons", "unit", "units", "n", "id"),
    "x": ("x",),
    "y": ("y",),
    "p": ("p", "polarity", "on"),
}
"""What columns are called; case does not matter."""


@dataclass(frozen=True, eq=False)
class Events:
    """Events of one recording.

    Attributes:
        t: (E,) int64, when, in ticks; in any order.
        places: (E, k) int32, where: one column (neuron), or (y, x), or (p, y, x) with polarity p 1 (on) or 0 (off).
        tick: seconds of one tick, exactly.
        sensor: how many places there are, (neurons,) or (height, width); None where nobody said.
        source: what they are, for messages.
        invalid: how many others the file marks as invalid; they are not among these.

    Raises:
        InvalidInput: columns that do not belong together, or a place below 0.
    """

    t: Array
    places: Array
    tick: Fraction = MICROSECOND
    sensor: tuple[int, ...] | None = None
    source: str = "the events"
    invalid: int = 0

    def __post_init__(self) -> None:
        if self.t.ndim != 1 or self.places.ndim != 2 or len(self.places) != len(self.t):
            raise InvalidInput(
                f"{self.source}: got times of shape {self.t.shape} and places of shape {self.places.shape}, wanted "
                "(E,) and (E, k)."
            )
        if self.axes not in AXES:
            raise InvalidInput(
                f"{self.source}: got {self.axes} numbers for the place of an event, wanted neuron, or y and x, or p, y "
                "and x."
            )
        if self.places.size and self.places.min() < 0:
            raise InvalidInput(
                f"{self.source}: places are counted from 0, and the lowest is {self.places.min()}; check the columns."
            )
        if self.axes == 3 and self.places.size and self.places[:, 0].max() > 1:
            raise InvalidInput(
                f"{self.source}: polarities are 0 or 1 and the highest is {self.places[:, 0].max()}; check the order "
                "of the columns: t, x, y, p."
            )
        if self.sensor is not None and len(self.sensor) != min(2, self.axes):
            raise InvalidInput(
                f"{self.source}: got the sensor {self.sensor}; wanted (neurons,) for events of neurons, (height, "
                "width) for those of pixels (on the command line --event sensor=NEURONS or sensor=HEIGHTxWIDTH)."
            )

    @property
    def axes(self) -> int:
        """How many numbers say where an event is."""
        return int(self.places.shape[1])

    def __len__(self) -> int:
        """Return how many they are."""
        return len(self.t)

    def __str__(self) -> str:
        """Say in a line what they are."""
        sensor = "" if self.sensor is None else f", sensor {'x'.join(map(str, self.sensor))}"
        span = "" if not len(self) else f" over {float((self.t.max() - self.t.min()) * self.tick):.6g} s"
        return f"{self.source}: {len(self):,} events ({AXES[self.axes]}){span}, ticks of {float(self.tick):g} s{sensor}"

    @classmethod
    def of(
        cls,
        listed: Array | Mapping[str, Array],
        *,
        tick: float | Fraction | None = None,
        sensor: tuple[int, ...] | None = None,
        source: str = "the events",
    ) -> Events:
        """Make events of columns.

        Args:
            listed: a structured array or a mapping with the columns t and neuron, or t, x, y and perhaps p (other
                names: `NAMES`); or an array (E, 2) of t, neuron, (E, 3) of t, x, y, or (E, 4) of t, x, y, p. A
                polarity is on where it is above 0.
            tick: seconds that a time of 1 stands for. Where None, whole numbers are microseconds, and floating-point
                numbers are seconds.
            sensor: how many places there are, (neurons,) or (height, width).
            source: what they are, for messages.

        Floating-point times are kept to the nearest nanosecond.

        Raises:
            InvalidInput: columns that are missing, of different lengths, or that hold what they cannot.
        """
        columns = named(listed, source)
        wanted = ("neuron",) if "neuron" in columns else ("p", "y", "x") if "p" in columns else ("y", "x")
        missing = [name for name in ("t", *wanted) if name not in columns]
        if missing or ("neuron" in columns and len(columns) > 2):
            raise InvalidInput(
                f"{source}: got the columns {', '.join(columns) or 'none'}, wanted t and neuron, or t, x, y and p."
            )
        sizes = {name: columns[name].shape for name in ("t", *wanted)}
        if len(set(sizes.values())) > 1 or len(sizes["t"]) != 1:
            raise InvalidInput(
                f"{source}: the columns have the shapes {sizes}, wanted (E,), the same for each."
            )
        if "p" in columns:
            columns["p"] = columns["p"] > 0
        places = np.stack([whole(columns[name], name, source) for name in wanted], axis=1)
        t, unit = ticks(columns["t"], tick, source)
        return cls(t, places, unit, sensor, source)


def named(listed: Array | Mapping[str, Array], source: str) -> dict[str, Array]:
    """Return the columns by our names."""
    if isinstance(listed, Mapping):
        given = {name: np.asarray(column) for name, column in listed.items()}
    elif listed.dtype.names:
        given = {name: listed[name] for name in listed.dtype.names}
    elif listed.ndim == 2 and listed.shape[1] in (2, 3, 4):
        order = ("t", "neuron") if listed.shape[1] == 2 else ("t", "x", "y", "p")
        given = {name: listed[:, k] for k, name in zip(range(listed.shape[1]), order, strict=False)}
    else:
        raise InvalidInput(
            f"{source}: got an array of shape {listed.shape}, wanted (E, 2) of t, neuron, (E, 3) of t, x, y, (E, 4) of "
            "t, x, y, p, or a structured array with these names."
        )
    found: dict[str, Array] = {}
    for name, column in given.items():
        known = [ours for ours, names in NAMES.items() if name.lower() in names]
        if known and known[0] in found:
            raise InvalidInput(f"{source}: two columns say {known[0]}, {', '.join(given)}; keep one of them.")
        if known:
            found[known[0]] = column
    return found


def whole(column: Array, name: str, source: str) -> Array:
    """Return a column of places as int32. Raises InvalidInput where it holds anything else."""
    if column.dtype.kind not in "iub" and not (
        column.dtype.kind == "f" and np.isfinite(column).all() and (column == np.floor(column)).all()
    ):
        raise InvalidInput(
            f"{source}: the column {name} holds numbers that are not whole; check the order of the columns."
        )
    if column.size and not -(2**31) <= column.min() <= column.max() < 2**31:
        raise InvalidInput(
            f"{source}: the column {name} holds numbers from {column.min()} to {column.max()}, beyond 2^31."
        )
    return column.astype(np.int32)


def ticks(t: Array, tick: float | Fraction | None, source: str) -> tuple[Array, Fraction]:
    """Return times as whole ticks, and the seconds of one tick."""
    if tick is not None and not 0 < tick < float("inf"):
        raise InvalidInput(f"{source}: got a tick of {tick} s, wanted more than 0.")
    if t.dtype.kind in "iu":
        if t.size and t.max() > np.iinfo(np.int64).max:
            raise InvalidInput(f"{source}: the times reach {t.max()}, beyond 2^63.")
        return t.astype(np.int64), MICROSECOND if tick is None else exact(tick)
    if t.dtype.kind != "f" or not np.isfinite(t).all():
        raise InvalidInput(f"{source}: the times are not all finite numbers; clean the list.")
    seconds = t.astype(np.float64) * (1.0 if tick is None else float(tick))
    if t.size and np.abs(seconds).max() >= 2**63 * 1e-9:
        raise InvalidInput(
            f"{source}: the times reach {np.abs(seconds).max():g} s, beyond what nanoseconds count; floating-point "
            "times are seconds unless a tick is given."
        )
    return np.rint(seconds * 1e9).astype(np.int64), NANOSECOND


def exact(number: float | Fraction) -> Fraction:
    """Return a number as it is written in decimals: 0.001 is one thousandth."""
    return number if isinstance(number, Fraction) else Fraction(repr(float(number)))


def joined(parts: Iterable[Events], source: str) -> Events:
    """Return the events of all parts of one recording. Raises InvalidInput where there are none."""
    listed = list(parts)
    if not any(map(len, listed)):
        raise InvalidInput(f"{source} holds no events.")
    first = listed[0]
    return Events(
        np.concatenate([each.t for each in listed]),
        np.concatenate([each.places for each in listed]),
        first.tick,
        first.sensor,
        source,
        sum(each.invalid for each in listed),
    )


def columns_of(events: Events) -> dict[str, Any]:
    """Return the columns of events by their names."""
    names = ("neuron",) if events.axes == 1 else ("p", "y", "x")[3 - events.axes :]
    return {"t": events.t, **{name: events.places[:, k] for k, name in enumerate(names)}}
