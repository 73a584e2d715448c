"""The delay line: what lets nodes feed each other in a loop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from unscan.compiler.ir import Array, Dialect, Kind, Node, Signal
from unscan.compiler.nodes.stateless import fits


@dataclass(frozen=True, eq=False, kw_only=True)
class Delay(Node):
    """y_t = x_{t-steps}, 0 before; `steps` are whole numbers from 1 up that broadcast to the shape.

    It states what it carries, as it may be fed by what it feeds. State: `past`, the last max(steps) inputs, the
    newest first.
    """

    dialect: ClassVar[Dialect] = Dialect.ANY
    delays: ClassVar[bool] = True
    steps: Array
    shape: tuple[int, ...]
    kind: Kind

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "kind", Kind(self.kind))

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return what it states that it carries."""
        stated = Signal(self.kind, self.shape)
        if inputs.get("x", stated) != stated:
            raise ValueError(f"got {inputs['x']}, and it states that it carries {stated}")
        fits(self.steps, "steps", stated)
        return stated

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the inputs that are kept."""
        return {"past": (self.longest, *self.shape)}

    @property
    def longest(self) -> int:
        """The largest number of steps."""
        return int(self.steps.max())
