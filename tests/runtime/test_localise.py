"""Which layer leaves its own recurrence: a scan that is known to, and layers that do not."""

import json

import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from unscan.compiler.frontends.builder import Builder
from unscan.compiler.ir import Graph
from unscan.compiler.nodes import Activation, AssociativeScan, Input, LIFConvolution, LIFScan, Linear, Output
from unscan.runtime.localise import TOLERANCE, UNDERFLOW, localise
from unscan.trainer.neurons import AssociativeLeaky, Leaky, StateLeaky

T, B, FEATURES, ROWS, COLUMNS, FAST = 40, 3, 4, 3, 5, 2


class Net(nn.Module):
    """A neuron, a matrix memory, and a neuron behind it."""

    def __init__(self, memory: nn.Module, width: int) -> None:
        super().__init__()
        self.front = Leaky(FEATURES, 0.8, 0.7)
        self.memory = memory
        self.mix = nn.Linear(width, 6)
        self.back = StateLeaky(6, 0.9, 0.6)

    def forward(self, x):
        return self.back(self.mix(self.memory(self.front(x))))


def net(memory: nn.Module, width: int) -> Net:
    """A net whose memory's column FAST decays by 0.3 at each step, and the others by 0.995."""
    model = Net(memory, width)
    with torch.no_grad():
        memory.to_alpha.weight.zero_()
        memory.to_alpha.bias.fill_(float(np.log(0.995 / 0.005)))
        memory.to_alpha.bias[FAST] = float(np.log(0.3 / 0.7))
        memory.to_v.bias += 1.5
        memory.to_k.bias += 0.5
    return model.eval()


def snntorch_net(*, queries: bool = False) -> Net:
    torch.manual_seed(5)
    size = {"d_value": 4, "d_key": 4} if queries else {"d_value": ROWS, "d_key": COLUMNS}
    neurons = size["d_value"] * size["d_key"]
    memory = snntorch.AssociativeLeaky(
        FEATURES, **size, num_spiking_neurons=neurons, use_q_projection=queries
    )
    return net(memory, neurons)


def graph_of(model: Net) -> Graph:
    """The graph of the net, node by node."""
    numbers = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    theirs = isinstance(model.memory, snntorch.AssociativeLeaky)
    to = Builder(np.float64)

    def linear(name, x):
        return to.add(name, Linear(numbers[f"{name}.weight"], numbers[f"{name}.bias"]), x)

    x = to.add("input", Input((FEATURES,)))
    x = to.add("front", LIFScan(beta=np.float64(0.8), threshold=np.float64(0.7), reset=model.front.reset), x)
    ports = {port: linear(f"memory.to_{port}", x) for port in ("v", "k", "alpha")}
    ports["alpha"] = to.add("memory.sigmoid", Activation("sigmoid"), ports["alpha"])
    if model.memory.to_q is not None:
        ports["q"] = linear("memory.to_q", x)
    queries = model.memory.d_value if model.memory.to_q is not None else None
    node = AssociativeScan(threshold=np.float64(1), queries=queries, fires=">" if theirs else ">=")
    x = linear("mix", to.add("memory", node, **ports))
    x = to.add("back", LIFConvolution(beta=np.float64(0.9), threshold=np.float64(0.6), reset="none"), x)
    to.add("output", Output(), x)
    return to.graph()


def sequence():
    return np.random.default_rng(2).normal(0.4, 1, (T, B, FEATURES))


def scanned(model: Net, x):
    """The memory by snnTorch's formula and by its recurrence, written out by hand: (T, B, d, n) each."""
    model = model.double()
    with torch.no_grad():
        sent = model.front(torch.as_tensor(x))
        v, k, a = (getattr(model.memory, f"to_{port}")(sent).numpy() for port in ("v", "k", "alpha"))
    a = 1 / (1 + np.exp(-a))
    product = np.cumprod(a, axis=0)
    write = v[..., :, None] * k[..., None, :]
    divided = np.cumsum(write / (product + 1e-8)[:, :, None], axis=0) * product[:, :, None]
    recurrence, state = np.empty_like(write), np.zeros_like(write[0])
    for t in range(len(x)):
        state = recurrence[t] = state * a[t][:, None] + write[t]
    return divided, recurrence, product


def test_the_scan_of_snntorch_is_found_with_its_column_step_and_cause():
    model, x = snntorch_net(), sequence()
    found = localise(model, graph_of(model), x)
    divided, recurrence, product = scanned(model, x)
    off = np.abs(divided - recurrence) > TOLERANCE * np.maximum(np.abs(recurrence).max(axis=0), 1)
    step = int(off.any(axis=(1, 2, 3)).argmax())
    first = found.first
    assert first is not None
    assert (first.layer, first.operator, first.what, first.precision) == (
        "memory",
        "AssociativeScan",
        "membrane",
        64,
    )
    assert first.step == step > 3
    assert first.neuron[1] == FAST
    at = (first.step, first.sample, *first.neuron)
    assert first.found == pytest.approx(divided[at], rel=1e-9)
    assert first.wanted == pytest.approx(recurrence[at], rel=1e-12)
    assert first.largest == pytest.approx(np.abs(divided - recurrence).max(), rel=1e-6)
    differ = (divided > 1) != (recurrence > 1)
    assert first.spikes == differ.sum() > 0
    assert first.spike_step == int(differ.any(axis=(1, 2, 3)).argmax()) >= step
    assert not off[..., [c for c in range(COLUMNS) if c != FAST]].any()
    under = int((product[:, 0, FAST] < UNDERFLOW).argmax())
    assert f"The decays of column {FAST} multiply to {0.3 ** (step + 1):.3g} by step {step}" in first.cause
    assert f"from step {under} on" in first.cause
    assert f"row {first.neuron[0]}, column {FAST}" in str(first)
    assert found.kept == ("front", "back")
    assert [d.layer for d in found.departures] == ["memory"]
    assert json.loads(json.dumps(found.to_json()))["departures"][0]["step"] == step


def test_it_is_found_behind_queries_too():
    model, x = snntorch_net(queries=True), sequence()
    found = localise(model, graph_of(model), x)
    assert [d.layer for d in found.departures] == ["memory"]
    assert found.first.what == "membrane"
    assert found.first.neuron[1] == FAST


def test_samples_keep_their_numbers():
    model, x = snntorch_net(), sequence()
    graph = graph_of(model)
    assert localise(model, graph, x, [2]).first.sample == 2


def test_of_a_right_model_nothing_is_reported():
    torch.manual_seed(5)
    model = net(AssociativeLeaky(FEATURES, ROWS, COLUMNS, use_q=False), ROWS * COLUMNS)
    found = localise(model, graph_of(model), sequence())
    assert found.departures == ()
    assert found.kept == ("front", "memory", "back")
    assert found.unheard == ()


def test_a_wrong_decay_in_one_layer_is_found_in_that_layer_alone():
    torch.manual_seed(5)
    model = net(AssociativeLeaky(FEATURES, ROWS, COLUMNS, use_q=False), ROWS * COLUMNS)
    graph = graph_of(model)
    model.front = Leaky(FEATURES, 0.7, 0.7)
    found = localise(model, graph, sequence())
    assert [d.layer for d in found.departures] == ["front"]
    assert found.first.step == 1
    assert found.first.cause == ""
    assert found.kept == ("memory", "back")


def test_the_model_is_left_as_it_was():
    model = snntorch_net()
    before = {name: p.clone() for name, p in model.named_parameters()}
    localise(model, graph_of(model), sequence())
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert "fire" not in vars(model.memory)
    assert not model.memory._forward_hooks
