"""What a step in C hands from node to node, and how numbers and names are written in C."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array

BYTES = {
    "int8_t": 1,
    "uint8_t": 1,
    "int16_t": 2,
    "uint16_t": 2,
    "int32_t": 4,
    "uint32_t": 4,
    "int64_t": 8,
    "float": 4,
    "double": 8,
}
REALS = ("float", "double")


@dataclass(frozen=True)
class Spikes:
    """Spikes of a layer of `width` neurons: `count` of them, the neurons of which stand in `list`, in order.

    marks: an array that holds 1 for each neuron that fires and 0 for the others, None where there is none. It is
    written where some fire, and where none does if it is `always`.
    """

    width: int
    list: str
    count: str
    marks: str | None = None
    always: bool = False


@dataclass(frozen=True)
class Numbers:
    """Numbers of a layer: `width` of a type in an array.

    silent: a condition in C under which all of them are 0, None where there is none. The array is not written then,
    unless it is `always`.
    """

    width: int
    type: str
    array: str
    silent: str | None = None
    always: bool = False


Value = Spikes | Numbers


def integer_type(largest: int) -> str:
    """Return the narrowest signed type that holds -largest .. largest."""
    for bits in (8, 16, 32, 64):
        if largest < 2 ** (bits - 1):
            return f"int{bits}_t"
    raise Unsupported(f"it needs whole numbers up to {largest}, more than 64 bits hold; use fewer bits")


@dataclass(frozen=True)
class Whole:
    """A whole number in C: an expression, of at most `reach`, that is computed in 32 bits, or in 64 where needed."""

    text: str
    reach: int

    @property
    def type(self) -> str:
        """Its type."""
        return "int32_t" if self.reach < 2**31 else integer_type(self.reach)

    def to(self, kind: str) -> str:
        """Return it as a number of a type that holds it."""
        return self.text if kind == self.type else f"({kind}){bracketed(self.text)}"

    def times(self, factor: str, most: int) -> Whole:
        """Return its product with a number of at most `most`."""
        product = Whole("", self.reach * most)
        return Whole(f"({product.type}){bracketed(self.text)} * {factor}", product.reach)


def bracketed(text: str) -> str:
    """Return an expression that can stand behind a cast."""
    return text if re.fullmatch(r"[\w>.-]+(\[[^]]*\])?|\w+\([^()]*\)", text) else f"({text})"


def format_type(held: Fixed) -> str:
    """Return the narrowest signed type that holds a format; spikes are uint8_t."""
    return "uint8_t" if held.max == 1 and not held.signed else integer_type(held.max)


def index_type(width: int) -> str:
    """Return the type of the index of one of so many neurons."""
    return "uint16_t" if width <= 2**16 else "uint32_t"


def literal(value: Any, of: str) -> str:
    """Write one number of a type, so that reading it gives exactly that number."""
    if of == "float":
        return f"{pointed(f'{float(value):.9g}')}f"
    if of == "double":
        return pointed(f"{float(value):.17g}")
    number = int(value)
    if number == -(2**31):
        return "(-2147483647 - 1)"
    return str(number) if abs(number) < 2**31 else f"INT64_C({number})"


def pointed(text: str) -> str:
    """Return a number that C reads as a real one."""
    return text if "." in text or "e" in text else f"{text}.0"


def narrowest(values: Array) -> str:
    """Return the narrowest signed type that holds whole numbers."""
    return integer_type(int(np.abs(values.astype(np.int64)).max(initial=0)))


def identifier(text: str) -> str:
    """Return a name of C for any text: what C does not allow becomes an underscore, and none begins with one."""
    name = re.sub(r"_+", "_", re.sub(r"[^A-Za-z0-9]", "_", text)).strip("_")
    return name if name[:1].isalpha() else f"n{name}"


def remark(text: str) -> str:
    """Return a text that can stand in a comment."""
    return re.sub(r"[^\w .,:;()+-]", "_", text, flags=re.ASCII)


def indented(lines: list[str]) -> str:
    """Lay out lines of C by their braces."""
    depth, laid = 0, []
    for line in lines:
        depth -= line.startswith("}")
        laid.append(f"{'    ' * depth}{line}" if line and not line.startswith("#") else line)
        depth += line.endswith("{")
    return "\n".join(laid) + "\n"
