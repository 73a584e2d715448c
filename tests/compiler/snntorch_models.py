"""snnTorch's neurons run by snnTorch's own loop, beside the graphs that are read from them."""

from __future__ import annotations

import inspect

import numpy as np
import snntorch
import torch
from torch import nn

from unscan.compiler.frontends.builder import Axes, Builder, Results, Value
from unscan.compiler.frontends.modules import load_rules, read
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import Input, Output
from unscan.compiler.spec import check
from unscan.runtime.agreement import LayerAgreement
from unscan.runtime.executors.reference import Reference

load_rules(snntorch.Leaky(0.5))

NEURONS, STEPS, BATCH = 4, 100, 3


def graph_of(
    module: nn.Module, shape: tuple[int, ...] = (NEURONS,), position: int = 0
) -> tuple[Graph, Builder]:
    """The module's nodes between an input and an output, which takes what the module returns at a position."""
    to = Builder(np.float64)
    to.wanted = frozenset({0, position})
    x = to.add("input", Input(shape))
    value: Value | Results | None = read(module, to, "neuron", x)
    if isinstance(value, Results):
        value = value.values[position]
    assert value is not None
    to.add("output", Output(), value)
    return check(to.graph()), to


def results_of(module: nn.Module, axes: Axes | None = None) -> Value | Results:
    to = Builder()
    to.axes = axes
    return read(module, to, "neuron", to.add("input", Input((NEURONS,))))


def inputs(shape: tuple[int, ...] = (NEURONS,), steps: int = STEPS, mean: float = 0.3) -> Array:
    """Currents that make neurons fire, and now and then carry them far above the threshold."""
    return np.random.default_rng(4).normal(mean, 1.0, (steps, BATCH, *shape))


def in_double(module: nn.Module) -> nn.Module:
    """The module in double precision, spikes too, which snnTorch's surrogates give in single."""
    module.spike_grad = lambda x: (x > 0).to(x.dtype)
    return module.double()


def stepped(module: nn.Module, x: Array) -> list[Array]:
    """What snnTorch's own loop over the steps returns, as sequences."""
    takes = len(inspect.signature(module.forward).parameters)
    states: tuple[torch.Tensor, ...] = ()
    if not module.init_hidden:
        states = tuple(torch.zeros(x.shape[1:], dtype=torch.float64) for _ in range(takes - 1))
    gathered = []
    with torch.no_grad():
        for x_t in torch.from_numpy(x):
            results = module(x_t, *states)
            results = results if isinstance(results, tuple) else (results,)
            states = results[len(results) - len(states) :] if states else ()
            gathered.append([result.numpy().copy() for result in results])
    return [np.stack(series) for series in zip(*gathered, strict=True)]


def same_spikes(ours: Array, theirs: Array) -> None:
    a, b = ours != 0, theirs != 0
    layer = LayerAgreement(int(a.sum()), int(b.sum()), int((a & b).sum()), a.size)
    assert not layer.silent
    assert layer.f1 == 1.0


def agrees(module: nn.Module, shape: tuple[int, ...] = (NEURONS,), *, mean: float = 0.3) -> Graph:
    """Spikes and every state of the graph are those of snnTorch's loop; returns the graph of the spikes alone."""
    module = in_double(module)
    x = inputs(shape, mean=mean)
    expected = stepped(module, x)
    graph, _ = graph_of(module, shape)
    for position, series in enumerate(expected):
        read_here, _ = graph_of(module, shape, position)
        run = Reference(read_here).run(x)
        same_spikes(run.spikes["neuron"], expected[0])
        np.testing.assert_allclose(run.outputs, series, rtol=0, atol=1e-9)
    cut = Reference(graph)
    first = cut.run(x[:63])
    second = cut.run(x[63:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), cut.run(x).outputs)
    return graph


def memory_by_steps(module: snntorch.AssociativeLeaky, x: Array) -> tuple[Array, Array]:
    """The recurrence that the module's scan stands for, and what it reads; numpy, step by step."""

    def project(layer: nn.Linear) -> Array:
        return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    v, k, alpha = project(module.to_v), project(module.to_k), 1 / (1 + np.exp(-project(module.to_alpha)))
    S = np.zeros((x.shape[1], module.d_value, module.d_key))
    fired = []
    for v_t, k_t, alpha_t in zip(v, k, alpha, strict=True):
        S = S * alpha_t[:, None, :] + v_t[:, :, None] * k_t[:, None, :]
        fired.append(float(module.threshold) < S)
    Z = np.stack(fired)
    if not module.use_q_projection:
        return Z, Z.reshape(*x.shape[:2], -1)
    q = project(module.to_q).reshape(*x.shape[:2], module.d_key, module.d_value)
    return Z, (Z @ q).reshape(*x.shape[:2], -1)


class Restated(snntorch.Leaky):
    def fire(self, mem: torch.Tensor) -> torch.Tensor:
        return super().fire(2 * mem)


class Named(snntorch.Leaky):
    def __init__(self) -> None:
        super().__init__(beta=0.8)


class Own(nn.Module):
    """A network as snnTorch's users write it: a loop over the steps that hands the states on."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(NEURONS, 8), nn.Linear(8, 3)
        self.lif1 = in_double(snntorch.Synaptic(alpha=0.7, beta=0.9, threshold=0.3))
        self.lif2 = in_double(snntorch.RLeaky(beta=0.5, linear_features=8, threshold=0.4))
        self.lif3 = in_double(snntorch.Leaky(beta=torch.tensor([0.5, 0.8, 0.9]), threshold=0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        syn1, mem1 = self.lif1.reset_mem()
        spk2, mem2 = self.lif2.reset_mem()
        mem3 = self.lif3.reset_mem()
        membranes = []
        for step in range(x.shape[0]):
            spk1, syn1, mem1 = self.lif1(self.fc1(x[step]), syn1, mem1)
            spk2, mem2 = self.lif2(spk1, spk2, mem2)
            _, mem3 = self.lif3(self.fc2(spk2), mem3)
            membranes.append(mem3)
        return torch.stack(membranes)
