"""The neurons and layers of `unscan.trainer` into nodes, each in its parallel form."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from unscan.compiler.frontends.builder import Builder, Value
from unscan.compiler.frontends.modules import REASONS, array, batch_norm, read
from unscan.compiler.nodes import (
    GLU,
    Activation,
    AdaptiveLIFScan,
    AssociativeScan,
    CubaLIFScan,
    Delay,
    DeltaScan,
    DiagonalConvolution,
    LIConvolution,
    LIFAnnealed,
    LIFConvolution,
    LIFScan,
    LIFSurrogate,
    Scale,
    Threshold,
    TopK,
)
from unscan.trainer.dropout import SequenceDropout
from unscan.trainer.neurons import (
    S4D,
    AdaptiveLeaky,
    AnnealedLeaky,
    AssociativeLeaky,
    BinaryThreshold,
    DeltaLeaky,
    Leaky,
    LeakyIntegrator,
    LinearLeaky,
    SlidingPSN,
    SpikingSSM,
    StateLeaky,
    StochasticLeaky,
    SurrogateLeaky,
    Synaptic,
)
from unscan.trainer.neurons.base import Neuron
from unscan.trainer.neurons.matrix_memory import MatrixMemory
from unscan.trainer.neurons.surrogate_network import SHAPES
from unscan.trainer.norm import SequenceBatchNorm

REASONS[StochasticLeaky] = "it fires by chance, and random numbers have no node; train another neuron"


def numbers(neuron: Neuron, *names: str) -> dict[str, Any]:
    """Return a neuron's numbers of the given names, bounded as it uses them, as arrays."""
    return {name: array(getattr(neuron, name)) for name in names}


def settings(neuron: Neuron, *names: str) -> dict[str, Any]:
    """Return a neuron's settings of the given names."""
    return {name: getattr(neuron, name) for name in names}


@read.register
def _(module: SequenceDropout, to: Builder, name: str, x: Value) -> Value:
    return x


@read.register
def _(module: SequenceBatchNorm, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, batch_norm(module.norm), x)


@read.register
def _(module: Leaky, to: Builder, name: str, x: Value) -> Value:
    fields = numbers(module, "beta", "threshold") | settings(module, "reset", "phase", "fires", "gain")
    return to.add(name, LIFScan(**fields), x)


@read.register
def _(module: StateLeaky, to: Builder, name: str, x: Value) -> Value:
    fields = numbers(module, "beta", "threshold") | settings(module, "fires", "gain")
    return to.add(name, LIFConvolution(reset="none", **fields), x)


@read.register
def _(module: LinearLeaky, to: Builder, name: str, x: Value) -> Value:
    current = read(module.linear, to, f"{name}.linear", x)
    assert isinstance(current, tuple)
    return _value(read(module.neuron, to, f"{name}.neuron", current))


@read.register
def _(module: LeakyIntegrator, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, LIConvolution(**numbers(module, "beta"), **settings(module, "gain")), x)


@read.register
def _(module: Synaptic, to: Builder, name: str, x: Value) -> Value:
    fields = numbers(module, "alpha", "beta", "threshold") | settings(
        module, "reset", "phase", "fires", "gain"
    )
    return to.add(name, CubaLIFScan(**fields), x)


@read.register
def _(module: AdaptiveLeaky, to: Builder, name: str, x: Value) -> Value:
    fields = numbers(module, "beta", "threshold", "kappa", "rho") | settings(
        module, "reset", "phase", "fires", "gain"
    )
    return to.add(name, AdaptiveLIFScan(**fields), x)


@read.register
def _(module: AnnealedLeaky, to: Builder, name: str, x: Value) -> Value:
    fields = numbers(module, "beta", "threshold", "strength") | settings(module, "rounds", "fires", "gain")
    return to.add(name, LIFAnnealed(reset="subtract", **fields), x)


@read.register
def _(module: SurrogateLeaky, to: Builder, name: str, x: Value) -> Value:
    fields = numbers(module, "beta", "threshold") | settings(module, "reset", "phase", "fires", "gain")
    network: dict[str, Any] = {part: array(getattr(module.network, part)) for part in SHAPES}
    return to.add(name, LIFSurrogate(**fields, **network, exact=not module.from_scratch), x)


@read.register
def _(module: BinaryThreshold, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, Threshold(**numbers(module, "threshold"), **settings(module, "fires")), x)


@read.register
def _(module: SlidingPSN, to: Builder, name: str, x: Value) -> Value:
    taps: Value = ()
    for i, weight in enumerate(array(module.weight.movedim(-1, 0))):
        past = x
        if i:
            carried = to.signal(x)
            past = to.add(
                f"{name}.delay{i}", Delay(steps=to.number(i), shape=carried.shape, kind=carried.kind), x
            )
        taps += to.add(f"{name}.tap{i}", Scale(weight), past)
    return to.add(name, Threshold(**numbers(module, "threshold"), **settings(module, "fires")), taps)


@read.register
def _(module: AssociativeLeaky, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, AssociativeScan(**memory(module)), **projections(module, to, name, x, "to_alpha"))


@read.register
def _(module: DeltaLeaky, to: Builder, name: str, x: Value) -> Value:
    return to.add(
        name, DeltaScan(**memory(module)), **projections(module, to, name, x, "to_alpha", "to_beta")
    )


def memory(module: MatrixMemory) -> dict[str, Any]:
    """Return the fields that matrix memories share."""
    return numbers(module, "threshold") | settings(module, "queries", "fires", "reset")


def projections(module: MatrixMemory, to: Builder, name: str, x: Value, *gates: str) -> dict[str, Value]:
    """Write what feeds the ports of a matrix memory, and return it by port."""
    ports: dict[str, Value] = {}
    for part in ("to_v", "to_k", *gates, *(() if module.to_q is None else ("to_q",))):
        value = _value(read(getattr(module, part), to, f"{name}.{part}", x))
        if part in gates:
            value = to.add(f"{name}.{part}.sigmoid", Activation("sigmoid"), value)
        elif part != "to_q" and module.top_k is not None:
            value = to.add(f"{name}.{part}.top_k", TopK(module.top_k), value)
        ports[part.removeprefix("to_")] = value
    return ports


@read.register
def _(module: S4D, to: Builder, name: str, x: Value) -> Value:
    return to.add(name, filters(module), x)


def filters(module: S4D, scale: torch.Tensor | None = None) -> DiagonalConvolution:
    """Return the filters of a layer, each multiplied by a number of `scale`."""
    a, c, d = module.coefficients(module.D.dtype, scale)
    pairs = (array(torch.view_as_real(numbers.detach())) for numbers in (a, c))
    return DiagonalConvolution(**dict(zip("ac", pairs, strict=True)), d=array(d))


@read.register
def _(module: SpikingSSM, to: Builder, name: str, x: Value) -> Value:
    normed = _value(read(module.norm, to, f"{name}.norm", x))
    currents = to.add(f"{name}.ssm", filters(module.ssm, module._scale()), normed)
    spikes = _value(read(module.neuron, to, f"{name}.neuron", currents))
    mixed = _value(read(module.mix, to, f"{name}.mix", spikes))
    return x + to.add(f"{name}.glu", GLU(), mixed)


def _value(result: Any) -> Value:
    assert isinstance(result, tuple), np.shape(result)
    return result
