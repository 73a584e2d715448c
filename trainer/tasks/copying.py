"""Copying: a sequence of random vectors, a sign, and then the same sequence as the answer."""

from pathlib import Path

import numpy as np
import torch

from unscan.trainer.tasks.generated import BITS, generated, spelled
from unscan.trainer.tasks.settings import wholes
from unscan.trainer.tasks.task import IGNORED, Part, Task


def copy(
    data_dir: Path | None = None,
    *,
    length: int | list[int] | tuple[int, ...] = 10,
    train: int = 10_000,
    test: int = 2_000,
    seed: int = 0,
) -> Task:
    """Give random bytes, then a sign: answer with the same bytes in their order, one a step.

    Rows (T, 9) of 0 and 1 for L vectors: L rows with a vector each in columns 0 to 7; a row whose column 8 alone is
    1; L rows of zeros, in row i of which the 8 bits of vector i are asked. Each bit is a fair coin, so chance is
    1/2 a bit. With several numbers L in `length` each has a test part ("5 vectors") and an equal share of the
    training (see `generated`). Raises InvalidInput for a setting out of range.

    Source: Graves, Wayne, Danihelka, Neural Turing Machines, arXiv 1410.5401, section 4.1 (there L is 1 to 20).
    """
    name = "copy"
    sizes = wholes(name, "length", length, 1)
    return generated(
        name,
        f"copy of {spelled(sizes)} vectors of {BITS} random bits",
        _draw,
        sizes=sizes,
        unit="vectors",
        targets="bits",
        classes=BITS,
        train=train,
        test=test,
        seed=seed,
    )


def _draw(draws: np.random.Generator, count: int, length: int) -> Part:
    vectors = draws.integers(0, 2, (count, length, BITS), dtype=np.int8)
    x = np.zeros((count, 2 * length + 1, BITS + 1), np.float32)
    y = np.full((count, 2 * length + 1, BITS), IGNORED, np.int8)
    x[:, :length, :BITS] = vectors
    x[:, length, BITS] = 1
    y[:, length + 1 :] = vectors
    return Part(torch.from_numpy(x), torch.from_numpy(y))
