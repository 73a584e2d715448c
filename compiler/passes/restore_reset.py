"""Set the reset that the neurons are deployed with.

A reset-free model is trained by convolution; hardware neurons reset. Restoring the reset changes the model:
the note says which neurons are deployed with another reset than they were trained with, `LIF.trained_reset`
keeps it in the file, and `unscan verify` measures the gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, cast

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph
from unscan.compiler.nodes import LIF
from unscan.compiler.nodes.neurons import PHASES, RESETS, Phase, Reset
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class RestoreReset(Pass):
    """Give every LIF one reset (none, subtract, zero) and, where named, one phase (now, next).

    Given: iterative nodes. Result: every LIF has this reset. Preserves: everything where it is the reset that
    the model was trained with; else it changes spikes, by an amount that only a run on data can say.

    Raises:
        InvalidInput: a reset or phase that does not exist.
    """

    name: ClassVar[str] = "restore-reset"
    reset: Reset = "zero"
    phase: Phase | None = None

    def __post_init__(self) -> None:
        if self.reset not in RESETS:
            raise InvalidInput(
                f"restore-reset got the reset {self.reset!r}; choose one of {', '.join(RESETS)}."
            )
        if self.phase not in (None, *PHASES):
            raise InvalidInput(
                f"restore-reset got the phase {self.phase!r}; choose one of {', '.join(PHASES)}."
            )

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with the reset set."""
        changed, notes = {}, []
        for name in graph.of(LIF):
            before = cast(LIF, graph.nodes[name])
            after = replace(before, reset=self.reset, phase=self.phase or before.phase)
            if (before.reset, before.phase) != (after.reset, after.phase):
                changed[name] = after
                notes.append(
                    f"{name}: reset {before.reset} ({before.phase}) -> {after.reset} ({after.phase}), "
                    f"trained with reset {after.trained_reset}"
                )
        return Rewrite(graph.with_nodes(changed), notes)
