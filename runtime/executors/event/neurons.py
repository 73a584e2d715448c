"""The rarer nodes with states of their own: the loops of one step of neurons, filters and delay lines."""

from __future__ import annotations

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.synapses import copy
from unscan.runtime.executors.event.vector import kernel


@kernel
def cross(width: int, level: Array, x: Array, reached: Array, ids: Array) -> int:
    """Run one step of a Threshold; list and count the neurons that fire."""
    found = 0
    for i in range(width):
        reached[i] = x[i]
        if x[i] >= level[i]:
            ids[found] = i
            found += 1
    return found


@kernel
def tire(
    reset: int, strict: bool, width: int, p: Array, u: Array, a: Array, x: Array, reached: Array, ids: Array
) -> int:
    """Run one step of an AdaptiveLIF; list and count the neurons that fire.

    p (5, C): beta, gain, theta, kappa, rho. reset: 0 none, 1 subtract, 2 zero. strict: whether a tie is silent.
    """
    found = 0
    for i in range(width):
        membrane = p[0, i] * u[i] + p[1, i] * x[i]
        level = p[2, i] + p[3, i] * a[i]
        fired = membrane > level or (membrane == level and not strict)
        reached[i] = u[i] = membrane
        a[i] = p[4, i] * a[i]
        if fired:
            a[i] += 1
            if reset == 1:
                u[i] -= p[2, i]
            elif reset == 2:
                u[i] = 0
            ids[found] = i
            found += 1
    return found


@kernel
def filter_modes(width: int, modes: int, p: Array, h: Array, x: Array, y: Array) -> None:
    """Run one step of a DiagonalSSM. p: a, c (pairs) and d; h: pairs. Modes are added from left to right."""
    two = x.dtype.type(2)
    for i in range(width):
        total = x.dtype.type(0)
        for m in range(2 * i * modes, 2 * (i + 1) * modes, 2):
            real = p[0, m] * h[m] - p[0, m + 1] * h[m + 1] + x[i]
            imaginary = p[0, m] * h[m + 1] + p[0, m + 1] * h[m]
            h[m], h[m + 1] = real, imaginary
            total += p[1, m] * real - p[1, m + 1] * imaginary
        y[i] = two * total + p[2, i] * x[i]


@kernel
def delayed(width: int, longest: int, turn: int, steps: Array, past: Array, y: Array) -> bool:
    """Write what a delay line gives, whose newest input stands in row `turn`; return whether some of it is not 0."""
    some = False
    for i in range(width):
        row = turn + steps[i] - 1
        y[i] = past[(row if row < longest else row - longest) * width + i]
        some |= y[i] != 0
    return some


@kernel
def remembered(width: int, longest: int, turn: int, x: Array, past: Array) -> int:
    """Put x in the place of a delay line's oldest input; return its row, the newest one now."""
    turn = turn - 1 if turn > 0 else longest - 1
    copy(x, width, past, turn * width)
    return turn


@kernel
def straighten(width: int, longest: int, turn: int, past: Array) -> None:
    """Turn a delay line so that its newest input stands first, as states are kept."""
    held = past.copy()
    for row in range(longest):
        copy(held[(turn + row) % longest * width :], width, past, row * width)
