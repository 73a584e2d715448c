"""The operators of one step in ONNX while they are written; the rules for each node stand in their own files.

A graph of real numbers carries everything as numbers of one format: spikes too, as 0 and 1. In a graph of whole numbers
`unscan.compiler.formats` says what leaves each node: whole numbers are int32, those of 32 bits without a sign int64.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import singledispatch
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

from unscan.compiler.errors import Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.formats import arriving, formats
from unscan.compiler.ir import FLOATS, INTEGERS, Array, Graph, Kind, Node
from unscan.compiler.nodes import Delay, Input, Integer, IntegerCubaLIF, Spiking, Threshold
from unscan.targets.base import no_rule

CONDITIONS = ("Less", "Greater", "GreaterOrEqual", "Equal")
INTEGER_PRODUCTS = ("MatMulInteger", "ConvInteger")


class Step:
    """The operators of one step while they are written.

    A value inside is named `node/label`, so that it can meet no name of the boundary; `suffix` keeps the boundary
    of a Scan's body apart from that of the graph round it.

    Args:
        graph: what is written.
        suffix: of the names of the boundary.
        real: the format of real numbers; that of the graph's own where None (float32 where it has none).

    Attributes:
        whole: whether the graph computes with whole numbers.
        formats: node -> the format of what leaves it, None where it is real numbers.
        operators: those of a step.
        outside: those that are written once, in front of all steps.
        values: node -> the value that leaves it.
        spikes, membranes: node -> what an execution records of it.
        ports: node -> port -> the value that arrives there.
        states: state -> its number format.
        given: output -> its number format.
        clipped: node -> pairs of values before and after a format took hold of them.
    """

    def __init__(self, graph: Graph, suffix: str = "", real: DTypeLike | None = None) -> None:
        self.graph = graph
        self.dtype: np.dtype[Any] = np.dtype(real or own_format(graph))
        self.suffix = suffix
        self.whole = computes_whole(graph)
        self.formats: Mapping[str, Fixed | None] = (
            formats(graph) if self.whole else dict.fromkeys(graph.nodes)
        )
        self.operators: list[onnx.NodeProto] = []
        self.outside: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.values: dict[str, str] = {}
        self.spikes: dict[str, str] = {}
        self.membranes: dict[str, str] = {}
        self.ports: dict[str, dict[str, str]] = {}
        self.given: dict[str, np.dtype[Any]] = {}
        self.clipped: dict[str, list[tuple[str, str]]] = {}
        self.states = {state: self._state(state) for state in graph.states}
        self._types = {self.boundary(state): dtype for state, dtype in self.states.items()}
        (source,) = graph.of(Input)
        self._types[self.boundary("x")] = self.entering(source)

    def boundary(self, name: str) -> str:
        """Return the name of an input or output of the step."""
        return f"{name}{self.suffix}"

    def entering(self, source: str) -> np.dtype[Any]:
        """Return the number format of x: among whole numbers, bool for spikes and int32 for an index; real else."""
        return np.dtype(bool) if self.formats[source] is not None else self.sent(source)

    def sent(self, name: str) -> np.dtype[Any]:
        """Return the number format of what leaves a node."""
        if self.whole and self.graph.signals[name].kind is Kind.INDEX:
            return np.dtype(np.int32)
        return self.carrier(self.formats[name])

    def _state(self, state: str) -> np.dtype[Any]:
        name, _, key = state.rpartition(".")
        node = self.graph.nodes[name]
        if isinstance(node, Delay):
            return self.carrier(self.formats[name])
        if not isinstance(node, Integer):
            return self.dtype
        # What wraps at 32 bits reaches 2^31.
        wide = isinstance(node, IntegerCubaLIF) and key == "i" and node.wraps and node.bits == 32
        return np.dtype(np.int64 if wide else np.int32)

    def counts(self, name: str) -> bool:
        """Say whether a node computes with whole numbers."""
        return self.formats[name] is not None and not isinstance(self.graph.nodes[name], Spiking)

    def carrier(self, format: Fixed | None) -> np.dtype[Any]:
        """Return the number format that carries numbers of a format, real ones where None."""
        if format is None:
            return self.dtype
        return np.dtype(np.int32 if format.max < 2**31 else np.int64)

    def type_of(self, value: str) -> np.dtype[Any]:
        """Return the number format of a value."""
        return self._types[value]

    def add(self, operator: str, inputs: Iterable[str], name: str, label: str, **attributes: Any) -> str:
        """Write an operator of a node and return the name of its result."""
        (result,) = self.split(operator, inputs, name, label, **attributes)
        return result

    def split(
        self, operator: str, inputs: Iterable[str], name: str, *labels: str, **attributes: Any
    ) -> list[str]:
        """Write an operator of a node and return the names of its results, one for each label."""
        fed, results = list(inputs), [f"{name}/{label}" for label in labels]
        self.operators.append(helper.make_node(operator, fed, results, results[0], **attributes))
        for result in results:
            self._types[result] = self._made(operator, fed, attributes)
        if operator == "TopK":
            self._types[results[1]] = np.dtype(np.int64)
        return results

    def _made(self, operator: str, fed: list[str], attributes: Mapping[str, Any]) -> np.dtype[Any]:
        if operator == "Cast":
            return helper.tensor_dtype_to_np_dtype(attributes["to"])
        if operator in CONDITIONS:
            return np.dtype(bool)
        if operator in INTEGER_PRODUCTS:
            return np.dtype(np.int32)
        return self._types[fed[1 if operator == "Where" else 0]]

    def constant(self, value: ArrayLike, name: str, label: str, dtype: DTypeLike | None = None) -> str:
        """Write a constant of a node, in the format of real numbers unless said, and return its name."""
        key = f"{name}/{label}"
        array = np.ascontiguousarray(value, dtype or self.dtype).reshape(np.shape(value))
        self.constants[key] = numpy_helper.from_array(array, key)
        self._types[key] = array.dtype
        return key

    def stored(self, array: Array, name: str, label: str, dtype: DTypeLike) -> str:
        """Write whole numbers as narrow as they are, made wider once, in front of all steps; return their name."""
        if array.dtype == dtype:
            return self.constant(array, name, label, dtype)
        narrow = self.constant(array, name, f"{label}_stored", array.dtype)
        key = f"{name}/{label}"
        self.outside.append(helper.make_node("Cast", [narrow], [key], key, to=tensor_type(dtype)))
        self._types[key] = np.dtype(dtype)
        return key

    def cast(self, x: str, dtype: DTypeLike, name: str, label: str) -> str:
        """Write x in another number format, unless it has that already, and return its name."""
        if self._types[x] == dtype:
            return x
        return self.add("Cast", [x], name, label, to=tensor_type(dtype))

    def reshaped(self, x: str, shape: tuple[int, ...], name: str, label: str) -> str:
        """Write x (B, ...) in another shape (B, *shape) and return its name."""
        wanted = self.constant([0, *shape], name, f"{label}_shape", np.int64)
        return self.add("Reshape", [x, wanted], name, label)

    def widened(self, x: str, axes: list[int], name: str, label: str) -> str:
        """Write x with axes of one added where the result has them and return its name."""
        return self.add("Unsqueeze", [x, self.constant(axes, name, f"{label}_axes", np.int64)], name, label)

    def summed(self, x: str, axes: list[int], name: str, label: str) -> str:
        """Write the sum of x over axes, which go, and return its name."""
        over = self.constant(axes, name, f"{label}_axes", np.int64)
        return self.add("ReduceSum", [x, over], name, label, keepdims=0)

    def as_number(self, condition: str, name: str, label: str) -> str:
        """Write a condition as the real number 0 or 1 and return its name."""
        return self.cast(condition, self.dtype, name, label)

    def spread(self, state: str) -> str:
        """Return a state (B, ...), also where the step may be given one of a batch of one for all samples."""
        return self.boundary(state) if self.suffix else self.expanded(state, 0)

    def expanded(self, state: str, axis: int) -> str:
        """Write a state of a batch of one, or B, as (B, ...) in front of all steps; B stands at an axis of x."""
        start, shape, batch = f"{state}/start", f"{state}/shape", "x/batch"
        if start in self._types:
            return start
        if batch not in self._types:
            self.outside.append(helper.make_node("Shape", ["x"], [batch], batch, start=axis, end=axis + 1))
            self._types[batch] = np.dtype(np.int64)
        ones = self.constant(np.ones(len(self.graph.states[state])), state, "ones", np.int64)
        self.outside += [
            helper.make_node("Concat", [batch, ones], [shape], shape, axis=0),
            helper.make_node("Expand", [state, shape], [start], start),
        ]
        self._types[start] = self.states[state]
        return start

    def keep(self, value: str, state: str) -> None:
        """Make a value the next one of a state."""
        self.give(self.cast(value, self.states[state], state, "kept"), f"{state}.next")

    def give(self, value: str, output: str) -> None:
        """Make a value an output of the step."""
        self.given[output] = self.type_of(value)
        self.operators.append(
            helper.make_node("Identity", [value], [self.boundary(output)], f"{output}{self.suffix}/give")
        )

    def arriving(self, name: str, port: str, *, real: bool = False) -> str:
        """Write what arrives at a port of a node, several edges added, and return its name; `real`: as real numbers."""
        sources = [edge.source for edge in self.graph.into(name) if edge.port == port]
        wanted = self.dtype if real else self.carrier(arriving(self.graph, self.formats, name, port))
        if self.graph.signals[sources[0]].kind is Kind.INDEX:
            wanted = self.sent(sources[0])
        x, *others = [
            self.cast(self.values[source], wanted, name, f"{port}{i}_number")
            for i, source in enumerate(sources)
        ]
        for i, other in enumerate(others):
            x = self.add("Add", [x, other], name, f"{port}_join{i}")
        return x

    def emit(self, name: str) -> None:
        """Write one node. Raises Unsupported with the reason.

        What leaves a Delay depends on its state alone, so that it is written before what feeds it is known.
        """
        node = self.graph.nodes[name]
        whole = self.counts(name)
        ports = (
            {} if node.delays else {port: self.arriving(name, port, real=not whole) for port in node.ports}
        )
        self.ports[name] = ports
        sent = self.sent(name)
        try:
            value = (emit_whole if whole else emit_node)(node, self, name, **ports)
        except Unsupported:
            self.values[name] = f"{name}/refused"
            self._types[self.values[name]] = sent
            raise
        self.values[name] = self.cast(value, sent, name, "sent")


def own_format(graph: Graph) -> np.dtype[Any]:
    """Return the widest format of a graph's real numbers; float32 where it has none."""
    arrays = [array.dtype for node in graph.nodes.values() for _, array in node.arrays()]
    return np.result_type(np.float32, *(dtype for dtype in arrays if dtype in FLOATS))


def computes_whole(graph: Graph) -> bool:
    """Say whether a graph computes with whole numbers."""
    return any(
        isinstance(node, Integer)
        or (not isinstance(node, Delay | Threshold) and any(a.dtype in INTEGERS for _, a in node.arrays()))
        for node in graph.nodes.values()
    )


def tensor_type(dtype: DTypeLike) -> int:
    """Return the number of a format in ONNX."""
    return cast(int, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


@singledispatch
def emit_node(node: Node, step: Step, name: str, **ports: str) -> str:
    """Write the operators of one node, fed by the value at each port, and return the name of what leaves it."""
    raise no_rule(node)


@singledispatch
def emit_whole(node: Node, step: Step, name: str, **ports: str) -> str:
    """Write the operators of a node that sends whole numbers; by default those that it has for real ones."""
    return emit_node(node, step, name, **ports)


@singledispatch
def tally(node: Node, step: Step, name: str) -> dict[str, str]:
    """Write what a node tallies beside its spikes, one number for each sample; return tally -> value."""
    return {}
