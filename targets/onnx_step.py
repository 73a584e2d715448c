"""The operators of one step in ONNX while they are written; the rules for each node stand in their own files."""

from __future__ import annotations

from collections.abc import Iterable
from functools import singledispatch
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import helper, numpy_helper

from unscan.compiler.ir import Graph, Node
from unscan.targets.base import no_rule


class Step:
    """The operators of one step while they are written.

    A value inside is named `node/label`, so that it can meet no name of the boundary; `suffix` keeps the boundary
    of a Scan's body apart from that of the graph round it.

    Attributes:
        values: node -> the value that leaves it.
        spikes, membranes: node -> what an execution records of it.
        ports: node -> port -> the value that arrives there.
    """

    def __init__(self, graph: Graph, suffix: str = "") -> None:
        self.graph = graph
        self.dtype = graph.dtype
        self.suffix = suffix
        self.operators: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.values: dict[str, str] = {}
        self.spikes: dict[str, str] = {}
        self.membranes: dict[str, str] = {}
        self.ports: dict[str, dict[str, str]] = {}

    def boundary(self, name: str) -> str:
        """Return the name of an input or output of the step."""
        return f"{name}{self.suffix}"

    def add(self, operator: str, inputs: Iterable[str], name: str, label: str, **attributes: Any) -> str:
        """Write an operator of a node and return the name of its result."""
        (result,) = self.split(operator, inputs, name, label, **attributes)
        return result

    def split(
        self, operator: str, inputs: Iterable[str], name: str, *labels: str, **attributes: Any
    ) -> list[str]:
        """Write an operator of a node and return the names of its results, one for each label."""
        results = [f"{name}/{label}" for label in labels]
        self.operators.append(helper.make_node(operator, list(inputs), results, results[0], **attributes))
        return results

    def constant(self, value: ArrayLike, name: str, label: str, dtype: DTypeLike | None = None) -> str:
        """Write a constant of a node, in the graph's number format unless said, and return its name."""
        key = f"{name}/{label}"
        array = np.ascontiguousarray(value, dtype or self.dtype).reshape(np.shape(value))
        self.constants[key] = numpy_helper.from_array(array, key)
        return key

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
        """Write a condition as 0 or 1 and return its name."""
        return self.add("Cast", [condition], name, label, to=helper.np_dtype_to_tensor_dtype(self.dtype))

    def keep(self, value: str, state: str) -> None:
        """Make a value the next one of a state."""
        self.give(value, f"{state}.next")

    def give(self, value: str, output: str) -> None:
        """Make a value an output of the step."""
        self.operators.append(
            helper.make_node("Identity", [value], [self.boundary(output)], f"{output}{self.suffix}/give")
        )

    def arriving(self, name: str, port: str) -> str:
        """Write what arrives at a port of a node, several edges added, and return its name."""
        x, *others = [
            self.values.get(edge.source, edge.source) for edge in self.graph.into(name) if edge.port == port
        ]
        for i, other in enumerate(others):
            x = self.add("Add", [x, other], name, f"{port}_join{i}")
        return x

    def emit(self, name: str) -> None:
        """Write one node. Raises Unsupported with the reason.

        What leaves a Delay depends on its state alone, so that it is written before what feeds it is known.
        """
        node = self.graph.nodes[name]
        ports = {} if node.delays else {port: self.arriving(name, port) for port in node.ports}
        self.ports[name] = ports
        self.values[name] = emit_node(node, self, name, **ports)


@singledispatch
def emit_node(node: Node, step: Step, name: str, **ports: str) -> str:
    """Write the operators of one node, fed by the value at each port, and return the name of what leaves it."""
    raise no_rule(node)
