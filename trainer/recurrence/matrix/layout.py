"""How the matrix memory's kernels lay out their work: sequences as rows, states in whole tiles, time in spans."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from unscan.trainer.recurrence.lanes import run_tiles
from unscan.trainer.recurrence.matrix.kernels import CHUNK
from unscan.trainer.recurrence.vector import LANES

_SCRATCH = 1 << 20  # numbers in a span's buffer: few enough for a cache, enough to make calls few


@dataclass(frozen=True)
class Layout:
    """The sizes of a sequence, and what the kernels make of them. Everything is padded with zeros to whole tiles."""

    steps: int
    batch: int
    d: int
    n: int

    @property
    def flat(self) -> int:
        """Rows of a sequence, T B."""
        return self.steps * self.batch

    @property
    def width(self) -> int:
        """Columns of a tile, a power of two up to 64."""
        return min(LANES, 1 << (self.n - 1).bit_length())

    @property
    def rows(self) -> int:
        """Value rows."""
        height = LANES // self.width
        return -(-self.d // height) * height

    @property
    def columns(self) -> int:
        """Key columns."""
        return self.blocks * self.width

    @property
    def whole(self) -> bool:
        """Whether nothing is padded."""
        return (self.rows, self.columns) == (self.d, self.n)

    @property
    def blocks(self) -> int:
        """Blocks of columns; each is a unit of work in every sample."""
        return -(-self.n // self.width)

    @property
    def chunks(self) -> int:
        """Chunks of time, the last of which may be short."""
        return -(-self.steps // CHUNK)

    @property
    def scratch(self) -> tuple[int, int]:
        """The shape of a buffer for the states of a span: as many whole chunks as stay in a cache, but one at least."""
        size = self.rows * self.columns
        chunks = max(1, _SCRATCH // (CHUNK * self.batch * size))
        return min(self.chunks, chunks) * CHUNK * self.batch, size

    def spans(self, single: bool) -> list[tuple[int, int, slice]]:
        """Cut time into spans, or make a single one: first chunk, chunk beyond the last, and their rows."""
        step = self.chunks if single else self.scratch[0] // (CHUNK * self.batch)
        cuts = [(part, min(part + step, self.chunks)) for part in range(0, self.chunks, step)]
        size = CHUNK * self.batch
        return [(part, beyond, slice(part * size, min(beyond * size, self.flat))) for part, beyond in cuts]

    def vectors(self, values: Tensor, width: int) -> Tensor:
        """Lay out a sequence of vectors (T, B, c) as (T B, width)."""
        values = values.detach().reshape(self.flat, -1)
        return functional.pad(values, (0, width - values.shape[1])).contiguous()

    def tiles(self, states: Tensor) -> Tensor:
        """Lay out states (..., d, n) as (..., rows x columns)."""
        states = states.detach()
        if not self.whole:
            states = functional.pad(states, (0, self.columns - self.n, 0, self.rows - self.d))
        return states.flatten(-2).contiguous()

    def states(self, tiles: Tensor) -> Tensor:
        """The way back, a view: (..., rows x columns) -> (..., d, n)."""
        return tiles.view(*tiles.shape[:-1], self.rows, self.columns)[..., : self.d, : self.n]

    def run(self, kernel: Any, *arguments: Any) -> None:
        """Call a kernel on all units, on several threads where that is worth it."""
        run_tiles(kernel, self.batch * self.blocks, self.flat * self.d * self.n, *arguments)
