"""Which ONNX operators the rules write, found by letting them write: what a runtime must have."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

import onnx

from unscan.compiler.ir import Graph
from unscan.compiler.nodes import NODES, Delay
from unscan.targets.onnx import IR_VERSION, OPSET
from unscan.targets.onnx_stateful import push
from unscan.targets.onnx_step import Step

NUMBERS = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32", "float64")

COLUMNS = ("float32", "float64", "whole")
"""What a node computes with."""


class Written:
    """What was written of some graphs, in both forms.

    Attributes:
        by_node: name of a node's class -> column of `COLUMNS` -> operators.
        by_operator: operator -> number formats of what it is fed.
    """

    def __init__(self, graphs: Iterable[Graph]) -> None:
        self.by_node: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        self.by_operator: dict[str, set[str]] = defaultdict(set)
        for graph in graphs:
            for suffix in ("", "@t"):
                self._write(graph, suffix)

    def _write(self, graph: Graph, suffix: str) -> None:
        step = Step(graph, suffix)
        for name in graph.order:
            step.emit(name)
            self._note(step, name)
        for name in graph.of(Delay):
            push(cast(Delay, graph.nodes[name]), step, name)
            self._note(step, name)
        if suffix:
            for state in graph.states:
                step.expanded(state, 1)
            self._operators(step)

    def _note(self, step: Step, name: str) -> None:
        column = "whole" if step.counts(name) else step.dtype.name
        self.by_node[type(step.graph.nodes[name]).__name__][column] |= self._operators(step)

    def _operators(self, step: Step) -> set[str]:
        """Take what was written since, and return its operators."""
        written = [*step.outside, *step.operators]
        step.outside.clear()
        step.operators.clear()
        for operator in written:
            self.by_operator[operator.op_type].add(fed(step, operator))
        return {operator.op_type for operator in written}


def fed(step: Step, operator: onnx.NodeProto) -> str:
    """Return the number format of an operator's first input, behind the condition of a Where."""
    first = operator.input[1 if operator.op_type == "Where" else 0]
    return step.type_of(step.boundary(first) if first == "x" or first in step.states else first).name


def page(graphs: Iterable[Graph]) -> str:
    """Return two tables in Markdown: the operators of each node, and the number formats of each operator."""
    written = Written(graphs)
    lines = [
        f"Opset {OPSET}, IR version {IR_VERSION}. The Scan form adds the operator Scan.",
        "",
        "| node | float32 | float64 | whole numbers |",
        "|---|---|---|---|",
    ]
    for name in (name for name in NODES if name in written.by_node):
        cells = [", ".join(sorted(written.by_node[name][column])) or "-" for column in COLUMNS]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| operator | fed with |", "|---|---|"]
    for operator, kinds in sorted(written.by_operator.items()):
        lines.append(f"| {operator} | {', '.join(sorted(kinds, key=NUMBERS.index))} |")
    return "\n".join([*lines, ""])


__all__ = ["Written", "page"]
