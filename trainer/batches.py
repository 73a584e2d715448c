"""Cutting sequences into batches, in an order that seed and epoch alone decide."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unscan.trainer.settings import Augmentation
from unscan.trainer.tasks.task import IGNORED, Part


class Batch(NamedTuple):
    """Sequences x (T, B, F), their targets y (B, ...), and how many answers the whole batch asks for.

    Of several processes each gets its share of the sequences, and `asked` is the same for all.
    """

    x: Tensor
    y: Tensor
    asked: int


class Batches:
    """Cut parts into time-major batches, in order, or shuffled and augmented by seed and epoch.

    A batch holds sequences of one part, so of one length. `fresh` draws new parts for each epoch, in the sizes of
    `parts`. Indexing whole tensors is all there is to do; worker processes would cost more than they save.
    """

    def __init__(
        self,
        parts: tuple[Part, ...],
        batch_size: int,
        dtype: torch.dtype,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
        fresh: Callable[[int, int], tuple[Part, ...]] | None = None,
    ) -> None:
        self.parts, self.batch_size, self.dtype, self.seed = parts, batch_size, dtype, seed
        self.augmentation = augmentation or Augmentation()
        self.fresh = fresh
        self.epoch = 0  # chooses order and augmentation; set it before iterating
        self.process, self.processes = 0, 1

    def __len__(self) -> int:
        return sum(math.ceil(len(part.y) / self.batch_size) for part in self.parts)

    def __iter__(self) -> Iterator[Batch]:
        draws = np.random.default_rng([self.seed or 0, self.epoch])
        parts = self.parts if self.fresh is None else self.fresh(self.epoch, self.seed or 0)
        plan = [(part, index) for part in parts for index in self._cut(len(part.y), draws)]
        if self.seed is not None and len(parts) > 1:
            plan = [plan[place] for place in draws.permutation(len(plan))]
        for part, index in plan:
            x, y = _augmented(part.x[index], self.augmentation, draws), part.y[index]
            asked = int((y != IGNORED).sum())
            if self.processes > 1:
                x, y = self._share(x, y)
            yield Batch(x.transpose(0, 1).to(self.dtype).contiguous(), y, asked)

    def _cut(self, samples: int, draws: np.random.Generator) -> Iterator[Tensor]:
        order = torch.arange(samples) if self.seed is None else torch.from_numpy(draws.permutation(samples))
        yield from torch.split(order, self.batch_size)

    def _share(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take this process's share; one that gets none runs a sequence that asks nothing, to keep step."""
        mine = slice(self.process, None, self.processes)
        return (x[mine], y[mine]) if len(y) > self.process else (x[:1], torch.full_like(y[:1], IGNORED))


def _augmented(x: Tensor, how: Augmentation, draws: np.random.Generator) -> Tensor:
    """Shift and blur sequences x (N, T, F)."""
    steps = x.shape[1]
    if how.shift:
        later = torch.from_numpy(draws.integers(-how.shift, how.shift, len(x), endpoint=True))
        source = torch.arange(steps) - later[:, None]
        inside = (source >= 0) & (source < steps)
        x = x[torch.arange(len(x))[:, None], source.clamp(0, steps - 1)] * inside[:, :, None]
    if how.noise:
        x = x + how.noise * torch.from_numpy(draws.standard_normal(tuple(x.shape), dtype=np.float32))
    return x
