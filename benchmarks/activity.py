"""What a step costs against how much fires, and against how large the network is: a plot with a fit.

    unscan bench activity [--quick] [--json FILE] [--plot FILE.svg]

Networks N-N-N of exact LIF neurons, hard reset, one sample, float32, one thread; thresholds by which each layer fires
as often as the input, 0.1 % to 50 % of the neurons a step. Against activity: N = 512 and dense fan-out. Against size:
N = 64 to 8192, 1 % and 0.1 % activity, and 16 targets per neuron, all other weights 0. Fitted to the medians by least
squares of relative errors: time of a step = a + b events + c neurons, one event being a spike that meets one weight; c
is left out where there is one size. onnxruntime runs the same graph as a dense Scan. All take turns.
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from unscan.benchmarks.measuring import figure, medians, options, plotter, screen, write
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import LIF, Input, Linear, Output
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.onnx import OnnxScan

BETA, FAN_OUT, STEPS = 0.9, 16, 200
ACTIVITIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
SIZES = (64, 128, 256, 512, 1024, 2048, 4096, 8192)
LARGEST_DENSE = 2048
"""The largest N that is run in onnxruntime, too, whose work grows with N^2."""
SPARSE = (0.01, 0.001)
"""Activities at which sizes are compared: two, as at one of them events grow as the neurons do."""
BLUE, VERMILION = "#0072B2", "#D55E00"
OURS, DENSE = "event executor", "onnxruntime, Scan"


@dataclass(frozen=True)
class Point:
    """One network, measured.

    Attributes:
        neurons: N.
        activity: the share of neurons that was asked for.
        events: weights met by spikes, a step.
        us: method -> microseconds a step.
    """

    neurons: int
    activity: float
    events: float
    us: dict[str, float]


@dataclass(frozen=True)
class Line:
    """time = a + b events + c neurons: a in microseconds, b and c in nanoseconds, and R^2 of the logarithms of both."""

    a: float
    b: float
    c: float
    r2: float

    def __str__(self) -> str:
        """Show the fit."""
        neurons = f" + {self.c:.2g} ns x neurons" if self.c else ""
        return f"{self.a:.2g} us + {self.b:.2g} ns x events{neurons}"

    def at(self, point: Point) -> float:
        """Return the microseconds of a step that the fit gives."""
        return self.a + 1e-3 * (self.b * point.events + self.c * 2 * point.neurons)


def weights(n: int, sparse: bool, seed: int) -> Array:
    """Draw weights (N, N), of which each neuron reaches all others, or 16."""
    draws = np.random.default_rng(seed)
    if not sparse:
        dense: Array = draws.standard_normal((n, n)) / np.sqrt(n)
        return dense.astype(np.float32)
    found = np.zeros((n, n), np.float32)
    for source in range(n):
        targets = draws.choice(n, FAN_OUT, replace=False)
        found[targets, source] = draws.standard_normal(FAN_OUT) / np.sqrt(FAN_OUT)
    return found


def network(drawn: list[Array], thresholds: list[float]) -> Graph:
    """Return N-N-N with these weights and thresholds."""
    nodes: dict[str, Node] = {"in": Input((drawn[0].shape[1],), Kind.SPIKE)}
    for i, (weight, theta) in enumerate(zip(drawn, thresholds, strict=True)):
        nodes[f"fc{i}"] = Linear(weight)
        nodes[f"lif{i}"] = LIF(
            beta=np.array(BETA, np.float32),
            threshold=np.array(theta, np.float32),
            reset="zero",
            fires=">",
            trained_reset="zero",
        )
    nodes["out"] = Output()
    return Graph(nodes, [Edge(a, b) for a, b in pairwise(nodes)])


def calibrated(n: int, activity: float, sparse: bool, x: Array) -> Graph:
    """Return the network with thresholds at which each layer fires at about the rate of the input."""
    drawn, thresholds, spikes = [weights(n, sparse, seed) for seed in (1, 2)], [], x[:, 0]
    for weight in drawn:
        current = spikes @ weight.T
        low, high = 1e-4, 100.0
        for _ in range(24):
            theta = (low * high) ** 0.5
            low, high = (theta, high) if fired(current, theta).mean() > activity else (low, theta)
        thresholds.append(high)
        spikes = fired(current, high)
    return network(drawn, thresholds)


def fired(current: Array, theta: float) -> Array:
    """Return the spikes (T, N) of neurons that are driven by a current (T, N)."""
    membrane, spikes = np.zeros_like(current[0]), np.zeros_like(current)
    for t, arriving in enumerate(current):
        membrane = np.float32(BETA) * membrane + arriving
        spikes[t] = membrane > theta
        membrane[spikes[t] > 0] = 0
    return spikes


def measure(n: int, activity: float, sparse: bool, budget: float) -> Point:
    """Measure one network."""
    x = (np.random.default_rng(3).random((STEPS, 1, n)) < activity).astype(np.float32)
    graph = calibrated(n, activity, sparse, x)
    events = EventDriven(graph, np.float32, threads=1)
    passes = {OURS: lambda: events.run(x, record=False)}
    if n <= LARGEST_DENSE:
        scan = OnnxScan(graph)
        passes[DENSE] = lambda: scan.run(x, record=False)
    counts = events.run(x, record=False).counts
    assert counts is not None
    found = {name: 1e3 * value / STEPS for name, value in medians(passes, budget).items()}
    return Point(n, activity, counts.total.acs / STEPS, found)


def fitted(points: list[Point]) -> Line:
    """Fit a line to our times, each weighted by 1 / time, so that short ones count as much as long ones."""
    us = np.array([point.us[OURS] for point in points])
    neurons = np.array([2e-3 * point.neurons for point in points])
    columns = [np.ones(len(us)), np.array([1e-3 * point.events for point in points])]
    if np.ptp(neurons) > 0:
        columns.append(neurons)
    found = np.linalg.lstsq(np.stack(columns, axis=1) / us[:, None], np.ones(len(us)), rcond=None)[0]
    a, b, c = map(float, (*found, 0.0)[:3])
    expected = np.array([Line(a, b, c, 0).at(point) for point in points])
    logs = np.log(us)
    off = logs - np.log(np.maximum(expected, 1e-9))
    return Line(a, b, c, 1 - float((off**2).sum() / ((logs - logs.mean()) ** 2).sum()))


def told(points: list[Point], line: Line, title: str) -> Table:
    """Return the points as a table."""
    table = Table(title=f"{title}: {line}, R^2 {line.r2:.3f}")
    for name in ("N", "activity", "events a step", OURS, "ns an event", DENSE, "times ours"):
        table.add_column(name, justify="right")
    for point in points:
        ours, dense = point.us[OURS], point.us.get(DENSE)
        table.add_row(
            f"{point.neurons}",
            f"{point.activity:.1%}",
            figure(point.events),
            f"{figure(ours)} us",
            figure(1e3 * ours / point.events) if point.events else "-",
            f"{figure(dense)} us" if dense else "-",
            figure(dense / ours) if dense else "-",
        )
    return table


def plotted(by_activity: list[Point], by_size: list[Point], lines: tuple[Line, Line], path: Path) -> None:
    """Draw both panels."""
    plt = plotter()
    drawing, (left, right) = plt.subplots(1, 2, figsize=(9.6, 5.4), sharey=True, layout="constrained")
    draw(left, by_activity, lines[0], [100 * point.activity for point in by_activity], "o", "")
    for activity, marker in zip(SPARSE, ("o", "^"), strict=True):
        points = [point for point in by_size if point.activity == activity]
        draw(right, points, lines[1], [point.neurons for point in points], marker, f", {activity:.1%} fire")
    left.set(
        title=f"{by_activity[0].neurons} neurons a layer, all reach all",
        xlabel="neurons that fire at a step, %",
        ylabel="microseconds a step",
    )
    right.set(title=f"each neuron reaches {FAN_OUT}", xlabel="neurons a layer")
    sizes = list(dict.fromkeys(point.neurons for point in by_size))
    for panel, line, ticks in ((left, lines[0], (0.1, 0.5, 1, 5, 10, 50)), (right, lines[1], sizes)):
        panel.minorticks_off()
        panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        panel.grid(which="major", color="#DDDDDD", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.plot(
            [], [], "-", color=BLUE, linewidth=1.2, label=f"{line}, R² {line.r2:.3f}".replace(" us", " µs")
        )
        panel.legend(frameon=False, fontsize=8.5, loc="upper center", bbox_to_anchor=(0.5, -0.15))
    with plt.rc_context({"svg.hashsalt": "unscan"}):
        drawing.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(drawing)


def draw(panel: Any, points: list[Point], line: Line, xs: list[float], marker: str, label: str) -> None:
    """Draw our points, their fit, and the dense peer's points."""
    dense = [(x, point.us[DENSE]) for x, point in zip(xs, points, strict=True) if DENSE in point.us]
    panel.loglog(
        *zip(*dense, strict=True), f"{marker}--", color=VERMILION, fillstyle="none", label=DENSE + label
    )
    panel.loglog(xs, [point.us[OURS] for point in points], marker, color=BLUE, label=OURS + label)
    panel.loglog(xs, [line.at(point) for point in points], "-", color=BLUE, linewidth=1.2)


def main(arguments: list[str] | None = None) -> None:
    """Measure, print the tables and draw the plot."""
    parser = options(__doc__, quick="three activities and two sizes, little time")
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw both panels into FILE (.svg, .png, .pdf)"
    )
    given = parser.parse_args(arguments)
    plotter(given.plot is not None)
    activities, sizes, budget = (
        (ACTIVITIES[::4], SIZES[:2], 0.05) if given.quick else (ACTIVITIES, SIZES, 1.5)
    )
    start = time.perf_counter()
    by_activity = [measure(64 if given.quick else 512, activity, False, budget) for activity in activities]
    by_size = [measure(n, activity, True, budget) for activity in SPARSE for n in sizes]
    lines = fitted(by_activity), fitted(by_size)
    screen().print(told(by_activity, lines[0], "Against activity, dense fan-out"))
    screen().print(told(by_size, lines[1], f"Against size, fan-out {FAN_OUT}"))
    screen().print(f"Measured for {time.perf_counter() - start:.0f} s.")
    if given.plot:
        plotted(by_activity, by_size, lines, given.plot)
    rows: dict[str, Any] = {
        name: {"points": [vars(point) for point in points], "line": vars(line)}
        for name, points, line in zip(("activity", "size"), (by_activity, by_size), lines, strict=True)
    }
    write(given.json, steps=STEPS, **rows)


if __name__ == "__main__":
    main()
