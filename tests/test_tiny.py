"""Train, compile, export, run, agree: the whole way in seconds. Runs before every other test."""

import json

import numpy as np
import pytest

import unscan
from unscan.compiler.storage import load
from unscan.sources import read_run, read_samples, traced
from unscan.trainer.fit import fit
from unscan.trainer.recipe import Recipe

RECIPE = {
    "task": {"name": "digits"},
    "network": {
        "layers": [
            {"width": 24, "neuron": {"kind": "leaky", "beta": 0.95, "reset": "zero"}, "norm": "batch"},
            {"width": 16, "neuron": {"kind": "leaky", "beta": 0.9, "reset": "subtract"}},
        ],
        "readout": {"beta": 0.98},
    },
    "optimiser": {"lr": 0.01},
    "epochs": 1,
    "batch_size": 128,
    "precision": 64,  # one number format all the way: each is compiled anew in a fresh clone
}


def test_train_compile_export_run_agree(tmp_path):
    fit(Recipe.parse(RECIPE, source="tiny"), tmp_path / "run", quiet=True)
    run = read_run(tmp_path / "run")

    deployed = unscan.compile(traced(run))
    deployed.save(tmp_path / "model.unscan")
    assert load(tmp_path / "model.unscan") == deployed
    unscan.export(deployed, tmp_path / "model.nir", target="nir", profile="portable")
    unscan.export(deployed, tmp_path / "model.onnx", target="onnx")
    assert unscan.read_nir(tmp_path / "model.nir") == deployed

    data = read_samples(deployed, inputs=None, labels=None, data_dir=None, limit=60)
    found = unscan.verify(run.model, deployed, data.x, labels=data.labels, precisions=[64])
    assert [c.executor for c in found.comparisons] == ["reference", "event", "onnx", "onnx-scan"]
    for comparison in found.comparisons:
        assert comparison.holds, comparison.agreement.first
        assert comparison.agreement.total.spikes_a > 1000
        assert comparison.agreement.total.f1 == 1
        assert comparison.agreement.output_absolute < 1e-9
        assert comparison.gap == 0
        assert comparison.decided_alike == 60
    assert json.loads(json.dumps(found.to_json()))["holds"]

    simulated = unscan.simulate(deployed, data.x)
    assert simulated.counts.total.acs > 0
    assert simulated.energy.synaptic < simulated.energy.dense
    np.testing.assert_array_equal(simulated.outputs.shape, (64, 60, 10))


def test_a_restored_reset_is_seen_and_said(tmp_path):
    layers = [{"width": 24, "neuron": {"kind": "state_leaky", "beta": 0.9}}]
    recipe = {**RECIPE, "network": {"layers": layers, "readout": {"beta": 0.98}}}
    fit(Recipe.parse(recipe, source="tiny"), tmp_path / "run", quiet=True)
    run = read_run(tmp_path / "run")
    data = read_samples(traced(run), inputs=None, labels=None, data_dir=None, limit=40)

    same = unscan.verify(
        run.model, unscan.compile(traced(run)), data.x, ["event"], labels=data.labels, precisions=[64]
    )
    assert same.holds
    assert same.comparisons[0].agreement.total.f1 == 1
    assert same.restored == {}

    restored = unscan.compile(traced(run), reset="zero")
    assert "trained with reset none" in restored.history[-1]
    found = unscan.verify(run.model, restored, data.x, ["event"], labels=data.labels, precisions=[64])
    assert not found.holds
    assert found.restored == {"layer1.neuron": ("none", "zero")}
    first = found.comparisons[0].agreement.first
    assert not first.tie
    assert first.node == "layer1.neuron"
    assert found.comparisons[0].agreement.total.f1 < 1


def test_another_models_graph_is_refused(tmp_path):
    from torch import nn

    from unscan.trainer import Leaky

    graph = unscan.compile(unscan.trace(nn.Sequential(nn.Linear(3, 4), Leaky(4)), np.zeros((1, 1, 3))))
    with pytest.raises(unscan.UnscanError, match="no module named 1"):
        unscan.verify(nn.Linear(3, 4), graph, np.zeros((4, 1, 3)))
