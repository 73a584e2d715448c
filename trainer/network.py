"""From a recipe's layers to a torch module, and from its outputs to a decision."""

import math
from collections import OrderedDict
from collections.abc import Callable
from functools import singledispatch
from typing import Any

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
from unscan.trainer.norm import SequenceBatchNorm
from unscan.trainer.settings import (
    AssociativeMemory,
    Decaying,
    DeltaMemory,
    Dense,
    Layer,
    LeakyReadout,
    Linear,
    Network,
    Neuron,
    Readout,
    SpikingReadout,
    StateSpace,
)


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
        model[f"layer{number}"] = _layer(layer, width)
        width = after
    model["readout"] = _readout(network.readout, width, classes)
    return nn.Sequential(model)


def decide(outputs: Tensor, how: str) -> Tensor:
    """Reduce outputs (T, B, classes) to scores (B, classes): the last step's, or the mean over time."""
    return outputs[-1] if how == "last" else outputs.mean(dim=0)


def start_as_clocks_(linear: nn.Linear, beta: float | list[float], threshold: float) -> None:
    """Let a layer of leaky neurons start as a bank of clocks that its input disturbs.

    A neuron with constant input b and a reset to zero fires every n steps, b = threshold (1 - beta) / (1 -
    beta^n). Biases spread on a logarithmic scale from just above threshold (1 - beta), the slowest clock, to
    0.4 threshold give the next layer many clocks to tell time with: the place of a pixel in its image, say,
    which no single decay can tell. The input weights are of either sign and log-uniform between 0.03 and 1.5
    thresholds, so that some neurons answer to one bright pixel and others to the ink of many rows; a quarter
    are zero, undisturbed clocks. Learning moves slow clocks easily out of their range, so a small `lr_scale`
    suits the layer.
    """
    channels = linear.out_features
    if isinstance(beta, float):
        place = torch.linspace(0, 1, channels)
        decays = torch.full((channels,), beta)
    else:  # every decay gets clocks of all speeds: the golden ratio spreads neighbours apart
        place = (torch.arange(channels) * (math.sqrt(5) - 1) / 2) % 1
        decays = torch.tensor(beta)
    slowest = 1.03 * (1 - decays)
    fastest = (2 * slowest).clamp(min=0.4)
    with torch.no_grad():
        linear.bias.copy_(threshold * slowest ** (1 - place) * fastest**place)
        size = torch.empty_like(linear.weight).uniform_(math.log(0.03), math.log(1.5)).exp()
        sign = torch.where(torch.rand_like(size) < 0.5, -threshold, threshold)
        disturbed = (torch.rand(channels, 1) >= 0.25).to(size.dtype)
        linear.weight.copy_(size * sign * disturbed)


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
    settings = layer.model_dump(exclude={"kind", "neuron"})
    return SpikingSSM(in_features, neuron=_neuron(layer.neuron, in_features), **settings)


@_layer.register
def _(layer: AssociativeMemory, in_features: int) -> nn.Module:
    settings = layer.model_dump(exclude={"kind", "residual"})
    return _wrapped(AssociativeLeaky(in_features, **settings), layer.residual)


@_layer.register
def _(layer: DeltaMemory, in_features: int) -> nn.Module:
    settings = layer.model_dump(exclude={"kind", "residual"})
    return _wrapped(DeltaLeaky(in_features, **settings), layer.residual)


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
