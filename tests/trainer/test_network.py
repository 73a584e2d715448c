import pytest
import torch
from torch import fx

from unscan.compiler.errors import InvalidInput
from unscan.trainer.network import NEURONS, build, decide
from unscan.trainer.neurons import Leaky, LeakyIntegrator, StateLeaky
from unscan.trainer.norm import SequenceBatchNorm
from unscan.trainer.settings import Network

FULL = Network.model_validate(
    {
        "layers": [
            {"width": 6, "neuron": {"kind": "leaky", "beta": 0.8, "beta_to": 0.98}, "start": "clocks"},
            {"width": 6, "neuron": {"kind": "leaky", "reset": "subtract"}, "norm": "batch", "residual": True},
            {"width": 5, "neuron": {"kind": "state_leaky", "fires": ">"}, "dropout": 0.5},
        ],
        "readout": {"beta": 0.95, "decision": "mean"},
    }
)


class Leaves(fx.Tracer):
    def is_leaf_module(self, module, name):
        return isinstance(module, Leaky | StateLeaky | LeakyIntegrator) or super().is_leaf_module(
            module, name
        )


def test_model_maps_sequences_to_outputs_of_each_step():
    model = build(FULL, in_features=2, classes=4)
    assert model(torch.randn(7, 3, 2)).shape == (7, 3, 4)
    neuron = model.layer1.neuron
    assert (neuron.reset, model.layer2.inner.neuron.reset, model.layer3.neuron.fires) == (
        "zero",
        "subtract",
        ">",
    )
    assert neuron.beta[0].item() == pytest.approx(0.8)
    assert neuron.beta[-1].item() == pytest.approx(0.98)
    assert bool((neuron.beta.diff() > 0).all())


def test_model_can_be_traced_with_the_neurons_as_leaves():
    model = build(FULL, in_features=2, classes=4).eval()
    graph = Leaves().trace(model)
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    assert [name for name in called if name.endswith("neuron")] == [
        "layer1.neuron",
        "layer2.inner.neuron",
        "layer3.neuron",
    ]
    assert called[-1] == "readout.integrator"
    x = torch.randn(7, 3, 2)
    assert torch.equal(fx.GraphModule(model, graph)(x), model(x))


def test_residual_adds_the_input():
    model = build(FULL, in_features=2, classes=4).eval()
    x = (torch.rand(7, 3, 6) < 0.3).float()
    assert torch.equal(model.layer2(x), x + model.layer2.inner(x))


def test_residual_first_layer_needs_the_width_of_the_input():
    network = Network.model_validate(
        {"layers": [{"width": 6, "neuron": {"kind": "leaky"}, "residual": True}]}
    )
    build(network, in_features=6, classes=2)
    with pytest.raises(InvalidInput, match=r"network\.layers\.0 is residual with width 6 on an input of 2"):
        build(network, in_features=2, classes=2)


def test_decision():
    outputs = torch.arange(12.0).reshape(3, 2, 2)
    assert torch.equal(decide(outputs, "last"), outputs[2])
    assert torch.equal(decide(outputs, "mean"), outputs[1])


@pytest.mark.parametrize("steps", [1, 63])
def test_norm_is_over_time_and_batch(steps):
    x = torch.randn(steps, 5, 3, dtype=torch.float64) * 4 + 2
    norm = SequenceBatchNorm(3).double()
    y = norm(x)
    mean, variance = x.mean(dim=(0, 1)), x.var(dim=(0, 1), unbiased=False)
    torch.testing.assert_close(y, (x - mean) / torch.sqrt(variance + 1e-5))
    norm.eval()
    running = norm.norm
    scale = running.weight / torch.sqrt(running.running_var + running.eps)
    torch.testing.assert_close(norm(x), (x - running.running_mean) * scale + running.bias)
    torch.testing.assert_close(norm(x)[0], norm(x[0]))


KINDS = [{"kind": kind} for kind in NEURONS] + [
    {"kind": "leaky", "form": "loop", "backward": "sltt"},
    {"kind": "state_leaky", "form": "fft"},
    {"kind": "annealed_leaky", "rounds": None, "learn_reset": True},
    {"kind": "surrogate_leaky", "network": "scratch"},
]


@pytest.mark.parametrize("neuron", KINDS, ids=lambda neuron: "-".join(map(str, neuron.values())))
def test_every_neuron_stands_in_every_layer_that_has_one(neuron):
    network = Network.model_validate(
        {
            "layers": [
                {"width": 8, "neuron": neuron},
                {"kind": "spiking_ssm", "states": 4, "neuron": neuron},
            ],
            "readout": {"kind": "spiking", "neuron": neuron},
        }
    )
    torch.manual_seed(0)
    model = build(network, in_features=2, classes=3)
    outputs = model(torch.randn(20, 5, 2) * 3)
    assert outputs.shape == (20, 5, 3)
    assert set(outputs.unique().tolist()) <= {0.0, 1.0}
    outputs.sum().backward()
    assert model.layer1.linear.weight.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["associative_leaky", "delta_leaky"])
@pytest.mark.parametrize(("settings", "width"), [({}, 9), ({"queries": 2}, 6), ({"use_q": False}, 12)])
def test_memories_are_as_wide_as_what_they_give(kind, settings, width):
    layers = [{"kind": kind, "d_value": 3, "d_key": 4, **settings}, {"kind": "linear", "width": 5}]
    network = Network.model_validate({"layers": layers, "readout": {"kind": "linear", "decision": "every"}})
    model = build(network, in_features=2, classes=3)
    assert model.layer2.linear.in_features == width
    assert model(torch.randn(7, 2, 2)).shape == (7, 2, 3)


def test_a_linear_layer_may_have_a_relu():
    layers = [{"kind": "linear", "width": 50, "activation": "relu"}]
    model = build(Network.model_validate({"layers": layers}), in_features=2, classes=3)
    hidden = model.layer1(torch.randn(4, 3, 2))
    assert hidden.min() == 0
    assert hidden.max() > 0


def test_a_spread_of_equal_decays_gives_every_channel_its_own():
    neuron = {"kind": "leaky", "beta": 0.125, "beta_to": 0.125, "learn_beta": True}
    model = build(Network.model_validate({"layers": [{"width": 6, "neuron": neuron}]}), 2, 3)
    assert model.layer1.neuron.stored_beta.shape == (6,)
    assert model.layer1.neuron.stored_beta.tolist() == pytest.approx([0.125] * 6)
