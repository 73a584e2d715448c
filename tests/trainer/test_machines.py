"""Several processes, half-precision products: another machine, the same model."""

import os
import subprocess
import sys

import pytest
import torch
import yaml
from safetensors.torch import load_file

from unscan.compiler.errors import InvalidInput
from unscan.trainer.fit import Machine, fit
from unscan.trainer.network import build
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import build_model
from unscan.trainer.settings import Network

NETWORK = {
    "layers": [
        {"width": 16, "neuron": {"kind": "leaky", "learn_beta": True, "learn_threshold": True}},
        {"width": 16, "neuron": {"kind": "state_leaky"}},
    ],
    "readout": {"decision": "mean"},
}
ONE_STEP = {
    "task": {"name": "digits"},
    "network": NETWORK,
    "optimiser": {"kind": "sgd", "lr": 1.0, "schedule": "constant"},
    "epochs": 1,
    "batch_size": 1437,
    "precision": 64,
}


def trained(tmp_path, name, recipe, *options):
    file = tmp_path / f"{name}.yaml"
    file.write_text(yaml.safe_dump(recipe))
    run = tmp_path / name
    command = [sys.executable, "-m", "unscan", "train", str(file), "--out", str(run), *options]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return load_file(run / "model.safetensors"), done.stdout


@pytest.mark.parametrize("chunk_size", [None, 500])
def test_two_processes_give_the_gradients_of_one(tmp_path, chunk_size):
    """With SGD at rate 1 the weights after one step differ from those at its start by the gradient."""
    recipe = ONE_STEP | {"chunk_size": chunk_size}
    parsed = Recipe.parse(recipe, source="test")
    fit(parsed, tmp_path / "one", quiet=True)
    alone = load_file(tmp_path / "one" / "model.safetensors")
    shared, shown = trained(tmp_path, "two", recipe, "--devices", "2", "--strategy", "ddp")
    start = build_model(parsed, 1, 10).state_dict()
    for name, before in start.items():
        gradient = before - alone[name]
        if "stored_beta" not in name and "readout.integrator" not in name:
            assert gradient.abs().max() > 0 or "threshold" in name, name
        torch.testing.assert_close(before - shared[name], gradient, rtol=1e-9, atol=1e-12, msg=name)
    assert shown.count("test accuracy") == 1


def test_batch_norm_is_refused_where_processes_cannot_share_it(tmp_path):
    layers = [NETWORK["layers"][0] | {"norm": "batch"}]
    recipe = Recipe.parse(ONE_STEP | {"network": NETWORK | {"layers": layers}}, source="test")
    with pytest.raises(InvalidInput, match="norm batch .* 2 processes on CPUs"):
        fit(recipe, tmp_path / "run", machine=Machine(devices=2, strategy="ddp"), quiet=True)
    assert not (tmp_path / "run").exists()


def test_mixed_precision_keeps_membranes_in_float32():
    """Products in bfloat16, but spikes are those of a float32 neuron on the currents it is given."""
    torch.manual_seed(0)
    model = build(Network.model_validate(NETWORK), in_features=3, classes=2)
    seen = {}
    neuron = model.layer1.neuron
    neuron.register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0], spikes=output))
    x = torch.randn(100, 4, 3) * 4
    with torch.autocast("cpu", torch.bfloat16):
        outputs = model(x)
    assert seen["x"].dtype == torch.bfloat16
    assert seen["spikes"].dtype == outputs.dtype == torch.float32
    expected = neuron(seen["x"].float())
    assert expected.sum() > 20
    assert torch.equal(seen["spikes"], expected)


def test_a_recipe_trains_in_mixed_precision(tmp_path):
    recipe = Recipe.parse(
        ONE_STEP | {"precision": "bf16", "optimiser": {"lr": 0.01}, "epochs": 2}, source="t"
    )
    result = fit(recipe, tmp_path / "run", quiet=True)
    weights = load_file(result.files.model)
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert 0 < result.metrics["test_loss"] < 100


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (Machine(strategy="nonsense"), "strategy nonsense: "),
        (Machine(accelerator="ghost"), "accelerator ghost, "),
    ],
)
def test_a_machine_that_is_not_there_is_refused(tmp_path, machine, said):
    with pytest.raises(InvalidInput, match=said):
        fit(Recipe.parse(ONE_STEP, source="test"), tmp_path / "run", machine=machine, quiet=True)
    assert not (tmp_path / "run").exists()
