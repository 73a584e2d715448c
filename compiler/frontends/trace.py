"""Read a torch module: `torch.fx` finds what feeds what, and each module or function becomes its node.

The module takes (T, B, ...) and is traced with our neurons as leaves. What cannot be said in the IR is refused
with its name: nothing is skipped but what does nothing at inference (Dropout, Identity).
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import Any, cast

import numpy as np
import torch
from torch import fx, nn

from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Array, Dialect, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Activation,
    BatchNorm,
    Flatten,
    Input,
    LIConvolution,
    LIFConvolution,
    LIFScan,
    Linear,
    Output,
    Scale,
)
from unscan.compiler.spec import check
from unscan.trainer.dropout import SequenceDropout
from unscan.trainer.neurons import S4D, Leaky, LeakyIntegrator, LinearLeaky, SpikingSSM, StateLeaky
from unscan.trainer.neurons.base import Neuron
from unscan.trainer.norm import SequenceBatchNorm

Chain = Sequence[tuple[str, Node]]
"""What one module becomes: nodes, each fed by the one before, with the ending of their name."""


@singledispatch
def nodes_of(module: nn.Module) -> Chain:
    """Return the nodes that a leaf module becomes. Raises Unsupported for a module that has no node."""
    raise Unsupported(
        f"a {type(module).__module__}.{type(module).__name__}, and there is no node for it; supported are "
        f"{', '.join(sorted(LEAVES))}, residual adds, products with a number, and modules made of these"
    )


@nodes_of.register(nn.Identity)
@nodes_of.register(nn.Dropout)
@nodes_of.register(SequenceDropout)
def _(module: nn.Module) -> Chain:
    return []


@nodes_of.register
def _(module: nn.Linear) -> Chain:
    return [("", Linear(array(module.weight), None if module.bias is None else array(module.bias)))]


@nodes_of.register
def _(module: nn.Flatten) -> Chain:
    if module.start_dim != 2 or module.end_dim != -1:
        raise Unsupported(
            f"nn.Flatten({module.start_dim}, {module.end_dim}), which joins time or batch with the neurons of a "
            "(T, B, ...) sequence; use nn.Flatten(2)"
        )
    return [("", Flatten())]


@nodes_of.register
def _(module: SequenceBatchNorm) -> Chain:
    norm = module.norm
    arrays = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    weight, bias, mean, variance = (array(cast(torch.Tensor, tensor)) for tensor in arrays)
    return [("", BatchNorm(weight, bias, mean, variance, norm.eps))]


@nodes_of.register
def _(module: nn.GELU) -> Chain:
    if module.approximate != "none":
        raise Unsupported("nn.GELU(approximate='tanh'); the exact one, nn.GELU(), is supported")
    return [("", Activation("gelu"))]


@nodes_of.register
def _(module: nn.ReLU) -> Chain:
    return [("", Activation("relu"))]


@nodes_of.register
def _(module: nn.Sigmoid) -> Chain:
    return [("", Activation("sigmoid"))]


@nodes_of.register
def _(module: nn.Tanh) -> Chain:
    return [("", Activation("tanh"))]


@nodes_of.register
def _(module: nn.SiLU) -> Chain:
    return [("", Activation("silu"))]


@nodes_of.register
def _(module: Leaky) -> Chain:
    return [("", LIFScan(**settings_of(module, "reset", "phase", "fires", "gain")))]


@nodes_of.register
def _(module: StateLeaky) -> Chain:
    return [("", LIFConvolution(reset="none", **settings_of(module, "fires", "gain")))]


@nodes_of.register
def _(module: LinearLeaky) -> Chain:
    return [
        (f".{part}{ending}", node)
        for part in ("linear", "neuron")
        for ending, node in nodes_of(getattr(module, part))
    ]


@nodes_of.register
def _(module: LeakyIntegrator) -> Chain:
    return [("", LIConvolution(**settings_of(module, "gain")))]


def settings_of(neuron: Leaky | StateLeaky | LeakyIntegrator, *names: str) -> dict[str, Any]:
    """Return a neuron's numbers as arrays, and its settings of the given names."""
    numbers = [name for name in ("beta", "threshold") if hasattr(neuron, name)]
    return {name: array(getattr(neuron, name)) for name in numbers} | {n: getattr(neuron, n) for n in names}


LEAVES = {kind.__name__: kind for kind in nodes_of.registry if kind is not object}


def array(tensor: torch.Tensor) -> Array:
    """Return a tensor's numbers as numpy, in its own format; half precision becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()


FUNCTIONS: dict[Any, str] = {
    torch.relu: "relu",
    nn.functional.relu: "relu",
    "relu": "relu",
    torch.sigmoid: "sigmoid",
    nn.functional.sigmoid: "sigmoid",
    "sigmoid": "sigmoid",
    torch.tanh: "tanh",
    nn.functional.tanh: "tanh",
    "tanh": "tanh",
    nn.functional.silu: "silu",
}
ADDS = (operator.add, operator.iadd, torch.add, "add", "add_")
PRODUCTS = (operator.mul, operator.imul, torch.mul, "mul", "mul_")
FLATTENS = (torch.flatten, "flatten")
DROPOUTS = (nn.functional.dropout,)


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        ours = (
            *LEAVES.values(),
            Neuron,
            S4D,
            SpikingSSM,
        )  # also those that have no node, to be refused by name
        return isinstance(m, ours) or super().is_leaf_module(m, module_qualified_name)


class _Reader:
    """Walks a traced module; a value is the list of nodes whose outputs add up to it."""

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(model.named_modules())
        wide = any(p.dtype == torch.float64 for p in model.parameters())
        self.dtype = np.float64 if wide else np.float32
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []
        self.values: dict[fx.Node, tuple[str, ...]] = {}

    def append(self, name: str, node: Node, sources: tuple[str, ...]) -> tuple[str, ...]:
        unique, number = name, 1
        while unique in self.nodes:
            number += 1
            unique = f"{name}_{number}"
        self.nodes[unique] = node
        for source in dict.fromkeys(sources):
            times = sources.count(source)
            if times > 1:
                (source,) = self.append(
                    f"{source}_times_{times}", Scale(np.asarray(times, self.dtype)), (source,)
                )
            self.edges.append(Edge(source, unique))
        return (unique,)

    def call(self, node: fx.Node) -> tuple[str, ...]:
        operands = [a for a in node.args if isinstance(a, fx.Node)]
        if node.op == "call_module":
            where = f"the module {node.target!r}"
            if len(node.args) != 1 or node.kwargs or len(operands) != 1:
                raise Unsupported(
                    f"{where} is called with {len(node.args)} arguments and {dict(node.kwargs)}; call it with the "
                    "sequence alone, as state, membranes and other options are not part of the deployed graph."
                )
            value = self.values[operands[0]]
            try:
                chain = nodes_of(self.modules[str(node.target)])
            except Unsupported as fault:
                raise Unsupported(f"{where} is {fault}.") from None
            for ending, made in chain:
                value = self.append(f"{node.target}{ending}", made, value)
            return value
        numbers = [a for a in node.args if isinstance(a, int | float) and not isinstance(a, bool)]
        if node.target in ADDS and len(operands) == 2 and not node.kwargs:
            return self.values[operands[0]] + self.values[operands[1]]
        if node.target in PRODUCTS and len(operands) == len(numbers) == 1 and not node.kwargs:
            return self.append(node.name, Scale(np.asarray(numbers[0], self.dtype)), self.values[operands[0]])
        if node.target in FUNCTIONS and len(operands) == 1 and len(node.args) == 1:
            function = cast(Any, FUNCTIONS[node.target])
            return self.append(node.name, Activation(function), self.values[operands[0]])
        if node.target in FLATTENS and node.args[1:] == (2,) and not node.kwargs:
            return self.append(node.name, Flatten(), self.values[operands[0]])
        if node.target in DROPOUTS:
            return self.values[operands[0]]
        raise Unsupported(
            f"The model's forward uses {getattr(node.target, '__name__', node.target)} on {node.args} "
            f"({node.op}), which has no node; use the supported modules ({', '.join(sorted(LEAVES))}), residual "
            "adds, and products with a number."
        )


def trace(
    model: nn.Module,
    sample: torch.Tensor | Array,
    *,
    kind: Kind | str | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Graph:
    """Read a torch module into a parallel graph.

    Args:
        model: takes (T, B, ...) and returns (T, B, ...); BatchNorm is read as it runs at inference.
        sample: an input (T, B, ...), for the shape of a step.
        kind: what the input carries, "spike" (0 or 1) or "real"; None: spike where the sample is bool, else real.
        meta: facts to keep with the graph.

    Raises:
        Unsupported: a module or function that has no node, by name.
        InvalidInput: a sample that is no (T, B, ...) sequence, or a forward that depends on its input's values.
        InvalidGraph: shapes that do not fit, or parameters that are not finite, by name.
    """
    shape = tuple(np.shape(sample))
    if len(shape) < 3:
        raise InvalidInput(
            f"The sample has shape {shape}, wanted (T, B, ...): time first, then batch, then at least one axis of "
            "neurons; add the missing axes with [:, None] or [..., None]."
        )
    if kind is None:
        kind = Kind.SPIKE if str(sample.dtype).endswith("bool") else Kind.REAL
    tracer = _Tracer()
    if tracer.is_leaf_module(model, ""):
        model = nn.Sequential(model)
    try:
        traced = tracer.trace(model)
    except (fx.proxy.TraceError, TypeError) as fault:
        raise InvalidInput(
            f"The forward of {type(model).__name__} cannot be traced ({fault}): it depends on the values or the "
            "length of its input. Write it as a fixed chain of modules and additions over whole sequences."
        ) from None
    reader = _Reader(model)
    for node in traced.nodes:
        if node.op == "placeholder":
            if "input" in reader.nodes:
                raise Unsupported(
                    f"The forward of {type(model).__name__} takes more than one input; one is supported."
                )
            reader.values[node] = reader.append("input", Input(shape[2:], Kind(kind)), ())
        elif node.op == "output":
            if not isinstance(node.args[0], fx.Node):
                raise Unsupported(
                    f"The forward of {type(model).__name__} returns {type(node.args[0]).__name__}, wanted one tensor."
                )
            reader.append("output", Output(), reader.values[node.args[0]])
        elif node.op == "get_attr":
            raise Unsupported(
                f"The forward uses the tensor {node.target!r} directly; put it into a supported module."
            )
        else:
            reader.values[node] = reader.call(node)
    graph = Graph(reader.nodes, reader.edges, meta=meta)
    return check(graph, Dialect.PARALLEL, where=f"The traced {type(model).__name__}")
