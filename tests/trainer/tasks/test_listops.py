import math
import re
import statistics

import pytest
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.tasks import load
from unscan.trainer.tasks.listops import VOCABULARY, evaluate, tokens

SMALL = {"min_length": 5, "max_length": 60, "train": 150, "test": 100}
PYTHON = {
    "MIN": min,
    "MAX": max,
    "MED": lambda values: int(statistics.median(values)),
    "SM": lambda values: sum(values) % 10,
}


def text_of(x):
    """Read a sequence of one-hots back, without the zeros in front."""
    rows = x[x.sum(dim=1) > 0]
    assert len(rows) == 0 or bool((x[-len(rows) :] == rows).all())
    assert bool((rows.sum(dim=1) == 1).all())
    return " ".join(VOCABULARY[row.argmax()] for row in rows)


def value_of(text):
    """Evaluate an expression in another way: as Python."""
    code = re.sub(r"\[(\w+) ", r"\1([", text).replace("]", "]),")
    return eval(re.sub(r"(\d) ", r"\1,", code).rstrip(","), {"__builtins__": {}}, dict(PYTHON))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7),
        ("[MIN 4 7 ]", 4),
        ("[MAX 2 9 [MIN 4 7 ] 0 ]", 9),
        ("[MED 1 5 9 ]", 5),
        ("[MED 9 1 5 8 ]", 6),  # (5 + 8) / 2 is 6.5, rounded down
        ("[MED 3 4 ]", 3),
        ("[SM 9 9 9 ]", 7),
        ("[SM 5 5 ]", 0),
        ("[SM [SM 9 9 ] [MAX 1 [MED 2 8 8 ] ] 4 ]", 0),
        ("[MAX [MIN [SM 3 4 ] 9 ] [MED 0 [MAX 6 2 ] 1 3 ] 5 ]", 7),
        ("[MIN 3 ]", 3),
    ],
)
def test_values_of_expressions_worked_out_by_hand(text, value):
    assert evaluate(tokens(text)) == value
    assert value_of(text) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "0 open lists and 0 values"),
        ("[MIN 4 7", "1 open lists"),
        ("4 7", "2 values"),
        ("4 ]", "never opened"),
        ("[MIN ]", "a list that is empty"),
        ("[MIN 4 11 ]", "unknown ListOps token '11'; allowed: 0 1"),
    ],
)
def test_what_is_no_expression_is_refused(text, says):
    with pytest.raises(InvalidInput, match=says):
        evaluate(tokens(text))


def test_targets_are_the_values_of_what_is_shown():
    task = load("listops", settings=SMALL)
    assert (task.steps, task.input_shape, task.classes, task.targets) == (60, (15,), 10, "class")
    assert (task.train.x.shape, task.train.x.dtype) == ((150, 60, 15), torch.int8)
    for x, y in zip(task.train.x, task.train.y, strict=True):
        text = text_of(x)
        assert 5 <= len(text.split()) <= 60
        assert value_of(text) == y


def test_depth_and_arguments_stay_within_their_bounds():
    settings = SMALL | {"max_depth": 3, "max_args": 4}
    depths, counts = set(), set()
    for x in load("listops", settings=settings).train.x:
        counted = [0]
        for token in text_of(x).split():
            if token == "]":
                counts.add(counted.pop())
                continue
            counted[-1] += 1
            depths.add(len(counted))
            if token.startswith("["):
                counted.append(0)
    assert depths == {1, 2, 3}
    assert counts == {2, 3, 4}


def test_operators_digits_and_numbers_of_arguments_are_equally_likely():
    count = 3000
    settings = {"max_depth": 2, "min_length": 4, "max_length": 12, "train": count, "test": 1}
    x = load("listops", settings=settings).train.x.float()
    drawn = x.sum(dim=1)
    operators = drawn[:, 10:14].mean(dim=0)
    assert bool(((operators - 1 / 4).abs() < 5 * math.sqrt(3 / 16 / count)).all())
    digits = drawn[:, :10].sum(dim=0)
    assert bool(((digits / digits.sum() - 0.1).abs() < 5 * math.sqrt(0.09 / digits.sum())).all())
    arguments = torch.bincount(drawn[:, :10].sum(dim=1).long())[2:]
    assert len(arguments) == 9
    assert bool(((arguments / count - 1 / 9).abs() < 5 * math.sqrt(8 / 81 / count)).all())


def test_an_argument_is_a_list_once_in_four():
    settings = {"max_depth": 3, "min_length": 1, "max_length": 120, "train": 1000, "test": 1}
    lists = arguments = 0
    for x in load("listops", settings=settings).train.x:  # 120 tokens hold any expression of this depth
        depth = 0
        for token in text_of(x).split():
            arguments += depth == 1 and token != "]"
            lists += depth == 1 and token.startswith("[")
            depth += token.startswith("[") - (token == "]")
    assert abs(lists / arguments - 0.25) < 5 * math.sqrt(0.25 * 0.75 / arguments)


def test_an_expression_depends_on_part_seed_and_index_alone():
    task, fewer = load("listops", settings=SMALL), load("listops", settings=SMALL | {"train": 20})
    assert torch.equal(task.train.x[:20], fewer.train.x)
    assert not torch.equal(task.train.x[:100], task.test.x)
    assert not torch.equal(task.train.x, load("listops", settings=SMALL | {"seed": 1}).train.x)
    assert task.fresh is None


def test_chance_is_the_share_of_the_commonest_value():
    task = load("listops", settings=SMALL)
    values = task.test.y.tolist()
    assert task.chance == pytest.approx(max(values.count(value) for value in values) / 100)
    assert task.chance > 0.1


def test_lengths_of_the_long_range_arena():
    task = load("listops", settings={"train": 20, "test": 20})
    lengths = task.train.x.sum(dim=(1, 2))
    assert bool(((lengths >= 500) & (lengths <= 2000)).all())
    assert task.steps == 2000
    assert "500 to 2000 tokens, depth up to 10, up to 10 arguments" in task.description
    assert [value_of(text_of(x)) for x in task.test.x] == task.test.y.tolist()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"min_length": 30, "max_length": 40, "max_depth": 2}, "no ListOps expression of 30 to 40 tokens"),
        ({"min_length": 30, "max_length": 20}, "max_length of the task listops is 20; .* from 30"),
        ({"max_length": 3, "min_length": 1}, "whole number from 4"),
        ({"max_args": 1}, "whole number from 2"),
        ({"max_depth": 1}, "whole number from 2"),
    ],
)
def test_lengths_that_cannot_be_are_refused(settings, says):
    with pytest.raises(InvalidInput, match=says):
        load("listops", settings=settings)
