"""Training on a task that is drawn afresh for each epoch, in several sizes."""

import pytest
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.fit import fit
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles, load_task
from unscan.trainer.training import Training


def recipe(**changes):
    settings = {"length": [1, 4], "train": 11, "test": 5}
    network = {
        "layers": [{"width": 6, "neuron": {"kind": "state_leaky"}}],
        "readout": {"decision": "every"},
    }
    content = {
        "task": {"name": "copy", "settings": settings},
        "network": network,
        "epochs": 2,
        "batch_size": 4,
        "seed": 7,
    }
    return Recipe.parse(content | changes, source="test")


def test_an_epoch_has_as_many_batches_as_the_sizes_are_cut_into(tmp_path):
    task = load_task(recipe())
    batches = Training(recipe(), task, RunFiles(tmp_path)).batches
    assert len(batches) == 4  # of 6 and 5 sequences; 11 of one size would be 3
    seen = []
    for batches.epoch in (0, 1):
        cut = list(batches)
        assert sorted(batch.x.shape for batch in cut) == [(3, 2, 9), (3, 4, 9), (9, 1, 9), (9, 4, 9)]
        for size, part in zip((3, 9), task.fresh(batches.epoch, 7), strict=True):
            trained = torch.cat([batch.x for batch in cut if len(batch.x) == size], dim=1)
            rows = [tensor.flatten(1).tolist() for tensor in (trained.transpose(0, 1), part.x)]
            assert sorted(rows[0]) == sorted(rows[1])
        seen.append(torch.cat([batch.x for batch in cut if len(batch.x) == 9], dim=1))
    assert not torch.equal(*seen)


def test_validation_is_held_out_of_the_fixed_part_and_fresh_parts_are_used_in_full(tmp_path):
    held_out = recipe(validation=0.3)
    task = load_task(held_out)
    training = Training(held_out, task, RunFiles(tmp_path))
    (batch,) = training.val_dataloader()
    assert torch.equal(batch.x.transpose(0, 1), task.train.x[-3:])
    assert sum(len(batch.y) for batch in training.batches) == 11


def test_a_run_ends_with_the_last_of_its_steps(tmp_path):
    result = fit(recipe(validation=0.3, keep="best"), tmp_path, quiet=True)
    assert {"validation_accuracy", "test_accuracy", "test_accuracy, 1 vectors"} <= result.metrics.keys()
    assert result.metrics["test_accuracy"] == result.metrics["test_accuracy, 4 vectors"]
    last = torch.load(result.files.last, weights_only=True)
    assert last["lr_schedulers"][0]["last_epoch"] == 2 * 4
    assert last["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("augmentation", "said"),
    [({"noise": 0.1}, "noise is 0.1.*spikes"), ({"shift": 1}, "shift is 1.*its steps")],
)
def test_augmentation_that_would_spoil_the_task_is_refused(tmp_path, augmentation, said):
    with pytest.raises(InvalidInput, match=said):
        fit(recipe(augmentation=augmentation), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
