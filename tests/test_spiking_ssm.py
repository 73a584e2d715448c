"""SpikingSSM from training to deployment: what separates the compiled graph from the parallel model, and what not."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import unscan
from unscan.compiler.nodes import LIF, DiagonalSSM, LIFSurrogate
from unscan.runtime.agreement import compare
from unscan.runtime.executors import executor
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.trainer.neurons import SpikingSSM, SurrogateLeaky

NEURONS = ("1.neuron", "2.neuron")


def network(neuron: bool, norm: str) -> nn.Sequential:
    """Two blocks on three inputs, around surrogates or exact neurons, in float64."""
    torch.manual_seed(0)
    blocks = [
        SpikingSSM(
            16,
            8,
            threshold="learned",
            norm=norm,
            dt_min=0.05,
            dt_max=0.5,
            neuron=SurrogateLeaky(16) if neuron else None,
        )
        for _ in range(2)
    ]
    with torch.no_grad():
        for block in blocks:
            block.ln_vth.uniform_(-0.5, 0.5)
            if norm == "batch":
                block.norm.norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Linear(3, 16), *blocks, nn.Linear(16, 4)).double().eval()


def sample(steps: int) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 1.5, (steps, 5, 3))


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("steps", [1, 63, 100])
def test_trained_exact_the_gap_is_zero(norm, steps):
    model, x = network(False, norm), sample(steps)
    compiled = unscan.compile(unscan.trace(model, x))
    assert [len(compiled.of(kind)) for kind in (DiagonalSSM, LIF)] == [2, 2]
    trained = Model(model, compiled).run(x)
    for name in ("reference", "event", "onnx", "onnx-scan"):
        run = executor(name, compiled).run(x)
        found = compare(compiled, trained, run)
        assert found.total.spikes_a > 0
        assert found.total.f1 == 1
        np.testing.assert_allclose(run.outputs, trained.outputs, rtol=0, atol=1e-9)


def test_trained_on_a_surrogate_the_gap_is_the_surrogates_error_alone():
    model, x = network(True, "layer"), sample(100)
    traced = unscan.trace(model, x)
    assert len(traced.of(LIFSurrogate)) == 2
    compiled = unscan.compile(traced)
    deployed = Reference(compiled).run(x)

    trained = Model(model, traced).run(x)
    assert compare(traced, trained, Reference(traced).run(x)).total.f1 == 1

    exact = copy.deepcopy(model)
    for block in exact[1:3]:
        block.neuron = block.neuron.deployed()
    assert compare(compiled, Model(exact, compiled).run(x), deployed).total.f1 == 1

    # the first block gets the same currents in both, so what parts there is what the surrogate guesses wrong on them
    heard = []
    model[1].neuron.register_forward_pre_hook(lambda module, given: heard.append(given[0]))
    with torch.no_grad():
        model(torch.from_numpy(x))
        guessed, right = (neuron(heard[0]) > 0 for neuron in (model[1].neuron, exact[1].neuron))
    f1 = 2 * int((guessed & right).sum()) / int(guessed.sum() + right.sum())
    first = compare(compiled, trained, deployed).layers["1.neuron"]
    assert 0.9 < f1 < 1
    assert first.f1 == f1
