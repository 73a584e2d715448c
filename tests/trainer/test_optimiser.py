from itertools import pairwise

import pytest
import torch

from unscan.trainer.optimiser import Course, freeze_, optimiser_of
from unscan.trainer.recipe import Optimiser, Recipe
from unscan.trainer.run import build_model

RECIPE = {
    "task": {"name": "smnist"},
    "network": {
        "layers": [
            {"kind": "linear", "width": 6},
            {"kind": "spiking_ssm", "states": 4},
            {"width": 5, "neuron": {"kind": "leaky", "learn_beta": True}, "lr_scale": 0.5, "norm": "batch"},
            {"width": 5, "neuron": {"kind": "leaky", "learn_threshold": True}, "lr_scale": 0},
        ],
        "readout": {"kind": "linear"},
    },
    "optimiser": {"lr": 0.01, "ssm_lr": 0.001, "neuron_lr": 0.002, "weight_decay": 0.1},
}


def test_every_parameter_has_the_rate_and_decay_it_is_due():
    recipe = Recipe.parse(RECIPE, source="test")
    model = build_model(recipe, 1, 10)
    freeze_(recipe, model)
    due = {
        id(parameter): (group["lr"], group["weight_decay"])
        for group in optimiser_of(recipe, model).param_groups
        for parameter in group["params"]
    }
    found = {name: due.get(id(parameter)) for name, parameter in model.named_parameters()}
    assert found["layer1.linear.weight"] == (0.01, 0.1)
    assert found["layer1.linear.bias"] == (0.01, 0)
    for name in ("log_dt", "log_A_real", "A_imag"):
        assert found[f"layer2.ssm.{name}"] == (0.001, 0)
    for name in ("ssm.C", "ssm.D", "ln_vth", "norm.weight", "mix.bias"):
        assert found[f"layer2.{name}"] == (0.01, 0)
    assert found["layer2.mix.weight"] == (0.01, 0.1)
    assert found["layer3.linear.weight"] == (0.005, 0.1)
    assert found["layer3.norm.norm.weight"] == (0.005, 0)
    assert found["layer3.neuron.stored_beta"] == (0.002, 0)
    assert found["layer4.linear.weight"] is None
    assert not model.layer4.linear.weight.requires_grad
    assert found["layer4.neuron.stored_threshold"] == (0.002, 0)


def test_the_rate_warms_up_and_falls_along_half_a_cosine():
    course = Course(Optimiser(schedule="cosine", warm_up=0.5), epochs=3, steps_per_epoch=4)
    factors = [course(step) for step in range(12)]
    assert factors[:2] == pytest.approx([1 / 3, 2 / 3])
    assert factors[2] == 1
    assert factors[7] == pytest.approx(0.5)
    assert all(a > b for a, b in pairwise(factors[2:]))
    assert course(12) == pytest.approx(0)
    steady = Course(Optimiser(schedule="constant"), epochs=3, steps_per_epoch=4)
    assert {steady(step) for step in range(12)} == {1.0}


def test_all_kinds_of_optimiser_take_a_step():
    for kind in ("adamw", "adam", "sgd"):
        recipe = Recipe.parse(RECIPE | {"optimiser": {"kind": kind, "lr": 0.1}}, source="test")
        model = build_model(recipe, 1, 10)
        optimiser = optimiser_of(recipe, model)
        before = model.readout.linear.bias.detach().clone()
        model(torch.randn(9, 2, 1)).sum().backward()
        optimiser.step()
        assert not torch.equal(model.readout.linear.bias, before)
