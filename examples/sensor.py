"""The loop of a sensor: events from a file in real time, a step each dt, decisions with their latencies.

`python examples/sensor.py [model.unscan recording] [--dt 1e-3] [--speed 1] [--ring 64] [--full wait]`; without a model,
one that says in which quarter of a small sensor a dot is, and a recording of a dot that jumps about.

A thread reads the recording in parts, bins it, and puts each step into a ring buffer when its time has come: at the end
of the step, on the recording's clock divided by `speed`. The loop takes the steps out and runs them. Where it is slower
than the sensor the ring fills up, and then `--full` says what happens: `wait` holds the reader back, as only a file can
be held, so that every step is run, late; `drop` overwrites the oldest step, as a sensor would, and counts it.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import nn

import unscan
from unscan.runtime import events
from unscan.trainer import Leaky, LeakyIntegrator

SIDE = 16
"""Height and width of the small sensor."""
REMEMBERED = 100_000
"""Of how many latencies percentiles are taken: those of the last steps."""


class Ring:
    """Steps that wait for the loop, with the time at which each was due; never more than `size`."""

    def __init__(self, size: int, *, waits: bool) -> None:
        self._steps: deque[tuple[events.Step, float]] = deque(maxlen=size)
        self._size, self._waits = size, waits
        self._changed = threading.Condition()
        self._fault: BaseException | None = None
        self._closed = False
        self.dropped = self.held_back = self.fullest = 0

    def put(self, step: events.Step, due: float) -> None:
        """Add a step; where the ring is full, wait for room, or drop the oldest."""
        with self._changed:
            if len(self._steps) == self._size:
                if self._waits:
                    self.held_back += 1
                    self._changed.wait_for(lambda: len(self._steps) < self._size or self._closed)
                else:
                    self.dropped += 1
            self._steps.append((step, due))
            self.fullest = max(self.fullest, len(self._steps))
            self._changed.notify_all()

    def close(self, fault: BaseException | None = None) -> None:
        """Say that no more steps come, or none are taken any more, and why."""
        with self._changed:
            self._closed, self._fault = True, fault
            self._changed.notify_all()

    def __iter__(self) -> Iterator[tuple[events.Step, float]]:
        """Take the steps out, oldest first, until the ring is closed and empty; raise what the reader raised."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._steps or self._closed)
                if not self._steps:
                    if self._fault is not None:
                        raise self._fault
                    return
                taken = self._steps.popleft()
                self._changed.notify_all()
            yield taken

    @property
    def closed(self) -> bool:
        """Whether no more steps come or are taken."""
        return self._closed


def play(steps: events.Stepped, seconds: float, ring: Ring) -> None:
    """Put each step into the ring when it ends, `seconds` after the one before."""
    began = time.perf_counter()
    try:
        for step in steps:
            due = began + (step.number + 1) * seconds
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            if ring.closed:
                return
            ring.put(step, due)
        ring.close()
    except BaseException as fault:
        ring.close(fault)


def serve(
    model: Path, recording: Path, *, dt: float, speed: float, size: int, waits: bool
) -> list[tuple[float, int]]:
    """Run a recording through a model; print decisions and latencies, and return (seconds, decision) of the changes."""
    graph = unscan.load(model)
    stream, into = unscan.Stream(graph), events.binning(graph, dt)
    dense = np.zeros(into.neurons, np.float32)

    def run(step: events.Step) -> int | None:
        if into.several == "one":
            scores = stream.step_events(step.neurons)
        else:
            dense[:] = 0
            dense[step.neurons] = step.counts
            scores = stream.step(dense.reshape(into.shape))
        return int(scores.argmax()) if scores.max() > scores.min() else None

    nothing = np.zeros(0, np.int64)
    run(events.Step(0, nothing, nothing))  # compiles, or loads what was compiled, before the clock runs
    stream.reset()

    steps, ring = events.Stepped(events.chunks(recording), into), Ring(size, waits=waits)
    reader = threading.Thread(target=play, args=(steps, dt / speed, ring), name="reader")
    latencies: deque[tuple[float, float]] = deque(maxlen=REMEMBERED)
    changes: list[tuple[float, int]] = []
    missed = done = 0
    longest = 0.0
    reader.start()
    try:
        for step, due in ring:
            taken = time.perf_counter()
            decision = run(step)
            ended = time.perf_counter()
            latency = ended - due
            latencies.append((latency, ended - taken))
            longest, missed, done = max(longest, latency), missed + (latency > dt / speed), done + 1
            if decision is not None and (not changes or decision != changes[-1][1]):
                changes.append(((step.number + 1) * dt, decision))
                print(f"{changes[-1][0]:10.4f} s  decision {decision}")
    finally:
        ring.close()
        reader.join()
    (p50, p90, p99), (own50, _, own99) = 1e6 * np.percentile(latencies, [50, 90, 99], axis=0).T
    print(f"{recording}: {steps.tally}")
    print(
        f"{done} steps of {dt:g} s at {speed:g} times the recording's speed; latency p50 {p50:.0f}, p90 {p90:.0f}, p99 "
        f"{p99:.0f}, max {1e6 * longest:.0f} us, of it the model's step p50 {own50:.0f}, p99 {own99:.0f} us; {missed} "
        f"deadlines of {1e6 * dt / speed:.0f} us missed"
    )
    print(
        f"ring of {size}: at most {ring.fullest} steps waited; the reader was held back {ring.held_back} times, "
        f"{ring.dropped} steps were dropped"
    )
    return changes


def make_model(path: Path) -> None:
    """Write a model of (polarity, height, width) spikes: a neuron for each quarter adds up the events there."""
    quarter = np.add.outer(2 * (np.arange(SIDE) >= SIDE // 2), np.arange(SIDE) >= SIDE // 2)
    layer, readout = nn.Linear(2 * SIDE * SIDE, 4, bias=False), nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        layer.weight[:] = torch.from_numpy(np.tile(np.eye(4)[quarter.ravel()].T, 2))
        readout.weight[:] = torch.eye(4)
    network = nn.Sequential(
        layer, Leaky(4, beta=0.8, threshold=4.0, reset="subtract"), readout, LeakyIntegrator(4, beta=0.9)
    )
    unscan.compile(unscan.trace(network, np.zeros((1, 1, 2 * SIDE * SIDE)), kind="spike")).save(path)


def make_recording(path: Path, *, seconds: float = 1.0, seed: int = 0) -> list[int]:
    """Write events of a dot that jumps to another quarter each tenth of a second; return the quarters."""
    rng = np.random.default_rng(seed)
    jumps = round(10 * seconds)
    quarters = np.cumsum(rng.integers(1, 4, jumps)) % 4
    of_dot, of_noise = 300 * jumps, 100 * jumps
    t = rng.integers(0, jumps * 100_000, of_dot + of_noise)
    quarter = np.where(np.arange(len(t)) < of_dot, quarters[t // 100_000], rng.integers(0, 4, len(t)))
    half = SIDE // 2
    order = np.argsort(t, kind="stable")
    listed = {
        "t": t,
        "x": quarter % 2 * half + rng.integers(0, half, len(t)),
        "y": quarter // 2 * half + rng.integers(0, half, len(t)),
        "p": rng.integers(0, 2, len(t)),
    }
    sorted_events = {name: column[order] for name, column in listed.items()}
    events.write(events.Events.of(sorted_events, sensor=(SIDE, SIDE)), path)
    return [int(each) for each in quarters]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, nargs="?", help="a .unscan file")
    parser.add_argument("recording", type=Path, nargs="?", help="an event file, see docs/events.md")
    parser.add_argument("--dt", type=float, default=1e-3, help="seconds of a step")
    parser.add_argument("--speed", type=float, default=1.0, help="how many times faster than it was recorded")
    parser.add_argument("--ring", type=int, default=64, help="how many steps may wait")
    parser.add_argument(
        "--full", choices=["wait", "drop"], default="wait", help="what happens when it is full"
    )
    asked = parser.parse_args()
    if asked.speed <= 0 or asked.ring < 1 or (asked.model is None) != (asked.recording is None):
        parser.error("speed is above 0, the ring holds 1 step or more, and a model goes with a recording")
    sys.setswitchinterval(1e-4)  # how long a thread keeps the interpreter from the other; 5 ms unless said
    with TemporaryDirectory() as folder:
        model, recording = asked.model, asked.recording
        if model is None:
            model, recording = Path(folder) / "quarters.unscan", Path(folder) / "dot.npz"
            make_model(model)
            print(f"A dot in the quarters {make_recording(recording)}, a tenth of a second each")
        try:
            serve(
                model, recording, dt=asked.dt, speed=asked.speed, size=asked.ring, waits=asked.full == "wait"
            )
        except unscan.UnscanError as fault:
            raise SystemExit(str(fault)) from None


if __name__ == "__main__":
    main()
