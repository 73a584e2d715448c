"""ONNX: one step with its states as inputs and outputs, or that step inside a Scan over the sequence.

Step form:  x (B, ...) and every `node.u` (B, ...)  ->  y (B, ...) and every `node.u.next` (B, ...).
Scan form:  x (T, B, ...) and every `node.u` (B, ...)  ->  y (T, B, ...) and every `node.u.next` (B, ...), the
last. B and T are free. A state that nothing was carried into is zero. `record` adds `node.spikes` of every
spiking node and `node.membrane` (before the reset) of every integrating one, in both forms.

Numbers are float32 or float64, as the graph's; a spike is the number 0 or 1. The facts that ONNX has no field
for stand in the model's metadata under `unscan.`: form, dtype, opset, kind of the input, states with shape and
initial value, the graph's digest, history and meta (with the decision over time).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import singledispatch
from math import sqrt
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Graph, Node, Signal
from unscan.compiler.nodes import LI, LIF, Activation, BatchNorm, Flatten, Input, Linear, Output, Scale
from unscan.compiler.nodes.neurons import Leaky
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets.base import Target, collect, facts, insist, no_rule, producer_version

Form = Literal["step", "scan"]
OPSET = 17
IR_VERSION = 8
LARGEST = 2**31 - 2**20
"""Bytes of constants that fit in one protocol buffer, with room for the graph."""


class Step:
    """The operators of one step while they are written.

    A value inside is named `node/label`, so that it can meet no name of the boundary; `suffix` keeps the boundary
    of a Scan's body apart from that of the graph round it.
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

    def boundary(self, name: str) -> str:
        """Return the name of an input or output of the step."""
        return f"{name}{self.suffix}"

    def add(self, operator: str, inputs: Iterable[str], name: str, label: str, **attributes: Any) -> str:
        """Write an operator of a node and return the name of its result."""
        result = f"{name}/{label}"
        self.operators.append(helper.make_node(operator, list(inputs), [result], result, **attributes))
        return result

    def constant(self, value: ArrayLike, name: str, label: str) -> str:
        """Write a constant of a node, in the graph's number format, and return its name."""
        key = f"{name}/{label}"
        array = np.ascontiguousarray(value, self.dtype).reshape(np.shape(value))
        self.constants[key] = numpy_helper.from_array(array, key)
        return key

    def keep(self, value: str, state: str) -> None:
        """Make a value the next one of a state."""
        self.give(value, f"{state}.next")

    def give(self, value: str, output: str) -> None:
        """Make a value an output of the step."""
        self.operators.append(
            helper.make_node("Identity", [value], [self.boundary(output)], f"{output}{self.suffix}/give")
        )

    def emit(self, name: str) -> None:
        """Write one node. Raises Unsupported with the reason."""
        arriving = [self.values.get(edge.source, edge.source) for edge in self.graph.into(name)]
        if not arriving:
            arriving = [self.boundary("x")]
        x = arriving[0]
        for i, other in enumerate(arriving[1:]):
            x = self.add("Add", [x, other], name, f"join{i}")
        self.values[name] = emit_node(self.graph.nodes[name], self, name, x)


@singledispatch
def emit_node(node: Node, step: Step, name: str, x: str) -> str:
    """Write the operators of one node that x feeds and return the name of what leaves it."""
    raise no_rule(node)


@emit_node.register
def _(node: Input, step: Step, name: str, x: str) -> str:
    return x


@emit_node.register
def _(node: Output, step: Step, name: str, x: str) -> str:
    step.give(x, "y")
    return x


@emit_node.register
def _(node: Linear, step: Step, name: str, x: str) -> str:
    inputs = [x, step.constant(node.weight, name, "weight")]
    if node.bias is not None:
        inputs.append(step.constant(node.bias, name, "bias"))
    return step.add("Gemm", inputs, name, "y", transB=1)


@emit_node.register
def _(node: Scale, step: Step, name: str, x: str) -> str:
    return step.add("Mul", [x, step.constant(node.scale, name, "scale")], name, "y")


@emit_node.register
def _(node: BatchNorm, step: Step, name: str, x: str) -> str:
    gain, offset = node.affine()
    scaled = step.add("Mul", [x, step.constant(gain, name, "gain")], name, "scaled")
    return step.add("Add", [scaled, step.constant(offset, name, "offset")], name, "y")


@emit_node.register
def _(node: Flatten, step: Step, name: str, x: str) -> str:
    return step.add("Flatten", [x], name, "y", axis=1)


@emit_node.register
def _(node: Activation, step: Step, name: str, x: str) -> str:
    match node.function:
        case "relu":
            return step.add("Relu", [x], name, "y")
        case "sigmoid":
            return step.add("Sigmoid", [x], name, "y")
        case "tanh":
            return step.add("Tanh", [x], name, "y")
        case "silu":
            return step.add("Mul", [x, step.add("Sigmoid", [x], name, "sigmoid")], name, "y")
        case "gelu":
            if step.dtype != np.float32:
                raise Unsupported(
                    "onnxruntime has the Erf of an exact gelu in float32 only; deploy the graph in float32"
                )
            z = step.add("Mul", [x, step.constant(1 / sqrt(2), name, "root")], name, "z")
            one = step.constant(1, name, "one")
            twice = step.add("Add", [step.add("Erf", [z], name, "erf"), one], name, "twice")
            half = step.add("Mul", [x, step.constant(0.5, name, "half")], name, "halved")
            return step.add("Mul", [half, twice], name, "y")
    raise Unsupported(f"it has no form of the function {node.function!r}")


@emit_node.register
def _(node: LI, step: Step, name: str, x: str) -> str:
    u = integrate(node, step, name, x)
    step.keep(u, f"{name}.u")
    step.membranes[name] = u
    return u


@emit_node.register
def _(node: LIF, step: Step, name: str, x: str) -> str:
    theta = step.constant(node.threshold, name, "threshold")
    u = integrate(node, step, name, x)
    if node.phase == "next":
        u = reset(node, step, name, u, fires(node, step, name, step.boundary(f"{name}.u"), theta, "before"))
    fired = fires(node, step, name, u, theta, "now")
    step.keep(u if node.phase == "next" else reset(node, step, name, u, fired), f"{name}.u")
    step.membranes[name] = u
    step.spikes[name] = as_number(step, fired, name, "spikes")
    return step.spikes[name]


def integrate(node: Leaky, step: Step, name: str, x: str) -> str:
    """Write beta u + g x and return its name."""
    beta = node.beta.astype(np.float64)
    kept = step.add("Mul", [step.boundary(f"{name}.u"), step.constant(beta, name, "beta")], name, "decayed")
    if node.gain == "1-beta":
        x = step.add("Mul", [x, step.constant(1 - beta, name, "gain")], name, "gained")
    return step.add("Add", [kept, x], name, "integrated")


def fires(node: LIF, step: Step, name: str, u: str, theta: str, label: str) -> str:
    """Write H(u - theta) and return the name of the condition, a tie counted as the node says."""
    operator = "GreaterOrEqual" if node.fires == ">=" else "Greater"
    return step.add(operator, [u, theta], name, f"fired_{label}")


def reset(node: LIF, step: Step, name: str, u: str, fired: str) -> str:
    """Write the reset of u where `fired` holds and return its name."""
    if node.reset == "subtract":
        spikes = as_number(step, fired, name, "resetting")
        drop = step.add("Mul", [spikes, f"{name}/threshold"], name, "drop")
        return step.add("Sub", [u, drop], name, "reset")
    if node.reset == "zero":
        return step.add("Where", [fired, step.constant(0, name, "zero"), u], name, "reset")
    return u


def as_number(step: Step, condition: str, name: str, label: str) -> str:
    """Write a condition as 0 or 1 and return its name."""
    return step.add("Cast", [condition], name, label, to=helper.np_dtype_to_tensor_dtype(step.dtype))


def build(
    graph: Graph, form: Form = "step", record: bool = False, *, values: bool = False
) -> onnx.ModelProto:
    """Return the checked ONNX model of an iterative graph; see the head of this file.

    Args:
        graph: what is written.
        form: "step" or "scan".
        record: add `node.spikes` and `node.membrane` to the outputs.
        values: add `node.value`, what leaves it, of every other node.

    Raises:
        Unsupported: a node has no form in ONNX, or its numbers pass 2 GB.
        InvalidInput: there is no such form.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    if form not in get_args(Form):
        raise InvalidInput(f"There is no ONNX form {form!r}; the forms are {', '.join(get_args(Form))}.")
    check(graph)
    step = Step(graph, "" if form == "step" else "@t")
    insist(graph, "onnx", collect(graph, step.emit))
    size = sum(array.nbytes for node in graph.nodes.values() for _, array in node.arrays())
    if size > LARGEST:
        raise Unsupported(
            f"The target onnx writes one file of less than 2 GB, and this graph has {size} bytes."
        )

    signals = graph.signals
    (source,), (sink,) = graph.of(Input), graph.of(Output)
    extra: dict[str, Signal] = {}
    if record:
        extra |= _give(step, step.spikes, "spikes") | _give(step, step.membranes, "membrane")
    if values:
        rest = {name: value for name, value in step.values.items() if name not in step.membranes}
        extra |= _give(step, rest, "value")
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


def _give(step: Step, values: dict[str, str], what: str) -> dict[str, Signal]:
    for name, value in values.items():
        step.give(value, f"{name}.{what}")
    return {f"{name}.{what}": step.graph.signals[name] for name in values}


def _metadata(graph: Graph, form: Form) -> dict[str, str]:
    (source,) = graph.of(Input)
    known = facts(graph) | {
        "form": form,
        "opset": OPSET,
        "producer": f"unscan {producer_version()}",
        "input": {"name": source, "kind": graph.signals[source].kind, "shape": graph.signals[source].shape},
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
    return collect(check(graph), Step(graph).emit)


TARGET = Target("onnx", ".onnx", "one step, or a Scan over the sequence, for onnxruntime", emit, refusals)

__all__ = ["OPSET", "TARGET", "Form", "build", "emit", "refusals"]
