"""Associative recall, copying and delayed match: what is shown, what is asked, and that draws repeat."""

import math

import numpy as np
import pytest
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.tasks import IGNORED, load
from unscan.trainer.tasks.recall import ceiling

SMALL = {"train": 300, "test": 200}
SIGMAS = 5  # of a fair coin: a right draw fails once in a million, and the seeds are fixed


def deviation(count):
    return SIGMAS * 0.5 / math.sqrt(count)


def check_recall(x, y, pairs, delay=0):
    """Check one sequence of associative recall, and that the answer is the value of such a key."""
    assert len(x) == 2 * pairs + delay + 2
    keys, values, query = x[0 : 2 * pairs : 2, :8], x[1 : 2 * pairs : 2, :8], x[-1, :8]
    sign = torch.zeros(len(x))
    sign[-2] = 1
    assert torch.equal(x[:, 8], sign)
    assert bool((x[2 * pairs : -1, :8] == 0).all())
    answers = [value.tolist() for key, value in zip(keys, values, strict=True) if torch.equal(key, query)]
    assert y[-1].tolist() in answers
    assert bool((y[:-1] == IGNORED).all())


@pytest.mark.parametrize(("pairs", "delay"), [(1, 0), (3, 0), (3, 4), (20, 0)])
def test_recall_shows_pairs_sign_and_key_and_asks_for_the_value(pairs, delay):
    task = load("associative_recall", settings={"pairs": pairs, "delay": delay, **SMALL})
    assert (task.targets, task.classes, task.chance, task.kind) == ("bits", 8, 0.5, "spike")
    assert task.input_shape == (9,)
    assert task.train.x.shape == (300, task.steps, 9)
    assert task.test.y.shape == (200, task.steps, 8)
    assert (task.train.x.dtype, task.train.y.dtype) == (torch.float32, torch.int8)
    assert task.tests == {}
    for x, y in zip(*task.train, strict=True):
        check_recall(x, y, pairs, delay)


def test_with_several_numbers_of_pairs_no_sequence_is_padded():
    task = load("associative_recall", settings={"pairs": [5, 2], **SMALL})
    assert list(task.tests) == ["2 pairs", "5 pairs"]
    assert task.tests["5 pairs"] is task.test
    assert "300 sequences train, 200 of 5 pairs test" in task.description
    assert task.steps == 12
    two, five = task.fresh(0, 0)
    for part, pairs, count in (
        (task.train, 5, 300), (task.test, 5, 200), (task.tests["2 pairs"], 2, 200), (two, 2, 150), (five, 5, 150)
    ):  # fmt: skip
        assert part.x.shape == (count, 2 * pairs + 2, 9)
        for x, y in zip(*part, strict=True):
            check_recall(x, y, pairs)


def test_every_pair_is_asked_for_equally_often():
    task = load("associative_recall", settings={"pairs": 4, "train": 4000, "test": 1})
    x = task.train.x
    matches = (x[:, 0:8:2, :8] == x[:, -1:, :8]).all(dim=-1)
    alone = matches[matches.sum(dim=1) == 1].float().mean(dim=0)
    assert bool(((alone - 0.25).abs() < SIGMAS * math.sqrt(0.25 * 0.75 / 3900)).all())


def test_the_ceiling_of_recall_is_what_the_best_answer_reaches():
    assert ceiling(1) == 1
    assert ceiling(2) == pytest.approx(1 - 0.25 / 256, abs=1e-15)
    same, other = 1 / 256, 255 / 256
    assert ceiling(3) == pytest.approx(other**2 + 2 * same * other * 0.75 + same**2 * 0.75, abs=1e-15)
    count = 20_000
    x, y = load("associative_recall", settings={"pairs": 6, "train": count, "test": 1}).train
    matches = (x[:, 0:12:2, :8] == x[:, -1:, :8]).all(dim=-1).float()
    share = torch.einsum("np,npb->nb", matches, x[:, 1:12:2, :8]) / matches.sum(dim=1, keepdim=True)
    right = ((share > 0.5) == (y[:, -1] == 1)).float().mean(dim=1)
    assert right.mean().item() == pytest.approx(
        ceiling(6), abs=SIGMAS * right.std().item() / math.sqrt(count)
    )
    assert right.mean() < 0.998  # far below 1: the bound is felt


@pytest.mark.parametrize("length", [1, 7])
def test_copy_shows_vectors_and_a_sign_and_asks_for_them_in_order(length):
    task = load("copy", settings={"length": length, **SMALL})
    x, y = task.train
    assert (task.steps, task.targets, task.classes, task.chance) == (2 * length + 1, "bits", 8, 0.5)
    assert torch.equal(y[:, length + 1 :], x[:, :length, :8].to(torch.int8))
    assert bool((y[:, : length + 1] == IGNORED).all())
    assert bool((x[:, length + 1 :] == 0).all())
    sign = torch.zeros(task.steps)
    sign[length] = 1
    assert torch.equal(x[:, :, 8], sign.expand(300, -1))
    assert bool((x[:, length, :8] == 0).all())


def test_an_epoch_shares_out_its_sequences_among_the_sizes():
    task = load("copy", settings={"length": [4, 1, 3], "train": 11, "test": 7})
    assert task.train.x.shape == (11, 9, 9)
    assert [part.x.shape for part in task.fresh(3, 0)] == [(4, 3, 9), (4, 7, 9), (3, 9, 9)]
    assert [part.x.shape for part in task.tests.values()] == [(7, 3, 9), (7, 7, 9), (7, 9, 9)]
    assert list(task.tests) == ["1 vectors", "3 vectors", "4 vectors"]
    with pytest.raises(InvalidInput, match="train of the task copy is 2; allowed: a whole number from 3"):
        load("copy", settings={"length": [4, 1, 3], "train": 2})


@pytest.mark.parametrize("delay", [0, 6])
def test_delayed_match_asks_whether_the_probe_is_the_cue(delay):
    task = load("delayed_match", settings={"delay": delay, "train": 2000, "test": 10})
    x, y = task.train
    assert (task.steps, task.targets, task.classes, task.chance) == (delay + 2, "class", 2, 0.5)
    assert torch.equal(y, (x[:, 0, :8] == x[:, -1, :8]).all(dim=1).long())
    assert abs(y.float().mean() - 0.5) < deviation(2000)
    assert bool((x[:, 1:-1] == 0).all())
    flags = torch.zeros(task.steps, 2)
    flags[0, 0] = flags[-1, 1] = 1
    assert torch.equal(x[:, :, 8:], flags.expand(2000, -1, -1))
    # a pattern and any of the 255 others differ in 8 x 128 / 255 bits on average
    different = (x[y == 0][:, 0, :8] != x[y == 0][:, -1, :8]).float().sum(dim=1)
    assert abs(different.mean() - 8 * 128 / 255) < SIGMAS * different.std() / math.sqrt(len(different))


def test_the_pause_of_delayed_match_is_filled_with_noise():
    task = load("delayed_match", settings={"delay": [10, 30], "noise": 0.2, **SMALL})
    filled = task.train.x[:, 1:-1, :8].flatten()
    assert set(filled.tolist()) == {0.0, 1.0}
    assert abs(filled.mean() - 0.2) < SIGMAS * math.sqrt(0.2 * 0.8 / len(filled))
    assert bool((task.train.x[:, 1:-1, 8:] == 0).all())
    assert [part.x.shape[1] for part in task.tests.values()] == [12, 32]
    assert "noise of density 0.2" in task.description


@pytest.mark.parametrize(
    ("name", "more"),
    [("associative_recall", {"pairs": 3}), ("copy", {}), ("delayed_match", {"noise": 0.5})],
)
def test_parts_repeat_in_every_run_and_never_each_other(name, more):
    settings = {"train": 200, "test": 200, "seed": 5, **more}
    task, again = load(name, settings=settings), load(name, settings=settings)
    other = load(name, settings=settings | {"seed": 6})
    assert torch.equal(task.train.x, again.train.x)
    assert torch.equal(task.test.y, again.test.y)
    assert not torch.equal(task.train.x, other.train.x)
    fresh = [task.fresh(*which)[-1] for which in ((0, 0), (1, 0), (0, 1), (0, 5), (200, 5))]
    parts = [task.train, task.test, *fresh]
    seen = np.concatenate([part.x.reshape(200, -1).numpy() for part in parts])
    assert len(np.unique(seen, axis=0)) == len(seen)  # of at least 2^48 sequences none is drawn twice
    for one, same in zip(task.fresh(3, 9), other.fresh(3, 9), strict=True):
        assert torch.equal(one.x, same.x)
        assert torch.equal(one.y, same.y)
    assert "seed 5, 200 sequences train, 200 test" in task.description


@pytest.mark.parametrize("name", ["associative_recall", "copy"])
def test_asked_bits_are_fair_coins(name):
    y = load(name, settings={"train": 2000, "test": 1}).train.y
    asked = y[y != IGNORED]
    assert set(asked.tolist()) == {0, 1}
    assert abs(asked.float().mean() - 0.5) < deviation(len(asked))


@pytest.mark.parametrize(
    ("name", "setting", "value", "allowed"),
    [
        ("associative_recall", "pairs", 0, "a whole number from 1, or a list of different ones"),
        ("associative_recall", "pairs", [2, 2], "a list of different ones"),
        ("associative_recall", "pairs", [], "a list of different ones"),
        ("associative_recall", "pairs", [2, "3"], "a list of different ones"),
        ("associative_recall", "pairs", "2-6", "a list of different ones"),
        ("associative_recall", "pairs", True, "a whole number from 1"),
        ("associative_recall", "delay", -1, "a whole number from 0"),
        ("associative_recall", "seed", 2**32, "a whole number from 0 to 4294967295"),
        ("copy", "length", 2.5, "a whole number from 1"),
        ("copy", "train", 0, "a whole number from 1"),
        ("delayed_match", "noise", 1.5, "a number from 0 to 1"),
        ("delayed_match", "noise", float("nan"), "a number from 0 to 1"),
        ("delayed_match", "noise", "half", "a number from 0 to 1"),
        ("delayed_match", "test", None, "a whole number from 1"),
    ],
)
def test_settings_out_of_range_are_refused(name, setting, value, allowed):
    with pytest.raises(InvalidInput) as raised:
        load(name, settings={setting: value})
    said = str(raised.value)
    assert said.startswith(f"the setting {setting} of the task {name} is {value!r}; allowed: ")
    assert allowed in said
