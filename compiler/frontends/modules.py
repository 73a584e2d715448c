"""Torch modules into nodes, one rule each: those of torch.nn here, those of others in files of their own."""

from __future__ import annotations

from functools import singledispatch
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import nn

from unscan.compiler.errors import MissingDependency, Unsupported
from unscan.compiler.frontends.builder import Builder, Results, Value
from unscan.compiler.ir import Array, Kind
from unscan.compiler.nodes import (
    GLU,
    Activation,
    AvgPool2d,
    BatchNorm,
    Conv1d,
    Conv2d,
    Embedding,
    LayerNorm,
    Linear,
    MaxPool2d,
    RMSNorm,
    SumPool2d,
    Threshold,
)
from unscan.compiler.nodes.stateless import Function

RULES = {
    "unscan": "unscan.compiler.frontends.ours",
    "snntorch": "unscan.compiler.frontends.snntorch",
    "spikingjelly": "unscan.compiler.frontends.spikingjelly",
    "norse": "unscan.compiler.frontends.norse",
}
"""Package of a module's class -> the file with its rules, imported once such a module is met."""

VERSIONS = {"snntorch": "snntorch==1.0.0", "spikingjelly": "spikingjelly==2.0.0", "norse": "norse==1.1.0"}
"""Package -> the release that its rules were written for and tested with."""

REASONS: dict[type[nn.Module], str] = {
    nn.RNNBase: "its cells have no node, as they do not fire; use neurons",
    nn.RNNCellBase: "it has no node, as it does not fire; use neurons",
    nn.MultiheadAttention: "it mixes all steps of a sequence, so no step form of it with a state of its own exists",
    nn.Transformer: "it mixes all steps of a sequence, so no step form of it with a state of its own exists",
    nn.TransformerEncoderLayer: "it mixes all steps of a sequence, so no step form of it with a state exists",
    nn.TransformerDecoderLayer: "it mixes all steps of a sequence, so no step form of it with a state exists",
    nn.MaxPool1d: "a maximum of real numbers has no node; pool with nn.AvgPool2d, or by stride",
    nn.Softmax: "a softmax has no node; leave it out, as it changes no order, and apply it to the outputs",
    nn.LogSoftmax: "a softmax has no node; leave it out, as it changes no order, and apply it to the outputs",
}
"""Classes that have no node, and why."""

RESETS = {"snntorch": "reset_mem", "spikingjelly": "reset"}
"""Package of a module's class -> the method that puts its hidden states to their start."""


@singledispatch
def read(module: nn.Module, to: Builder, name: str, x: Value) -> Value | Results:
    """Write the nodes of a leaf module, fed by x, and return what leaves it.

    Nodes are named after the module: `name`, or `name` and an ending where it is several. A module that returns
    several things gives `Results`. Raises Unsupported, as a clause "the module 'name' is ...", where it has no node.
    """
    kind = f"a {type(module).__module__}.{type(module).__name__}"
    if getattr(module, "bidirectional", False):
        raise Unsupported(
            f"{kind}, which is bidirectional: what it gives at a step depends on later steps, so it has no step form; "
            "train a causal model"
        )
    reason = next((REASONS[base] for base in type(module).__mro__ if base in REASONS), None)
    if reason is not None:
        raise Unsupported(f"{kind}, and {reason}")
    raise Unsupported(
        f"{kind}, and there is no node for it; supported are "
        f"{', '.join(supported())}, sums and products of signals, and modules made of these"
    )


def supported() -> list[str]:
    """Return the names of the classes that have a rule."""
    return sorted(kind.__name__ for kind in read.registry if kind is not object and kind not in REASONS)


def load_rules(model: nn.Module) -> None:
    """Import the rules of every package that a model has modules of.

    Raises MissingDependency where the package is of a version that has other classes than the rules are for.
    """
    packages = {
        kind.__module__.partition(".")[0] for module in model.modules() for kind in type(module).__mro__
    }
    for package in sorted(packages & set(RULES)):
        try:
            import_module(RULES[package])
        except ImportError as fault:
            raise MissingDependency(
                f"The model has modules of {package}, and what is installed of it is not what its rules are for "
                f"({fault}); they are for {VERSIONS[package]}: pip install {VERSIONS[package]}"
            ) from None


def rest(model: nn.Module) -> None:
    """Put the states that modules keep from call to call to their start, as each framework does."""
    for module in model.modules():
        for kind in type(module).__mro__:
            reset = getattr(module, RESETS.get(kind.__module__.partition(".")[0], ""), None)
            if callable(reset):
                reset()
                break


def settle(module: nn.Module) -> None:
    """Compute the weights that torch.nn.utils computes before each call: pruned, or normed."""
    for hook in module._forward_pre_hooks.values():
        if type(hook).__module__.startswith("torch.nn.utils"):
            hook(module, ())


def rule_class(module: nn.Module) -> type | None:
    """Return the class whose rule reads a module; None where there is none, or where its forward is its own."""
    for kind in type(module).__mro__:
        if kind in read.registry and kind is not object:
            return kind if getattr(kind, "forward", None) is type(module).forward else None
    return None


def typical(model: nn.Module) -> torch.Tensor:
    """Return a tensor in the number format and on the device that a model computes in: the first of its numbers."""
    numbers = (n for held in (model.parameters(), model.buffers()) for n in held if n.is_floating_point())
    return next(numbers, torch.zeros(()))


def array(tensor: torch.Tensor) -> Array:
    """Return a tensor's numbers as numpy, in its own format; half precision becomes float32."""
    tensor = tensor.detach().cpu()
    return (tensor if tensor.dtype == torch.float64 else tensor.float()).numpy()


@read.register(nn.Identity)
@read.register(nn.Dropout)
@read.register(nn.Dropout1d)
@read.register(nn.Dropout2d)
@read.register(nn.AlphaDropout)
def _(module: nn.Module, to: Builder, name: str, x: Value) -> Value:
    return x


@read.register
def _(module: nn.Linear, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, Linear(array(module.weight), optional(module.bias)), x)


@read.register
def _(module: nn.Conv1d, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, Conv1d(**convolution(module, to)), x)


@read.register
def _(module: nn.Conv2d, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, Conv2d(**convolution(module, to)), x)


def convolution(module: nn.Conv1d | nn.Conv2d, to: Builder) -> dict[str, Any]:
    """Return the fields of a convolution's node."""
    to.expects("folded", "step")
    if module.padding_mode != "zeros":
        raise Unsupported(f"padded by {module.padding_mode!r}, and nodes are padded with zeros")
    padding: Any = module.padding
    if padding == "valid":
        padding = 0
    elif padding == "same":
        total = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        padding = (*(n // 2 for n in total), *(n - n // 2 for n in total))
    return {
        "weight": array(module.weight),
        "bias": optional(module.bias),
        "stride": module.stride,
        "padding": padding,
        "dilation": module.dilation,
        "groups": module.groups,
    }


@read.register
def _(module: nn.AvgPool2d, to: Builder, name: str, x: Value) -> Value:
    to.expects("folded", "step")
    if module.ceil_mode or module.divisor_override is not None:
        raise Unsupported("an AvgPool2d with ceil_mode or divisor_override, which has no node")
    if not module.count_include_pad and module.padding not in (0, (0, 0)):
        raise Unsupported("an AvgPool2d that leaves its padding out of the count, which has no node")
    return to.add(name, AvgPool2d(kernel=module.kernel_size, stride=module.stride, padding=module.padding), x)


@read.register
def _(module: nn.MaxPool2d, to: Builder, name: str, x: Value) -> Value:
    """Write it as H(sum - 1) where spikes are pooled, which more targets have."""
    to.expects("folded", "step")
    if module.ceil_mode or module.return_indices or module.dilation not in (1, (1, 1)):
        raise Unsupported("a MaxPool2d with ceil_mode, return_indices or dilation, which has no node")
    window = {"kernel": module.kernel_size, "stride": module.stride, "padding": module.padding}
    if to.signal(x).kind is not Kind.SPIKE:
        return to.add(name, MaxPool2d(**window), x)
    return to.add(name, Threshold(threshold=to.number(1)), to.add(f"{name}.sum", SumPool2d(**window), x))


@read.register(nn.BatchNorm1d)
@read.register(nn.BatchNorm2d)
def _(module: nn.BatchNorm1d | nn.BatchNorm2d, to: Builder, name: str, x: Value) -> Value:
    to.expects("folded", "step")
    return to.add(name, batch_norm(module, () if isinstance(module, nn.BatchNorm1d) else (1, 1)), x)


def batch_norm(module: nn.BatchNorm1d | nn.BatchNorm2d, axes: tuple[int, ...] = ()) -> BatchNorm:
    """Return the node of a batch norm as it runs at inference, with so many axes behind that of the channels."""
    if module.running_mean is None or module.running_var is None:
        raise Unsupported(
            "a batch norm without running statistics: it norms each batch by itself, so that a sample's result depends "
            "on the others; train it with track_running_stats=True"
        )
    mean, variance = array(module.running_mean), array(module.running_var)
    weight = np.ones_like(mean) if module.weight is None else array(module.weight)
    bias = np.zeros_like(mean) if module.bias is None else array(module.bias)
    weight, bias, mean, variance = (a.reshape(-1, *axes) for a in (weight, bias, mean, variance))
    return BatchNorm(weight, bias, mean, variance, module.eps)


@read.register
def _(module: nn.LayerNorm, to: Builder, name: str, x: Value) -> Value:
    weight = module.weight
    gains = to.number(np.ones(module.normalized_shape)) if weight is None else array(weight)
    return to.add(name, LayerNorm(gains, optional(module.bias), module.eps), x)


@read.register
def _(module: nn.RMSNorm, to: Builder, name: str, x: Value) -> Value:
    gains = to.number(np.ones(module.normalized_shape)) if module.weight is None else array(module.weight)
    epsilon = float(np.finfo(gains.dtype).eps) if module.eps is None else module.eps
    return to.add(name, RMSNorm(gains, epsilon), x)


@read.register
def _(module: nn.GLU, to: Builder, name: str, x: Value) -> Value:
    if module.dim != -1:
        raise Unsupported(f"nn.GLU({module.dim}); the one along the last axis, nn.GLU(-1), is supported")
    return to.add(name, GLU(), x)


@read.register
def _(module: nn.Embedding, to: Builder, name: str, x: Value) -> Value:
    if module.max_norm is not None:
        raise Unsupported("an nn.Embedding with max_norm, which changes its rows as they are read")
    return to.add(name, Embedding(array(module.weight)), x)


ACTIVATIONS: dict[type[nn.Module], Function] = {
    nn.ReLU: "relu",
    nn.Sigmoid: "sigmoid",
    nn.Tanh: "tanh",
    nn.SiLU: "silu",
    nn.GELU: "gelu",
    nn.ELU: "elu",
    nn.Softplus: "softplus",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    nn.Hardsigmoid: "hardsigmoid",
}
DEFAULTS: dict[type[nn.Module], dict[str, Any]] = {
    nn.ELU: {"alpha": 1},
    nn.Softplus: {"beta": 1, "threshold": 20},
    nn.Hardtanh: {"min_val": -1, "max_val": 1},
}
"""The settings that an activation must have."""


def activation(module: nn.Module, to: Builder, name: str, x: Value) -> Value:
    """Write the node of an activation."""
    kind = next(kind for kind in type(module).__mro__ if kind in ACTIVATIONS)
    for setting, wanted in DEFAULTS.get(kind, {}).items():
        if getattr(module, setting) != wanted:
            raise Unsupported(
                f"an nn.{kind.__name__} with {setting}={getattr(module, setting)}, and the node has {wanted}"
            )
    function = ACTIVATIONS[kind]
    if isinstance(module, nn.GELU) and module.approximate == "tanh":
        function = "gelu-tanh"
    return to.add(name, Activation(function), x)


for _kind in ACTIVATIONS:
    read.register(_kind, activation)


def optional(tensor: torch.Tensor | None) -> Array | None:
    """Return what `array` does, None where there is none."""
    return None if tensor is None else array(tensor)
