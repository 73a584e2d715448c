"""ONNX: one step with its states as inputs and outputs, or that step inside a Scan over the sequence.

Step form:  x (B, ...) and every `node.u` (B, ...)  ->  y (B, ...) and every `node.u.next` (B, ...).
Scan form:  x (T, B, ...) and every `node.u` (B, ...)  ->  y (T, B, ...) and every `node.u.next` (B, ...), the
last. B and T are free. A state that nothing was carried into is zero. `record` adds `node.spikes` of every
node that fires and `node.membrane` (before the reset) of every one that has a membrane, in both forms; those of a
memory are (d, n).

Numbers are float32 or float64, as the graph's; a spike is the number 0 or 1, an index a whole number. The facts that
ONNX has no field for stand in the model's metadata under `unscan.`: form, dtype, opset, kind of the input, states
with shape and initial value, the graph's digest, history and meta (with the decision over time).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

import onnx
from onnx import helper

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Graph, Kind, Signal
from unscan.compiler.nodes import Delay, Embedding, Input, Output, StoredMemory
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets import onnx_memory, onnx_stateful, onnx_stateless
from unscan.targets.base import Target, collect, facts, insist, producer_version
from unscan.targets.onnx_step import Step

Form = Literal["step", "scan"]
OPSET = 17
IR_VERSION = 8
RULES = (onnx_stateless, onnx_stateful, onnx_memory)
"""Where the rule of each node stands."""
LARGEST = 2**31 - 2**20
"""Bytes of constants that fit in one protocol buffer, with room for the graph."""


def build(
    graph: Graph, form: Form = "step", record: bool = False, *, values: bool = False
) -> onnx.ModelProto:
    """Return the checked ONNX model of an iterative graph; see the head of this file.

    Args:
        graph: what is written.
        form: "step" or "scan".
        record: add `node.spikes` and `node.membrane` to the outputs.
        values: add what counts come from: `node.value`, what leaves it, of every node for which that is neither, and
            `node.TALLY` (B,) of every memory for each of its tallies that its spikes do not tell.

    Raises:
        Unsupported: a node has no form in ONNX, or its numbers pass 2 GB.
        InvalidInput: there is no such form.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    if form not in get_args(Form):
        raise InvalidInput(f"There is no ONNX form {form!r}; the forms are {', '.join(get_args(Form))}.")
    check(graph)
    step = Step(graph, "" if form == "step" else "@t")
    insist(graph, "onnx", collect(graph.order, step.emit))
    for name in graph.of(Delay):
        onnx_stateful.push(cast(Delay, graph.nodes[name]), step, name)
    size = sum(array.nbytes for node in graph.nodes.values() for _, array in node.arrays())
    if size > LARGEST:
        raise Unsupported(
            f"The target onnx writes one file of less than 2 GB, and this graph has {size} bytes."
        )

    signals = graph.signals
    (source,), (sink,) = graph.of(Input), graph.of(Output)
    extra: dict[str, Signal] = {}
    reached = {name: Signal(signals[name].kind, shape) for name, shape in graph.membranes().items()}
    if record:
        extra |= _give(step, step.spikes, "spikes", reached)
        extra |= _give(step, step.membranes, "membrane", reached)
    if values:
        rest = {
            name: value
            for name, value in step.values.items()
            if value not in (step.spikes.get(name), step.membranes.get(name))
        }
        extra |= _give(step, rest, "value", signals)
        for name in graph.of(StoredMemory):
            tallies = onnx_memory.tally(cast(StoredMemory, graph.nodes[name]), step, name)
            for what, value in tallies.items():
                extra |= _give(step, {name: value}, what, {name: Signal(Kind.REAL, ())})
    states = {
        name: Signal(signals[name.rpartition(".")[0]].kind, shape) for name, shape in graph.states.items()
    }
    element = helper.np_dtype_to_tensor_dtype(step.dtype)

    def declare(names: dict[str, Signal], *axes: str, suffix: str = "") -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(f"{name}{suffix}", element, [*axes, *signal.shape])
            for name, signal in names.items()
        ]

    x, y = {"x": signals[source]}, {"y": signals[sink]}
    nexts = {f"{name}.next": signal for name, signal in states.items()}
    if form == "step":
        body = helper.make_graph(
            step.operators,
            "step",
            [*declare(x, "B"), *declare(states, "B")],
            [*declare(y, "B"), *declare(nexts, "B"), *declare(extra, "B")],
            list(step.constants.values()),
        )
    else:
        at = {"suffix": step.suffix}
        inner = helper.make_graph(
            step.operators,
            "step",
            [*declare(states, "B", **at), *declare(x, "B", **at)],
            [*declare(nexts, "B", **at), *declare(y, "B", **at), *declare(extra, "B", **at)],
        )
        scan = helper.make_node(
            "Scan", [*states, "x"], [*nexts, "y", *extra], "sequence", body=inner, num_scan_inputs=1
        )
        body = helper.make_graph(
            [scan],
            "scan",
            [*declare(x, "T", "B"), *declare(states, "B")],
            [*declare(y, "T", "B"), *declare(nexts, "B"), *declare(extra, "T", "B")],
            list(step.constants.values()),
        )
    model = helper.make_model(
        body,
        producer_name="unscan",
        producer_version=producer_version(),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, _metadata(graph, form))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _give(step: Step, values: Mapping[str, str], what: str, of: Mapping[str, Signal]) -> dict[str, Signal]:
    for name, value in values.items():
        step.give(value, f"{name}.{what}")
    return {f"{name}.{what}": of[name] for name in values}


def _metadata(graph: Graph, form: Form) -> dict[str, str]:
    (source,) = graph.of(Input)
    signal = graph.signals[source]
    read: dict[str, Any] = {"name": source, "kind": signal.kind, "shape": signal.shape}
    if signal.kind is Kind.INDEX:
        tables = [graph.nodes[edge.target] for edge in graph.out_of(source)]
        read["rows"] = min(len(table.weight) for table in tables if isinstance(table, Embedding))
    known = facts(graph) | {
        "form": form,
        "opset": OPSET,
        "producer": f"unscan {producer_version()}",
        "input": read,
        "states": {name: {"shape": shape, "initial": 0} for name, shape in graph.states.items()},
    }
    return {
        f"unscan.{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in known.items()
    }


def emit(graph: Graph, path: Path | str, **options: Any) -> None:
    """Write an iterative graph as an ONNX file. Options: `form`, `record`; see `build`, also for what it raises."""
    model = build(graph, **options)
    with writing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def refusals(graph: Graph, **options: Any) -> dict[str, str]:
    """Return node -> reason for every node that has no form in ONNX."""
    return collect(check(graph).order, Step(graph).emit)


TARGET = Target("onnx", ".onnx", "one step, or a Scan over the sequence, for onnxruntime", emit, refusals)

__all__ = ["OPSET", "TARGET", "Form", "build", "emit", "refusals"]
