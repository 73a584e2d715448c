"""Which parameter learns at which rate, and how the rate changes in the course of training."""

import math

import torch
from torch import nn

from unscan.trainer.neurons import S4D
from unscan.trainer.neurons.base import Neuron
from unscan.trainer.recipe import Optimiser, Recipe


def freeze_(recipe: Recipe, model: nn.Module) -> None:
    """Fix the weights of layers whose `lr_scale` is 0, which saves their gradients and those before them."""
    for name, module in model.named_modules():
        if not isinstance(module, Neuron) and _scales(recipe).get(name.partition(".")[0]) == 0:
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(False)


def optimiser_of(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Give each parameter the rate and the weight decay that it is due (see `recipe.Optimiser`)."""
    settings, scales = recipe.optimiser, _scales(recipe)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, module in model.named_modules():
        slow = {id(parameter) for parameter in module.slow_parameters()} if isinstance(module, S4D) else set()
        for leaf, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            decay = 0.0
            if id(parameter) in slow:
                lr = settings.ssm_lr
            elif isinstance(module, Neuron):
                lr = settings.neuron_lr or settings.lr
            else:
                lr = settings.lr * scales.get(name.partition(".")[0], 1.0)
                decay = settings.weight_decay if isinstance(module, nn.Linear) and leaf == "weight" else 0.0
            groups.setdefault((lr, decay), []).append(parameter)
    parameters = [
        {"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum)
    kind = torch.optim.AdamW if settings.kind == "adamw" else torch.optim.Adam
    return kind(parameters, lr=settings.lr)


def _scales(recipe: Recipe) -> dict[str, float]:
    layers = enumerate(recipe.network.layers, start=1)
    return {f"layer{number}": getattr(layer, "lr_scale", 1.0) for number, layer in layers}


class Course:
    """The factor on the learning rate at each optimiser step: warm-up, then constant or half a cosine."""

    def __init__(self, settings: Optimiser, epochs: int, steps_per_epoch: int) -> None:
        self.cosine = settings.schedule == "cosine"
        self.steps = epochs * steps_per_epoch
        self.warm_up = min(round(settings.warm_up * steps_per_epoch), self.steps)

    def __call__(self, step: int) -> float:
        """Give the factor at a step, counted from 0."""
        if step < self.warm_up:
            return (step + 1) / (self.warm_up + 1)
        if not self.cosine:
            return 1.0
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
