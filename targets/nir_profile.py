"""A profile: for which frameworks a NIR file is written, what they can read, and what the file changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from unscan.compiler.ir import Array, Node

if TYPE_CHECKING:
    from unscan.targets.nir_encoding import Encoding

DT = 1e-4
"""Seconds per step, unless a profile says otherwise: what snnTorch, SpikingJelly and nirtorch's users assume."""
ChangeKind = Literal["scaled", "late", "several", "ordered", "clipped"]
"""scaled: a neuron's numbers are in other units, and its spikes are the same. late: its spikes leave one step later.
several: it may fire more than once in a step. ordered: the axes of its signal stand in another order. clipped: its
membrane has a least value."""


@dataclass(frozen=True)
class Change:
    """What a file does otherwise than its graph: at which node, of which kind, and in words."""

    node: str
    kind: ChangeKind
    text: str

    def __str__(self) -> str:
        return f"{self.node}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One way to write NIR.

    Attributes:
        name: as the command line takes it.
        proven: the frameworks, with their versions, whose spikes our tests hold against the reference.
        summary: one line that says what the file is.
        emit: the rule of each node: (node, encoding, name, the primitive that feeds it) -> the primitive it leaves.
        fire: writes a threshold of those levels behind a primitive.
        dt: seconds per step.
        fires: whether a tie of voltage and v_threshold fires in the framework.
        each: which parameters of a neuron may differ within a layer.
        unit_gain: r = tau / dt is read as the gain 1. Where it is not, r is 1 and the threshold holds the gain.
        joins: several signals may meet in a node; if not, `joins_wrongly` names who runs that wrongly.
        ways_back: a Delay that closes a loop is an edge back; if not, it is a Delay there, too.
        sums: a way back meets the way forward in a primitive of its own.
        linear: the framework knows Linear; if not, every matrix is an Affine.
        conv1d: the framework knows Conv1d.
        without: fields that are left out of the file, as the framework's reader fails on them.
    """

    name: str
    proven: tuple[str, ...]
    summary: str
    emit: Callable[[Node, Encoding, str, str], str]
    fire: Callable[[Encoding, str, Array, str], str]
    dt: float = DT
    fires: Literal[">", ">="] = ">"
    each: frozenset[str] = frozenset()
    unit_gain: bool = False
    joins: bool = False
    joins_wrongly: str = "norse"
    ways_back: bool = True
    sums: bool = True
    linear: bool = True
    conv1d: bool = False
    without: tuple[str, ...] = ()

    def spread(self, parameter: str, value: Any) -> bool:
        """Say whether a parameter differs within a layer although this profile has one for all of it."""
        return parameter not in self.each and bool((value != value.flat[0]).any())
