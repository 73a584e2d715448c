"""ListOps: nested lists of operators and digits, read token by token; what is their value?

    [MAX 2 9 [MIN 4 7 ] 0 ]  ->  9

An operator and its opening bracket are one token. MIN, MAX, MED (the median, rounded down) and SM (the sum modulo
10) each take two arguments or more.

Source: Nangia, Bowman, arXiv 1804.06028; with the lengths of Tay et al., Long Range Arena, arXiv 2011.04006,
section 2.2.1.
"""

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unscan.compiler.errors import InvalidInput
from unscan.trainer.tasks.generated import LARGEST_SEED
from unscan.trainer.tasks.settings import whole
from unscan.trainer.tasks.task import Part, Task

OPERATORS = ("[MIN", "[MAX", "[MED", "[SM")
VOCABULARY = (*map(str, range(10)), *OPERATORS, "]")
"""The tokens; one is known by its place here, which is its value if it is a digit."""

NESTING = 0.25
"""The probability that an argument is a list itself, where the depth allows it."""

ATTEMPTS = 10_000

_FIRST_OPERATOR, _END = 10, 14


def listops(
    data_dir: Path | None = None,
    *,
    min_length: int = 500,
    max_length: int = 2_000,
    max_depth: int = 10,
    max_args: int = 10,
    train: int = 10_000,
    test: int = 2_000,
    seed: int = 0,
) -> Task:
    """Give nested lists of operators and digits, token by token: answer with their value, a digit.

    Sequences (max_length, 15), each row one token as a one-hot, zeros in front of expressions that are shorter. An
    argument is a list with probability 1/4 and a random digit otherwise; a list has 2 to `max_args` arguments,
    each number equally likely, and any of the four operators. Digits stand at most `max_depth` deep, the outermost
    operator at depth 1. Expressions of fewer than `min_length` or more than `max_length` tokens are drawn again.

    Expression i of a part depends on the part, `seed` and i alone. Expressions so short that they repeat can occur in
    both parts; at the default lengths that does not happen. The values are not equally frequent (MIN and MAX
    of many digits), so `chance` is the share of the commonest in the test part. Long Range Arena trains on 96 000
    and tests on 2 000: `train: 96000`; as there, the training part is the same in every epoch.

    Raises InvalidInput for a setting out of range, and when no expression of the wanted length is found.
    """
    name = "listops"
    shortest = whole(name, "min_length", min_length, 1)
    longest = whole(name, "max_length", max_length, max(4, shortest))
    depth, most_args = whole(name, "max_depth", max_depth, 2), whole(name, "max_args", max_args, 2)
    count = whole(name, "train", train, 1)
    seed = whole(name, "seed", seed, 0, LARGEST_SEED)
    draw = partial(_draw, lengths=(shortest, longest), max_depth=depth, max_args=most_args)
    tested = draw(whole(name, "test", test, 1), f"test {seed}")
    return Task(
        name=name,
        description=(
            f"ListOps of {shortest} to {longest} tokens, depth up to {depth}, up to {most_args} arguments; drawn "
            f"with seed {seed}, {count} expressions train, {test} test"
        ),
        classes=10,
        chance=(torch.bincount(tested.y).max() / len(tested.y)).item(),
        input_shape=(len(VOCABULARY),),
        steps=longest,
        kind="spike",
        train=draw(count, f"train {seed}"),
        test=tested,
    )


def tokens(text: str) -> list[int]:
    """Read an expression, its tokens separated by spaces; raises InvalidInput for an unknown token."""
    unknown = [word for word in text.split() if word not in VOCABULARY]
    if unknown:
        raise InvalidInput(f"unknown ListOps token {unknown[0]!r}; allowed: {' '.join(VOCABULARY)}")
    return [VOCABULARY.index(word) for word in text.split()]


def evaluate(expression: Sequence[int]) -> int:
    """Return the value of an expression of tokens; raises InvalidInput for one that is not complete."""
    outer: list[list[int]] = [[]]
    for token in expression:
        if token < _FIRST_OPERATOR:
            outer[-1].append(token)
        elif token != _END:
            outer.append([token])
        elif len(outer) > 1 and len(outer[-1]) > 1:
            operator, *arguments = outer.pop()
            outer[-1].append(_apply(operator, arguments))
        else:
            raise InvalidInput("a ListOps expression closes a list that is empty or was never opened")
    if len(outer) != 1 or len(outer[0]) != 1:
        raise InvalidInput(
            f"a ListOps expression has {len(outer) - 1} open lists and {len(outer[0])} values at its end; wanted "
            "none and 1"
        )
    return outer[0][0]


def _apply(operator: int, arguments: list[int]) -> int:
    match OPERATORS[operator - _FIRST_OPERATOR]:
        case "[MIN":
            return min(arguments)
        case "[MAX":
            return max(arguments)
        case "[MED":
            ordered, half = sorted(arguments), len(arguments) // 2
            return ordered[half] if len(arguments) % 2 else (ordered[half - 1] + ordered[half]) // 2
        case _:
            return sum(arguments) % 10


def _draw(count: int, stream: str, *, lengths: tuple[int, int], max_depth: int, max_args: int) -> Part:
    x = np.zeros((count, lengths[1], len(VOCABULARY)), np.int8)
    y = np.empty(count, np.int64)
    for index in range(count):
        draws = random.Random(f"listops {stream} {index}")  # a seed of text: the same on every machine
        expression = _expression(draws, lengths, max_depth, max_args)
        x[index, np.arange(lengths[1] - len(expression), lengths[1]), expression] = 1
        y[index] = evaluate(expression)
    return Part(torch.from_numpy(x), torch.from_numpy(y))


def _expression(draws: random.Random, lengths: tuple[int, int], max_depth: int, max_args: int) -> list[int]:
    for _ in range(ATTEMPTS):
        expression = _attempt(draws, lengths[1], max_depth, max_args)
        if len(expression) >= lengths[0]:
            return expression
    raise InvalidInput(
        f"no ListOps expression of {lengths[0]} to {lengths[1]} tokens was found in {ATTEMPTS} attempts with "
        f"max_depth {max_depth} and max_args {max_args}; set a smaller min_length, a larger max_length, or a larger "
        "max_depth or max_args"
    )


def _attempt(draws: random.Random, longest: int, max_depth: int, max_args: int) -> list[int]:
    """Draw an expression, or return nothing as soon as it is bound to be longer than allowed."""
    uniform = draws.random
    expression: list[int] = []
    pending = [1]  # the depths of what is still to be written, the next one last; 0 closes a list
    while pending:
        depth = pending.pop()
        if depth == 0:
            expression.append(_END)
        elif depth == 1 or (depth < max_depth and uniform() < NESTING):
            expression.append(_FIRST_OPERATOR + int(uniform() * len(OPERATORS)))
            pending.append(0)
            pending.extend([depth + 1] * (2 + int(uniform() * (max_args - 1))))
            if len(expression) + len(pending) > longest:
                return []
        else:
            expression.append(int(uniform() * 10))
    return expression
