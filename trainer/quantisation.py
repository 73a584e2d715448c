"""Training with the numbers of the deployed model: fake quantisation of weights, decays, thresholds and inputs.

Forward, every number is the one that the compiler's `quantize` will write, divided by its scale again; backward, the
gradient goes to the real number behind it as if nothing had been rounded, and is zero where a format saturates
(`whole_numbers.straight`). What learns, and what a run keeps, are the real numbers: compiled with the same profile they
become the whole numbers that were trained with.

A batch norm is folded into the weights in front of it, and it is the folded weights that are rounded. Its statistics
stay as they came; its gain and offset go on learning. What is not imitated: a membrane that decays is truncated towards
zero at every step, by less than one of its units, and sums may pass what holds them.

Source: Jacob et al., arXiv 1712.05877, section 3 (simulated quantisation, folded norms); that the statistics of norms
stay follows Krishnamoorthi, arXiv 1806.08342, section 3.2.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unscan.compiler.errors import InvalidInput
from unscan.trainer.norm import SequenceBatchNorm
from unscan.trainer.settings import Dense, LeakyNeuron, Network, SpikingReadout, StateLeakyNeuron
from unscan.trainer.whole_numbers import (
    SUM,
    WIDTHS,
    Widths,
    bias_units,
    decay_units,
    finite,
    fraction,
    holding,
    input_fraction,
    largest,
    layer_scale,
    power_below,
    share,
    shifted_scale,
    straight,
    threshold_units,
    weight_units,
)

IMITATED = LeakyNeuron | StateLeakyNeuron
"""Settings of the neurons whose whole numbers are imitated."""
HEADROOM = 1.25
"""How many times what was measured has room."""


@dataclass(frozen=True, eq=False)
class Part:
    """A linear map, the norm behind it if there is one, and the neuron or integrator that they feed.

    name: of the module `made` that holds them. spikes: how many arrive from one neuron at once at most; 0 where what
    arrives are the real numbers of the input.
    """

    name: str
    made: nn.Sequential
    spikes: int

    @property
    def linear(self) -> nn.Linear:
        """The linear map."""
        return cast(nn.Linear, self.made.linear)

    @property
    def fires(self) -> bool:
        """Whether it ends in a neuron."""
        return hasattr(self.made, "neuron")

    @property
    def target(self) -> Any:
        """The neuron or integrator; None for a linear map alone."""
        return getattr(self.made, "neuron", getattr(self.made, "integrator", None))

    @property
    def before_target(self) -> nn.Module:
        """What gives the currents."""
        return cast(nn.Module, getattr(self.made, "norm", self.linear))

    def gain(self) -> Tensor:
        """Return what the input of each neuron is multiplied by, (C,)."""
        one = torch.ones_like(self.linear.bias, dtype=torch.float64)
        return one if self.target is None or self.target.gain == "1" else one - self.target.beta.double()

    def folded(self) -> tuple[Tensor, Tensor]:
        """Return weights (C, F) and biases (C,) with the norm in them, rounded where the compiler rounds."""
        weight, bias = self.linear.weight.double(), self.linear.bias.double()
        if hasattr(self.made, "norm"):
            norm = cast(SequenceBatchNorm, self.made.norm).norm
            mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
            factor = norm.weight.double() / (variance.double() + norm.eps).sqrt()
            offset = norm.bias.double() - factor * mean.double()
            kept = self.linear.weight.dtype
            weight = (weight * factor[:, None]).to(kept).double()
            bias = (bias * factor + offset).to(kept).double()
        return weight, bias


@dataclass(frozen=True, eq=False)
class Chosen:
    """A real number, and the whole ones that stand for it: units of 1 / scale, multiples of `step`."""

    real: Tensor
    scale: Tensor
    units: Tensor
    step: float = 1.0

    def value(self) -> Tensor:
        """Return what the whole numbers stand for, with the gradient of the real one."""
        return straight(self.real, self.scale, self.units, self.step)


def choose(part: Part, widths: Widths, size: Tensor, unit: float, most: float) -> dict[str, Chosen]:
    """Choose the whole numbers of a part by their names in it: linear.weight, neuron.stored_beta, ...

    That of a threshold is the least that fires, one more than the one that a membrane has to pass.

    size: (C,), how large its currents and membranes become. unit: what 1 counts in its input, whose whole numbers go up
    to `most`.
    """
    target, gain = part.target, part.gain()
    weight, bias = part.folded()
    with torch.no_grad():
        on_units, current = weight / unit, bias * gain
        driven = on_units * gain[:, None]
        P, K = _scales(part, widths, on_units, size, most)
        units = weight_units(on_units, P * gain, step=widths.step(driven), limit=widths.weight_limit(driven))
        offsets = torch.round(current * K) if target is None else bias_units(widths, current, K)
    found = {
        "linear.weight": Chosen(weight * gain[:, None], (P / unit)[:, None], units, widths.step(driven)),
        "linear.bias": Chosen(bias * gain, K, offsets, widths.unit),
    }
    if target is None:
        return found
    decays = decay_units(widths, target.beta.detach())
    one = torch.tensor(2.0**widths.decay_bits, dtype=torch.float64, device=K.device)
    beta = Chosen(target.beta, one, decays)
    if not part.fires:
        return found | {"integrator.stored_beta": beta}
    theta = target.threshold.double().expand(len(K))
    leaks = bool(((decays > 0) & (decays < one)).any())
    above = threshold_units(widths, theta.detach(), K, target.fires, whole=not leaks)
    threshold = Chosen(theta, K, above + 1, widths.unit + 1)
    return found | {"neuron.stored_beta": beta, "neuron.stored_threshold": threshold}


def _scales(part: Part, widths: Widths, on_units: Tensor, size: Tensor, most: float) -> tuple[Tensor, Tensor]:
    """Return P and K (C,): what 1 counts in the weights (C, F), on inputs in whole numbers, and in the membranes."""
    target, gain = part.target, part.gain()
    bias = part.folded()[1]
    driven, current = on_units * gain[:, None], bias * gain
    reached = on_units.abs().sum(1) * most + bias.abs()
    if target is None:
        plain = replace(widths, shift=0, unit=1)
        P, _ = layer_scale(plain, driven, reached=reached, ceiling=share(SUM / 2, size))
        P = P.amin().expand(len(P))
        return P, P
    bounds = [
        share(largest(widths.state_bits), size),
        share(float(largest(widths.bias_bits) * widths.unit), current),
    ]
    threshold = target.threshold.double().expand(len(bias)) if part.fires else None
    if threshold is not None:
        bounds.append(share(largest(widths.state_bits) - 1, threshold))
        bounds.append(share((2.0**widths.threshold_bits - 1) * widths.unit, threshold))
    ceiling = torch.stack(bounds).amin(0)
    if not part.spikes and widths.shift is None:
        K = power_below(finite(ceiling))
        return shifted_scale(widths, on_units, K * gain, reached) / gain, K
    P, shift = layer_scale(
        widths, driven, reached=reached * gain, ceiling=ceiling, threshold=threshold, bias=current
    )
    P = P if part.fires else P.amin().expand(len(P))
    return P, P * 2.0**shift


class Quantised(nn.Module):
    """A recipe's model run with the numbers that a profile makes of its own.

    model: of `network.build`, whose parameters learn; network: its settings; real: whether its inputs are real numbers;
    profile: loihi2, int8 or int16. Before the first call, `observe` measures how large numbers become.

    Raises:
        InvalidInput: a layer whose whole numbers are not imitated, by its name.
    """

    low: Tensor
    high: Tensor

    def __init__(self, model: nn.Sequential, network: Network, profile: str, *, real: bool) -> None:
        super().__init__()
        self.model, self.profile, self.real, self.widths = model, profile, real, WIDTHS[profile]
        self.parts = tuple(_parts(model, network, real, profile))
        for name in ("low", "high"):
            self.register_buffer(name, torch.zeros((), dtype=torch.float64))
        for number, part in enumerate(self.parts):
            self.register_buffer(f"size{number}", torch.zeros(part.linear.out_features, dtype=torch.float64))
        self._hidden = (self._twin(),)  # in a tuple: its numbers are no state

    def _size(self, number: int) -> Tensor:
        """Return how large the currents and membranes of a part became, (C,)."""
        return cast(Tensor, getattr(self, f"size{number}"))

    @torch.no_grad()
    def observe(self, x: Tensor, agree: Callable[[Tensor], Tensor] = torch.clone) -> None:
        """Measure on sequences x (T, B, F), run in real numbers, how large inputs, currents and membranes become.

        agree: of several processes that each have a share of the sequences, gives the largest of their numbers.
        """
        self.low.copy_(-agree(-x.amin()))
        self.high.copy_(agree(x.amax()))
        hooks = [
            part.before_target.register_forward_hook(partial(_measured, part, self._size(number)))
            for number, part in enumerate(self.parts)
        ]
        training = self.model.training
        try:
            self.model.eval()(x)
        finally:
            self.model.train(training)
            for hook in hooks:
                hook.remove()
        for number in range(len(self.parts)):
            self._size(number).copy_(agree(self._size(number)))

    def choices(self) -> dict[str, Chosen]:
        """Return the whole numbers chosen, by the names of the model's numbers that they stand for."""
        unit, most, found = 1.0, 0.0, {}
        if self.real:
            unit, low, most = self._entry()
            one = torch.ones((), dtype=torch.float64, device=self.low.device)
            found = {f"input.{name}": Chosen(each * one, one, each * one) for name, each in
                     (("scale", unit), ("low", low), ("high", most))}  # fmt: skip
        for number, part in enumerate(self.parts):
            arriving = (1.0, float(part.spikes)) if part.spikes else (unit, most)
            chosen = choose(part, self.widths, HEADROOM * self._size(number), *arriving)
            found |= {f"{part.name}.{name}": each for name, each in chosen.items()}
        return found

    @torch.no_grad()
    def _entry(self) -> tuple[float, float, float]:
        """Return what 1 counts in a real input, and its least and largest whole number."""
        widths, first = self.widths, self.parts[0]
        size = HEADROOM * float(torch.maximum(self.low.abs(), self.high.abs()))
        signed = bool(self.low < 0)
        f, bits = fraction(size, widths.signal_bits), widths.signal_bits
        if widths.shift is not None:
            weight, bias = first.folded()
            gain = 1.0 if first.target.gain == "1" else 1.0 - float(first.target.beta.double().mean())
            room = share(2.0 ** (widths.state_bits - 1) / 2.0**widths.shift, HEADROOM * self._size(0))
            theta = float(first.target.threshold.double().mean())
            f = input_fraction(widths, weight * gain, size, threshold=theta, bias=bias, ceiling=room)
            bits = max(2, holding(math.ceil(size * 2.0**f), signed=signed))
        most = 2.0 ** (bits - signed) - 1
        return 2.0**f, -most if signed else 0.0, most

    def numbers(self) -> dict[str, Tensor]:
        """Return what stands in the place of the model's numbers, by their names in it."""
        dtype = self.parts[0].linear.weight.dtype
        return {name: chosen.value().to(dtype) for name, chosen in self.choices().items()}

    def forward(self, x: Tensor) -> Tensor:
        """Run a sequence: x (T, B, F) to outputs (T, B, classes)."""
        (twin,) = self._hidden
        twin.train(self.training)
        outputs: Tensor = functional_call(twin, self.numbers(), (x,))
        return outputs

    @torch.no_grad()
    def frozen(self) -> nn.Sequential:
        """Return a model that has these numbers as its own, its norms folded, in evaluation mode."""
        twin = self._twin()
        for name, value in self.numbers().items():
            holder, _, leaf = name.rpartition(".")
            module = twin.get_submodule(holder)
            if leaf in module._parameters:
                module._parameters[leaf] = nn.Parameter(value, requires_grad=False)
            else:
                module._buffers[leaf] = value
        return twin.eval()

    def _twin(self) -> nn.Sequential:
        """Return a copy of the model, without norms and input gains, whose neurons fire from the threshold on."""
        twin = copy.deepcopy(self.model)
        for part in self.parts:
            made = cast(Any, twin.get_submodule(part.name))
            if hasattr(made, "norm"):
                made.norm = nn.Identity()
            if part.fires:
                made.neuron.how = replace(made.neuron.how, fires=">=", gain="1")
            elif part.target is not None:
                made.integrator.gain = "1"
        rounded = {"input": Rounded()} if self.real else {}
        return nn.Sequential(OrderedDict(rounded, **dict(twin.named_children())))


class Rounded(nn.Module):
    """Round to whole multiples of 1 / scale between two bounds: y = clip(rint(x scale), low, high) / scale."""

    scale: Tensor
    low: Tensor
    high: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("scale", "low", "high"):
            self.register_buffer(name, torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        """Map x to the same shape."""
        return torch.round(x * self.scale).clamp(self.low, self.high) / self.scale


def _measured(part: Part, size: Tensor, module: nn.Module, inputs: Any, currents: Tensor) -> None:
    """Write down how large the currents of a part, and the membranes that they drive, become."""
    seen = [currents.double() * part.gain()]
    if part.fires:
        seen.append(part.target(currents, return_membrane=True)[1])
    elif part.target is not None:
        seen.append(part.target(currents))
    size.copy_(torch.stack([each.abs().flatten(0, -2).amax(0).double() for each in seen]).amax(0))


def _parts(model: nn.Sequential, network: Network, real: bool, profile: str) -> Iterator[Part]:
    """Find the parts of a recipe's model, first to last.

    Raises:
        InvalidInput: one that is not imitated, by its place in the recipe.
    """
    spikes = 0 if real else 1
    for number, layer in enumerate(network.layers):
        where = f"network.layers.{number}"
        if not isinstance(layer, Dense):
            raise _refused(where, layer.kind, profile)
        if not isinstance(layer.neuron, IMITATED):
            raise _refused(f"{where}.neuron", layer.neuron.kind, profile)
        if layer.residual and not spikes:
            raise InvalidInput(
                f"quantise is {profile}, and {where} adds the real numbers of the input to spikes, which have other "
                "units; allowed: residual: false in the first layer, or spikes as inputs"
            )
        name = f"layer{number + 1}.inner" if layer.residual else f"layer{number + 1}"
        yield Part(name, cast(nn.Sequential, model.get_submodule(name)), spikes)
        spikes = 1 + spikes if layer.residual else 1
    if isinstance(network.readout, SpikingReadout) and not isinstance(network.readout.neuron, IMITATED):
        raise _refused("network.readout.neuron", network.readout.neuron.kind, profile)
    yield Part("readout", cast(nn.Sequential, model.readout), spikes)


def _refused(where: str, kind: str, profile: str) -> InvalidInput:
    return InvalidInput(
        f"quantise is {profile}, and {where} is {kind}, whose whole numbers training does not imitate; allowed: dense "
        "layers and readouts with neurons of kind leaky or state_leaky; or train without quantise, and compile with it"
    )
