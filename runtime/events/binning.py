"""Events binned into steps of a stated length; what is merged, cut or left out is counted, every event of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, prod
from typing import Literal, NamedTuple, get_args

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.events.events import Events, exact

Several = Literal["one", "count"]
Polarity = Literal["channels", "merged", "on", "off"]
LARGEST = 2**33
"""Bytes of the largest array that is made of events."""


@dataclass
class Tally:
    """What became of events.

    Attributes:
        events: how many there were.
        before, after: those earlier than the first step, or later than the last.
        outside: those beyond the sensor.
        invalid: those that the file marks as such.
        unwanted: those of the polarity that was not asked for.
        late: those that came when their step was over; of a stream alone.
        merged: those that found their neuron's bin taken, of what was left: lost where a bin holds one, added where
            it counts.
        steps, samples: what they were binned into. silent: how many of these steps got nothing.
    """

    events: int = 0
    before: int = 0
    after: int = 0
    outside: int = 0
    unwanted: int = 0
    invalid: int = 0
    late: int = 0
    merged: int = 0
    steps: int = 0
    samples: int = 1
    silent: int = 0

    @property
    def kept(self) -> int:
        """How many events fell into a bin."""
        left_out = self.before + self.after + self.outside + self.unwanted + self.invalid + self.late
        return self.events - left_out

    def __str__(self) -> str:
        """Say in a line what became of them."""
        parts = [f"{self.events:,} events, {self.kept:,} of them in {self.steps:,} steps"]
        if self.samples > 1:
            parts[0] += f" of {self.samples} samples"
        for name, what in WORDS.items():
            if count := getattr(self, name):
                parts.append(f"{count:,} {what}")
        return "; ".join(parts)


WORDS = {
    "merged": "met another one in their bin",
    "before": "before the first step",
    "after": "after the last step",
    "outside": "outside the sensor",
    "unwanted": "of the other polarity",
    "invalid": "marked invalid in the file",
    "late": "too late for their step",
    "silent": "steps without any",
}


@dataclass(frozen=True)
class Binning:
    """How events become steps.

    An event at t is in step floor((t - start) / dt), exactly: times are whole ticks, and dt is the simplest fraction of
    a tick within 1e-12 of what was written. Its neuron is (c, y // downsample, x // downsample), counted in C order, or
    neuron // downsample.

    Attributes:
        dt: seconds of a step.
        shape: neurons of one step, as the graph takes them: (2, height, width), (height, width), or all flat.
        several: what several events of one neuron in one step are: one spike, or their count.
        polarity: channels: off in channel 0 and on in channel 1; merged: both in one channel; on, off: one alone.
        downsample: so many places (in each direction) become one.
        sensor: (neurons,) or (height, width); what the file says where None, else what the shape says.
        start: when step 0 begins, in seconds of the recording's clock; at the first event where None.

    Raises:
        InvalidInput: a setting that cannot be.
    """

    dt: float | Fraction
    shape: tuple[int, ...]
    several: Several = "one"
    polarity: Polarity = "channels"
    downsample: int = 1
    sensor: tuple[int, ...] | None = None
    start: float | Fraction | None = None

    def __post_init__(self) -> None:
        if not 0 < self.dt < float("inf"):
            raise InvalidInput(f"Got a step of {self.dt} s, wanted more than 0: dt=1e-3 is a millisecond.")
        for name, kind in (("several", Several), ("polarity", Polarity)):
            if getattr(self, name) not in get_args(kind):
                raise InvalidInput(
                    f"Got {name}={getattr(self, name)!r}; choose one of {', '.join(get_args(kind))}."
                )
        for name, sizes in (
            ("downsample", (self.downsample,)),
            ("sensor", self.sensor or ()),
            ("shape", self.shape),
        ):
            if any(not isinstance(size, int | np.integer) or size < 1 for size in sizes):
                raise InvalidInput(f"Got {name}={getattr(self, name)}; wanted whole numbers from 1 up.")

    @property
    def neurons(self) -> int:
        """How many neurons one step has."""
        return prod(self.shape)

    def ratio(self, tick: Fraction) -> Fraction:
        """Return the ticks of one step."""
        ratio = exact(self.dt) / tick
        near: Fraction = ratio.limit_denominator(10**6)
        return near if abs(near - ratio) <= ratio * Fraction(1, 10**12) else ratio

    def origin(self, first: int, tick: Fraction) -> int:
        """Return the tick at which step 0 begins, where `first` is that of the first event."""
        if self.start is None:
            return first
        origin = exact(self.start) / tick
        if origin.denominator != 1:
            raise InvalidInput(
                f"Got start={self.start} s, which is no whole number of ticks of {float(tick):g} s; round it."
            )
        return int(origin)

    def extent(self, events: Events) -> tuple[int, ...]:
        """Return the sensor's size. Raises InvalidInput where it does not give the shape."""
        f, sensor = self.downsample, self.sensor or events.sensor
        if sensor is not None and len(sensor) != min(2, events.axes):
            raise InvalidInput(
                f"Got the sensor {sensor} for {events}; wanted (neurons,) for neurons, (height, width) for pixels (on "
                "the command line --event sensor=NEURONS or sensor=HEIGHTxWIDTH)."
            )
        if sensor is None:
            if events.axes > 1 and len(self.shape) == 1:
                raise InvalidInput(
                    f"{events} are to become {self.neurons} neurons in a row, and nobody says how large the sensor is; "
                    "give sensor=(height, width) (on the command line --event sensor=HEIGHTxWIDTH)."
                )
            sensor = (self.neurons * f,) if events.axes == 1 else (self.shape[-2] * f, self.shape[-1] * f)
        small = [ceil(size / f) for size in sensor]
        channels = 2 if events.axes == 3 and self.polarity == "channels" else 1
        grid = tuple(small) if events.axes == 1 else (channels, *small)
        if prod(grid) != self.neurons or (
            events.axes > 1 and len(self.shape) > 1 and squeezed(grid) != squeezed(self.shape)
        ):
            raise InvalidInput(
                f"{events} give {'x'.join(map(str, grid))} neurons in a step (polarity {self.polarity}, downsample "
                f"{f}), and the graph takes {'x'.join(map(str, self.shape))}; change sensor, downsample or polarity "
                "(on the command line --event sensor=HEIGHTxWIDTH, --event downsample=2, --event polarity=merged)."
            )
        return sensor

    def cells(self, events: Events, origin: int, tally: Tally) -> tuple[Array, Array]:
        """Return step and neuron of each event that has both, (E,) int64 each; count the others."""
        sensor = self.extent(events)
        tally.events += len(events) + events.invalid
        tally.invalid += events.invalid
        inside = np.all(events.places[:, -len(sensor) :] < sensor, axis=1)
        asked = np.ones(len(events), bool)
        if self.polarity in ("on", "off"):
            if events.axes != 3:
                raise InvalidInput(f"Got polarity={self.polarity!r} for {events}, which have none.")
            asked = events.places[:, 0] == (self.polarity == "on")
        tally.outside += int(np.count_nonzero(~inside))
        tally.unwanted += int(np.count_nonzero(inside & ~asked))
        kept = inside & asked
        t, places = events.t[kept], events.places[kept]
        step = self._steps(t, origin, events.tick)
        if np.any(early := step < 0):
            tally.before += int(np.count_nonzero(early))
            step, places = step[~early], places[~early]
        neuron = np.zeros(len(step), np.int64)
        if events.axes == 3 and self.polarity == "channels":
            neuron += places[:, 0]
        for size, column in zip(sensor, places.T[-len(sensor) :], strict=True):
            neuron = neuron * ceil(size / self.downsample) + column // self.downsample
        return step, neuron

    def _steps(self, t: Array, origin: int, tick: Fraction) -> Array:
        """Return floor((t - origin) / dt) for times in ticks."""
        ratio = self.ratio(tick)
        since = t - origin
        if since.size and max(1, abs(int(since.min())), int(since.max())) * ratio.denominator >= 2**63:
            raise InvalidInput(
                f"The step of {self.dt} s is {ratio} ticks of {float(tick):g} s, too fine a fraction for a recording "
                "this long; choose a whole number of ticks."
            )
        if ratio.numerator >= 2**63:
            return np.where(since < 0, -1, 0).astype(np.int64)
        step: Array = since * ratio.denominator // ratio.numerator
        return step


def lengthy(steps: int | None) -> int | None:
    """Return a number of steps that is 1 or more, or None. Raises InvalidInput for another."""
    if steps is not None and steps < 1:
        raise InvalidInput(f"Got {steps} steps, wanted 1 or more.")
    return steps


def squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape without its axes of one."""
    return tuple(size for size in shape if size != 1)


class Binned(NamedTuple):
    """Steps x (T, B, ...), and what became of the events."""

    x: Array
    tally: Tally


def binned(events: Events | Sequence[Events], into: Binning, *, steps: int | None = None) -> Binned:
    """Bin recordings into x (T, B, ...): uint8 of 0 and 1, or float32 counts.

    Args:
        events: one recording, or B of them, each with its own start; shorter ones end in silence.
        into: how; see `Binning`.
        steps: T; up to the last event where None. Shorter recordings are padded with silence, longer ones are cut.

    Raises:
        InvalidInput: events that do not fit the shape, that all fall outside, or that would fill the memory.
    """
    recordings = [events] if isinstance(events, Events) else list(events)
    lengthy(steps)
    tally, found = Tally(samples=len(recordings)), []
    for each in recordings:
        origin = into.origin(int(each.t.min()) if len(each) else 0, each.tick)
        found.append(into.cells(each, origin, tally))
    last = max((int(step.max()) for step, _ in found if step.size), default=-1)
    if last < 0:
        raise InvalidInput(f"No event falls into a step: {tally}. Check sensor, polarity and start.")
    tally.steps = T = last + 1 if steps is None else steps
    dtype = np.uint8 if into.several == "one" else np.float32
    size = T * len(found) * into.neurons * np.dtype(dtype).itemsize
    if size > LARGEST:
        raise InvalidInput(
            f"{T:,} steps of {len(found)} x {into.shape} would take {size / 2**30:.1f} GiB; give steps, a longer dt or "
            "a start nearer to the events (None is the first), or run them as a stream (on the command line --event "
            "steps=1000, a longer --event-dt, or --event start=SECONDS)."
        )
    x = np.zeros((T, len(found), into.neurons), dtype)
    for b, (step, neuron) in enumerate(found):
        here = step < T
        tally.after += int(np.count_nonzero(~here))
        bins, count = np.unique(step[here] * into.neurons + neuron[here], return_counts=True)
        tally.merged += int(count.sum() - len(count))
        x[bins // into.neurons, b, bins % into.neurons] = 1 if into.several == "one" else count
    if not tally.kept:
        raise InvalidInput(f"No event falls into a step: {tally}. Check start and steps.")
    tally.silent = int(np.count_nonzero(~x.any(axis=2)))
    return Binned(x.reshape(T, len(found), *into.shape), tally)


def binning(
    graph: Graph,
    dt: float | Fraction,
    *,
    several: Several | None = None,
    polarity: Polarity = "channels",
    downsample: int = 1,
    sensor: tuple[int, ...] | None = None,
    start: float | Fraction | None = None,
) -> Binning:
    """Return how events become the steps of a graph: its shape, and one spike a bin where it takes spikes.

    Args:
        graph: what the steps are for.
        several: see `Binning`; the count of events where None and the graph takes numbers.
        dt, polarity, downsample, sensor, start: see `Binning`.

    Raises:
        InvalidInput: counts for a graph that takes spikes, or a graph that takes indices.
    """
    signal = graph.signals[graph.of(Input)[0]]
    if signal.kind is Kind.INDEX:
        raise InvalidInput(
            "The graph takes rows of an Embedding, one number a step; events are for spikes and numbers."
        )
    if signal.kind is Kind.SPIKE and several == "count":
        raise InvalidInput(
            "The graph takes spikes, 0 or 1, and several='count' makes larger numbers; bin with several='one', or a "
            "shorter dt."
        )
    several = several or ("one" if signal.kind is Kind.SPIKE else "count")
    return Binning(dt, signal.shape, several, polarity, downsample, sensor, start)
