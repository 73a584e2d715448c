import tracemalloc

import numpy as np
import pytest
import torch
from torch import nn

from tests.graphs import sequence
from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.frontends.trace import trace
from unscan.compiler.ir import Edge, Kind
from unscan.compiler.nodes import LIConvolution, LIFConvolution, LIFScan, Linear, Scale
from unscan.runtime.executors.reference import Reference
from unscan.trainer.neurons import Leaky, LeakyIntegrator, LinearLeaky, StateLeaky, StochasticLeaky
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
    "unknown layer": (nn.Sequential(nn.Linear(5, 5), nn.Softsign()), r"module '1' is a .*Softsign.*no node"),
    "bidirectional": (nn.Sequential(nn.LSTM(5, 5, bidirectional=True)), "LSTM.*bidirectional.*no step form"),
    "recurrent of torch": (nn.Sequential(nn.GRU(5, 5)), "GRU.*do not fire"),
    "attention": (nn.TransformerEncoderLayer(5, 1), "mixes all steps"),
    "batch norm of torch": (
        nn.Sequential(nn.Identity(), nn.BatchNorm1d(3)),
        r"handed a whole sequence.*flatten\(0, 1\)",
    ),
    "flatten of time": (nn.Sequential(nn.Flatten()), r"joins time or batch.*nn.Flatten\(2\)"),
    "chance": (nn.Sequential(StochasticLeaky(5)), "StochasticLeaky.*random numbers have no node"),
    "two outputs in a list": (Forward(lambda m, x: [x, x]), "returns a list"),
    "no output": (Forward(lambda m, x: torch.ones(2)), "wanted a tensor that depends on the input"),
    "options of a neuron": (
        Forward(lambda m, x: m.neuron(x, return_membrane=True)[0]),
        "'neuron'.*called with more than its input",
    ),
    "the length": (Forward(lambda m, x: m.fc(x) / x.shape[0]), "Scale 'div' comes out different"),
    "the batch": (Forward(lambda m, x: m.fc(x) * x.shape[1]), "Scale 'mul' comes out different"),
    "a number for every step": (
        Forward(lambda m, x: m.fc(x) + torch.arange(float(len(x)))[:, None, None]),
        "same at every step",
    ),
    "time and batch folded": (Forward(lambda m, x: m.fc(x.flatten(0, 1))), r"unfold them with .unflatten\(0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_node_is_refused_by_name(case):
    model, message = REFUSED[case]
    with pytest.raises(Unsupported, match=message):
        trace(model, SAMPLE)


def test_a_forward_that_looks_at_values_is_refused():
    with pytest.raises(InvalidInput, match="forward cannot be traced.*bool; line"):
        trace(Forward(lambda m, x: m.fc(x) if x.sum() > 0 else x), SAMPLE)


def test_weights_are_copied_once():
    model = nn.Sequential(*(nn.Linear(1000, 1000, bias=False) for _ in range(5)))
    sample = np.zeros((1, 1, 1000), np.float32)
    trace(model, sample)
    tracemalloc.start()
    graph = trace(model, sample)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.6 * sum(node.weight.nbytes for node in graph.nodes.values() if isinstance(node, Linear))


def test_nan_weights_are_refused_with_the_layers_name():
    model = nn.Sequential(nn.Linear(5, 4), Leaky(4))
    with torch.no_grad():
        model[0].weight[1, 2] = torch.nan
    with pytest.raises(InvalidGraph, match="Linear '0' breaks the rule that every number is finite"):
        trace(model, SAMPLE)


def test_a_sample_without_time_or_batch_says_what_is_wanted():
    with pytest.raises(InvalidInput, match=r"shape \(2, 5\), wanted \(T, B, ...\)"):
        trace(Leaky(5), torch.zeros(2, 5))


def test_indices_are_one_number_a_step():
    model = nn.Sequential(nn.Embedding(3, 5), Leaky(5))
    for shape in ((2, 1), (2, 1, 1)):
        assert trace(model, torch.zeros(shape, dtype=torch.int64), kind="index").signals["input"].shape == (
            1,
        )
    with pytest.raises(InvalidInput, match=r"sample of indices has shape \(2, 1, 4\), wanted \(T, B\)"):
        trace(model, torch.zeros(2, 1, 4), kind="index")


def test_layers_that_do_not_fit_name_both_ends():
    with pytest.raises(InvalidGraph, match=r"Linear '1' does not fit what feeds it.*\(2, 3, 4\)"):
        trace(nn.Sequential(nn.Linear(5, 4), nn.Linear(3, 2)), SAMPLE)
