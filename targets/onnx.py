"""ONNX: one step with its states as inputs and outputs, or that step inside a Scan over the sequence.

Step form:  x (B, ...) and every `node.u` (B, ...)  ->  y (B, ...) and every `node.u.next` (B, ...).
Scan form:  x (T, B, ...) and every `node.u` (B, ...)  ->  y (T, B, ...) and every `node.u.next` (B, ...), the
last. B and T are free. `record` adds `node.spikes` of every node that fires and `node.membrane` (before the reset) of
every one that has a membrane, in both forms; those of a memory are (d, n).

A state stands in the file with its initial value (1, ...), as an optional input: x alone needs to be fed. Runtimes
whose interface feeds no optional input (onnxruntime's for JavaScript) take a file with `states` fed: there each state
is an input like x.

Real numbers are float32 or float64, as the graph's; a spike is the number 0 or 1, an index a whole number. In a graph
of whole numbers these are int32 (int64 where they reach 2^31), weights stand as narrow as the graph has them, input
spikes are bool and an index is int32. The facts that ONNX has no field for stand in the model's metadata under
`unscan.`: form, dtype of real numbers, opset, kind of the input, format of the output, states with shape and initial
value, the graph's digest, history and meta (with the decision over time).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import onnx
from numpy.typing import DTypeLike
from onnx import helper, numpy_helper

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Delay, Embedding, Input, Output
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets import onnx_integer, onnx_memory, onnx_stateful, onnx_stateless, onnx_whole
from unscan.targets.base import Report, Target, collect, facts, insist, producer_version
from unscan.targets.onnx_step import Step, tally, tensor_type

Form = Literal["step", "scan"]
States = Literal["optional", "fed"]
Shape = tuple[int, ...]
OPSET = 17
IR_VERSION = 8
RULES = (onnx_stateless, onnx_stateful, onnx_memory, onnx_whole, onnx_integer)
"""Where the rule of each node stands."""
LARGEST = 2**31 - 2**20
"""Bytes of constants that fit in one protocol buffer, with room for the graph."""


def build(
    graph: Graph,
    form: Form = "step",
    record: bool = False,
    states: States = "optional",
    *,
    values: bool = False,
    real: DTypeLike | None = None,
) -> onnx.ModelProto:
    """Return the checked ONNX model of an iterative graph; see the head of this file.

    Args:
        graph: what is written.
        form: "step" or "scan".
        record: add `node.spikes` and `node.membrane` to the outputs.
        states: "optional", with initial values in the file, or "fed", for runtimes that feed no optional inputs.
        values: add what counts come from: `node.value`, what leaves it, of every node for which that is neither, and
            `node.TALLY` (B,) of every node for each of its tallies that its spikes do not tell.
        real: the format of real numbers; the graph's own where None, float32 where it has none.

    Raises:
        Unsupported: a node has no form in ONNX, or its numbers pass 2 GB.
        InvalidInput: there is no such form, or no such way to give states.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    if form not in get_args(Form):
        raise InvalidInput(f"There is no ONNX form {form!r}; the forms are {', '.join(get_args(Form))}.")
    if states not in get_args(States):
        raise InvalidInput(f"ONNX has no states {states!r}; they are {' or '.join(get_args(States))}.")
    check(graph)
    step = Step(graph, "" if form == "step" else "@t", real)
    insist(graph, "onnx", collect(graph.order, step.emit))
    for name in graph.of(Delay):
        onnx_stateful.push(cast(Delay, graph.nodes[name]), step, name)
    size = sum(array.nbytes for node in graph.nodes.values() for _, array in node.arrays())
    if size > LARGEST:
        raise Unsupported(
            f"The target onnx writes one file of less than 2 GB, and this graph has {size} bytes."
        )
    extra = _recorded(step, record, values)
    body = _graph(step, form, states, extra)
    model = helper.make_model(
        body,
        producer_name="unscan",
        producer_version=producer_version(),
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, _metadata(graph, form, step))
    model = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    onnx.checker.check_model(model, full_check=True)
    return model


def _recorded(step: Step, record: bool, values: bool) -> dict[str, Shape]:
    """Give what an execution records and counts; return name -> shape."""
    graph = step.graph
    membranes, sent = graph.membranes(), {name: signal.shape for name, signal in graph.signals.items()}
    extra: dict[str, Shape] = {}
    if record:
        extra |= _give(step, step.spikes, "spikes", sent | membranes)
        extra |= _give(step, step.membranes, "membrane", membranes)
    if values:
        rest = {
            name: value
            for name, value in step.values.items()
            if value not in (step.spikes.get(name), step.membranes.get(name))
        }
        extra |= _give(step, rest, "value", sent)
        for name in graph.order:
            for what, value in tally(graph.nodes[name], step, name).items():
                extra |= _give(step, {name: value}, what, {name: ()})
    return extra


def _give(step: Step, values: Mapping[str, str], what: str, shapes: Mapping[str, Shape]) -> dict[str, Shape]:
    for name, value in values.items():
        step.give(value, f"{name}.{what}")
    return {f"{name}.{what}": shapes[name] for name in values}


def _graph(step: Step, form: Form, states: States, extra: Mapping[str, Shape]) -> onnx.GraphProto:
    """Return the operators of a step, or of a Scan over it, between its inputs and outputs."""
    graph = step.graph
    (source,), (sink,) = graph.of(Input), graph.of(Output)
    shapes, signals = graph.states, graph.signals
    x = {"x": signals[source].shape}
    y = {"y": signals[sink].shape}
    nexts = {f"{state}.next": shape for state, shape in shapes.items()}
    entering = {"x": step.entering(source), **step.states}

    def declare(names: Mapping[str, Shape], *axes: str, suffix: str = "") -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(
                f"{name}{suffix}", tensor_type((entering | step.given)[name]), [*axes, *shape]
            )
            for name, shape in names.items()
        ]

    kept, initial = declare(shapes, "B"), []
    if states == "optional":
        # An axis of its own for each, as one may be fed and another not: the runtime shares memory by these names.
        kept = [value for state, shape in shapes.items() for value in declare({state: shape}, f"{state}.B")]
        initial = [
            numpy_helper.from_array(np.zeros((1, *shape), step.states[state]), state)
            for state, shape in shapes.items()
        ]
    if form == "step":
        return helper.make_graph(
            [*step.outside, *step.operators],
            "step",
            [*declare(x, "B"), *kept],
            [*declare(y, "B"), *declare(nexts, "B"), *declare(extra, "B")],
            [*step.constants.values(), *initial],
        )
    at = {"suffix": step.suffix}
    inner = helper.make_graph(
        step.operators,
        "step",
        [*declare(shapes, "B", **at), *declare(x, "B", **at)],
        [*declare(nexts, "B", **at), *declare(y, "B", **at), *declare(extra, "B", **at)],
    )
    starts = [step.expanded(state, 1) for state in shapes]
    scan = helper.make_node(
        "Scan", [*starts, "x"], [*nexts, "y", *extra], "sequence", body=inner, num_scan_inputs=1
    )
    return helper.make_graph(
        [*step.outside, scan],
        "scan",
        [*declare(x, "T", "B"), *kept],
        [*declare(y, "T", "B"), *declare(nexts, "B"), *declare(extra, "T", "B")],
        [*step.constants.values(), *initial],
    )


def _metadata(graph: Graph, form: Form, step: Step) -> dict[str, str]:
    (source,), (sink,) = graph.of(Input), graph.of(Output)
    signal, leaving, format = graph.signals[source], graph.signals[sink], step.formats[sink]
    read: dict[str, Any] = {
        "name": source,
        "kind": signal.kind,
        "shape": signal.shape,
        "dtype": step.entering(source).name,
    }
    if signal.kind is Kind.INDEX:
        tables = [graph.nodes[edge.target] for edge in graph.out_of(source)]
        read["rows"] = min(len(table.weight) for table in tables if isinstance(table, Embedding))
    known = facts(graph) | {
        "dtype": step.dtype.name,
        "form": form,
        "opset": OPSET,
        "producer": f"unscan {producer_version()}",
        "input": read,
        "output": {
            "name": sink,
            "kind": leaving.kind,
            "shape": leaving.shape,
            "dtype": step.given["y"].name,
            "format": None if format is None else asdict(format),
        },
        "states": {
            name: {"shape": shape, "dtype": step.states[name].name, "initial": 0}
            for name, shape in graph.states.items()
        },
    }
    return {
        f"unscan.{key}": value if isinstance(value, str) else json.dumps(value)
        for key, value in known.items()
    }


def emit(graph: Graph, path: Path | str, **options: Any) -> None:
    """Write an iterative graph as an ONNX file. Options: `form`, `record`, `states`; see `build`, also for what
    it raises.
    """
    model = build(graph, **options)
    with writing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def refusals(graph: Graph, **options: Any) -> dict[str, str]:
    """Return node -> reason for every node that has no form in ONNX."""
    return collect(check(graph).order, Step(graph).emit)


def report(graph: Graph, **options: Any) -> Report:
    """Return which operators of ONNX the file uses, and how often."""
    model = build(graph, **options)
    bodies = [model.graph, *(a.g for node in model.graph.node for a in node.attribute if a.name == "body")]
    used = sorted(Counter(node.op_type for body in bodies for node in body.node).items())
    line = f"Opset {OPSET}, operators {', '.join(f'{name} ({count})' for name, count in used)}."
    return Report("", (), (), (line,), numbers={"opset": OPSET, "operators": dict(used)})


TARGET = Target(
    "onnx",
    ".onnx",
    "one step, or a Scan over the sequence, for onnxruntime",
    emit,
    refusals,
    options=("form", "states", "record"),
    report=report,
)

__all__ = ["OPSET", "TARGET", "Form", "build", "emit", "refusals"]
