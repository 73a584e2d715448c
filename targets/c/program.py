"""The C of one model while it is written: constants, what the state struct holds, and the lines of a step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import singledispatch
from math import prod

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.formats import arriving, formats
from unscan.compiler.ir import Array, Graph, Kind, Node
from unscan.compiler.nodes import (
    AvgPool2d,
    Convolution,
    Delay,
    Flatten,
    Input,
    Linear,
    Output,
    Quantize,
    Reshape,
    SumPool2d,
)
from unscan.targets.base import no_rule
from unscan.targets.c.helpers import HELPERS
from unscan.targets.c.members import RECORD, STATE, WORK, Constant, Field, Kept, Recorded
from unscan.targets.c.values import (
    BYTES,
    REALS,
    Numbers,
    Spikes,
    Value,
    format_type,
    identifier,
    index_type,
    literal,
    narrowest,
    remark,
)

Index = Callable[[str], str]
"""Index of a neuron in C -> an expression in C."""


class Program:
    """The C of a graph while it is written; the rules for each node stand in their own files.

    Attributes:
        real: the type of real numbers, float, or double where the graph has parameters in float64.
        formats: node -> format of the whole numbers that leave it, None where they are real.
        constants, fields: tables, and members of the state struct, in the order in which they were made.
        lines: of the step.
        resting: members that say whether a layer is awake; a state that is loaded from outside sets them.
        candidates: members of bitmaps, with the entries that they stand for, likewise.
        encoder: the Quantize that runs in front of the step, if there is one.
        helpers: names of the helpers that the step calls.
    """

    def __init__(self, graph: Graph, name: str, record: bool = False) -> None:
        self.graph, self.name, self.record = graph, name, record
        self.formats = formats(graph)
        wide = any(value.dtype == np.float64 for node in graph.nodes.values() for _, value in node.arrays())
        self.real = "double" if wide else "float"
        self.real_type = np.float64 if wide else np.float32
        self.values: dict[str, Value] = {}
        self.constants: list[Constant] = []
        self.fields: list[Field] = []
        self.lines: list[str] = []
        self.kept: list[Kept] = []
        self.recorded: list[Recorded] = []
        self.resting: list[str] = []
        self.candidates: list[tuple[str, int]] = []
        self.helpers: set[str] = set()
        self._names: dict[tuple[str, str], str] = {}
        self._uses: dict[str, int] = {}
        self._free: list[Field] = []
        self._fresh: list[str] = []
        (self.source,), (self.sink,) = graph.of(Input), graph.of(Output)
        self.encoder = self._encoder()

    def _encoder(self) -> str | None:
        """Return the Quantize that is all that a real input feeds."""
        fed, node = self.graph.out_of(self.source), self.graph.nodes[self.source]
        if not isinstance(node, Input) or node.kind in (Kind.SPIKE, Kind.INDEX) or len(fed) != 1:
            return None
        (name,) = (edge.target for edge in fed)
        first = isinstance(self.graph.nodes[name], Quantize) and len(self.graph.into(name)) == 1
        return name if first else None

    # Names, tables and members

    def called(self, node: str, what: str) -> str:
        """Return the name in C of something of a node, which nothing else has."""
        key = (node, what)
        if key not in self._names:
            base = name = f"{identifier(node)}_{what}"
            number = 1
            while name in self._names.values():
                number += 1
                name = f"{base}{number}"
            self._names[key] = name
        return self._names[key]

    def width(self, name: str) -> int:
        """Return how many neurons a node has."""
        return prod(self.graph.signals[name].shape)

    def type_of(self, name: str) -> str:
        """Return the type of the numbers that leave a node."""
        held = self.formats[name]
        if held is None:
            return "uint8_t" if self.graph.signals[name].kind is Kind.SPIKE else self.real
        return format_type(held)

    def meets(self, name: str, port: str = "x") -> Fixed | None:
        """Return the format of what arrives at a port; None where it is real numbers."""
        return arriving(self.graph, self.formats, name, port)

    def whole(self, name: str, port: str = "x") -> int:
        """Return the largest whole number that arrives at a port. Raises Unsupported where real numbers do."""
        held = self.meets(name, port)
        if held is None:
            raise Unsupported(f"its port {port} gets real numbers, and it takes whole ones")
        return held.max

    def table(self, node: str, what: str, values: Array, of: str) -> str:
        """Write a constant and return its name."""
        name = self.called(node, what)
        self.constants.append(Constant(name, of, np.asarray(values).ravel(), node))
        return name

    def parameter(self, node: str, what: str, values: Array, of: str | None = None) -> Index:
        """Return how a parameter of every neuron of a node is read, as short a table as it allows.

        `of` is the type in which real numbers are stored; whole ones take the narrowest that holds them.
        """
        full = np.broadcast_to(values, self.graph.signals[node].shape)
        kind = of or narrowest(full)
        flat = full.reshape(-1)
        if (flat == flat[0]).all():
            return lambda i: literal(flat[0], kind)
        for axis in range(1, full.ndim):
            lead = full.reshape(prod(full.shape[:axis]), -1)
            each = lead.shape[1]
            if each > 1 and (lead == lead[:, :1]).all():
                name = self.table(node, what, lead[:, 0], kind)
                return lambda i: f"{name}[{i} / {each}]"
        for axis in range(full.ndim - 1, 0, -1):
            last = full.reshape(-1, prod(full.shape[axis:]))
            span = last.shape[1]
            if len(last) > 1 and (last == last[:1]).all():
                name = self.table(node, what, last[0], kind)
                return lambda i: f"{name}[{i} % {span}]"
        name = self.table(node, what, flat, kind)
        return lambda i: f"{name}[{i}]"

    def member(self, node: str, what: str, of: str, count: int, role: str = STATE) -> str:
        """Reserve a member of the state struct and return what it is called in a step."""
        field = Field(self.called(node, what), of, count, node, role)
        self.fields.append(field)
        return f"s->{field.name}"

    def state(self, node: str, what: str, of: str, shape: tuple[int, ...], head: str | None = None) -> str:
        """Reserve a state of the graph and return what it is called in a step."""
        place = self.member(node, what, of, prod(shape))
        self.kept.append(Kept(f"{node}.{what}", place.removeprefix("s->"), shape, head))
        return place

    def work(self, node: str, of: str, count: int) -> str:
        """Reserve an array of use within this step alone and return what it is called.

        It takes the place of one whose last reader is written, and is given back itself when the node is written,
        unless it holds what leaves the node.
        """
        fitting = [field for field in self._free if field.type == of]
        if fitting:
            field = min(fitting, key=lambda f: (abs(f.count - count), f.name))
            self._free.remove(field)
            field.count = max(field.count, count)
        else:
            number = sum(each.role == WORK for each in self.fields)
            field = Field(self.called("work", str(number)), of, count, node, WORK)
            self.fields.append(field)
        self._uses[f"s->{field.name}"] = 0
        self._fresh.append(f"s->{field.name}")
        return f"s->{field.name}"

    def released(self, place: str) -> None:
        """Give an array back where nothing reads it any more."""
        if self._uses.get(place) == 0:
            del self._uses[place]
            self._free.append(next(f for f in self.fields if f"s->{f.name}" == place))

    def records(self, node: str, what: str, of: str, shape: tuple[int, ...]) -> str | None:
        """Reserve where a recording step leaves something; None in a step that records nothing."""
        if not self.record:
            return None
        place = self.member(node, what, of, prod(shape), RECORD)
        self.recorded.append(Recorded(node, what, place.removeprefix("s->"), shape))
        return place

    # Lines

    def say(self, *lines: str | None) -> None:
        """Write lines; None stands for no line."""
        self.lines += [line for line in lines if line is not None]

    def call(self, helper: str) -> str:
        """Return the name of a helper, which the file will hold, with those that it calls."""
        if helper not in self.helpers:
            self.helpers.add(helper)
            for other in HELPERS:
                if other != helper and f"{other}(" in HELPERS[helper]:
                    self.call(other)
        return helper

    def each(self, count: int | str, *body: str, index: str = "i") -> None:
        """Write a loop."""
        self.say(f"for (int32_t {index} = 0; {index} < {count}; {index}++) {{", *body, "}")

    @contextmanager
    def unless(self, silent: str | None) -> Iterator[None]:
        """Let what is written meanwhile run where a value is not silent."""
        self.say(None if silent is None else f"if (!({silent})) {{")
        yield
        self.say(None if silent is None else "}")

    def filled(self, value: Numbers) -> Numbers:
        """Write zeros into numbers that may be silent, so that they can be read."""
        if value.silent is not None and not value.always:
            self.say(f"if ({value.silent}) {{", self.cleared(value), "}")
        return Numbers(value.width, value.type, value.array)

    def cleared(self, value: Numbers) -> str:
        """Return the line that writes zeros into numbers."""
        return f"memset(&{value.array}[0], 0, {BYTES[value.type] * value.width});"

    def numbers(self, node: str, value: Value) -> Numbers:
        """Return a value as numbers; where they may be silent their array is not written then."""
        if isinstance(value, Numbers):
            return value
        if value.marks is not None:
            return Numbers(value.width, "uint8_t", value.marks, f"{value.count} == 0", value.always)
        array = self.work(node, "uint8_t", value.width)
        made = Numbers(value.width, "uint8_t", array, f"{value.count} == 0")
        self.say(f"if ({value.count} != 0) {{", self.cleared(made))
        self.each(value.count, f"{array}[{value.list}[k]] = 1;", index="k")
        self.say("}")
        return made

    def dense(self, node: str, value: Value) -> Numbers:
        """Return a value as numbers that can be read."""
        return self.filled(self.numbers(node, value))

    def listed(self, node: str, array: str, width: int) -> Value:
        """Return the spikes that stand in an array of uint8_t; their list is written where a reader goes by it."""
        if not self.spreads(node):
            return Numbers(width, "uint8_t", array)
        of = index_type(width)
        spikes = Spikes(width, self.work(node, of, width), self.called(node, "n"), array, always=True)
        self.say(f"const int32_t {self.listing(spikes)}")
        return spikes

    def spreads(self, name: str) -> bool:
        """Say whether what leaves a node is read event by event."""
        for edge in self.graph.out_of(name):
            node = self.graph.nodes[edge.target]
            alone = sum(each.port == edge.port for each in self.graph.into(edge.target)) == 1
            if alone and isinstance(node, Linear | Convolution | SumPool2d | AvgPool2d):
                return True
            if alone and isinstance(node, Flatten | Reshape) and self.spreads(edge.target):
                return True
        return False

    def listing(self, spikes: Spikes) -> str:
        """Return the line that lists spikes by their marks."""
        helper = self.call(f"listed{BYTES[index_type(spikes.width)] * 8}")
        return f"{spikes.count} = {helper}({spikes.marks}, {spikes.width}, {spikes.list});"

    # Nodes

    def arriving(self, name: str, port: str) -> Value:
        """Write what arrives at a port of a node, several edges added, and return it."""
        sources = [edge.source for edge in self.graph.into(name) if edge.port == port]
        values = [
            self.values.get(source, Numbers(self.width(source), "float", "refused")) for source in sources
        ]
        if len(values) == 1:
            return values[0]
        held = self.meets(name, port)
        kind = self.real if held is None else format_type(held)
        parts = [self.numbers(name, value) for value in values]
        silent = [part.silent for part in parts]
        quiet = None if None in silent else " && ".join(f"({each})" for each in silent)
        array = self.work(name, kind, parts[0].width)
        with self.unless(quiet):
            ready = [self.filled(part) for part in parts]
            numbers = [f"{'' if part.type == kind else f'({kind})'}{part.array}[i]" for part in ready]
            total = " + ".join(numbers)
            stored = total if kind in REALS else f"({kind})({total})"
            self.each(ready[0].width, f"{array}[i] = {stored};")
        return Numbers(parts[0].width, kind, array, quiet)

    def emit(self, name: str) -> None:
        """Write one node. Raises Unsupported with the reason.

        What leaves a Delay depends on its state alone: it is written before what feeds it is known, and takes its
        input when the step is over (`push`).
        """
        node = self.graph.nodes[name]
        axes = "x".join(map(str, self.graph.signals[name].shape))
        self.say("", f"/* {remark(name)}: {type(node).__name__} {axes} */")
        self._fresh = []
        ports = {} if node.delays else {port: self.arriving(name, port) for port in node.ports}
        self.values[name] = value = emit_node(node, self, name, **ports)
        for place in places(value):
            if place in self._uses:
                self._uses[place] += max(1, len(self.graph.out_of(name)))
        if name != self.sink and not self.graph.out_of(name):
            unread = value.count if isinstance(value, Spikes) else value.array
            self.say(None if unread.startswith("s->") else f"(void){unread};")
        for place in self._fresh:
            self.released(place)
        if not node.delays:
            self.consumed(name)

    def consumed(self, name: str) -> None:
        """Note that a node has read what feeds it."""
        for edge in self.graph.into(name):
            for place in places(self.values[edge.source]) if edge.source in self.values else ():
                if place in self._uses:
                    self._uses[place] -= 1
                    self.released(place)

    def push(self) -> None:
        """Write the end of the step, where the delay lines take what arrives at them."""
        for name in self.graph.of(Delay):
            self._fresh = []
            push_node(self.graph.nodes[name], self, name, self.arriving(name, "x"))
            for place in self._fresh:
                self.released(place)
            self.consumed(name)

    def is_real(self, of: str) -> bool:
        """Say whether a type is one of real numbers."""
        return of in REALS


def places(value: Value) -> tuple[str, ...]:
    """Return the arrays of a value."""
    if isinstance(value, Numbers):
        return (value.array,)
    return (value.list,) if value.marks is None else (value.list, value.marks)


@singledispatch
def emit_node(node: Node, program: Program, name: str, **ports: Value) -> Value:
    """Write the lines of one node, fed by the value at each port, and return what leaves it."""
    raise no_rule(node)


@singledispatch
def push_node(node: Node, program: Program, name: str, x: Value) -> None:
    """Write the lines by which a delay line takes its input."""
    raise no_rule(node)
