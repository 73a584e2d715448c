import pytest
import torch
from torch import nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer import AssociativeLeaky, DeltaLeaky, Leaky
from unscan.trainer.network import build, scale_starts_
from unscan.trainer.recipe import Recipe
from unscan.trainer.settings import Network
from unscan.trainer.start import start_as_clocks_, start_as_thermometer_, start_decays_


def test_clocks_fire_at_many_rates_without_input():
    torch.manual_seed(0)
    linear = nn.Linear(1, 64)
    start_as_clocks_(linear, beta=0.97, threshold=2.0)
    neuron = Leaky(64, beta=0.97, threshold=2.0)
    with torch.no_grad():
        fired = neuron(linear(torch.zeros(256, 1, 1))).sum(dim=0)[0]
    assert fired.min() >= 1
    assert fired.max() >= 64
    assert len(fired.unique()) > 25
    betas = torch.linspace(0.5, 0.99, 64).tolist()
    start_as_clocks_(linear, betas, threshold=2.0)
    with torch.no_grad():
        fired = Leaky(64, betas, 2.0)(linear(torch.zeros(512, 1, 1))).sum(dim=0)[0]
    assert fired.min() >= 1
    undisturbed = (linear.weight == 0).float().mean().item()
    assert 0.1 < undisturbed < 0.4


def test_a_thermometer_shows_the_recent_past_of_each_input():
    torch.manual_seed(0)
    encoder, memory = nn.Linear(5, 32).double(), AssociativeLeaky(32, 16, 8, queries=3).double()
    start_as_thermometer_(memory, encoder)
    memory.to_v.weight.data.zero_()
    memory.to_alpha.weight.data.zero_()
    x = (torch.rand(6, 40, 5, dtype=torch.float64) < 0.5).double()
    with torch.no_grad():
        _, S = memory(encoder(x), return_membrane=True)
    past = torch.zeros(40, 5, dtype=torch.float64)
    for t in range(6):
        past = past / 2 + x[t]
        levels = torch.arange(1, 17) / 8
        away = (past[:, None] - levels[:, None]).abs() > 1e-9
        wanted = past[:, None] >= levels[:, None]
        assert bool(((S[t, :, :, :5] >= 1) == wanted)[away].all())
        steps = (S[t, :, :, 5] >= 1).sum(1)
        assert bool(((steps - (t + 1)).abs() <= 1).all())
    assert torch.equal(memory.to_q.bias.view(8, 3), torch.eye(8, 3, dtype=torch.float64))


def test_decays_start_spread():
    memory = AssociativeLeaky(6, 4, 5)
    start_decays_(memory, 0.5, 0.99)
    alpha = torch.sigmoid(memory.to_alpha(torch.zeros(6)))
    assert alpha[0].item() == pytest.approx(0.5)
    assert alpha[-1].item() == pytest.approx(0.99)
    assert bool((alpha.diff() > 0).all())
    delta = DeltaLeaky(6, 4, 5)
    start_decays_(delta, 0.5, 0.99)
    assert torch.sigmoid(delta.to_alpha(torch.zeros(6))).item() == pytest.approx(0.99)


MIXED = {
    "layers": [
        {"kind": "linear", "width": 30, "start": "unit"},
        {"kind": "associative_leaky", "d_value": 4, "d_key": 6, "start": "unit", "residual": False},
        {"kind": "delta_leaky", "d_value": 4, "d_key": 9, "start": "unit", "norm": "layer"},
        {"width": 20, "neuron": {"kind": "leaky"}, "start": "unit"},
    ]
}


def test_unit_starts_scale_each_layer_on_what_reaches_it():
    torch.manual_seed(0)
    network = Network.model_validate(MIXED)
    model = build(network, in_features=3, classes=2)
    x = torch.randn(50, 20, 3) * 7 + 2
    scale_starts_(model, network, x)
    with torch.no_grad():
        for layer, made in zip(network.layers, model, strict=False):
            if layer.kind == "linear" or layer.kind == "dense":
                currents = made.linear(x)
                assert currents.std().item() == pytest.approx(1, rel=0.01)
                assert currents.flatten(0, 1).mean(0).abs().max() < 1e-5
            else:
                _, last = made.memory(x, return_state=True)
                assert last.square().mean().item() == pytest.approx(1, rel=1e-4)
            x = made(x)
    assert model.training


def test_a_thermometer_needs_an_encoder_in_front():
    layers = [
        {"kind": "linear", "width": 8, "activation": "relu"},
        {"kind": "associative_leaky", "d_value": 4, "d_key": 4, "start": "thermometer"},
    ]
    document = {"task": {"name": "copy"}, "network": {"layers": layers}}
    with pytest.raises(InvalidInput, match="layers.1.start is thermometer.*allowed: such a layer in front"):
        Recipe.parse(document, source="test")
