"""Which energy table a graph is costed with where nobody names one: that of the numbers it computes with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Convolution, Linear
from unscan.runtime.counts import updating
from unscan.runtime.energy_tables import DEFAULT, TABLES, Table, find

NARROW, WIDE = "horowitz-45nm-int8", "horowitz-45nm-int32"
"""The tables of whole numbers: where weights have at most 8 bits, and where some have more."""


@dataclass(frozen=True)
class Choice:
    """A table, and why it is this one."""

    table: Table
    why: str

    def __str__(self) -> str:
        """Say both in one sentence."""
        return f"Energies are modelled with {self.table.name}: {self.why}."


def table_for(graph: Graph, asked: str | None = None) -> Choice:
    """Return the table that a graph is costed with.

    The one that was asked for. Else that of 32-bit floating point for real numbers; for whole ones that of 8 bits where
    every weight fits in them, and else that of 32. Both price states as they price weights.

    Args:
        graph: any graph.
        asked: a table's name, or the path of a YAML file that holds one.

    Raises:
        InvalidInput: there is no such table, or it lacks prices of updates that the graph makes.
    """
    if asked is not None:
        named = find(asked)
        check_prices(named, graph)
        wrong = graph.integer and "float" in named.name
        return Choice(
            named, "it was asked for" + (", though the graph computes with whole numbers" if wrong else "")
        )
    if not graph.integer:
        return Choice(TABLES[DEFAULT], "the graph computes with real numbers")
    states = max((int(getattr(node, "bits", 0)) for node in graph.nodes.values()), default=0)
    weights = [weight_bits(matrix) for matrix in matrices(graph)]
    widest, what = (max(weights), "weight") if weights else (states, "state")
    if widest > 8:
        why = f"the graph computes with whole numbers, and a {what} needs up to {widest} bits"
        return Choice(TABLES[WIDE], why)
    why = f"the graph computes with whole numbers, and every {what} fits in 8 bits"
    if states > 8:
        why += (
            f"; its states and signals, which have up to {states}, are priced as 8 bits too, and {WIDE} prices all "
            "numbers as 32"
        )
    return Choice(TABLES[NARROW], why)


def check_prices(table: Table, graph: Graph) -> None:
    """Check that a table prices every kind of update that a graph can make.

    Raises:
        InvalidInput: it does not; the message names the kinds, and a node that makes each.
    """
    if table.updates is None:
        return
    try:
        made = updating(graph)
    except Unsupported:
        return  # nothing is counted of such a graph, and who is to run it says why
    lacking = [f"{kind} ({nodes[0]})" for kind, nodes in made.items() if kind not in table.updates]
    if lacking:
        raise InvalidInput(
            f"The energy table {table.name!r} has no price for updates of kinds that this graph makes: "
            f"{', '.join(lacking)}; it prices {', '.join(table.updates) or 'none'}. Take another table, or a YAML file "
            "whose updates have all of these kinds, or that has no updates: then each is priced as the multiplication, "
            "addition or both that it is."
        )


def matrices(graph: Graph) -> list[Array]:
    """Return the weights that events of a graph meet."""
    nodes = (graph.nodes[name] for name in graph.of(Linear, Convolution))
    return [node.weight for node in nodes if isinstance(node, Linear | Convolution)]


def weight_bits(weight: Array) -> int:
    """Return the bits that whole-number weights need.

    A power of two that all of them share is a shift of their sum and needs none, and neither does the sign of weights
    of which none is negative.
    """
    numbers = np.asarray(weight).astype(np.int64).ravel()
    shared = int(np.bitwise_or.reduce(np.abs(numbers)))
    if not shared:
        return 1
    low, high = int(numbers.min()), int(numbers.max())
    shift = (shared & -shared).bit_length() - 1
    signed = low < 0
    return max(high >> shift, (-low >> shift) - 1 if signed else 0).bit_length() + signed
