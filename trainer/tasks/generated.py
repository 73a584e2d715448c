"""Tasks that are drawn and not read: where their random numbers come from, and how they are put together.

Each part has a stream of random numbers of its own, named by what it is for, a seed, its size and its epoch, so that
no part repeats another's sequences other than by chance, and every part is the same in every run.
"""

from collections.abc import Callable
from enum import IntEnum

import numpy as np

from unscan.trainer.tasks.settings import whole
from unscan.trainer.tasks.task import Part, Targets, Task

BITS = 8
"""The bits of a random vector."""

LARGEST_SEED = 2**32 - 1

Draw = Callable[[np.random.Generator, int, int], Part]
"""Draws so many sequences (the second argument) of a size (the third)."""


class Stream(IntEnum):
    """What random numbers are for."""

    TRAIN = 0
    TEST = 1
    FRESH = 2


def generator(stream: Stream, seed: int, size: int, epoch: int = 0) -> np.random.Generator:
    """Return the random numbers of a part: a pure function of its arguments."""
    return np.random.default_rng([int(stream), seed, size, epoch])


def generated(
    name: str,
    what: str,
    draw: Draw,
    *,
    sizes: tuple[int, ...],
    unit: str,
    targets: Targets,
    classes: int,
    train: int,
    test: int,
    seed: int,
) -> Task:
    """Draw a task whose sequences of 0 and 1 have sizes, counted in `unit`, and whose answers are fair coins.

    So chance is 1/2. A part holds one size, so no sequence is padded: `train` and `test` hold the largest, `fresh`
    has a part for each, among which it shares out `train` sequences evenly, and with several sizes `tests` holds
    `test` sequences of each, those of the largest being the test part's own. Raises InvalidInput for a setting out
    of range; `sizes` are right and ascending.
    """
    train = whole(name, "train", train, len(sizes))
    test = whole(name, "test", test, 1)
    seed = whole(name, "seed", seed, 0, LARGEST_SEED)
    part = draw(generator(Stream.TRAIN, seed, sizes[-1]), train, sizes[-1])
    tests = {f"{size} {unit}": draw(generator(Stream.TEST, seed, size), test, size) for size in sizes}
    tested = f"{test} of {sizes[-1]} {unit}" if len(sizes) > 1 else f"{test}"
    each, left = divmod(train, len(sizes))
    counts = [each + (place < left) for place in range(len(sizes))]

    def fresh(epoch: int, seed: int) -> tuple[Part, ...]:
        return tuple(
            draw(generator(Stream.FRESH, seed, size, epoch), count, size)
            for size, count in zip(sizes, counts, strict=True)
        )

    return Task(
        name=name,
        description=f"{what}; drawn with seed {seed}, {train} sequences train, {tested} test",
        classes=classes,
        chance=0.5,
        input_shape=(part.x.shape[2],),
        steps=part.x.shape[1],
        kind="spike",
        train=part,
        test=tests[f"{sizes[-1]} {unit}"],
        targets=targets,
        fresh=fresh,
        tests=tests if len(sizes) > 1 else {},
    )


def spelled(sizes: tuple[int, ...]) -> str:
    """Name sizes: one number, or `2 to 6`, or a list."""
    if len(sizes) > 2 and sizes == tuple(range(sizes[0], sizes[-1] + 1)):
        return f"{sizes[0]} to {sizes[-1]}"
    return " or ".join(map(str, sizes))
