"""What one side of a comparison had at a neuron and step: membrane, threshold, state, and the events that made it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from unscan.compiler.ir import Array
from unscan.compiler.nodes import IntegerMemory, Memory
from unscan.runtime.agreement import Mismatch, finite
from unscan.runtime.agreement_events import Own, Place, feeding, largest, left
from unscan.runtime.agreement_replay import Replay, Side
from unscan.runtime.quantisation import EXACT
from unscan.runtime.rounding import Past, threshold

EVENTS = 5
"""How many of the largest events are kept of each side."""
FOLLOWS = 1e-4
"""A membrane that is farther, relatively, from what the reference makes of what arrived, does not follow from it."""
FOLLOWS_EXACTLY = 1e-9
"""The same where the execution computed in float64, and only the order of its sums was another."""


@dataclass(frozen=True)
class Event:
    """Something that arrived at a neuron.

    Attributes:
        step: when.
        sender: the node that sent it, and `place`, which of its numbers.
        value: 1 of a spike.
        weight: what 1 of it adds.
        left: what is left of value times weight in the membrane that is explained.
    """

    step: int
    sender: str
    place: Place
    value: float
    weight: float
    left: float

    def __str__(self) -> str:
        return (
            f"step {self.step}, {self.sender} {place_of(self.place)}: {self.value:g} times {self.weight:.6g}, of which "
            f"{self.left:.6g} is left"
        )


@dataclass(frozen=True)
class Account:
    """What one side had at a neuron and step.

    The membrane is what is left of all events, of what arrives at every step, and of resets, and `rest`: numbers that
    are rounded, a state that the run began with, or what the execution did otherwise.

    Attributes:
        fired: whether it did.
        membrane: as recorded, before the reset; nan where it was not.
        threshold: that it was compared with.
        follows: the membrane that the reference reaches from what arrived.
        state: what the neuron kept before the step, in the reference.
        arrived: how many numbers that are not 0 arrived through a weight, up to the step.
        events: the largest of them, by what is left.
        from_events: what is left of all of them.
        constant: what is left of what arrives, or is added, at every step.
        resets: what is left of what its resets took off.
        off: whether membrane or spike do not follow from what arrived.
    """

    fired: bool
    membrane: float
    threshold: float
    follows: float
    state: dict[str, float | list[float]]
    arrived: int
    events: tuple[Event, ...]
    from_events: float
    constant: float
    resets: float
    off: bool = False

    @property
    def rest(self) -> float:
        """What the account does not cover."""
        reached = self.follows if self.membrane != self.membrane else self.membrane
        return reached - self.from_events - self.constant - self.resets

    def lines(self, name: str, *, events: bool = True) -> Iterator[str]:
        """Yield lines for the terminal; `events` adds one for each of the largest."""
        reached = (
            f"{self.membrane:.9g}"
            if self.membrane == self.membrane
            else f"unknown (reference {self.follows:.9g})"
        )
        kept = ", ".join(f"{key} {_numbers(value)}" for key, value in self.state.items())
        yield (
            f"{name} {'fires' if self.fired else 'does not fire'}: membrane {reached}, threshold {self.threshold:g}"
            f"{f', from the state {kept}' if kept else ''}"
        )
        yield (
            f"  {self.arrived:,} events left {self.from_events:.6g}, what comes at every step {self.constant:.6g}, "
            f"resets {self.resets:.6g}, the rest is {self.rest:.2g}"
        )
        yield from (f"  {event}" for event in self.events if events)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        numbers = {name: getattr(self, name) for name in (*self.__dataclass_fields__, "rest")}
        return finite(numbers | {"events": [vars(event) for event in self.events]})


def account(side: Side, name: str, neuron: Place, step: int, mismatch: Mismatch, most: int) -> Account:
    """Return what one side had at a neuron and step."""
    graph, execution = side.ran, side.execution
    node: Any = graph.nodes[name]
    replay = Replay(graph, side, 0, step + 1)
    followed = replay.follow(name)
    shape = followed.membranes.shape[1:]
    until: tuple[Any, ...] = (slice(step + 1), 0)
    spikes = execution.spikes[name][until]
    recorded = execution.membranes[name][until].astype(np.float64) if name in execution.membranes else None
    past = Past(np.abs(followed.membranes), spikes, tuple(np.array([i]) for i in neuron), None, 0)
    level = float(threshold(node, past)[0])
    ever: tuple[Any, ...] = (slice(None), *neuron)
    own = Own(neuron, shape, spikes[ever].astype(np.float64))
    reached = followed.membranes if recorded is None else recorded
    made = _written if isinstance(node, Memory | IntegerMemory) else _arrived
    sent, constant, resets = made(replay, name, own, reached[ever])
    kept = [
        Event(s, sender, place, *(float(each[(s, *place)]) for each in sent[sender]))
        for sender, s, place in largest({sender: each.left for sender, each in sent.items()}, most)
    ]
    membrane = float("nan") if recorded is None else float(recorded[(-1, *neuron)])
    follows, fired = float(followed.membranes[(-1, *neuron)]), bool(own.fired[-1])
    found = Account(
        fired=fired,
        membrane=membrane,
        threshold=level,
        follows=follows,
        state=dict(_state(followed.state, shape, neuron)),
        arrived=sum(int(np.count_nonzero((each.value != 0) & (each.weight != 0))) for each in sent.values()),
        events=tuple(kept),
        from_events=float(sum(each.left.sum() for each in sent.values())),
        constant=constant,
        resets=resets,
    )
    return replace(found, off=_is_off(found, side, node, mismatch))


class Sent(NamedTuple):
    """What a sender sent, what 1 of it adds, and what is left of the two, each (t + 1, ...)."""

    value: Array
    weight: Array
    left: Array


class Made(NamedTuple):
    """What a membrane is made of: what senders sent, and what is left of constants and of resets."""

    sent: dict[str, Sent]
    constant: float
    resets: float


def _arrived(replay: Replay, name: str, own: Own, reached: Array) -> Made:
    """Return what the membrane of a neuron with one input is made of."""
    graph = replay.graph
    fed = feeding(graph, name, "x", own.neuron)
    kept = left(graph.nodes[name], own)
    found = {}
    for sender, weights in fed.weights.items():
        value = replay.sent(sender)
        after = kept.arrived.reshape(-1, *(1,) * weights.ndim)
        found[sender] = Sent(value, np.broadcast_to(weights, value.shape), value * weights * after)
    return Made(found, fed.constant * float(kept.arrived.sum()) + kept.added, kept.resets)


def _written(replay: Replay, name: str, own: Own, reached: Array) -> Made:
    """Return the writes of an entry of a memory: by how much each step changed it beside its decay and its reset."""
    node: Any = replay.graph.nodes[name]
    alpha = replay.arriving(name)["alpha"]
    decay = alpha[:, own.neuron[1] if alpha.shape[1] > 1 else 0]
    if isinstance(node, IntegerMemory):
        decay = decay / 2.0**node.decay_bits
    theta = own.of(node.threshold)
    taken = theta * own.fired if node.reset == "subtract" else reached * own.fired * (node.reset == "zero")
    writes = reached.copy()
    writes[1:] -= decay[1:] * (reached - taken)[:-1]
    after = np.ones_like(writes)
    survives = 1.0 - own.fired[:-1] * (node.reset == "zero")
    after[:-1] = np.cumprod((decay[1:] * survives)[::-1])[::-1]
    resets = -theta * float(after[:-1] @ own.fired[:-1]) if node.reset == "subtract" else 0.0
    each = Sent(writes[:, None], np.ones((len(writes), 1)), (writes * after)[:, None])
    return Made({"what was written": each}, 0.0, resets)


def _state(state: Any, shape: tuple[int, ...], neuron: Place) -> Iterator[tuple[str, float | list[float]]]:
    """Yield what one neuron kept."""
    for key, value in state.items():
        if value.shape == shape:
            yield key, float(value[neuron])
        elif value.shape[1:] == shape:
            yield key, [float(number) for number in value[(slice(None), *neuron)]]
        else:  # the accumulators of a memory: one for each column, or one
            yield key, float(value[neuron[-1] if len(value) > 1 else 0])


def _is_off(found: Account, side: Side, node: Any, mismatch: Mismatch) -> bool:
    """Say whether membrane or spike do not follow from what arrived, by more than rounding makes of it.

    A neuron may have fired otherwise than in the reference before, at a tie: then its membrane follows as far as events
    and the resets of its own spikes account for it.
    """
    level, reached = found.threshold, found.follows if np.isnan(found.membrane) else found.membrane
    units = level / mismatch.threshold if mismatch.threshold > 0 else 1.0
    relative = EXACT.least if side.ran.integer else FOLLOWS_EXACTLY if side.exact else FOLLOWS
    granted = max(mismatch.rounding * units, relative * max(abs(found.follows), abs(level)))
    fires = reached >= level if getattr(node, "fires", ">") == ">=" else reached > level
    if fires != found.fired and abs(reached - level) > granted:
        return True
    apart = abs(reached - found.follows)
    accounted = np.inf if isinstance(node, Memory | IntegerMemory) else abs(found.rest)
    return bool(min(apart, accounted) > granted)


def place_of(place: Place) -> str:
    """Return a neuron's place as text."""
    return f"neuron {place[0] if len(place) == 1 else place}"


def _numbers(value: float | list[float]) -> str:
    return " ".join(f"{number:.6g}" for number in ([value] if isinstance(value, float) else value))
