"""What counted operations would cost in energy: a model, named by its table, never a measurement.

Horowitz, "Computing's energy problem (and what we can do about it)", ISSCC 2014, 45 nm, 0.9 V. An AC is one
addition, a MAC a multiplication and an addition. Reads and writes of weights and states are taken from an
8 KB SRAM (5 pJ for 32 bits; for 16 and 8 bits in proportion, which is our assumption), and shown apart:
publications leave them out, and a deployment pays for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unscan.compiler.errors import InvalidInput
from unscan.runtime.costs import Operations
from unscan.runtime.counts import Counts


@dataclass(frozen=True)
class Table:
    """Picojoules per operation in one number format."""

    name: str
    add: float
    multiply: float
    memory: float

    @property
    def mac(self) -> float:
        """One multiplication and one addition."""
        return self.multiply + self.add

    def update(self, kind: str) -> float:
        """Energy of one state update of a kind, in pJ."""
        return {
            "decay": self.multiply,
            "scale": self.multiply,
            "rescale": self.multiply,
            "product": self.multiply,
            "activation": self.multiply,
            "norm": self.mac,
            "ssm": self.mac,
            "adapt": self.mac,
            "write": self.mac,
            "erase": self.mac,
        }.get(kind, self.add)


TABLES = {
    table.name: table
    for table in (
        Table("horowitz-45nm-float32", add=0.9, multiply=3.7, memory=5.0),
        Table("horowitz-45nm-float16", add=0.4, multiply=1.1, memory=2.5),
        Table("horowitz-45nm-int32", add=0.1, multiply=3.1, memory=5.0),
        Table("horowitz-45nm-int8", add=0.03, multiply=0.2, memory=1.25),
    )
}
DEFAULT = "horowitz-45nm-float32"


def find(name: str) -> Table:
    """Return the table of a name. Raises InvalidInput where there is none, listing those there are."""
    if name not in TABLES:
        raise InvalidInput(f"There is no energy table {name!r}; choose one of {', '.join(TABLES)}.")
    return TABLES[name]


@dataclass(frozen=True)
class Energy:
    """Modelled energy in joules.

    Attributes:
        table: name of the table.
        synaptic: ACs and MACs.
        updates: state updates.
        memory: reads of weights, reads and writes of states.
        dense: the MACs of the dense network for the same work, without memory.
        dense_memory: the weight reads of those MACs.
    """

    table: str
    synaptic: float
    updates: float
    memory: float
    dense: float
    dense_memory: float

    @classmethod
    def of(cls, counts: Counts | Operations, table: str = DEFAULT) -> Energy:
        """Model the energy of counted operations with a table by name. Raises InvalidInput where there is none."""
        cost = find(table)
        done = counts.total if isinstance(counts, Counts) else counts
        return cls(
            table=table,
            synaptic=(done.acs * cost.add + done.macs * cost.mac) * 1e-12,
            updates=sum(n * cost.update(kind) for kind, n in done.updates.items()) * 1e-12,
            memory=(done.weight_reads + done.state_accesses) * cost.memory * 1e-12,
            dense=done.dense_macs * cost.mac * 1e-12,
            dense_memory=done.dense_macs * cost.memory * 1e-12,
        )

    @property
    def total(self) -> float:
        """Synaptic operations, updates and memory together."""
        return self.synaptic + self.updates + self.memory

    def to_json(self) -> Mapping[str, Any]:
        """Return the numbers as JSON, in joules."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"total": self.total}
