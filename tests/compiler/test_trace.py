import numpy as np
import pytest
import torch
from torch import nn

from tests.graphs import sequence
from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.frontends.trace import trace
from unscan.compiler.ir import Edge, Kind
from unscan.compiler.nodes import LIConvolution, LIFConvolution, LIFScan, Scale
from unscan.runtime.executors.reference import Reference
from unscan.trainer.neurons import (
    S4D,
    AnnealedLeaky,
    AssociativeLeaky,
    Leaky,
    LeakyIntegrator,
    LinearLeaky,
    SpikingSSM,
    StateLeaky,
    Synaptic,
)
from unscan.trainer.norm import SequenceBatchNorm

SAMPLE = torch.zeros(2, 1, 5)


def agrees(model: nn.Module, features: int = 5, *, steps: int = 40) -> None:
    """The reference of the traced graph gives what the module gives, in float64."""
    model = model.double().eval()
    graph = trace(model, np.zeros((1, 1, features)))
    x = sequence(graph, steps, 3)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(Reference(graph).run(x).outputs, expected, rtol=0, atol=1e-11)


def test_a_sequential_keeps_its_modules_names():
    model = nn.Sequential(nn.Linear(5, 4), Leaky(4, reset="subtract"), LinearLeaky(4, 3), nn.Linear(3, 2))
    model.append(LeakyIntegrator(2))
    graph = trace(model, SAMPLE)
    assert list(graph.nodes) == ["input", "0", "1", "2.linear", "2.neuron", "3", "4", "output"]
    assert graph.nodes["1"].reset == "subtract"
    assert graph.of(LIFScan) == ["1"]
    assert graph.of(LIFConvolution) == ["2.neuron"]
    assert graph.of(LIConvolution) == ["4"]
    agrees(model)


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("phase", ["now", "next"])
def test_every_setting_of_a_neuron_arrives(reset, phase):
    beta, threshold = np.linspace(0.5, 0.9, 4), np.linspace(0.4, 0.9, 4)
    neuron = Leaky(4, beta, threshold, reset, phase=phase, fires=">", gain="1-beta", learn_beta=True)
    node = trace(nn.Sequential(nn.Linear(5, 4), neuron), SAMPLE).nodes["1"]
    assert (node.reset, node.phase, node.fires, node.gain) == (reset, phase, ">", "1-beta")
    np.testing.assert_allclose(node.beta, beta, rtol=1e-6)
    np.testing.assert_allclose(node.threshold, threshold, rtol=1e-6)
    agrees(nn.Sequential(nn.Linear(5, 4), neuron))


class Own(nn.Module):
    """A user's module: residual adds, functions, a neuron used twice, dropout, norm."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.out = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.norm, self.neuron, self.drop = SequenceBatchNorm(5), StateLeaky(5, 0.8, 0.4), nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.neuron(self.norm(self.fc1(x)))
        second = self.neuron(torch.relu(self.fc2(self.drop(first))) + first)
        return self.out(0.5 * second + first + first) + self.out(x).tanh()


def test_a_module_of_ones_own_with_residual_adds():
    model = Own()
    model.norm.norm.running_mean.uniform_(-0.3, 0.3)
    model.norm.norm.running_var.uniform_(0.5, 1.5)
    agrees(model)
    graph = trace(model, SAMPLE)
    assert {"neuron", "neuron_2", "out", "out_2"} <= set(graph.nodes)
    assert Edge("neuron", "neuron_2") in graph.edges
    assert [float(graph.nodes[n].scale) for n in graph.of(Scale)] == [0.5, 2.0]


def test_activations_and_flatten():
    model = nn.Sequential(nn.Flatten(2), nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4), nn.Sigmoid(), nn.Tanh())
    model.extend([nn.SiLU(), nn.GELU(), nn.Identity()])
    model = model.double()
    graph = trace(model, np.zeros((1, 1, 2, 3)))
    x = sequence(graph, 7, 2)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(Reference(graph).run(x).outputs, expected, atol=1e-12)


def test_a_single_neuron_is_a_model():
    assert list(trace(Leaky(5), SAMPLE).nodes) == ["input", "0", "output"]


def test_the_input_is_spikes_where_the_sample_is():
    assert trace(Leaky(5), SAMPLE.bool()).signals["input"].kind is Kind.SPIKE
    assert trace(Leaky(5), SAMPLE).signals["input"].kind is Kind.REAL
    assert trace(Leaky(5), SAMPLE, kind="spike").signals["input"].kind is Kind.SPIKE


class Forward(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.fc, self.neuron = function, nn.Linear(5, 5), Leaky(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


REFUSED = {
    "unknown layer": (
        nn.Sequential(nn.Linear(5, 5), nn.LayerNorm(5)),
        r"module '1' is a .*LayerNorm.*no node",
    ),
    "bidirectional": (nn.Sequential(nn.LSTM(5, 5, bidirectional=True)), "LSTM"),
    "batch norm of torch": (nn.Sequential(nn.BatchNorm1d(5)), "BatchNorm1d"),
    "flatten of time": (nn.Sequential(nn.Flatten()), r"nn.Flatten\(1, -1\).*use nn.Flatten\(2\)"),
    "mean over time": (Forward(lambda m, x: m.fc(x).mean(0)), "mean"),
    "flip of time": (Forward(lambda m, x: m.fc(torch.flip(x, [0]))), "flip"),
    "constant added": (Forward(lambda m, x: m.fc(x) + 1), "add"),
    "product of signals": (Forward(lambda m, x: x * m.fc(x)), "mul"),
    "options of a neuron": (
        Forward(lambda m, x: m.neuron(x, return_membrane=True)[0]),
        "'neuron'.*return_membrane",
    ),
    "two outputs": (Forward(lambda m, x: (x, x)), "returns tuple"),
    "a loose parameter": (Forward(lambda m, x: m.fc.weight + x), "'fc.weight'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_node_is_refused_by_name(case):
    model, message = REFUSED[case]
    with pytest.raises(Unsupported, match=message):
        trace(model, SAMPLE)


def test_a_forward_that_looks_at_values_is_refused():
    with pytest.raises(InvalidInput, match="Forward cannot be traced"):
        trace(Forward(lambda m, x: m.fc(x) if x.sum() > 0 else x), SAMPLE)


def test_nan_weights_are_refused_with_the_layers_name():
    model = nn.Sequential(nn.Linear(5, 4), Leaky(4))
    with torch.no_grad():
        model[0].weight[1, 2] = torch.nan
    with pytest.raises(InvalidGraph, match="Linear '0' breaks the rule that every number is finite"):
        trace(model, SAMPLE)


def test_a_sample_without_time_or_batch_says_what_is_wanted():
    with pytest.raises(InvalidInput, match=r"shape \(2, 5\), wanted \(T, B, ...\)"):
        trace(Leaky(5), torch.zeros(2, 5))


def test_layers_that_do_not_fit_name_both_ends():
    with pytest.raises(InvalidGraph, match=r"Linear '1' does not fit what feeds it, 0"):
        trace(nn.Sequential(nn.Linear(5, 4), nn.Linear(3, 2)), SAMPLE)


@pytest.mark.parametrize(
    "layer", [AnnealedLeaky(4), AssociativeLeaky(4, 2, 2), S4D(4, 2), SpikingSSM(4, 2), Synaptic(4)],
    ids=lambda layer: type(layer).__name__,
)  # fmt: skip
def test_neurons_without_a_node_are_refused_by_name(layer):
    with pytest.raises(
        Unsupported, match=rf"'1' is a .*\.{type(layer).__name__}, and there is no node for it"
    ):
        trace(nn.Sequential(nn.Linear(4, 4), layer), np.zeros((3, 2, 4), np.float32))
