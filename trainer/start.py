"""Where training starts: initial weights other than torch's own, each a setting of a layer."""

import math
from typing import cast

import torch
from torch import Tensor, nn

from unscan.trainer.neurons import AssociativeLeaky, DeltaLeaky
from unscan.trainer.neurons.matrix_memory import MatrixMemory


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


def start_as_thermometer_(memory: AssociativeLeaky, encoder: nn.Linear) -> None:
    """Let a memory start as a thermometer of the recent past of each input x in front of a linear encoder.

    Column j < F keeps sum_s 2^-s x_j(t - s): its key is x_j, read back through the encoder's pseudoinverse, its decay
    1/2. Row i compares with (i + 1) / 8 of the threshold, having value 8 / (i + 1). So which of the last few bits
    were 1 can be read off linearly. One more column counts steps, an eighth of the threshold each; the others
    are random. Queries start as the identity, so that the spikes go through.
    """
    d, n, features = memory.d_value, memory.d_key, encoder.in_features
    keys, key_bias, logits = torch.zeros(n, features), torch.zeros(n), torch.zeros(n)
    own = min(features, n - 1)
    keys[:own, :own] = torch.eye(own)
    key_bias[own], logits[own] = 1 / 8, 8.0
    keys[own + 1 :] = 0.3 * torch.randn(n - own - 1, features)
    logits[own + 1 :] = torch.linspace(-1, 3, n - own - 1)
    with torch.no_grad():
        back = keys.to(encoder.weight) @ torch.linalg.pinv(encoder.weight)
        memory.to_k.weight.copy_(back)
        memory.to_k.bias.copy_(key_bias.to(back) - back @ encoder.bias)
        memory.to_v.weight.mul_(0.1)
        memory.to_v.bias.copy_(8 * memory.threshold / torch.arange(1, d + 1))
        memory.to_alpha.weight.mul_(0.1)
        memory.to_alpha.bias.copy_(logits)
        if memory.to_q is not None and memory.queries is not None:
            memory.to_q.weight.mul_(0.2)
            memory.to_q.bias.copy_(torch.eye(n, memory.queries).flatten())


def start_decays_(memory: MatrixMemory, alpha: float, alpha_to: float) -> None:
    """Spread a memory's decays from alpha in the first column to alpha_to in the last, and let inputs change them less.

    log(alpha / (1 - alpha)) is spread evenly in the biases, and the weights become a tenth of what they were. A
    memory with one decay gets `alpha_to`.
    """
    gate = cast(nn.Linear, memory.to_alpha)
    first, last = (math.log(a / (1 - a)) for a in (alpha, alpha_to))
    with torch.no_grad():
        gate.weight.mul_(0.1)
        gate.bias.copy_(torch.linspace(last if gate.out_features == 1 else first, last, gate.out_features))


def start_unit_(layer: nn.Module, x: Tensor) -> None:
    """Scale a layer so that, of sequences x, what is compared with its thresholds is of size 1.

    A linear map is scaled so that its outputs have unit deviation, and each of them mean 0. A matrix memory's values,
    and its keys where they have no length of their own, are scaled so that the mean square of its last state is 1.
    Source of the idea: Mishkin and Matas, All you need is a good init, arXiv 1511.06422.
    """
    memory = next((module for module in layer.modules() if isinstance(module, MatrixMemory)), None)
    with torch.no_grad():
        if memory is None:
            linear = next(module for module in layer.modules() if isinstance(module, nn.Linear))
            outputs = linear(x).flatten(0, -2)
            _scale(linear, 1 / (outputs - outputs.mean(0)).std())
            linear.bias.sub_(linear(x).flatten(0, -2).mean(0))
            return
        _, state = memory(x, return_state=True)
        size = state.square().mean().sqrt()
        if isinstance(memory, DeltaLeaky):
            _scale(memory.to_v, 1 / size)
            return
        for linear in (memory.to_v, memory.to_k):
            _scale(linear, size**-0.5)


def _scale(linear: nn.Linear, factor: Tensor) -> None:
    linear.weight.mul_(factor)
    linear.bias.mul_(factor)
