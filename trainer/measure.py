"""What a trained model is worth: on held-out data, and once its approximations are exchanged for the real neuron."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from unscan.trainer.batches import Batches
from unscan.trainer.neurons import Leaky, StateLeaky, SurrogateLeaky
from unscan.trainer.neurons.base import SpikingNeuron
from unscan.trainer.objective import Objective
from unscan.trainer.tasks import Part


@dataclass(frozen=True)
class Measured:
    """Mean loss and accuracy over the answers asked for, and spikes per neuron and step of each spiking layer."""

    loss: float
    accuracy: float
    spike_rates: dict[str, float]


@dataclass(frozen=True)
class Gap:
    """A model as trained against the one that is deployed, on the same data.

    `accuracy` of the deployed model minus that as trained is the train-inference gap (papers/004). `f1` is that of
    all spikes of both, layer by layer, each model running on its own spikes.
    """

    trained: Measured
    deployed: Measured
    f1: float

    @property
    def gap(self) -> float:
        """Accuracy deployed minus accuracy as trained."""
        return self.deployed.accuracy - self.trained.accuracy


def evaluate(model: nn.Module, part: Part, objective: Objective, *, batch_size: int = 256) -> Measured:
    """Measure a model on a part of a task. It is left in the mode, training or evaluation, in which it came."""
    return _run([model], part, objective, batch_size)[0][0]


def measure_gap(
    model: nn.Module, part: Part, objective: Objective, *, reset: str | None = None, batch_size: int = 256
) -> Gap:
    """Measure a model as trained and as deployed (see `as_deployed`) on a part of a task."""
    (trained, deployed), both, each = _run([model, as_deployed(model, reset)], part, objective, batch_size)
    return Gap(trained, deployed, 2 * both / each if each else 1.0)


def as_deployed(model: nn.Module, reset: str | None = None) -> nn.Module:
    """Copy a model, with the exact neuron in the place of everything that stood for it in training.

    Modules that have `deployed()` are exchanged for what it returns; with `reset`, reset-free leaky neurons for
    exact ones with that reset.
    """
    exact = _exact(model, reset)
    if exact is not None:
        return exact
    twin = copy.deepcopy(model)
    for name, child in list(twin.named_modules()):
        exact = _exact(child, reset) if name else None
        if exact is not None:
            parent, _, leaf = name.rpartition(".")
            setattr(twin.get_submodule(parent), leaf, exact)
    return twin


def is_approximate(model: nn.Module) -> bool:
    """Tell whether `as_deployed` changes a model."""
    return any(_exact(module, None) is not None for module in model.modules())


def _exact(module: nn.Module, reset: str | None) -> nn.Module | None:
    """Give what is deployed in a module's place, where that is something else.

    A surrogate network that learned from scratch stands for no neuron, and is deployed as it is.
    """
    if isinstance(module, SurrogateLeaky) and module.from_scratch:
        return None
    if hasattr(module, "deployed"):
        return cast(nn.Module, cast(Any, module).deployed())
    if reset is not None and isinstance(module, StateLeaky):
        beta, threshold = module.beta.detach(), module.threshold.detach()
        return Leaky(module.channels, beta, threshold, reset, fires=module.fires, gain=module.gain)
    return None


def _run(
    models: list[nn.Module], part: Part, objective: Objective, batch_size: int
) -> tuple[list[Measured], int, int]:
    """Measure models on a part; with two of them, also count spikes that both fire, and those of each."""
    fired: list[dict[str, Tensor]] = [{} for _ in models]
    hooks = [
        module.register_forward_hook(_keep(fired[number], name))
        for number, model in enumerate(models)
        for name, module in model.named_modules()
        if isinstance(module, SpikingNeuron) and module.gives_spikes
    ]
    modes = [model.training for model in models]
    rates: list[dict[str, float]] = [{} for _ in models]
    losses, right = [0.0] * len(models), [0] * len(models)
    asked = both = each = 0
    first = next(models[0].parameters())
    try:
        with torch.no_grad():
            for batch in Batches((part,), batch_size, first.dtype):
                x, y = batch.x.to(first.device), batch.y.to(first.device)
                asked += batch.asked
                for number, model in enumerate(models):
                    loss, hits = objective.score(model.eval()(x), y)
                    losses[number] += loss.item()
                    right[number] += hits
                    for name, spikes in fired[number].items():
                        share = spikes.mean().item() * len(y) / len(part.y)
                        rates[number][name] = rates[number].get(name, 0.0) + share
                if len(models) == 2:
                    for name in fired[0].keys() & fired[1].keys():
                        a, b = fired[0][name], fired[1][name]
                        both += int((a * b).sum(dtype=torch.float64))
                        each += int(a.sum(dtype=torch.float64) + b.sum(dtype=torch.float64))
    finally:
        for hook in hooks:
            hook.remove()
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
    found = [
        Measured(loss / asked, hits / asked, rate)
        for loss, hits, rate in zip(losses, right, rates, strict=True)
    ]
    return found, both, each


def _keep(fired: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | tuple[Tensor, ...]) -> None:
        fired[name] = output if isinstance(output, Tensor) else output[0]

    return keep
