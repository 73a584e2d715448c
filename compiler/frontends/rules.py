"""What the rules of other people's modules share: their numbers, what stands within them, and why one is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Builder, Results, Value
from unscan.compiler.frontends.composition import one_later
from unscan.compiler.frontends.modules import REASONS, array, read, rule_class
from unscan.compiler.ir import Array, Kind


def plain(module: nn.Module) -> None:
    """Raise Unsupported for a module of a class that writes parts of the one that has the rule anew."""
    for kind in type(module).__mro__:
        if kind in read.registry:
            return
        changed = sorted(
            key
            for key in vars(kind)
            if not key.startswith("__") and key != "extra_repr" and hasattr(kind.__base__, key)
        )
        if changed:
            raise refused(module, f"{kind.__name__} writes {', '.join(changed)} anew, which no rule knows")


def float64(value: Any) -> Array:
    """Return a number or tensor of a module in float64."""
    return np.asarray(array(value) if isinstance(value, torch.Tensor) else value, np.float64)


def said(value: Array) -> str:
    """Return a number, or the range of several, as a message says it."""
    low, high = f"{np.min(value):.6g}", f"{np.max(value):.6g}"
    return low if low == high else f"{low} to {high}"


def refused(module: nn.Module, reason: str) -> Unsupported:
    """Return the error for a module of another package, with the reason."""
    kind = type(module)
    return Unsupported(
        f"a {kind.__module__.partition('.')[0]}.{kind.__name__}, which cannot be read: {reason}"
    )


def refuse(reasons: Mapping[type[nn.Module], str]) -> None:
    """Register classes that have no node, and why: `read` raises Unsupported for them."""
    REASONS.update(reasons)
    for kind in reasons:
        read.register(kind, _refused)


def _refused(module: nn.Module, to: Builder, name: str, x: Value) -> Value:
    raise refused(module, next(REASONS[kind] for kind in type(module).__mro__ if kind in REASONS))


def within(module: nn.Module, inner: nn.Module, to: Builder, name: str, x: Value) -> Value:
    """Read a module that stands in another by its own rule, and return its first result."""
    if rule_class(inner) is None:
        raise refused(module, f"in it stands a {type(inner).__name__}, which has no rule of its own")
    found = read(inner, to, name, x)
    return cast(Value, found.values[0] if isinstance(found, Results) else found)


def back_from(to: Builder, name: str, shape: tuple[int, ...]) -> Value:
    """Write the delay from which spikes come back a step later; `close` feeds it."""
    return to.add(f"{name}.back", one_later(to, shape))


def close(module: nn.Module, to: Builder, back: Value, spikes: Value) -> Value:
    """Let spikes feed the delay from which they come back. Raises Unsupported for what is no spikes."""
    kind = to.signal(spikes).kind
    if back and kind is not Kind.SPIKE:
        raise refused(
            module, f"what comes back to it are {kind} numbers, and spikes are wanted: let it end in a neuron"
        )
    for before in back:
        to.feed(before, spikes)
    return spikes
