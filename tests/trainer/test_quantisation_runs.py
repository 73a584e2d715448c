"""Runs that train with the numbers of the deployed model: from another run, resumed, refused, over processes."""

import shutil
import subprocess
import sys

import pytest
import torch

from tests.trainer.test_quantisation import LAYERS, NAMES
from unscan.compiler.errors import InvalidInput
from unscan.trainer.fit import fit, load_run
from unscan.trainer.measure import evaluate
from unscan.trainer.objective import Objective
from unscan.trainer.quantisation import Quantised
from unscan.trainer.recipe import Recipe
from unscan.trainer.tasks import TASKS, Part, Task

SMALL = {
    "task": {"name": "tiny"},
    "network": {"layers": LAYERS, "readout": {"beta": 0.9, "decision": "mean"}},
    "optimiser": {"lr": 0.01},
    "epochs": 2,
    "batch_size": 16,
    "seed": 3,
}


def tiny(data_dir=None):
    """Bright first half or bright second half: 70 sequences of 10 pixels."""
    y = torch.arange(70) % 2
    ramp = torch.linspace(0.1, 0.9, 10)
    x = torch.where(y[:, None] == 0, ramp, ramp.flip(0))[:, :, None]
    return Task("tiny", "made up", 2, 0.5, (1,), 10, "real", Part(x[:50], y[:50]), Part(x[50:], y[50:]))


@pytest.fixture(scope="module", autouse=True)
def tiny_task():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TASKS, "tiny", lambda: tiny)
        yield


@pytest.fixture(scope="module")
def float_run(tiny_task, tmp_path_factory):
    """A run in real numbers that has learned the task."""
    result = fit(recipe(epochs=12), tmp_path_factory.mktemp("runs") / "float", quiet=True)
    assert result.metrics["test_accuracy"] >= 0.9
    return result


def recipe(**changes):
    return Recipe.parse(SMALL | changes, source="test")


def test_half_precision_would_round_whole_numbers_again():
    with pytest.raises(InvalidInput, match="precision bf16"):
        recipe(quantise="int8", start_from="run", precision="bf16")


def test_a_norm_needs_the_statistics_of_a_run():
    with pytest.raises(InvalidInput, match="norm batch and nothing to start from"):
        recipe(quantise="loihi2")
    assert recipe(quantise="loihi2", start_from="run").quantise == "loihi2"


def fine_tuning(run, **changes):
    return recipe(start_from=str(run.run_dir), optimiser={"lr": 1e-3}, **changes)


@pytest.mark.parametrize("profile", NAMES)
def test_a_run_trains_on_from_another_with_whole_numbers(tmp_path, float_run, profile):
    fine = fine_tuning(float_run, quantise=profile)
    result = fit(fine, tmp_path / "run", quiet=True)
    assert set(result.metrics) == {*float_run.metrics, "quantised_test_accuracy"}
    assert result.metrics["quantised_test_accuracy"] >= 0.9

    run = load_run(tmp_path / "run")
    assert run.recipe == fine
    before, after = load_run(float_run.run_dir).model.state_dict(), run.model.state_dict()
    moved = (after["layer2.linear.weight"] - before["layer2.linear.weight"]).abs().max().item()
    assert 0 < moved <= 2 * 4 * 1e-3 * 1.5  # Adam's steps are of about lr: 2 epochs of 4
    for name in ("running_mean", "running_var"):
        assert torch.equal(after[f"layer2.norm.norm.{name}"], before[f"layer2.norm.norm.{name}"])

    quantised = Quantised(run.model, run.recipe.network, profile, real=True)
    state = torch.load(result.files.last, weights_only=True)["state_dict"]
    quantised.load_state_dict(
        {name.removeprefix("quantised."): value for name, value in state.items() if "quantised." in name}
    )
    task, objective = run.task(), Objective("class", "mean")
    found = evaluate(quantised.frozen(), task.test, objective)
    assert found.accuracy == result.metrics["quantised_test_accuracy"]
    assert evaluate(run.model, task.test, objective).accuracy == result.metrics["test_accuracy"]


def test_resumed_run_equals_the_unbroken_one_bit_for_bit(tmp_path, monkeypatch, float_run):
    start = shutil.copytree(float_run.run_dir, tmp_path / "float")
    fine = fine_tuning(float_run, quantise="loihi2", epochs=3).model_copy(update={"start_from": str(start)})
    whole = fit(fine, tmp_path / "unbroken", quiet=True)
    observe, calls = Quantised.observe, iter(range(3))

    def broken(self, *arguments):
        if next(calls) == 2:
            raise KeyboardInterrupt
        observe(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Quantised, "observe", broken)
        with pytest.raises(KeyboardInterrupt):
            fit(fine, tmp_path / "broken", quiet=True)
    shutil.rmtree(start)
    resumed = fit(fine, tmp_path / "broken", resume=True, quiet=True)
    assert resumed.metrics == whole.metrics
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("unbroken", "broken")]
    assert weights[0] == weights[1]


def test_a_start_needs_the_same_network(tmp_path, float_run):
    other = SMALL["network"] | {"layers": [LAYERS[0] | {"width": 11}, LAYERS[1]]}
    with pytest.raises(InvalidInput, match=r"another network: network\.layers\.0\.width is 10 against 11"):
        fit(fine_tuning(float_run, network=other), tmp_path / "run", quiet=True)
    with pytest.raises(InvalidInput, match="there is no run folder"):
        fit(recipe(start_from=str(tmp_path / "none")), tmp_path / "run", quiet=True)
    with pytest.raises(InvalidInput, match="inputs or answers have other widths"):
        fit(fine_tuning(float_run, task={"name": "digits"}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_start_may_differ_in_what_training_alone_sees(tmp_path, float_run):
    slower = [layer | {"lr_scale": 0.0, "dropout": 0.1} for layer in LAYERS]
    frozen = fine_tuning(float_run, network=SMALL["network"] | {"layers": slower}, epochs=1)
    fit(frozen, tmp_path / "run", quiet=True)
    weights = [
        load_run(folder).model.layer1.linear.weight for folder in (float_run.run_dir, tmp_path / "run")
    ]
    assert torch.equal(*weights)


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    """With SGD at rate 1 the weights after one step differ from those at its start by the gradient."""
    layers = [layer | {"norm": "none"} for layer in LAYERS]
    content = SMALL | {
        "task": {"name": "digits"},
        "network": SMALL["network"] | {"layers": layers},
        "optimiser": {"kind": "sgd", "lr": 1.0, "schedule": "constant"},
        "epochs": 1,
        "batch_size": 1437,
        "precision": 64,
        "quantise": "loihi2",
    }
    alone = Recipe.parse(content, source="test")
    fit(alone, tmp_path / "one", quiet=True)
    alone.write(tmp_path / "recipe.yaml")
    command = [
        sys.executable,
        "-m",
        "unscan",
        "train",
        str(tmp_path / "recipe.yaml"),
        "--out",
        str(tmp_path / "two"),
    ]
    done = subprocess.run(
        [*command, "--devices", "2", "--strategy", "ddp"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    shared = load_run(tmp_path / "two").model.state_dict()
    for name, value in load_run(tmp_path / "one").model.state_dict().items():
        torch.testing.assert_close(shared[name], value, rtol=1e-8, atol=1e-10)
