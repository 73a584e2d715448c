"""Set the reset that the neurons are deployed with.

A reset-free model is trained by convolution; hardware neurons reset. Restoring the reset changes the model: the note
says which neurons are deployed with another reset than they were trained with, `trained_reset` keeps it in the file,
and `unscan verify` measures the gap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import singledispatchmethod
from typing import ClassVar

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph, Node
from unscan.compiler.nodes import LIF, RESETTING, AdaptiveLIF, CubaLIF, StoredMemory
from unscan.compiler.nodes.neurons import PHASES, RESETS, Phase, Reset
from unscan.compiler.passes.base import Pass, Rewrite


@dataclass(frozen=True)
class RestoreReset(Pass):
    """Give every LIF, CubaLIF and AdaptiveLIF one reset (none, subtract, zero) and, where named, one phase (now, next).

    Options: `reset`, None leaves it. `phase`, None leaves it; an AdaptiveLIF knows the phase now alone and stays at it,
    which the note says. `memories`, the reset of the matrix memories on S, at once, None leaves it: nothing but this
    option ever gives them one, as no memory is trained with a reset.

    Given: iterative nodes. Result: every such neuron has this reset. Preserves: everything where it is the reset that
    the model was trained with; else it changes spikes, by an amount that only a run on data can say.

    Raises:
        InvalidInput: a reset or phase that does not exist.
    """

    name: ClassVar[str] = "restore-reset"
    changes: ClassVar[bool] = True
    reset: Reset | None = "zero"
    phase: Phase | None = None
    memories: Reset | None = None

    def __post_init__(self) -> None:
        for option in ("reset", "memories"):
            if getattr(self, option) not in (None, *RESETS):
                raise InvalidInput(
                    f"restore-reset got {option} {getattr(self, option)!r}; choose one of {', '.join(RESETS)}."
                )
        if self.phase not in (None, *PHASES):
            raise InvalidInput(
                f"restore-reset got the phase {self.phase!r}; choose one of {', '.join(PHASES)}."
            )

    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the graph with the reset set."""
        changed, notes = {}, []
        for name in graph.of(*RESETTING):
            before = graph.nodes[name]
            after, change = self.restored(before)
            if change:
                changed[name] = after
                notes.append(f"{name}: {change}")
        return Rewrite(graph.with_nodes(changed), notes)

    @singledispatchmethod
    def restored(self, node: Node) -> tuple[Node, str]:
        """Return a node as it is deployed, and what changed ("" where nothing did)."""
        raise TypeError(f"{type(node).__name__} has no reset.")

    @restored.register(LIF)
    @restored.register(CubaLIF)
    def _(self, node: LIF | CubaLIF) -> tuple[Node, str]:
        after = replace(node, reset=self.reset or node.reset, phase=self.phase or node.phase)
        if (node.reset, node.phase) == (after.reset, after.phase):
            return node, ""
        return after, (
            f"reset {node.reset} ({node.phase}) -> {after.reset} ({after.phase}), trained with reset "
            f"{after.trained_reset}"
        )

    @restored.register
    def _(self, node: AdaptiveLIF) -> tuple[Node, str]:
        after = replace(node, reset=self.reset or node.reset)
        clauses = []
        if node.reset != after.reset:
            clauses.append(f"reset {node.reset} -> {after.reset}, trained with reset {after.trained_reset}")
        if self.phase == "next":
            clauses.append("the phase stays now, the only one of an AdaptiveLIF")
        return after, "; ".join(clauses)

    @restored.register
    def _(self, node: StoredMemory) -> tuple[Node, str]:
        after = replace(node, reset=self.memories or node.reset)
        if node.reset == after.reset:
            return node, ""
        return after, f"reset of S {node.reset} -> {after.reset}, trained with reset {after.trained_reset}"
