"""Models that take one step at a time: loops over the steps, and forwards that are one step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch
import torch
from torch import Tensor, nn

from tests.graphs import sequence
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.frontends.trace import trace
from unscan.compiler.ir import Dialect
from unscan.compiler.nodes import LIF, Linear
from unscan.compiler.spec import check
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.trainer.neurons import Leaky


class Net(nn.Module):
    """Two layers as in snnTorch's tutorials; what the loop does is given."""

    def __init__(self, loop: Callable[["Net", Tensor], Any], **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loop = loop
        self.fc1, self.fc2 = nn.Linear(5, 8), nn.Linear(8, 3)
        self.lif1 = snntorch.Leaky(beta=0.9, threshold=0.5, **settings)
        self.lif2 = snntorch.Leaky(beta=0.8, threshold=0.3)

    def forward(self, x: Tensor) -> Any:
        return self.loop(self, x)


def tutorial(net: Net, x: Tensor) -> Any:
    mem1, mem2 = net.lif1.init_leaky(), net.lif2.init_leaky()
    spikes, membranes = [], []
    for step in range(x.size(0)):
        spk1, mem1 = net.lif1(net.fc1(x[step]), mem1)
        spk2, mem2 = net.lif2(net.fc2(spk1), mem=mem2)
        spikes.append(spk2)
        membranes.append(mem2)
    return torch.stack(spikes, dim=0), torch.stack(membranes, dim=0)


def from_none(net: Net, x: Tensor) -> Any:
    mem1 = mem2 = torch.zeros(x.shape[1], 1)
    spikes = []
    for part in x:
        spk1, mem1 = net.lif1(net.fc1(part), mem1)
        spk2, mem2 = net.lif2(net.fc2(spk1), mem2)
        spikes.append(spk2 + 0.5 * net.fc2(spk1))
    return torch.stack(spikes)


def cut_off(net: Net, x: Tensor) -> Any:
    mem, spikes = net.lif1.init_leaky(), []
    for part in x:
        spk, mem = net.lif1(net.fc1(part), mem.detach())
        spikes.append(spk)
    return torch.stack(spikes)


def layer_by_layer(net: Net, x: Tensor) -> Any:
    current, spikes, mem = net.fc1(x), [], net.lif1.init_leaky()
    for step in range(len(x)):
        spk, mem = net.lif1(current[step], mem)
        spikes.append(spk)
    return net.fc2(torch.stack(spikes))


def compared(model: nn.Module, **options: Any) -> Any:
    """Trace a model, and hold its graph against it; return the graph."""
    model = model.double()
    graph = trace(model, np.zeros((1, 1, 5)), **options)
    x = sequence(graph, 40, 3) * 2
    executor = Model(model, graph)
    expected, got = executor.run(x), Reference(graph).run(x)
    np.testing.assert_allclose(got.outputs, expected.outputs, rtol=0, atol=1e-9)
    assert expected.spikes
    for name, spikes in expected.spikes.items():
        assert spikes.any()
        np.testing.assert_array_equal(got.spikes[name], spikes)
    for name, membranes in expected.membranes.items():
        np.testing.assert_allclose(got.membranes[name], membranes, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(executor.run(x).outputs, expected.outputs)
    return graph


@pytest.mark.parametrize("settings", [{}, {"reset_mechanism": "zero"}, {"reset_delay": False}], ids=str)
@pytest.mark.parametrize("loop", [tutorial, from_none, cut_off, layer_by_layer])
def test_a_loop_is_read_as_one_step(loop, settings):
    graph = compared(Net(loop, **settings))
    check(graph, Dialect.ITERATIVE)
    assert "lif1" in graph.nodes
    assert len(graph.of(Linear)) == {from_none: 3, cut_off: 1}.get(loop, 2)
    assert graph.meta == {}


def test_the_output_can_be_another_than_the_first():
    graph = compared(Net(tutorial), output=1)
    assert dict(graph.meta) == {"output": 1}
    with pytest.raises(InvalidInput, match="returns 2 things, and output is 2"):
        trace(Net(tutorial), np.zeros((1, 1, 5)), output=2)
    with pytest.raises(InvalidInput, match="returns one thing"):
        trace(Net(from_none), np.zeros((1, 1, 5)), output=0)


def hidden(output: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(5, 8),
        snntorch.Leaky(beta=0.9, threshold=0.5, init_hidden=True),
        nn.Linear(8, 3),
        snntorch.Leaky(beta=0.8, threshold=0.3, init_hidden=True, output=output),
    )


def test_a_forward_that_is_one_step():
    graph = compared(hidden(), stepwise=True)
    assert list(graph.nodes) == ["input", "0", "1", "2", "3", "output"]
    assert dict(graph.meta) == {"stepwise": True}
    graph = compared(hidden(output=True), stepwise=True, output=1)
    assert dict(graph.meta) == {"stepwise": True, "output": 1}


def test_states_of_other_runs_are_left_alone_and_play_no_part():
    model = hidden()
    model(torch.ones(7, 5))
    before = model[1].mem
    x = sequence(trace(model, np.zeros((1, 1, 5)), stepwise=True), 10, 2).astype(np.float32) * 2
    graph = trace(model, np.zeros((1, 1, 5)), stepwise=True)
    first, again = (Model(model, graph).run(x).outputs for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(Reference(graph).run(x).outputs, first, atol=1e-6)
    assert model[1].mem is before


def test_hidden_states_in_a_loop():
    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = hidden()

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.net(part) for part in x])

    assert compared(Loop()).of(LIF) == ["net.1", "net.3"]


def swapped(net: Net, x: Tensor) -> Any:
    mem1, mem2, spikes = net.lif1.init_leaky(), net.lif2.init_leaky(), []
    for part in x:
        spk1, mem2 = net.lif1(net.fc1(part), mem1)
        spk2, mem1 = net.lif2(net.fc2(spk1), mem2)
        spikes.append(spk2)
    return torch.stack(spikes)


def mixed(net: Net, x: Tensor) -> Any:
    mem1, mem2, spikes = net.lif1.init_leaky(), net.lif2.init_leaky(), []
    for part in x:
        spk1, mem1 = net.lif1(net.fc1(part), mem1)
        spk2, mem1 = net.lif2(net.fc2(spk1), mem2)
        spikes.append(spk2)
    return torch.stack(spikes)


def not_handed_back(net: Net, x: Tensor) -> Any:
    mem, spikes = net.lif1.init_leaky(), []
    for part in x:
        spk, _ = net.lif1(net.fc1(part), mem)
        spikes.append(spk)
    return torch.stack(spikes)


def now_and_then(net: Net, x: Tensor) -> Any:
    mem, spikes = net.lif1.init_leaky(), []
    for step, part in enumerate(x):
        spk, mem = net.lif1(net.fc1(part), mem if step % 2 else net.lif1.init_leaky())
        spikes.append(spk)
    return torch.stack(spikes)


def from_one(net: Net, x: Tensor) -> Any:
    mem, spikes = torch.ones(x.shape[1], 8), []
    for part in x:
        spk, mem = net.lif1(net.fc1(part), mem)
        spikes.append(spk)
    return torch.stack(spikes)


def alternating(net: Net, x: Tensor) -> Any:
    return torch.stack([net.fc1(part) if step % 2 else net.fc1(2 * part) for step, part in enumerate(x)])


def by_hand(net: Net, x: Tensor) -> Any:
    mem, spikes = torch.zeros(x.shape[1], 8), []
    for part in x:
        mem = 0.9 * mem + net.fc1(part)
        spikes.append((mem > 1).float())
    return torch.stack(spikes)


def spikes_of_the_step_before(net: Net, x: Tensor) -> Any:
    mem, spk, spikes = net.lif1.init_leaky(), torch.zeros(x.shape[1], 8), []
    for part in x:
        spk, mem = net.lif1(net.fc1(part) + spk, mem)
        spikes.append(spk)
    return torch.stack(spikes)


def last(net: Net, x: Tensor) -> Any:
    return tutorial(net, x)[0][-1]


def listed(net: Net, x: Tensor) -> Any:
    mem, spikes = net.lif1.init_leaky(), []
    for part in x:
        spk, mem = net.lif1(net.fc1(part), mem)
        spikes.append(spk)
    return spikes, mem


REFUSED = {
    swapped: "'lif2' is called with more than its input, a state that is not zero",
    mixed: "State 0 of the module 'lif1' is result 1 of 'lif2'.*wanted result 1 of the same module",
    not_handed_back: "'lif1' starts anew at every step",
    now_and_then: "not handed the same states at every step",
    from_one: "'lif1' is called with more than its input, a state that is not zero.*every state starts at zero",
    alternating: "steps of the loop differ: step 1 calls 'fc1'.*where step 0 calls 'mul'",
    by_hand: "'add' combines steps 0 and 1.*must be the state of a module",
    spikes_of_the_step_before: "'add' combines steps 0 and 1",
    last: "returns one step of the sequence",
    listed: "gives a list as its output; torch.stack",
}


@pytest.mark.parametrize("loop", REFUSED, ids=lambda loop: loop.__name__)
def test_loops_that_are_no_steps_are_refused(loop):
    with pytest.raises(Unsupported, match=REFUSED[loop]):
        trace(Net(loop), np.zeros((1, 1, 5), np.float32))


def test_a_step_neuron_on_a_sequence_is_refused_and_a_sequence_neuron_on_a_step():
    with pytest.raises(Unsupported, match="'1' is handed a whole sequence.*it takes one step"):
        trace(hidden(), np.zeros((1, 1, 5), np.float32))
    with pytest.raises(Unsupported, match="'1' is handed one step.*it takes a whole sequence"):
        trace(nn.Sequential(nn.Linear(5, 8), Leaky(8)), np.zeros((1, 1, 5), np.float32), stepwise=True)


def test_a_hidden_state_that_two_calls_share_is_refused():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(5, 5), snntorch.Leaky(beta=0.9, init_hidden=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.lif(self.fc(self.lif(x)))

    with pytest.raises(Unsupported, match="'lif' is called twice.*two modules"):
        trace(Twice(), np.zeros((1, 1, 5), np.float32), stepwise=True)


def test_a_state_kept_by_hand_is_refused():
    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.v = nn.Linear(5, 5), 0.0

        def forward(self, x: Tensor) -> Tensor:
            self.v = 0.9 * self.v + self.fc(x)
            return (self.v > 1).float()

    model = Kept()
    with pytest.raises(Unsupported, match="'Kept' keeps a tensor in its attribute 'v'"):
        trace(model, np.zeros((1, 1, 5), np.float32), stepwise=True)
    assert model.v == 0.0


def image(net: Net, x: Tensor) -> Any:
    mem1, mem2 = net.lif1.init_leaky(), net.lif2.init_leaky()
    spikes, membranes = [], []
    for _ in range(6):
        spk1, mem1 = net.lif1(torch.relu(net.fc1(x)), mem1)
        spk2, mem2 = net.lif2(net.fc2(spk1), mem2)
        spikes.append(spk2)
        membranes.append(mem2)
    return torch.stack(spikes), torch.stack(membranes)


def image_once(net: Net, x: Tensor) -> Any:
    current, mem, spikes = net.fc1(x), None, []
    for _ in range(6):
        spk, mem = net.lif1(current + 0.1, mem)
        spikes.append(net.fc2(spk + current))
    return torch.stack(spikes)


def six(net: Net, x: Tensor) -> Any:
    mem, spikes = net.lif1.init_leaky(), []
    for step in range(6):
        spk, mem = net.lif1(net.fc1(x[step]), mem)
        spikes.append(spk)
    return torch.stack(spikes)


def twice_in_a_step(net: Net, x: Tensor) -> Any:
    mem, spikes = net.lif1.init_leaky(), []
    for _ in range(6):
        _, mem = net.lif1(net.fc1(x), mem)
        spk, mem = net.lif1(net.fc1(x), mem)
        spikes.append(spk)
    return torch.stack(spikes)


@pytest.mark.parametrize("loop", [image, image_once])
def test_a_step_that_the_model_repeats(loop):
    model = Net(loop).double()
    graph = trace(model, np.zeros((1, 1, 5)), static=True)
    assert graph.meta["static"] is True
    assert len(graph.of(Linear)) == 2
    x = np.repeat(np.random.default_rng(0).normal(0, 2, (1, 4, 5)), 6, axis=0)
    expected, got = Model(model, graph).run(x), Reference(graph).run(x)
    np.testing.assert_allclose(got.outputs, expected.outputs, rtol=0, atol=1e-12)
    assert all(spikes.any() for spikes in got.spikes.values())
    for name, spikes in expected.spikes.items():
        np.testing.assert_array_equal(got.spikes[name], spikes)
    with pytest.raises(InvalidInput, match="the steps of the input differ"):
        Model(model, graph).run(np.random.default_rng(0).normal(size=(6, 4, 5)))
    with pytest.raises(InvalidInput, match="makes 6 steps by itself, and the input has 5"):
        Model(model, graph).run(x[:5])


def test_a_number_of_steps_that_is_the_models_own():
    model = Net(six).double()
    graph = trace(model, np.zeros((1, 1, 5)), steps=6)
    x = np.random.default_rng(0).normal(0, 2, (6, 4, 5))
    np.testing.assert_array_equal(Reference(graph).run(x).outputs, Model(model, graph).run(x).outputs)


def test_steps_that_a_repeating_model_does_not_return_are_refused():
    with pytest.raises(Unsupported, match="'lif1' is called at more steps than the forward returns, 6"):
        trace(Net(twice_in_a_step), np.zeros((1, 1, 5)), static=True)


def test_a_forward_is_one_thing():
    with pytest.raises(InvalidInput, match="say one of these"):
        trace(Net(image), np.zeros((1, 1, 5)), static=True, stepwise=True)


class Recurrent(nn.Module):
    """A neuron that takes its spikes and its membrane back; how many of them it is handed is given."""

    def __init__(self, handed: slice) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.handed = handed
        self.neuron = snntorch.RLeaky(beta=0.9, threshold=0.3, linear_features=5)

    def forward(self, x: Tensor) -> Any:
        states, spikes = self.neuron.init_rleaky(), []
        for step in range(x.shape[0]):
            results = self.neuron(x[step], *states)
            states = results[self.handed]
            spikes.append(results[0])
        return torch.stack(spikes)


def test_states_go_in_where_they_came_out():
    model = Recurrent(slice(None)).double()
    graph = trace(model, np.zeros((1, 1, 5)))
    x = np.random.default_rng(0).normal(0, 1, (30, 4, 5))
    found = Reference(graph).run(x).outputs
    assert 0.05 < found.mean() < 0.95
    np.testing.assert_array_equal(found, Model(model, graph).run(x).outputs)
    with pytest.raises(Unsupported, match="State 0 of the module 'neuron' is result 1.*wanted result 0"):
        trace(Recurrent(slice(1, None)), np.zeros((1, 1, 5)))
