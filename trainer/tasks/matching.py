"""Delayed match to sample: a pattern, a pause, a pattern; was it the same?"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from unscan.trainer.tasks.generated import BITS, generated, spelled
from unscan.trainer.tasks.settings import share, wholes
from unscan.trainer.tasks.task import Part, Task


def delayed_match(
    data_dir: Path | None = None,
    *,
    delay: int | list[int] | tuple[int, ...] = 20,
    noise: float = 0.0,
    train: int = 10_000,
    test: int = 2_000,
    seed: int = 0,
) -> Task:
    """Give a pattern, a pause and a second pattern: answer whether the two are equal (1) or not (0).

    Rows (T, 10) of 0 and 1: a row with 8 random bits in columns 0 to 7 and column 8 = 1, the cue; `delay` rows in
    which each of columns 0 to 7 is 1 with probability `noise`; a row with 8 bits in columns 0 to 7 and column 9 = 1,
    the probe. The probe is the cue or, as often, any of the 255 other patterns with equal probability, so chance is
    1/2. The answer is one class a sequence, known from the last step on. With several pauses in `delay` each has a
    test part ("20 steps of delay") and an equal share of the training (see `generated`).

    Without noise there are 256 sequences that match and 65 280 that do not, so the test part repeats some of the
    training part's: it measures whether the cue is kept, not whether equality is understood. Raises InvalidInput for
    a setting out of range.
    """
    name = "delayed_match"
    sizes = wholes(name, "delay", delay, 0)
    noise = share(name, "noise", noise)
    pause = f"filled with noise of density {noise:g}" if noise else "empty"
    return generated(
        name,
        f"match of two patterns of {BITS} bits, {spelled(sizes)} steps apart, the pause {pause}",
        partial(_draw, noise=noise),
        sizes=sizes,
        unit="steps of delay",
        targets="class",
        classes=2,
        train=train,
        test=test,
        seed=seed,
    )


def _draw(draws: np.random.Generator, count: int, delay: int, *, noise: float) -> Part:
    cue = draws.integers(0, 2, (count, BITS), dtype=np.int8)
    match = draws.integers(0, 2, count)
    difference = draws.integers(1, 2**BITS, count)[:, None] >> np.arange(BITS) & 1
    x = np.zeros((count, delay + 2, BITS + 2), np.float32)
    x[:, 0, :BITS] = cue
    x[:, 0, BITS] = 1
    if noise:
        x[:, 1:-1, :BITS] = draws.random((count, delay, BITS)) < noise
    x[:, -1, :BITS] = np.where(match[:, None] == 1, cue, cue ^ difference)
    x[:, -1, BITS + 1] = 1
    return Part(torch.from_numpy(x), torch.from_numpy(match))
