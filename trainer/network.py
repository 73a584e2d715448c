"""From a recipe's layers to a torch module, and from its outputs to a decision."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import singledispatch
from typing import Any, cast

import torch
from torch import Tensor, nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons import (
    AdaptiveLeaky,
    AnnealedLeaky,
    AssociativeLeaky,
    BinaryThreshold,
    DeltaLeaky,
    Leaky,
    LeakyIntegrator,
    SlidingPSN,
    SpikingSSM,
    StateLeaky,
    StochasticLeaky,
    SurrogateLeaky,
    Synaptic,
)
from unscan.trainer.neurons.matrix_memory import MatrixMemory
from unscan.trainer.norm import SequenceBatchNorm
from unscan.trainer.settings import (
    AssociativeMemory,
    Decaying,
    DeltaMemory,
    Dense,
    Layer,
    LeakyReadout,
    Linear,
    Memory,
    Network,
    Neuron,
    Readout,
    SpikingReadout,
    StateSpace,
)
from unscan.trainer.start import start_as_clocks_, start_as_thermometer_, start_decays_, start_unit_


class Residual(nn.Module):
    """Add the input of `inner` to its output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Map x (T, B, C) to the same shape."""
        y: Tensor = self.inner(x)
        return x + y


def build(network: Network, in_features: int, classes: int) -> nn.Sequential:
    """Build the model of a recipe: x (T, B, in_features) to the readout's outputs (T, B, classes).

    A sequence of `layer1`, `layer2`, ... and `readout`. The decision over time is not in it (`decide`), so that its
    iterative form gives one output per step. Weights come from torch's global generator. Raises InvalidInput for a
    residual first layer whose width is not `in_features`.
    """
    model: OrderedDict[str, nn.Module] = OrderedDict()
    width = in_features
    for number, layer in enumerate(network.layers, start=1):
        after = layer.width_after(width)
        if getattr(layer, "residual", False) and width != after:
            raise InvalidInput(
                f"network.layers.{number - 1} is residual with width {after} on an input of {width}; "
                f"allowed: width {width}, or residual: false"
            )
        made = model[f"layer{number}"] = _layer(layer, width)
        if layer.start == "thermometer":
            memory = next(module for module in made.modules() if isinstance(module, AssociativeLeaky))
            start_as_thermometer_(memory, cast(nn.Linear, cast(Any, model[f"layer{number - 1}"]).linear))
        width = after
    model["readout"] = _readout(network.readout, width, classes)
    return nn.Sequential(model)


def decide(outputs: Tensor, how: str) -> Tensor:
    """Reduce outputs (T, B, classes) to scores (B, classes): the last step's, or the mean over time."""
    return outputs[-1] if how == "last" else outputs.mean(dim=0)


@singledispatch
def _layer(layer: Layer, in_features: int) -> nn.Module:
    """Build a layer from its settings."""
    raise TypeError(f"no rule builds a layer from {type(layer).__name__}")


@_layer.register
def _(layer: Dense, in_features: int) -> nn.Module:
    linear = nn.Linear(in_features, layer.width)
    neuron = _neuron(layer.neuron, layer.width)
    if layer.start == "clocks":
        start_as_clocks_(linear, neuron.beta.tolist(), layer.neuron.threshold)
    parts: OrderedDict[str, nn.Module] = OrderedDict(linear=linear)
    if layer.norm == "batch":
        parts["norm"] = SequenceBatchNorm(layer.width)
    parts["neuron"] = neuron
    if layer.dropout:
        parts["dropout"] = nn.Dropout(layer.dropout)
    return _wrapped(nn.Sequential(parts), layer.residual)


@_layer.register
def _(layer: Linear, in_features: int) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(in_features, layer.width))
    if layer.activation == "relu":
        parts["activation"] = nn.ReLU()
    return nn.Sequential(parts)


@_layer.register
def _(layer: StateSpace, in_features: int) -> nn.Module:
    settings = layer.model_dump(exclude={"kind", "neuron", "start"})
    return SpikingSSM(in_features, neuron=_neuron(layer.neuron, in_features), **settings)


@_layer.register
def _(layer: AssociativeMemory, in_features: int) -> nn.Module:
    return _memory(AssociativeLeaky, layer, in_features)


@_layer.register
def _(layer: DeltaMemory, in_features: int) -> nn.Module:
    return _memory(DeltaLeaky, layer, in_features)


def _memory(kind: type[MatrixMemory], layer: Memory, in_features: int) -> nn.Module:
    settings = layer.model_dump(exclude={"kind", "residual", "norm", "start", "alpha", "alpha_to"})
    memory = kind(in_features, **settings)
    if layer.alpha is not None:
        start_decays_(memory, layer.alpha, layer.alpha if layer.alpha_to is None else layer.alpha_to)
    parts: OrderedDict[str, nn.Module] = OrderedDict(memory=memory)
    if layer.norm == "layer":
        parts["norm"] = nn.LayerNorm(memory.channels)
    return _wrapped(nn.Sequential(parts), layer.residual)


def _wrapped(inner: nn.Module, residual: bool) -> nn.Module:
    return Residual(inner) if residual else inner


def _readout(readout: Readout, in_features: int, outputs: int) -> nn.Module:
    parts: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(in_features, outputs))
    if isinstance(readout, LeakyReadout):
        parts["integrator"] = LeakyIntegrator(
            outputs, readout.beta, gain=readout.gain, learn_beta=readout.learn_beta
        )
    elif isinstance(readout, SpikingReadout):
        parts["neuron"] = _neuron(readout.neuron, outputs)
    return nn.Sequential(parts)


def scale_starts_(model: nn.Sequential, network: Network, x: Tensor) -> None:
    """Scale the layers that `start: unit`, first to last, on sequences x (T, B, F): see `start.start_unit_`."""
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for layer, made in zip(network.layers, model, strict=False):
            if layer.start == "unit":
                start_unit_(made, x)
            x = made(x)
    model.train(was_training)


NEURONS: dict[str, Callable[..., nn.Module]] = {
    "leaky": Leaky,
    "state_leaky": StateLeaky,
    "annealed_leaky": AnnealedLeaky,
    "surrogate_leaky": SurrogateLeaky,
    "sliding_psn": SlidingPSN,
    "stochastic_leaky": StochasticLeaky,
    "synaptic": Synaptic,
    "adaptive_leaky": AdaptiveLeaky,
    "binary": BinaryThreshold,
}


def _neuron(settings: Neuron, channels: int) -> Any:
    """Build the neuron that settings describe: their names are those of its arguments."""
    chosen = settings.model_dump(exclude={"kind", "beta_to"})
    if isinstance(settings, Decaying) and settings.beta_to is not None:
        chosen["beta"] = _spread(settings.beta, settings.beta_to, channels)
    return NEURONS[settings.kind](channels, **chosen)


def _spread(beta: float, beta_to: float, channels: int) -> list[float]:
    leaks = torch.logspace(math.log10(1 - beta), math.log10(1 - beta_to), channels, dtype=torch.float64)
    return [float(value) for value in 1 - leaks]
