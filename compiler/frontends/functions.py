"""Functions and methods of tensors into nodes, one rule each, by the name that they are called by.

A constant, a number or a tensor that the forward takes from its weights, is the same at every step: it may differ
between neurons alone. Multiplied it is a Scale; added it is a BatchNorm that scales by 1, which folds like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Value
from unscan.compiler.frontends.modules import array, read
from unscan.compiler.frontends.shapes import SHAPES
from unscan.compiler.frontends.site import Half, Outcome, Read, Site, Unusable
from unscan.compiler.ir import Array, Kind
from unscan.compiler.nodes import GLU, Activation, BatchNorm, Linear, Multiply, Scale, Threshold
from unscan.compiler.nodes.stateless import Function


def read_function(site: Site) -> Outcome:
    """Return what a function gives. Raises Unsupported with its name and the line of the user's file."""
    rule = FUNCTIONS.get(site.call.name)
    if rule is None:
        raise site.refused(
            REASONS.get(
                site.call.name,
                "it has no node; use supported modules, sums and products, activations, and changes of shape that "
                "leave time and batch alone",
            )
        )
    return rule(site)


def _operands(site: Site) -> tuple[Any, Any]:
    first, second = site.argument(0, "input"), site.argument(1, "other")
    for given in (first, second):
        if type(given) is Unusable:
            site.usable(given)
    if isinstance(first, Read) and isinstance(second, Read):
        if (first.axes, first.shape) != (second.axes, second.shape):
            raise site.refused(
                f"tensors of different shapes are combined, neurons {first.shape} and {second.shape}, and signals of "
                "one shape are needed"
            )
        if first.time is None and second.time is not None:
            first, second = second, first
    return first, second


def _scaled(site: Site, x: Read, by: Array) -> Read:
    return replace(x, value=site.to.add(site.name, Scale(by), x.value))


def _shifted(site: Site, x: Read, by: Array) -> Read:
    if not by.any():
        return x
    one, zero = np.ones_like(by), np.zeros_like(by)
    return replace(x, value=site.to.add(site.name, BatchNorm(one, by, zero, one, 0.0), x.value))


def _add(site: Site) -> Read:
    first, second = _operands(site)
    if site.kwargs.get("alpha", 1) != 1:
        raise site.refused("it has an alpha; multiply, then add")
    if isinstance(first, Read) and isinstance(second, Read):
        return replace(first, value=first.value + second.value)
    x, constant = (first, second) if isinstance(first, Read) else (second, first)
    return _shifted(site, site.usable(x), site.constant(constant, site.usable(x)))


def _subtract(site: Site, *, swapped: bool = False) -> Read:
    first, second = _operands(site)
    if site.kwargs.get("alpha", 1) != 1:
        raise site.refused("it has an alpha; multiply, then subtract")
    if swapped:
        first, second = second, first
    minus = site.to.number(-1)
    if not isinstance(second, Read):
        x = site.usable(first)
        return _shifted(site, x, -site.constant(second, x))
    negative = _scaled(site, second, minus)
    if isinstance(first, Read):
        return replace(first, value=first.value + negative.value)
    return _shifted(site, negative, site.constant(first, second))


def _multiply(site: Site) -> Read:
    first, second = _operands(site)
    if isinstance(first, Half) or isinstance(second, Half):
        return _gated(site, first, second)
    if isinstance(first, Read) and isinstance(second, Read):
        return replace(first, value=site.to.add(site.name, Multiply(), first.value, second.value))
    x, constant = (first, second) if isinstance(first, Read) else (second, first)
    return _scaled(site, site.usable(x), site.constant(constant, site.usable(x)))


def _gated(site: Site, first: Any, second: Any) -> Read:
    """A GLU written by hand: the first half times the sigmoid of the second."""
    for half, gate in ((first, second), (second, first)):
        if (
            isinstance(half, Half)
            and isinstance(gate, Half)
            and gate.gate
            and half.whole is gate.whole
            and half.whole is not None
            and not half.second
        ):
            return site.gives(half.whole, GLU())
    raise site.refused(first.reason if isinstance(first, Half) else second.reason)


def _divide(site: Site) -> Read:
    first, second = _operands(site)
    if isinstance(second, Read):
        raise site.refused("it divides by a signal, which has no node")
    if site.kwargs.get("rounding_mode") is not None:
        raise site.refused("it rounds what it divides, which has no node")
    x = site.usable(first)
    return _scaled(site, x, 1 / site.constant(second, x))


def _inverse(site: Site) -> Read:
    raise site.refused("it divides by a signal, which has no node")


def _negate(site: Site) -> Read:
    return _scaled(site, site.read(), site.to.number(-1))


def _activation(function: Function, **defaults: Any) -> Callable[[Site], Outcome]:
    def rule(site: Site) -> Outcome:
        given = site.argument(0, "input")
        if function == "sigmoid" and isinstance(given, Half) and given.second and not given.gate:
            return replace(given, gate=True)
        for place, (name, wanted) in enumerate(defaults.items(), start=1):
            if site.argument(place, name, wanted) != wanted:
                raise site.refused(f"{name} is {site.argument(place, name)}, and the node has {wanted}")
        return site.gives(site.read(), Activation(function))

    return rule


def _gelu(site: Site) -> Read:
    tanh = site.kwargs.get("approximate", "none") == "tanh"
    return site.gives(site.read(), Activation("gelu-tanh" if tanh else "gelu"))


def _threshold(fires: str) -> Callable[[Site], Read]:
    def rule(site: Site) -> Read:
        first, second = _operands(site)
        if not isinstance(first, Read) or isinstance(second, Read):
            raise site.refused("it compares signals with each other, which has no node")
        level = site.constant(second, first)
        if not (level > 0).all():
            raise site.refused("it compares with a threshold that is not greater than 0")
        return site.gives(first, Threshold(threshold=level, fires=cast(Any, fires)))

    return rule


def _linear(site: Site) -> Read:
    weight, bias = site.argument(1, "weight"), site.argument(2, "bias")
    if isinstance(weight, Read | Unusable) or isinstance(bias, Read | Unusable):
        raise site.refused("its weights depend on the input, which has no node")
    return site.gives(site.read(), Linear(array(weight), None if bias is None else array(bias)))


def _matmul(site: Site) -> Read:
    x, weight = site.argument(0, "input"), site.argument(1, "other")
    if not isinstance(x, Read) or not isinstance(weight, torch.Tensor) or weight.dim() != 2:
        raise site.refused("only a signal times a constant matrix has a node, x @ W")
    return site.gives(x, Linear(array(weight.T)))


def _pool(kind: type[nn.MaxPool2d] | type[nn.AvgPool2d], *names: str) -> Callable[[Site], Read]:
    """Return the rule of a pool that is called as a function: that of its module, by the names of its options."""

    def rule(site: Site) -> Read:
        x = site.read()
        options = {name: site.argument(place, name) for place, name in enumerate(names, start=1)}
        module = kind(**{name: value for name, value in options.items() if value not in (None, [], ())})
        site.to.axes, site.to.expected = x.axes, ()
        try:
            value = read(module, site.to, site.name, x.value)
        except Unsupported as fault:
            raise site.refused(f"it is {fault}") from None
        finally:
            site.to.axes = None
        return site.gives(replace(x, value=cast(Value, value)))

    return rule


def _glu(site: Site) -> Read:
    x = site.read()
    dims = len(site.lead(x.axes)) + len(x.shape)
    if site.argument(1, "dim", -1) not in (-1, dims - 1):
        raise site.refused("it halves another axis than the last")
    return site.gives(x, GLU())


def _dropout(site: Site) -> Read:
    if site.argument(1, "p", 0.5) and site.argument(2, "training", True):
        raise site.refused(
            "it drops at inference too, as training is True where it is not said; pass training=self.training, or use "
            "nn.Dropout"
        )
    return site.read()


def _identity(site: Site) -> Read:
    for given in (*site.args[1:], *site.kwargs.values()):
        if isinstance(given, torch.dtype) and given not in (torch.float32, torch.float64):
            raise site.refused(f"it rounds to {given}, and graphs compute in float32 or float64")
    x = site.read()
    narrow = site.call.name == "float" or torch.float32 in (*site.args[1:], *site.kwargs.values())
    if narrow and site.to.dtype == np.float64 and site.to.signal(x.value).kind is not Kind.SPIKE:
        raise site.refused("it rounds to float32, and the model computes in float64")
    return x


FUNCTIONS: dict[str, Callable[[Site], Outcome]] = {
    **dict.fromkeys(("add", "radd", "iadd"), _add),
    **dict.fromkeys(("sub", "subtract", "isub"), _subtract),
    "rsub": lambda site: _subtract(site, swapped=True),
    **dict.fromkeys(("mul", "multiply", "rmul", "imul"), _multiply),
    **dict.fromkeys(("div", "divide", "true_divide", "truediv", "itruediv", "idiv"), _divide),
    **dict.fromkeys(("neg", "negative"), _negate),
    "relu": _activation("relu"),
    "sigmoid": _activation("sigmoid"),
    "tanh": _activation("tanh"),
    "silu": _activation("silu"),
    "gelu": _gelu,
    "elu": _activation("elu", alpha=1.0),
    "softplus": _activation("softplus", beta=1, threshold=20),
    "relu6": _activation("relu6"),
    "hardtanh": _activation("hardtanh", min_val=-1.0, max_val=1.0),
    "hardsigmoid": _activation("hardsigmoid"),
    **dict.fromkeys(("gt", "greater"), _threshold(">")),
    **dict.fromkeys(("ge", "greater_equal"), _threshold(">=")),
    "linear": _linear,
    "matmul": _matmul,
    "glu": _glu,
    "max_pool2d": _pool(
        nn.MaxPool2d, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices"
    ),
    "avg_pool2d": _pool(
        nn.AvgPool2d, "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
    ),
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "alpha_dropout"), _dropout),
    **dict.fromkeys(("float", "double", "to", "type", "type_as", "cpu", "cuda"), _identity),
    **dict.fromkeys(("rdiv", "rtruediv", "reciprocal"), _inverse),
    **SHAPES,
}
"""Rules by the name of a function or method, without underscores."""

_DECISION = (
    "it has no node; over steps it is a decision, and no part of a graph, which gives an output at every step: return "
    "all steps, and decide outside of the model"
)
_MODULE = "use the module of torch.nn in its place, so that its weights have a name"
_TIME = "it mixes the steps of a sequence, which only neurons and state-space layers do"
REASONS = {
    **dict.fromkeys(
        ["mean", "sum", "amax", "max", "median", "var", "std", "norm", "prod", "argmax"], _DECISION
    ),
    **dict.fromkeys(
        ["conv1d", "conv2d", "batch_norm", "layer_norm", "rms_norm", "embedding"],
        _MODULE,
    ),
    **dict.fromkeys(
        ["flip", "roll", "cumsum", "cumprod", "fft", "rfft", "irfft", "scaled_dot_product_attention"], _TIME
    ),
    **dict.fromkeys(
        ["bernoulli", "rand_like", "randn_like", "normal", "multinomial"], "random numbers have no node"
    ),
    "where": "a choice between tensors has no node; write it with neurons, products and sums",
}
"""Why some functions have no node."""
