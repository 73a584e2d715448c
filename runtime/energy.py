"""What counted operations would cost in energy: a model, named by its table, never a measurement.

An AC is one addition, a MAC a multiplication and an addition. Memory accesses are shown apart: publications leave them
out, and a deployment pays for them. Beside everything stands the dense network for the same work, and the rate of
spikes at which there would be nothing left to win.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any

from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Convolution, Linear
from unscan.runtime.costs import Operations, fan_out
from unscan.runtime.counts import Counts
from unscan.runtime.energy_choice import Choice, table_for
from unscan.runtime.energy_tables import DEFAULT, TABLES, Table, find


@dataclass(frozen=True)
class Energy:
    """Modelled energy in joules.

    Attributes:
        table: name of the table.
        synaptic: ACs and MACs.
        updates: state updates, and those of whole neurons where the table prices them.
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
    def of(cls, counts: Counts | Operations, table: str | Table | None = None) -> Energy:
        """Model the energy of counted operations.

        Args:
            counts: what was done.
            table: a table, its name, or the path of a YAML file that holds one. Where None, the one of the graph's own
                numbers (`table_for`), and the default for operations of which no graph is known.

        Raises:
            InvalidInput: there is no such table, or it has no price for an update that was counted.
        """
        cost = priced(counts, table)
        done = counts.total if isinstance(counts, Counts) else counts
        updates = sum(n * cost.update(kind) for kind, n in done.updates.items() if n)
        reads = done.weight_reads + done.state_reads
        return cls(
            table=cost.name,
            synaptic=(done.acs * cost.add + done.macs * cost.mac) * 1e-12,
            updates=(updates + done.neurons * cost.neuron) * 1e-12,
            memory=(reads * cost.memory + done.state_writes * cost.store) * 1e-12,
            dense=done.dense_macs * cost.mac * 1e-12,
            dense_memory=done.dense_macs * cost.memory * 1e-12,
        )

    @property
    def compute(self) -> float:
        """Synaptic operations and updates, without memory access."""
        return self.synaptic + self.updates

    @property
    def total(self) -> float:
        """Synaptic operations, updates and memory together."""
        return self.compute + self.memory

    @property
    def dense_total(self) -> float:
        """The dense network's MACs and weight reads."""
        return self.dense + self.dense_memory

    def to_json(self) -> Mapping[str, Any]:
        """Return the numbers as JSON, in joules."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {"total": self.total}


@dataclass(frozen=True)
class BreakEven:
    """The mean rate at the inputs of weights at which sparse costs as much as dense; above it, dense is cheaper.

    A rate above 1 says that no rate of spikes makes it dearer than dense; one of 0, that every rate does.

    Attributes:
        rate: events per input and step, as they were counted.
        compute: the rate of break-even without memory access.
        memory: that with it.
    """

    rate: float
    compute: float
    memory: float

    def to_json(self) -> dict[str, float | None]:
        """Return the rates as JSON; None where nothing is sent that costs something."""
        return {
            name: None if (rate := getattr(self, name)) == inf else rate for name in self.__dataclass_fields__
        }


def priced(counts: Counts | Operations, table: str | Table | None) -> Table:
    """Return the table that was named, or the one that belongs to what was counted."""
    if isinstance(table, Table):
        return table
    if isinstance(counts, Counts):
        return table_for(counts.graph, table).table
    return find(table or DEFAULT)


def break_even(counts: Counts, table: str | Table | None = None) -> tuple[dict[str, BreakEven], BreakEven]:
    """Return the break-even rate of each Linear and convolution, and of the whole network.

    Of a node: an event costs its AC (MAC where it carries a number) and weight read for each of the n weights that it
    meets on average, so r = dense / (n x inputs x steps x samples x price). Of the network the rate is how often an
    event meets a nonzero weight, on average over all of them; all rates grow alike, and beside them stand the updates,
    biases and state accesses that were counted, which are paid whatever fires:
    r = rate x (dense - paid) / (what the events cost).

    Raises:
        InvalidInput: there is no such table, or it has no price for an update that was counted.
    """
    cost = priced(counts, table)
    graph, turns = counts.graph, counts.steps * counts.samples
    found: dict[str, BreakEven] = {}
    ways = met = 0
    prices = {"compute": 0.0, "memory": 0.0}
    for name in graph.of(Linear, Convolution):
        node, done = graph.nodes[name], counts.by_node[name]
        assert isinstance(node, Linear | Convolution)
        sources = [graph.signals[edge.source] for edge in graph.into(name)]
        weights = [(int(fan_out(node, signal.shape).sum()), signal) for signal in sources]
        width = sum(fan_out(node, signal.shape).size for signal in sources)
        compute = sum(n * (cost.add if signal.kind is Kind.SPIKE else cost.mac) for n, signal in weights)
        memory = compute + sum(n for n, _ in weights) * cost.memory
        dense = done.dense_macs / turns
        found[name] = BreakEven(
            rate=done.events_in / (width * turns),
            compute=ratio(dense * cost.mac, compute),
            memory=ratio(dense * (cost.mac + cost.memory), memory),
        )
        ways, met = ways + sum(n for n, _ in weights) * turns, met + done.acs + done.macs
        spent = done.acs * cost.add + done.macs * cost.mac
        prices["compute"] += spent
        prices["memory"] += spent + (done.acs + done.macs) * cost.memory
    energy = Energy.of(counts, cost)
    rate = ratio(met, ways)
    paid = energy.total * 1e12 - prices["memory"]
    return found, BreakEven(
        rate=rate,
        compute=max(0.0, ratio(rate * (energy.dense - energy.updates) * 1e12, prices["compute"])),
        memory=max(0.0, ratio(rate * (energy.dense_total * 1e12 - paid), prices["memory"])),
    )


def ratio(a: float, b: float) -> float:
    """Return a / b, and infinity where b is 0."""
    return a / b if b else inf


__all__ = [
    "DEFAULT",
    "TABLES",
    "BreakEven",
    "Choice",
    "Energy",
    "Table",
    "break_even",
    "find",
    "table_for",
]
