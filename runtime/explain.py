"""Why two executions fire differently: what each side had, which events led there, and where the first cause lies.

A neuron fires on one side alone. Either something that arrived differs: then the earliest differing spike that can have
reached it (its own included, through its reset) is looked at next, layer by layer back to one that nothing that differs
has reached. Or nothing does: then its cause is there, and it is one of three. An execution does not compute what its
graph says: the reference, given what arrived, reaches another membrane. Or the graphs are not the same there. Or
rounding decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph
from unscan.compiler.text import changes, merged
from unscan.runtime.agreement import Mismatch
from unscan.runtime.agreement_account import EVENTS, FOLLOWS, Account, account, place_of
from unscan.runtime.agreement_events import Place, reaching
from unscan.runtime.agreement_replay import Side

Cause = Literal["executor", "graph", "rounding", "unexplained"]


@dataclass(frozen=True)
class Link:
    """One neuron, at one step, that fires on one side alone.

    Attributes:
        node: its layer; `neuron` its place, `step` when.
        a: what A had.
        b: what B had.
    """

    node: str
    neuron: Place
    step: int
    a: Account
    b: Account

    def __str__(self) -> str:
        return f"step {self.step}, layer {self.node}, {place_of(self.neuron)}"

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "step": self.step,
            "layer": self.node,
            "neuron": self.neuron,
            "a": self.a.to_json(),
            "b": self.b.to_json(),
        }


@dataclass(frozen=True)
class Explanation:
    """A mismatch, traced back to its first cause.

    Attributes:
        sample: in which it lies.
        links: the mismatch, then what it came from, up to the first cause.
        cause: where the fault lies: an execution that leaves its graph, graphs that differ, rounding, or neither.
        reasons: what shows it.
        names: what A and B are called.
    """

    sample: int
    links: tuple[Link, ...]
    cause: Cause
    reasons: tuple[str, ...]
    names: tuple[str, str] = ("A", "B")

    @property
    def origin(self) -> Link:
        """The first cause."""
        return self.links[-1]

    def lines(self) -> list[str]:
        """Return lines for the terminal."""
        said = [f"Mismatch at sample {self.sample}, {self.links[0]}:"]
        for place, link in enumerate(self.links):
            if place:
                said.append(
                    f"It came from {link}, the earliest spike of one side alone that can have reached it:"
                )
            alike = link.a.events == link.b.events
            said += [f"  {line}" for line in link.a.lines(self.names[0], events=not alike)]
            said += [f"  {line}" for line in link.b.lines(self.names[1], events=not alike)]
            if alike and link.a.events:
                said += ["  The largest events, on both sides:", *(f"    {event}" for event in link.a.events)]
        said.append(f"Nothing that differs had reached {self.origin.node} by then. {self.reasons[0]}")
        return said + [f"  {reason}" for reason in self.reasons[1:]]

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON."""
        return {
            "sample": self.sample,
            "a": self.names[0],
            "b": self.names[1],
            "cause": self.cause,
            "reasons": self.reasons,
            "links": [link.to_json() for link in self.links],
        }


def explain(a: Side, b: Side, mismatch: Mismatch, *, most: int = EVENTS) -> Explanation:
    """Say what led to a mismatch of two executions, and where its first cause lies.

    Args:
        a: one side, with its graph and input, of all samples or of that of the mismatch alone.
        b: the other.
        mismatch: as `unscan.runtime.agreement.compare` gives it, or any place that fires on one side alone.
        most: how many of the largest events to keep.

    Raises:
        InvalidInput: a graph or the input is not known, the layer was not recorded, or both sides fire alike there.
    """
    for side in (a, b):
        if side.graph is None or side.x is None:
            raise InvalidInput(
                f"A mismatch is explained by what arrived at its neuron, and of {side.name or 'one side'} the graph or "
                "the input is not known; hand in both."
            )
        if mismatch.node not in side.execution.spikes:
            raise InvalidInput(
                f"Layer {mismatch.node!r} was not recorded on {side.name or 'one side'}; run it again, and record."
            )
    pair = tuple(s if s.execution.outputs.shape[1] == 1 else s.only(mismatch.sample) for s in (a, b))
    fired = [bool(s.execution.spikes[mismatch.node][mismatch.step, 0][mismatch.neuron]) for s in pair]
    if fired[0] == fired[1]:
        raise InvalidInput(
            f"Both sides {'fire' if fired[0] else 'are silent'} at step {mismatch.step}, sample {mismatch.sample}, "
            f"layer {mismatch.node}, {place_of(mismatch.neuron)}: there is no mismatch to explain."
        )
    places = [(mismatch.node, mismatch.neuron, mismatch.step)]
    common = _common(pair[0], pair[1])
    while (earlier := _earlier(pair[0], pair[1], *places[-1], common)) is not None and earlier not in places:
        places.append(earlier)
    tie = mismatch if len(places) == 1 else None
    links = tuple(Link(*place, *(account(side, *place, mismatch, most) for side in pair)) for place in places)
    cause, reasons = _cause(pair[0], pair[1], links[-1], tie, common)
    names = (a.name or "A", b.name or "B")
    return Explanation(mismatch.sample, links, cause, tuple(reasons), names)


def _common(a: Side, b: Side) -> frozenset[str]:
    """Return the layers whose spikes both sides recorded, in one shape."""
    mine, its = a.execution.spikes, b.execution.spikes
    return frozenset(name for name in mine if name in its and mine[name].shape == its[name].shape)


def _earlier(
    a: Side, b: Side, name: str, neuron: Place, step: int, common: frozenset[str]
) -> tuple[str, Place, int] | None:
    """Return the earliest spike of one side alone that can have reached a neuron; None where there is none."""
    found: list[tuple[int, int, str, Place]] = []
    before: tuple[Any, ...] = (slice(step), 0, *neuron)
    own = [side.execution.spikes[name][before] for side in (a, b)]
    for side in (a, b):
        graph = side.ran
        rank = {each: i for i, each in enumerate(graph.order)}
        if (own[0] != own[1]).any():
            found.append((int((own[0] != own[1]).argmax()), rank[name], name, neuron))
        for sender, mask, lag in reaching(graph, name, neuron, step, common):
            left_spikes, right_spikes = (s.execution.spikes[sender][: step + 1 - lag, 0] for s in (a, b))
            differs = left_spikes != right_spikes
            shape = differs.shape[1:]
            weight = mask.reshape(shape) if mask.size == np.prod(shape) else np.ones(shape)
            hit = differs & (weight > 0)
            steps = hit.reshape(len(hit), -1).any(axis=1)
            if steps.any():
                at = int(steps.argmax())
                place = np.unravel_index(int(hit[at].argmax()), shape)
                found.append((at, rank[sender], sender, tuple(map(int, place))))
    if not found:
        return None
    at, _, sender, where = min(found)
    return sender, where, at


def _cause(
    a: Side, b: Side, link: Link, mismatch: Mismatch | None, common: frozenset[str]
) -> tuple[Cause, list[str]]:
    """Return what made a neuron fire on one side alone that nothing that differs had reached."""
    off = [
        f"{side.name or name} does not compute what its graph says: from what arrived the reference reaches "
        f"{account.follows:.9g} at {link}, and it has {account.membrane:.9g} and "
        f"{'fires' if account.fired else 'does not fire'}."
        for name, side, account in (("A", a, link.a), ("B", b, link.b))
        if account.off
    ]
    if off:
        return "executor", off
    if mismatch is not None and mismatch.tie:
        return "rounding", [
            f"Rounding decides: the membranes are {mismatch.apart:.2g} apart at the threshold, and rounding explains "
            f"{mismatch.rounding:.2g}."
        ]
    differences = _differences(a.ran, b.ran, link.node, common)
    if differences:
        return "graph", [f"The graphs differ in what leads to {link.node}:", *differences]
    return "unexplained", [
        f"Both sides follow from what arrived to within {FOLLOWS:g}, the graphs are the same there, and rounding does "
        "not explain the difference: compare each with the reference at 64 bits to see which of them is off."
    ]


def _differences(a: Graph, b: Graph, name: str, common: frozenset[str]) -> list[str]:
    """Return a line for each node in which two graphs differ, between a layer and the layers before it."""
    between = _between(a, name, common) | _between(b, name, common)
    lines = []
    for each in merged(a, b):
        if each not in between:
            continue
        if each not in a.nodes or each not in b.nodes:
            holder, side = (a, "A") if each in a.nodes else (b, "B")
            lines.append(f"{each} ({type(holder.nodes[each]).__name__}) stands in {side} alone")
        elif found := "; ".join(changes(a, b, each)):
            lines.append(f"{each}: {found}")
    return lines


def _between(graph: Graph, name: str, stops: frozenset[str]) -> set[str]:
    """Return a layer, and the nodes before it up to layers that fire on both sides."""
    found, ahead = {name}, [edge.source for edge in graph.into(name)]
    while ahead:
        each = ahead.pop()
        if each not in found and each not in stops:
            found.add(each)
            ahead += [edge.source for edge in graph.into(each)]
    return found
