"""Small plots as SVG: lines over steps, bars, rasters of spikes. Colours come from the page's style, by class.

Classes s1 to s4 and f1 to f4 are four colours that can be told apart with any kind of sight (Okabe and Ito, 2008); what
they mean is also said by dashes, by where a mark stands, or in words beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

import numpy as np

from unscan.compiler.ir import Array
from unscan.runtime.report.words import shortened

WIDTH, LEFT, RIGHT = 760, 64, 16
ROW = 22
LINES, TICKS = 4, 8
"""How many lines lie across a plot, and how many ticks under it, about."""


@dataclass(frozen=True)
class Line:
    """Points to be joined: their name, places x and y (nan where there is none), colour, and how they are drawn."""

    name: str
    x: Sequence[float] | Array
    y: Sequence[float] | Array
    colour: int = 1
    style: str = ""
    """Any of "under" (broad and pale), "dashed"."""


@dataclass(frozen=True)
class Bar:
    """A bar of parts one after another, each (colour, length), what it stands for, and what it says at its end."""

    name: str
    parts: Sequence[tuple[int, float]]
    said: str


def frame(height: float, label: str, drawn: Sequence[str]) -> str:
    """Return an SVG around what was drawn; the label says what a reader would see."""
    return "\n".join(
        [
            f'<svg class="plot" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" height="{height:g}" role="img" '
            f'aria-label="{escape(label)}">',
            *drawn,
            "</svg>",
        ]
    )


def text(x: float | Array, y: float | Array, said: str, *, anchor: str = "start", kind: str = "") -> str:
    """Return words at a place."""
    shown = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{shown}>{escape(said)}</text>'


def apart(low: float, high: float, wanted: int) -> float:
    """Return 1, 2 or 5 times a power of ten, so that about as many ticks as wanted lie between two numbers."""
    rough = (high - low) / wanted
    power = 10.0 ** floor(log10(rough))
    return next(power * step for step in (1, 2, 5, 10) if power * step >= rough * 0.75)


def ticks(low: float, high: float, step: float) -> list[float]:
    """Return the multiples of a step from `low` to `high`."""
    first, last = ceil(low / step - 1e-9), floor(high / step + 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def legend(entries: Sequence[tuple[int, str, str]], y: float, *, filled: bool = False) -> list[str]:
    """Return a line of (colour, style, name), each with its mark before it."""
    drawn, x = [], LEFT + 20.0
    for colour, style, name in entries:
        if filled:
            drawn.append(f'<rect class="f{colour}" x="{x:g}" y="{y - 10:g}" width="12" height="12"/>')
        else:
            drawn.append(f'<path class="line s{colour} {style}" d="M{x:g} {y - 4:g}h24"/>')
        drawn.append(text(x + (18 if filled else 30), y, name))
        x += 52 + 7 * len(name)
    return drawn


def lines(
    series: Sequence[Line],
    label: str,
    *,
    axes: tuple[str, str],
    levels: Sequence[tuple[str, Sequence[float] | Array]] = (),
    spikes: Sequence[tuple[int, Array]] = (),
    height: float = 210,
) -> str:
    """Draw lines over a common axis.

    Args:
        series: what is drawn.
        label: what a reader who does not see it is told.
        axes: what x and y are.
        levels: (name, y at each x of the first line), drawn dotted, such as a threshold.
        spikes: (colour, places on x) that are ticked above the lines, a row for each.
        height: of the whole.
    """
    top, bottom = 30.0 + 12 * len(spikes), height - 38
    xs = np.concatenate([np.asarray(line.x, float) for line in series])
    ys = np.concatenate([np.asarray(y, float) for y in ([s.y for s in series] + [y for _, y in levels])])
    ys = ys[np.isfinite(ys)]
    (x0, x1), (y0, y1) = spread(xs), spread(ys)
    step = apart(y0, y1, LINES)
    y0, y1 = step * floor(y0 / step + 1e-9), step * ceil(y1 / step - 1e-9)

    def at(x: Array, y: Array) -> tuple[Array, Array]:
        return (
            LEFT + (x - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT),
            bottom - (y - y0) / (y1 - y0) * (bottom - top),
        )

    drawn = legend(
        [(s.colour, s.style, s.name) for s in series] + [(0, "level", name) for name, _ in levels], 14
    )
    for value in ticks(y0, y1, step):
        _, y = at(np.array(x0), np.array(value))
        drawn.append(f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        drawn.append(text(LEFT - 8, y + 4, f"{value:g}", anchor="end", kind="quiet"))
    for value in ticks(x0, x1, max(1.0, apart(x0, x1, TICKS))):
        x, _ = at(np.array(value), np.array(y0))
        drawn.append(text(x, bottom + 16, f"{value:g}", anchor="middle", kind="quiet"))
    drawn.append(f'<path class="axis" d="M{LEFT} {bottom}H{WIDTH - RIGHT}"/>')
    drawn.append(text(WIDTH - RIGHT, bottom + 32, axes[0], anchor="end", kind="quiet"))
    drawn.append(text(4, 14, axes[1], kind="quiet"))
    for _, level in levels:
        drawn.append(
            f'<path class="level" d="{path(*at(np.asarray(series[0].x, float), np.asarray(level)))}"/>'
        )
    for line in series:
        placed = at(np.asarray(line.x, float), np.asarray(line.y, float))
        drawn.append(f'<path class="line s{line.colour} {line.style}" d="{path(*placed)}"/>')
        if len(line.x) <= 40 and not line.style:
            drawn += [
                f'<circle class="f{line.colour}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>'
                for x, y in zip(*placed, strict=True)
                if np.isfinite(y)
            ]
    for row, (colour, places) in enumerate(spikes):
        marks = "".join(
            f"M{x:.1f} {20 + 12 * row}v9" for x in at(np.asarray(places, float), np.zeros(len(places)))[0]
        )
        drawn.append(f'<path class="line s{colour}" d="{marks}"/>')
    return frame(height, label, drawn)


def spread(values: Array) -> tuple[float, float]:
    """Return the least and the largest of some numbers, apart from each other even where they are equal."""
    if not values.size:
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))


def path(x: Array, y: Array) -> str:
    """Return points joined by lines, with a gap where y is nan."""
    parts, joined = [], False
    for px, py in zip(x, y, strict=True):
        if np.isfinite(py):
            parts.append(f"{'L' if joined else 'M'}{px:.1f} {py:.1f}")
        joined = bool(np.isfinite(py))
    return "".join(parts)


def bars(rows: Sequence[Bar], label: str, *, meaning: Sequence[tuple[int, str]] = ()) -> str:
    """Draw bars from the left, all to one scale from 0; `meaning` says what the colours of their parts are."""
    room = 240
    longest = max((sum(length for _, length in row.parts) for row in rows), default=0.0) or 1.0
    full = WIDTH - room - 120
    top = 28 if meaning else 4
    drawn = legend([(colour, "", name) for colour, name in meaning], 14, filled=True) if meaning else []
    for i, row in enumerate(rows):
        y, x = top + ROW * i, float(room)
        drawn.append(text(room - 8, y + 14, shortened(row.name, 34), anchor="end"))
        for colour, length in row.parts:
            width = full * length / longest
            if width > 0:
                drawn.append(
                    f'<rect class="f{colour}" x="{x:.1f}" y="{y + 3}" width="{max(width, 0.6):.1f}" height="14"/>'
                )
            x += width
        drawn.append(text(x + 6, y + 14, row.said))
    drawn.append(f'<path class="axis" d="M{room} {top}v{ROW * len(rows)}"/>')
    return frame(top + ROW * len(rows) + 4, label, drawn)


def raster(
    fired: Sequence[tuple[int, Array]],
    label: str,
    *,
    neurons: Sequence[int] | Array,
    meaning: Sequence[tuple[int, str]],
    first: int = 0,
) -> str:
    """Draw which neuron fired when.

    Args:
        fired: (colour, (T, neurons) bool), drawn over one another.
        label: what a reader who does not see it is told.
        neurons: the numbers of the neurons that are drawn, from above.
        meaning: what the colours are.
        first: the step that is drawn first.
    """
    steps, rows = fired[0][1].shape
    tall = max(3.0, min(10.0, 260 / rows))
    wide = (WIDTH - LEFT - RIGHT) / steps
    top = 28.0
    bottom = top + tall * rows
    drawn = legend([(colour, "", name) for colour, name in meaning], 14, filled=True)
    for colour, spikes in fired:
        marks = "".join(f"M{start} {row + 0.5:g}h{long}" for row, start, long in runs(spikes))
        drawn.append(
            f'<g transform="translate({LEFT} {top:g}) scale({wide:.5g} {tall:.5g})">'
            f'<path class="s{colour}" fill="none" stroke-width="0.8" d="{marks}"/></g>'
        )
    drawn.append(f'<path class="axis" d="M{LEFT} {top:g}V{bottom:g}H{WIDTH - RIGHT}"/>')
    for row in sorted({0, rows // 2, rows - 1}):
        drawn.append(
            text(
                LEFT - 8,
                top + tall * (row + 0.5) + 4,
                str(neurons[row]),
                anchor="end",
                kind="quiet",
            )
        )
    for value in ticks(first, first + steps, max(1.0, apart(0, steps, TICKS))):
        drawn.append(
            text(
                LEFT + wide * (value - first),
                bottom + 16,
                f"{value:g}",
                anchor="middle",
                kind="quiet",
            )
        )
    drawn.append(text(WIDTH - RIGHT, bottom + 32, "step", anchor="end", kind="quiet"))
    drawn.append(text(4, 14, "neuron", kind="quiet"))
    return frame(bottom + 38, label, drawn)


def runs(spikes: Array) -> Iterator[tuple[int, int, int]]:
    """Yield (neuron, first step, how many steps) for every run of spikes of (T, neurons)."""
    padded = np.zeros((spikes.shape[1], spikes.shape[0] + 2), np.int8)
    padded[:, 1:-1] = spikes.T
    change = np.diff(padded, axis=1)
    starts, ends = np.argwhere(change == 1), np.argwhere(change == -1)
    for (row, start), (_, end) in zip(starts.tolist(), ends.tolist(), strict=True):
        yield row, start, end - start
