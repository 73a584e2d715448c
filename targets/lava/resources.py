"""What a graph needs of a Loihi 2 chip, against what the chip has: an estimate, with the source of every limit.

Each population (a node with a state, or a Linear that is read out) is spread over cores of its own, its neurons with
the synapses that lead to them. A core holds so many neurons that its memory, its neurons and its axons suffice:

    synapses   8 bits a weight, and 6 for a delay; a matrix is stored whole, or its nonzero weights with an index of 16
               bits, whichever is less; the kernel of a convolution once on each core
    states     32 bits for each number that a neuron keeps
    axons in   one for each number that reaches the core; axons out: one for each neuron and core that it reaches

Intel's own compiler also packs small populations onto one core and shares axons, and needs memory for programs and
routes: so this says whether a model is near a limit, and which part of it, not how it will be placed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np

from unscan.compiler.ir import Graph, Node
from unscan.compiler.nodes import Convolution, Delay, Embedding, Input, Linear, Output

WEIGHT_BITS, DELAY_BITS, INDEX_BITS, STATE_BITS = 8, 6, 16, 32
BRIEF = "Intel Labs, Taking Neuromorphic Computing to the Next Level with Loihi 2, technology brief (2021)"


@dataclass(frozen=True)
class Chip:
    """The limits of a chip, and where each is from.

    Attributes:
        name: of the chip.
        cores: on it.
        neurons: on a core.
        memory: bytes on a core, shared by synapses and states.
        axons_in: numbers that may reach a core.
        axons_out: pairs of a neuron and a core that it reaches.
        sources: limit -> where it is published.
    """

    name: str
    cores: int
    neurons: int
    memory: int
    axons_in: int
    axons_out: int
    sources: dict[str, str] = field(default_factory=dict)


LOIHI2 = Chip(
    name="Loihi 2",
    cores=128,
    neurons=8192,
    memory=192 * 1024,
    axons_in=4096,
    axons_out=4096,
    sources={
        "cores": BRIEF,
        "neurons": f"{BRIEF}: a million on a chip, 8192 on each of its 128 cores",
        "memory": f"{BRIEF}: 192 KB, divided as needed",
        "axons_in": "of Loihi 1 (MAX_IN_AXONS in nengo-loihi, block.py); none is published for Loihi 2",
        "axons_out": "of Loihi 1 (MAX_OUT_AXONS in nengo-loihi, block.py); none is published for Loihi 2",
    },
)


@dataclass(frozen=True)
class Population:
    """What one population needs.

    Attributes:
        name: its node.
        neurons: how many.
        fan_in: the most synapses that lead to one of them.
        synapses: weights that are not zero.
        synaptic_bytes: of all its weights and delays, as stored once.
        state_bytes: of what its neurons keep.
        axons_in: numbers that reach it.
        axons_out: that a full core of it needs.
        cores: that it fills.
        limit: what bounds the neurons on a core: neurons, memory or axons_out; empty where one core holds them.
        problems: why it does not fit, one clause each.
    """

    name: str
    neurons: int
    fan_in: int
    synapses: int
    synaptic_bytes: int
    state_bytes: int
    axons_in: int
    axons_out: int
    cores: int
    limit: str
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Resources:
    """What a graph needs of a chip.

    Attributes:
        chip: whose limits.
        populations: in data-flow order.
    """

    chip: Chip
    populations: tuple[Population, ...]

    @property
    def cores(self) -> int:
        """How many cores all populations fill."""
        return sum(each.cores for each in self.populations)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why the graph does not fit, one sentence each; empty where it does."""
        found = [f"{each.name}: {problem}." for each in self.populations for problem in each.problems]
        if self.cores > self.chip.cores:
            largest = max(self.populations, key=lambda each: each.cores)
            found.append(
                f"It fills {self.cores} cores and {self.chip.name} has {self.chip.cores}: "
                f"{self.cores - self.chip.cores} too many, most of them for {largest.name} ({largest.cores}, by its "
                f"{largest.limit.replace('_', ' ') or 'number'})."
            )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON: the chip with its sources, every population, sums and problems."""
        return {
            "chip": asdict(self.chip),
            "populations": [asdict(each) for each in self.populations],
            "cores": self.cores,
            "problems": list(self.problems),
        }


HEADER = (
    "population",
    "neurons",
    "fan-in",
    "synapses",
    "synaptic memory",
    "states",
    "axons in",
    "cores",
    "bound by",
)


def rows(found: Resources) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table under `HEADER`, the sum last."""
    for each in found.populations:
        yield (
            each.name,
            f"{each.neurons:,}",
            f"{each.fan_in:,}",
            f"{each.synapses:,}",
            f"{each.synaptic_bytes / 1024:,.1f} KB",
            f"{each.state_bytes / 1024:,.1f} KB",
            f"{each.axons_in:,}",
            f"{each.cores:,}",
            each.limit.replace("_", " "),
        )
    sums = [sum(getattr(each, what) for each in found.populations) for what in ("neurons", "synapses")]
    sizes = [
        sum(getattr(each, what) for each in found.populations) for what in ("synaptic_bytes", "state_bytes")
    ]
    yield (
        "all",
        f"{sums[0]:,}",
        "",
        f"{sums[1]:,}",
        *(f"{size / 1024:,.1f} KB" for size in sizes),
        "",
        f"{found.cores:,} of {found.chip.cores}",
        "",
    )


def resources(graph: Graph, chip: Chip = LOIHI2) -> Resources:
    """Return what an iterative graph needs of a chip; see the head of this file."""
    names = [name for name in graph.order if _is_population(graph, name)]
    leads = {name: _synapses(graph, name, names) for name in names}
    targets: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        for source in {source for _, source, _ in leads[name]}:
            if source in targets:
                targets[source].append(name)
    found: dict[str, Population] = {}
    placed: dict[str, int] = {}
    for name in reversed(names):
        reached = sum(placed.get(target, 1) for target in targets[name])
        found[name] = _population(graph, name, leads[name], reached, chip)
        placed[name] = found[name].cores
    return Resources(chip, tuple(found[name] for name in names))


Lead = tuple[str, str, bool]
"""A node with weights, the population or Input that feeds it, and whether what passes there is delayed."""


def _is_population(graph: Graph, name: str) -> bool:
    node = graph.nodes[name]
    if isinstance(node, Delay):
        return False
    if isinstance(node, Linear | Convolution | Embedding):
        return all(isinstance(graph.nodes[edge.target], Output) for edge in graph.out_of(name))
    return bool(node.state(graph.inputs(name)))


def _synapses(graph: Graph, name: str, populations: list[str]) -> list[Lead]:
    """Return the ways into a population: from its inputs back to the next populations, over what has no state."""
    found: list[Lead] = []
    seen: set[tuple[str, str, bool]] = set()

    def walk(at: str, weights: str, delayed: bool) -> None:
        node = graph.nodes[at]
        if (at, weights, delayed) in seen:
            return
        seen.add((at, weights, delayed))
        if isinstance(node, Input) or at in populations:
            found.append((weights, at, delayed))
            return
        mine = at if isinstance(node, Linear | Convolution | Embedding) else weights
        for edge in graph.into(at):
            walk(edge.source, mine, delayed or (isinstance(node, Delay) and node.longest > 1))

    if isinstance(graph.nodes[name], Linear | Convolution | Embedding):
        for edge in graph.into(name):
            walk(edge.source, name, False)
    else:
        for edge in graph.into(name):
            walk(edge.source, "", False)
    return found


class Stored(NamedTuple):
    """How a node's weights lie in memory: those that are not zero, the most for one output, bytes, and whether each
    core holds all of them.
    """

    nonzero: int
    most: int
    bytes: int
    shared: bool


def _stored(node: Node, neurons: int, delayed: bool) -> Stored:
    """Return how the weights of a node that leads to so many neurons are stored."""
    assert isinstance(node, Linear | Convolution | Embedding)
    each = WEIGHT_BITS + (DELAY_BITS if delayed else 0)
    nonzero = int(np.count_nonzero(node.weight))
    if isinstance(node, Embedding):
        return Stored(nonzero, len(node.weight), node.weight.size * each // 8, False)
    most = int(np.count_nonzero(node.weight.reshape(len(node.weight), -1), axis=1).max())
    size = ceil(min(node.weight.size * each, nonzero * (each + INDEX_BITS)) / 8)
    if isinstance(node, Convolution):
        return Stored(nonzero * neurons // len(node.weight), most, size, True)
    return Stored(nonzero, most, size, False)


def _population(graph: Graph, name: str, leads: list[Lead], reached: int, chip: Chip) -> Population:
    node, arriving = graph.nodes[name], graph.inputs(name)
    neurons = prod(node.membrane(arriving) or graph.signals[name].shape)
    state_bytes = sum(prod(shape) for shape in node.state(arriving).values()) * STATE_BITS // 8
    delays = {weights: delayed for weights, _, delayed in leads if weights}
    stored = [_stored(graph.nodes[weights], neurons, delayed) for weights, delayed in delays.items()]
    shared = sum(each.bytes for each in stored if each.shared)
    spread = sum(each.bytes for each in stored if not each.shared)
    axons_in = sum(prod(graph.signals[source].shape) for source in {source for _, source, _ in leads})
    one = (spread + state_bytes) / neurons
    fitting = {
        "neurons": chip.neurons,
        "memory": int((chip.memory - shared) // one) if one else neurons,
        "axons_out": chip.axons_out // reached if reached else neurons,
    }
    limit = min(fitting, key=lambda what: fitting[what])
    on_core = max(1, min(fitting[limit], neurons))
    return Population(
        name=name,
        neurons=neurons,
        fan_in=sum(each.most for each in stored),
        synapses=sum(each.nonzero for each in stored),
        synaptic_bytes=spread + shared,
        state_bytes=state_bytes,
        axons_in=axons_in,
        axons_out=on_core * reached,
        cores=ceil(neurons / on_core),
        limit=limit if on_core < neurons else "",
        problems=tuple(_problems(ceil(one + shared), reached, axons_in, chip)),
    )


def _problems(one: int, reached: int, axons_in: int, chip: Chip) -> Iterator[str]:
    """Yield why a population does not fit: what one neuron takes, the cores it reaches, and what reaches a core."""
    if one > chip.memory:
        over = one - chip.memory
        yield f"one neuron takes {one:,} bytes, and a core has {chip.memory:,}: {over:,} too many"
    if reached > chip.axons_out:
        over = reached - chip.axons_out
        yield f"each neuron reaches {reached:,} cores, and a core sends to {chip.axons_out:,}: {over:,} too many"
    if axons_in > chip.axons_in:
        over = axons_in - chip.axons_in
        yield f"{axons_in:,} numbers reach it, and {chip.axons_in:,} may reach a core: {over:,} too many"
