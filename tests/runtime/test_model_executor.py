"""What the trained module says of itself: its spikes and membranes, and what cannot be heard."""

import numpy as np
import pytest
import snntorch
import torch
from torch import Tensor, nn

from tests.graphs import sequence
from unscan.compiler.errors import InvalidInput
from unscan.compiler.frontends.trace import trace
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.trainer.neurons import AssociativeLeaky, BinaryThreshold, Leaky, LeakyIntegrator, LinearLeaky


def test_every_layer_is_heard_once_for_each_call():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.neuron, self.parts = (
                nn.Linear(4, 4),
                Leaky(4, 0.8, 0.3),
                LinearLeaky(4, 4, threshold=0.3),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.parts(self.neuron(self.fc(x))))

    model = Twice().double()
    graph = trace(model, np.zeros((1, 1, 4)))
    x = sequence(graph, 50, 2) * 2
    heard, reference = Model(model, graph).run(x), Reference(graph).run(x)
    assert set(heard.spikes) == {"neuron", "parts.neuron", "neuron_2"}
    for name, spikes in heard.spikes.items():
        np.testing.assert_array_equal(spikes, reference.spikes[name])
        np.testing.assert_allclose(heard.membranes[name], reference.membranes[name], rtol=0, atol=1e-9)
    assert not np.array_equal(heard.spikes["neuron"], heard.spikes["neuron_2"])


def test_a_memory_shows_its_matrix():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), AssociativeLeaky(4, 3, 2, threshold=0.05, fires=">")).double()
    graph = trace(model, np.zeros((1, 1, 4)))
    x = sequence(graph, 20, 2)
    heard = Model(model, graph).run(x)
    assert heard.membranes["1"].shape == (20, 2, 3, 2)
    np.testing.assert_array_equal(heard.spikes["1"], heard.membranes["1"] > 0.05)
    assert heard.spikes["1"].any()


def test_a_memory_of_snntorch_shows_what_it_compares():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), snntorch.AssociativeLeaky(4, 3, 2, 6), nn.Linear(9, 2))
    graph = trace(model, np.zeros((1, 1, 4), np.float32))
    executor = Model(model, graph)
    x = sequence(graph, 3, 2).astype(np.float32) * 3
    heard, reference = executor.run(x), Reference(graph).run(x)
    assert executor.unheard == ()
    np.testing.assert_allclose(heard.membranes["1"], reference.membranes["1"], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(heard.spikes["1"], reference.spikes["1"])
    assert heard.spikes["1"].any()
    assert "fire" not in vars(model[1])
    assert "forward" not in vars(model[1])


def test_what_cannot_be_heard_is_named():
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return (self.fc(x) > 0.1).to(x.dtype)

    model = Own()
    graph = trace(model, np.zeros((1, 1, 4), np.float32))
    executor = Model(model, graph)
    assert executor.unheard == ("gt",)
    heard = executor.run(sequence(graph, 5, 2))
    assert (heard.spikes, heard.membranes) == ({}, {})
    assert heard.outputs.any()


def test_a_graph_of_another_model_is_refused():
    graph = trace(nn.Sequential(nn.Linear(4, 4), Leaky(4)), np.zeros((1, 1, 4), np.float32))
    with pytest.raises(InvalidInput, match="no module named 1, which the graph has as neurons"):
        Model(nn.Sequential(nn.Linear(4, 4)), graph)


def test_a_single_layer_is_a_model():
    for layer in (Leaky(4), LeakyIntegrator(4), BinaryThreshold(4)):
        graph = trace(layer, np.zeros((1, 1, 4), np.float32))
        x = sequence(graph, 9, 2)
        heard = Model(layer, graph).run(x)
        np.testing.assert_allclose(heard.membranes["0"], Reference(graph).run(x).membranes["0"], atol=1e-5)


def test_a_forward_that_writes_into_its_input_leaves_the_callers_alone():
    class Adds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x += self.fc(x)
            return x

    model = Adds().double()
    graph = trace(model, np.zeros((1, 1, 4)))
    x = sequence(graph, 5, 2)
    before = x.copy()
    outputs = Model(model, graph).run(x).outputs
    np.testing.assert_array_equal(x, before)
    np.testing.assert_allclose(Reference(graph).run(x).outputs, outputs, atol=1e-12)


def test_a_model_of_buffers_alone_computes_in_their_format():
    model = nn.Sequential(Leaky(4, 0.9, 0.3), LeakyIntegrator(4, 0.8)).double()
    graph = trace(model, np.zeros((1, 1, 4)))
    assert graph.dtype == np.float64
    x = sequence(graph, 40, 2) * 2
    heard, reference = Model(model, graph).run(x), Reference(graph).run(x)
    assert heard.outputs.dtype == np.float64
    np.testing.assert_allclose(heard.outputs, reference.outputs, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(heard.spikes["0"], reference.spikes["0"])


def test_recording_is_an_option_and_states_are_not():
    model = nn.Sequential(nn.Linear(4, 4), Leaky(4)).train()
    graph = trace(model, np.zeros((1, 1, 4), np.float32))
    x = sequence(graph, 5, 2)
    heard = Model(model, graph).run(x, record=False)
    assert (heard.spikes, heard.membranes) == ({}, {})
    np.testing.assert_array_equal(heard.outputs, Model(model, graph).run(x).outputs)
    assert model.training
    with pytest.raises(InvalidInput, match="starts from a zero state"):
        Model(model, graph).run(x, state={})


@pytest.mark.parametrize("steps", [1, 2])
def test_short_sequences_are_told_from_steps(steps):
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.fc, self.neuron = nn.Linear(4, 4), Leaky(4, 0.8, 0.3)

        def forward(self, x: Tensor) -> Tensor:
            return self.neuron(self.fc(self.neuron(self.fc(x))))

    model = Twice().double()
    graph = trace(model, np.zeros((1, 1, 4)))
    x = sequence(graph, steps, 3) * 3
    executor = Model(model, graph)
    heard, reference = executor.run(x), Reference(graph).run(x)
    assert executor.unheard == ()
    for name in ("neuron", "neuron_2"):
        np.testing.assert_array_equal(heard.spikes[name], reference.spikes[name])
        assert heard.membranes[name].shape == (steps, 3, 4)
