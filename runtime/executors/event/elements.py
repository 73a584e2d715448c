"""Elementwise functions, norms and selections of one step: the loops of the nodes without memory or weights."""

from __future__ import annotations

import math

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.vector import kernel

SILENT = (0, 2, 3, 4, 5, 6, 8, 9)
"""The functions that leave 0 at 0, by their number in `stateless.FUNCTIONS`."""


@kernel
def activate(function: int, width: int, x: Array, y: Array) -> None:
    """Write y = f(x), the functions numbered as in `stateless.FUNCTIONS`."""
    number = x.dtype.type
    half, one, zero, six = number(0.5), number(1), number(0), number(6)
    root, bend, slope = number(math.sqrt(2.0)), number(0.044715), number(math.sqrt(2 / math.pi))
    for i in range(width):
        a = x[i]
        if function == 0:
            y[i] = zero if a < zero else a
        elif function == 1:
            y[i] = half * (one + math.tanh(half * a))
        elif function == 2:
            y[i] = math.tanh(a)
        elif function == 3:
            y[i] = a * half * (one + math.tanh(half * a))
        elif function == 4:
            y[i] = a * half * (one + math.erf(a / root))
        elif function == 5:
            y[i] = a * half * (one + math.tanh(slope * (a + bend * (a * a * a))))
        elif function == 6:
            y[i] = a if a > zero else math.expm1(a)
        elif function == 7:
            y[i] = max(a, zero) + math.log1p(math.exp(-abs(a)))
        elif function == 8:
            y[i] = min(max(a, zero), six)
        elif function == 9:
            y[i] = min(max(a, -one), one)
        else:
            y[i] = min(max(a / six + half, zero), one)


@kernel
def gate(width: int, row: int, x: Array, y: Array) -> None:
    """Write y = a sigmoid(b), a and b the halves of every 2 `row` numbers of x."""
    half, one = x.dtype.type(0.5), x.dtype.type(1)
    for i in range(width):
        at = i + i // row * row
        y[i] = x[at] * (half * (one + math.tanh(half * x[at + row])))


@kernel
def normalise(centred: bool, width: int, row: int, p: Array, x: Array, y: Array) -> None:
    """Write x normalised over every `row` numbers, by their variance or by their mean square.

    p: weight, bias and epsilon. Sums are taken in float64, from left to right.
    """
    for first in range(0, width, row):
        mean, square = 0.0, 0.0
        if centred:
            for i in range(first, first + row):
                mean += x[i]
            mean /= row
        for i in range(first, first + row):
            square += (x[i] - mean) ** 2
        length = math.sqrt(square / row + p[2, 0])
        for i in range(row):
            y[first + i] = (x[first + i] - mean) / length * p[0, i] + p[1, i]


@kernel
def keep_largest(count: int, width: int, row: int, x: Array, y: Array, heap: Array) -> None:
    """Write the `count` numbers of every `row` whose magnitude is largest, of equals the first, and 0 elsewhere."""
    for first in range(0, width, row):
        found = 0
        for i in range(first, first + row):
            new = abs(x[i])
            if new == 0 or (found == count and not new > heap[0]):
                continue
            if found < count:
                at = found
                found += 1
                while at > 0 and heap[(at - 1) // 2] > new:
                    heap[at] = heap[(at - 1) // 2]
                    at = (at - 1) // 2
            else:
                at = 0
                while 2 * at + 1 < found:
                    below = 2 * at + 1
                    if below + 1 < found and heap[below + 1] < heap[below]:
                        below += 1
                    if not heap[below] < new:
                        break
                    heap[at] = heap[below]
                    at = below
            heap[at] = new
        least = heap[0] if found == count else x.dtype.type(0)
        equal = 0
        for i in range(found):
            equal += heap[i] == least
        for i in range(first, first + row):
            size = abs(x[i])
            if size > least:
                y[i] = x[i]
            elif size == least and equal > 0:
                y[i] = x[i]
                equal -= 1
            else:
                y[i] = 0


@kernel
def place(outer: int, block: int, stride: int, start: int, x: Array, y: Array) -> None:
    """Write x, `outer` blocks behind each other, into y, where the blocks stand `stride` apart from `start` on."""
    for i in range(outer):
        for k in range(block):
            y[start + i * stride + k] = x[i * block + k]
