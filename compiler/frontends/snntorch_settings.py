"""What the fields of a snnTorch neuron say, and which of them no node can say."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unscan.compiler.frontends import rules
from unscan.compiler.frontends.builder import Builder, Results, Value
from unscan.compiler.frontends.composition import Firing, number
from unscan.compiler.frontends.modules import array
from unscan.compiler.frontends.rules import refused, said
from unscan.compiler.ir import Array
from unscan.compiler.nodes import Scale
from unscan.compiler.nodes.neurons import Fires, Phase, Reset

RESETS: dict[str, Reset] = {"_base_sub": "subtract", "_base_zero": "zero", "_base_int": "none"}
"""Method that a neuron steps by -> its reset, in the order of its `reset_mechanism_val`."""


def firing_of(module: Any, to: Builder, *, zero: Phase = "next") -> Firing:
    """Return when a neuron that takes one step fires. Raises Unsupported for what no node says."""
    to.expects("step")
    if module.inhibition:
        raise refused(
            module, "with inhibition=True only its largest membrane fires, and no node compares neurons"
        )
    fires = fires_of(module)
    reset = RESETS.get(module.state_function.__name__, "none")
    stated = list(RESETS.values())[int(module.reset_mechanism_val)]
    if reset != stated:
        raise refused(
            module,
            f"it was built with reset_mechanism={reset!r} and holds {stated!r} now, which reaches only a part of it; "
            "build it with the reset that it is to have",
        )
    threshold = threshold_of(module, to, module.threshold)
    return Firing(threshold, fires, reset, bool(getattr(module, "reset_delay", True)), zero)


def fires_of(module: Any) -> Fires:
    """Return whether a tie fires, which the neuron's own `spike_grad` is asked. Raises Unsupported for no step."""
    plain(module)
    with torch.no_grad():
        *rest, tie, low, middle, high = module.spike_grad(
            torch.tensor([-1e3, -1, -1e-6, 0, 1e-6, 1, 1e3])
        ).tolist()
    if [*rest, low, middle, high] != [0, 0, 0, 1, 1, 1] or tie not in (0, 1):
        raise refused(module, "its spike_grad gives other numbers than 0 below the threshold and 1 above it")
    return ">=" if tie else ">"


def plain(module: Any) -> None:
    """Raise Unsupported for a neuron with quantised states, or one whose steps a user has written anew."""
    rules.plain(module)
    if getattr(module, "state_quant", False):
        raise refused(
            module,
            "with state_quant its states are rounded at each step, and no node rounds; quantise it later",
        )


def threshold_of(module: Any, to: Builder, threshold: torch.Tensor) -> Array:
    """Return a threshold. Raises Unsupported where a neuron at rest would fire."""
    found = array(threshold)
    if not np.all(found > 0):
        raise refused(module, f"its threshold is {said(found)}, and a node's is greater than 0")
    return number(to, found)


def decay_of(module: Any, to: Builder, name: str, field: str) -> Array:
    """Return a decay, clamped to [0, 1] as the neuron does in each step."""
    found = array(getattr(module, field))
    clamped = np.clip(found, 0, 1)
    if not np.array_equal(found, clamped):
        to.notes.append(f"{name}: its {field}, {said(found)}, is clamped to [0, 1], as snnTorch does")
    return number(to, clamped)


def graded(module: Any, to: Builder, name: str, spikes: Value, *, times: int = 1) -> Value:
    """Return spikes times `graded_spikes_factor`, so many times."""
    factor = array(module.graded_spikes_factor)
    return (
        spikes if np.all(factor == 1) else to.add(f"{name}.graded", Scale(number(to, factor**times)), spikes)
    )


def returned(module: Any, spikes: Value, *states: Value | None) -> Value | Results:
    """Return what the module's forward returns."""
    return spikes if module.init_hidden and not module.output else Results((spikes, *states))
