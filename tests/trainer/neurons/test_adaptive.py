"""The layer with an adaptive threshold; its recurrence is tested in tests/trainer/recurrence/test_adaptive.py."""

import math

import pytest
import torch

from tests.trainer.neurons.shared import (
    assert_gradients_are_those_of_the_steps,
    assert_learns,
    assert_refuses_wrong_shapes,
    assert_steps_are_the_sequence,
    sequence,
)
from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.adaptive import AdaptiveLeaky
from unscan.trainer.neurons.leaky import Leaky

RESETS = ["none", "subtract", "zero"]


@pytest.mark.parametrize("steps", [1, 63, 100, 1024])
@pytest.mark.parametrize("reset", RESETS)
def test_steps_are_the_sequence(steps, reset):
    layer = AdaptiveLeaky(6, 0.8, 0.3, reset, kappa=torch.linspace(0.05, 1, 6), rho=0.9)
    assert assert_steps_are_the_sequence(layer, sequence(steps)).any()


def test_float32_steps_are_the_float32_sequence():
    layer = AdaptiveLeaky(6, 0.8, 0.3)
    assert_steps_are_the_sequence(layer, sequence(100, dtype=torch.float32))


@pytest.mark.parametrize("reset", RESETS)
def test_gradients_are_those_of_the_steps(reset):
    layer = AdaptiveLeaky(
        6, 0.8, 0.3, reset, kappa=[0.3] * 6, rho=0.9,
        learn_beta=True, learn_threshold=True, learn_kappa=True, learn_rho=True,
    )  # fmt: skip
    assert_gradients_are_those_of_the_steps(layer.double(), sequence(100), 1e-12)


def test_tires():
    x = torch.full((400, 1, 6), 0.5)
    fresh, tired = Leaky(6, reset="subtract")(x), AdaptiveLeaky(6, rho=0.995)(x)
    assert fresh[-50:].sum() > 0.9 * fresh[:50].sum()
    assert tired[-50:].sum() < 0.7 * tired[:50].sum()


def test_stores_its_numbers():
    layer = AdaptiveLeaky(6, kappa=[0.5] * 6, learn_kappa=True, learn_rho=True)
    assert layer.state_dict().keys() == {"stored_beta", "stored_threshold", "stored_kappa", "stored_rho"}
    assert {name for name, _ in layer.named_parameters()} == {"stored_kappa", "stored_rho"}
    assert (layer.reset, layer.phase, layer.fires, layer.gain) == ("subtract", "now", ">=", "1")
    assert "reset='subtract'" in repr(layer)


def test_learns():
    assert_learns(AdaptiveLeaky(20, learn_beta=True, learn_kappa=True, learn_rho=True))


def test_refuses_what_does_not_fit():
    assert_refuses_wrong_shapes(AdaptiveLeaky)
    x, u = torch.zeros(5, 2, 6), torch.zeros(2, 6)
    for rho in (-0.1, 1.1, math.nan, [0.5] * 5):
        with pytest.raises(InvalidInput, match="rho"):
            AdaptiveLeaky(6, rho=rho)
    for kappa in (0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidInput, match="kappa is .* greater than 0"):
            AdaptiveLeaky(6, kappa=kappa)
    with pytest.raises(InvalidInput, match="Option reset"):
        AdaptiveLeaky(6, reset="soft")
    with pytest.raises(InvalidInput, match="state is a Tensor, but it must be two tensors"):
        AdaptiveLeaky(6)(x, u)
    with pytest.raises(InvalidInput, match=r"state has shape \(3, 6\)"):
        AdaptiveLeaky(6).step(x[0], (u, torch.zeros(3, 6)))
