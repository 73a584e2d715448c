"""Associative recall: pairs of random vectors, then one of the keys; what was its value?"""

import math
from functools import partial
from pathlib import Path

import numpy as np
import torch

from unscan.trainer.tasks.generated import BITS, generated, spelled
from unscan.trainer.tasks.settings import whole, wholes
from unscan.trainer.tasks.task import IGNORED, Part, Task


def associative_recall(
    data_dir: Path | None = None,
    *,
    pairs: int | list[int] | tuple[int, ...] = (2, 3, 4, 5, 6),
    delay: int = 0,
    train: int = 10_000,
    test: int = 2_000,
    seed: int = 0,
) -> Task:
    """Give pairs of random bytes, then a key: answer with its value, bit by bit, at the last step.

    Rows (T, 9) of 0 and 1 for N pairs: row 2i holds key i and row 2i + 1 value i in columns 0 to 7; then `delay`
    rows of zeros; then a row whose column 8 alone is 1; then the queried key. The last row is where the 8 bits of
    the key's value are asked. Each bit is a fair coin, so chance is 1/2 a bit. With several numbers N in
    `pairs` each has a test part ("2 pairs") and an equal share of the training (see `generated`).

    Keys are drawn independently, so two can be equal; the target is the value of the pair that was drawn to be
    asked for, which then nobody can know (see `ceiling`). Raises InvalidInput for a setting out of range.

    Source: Graves, Wayne, Danihelka, Neural Turing Machines, arXiv 1410.5401, section 4.3, in the single-stream
    form of papers/001 section 6.3.
    """
    name = "associative_recall"
    sizes = wholes(name, "pairs", pairs, 1)
    delay = whole(name, "delay", delay, 0)
    pause = f", {delay} empty steps before the query" if delay else ""
    return generated(
        name,
        f"recall of one of {spelled(sizes)} pairs of {BITS} random bits{pause}",
        partial(_draw, delay=delay),
        sizes=sizes,
        unit="pairs",
        targets="bits",
        classes=BITS,
        train=train,
        test=test,
        seed=seed,
    )


def ceiling(pairs: int) -> float:
    """Return the best bit accuracy that is possible for so many pairs, since keys can be equal.

    Of the other N - 1 pairs m have the queried key with probability Binomial(N - 1, 2^-8)(m). The queried pair is
    then any of c = m + 1, and the best answer for a bit is the commoner of their c fair bits, right in
    max(k, c - k) / c of the cases where k of them are 1: 1 for c = 1, 3/4 for c = 2 and 3.
    """
    same, others = 2.0**-BITS, pairs - 1
    return math.fsum(
        math.comb(others, m) * same**m * (1 - same) ** (others - m) * _best_guess(m + 1) for m in range(pairs)
    )


def _best_guess(candidates: int) -> float:
    rights = sum(math.comb(candidates, ones) * max(ones, candidates - ones) for ones in range(candidates + 1))
    return rights / (candidates * 2.0**candidates)


def _draw(draws: np.random.Generator, count: int, pairs: int, *, delay: int) -> Part:
    asked = draws.integers(0, pairs, count)
    vectors = draws.integers(0, 2, (count, pairs, 2, BITS), dtype=np.int8)
    keys, values = vectors[np.arange(count), asked].swapaxes(0, 1)
    x = np.zeros((count, 2 * pairs + delay + 2, BITS + 1), np.float32)
    x[:, : 2 * pairs, :BITS] = vectors.reshape(count, 2 * pairs, BITS)
    x[:, -2, BITS] = 1
    x[:, -1, :BITS] = keys
    y = np.full((count, x.shape[1], BITS), IGNORED, np.int8)
    y[:, -1] = values
    return Part(torch.from_numpy(x), torch.from_numpy(y))
