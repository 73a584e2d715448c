"""Numbers as a reader takes them in."""

from __future__ import annotations

from math import isfinite, sqrt

JOULES = (("J", 1.0), ("mJ", 1e-3), ("uJ", 1e-6), ("nJ", 1e-9))


def joules(value: float) -> str:
    """Return an energy with its unit."""
    for unit, size in JOULES:
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value / 1e-12:.4g} pJ"


def score(value: float) -> str:
    """Return an F1 so that only an exact one reads 1; nan, where both sides are silent, reads so."""
    return "1" if value == 1 else "silent" if value != value else f"{min(value, 0.999999):.6f}"


def share(value: float) -> str:
    """Return a share in per cent; a dash where there is none."""
    return f"{100 * value:.2f} %" if isfinite(value) else "–"


def affordable(rate: float) -> str:
    """Return a rate of break-even in per cent; one that no input reaches, or that every one passes, is told so."""
    return "always cheaper" if rate > 1 else "always dearer" if rate == 0 else share(rate)


def count(value: float) -> str:
    """Return how many, whole up to 100 000 and in millions and more beyond; a mean of several keeps one digit."""
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"


def points(gap: float) -> str:
    """Return a difference of two shares in points of a hundred."""
    return f"{100 * gap:+.2f}"


def shortened(name: str, room: int) -> str:
    """Return a name that fits, its end kept."""
    return name if len(name) <= room else f"…{name[len(name) + 1 - room :]}"


def interval(right: int, samples: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of which `right` of `samples` were seen (Wilson, 1927).

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), with z = 1.96.
    """
    z, p = 1.959964, right / samples
    middle = p + z * z / (2 * samples)
    half = z * sqrt(p * (1 - p) / samples + z * z / (4 * samples * samples))
    scale = 1 + z * z / samples
    return min(p, max(0.0, (middle - half) / scale)), max(p, min(1.0, (middle + half) / scale))
