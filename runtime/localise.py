"""Which layer of a model leaves its own recurrence, where, and why.

A parallel form (a scan, a convolution) is right as far as it equals its recurrence. So the trained model runs once by
itself, and what every parallel layer got and gave is recorded. Then each layer's recurrence alone, in float64, runs
over what the layer got. A layer that leaves it is at fault itself: what other layers did is in its input already.

A layer leaves its recurrence at the first step at which a membrane (or what it sends, where its membranes cannot be
heard) differs by more than `TOLERANCE` of the largest that this neuron reaches, or of its threshold where that is more.
Rounding stays far below: in float32 it is 2^-24 of a membrane at each step.

An associative scan may divide what is written by the running product P_t of the decays, so that one cumulative sum
serves all steps: S_t = P_t sum_s v_s k_s / P_s. P_t falls geometrically and underflows; snnTorch 1.0.0 adds 1e-8 to it,
which drowns what is written as soon as P_t is not far larger. Where a memory leaves its recurrence the product of its
column is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from unscan.compiler.ir import Array, Dialect, Edge, Graph, Node
from unscan.compiler.nodes import NODES, Input, Memory, Output
from unscan.runtime.doubled import doubled
from unscan.runtime.executors.reference import Reference

if TYPE_CHECKING:
    from torch import nn

TOLERANCE = 1e-4
UNDERFLOW = 1e-8
SAMPLES = 8
"""How many samples are looked at."""


@dataclass(frozen=True)
class Departure:
    """Where a layer leaves its recurrence.

    Attributes:
        layer: its name, and `operator`, its class in the traced graph.
        what: "membrane", or "output" where the membranes cannot be heard.
        step: the first step at which it does; sample and neuron (row and column of a memory) are those that differ
            most then.
        found: what the model has there.
        wanted: what the recurrence has there.
        largest: the largest difference of all, at the step `largest_step`.
        share: share of all numbers of this layer that differ by more than the tolerance.
        spikes: how many of its spikes differ, the first of them at the step `spike_step` (None where none does).
        precision: bits of the number format in which the model ran.
        cause: what explains it; "" where nothing is known.
    """

    layer: str
    operator: str
    what: str
    step: int
    sample: int
    neuron: tuple[int, ...]
    found: float
    wanted: float
    largest: float
    largest_step: int
    share: float
    spikes: int
    spike_step: int | None
    precision: int
    cause: str

    def __str__(self) -> str:
        place = f"neuron {self.neuron[0] if len(self.neuron) == 1 else self.neuron}"
        if self.what == "membrane" and issubclass(NODES[self.operator], Memory):
            place = f"row {self.neuron[0]}, column {self.neuron[1]}"
        fired = f", {self.spikes:,} spikes from step {self.spike_step} on" if self.spikes else ", no spike"
        return (
            f"{self.layer} ({self.operator}) leaves its own recurrence at step {self.step}, sample {self.sample}, "
            f"{place}: its {self.what} is {self.found:.7g} where the recurrence has {self.wanted:.7g}; the largest "
            f"difference is {self.largest:.3g}, at step {self.largest_step}, and {self.share:.2%} of its numbers "
            f"differ{fired}, at {self.precision} bits{f'. {self.cause}' if self.cause else ''}"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(frozen=True)
class Localisation:
    """What `localise` found.

    Attributes:
        departures: the layers that leave their recurrence, in data-flow order: the first is where to look.
        kept: the layers that keep to it.
        unheard: the layers of which no input and output could be recorded.
        reason: why nothing could be looked for; "" where it could.
    """

    departures: tuple[Departure, ...]
    kept: tuple[str, ...]
    unheard: tuple[str, ...] = ()
    reason: str = ""

    @property
    def first(self) -> Departure | None:
        """The first layer that leaves its recurrence."""
        return self.departures[0] if self.departures else None

    def to_json(self) -> dict[str, Any]:
        """Return the findings as JSON."""
        return {
            "departures": [departure.to_json() for departure in self.departures],
            "kept": self.kept,
            "unheard": self.unheard,
            "reason": self.reason,
        }


def localise(model: nn.Module, traced: Graph, x: Array, samples: Sequence[int] | None = None) -> Localisation:
    """Run a trained model, and hold every parallel layer against its own recurrence.

    Args:
        model: the torch module; it is run as it is, and in float64.
        traced: the graph that was read from it, before any pass: its parallel nodes are named as the model's layers.
        x: input (T, B, ...).
        samples: those to look at; None takes the first `SAMPLES`.
    """
    chosen = list(range(min(SAMPLES, x.shape[1]))) if samples is None else list(samples)
    found = Localisation((), ())
    for bits in (64, 32):
        module = doubled(model) if bits == 64 else model
        found = held(module, traced, x[:, chosen], chosen, bits)
        if found.departures:
            break
    return found


def held(model: nn.Module, traced: Graph, x: Array, samples: list[int], bits: int) -> Localisation:
    """Hold a model in one number format against the recurrences of its parallel layers."""
    layers = [name for name in traced.order if traced.nodes[name].dialect is Dialect.PARALLEL]
    recorded = heard(model, traced, layers, x)
    departures, kept, unheard = [], [], []
    for name in layers:
        recurrence = alone(traced, name)
        if name not in recorded or recurrence is None or not recorded[name].fits(recurrence, x):
            unheard.append(name)
            continue
        departure = held_layer(name, traced.nodes[name], recurrence, recorded[name], samples, bits)
        if departure is None:
            kept.append(name)
        else:
            departures.append(departure)
    return Localisation(tuple(departures), tuple(kept), tuple(unheard))


@dataclass
class Heard:
    """What a layer got and gave in the model's own run, each (T, B, ...)."""

    given: Array
    output: Array
    membrane: Array | None = None

    def fits(self, recurrence: Graph, x: Array) -> bool:
        """Say whether what it got is a sequence of what its recurrence takes."""
        shape = recurrence.signals["input"].shape
        return self.given.shape == (*x.shape[:2], *shape) and bool(np.isfinite(self.given).all())


def heard(model: nn.Module, traced: Graph, layers: Sequence[str], x: Array) -> dict[str, Heard]:
    """Run a model, and return what went into and came out of its layers that are called once."""
    from unscan.runtime.executors.model import Calls, Model, listening

    runner = Model(model, traced)
    modules = dict(runner.module.named_modules())
    inputs: dict[str, list[Array]] = {name: [] for name in layers if name in modules}
    gave: dict[str, Calls] = {name: [] for name in inputs}
    with ExitStack() as stack:
        for name in inputs:
            stack.enter_context(listening(modules[name], gave[name]))
            stack.enter_context(receiving(modules[name], inputs[name]))
        runner.run(x, record=False)
    once = [name for name in inputs if len(inputs[name]) == len(gave[name]) == 1]
    return {name: Heard(inputs[name][0], *gave[name][0]) for name in once}


@contextmanager
def receiving(module: nn.Module, inputs: list[Array]) -> Iterator[None]:
    """Note the first argument of every call of a module, while the context lasts."""

    def called(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        inputs.append(arguments[0].detach().cpu().numpy() if arguments else np.empty(0))

    handle = module.register_forward_pre_hook(called)
    try:
        yield
    finally:
        handle.remove()


def alone(graph: Graph, name: str) -> Graph | None:
    """Return the sub-graph of one layer, the nodes `name` and `name.*`, fed by an Input; None where several feed it."""
    inner = {node for node in graph.nodes if node == name or node.startswith(f"{name}.")}
    entering = [edge for edge in graph.edges if edge.target in inner and edge.source not in inner]
    ports = {(edge.target, edge.port) for edge in entering}
    feeding = {port: {edge.source for edge in entering if (edge.target, edge.port) == port} for port in ports}
    leaving = {edge.source for edge in graph.edges if edge.source in inner and edge.target not in inner}
    if not ports or len({frozenset(sources) for sources in feeding.values()}) > 1 or len(leaving) > 1:
        return None
    target, port = min(ports)
    nodes: dict[str, Node] = {"input": Input(graph.inputs(target)[port].shape)}
    nodes |= {node: graph.nodes[node] for node in graph.order if node in inner}
    nodes["output"] = Output()
    edges = [edge for edge in graph.edges if edge.source in inner and edge.target in inner]
    edges += [Edge("input", *port) for port in sorted(ports)]
    return Graph(nodes, [*edges, Edge(leaving.pop() if leaving else name, "output")])


def held_layer(
    name: str, node: Node, recurrence: Graph, recorded: Heard, samples: list[int], bits: int
) -> Departure | None:
    """Return where one layer leaves its recurrence; None where it does not."""
    run = Reference(recurrence).run(recorded.given)
    membrane = recorded.membrane
    if membrane is not None and membrane.size == run.membranes[name].size:
        what, wanted = "membrane", run.membranes[name]
        found = membrane.reshape(wanted.shape).astype(np.float64)
    else:
        what, wanted = "output", run.outputs
        found = recorded.output.reshape(wanted.shape).astype(np.float64)
    apart = np.abs(found - wanted)
    apart[~np.isfinite(found)] = np.inf
    floor = getattr(node, "threshold", np.float64(0)) if what == "membrane" else np.float64(0)
    scale = np.maximum(np.abs(wanted).max(axis=0), np.broadcast_to(floor, wanted.shape[2:]))
    off = apart > TOLERANCE * scale
    if not off.any():
        return None
    step = int(off.reshape(len(off), -1).any(axis=1).argmax())
    sample, *place = map(
        int, np.unravel_index(np.where(off[step], apart[step], -1).argmax(), off[step].shape)
    )
    worst = int(apart.reshape(len(apart), -1).max(axis=1).argmax())
    fired = other_spikes(node, found if what == "membrane" else None, recorded.output, run.spikes.get(name))
    return Departure(
        layer=name,
        operator=type(node).__name__,
        what=what,
        step=step,
        sample=samples[sample],
        neuron=tuple(place),
        found=float(found[step, sample, *place]),
        wanted=float(wanted[step, sample, *place]),
        largest=float(apart.max()),
        largest_step=worst,
        share=float(off.mean()),
        spikes=int(np.count_nonzero(fired)),
        spike_step=int(fired.any(axis=1).argmax()) if fired.any() else None,
        precision=bits,
        cause=cause(
            node, name, recurrence, recorded.given[:, [sample]], step, place if what == "membrane" else None
        ),
    )


def other_spikes(node: Node, membrane: Array | None, output: Array, wanted: Array | None) -> Array:
    """Return (T, n) where a layer and its recurrence fire differently; nowhere, where its spikes are not known."""
    steps = len(output)
    if wanted is not None and isinstance(node, Memory) and membrane is not None:
        fired = membrane >= node.threshold if node.fires == ">=" else membrane > node.threshold
    elif wanted is not None and wanted.size == output.size:
        fired = output.reshape(wanted.shape) > 0
    else:
        return np.zeros((steps, 1), bool)
    return np.asarray(fired != wanted).reshape(steps, -1)


@singledispatch
def cause(node: Node, name: str, recurrence: Graph, x: Array, step: int, place: list[int] | None) -> str:
    """Say why a layer may leave its recurrence over x (T, 1, ...); "" where nothing is known."""
    return ""


@cause.register
def _(node: Memory, name: str, recurrence: Graph, x: Array, step: int, place: list[int] | None) -> str:
    products = np.cumprod(arriving(recurrence, name, "alpha", x), axis=0)[:, 0]
    column = int(products[step].argmin()) if place is None or products.shape[1] == 1 else place[1]
    product = products[:, column]
    below = np.flatnonzero(product < UNDERFLOW)
    if not len(below):
        return ""
    whose = f"column {column}" if products.shape[1] > 1 else "the memory"
    return (
        f"The decays of {whose} multiply to {product[step]:.3g} by step {step}, and to less than {UNDERFLOW:g} from "
        f"step {below[0]} on ({product[below[0]]:.3g}): a scan that divides what is written by this running product "
        f"loses it as the product underflows (snnTorch 1.0.0 adds {UNDERFLOW:g} to it)"
    )


def arriving(graph: Graph, name: str, port: str, x: Array) -> Array:
    """Return (T, B, ...) what arrives at a port of a node while a graph runs over x."""
    (output,) = graph.of(Output)
    edges = [edge for edge in graph.edges if edge.target != output]
    edges += [Edge(edge.source, output) for edge in graph.into(name) if edge.port == port]
    return Reference(Graph(graph.nodes, edges)).run(x, record=False).outputs
