import csv
import json
import logging
import signal

import pytest
import torch
from safetensors.torch import load_file, save_file

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer import training as training_module
from unscan.trainer.batches import Batches
from unscan.trainer.fit import fit, load_run
from unscan.trainer.measure import evaluate
from unscan.trainer.network import build, decide
from unscan.trainer.objective import Objective, gradients
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles
from unscan.trainer.settings import Augmentation, Network
from unscan.trainer.tasks import TASKS, Part, Task

LAYERS = [
    {"width": 12, "neuron": {"kind": "leaky", "learn_beta": True}, "dropout": 0.2},
    {"width": 12, "neuron": {"kind": "state_leaky"}, "norm": "batch", "residual": True},
]
SMALL = {
    "task": {"name": "tiny", "encoding": "rate", "steps_per_pixel": 2},
    "network": {"layers": LAYERS, "readout": {"beta": 0.9, "decision": "mean"}},
    "optimiser": {"lr": 0.01, "warm_up": 1},
    "epochs": 4,
    "batch_size": 16,
    "augmentation": {"shift": 1},
    "seed": 3,
    "gradient_clip": 1.0,
}


def tiny(data_dir=None):
    """Bright first half or bright second half: 70 sequences of 10 pixels, the last batch of them uneven."""
    y = torch.arange(70) % 2
    ramp = torch.linspace(0.1, 0.9, 10)
    x = torch.where(y[:, None] == 0, ramp, ramp.flip(0))[:, :, None]
    source = "made up" if data_dir is None else f"made up in {data_dir.name}"
    return Task("tiny", source, 2, 0.5, (1,), 10, "real", Part(x[:50], y[:50]), Part(x[50:], y[50:]))


@pytest.fixture(autouse=True)
def tiny_task(monkeypatch):
    monkeypatch.setitem(TASKS, "tiny", lambda: tiny)


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A process that a shell starts in the background is deaf to Ctrl-C; the tests press it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def recipe(**changes):
    return Recipe.parse(SMALL | changes, source="test")


def break_off(monkeypatch, at):
    """Press Ctrl-C in the training step of this number."""
    steps = iter(range(at + 1))

    def interrupted(*args, **settings):
        if next(steps) == at:
            signal.raise_signal(signal.SIGINT)
        return gradients(*args, **settings)

    monkeypatch.setattr(training_module, "gradients", interrupted)


def figures(run_dir):
    with open(run_dir / "metrics.csv", newline="") as file:
        return [
            {key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize("chunk_size", [1, 3, 4, 7, 8, 20])
@pytest.mark.parametrize("decision", ["last", "mean"])
def test_chunked_gradients_are_those_of_the_batch(chunk_size, decision):
    layers = [layer | {"norm": "none", "dropout": 0} for layer in LAYERS]
    torch.manual_seed(0)
    model = build(Network.model_validate({"layers": layers}), in_features=2, classes=3).double()
    x, y = torch.randn(15, 8, 2, dtype=torch.float64) * 2, torch.arange(8) % 3

    loss, correct = gradients(model, x, y, Objective("class", decision))
    whole = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    chunked_loss, chunked_correct = gradients(model, x, y, Objective("class", decision), chunk_size)

    assert chunked_loss == pytest.approx(loss, rel=1e-12)
    assert chunked_correct == correct
    assert max(gradient.abs().max() for gradient in whole) > 0
    for parameter, gradient in zip(model.parameters(), whole, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-10, atol=1e-14)


def test_batches_cover_every_sample_once_in_an_order_of_seed_and_epoch():
    part = Part(torch.arange(10.0).reshape(10, 1, 1).repeat(1, 3, 1), torch.arange(10))
    batches = Batches((part,), 4, torch.float64, seed=1)

    def order(epoch):
        batches.epoch = epoch
        seen = list(batches)
        assert [tuple(x.shape) for x, _, _ in seen] == [(3, 4, 1), (3, 4, 1), (3, 2, 1)]
        assert all(x.is_contiguous() and bool((x[2, :, 0] == y).all()) for x, y, _ in seen)
        return torch.cat([y for _, y, _ in seen]).tolist()

    assert sorted(order(0)) == list(range(10))
    assert order(0) == order(0) != order(1)
    assert torch.cat([y for _, y, _ in Batches((part,), 4, torch.float32)]).tolist() == list(range(10))


def test_augmentation_shifts_and_blurs_anew_each_epoch_and_never_in_order():
    part = Part(torch.arange(1.0, 7.0).repeat(200, 1)[:, :, None], torch.arange(200))
    shifting = Batches((part,), 200, torch.float32, 1, Augmentation(shift=2))
    (first, *_), (again, *_) = next(iter(shifting)), next(iter(shifting))
    assert torch.equal(first, again)
    rows = {tuple(row) for row in first[:, :, 0].T.int().tolist()}
    assert rows == {
        (3, 4, 5, 6, 0, 0),
        (2, 3, 4, 5, 6, 0),
        (1, 2, 3, 4, 5, 6),
        (0, 1, 2, 3, 4, 5),
        (0, 0, 1, 2, 3, 4),
    }
    shifting.epoch = 1
    assert not torch.equal(next(iter(shifting))[0], first)
    blurred = next(iter(Batches((part,), 200, torch.float64, 1, Augmentation(noise=0.5))))[0]
    difference = blurred - torch.arange(1.0, 7.0)[:, None, None]
    assert difference.std().item() == pytest.approx(0.5, rel=0.1)
    assert difference.mean().item() == pytest.approx(0, abs=0.05)


def test_run_learns_and_leaves_its_files(tmp_path, capfd):
    state, level = torch.get_rng_state(), logging.getLogger("lightning.pytorch").level
    result = fit(recipe(epochs=8), tmp_path / "run", quiet=True)
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)
    assert logging.getLogger("lightning.pytorch").level == level
    assert not torch.are_deterministic_algorithms_enabled()

    assert result.metrics["test_accuracy"] >= 0.9
    assert set(result.metrics) == {"train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    assert set(result.spike_rates) == {"layer1.neuron", "layer2.inner.neuron"}
    assert all(0 < rate < 1 for rate in result.spike_rates.values())
    assert (result.epochs, result.task) == (8, "made up; rate encoding, 2 steps per pixel")

    files = result.files
    assert Recipe.read(files.recipe) == recipe(epochs=8)
    assert json.loads(files.result.read_text())["metrics"] == result.metrics
    rows = figures(tmp_path / "run")
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(1, 9)]
    assert float(rows[-1]["train_loss"]) == result.metrics["train_loss"]
    assert float(rows[-1]["lr"]) < float(rows[1]["lr"])
    assert files.last.is_file()
    assert files.best.is_file()
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))
    assert not list((tmp_path / "run").glob(".*"))


def test_loaded_run_gives_the_measured_figures(tmp_path):
    result = fit(recipe(precision=64, chunk_size=None), tmp_path, quiet=True)
    run = load_run(tmp_path)
    assert run.recipe == recipe(precision=64)
    assert run.kind == "spike"
    assert not run.model.training
    assert {value.dtype for value in run.model.parameters()} == {torch.float64}
    test = run.task().test
    found = evaluate(run.model, test, Objective("class", "mean"), batch_size=7)
    assert found.loss == pytest.approx(result.metrics["test_loss"], rel=1e-12)
    assert found.accuracy == result.metrics["test_accuracy"]
    assert found.spike_rates == pytest.approx(result.spike_rates, rel=1e-12)
    scores = decide(run.model(test.x.transpose(0, 1).double()), "mean")
    assert (scores.argmax(dim=1) == test.y).double().mean().item() == found.accuracy


# 50 samples make 4 steps an epoch: in the first epoch, at the start of the third, in the middle of the last
@pytest.mark.parametrize("at", [2, 8, 14])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"validation": 0.2, "keep": "best", "early_stopping": {"patience": 2, "metric": "validation_loss"}},
    ],
    ids=["plain", "early-stopping"],
)
def test_resumed_run_equals_the_unbroken_one_bit_for_bit(tmp_path, monkeypatch, at, changes):
    fit(recipe(**changes), tmp_path / "unbroken", quiet=True)
    at = min(at, 3 * len(figures(tmp_path / "unbroken")) - 1)
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        break_off(patch, at)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe(**changes), tmp_path / "broken", quiet=True)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (tmp_path / "broken" / "result.json").exists()

    torch.rand(5)  # the process's own random numbers must not matter
    resumed = fit(recipe(**changes), tmp_path / "broken", resume=True, quiet=True)
    whole = fit(recipe(**changes), tmp_path / "unbroken", resume=True, quiet=True)
    assert figures(tmp_path / "broken") == figures(tmp_path / "unbroken")
    files, others = RunFiles(tmp_path / "broken"), RunFiles(tmp_path / "unbroken")
    assert files.model.read_bytes() == others.model.read_bytes()
    assert (resumed.metrics, resumed.spike_rates) == (whole.metrics, whole.spike_rates)


@pytest.mark.parametrize("stopping", [None, {"patience": 1, "metric": "train_accuracy"}])
def test_run_broken_off_before_its_result_only_measures(tmp_path, monkeypatch, stopping):
    slow = recipe(early_stopping=stopping, optimiser={"lr": 1e-12})
    first = fit(slow, tmp_path, quiet=True)
    assert first.epochs < 4 if stopping else first.epochs == 4
    first.files.result.unlink()
    break_off(monkeypatch, 0)
    again = fit(slow, tmp_path, resume=True, quiet=True)
    assert (again.metrics, again.epochs, again.seconds) == (first.metrics, first.epochs, first.seconds)


def test_best_weights_are_those_of_the_best_epoch(tmp_path):
    watched = {"patience": 4, "metric": "train_loss"}
    result = fit(recipe(keep="best", early_stopping=watched, optimiser={"lr": 3.0}), tmp_path, quiet=True)
    losses = [float(row["train_loss"]) for row in figures(tmp_path)]
    best = torch.load(result.files.best, weights_only=True)
    assert best["epoch"] == losses.index(min(losses))
    for name, value in load_run(tmp_path).model.state_dict().items():
        assert torch.equal(value, best["state_dict"][f"model.{name}"])


def test_frozen_layer_stays_and_others_learn(tmp_path):
    layers = [LAYERS[0] | {"lr_scale": 0.0}, LAYERS[1]]
    frozen = recipe(network={"layers": layers}, epochs=1, optimiser={"lr": 0.01, "weight_decay": 0.1})
    fit(frozen, tmp_path, quiet=True)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        start = build(frozen.network, 1, 2)
    after = load_run(tmp_path).model
    assert torch.equal(after.layer1.linear.weight, start.layer1.linear.weight)
    assert not torch.equal(after.readout.linear.weight, start.readout.linear.weight)
    assert not torch.equal(after.layer1.neuron.beta, start.layer1.neuron.beta)


def test_folder_that_holds_a_run_is_not_overwritten(tmp_path):
    fit(recipe(epochs=1), tmp_path, quiet=True)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(InvalidInput, match="already holds a run; continue it with --resume"):
        fit(recipe(epochs=1), tmp_path, quiet=True)
    with pytest.raises(InvalidInput, match="epochs is 1 against 2"):
        fit(recipe(epochs=2), tmp_path, resume=True, quiet=True)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_resume_wants_a_run_and_the_same_data(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match="there is no run folder"):
        fit(recipe(), tmp_path / "none", resume=True, quiet=True)
    with pytest.raises(InvalidInput, match="holds no run"):
        fit(recipe(), tmp_path, resume=True, quiet=True)
    with monkeypatch.context() as patch:
        break_off(patch, 5)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe(), tmp_path / "run", quiet=True)
    with pytest.raises(InvalidInput, match=r"made up; rate .* now there is: made up in other"):
        fit(recipe(), tmp_path / "run", resume=True, quiet=True, data_dir=tmp_path / "other")
    (tmp_path / "run" / "checkpoints" / "last.ckpt").write_bytes(b"PK not this")
    with pytest.raises(DamagedFile, match=r"last\.ckpt cannot be read"):
        fit(recipe(), tmp_path / "run", resume=True, quiet=True)


def test_failed_start_leaves_no_run_behind(tmp_path):
    with pytest.raises(InvalidInput, match=r"validation is 0\.001 of 50"):
        fit(recipe(validation=0.001), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match="is a file"):
        fit(recipe(), tmp_path / "file", quiet=True)


def test_damaged_runs_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match="there is no run folder"):
        load_run(tmp_path / "none")
    fit(recipe(epochs=1), tmp_path, quiet=True)
    files = RunFiles(tmp_path)
    weights = files.model.read_bytes()
    for damaged in (b"", weights[:100], weights[:-1], b"no weights at all"):
        files.model.write_bytes(damaged)
        with pytest.raises(DamagedFile, match=r"model\.safetensors"):
            load_run(tmp_path)
    files.model.write_bytes(weights)
    for kind in ({}, {"kind": "graded"}):
        shape = json.dumps({"in_features": 1, "classes": 2, **kind})
        save_file(load_file(files.model), files.model, {"shape": shape})
        with pytest.raises(DamagedFile, match="kind"):
            load_run(tmp_path)
    files.model.write_bytes(weights)
    recipe(epochs=1, network={"layers": LAYERS[:1]}).write(files.recipe)
    with pytest.raises(DamagedFile, match=r"does not hold the weights of .*layer2"):
        load_run(tmp_path)
    files.model.unlink()
    with pytest.raises(InvalidInput, match="no finished epoch"):
        load_run(tmp_path)
    files.result.write_text("{")
    recipe(epochs=1).write(files.recipe)
    with pytest.raises(DamagedFile, match=r"result\.json"):
        fit(recipe(epochs=1), tmp_path, resume=True, quiet=True)


def test_progress_is_shown_unless_quiet(tmp_path, capfd):
    fit(recipe(epochs=1), tmp_path)
    shown = capfd.readouterr()
    assert "Epoch" in shown.out
    assert "GPU" not in shown.out + shown.err
