"""NIR for the nodes without memory, and the reasons for those that it cannot say."""

from __future__ import annotations

from math import prod

import nir
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array
from unscan.compiler.nodes import (
    GLU,
    Activation,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    Pool2d,
    Reshape,
    RMSNorm,
    Scale,
    TopK,
)
from unscan.compiler.nodes.convolution import Window
from unscan.targets.nir_encoding import DEPLOY, Encoding, emit_node


@emit_node.register
def _(node: Input, to: Encoding, name: str, x: str) -> str:
    to.primitives["input"] = nir.Input(np.array(to.shape(name)))
    return "input"


@emit_node.register
def _(node: Output, to: Encoding, name: str, x: str) -> str:
    to.primitives["output"] = nir.Output(np.array(to.shape(name)))
    to.connect(x, "output")
    return "output"


@emit_node.register
def _(node: Linear, to: Encoding, name: str, x: str) -> str:
    bias = None if to.comes_back(name) else node.bias
    return to.add(to.linear(node.weight, bias), "linear" if bias is None else "affine", x)


@emit_node.register
def _(node: Scale, to: Encoding, name: str, x: str) -> str:
    return to.add(to.diagonal(node.scale, to.shape(name)), "scale", x)


@emit_node.register
def _(node: Conv2d, to: Encoding, name: str, x: str) -> str:
    weight = dense(node.weight, node.groups) if node.groups > 1 else node.weight
    return slide(node, weight, node.bias, node.dilation, to, name, x)


@emit_node.register
def _(node: Pool2d, to: Encoding, name: str, x: str) -> str:
    channels, _, _ = to.fed(name)
    assert isinstance(node.kernel, tuple)
    share = prod(node.kernel) if isinstance(node, AvgPool2d) else 1
    weight = dense(np.full((channels, 1, *node.kernel), 1 / share), channels)
    return slide(node, weight, None, (1, 1), to, name, x)


@emit_node.register
def _(node: MaxPool2d, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"NIR has no maximum; pool spikes, behind the neurons, in the model, or {DEPLOY}")


def dense(weight: Array, groups: int) -> Array:
    """Return the weight of the same convolution in one group: snnTorch and norse read those in more as other sizes."""
    outputs, part, *kernel = weight.shape
    full = np.zeros((outputs, part * groups, *kernel), weight.dtype)
    for rows, columns in zip(
        np.split(np.arange(outputs), groups), np.split(np.arange(part * groups), groups), strict=True
    ):
        full[np.ix_(rows, columns)] = weight[rows]
    return full


def slide(
    node: Window,
    weight: Array,
    bias: Array | None,
    dilation: int | tuple[int, ...],
    to: Encoding,
    name: str,
    x: str,
) -> str:
    """Write a Conv2d of one group and return its name.

    A pool is one too: norse drops an AvgPool2d and the padding of a SumPool2d, and takes a sum as a mean times a size.
    """
    before = alike(node)
    rows, columns = weight.shape[2:]
    if rows != columns:
        raise Unsupported(
            f"its window covers {rows} x {columns}, and nir itself counts the places of square ones only; fill it up "
            f"with zeros in the model, or {DEPLOY}"
        )
    window = to.conv2d(weight, to.fed(name), bias, stride=node.stride, padding=before, dilation=dilation)
    return to.add(window, "conv2d", x)


def alike(node: Window) -> tuple[int, ...]:
    """Return the padding of one side of a window, the same on both. Raises Unsupported where it is not."""
    assert isinstance(node.padding, tuple)
    axes = len(node.padding) // 2
    before, behind = node.padding[:axes], node.padding[axes:]
    if before != behind:
        raise Unsupported(
            f"it pads {before} before and {behind} behind, and NIR pads both sides alike; pad both in the model, or "
            f"{DEPLOY}"
        )
    return before


@emit_node.register
def _(node: Conv1d, to: Encoding, name: str, x: str) -> str:
    if not to.profile.conv1d:
        raise Unsupported(
            "norse drops a NIR Conv1d without a word, and snnTorch has none; write it as a Conv2d over images of one "
            f"row, or {DEPLOY}"
        )
    outputs = len(node.weight)
    window = nir.Conv1d(
        input_shape=to.fed(name)[1],
        weight=dense(node.weight, node.groups),
        stride=node.stride,
        padding=alike(node),
        dilation=node.dilation,
        groups=1,
        bias=np.zeros(outputs, to.graph.dtype) if node.bias is None else node.bias,
    )
    return to.add(window, "conv1d", x)


@emit_node.register
def _(node: Flatten, to: Encoding, name: str, x: str) -> str:
    return flatten(to, name, x)


@emit_node.register
def _(node: Reshape, to: Encoding, name: str, x: str) -> str:
    if len(node.shape) > 1 and node.shape != to.fed(name):
        raise Unsupported(
            f"it gives {to.fed(name)} the shape {node.shape}, and NIR can only flatten; give the graph an input of "
            f"that shape, or {DEPLOY}"
        )
    return flatten(to, name, x)


def flatten(to: Encoding, name: str, x: str) -> str:
    """Write what joins all axes, counted from the last, so that it is the same with and without a batch before them."""
    shape = to.fed(name)
    if shape == to.shape(name):
        return x
    return to.add(nir.Flatten({"input": np.array(shape)}, -len(shape), -1), "flatten", x)


@emit_node.register
def _(node: BatchNorm, to: Encoding, name: str, x: str) -> str:
    raise Unsupported("NIR has no normalisation; run fold-norm, which moves it into the weights before it")


@emit_node.register
def _(node: LayerNorm | RMSNorm, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(
        "NIR has no normalisation, and one by the numbers at hand cannot be folded into weights; train with BatchNorm, "
        f"or {DEPLOY}"
    )


@emit_node.register
def _(node: Activation, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"NIR has no {node.function}, and no pass replaces it; {DEPLOY}, or train without it")


@emit_node.register
def _(node: GLU | Multiply, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"NIR has no product of two signals; {DEPLOY}, or train without it")


@emit_node.register
def _(node: TopK, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(f"no NIR primitive compares one neuron with another; {DEPLOY}")


@emit_node.register
def _(node: Embedding, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(
        f"NIR has no table from which an index takes a row; feed the rows themselves, or {DEPLOY}"
    )


@emit_node.register
def _(node: Concatenate, to: Encoding, name: str, x: str) -> str:
    raise Unsupported(
        f"NIR has no primitive of two inputs, and norse runs branches that meet wrongly; {DEPLOY}"
    )
