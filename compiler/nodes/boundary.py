"""Where signals enter and leave a graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unscan.compiler.ir import Kind, Node, Signal


@dataclass(frozen=True, eq=False)
class Input(Node):
    """The input of the graph at one step, of a given shape (without time and batch) and kind."""

    shape: tuple[int, ...]
    kind: Kind = Kind.REAL

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "kind", Kind(self.kind))

    @property
    def ports(self) -> tuple[str, ...]:
        """None: it is fed from outside."""
        return ()

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return the declared signal."""
        return Signal(self.kind, self.shape)


@dataclass(frozen=True, eq=False)
class Output(Node):
    """The output of the graph at one step: y = x."""
