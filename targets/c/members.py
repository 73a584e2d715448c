"""What a model in C holds: tables in flash, members of its state struct, and what stands where."""

from __future__ import annotations

from dataclasses import dataclass

from unscan.compiler.ir import Array
from unscan.targets.c.values import BYTES

STATE, WORK, RECORD = "state", "work", "record"


@dataclass(frozen=True)
class Constant:
    """A table in flash: `values` of a type, for a node."""

    name: str
    type: str
    values: Array
    node: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return BYTES[self.type] * self.values.size


@dataclass
class Field:
    """A member of the state struct: `count` numbers of a type (one that is no array where 0), for a node.

    role: "state" is what a node keeps between steps, "work" is of use within a step alone, "record" what an execution
    records.
    """

    name: str
    type: str
    count: int
    node: str
    role: str

    @property
    def bytes(self) -> int:
        """Its size."""
        return BYTES[self.type] * max(self.count, 1)


@dataclass(frozen=True)
class Kept:
    """Where a state of the graph stands in the struct.

    key: `node.state`. head: the member that says which row of a ring is the newest, for a state of several rows.
    """

    key: str
    field: str
    shape: tuple[int, ...]
    head: str | None = None


@dataclass(frozen=True)
class Recorded:
    """Where a recording step leaves the spikes or membranes of a node."""

    node: str
    what: str
    field: str
    shape: tuple[int, ...]
