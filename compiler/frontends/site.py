"""One call of a function that is being read: its arguments, and what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Axes, Builder, Value
from unscan.compiler.frontends.modules import array
from unscan.compiler.frontends.recorder import Call
from unscan.compiler.ir import Array, Node


@dataclass(frozen=True)
class Read:
    """A tensor that has been read: what carries it, what stands before its neurons, their shape, and its step."""

    value: Value
    axes: Axes
    shape: tuple[int, ...]
    time: int | None = None


@dataclass(frozen=True)
class Unusable:
    """A tensor that has no place in a graph, and why."""

    reason: str


@dataclass(frozen=True)
class Half(Unusable):
    """The first or second half of a tensor along its last axis, which only a GLU written by hand may use."""

    whole: Read | None = None
    second: bool = False
    gate: bool = False


Outcome = Read | Unusable | tuple[Read | Unusable, ...]


@dataclass
class Site:
    """One call of a function, on its way to a node; its arguments are `Read` where they depend on the input.

    Attributes:
        steps, batch: T and B of the sample.
        name: what its nodes are called.
    """

    call: Call
    to: Builder
    steps: int
    batch: int
    name: str
    args: Sequence[Any]
    kwargs: dict[str, Any]

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """Return an argument by its place or name."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name, default)

    def read(self, place: int = 0, name: str = "input") -> Read:
        """Return an argument that must depend on the input and have a place in the graph."""
        return self.usable(self.argument(place, name))

    def usable(self, given: Any) -> Read:
        """Return what is given, if it depends on the input and has a place in the graph."""
        if isinstance(given, Unusable):
            raise self.refused(given.reason)
        if not isinstance(given, Read):
            raise self.refused(f"it is handed {type(given).__name__} where a signal is expected")
        return given

    def refused(self, reason: str) -> Unsupported:
        """Return the error for this call."""
        return Unsupported(f"The forward uses {self.call.name} ({self.call.line}): {reason}.")

    def lead(self, axes: Axes) -> tuple[int, ...]:
        """Return the sizes before the neurons."""
        leads: dict[Axes, tuple[int, ...]] = {
            "sequence": (self.steps, self.batch),
            "folded": (self.steps * self.batch,),
            "step": (self.batch,),
        }
        return leads[axes]

    def gives(self, x: Read, node: Node | None = None, *values: Value) -> Read:
        """Return what leaves a node that is fed by x, and by more values, or x itself; in the shape that came out."""
        value = x.value if node is None else self.to.add(self.name, node, *(values or (x.value,)))
        return replace(x, value=value, shape=tuple(self.call.result[len(self.lead(x.axes)) :]))

    def constant(self, given: Any, x: Read) -> Array:
        """Return a constant that x is combined with, if it is one number, or differs between neurons alone."""
        if isinstance(given, torch.Tensor):
            lead = self.lead(x.axes)
            dims = len(lead) + len(x.shape)
            given = _repeated(given, dims, len(lead))
            shape = (1,) * (dims - given.dim()) + tuple(given.shape)
            own = shape[len(lead) :]
            if len(shape) > dims or any(n != 1 for n in shape[: len(lead)]) or not _spreads(own, x.shape):
                raise self.refused(
                    f"a constant of shape {tuple(given.shape)} is combined with a tensor of shape {(*lead, *x.shape)}; "
                    "it must be the same at every step and for every sample, and not be larger than the neurons"
                )
            return self.to.number(array(given).reshape(tuple(_stripped(own))))  # type: ignore[no-any-return]
        if isinstance(given, int | float | np.number) and not isinstance(given, bool):
            return self.to.number(given)  # type: ignore[no-any-return]
        raise self.refused(f"it is handed {type(given).__name__}, which has no node")


def _repeated(given: torch.Tensor, dims: int, lead: int) -> torch.Tensor:
    """Return a constant without the axes before the neurons, where it is the same all along them."""
    if given.dim() != dims:
        return given
    first = given[(slice(0, 1),) * lead]
    return first if bool((given == first).all()) else given


def _spreads(own: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    try:
        return np.broadcast_shapes(own, shape) == shape
    except ValueError:
        return False


def _stripped(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[0] == 1:
        shape = shape[1:]
    return shape
