"""Which points no other point beats in both of two figures, and a picture of them: SVG, one panel for each pair."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10
from textwrap import wrap

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 400, 320, 66, 22, 36, 50
LINE, NEAR = 20, 22
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito, which those who see few colours can tell apart; sources differ in shape, too."""
SHAPES = (
    "M-4 -4H4V4H-4Z",
    "M0 -5.5L5.5 4H-5.5Z",
    "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "M-5 -1.5H-1.5V-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5Z",
    "M0 5.5L5.5 -4H-5.5Z",
    "M-3 -5H3L5.5 0L3 5H-3L-5.5 0Z",
)
FRONT = (
    "Filled and numbered: on the front, where no other point is as good in both figures and better in one."
)
DECADE = 10.0
"""An axis whose numbers, all above 0, span more than this is logarithmic."""


@dataclass(frozen=True)
class Axis:
    """What a panel shows along an axis: its name, and how a number of it is written."""

    name: str
    written: Callable[[float], str]


@dataclass(frozen=True)
class Dot:
    """One point: its number, what group it is of, what it is, and its place by panel; a panel may lack it."""

    number: int
    group: str
    label: str
    places: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One pair of figures: less of `x` is better, and more of `y`."""

    name: str
    x: Axis
    y: Axis


def front(places: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the places (x, y) that no other beats: none has x as small and y as large, and one better.

    Equal places are on the front together. The order is that of x.
    """
    chosen: list[int] = []
    best = float("-inf")
    last: tuple[float, float] | None = None
    for index in sorted(range(len(places)), key=lambda i: (places[i][0], -places[i][1])):
        if places[index][1] > best or places[index] == last:
            chosen.append(index)
            best, last = places[index][1], places[index]
    return chosen


def fronts(panels: Sequence[Panel], dots: Sequence[Dot]) -> dict[str, list[int]]:
    """Return panel -> numbers of the dots on its front, in the order of x."""
    found = {}
    for panel in panels:
        here = [dot for dot in dots if panel.name in dot.places]
        found[panel.name] = [here[i].number for i in front([dot.places[panel.name] for dot in here])]
    return found


def draw(title: str, panels: Sequence[Panel], dots: Sequence[Dot], caption: str) -> str:
    """Return the panels beside one another as SVG; fronts are stepped lines, and their dots are filled and numbered."""
    groups = list(dict.fromkeys(dot.group for dot in dots))
    width = WIDTH * max(len(panels), 1)
    below = wrap(f"{FRONT} {caption}", (width - LEFT) // 7)
    height = TOP + HEIGHT + LINE * (len(groups) + len(below) + 1)
    chosen = fronts(panels, dots)
    said = "; ".join(f"front of {panel.name}: {', '.join(map(str, chosen[panel.name]))}" for panel in panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'role="img" aria-labelledby="title said" font-family="Helvetica, Arial, sans-serif" font-size="12" '
        'fill="#222">',
        f'<title id="title">{escape(title)}</title><desc id="said">{escape(said)}</desc>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15" font-weight="bold">{escape(title)}</text>',
    ]
    for place, panel in enumerate(panels):
        parts.append(f'<g transform="translate({place * WIDTH} {TOP})">')
        parts += _panel(panel, [dot for dot in dots if panel.name in dot.places], groups, chosen[panel.name])
        parts.append("</g>")
    for row, group in enumerate(groups):
        y = TOP + HEIGHT + LINE * (row + 0.5)
        mark = _mark(row, filled=True)
        parts.append(f'<g transform="translate({LEFT} {y - 4:g})">{mark}</g>')
        parts.append(f'<text x="{LEFT + 14}" y="{y:g}">{escape(group)}</text>')
    for row, line in enumerate(below, len(groups)):
        y = TOP + HEIGHT + LINE * (row + 0.5)
        parts.append(f'<text x="{LEFT}" y="{y:g}" fill="#555">{escape(line)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _panel(panel: Panel, dots: Sequence[Dot], groups: Sequence[str], chosen: Sequence[int]) -> list[str]:
    x = _Scale.over([dot.places[panel.name][0] for dot in dots], LEFT, WIDTH - RIGHT)
    y = _Scale.over([dot.places[panel.name][1] for dot in dots], HEIGHT - BOTTOM, 12, log=False)
    parts = []
    for value in x.ticks:
        at = x.at(value)
        parts.append(f'<path d="M{at:.1f} {y.end:g}V{y.start:g}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{y.start + 16:g}" text-anchor="middle">{escape(panel.x.written(value))}</text>'
        )
    for value in y.ticks:
        at = y.at(value)
        parts.append(f'<path d="M{x.start:g} {at:.1f}H{x.end:g}" stroke="#e4e4e4"/>')
        parts.append(
            f'<text x="{x.start - 6:g}" y="{at + 4:.1f}" text-anchor="end">{escape(panel.y.written(value))}</text>'
        )
    parts.append(f'<path d="M{x.start:g} {y.end:g}V{y.start:g}H{x.end:g}" fill="none" stroke="#444"/>')
    middle = (x.start + x.end) / 2
    logarithmic = ", logarithmic" if x.log else ""
    parts.append(
        f'<text x="{middle:g}" y="{HEIGHT - 14}" text-anchor="middle">{escape(panel.x.name)}{logarithmic}</text>'
    )
    parts.append(
        f'<text transform="translate(14 {(y.start + y.end) / 2:g}) rotate(-90)" text-anchor="middle">'
        f"{escape(panel.y.name)}</text>"
    )
    at_number = {
        dot.number: (x.at(dot.places[panel.name][0]), y.at(dot.places[panel.name][1])) for dot in dots
    }
    steps = [at_number[number] for number in chosen]
    if steps:
        line = f"M{steps[0][0]:.1f} {steps[0][1]:.1f}" + "".join(f"H{u:.1f}V{v:.1f}" for u, v in steps[1:])
        parts.append(
            f'<path d="{line}" fill="none" stroke="#444" stroke-width="1.5" stroke-dasharray="5 3"/>'
        )
    for dot in sorted(dots, key=lambda dot: dot.number in chosen):
        u, v = at_number[dot.number]
        told = f"{dot.number}: {dot.label}; {panel.x.name} {panel.x.written(dot.places[panel.name][0])}, "
        told += f"{panel.y.name} {panel.y.written(dot.places[panel.name][1])}"
        mark = _mark(groups.index(dot.group), filled=dot.number in chosen)
        parts.append(f'<g transform="translate({u:.1f} {v:.1f})"><title>{escape(told)}</title>{mark}</g>')
    parts += [
        f'<text x="{u:.1f}" y="{v:.1f}" font-size="11" font-weight="bold" paint-order="stroke" stroke="white" '
        f'stroke-width="3">{escape(numbers)}</text>'
        for u, v, numbers in _numbered(chosen, at_number)
    ]
    return parts


def _numbered(
    chosen: Sequence[int], at_number: Mapping[int, tuple[float, float]]
) -> list[tuple[float, float, str]]:
    """Return where the numbers of a front are written; dots that stand close together share a text."""
    together: list[tuple[float, float, list[int]]] = []
    for number in chosen:
        u, v = at_number[number]
        near = [held for x, y, held in together if abs(u - x) < NEAR and abs(v - y) < NEAR]
        if near:
            near[0].append(number)
        else:
            together.append((u, v, [number]))
    placed = []
    for u, v, numbers in together:
        text = ", ".join(map(str, numbers[:3])) + (
            f" and {len(numbers) - 3} more" if len(numbers) > 3 else ""
        )
        wide = 6.5 * len(text)
        placed.append((u + 8 if u + 8 + wide < WIDTH - 4 else u - 8 - wide, v - 8, text))
    return placed


def _mark(group: int, *, filled: bool) -> str:
    colour, shape = COLOURS[group % len(COLOURS)], SHAPES[group % len(SHAPES)]
    fill = colour if filled else "white"
    return f'<path d="{shape}" fill="{fill}" stroke="{colour}" stroke-width="1.5"/>'


@dataclass(frozen=True)
class _Scale:
    """Where numbers between `low` and `high` stand between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float], start: float, end: float, *, log: bool = True) -> _Scale:
        """Span values, with a margin."""
        low, high = min(values), max(values)
        if log and low > 0 and high > DECADE * low:
            return cls(low / 1.3, high * 1.3, start, end, log=True)
        margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
        return cls(low - margin, high + margin, start, end, log=False)

    def at(self, value: float) -> float:
        """Return where a number stands."""
        low, high, given = (log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (given - low) / (high - low) * (self.end - self.start)

    @property
    def ticks(self) -> list[float]:
        """Round numbers in between, four to eight of them."""
        if self.log:
            decades = range(floor(log10(self.low)), ceil(log10(self.high)) + 1)
            factors = (1, 2, 5) if self.high < 100 * self.low else (1,)
            return [v for d in decades for f in factors if self.low <= (v := f * 10.0**d) <= self.high]
        rough = (self.high - self.low) / 8
        size = 10.0 ** floor(log10(rough))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
        first = ceil(self.low / step)
        return [v for i in range(first, floor(self.high / step) + 1) if isfinite(v := i * step)]
