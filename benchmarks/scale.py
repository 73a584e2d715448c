"""Trace, compile, save and load a language model of 75 M parameters: how long, and in how much memory.

    unscan bench scale [--quick] [--json FILE]

16 SpikingSSM blocks of 1 024 channels and 64 states, as papers/003 has them for WikiText-103, between an embedding of
19 000 words and a linear layer back to them; random weights. Memory is how far a fresh process grows at its peak:
while it traces, compiles and saves, beyond the torch model; and while it loads the file.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from unscan.benchmarks.measuring import Pass, memory, options, screen, write
from unscan.compiler.frontends.trace import trace
from unscan.compiler.pipeline import compile_graph
from unscan.compiler.storage import load, save
from unscan.trainer.neurons import SpikingSSM


class LanguageModel(nn.Module):
    """Words in, scores of the next word out."""

    def __init__(self, words: int, width: int, blocks: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.blocks = nn.Sequential(
            *(SpikingSSM(width, 64, norm="layer", threshold="learned") for _ in range(blocks))
        )
        self.head = nn.Linear(width, words)

    def forward(self, x: Tensor) -> Tensor:
        """Map words (T, B) to scores (T, B, words)."""
        scores: Tensor = self.head(self.blocks(self.embedding(x)))
        return scores


FULL, QUICK = (19_000, 1024, 16), (500, 64, 2)
WORD = torch.zeros(1, 1, dtype=torch.int64)


def compiles(sizes: tuple[int, int, int], path: Path) -> Pass:
    """Build the model, and return the pass that brings it into a file."""
    model = LanguageModel(*sizes)
    return lambda: save(compile_graph(trace(model, WORD)), path)


def loads(path: Path) -> Pass:
    """Return the pass that reads the file."""
    return lambda: load(path)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a stage gives, and its seconds."""
    begin = time.perf_counter()
    return run(), time.perf_counter() - begin


def stages(sizes: tuple[int, int, int], path: Path, seconds: dict[str, float]) -> tuple[int, bool]:
    """Run every stage once and note its seconds; return the parameters, and whether the graph came back."""
    model = LanguageModel(*sizes)
    traced, seconds["trace"] = timed(lambda: trace(model, WORD))
    compiled, seconds["compile"] = timed(lambda: compile_graph(traced))
    _, seconds["save"] = timed(lambda: save(compiled, path))
    loaded, seconds["load"] = timed(lambda: load(path))
    return sum(p.numel() for p in model.parameters()), loaded == compiled


def main(arguments: list[str] | None = None) -> None:
    """Measure and print the table."""
    parser = options(__doc__, quick="two small blocks")
    given = parser.parse_args(arguments)
    sizes = QUICK if given.quick else FULL
    seconds: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.unscan"
        count, same = stages(sizes, path, seconds)
        grown = {
            "trace, compile, save": memory(compiles, sizes, path),
            "load": memory(loads, path),
        }
    table = Table(title=f"{count / 1e6:.1f} M parameters, {4 * count / 2**20:,.0f} MiB of weights in float32")
    for column in ("stage", "seconds", "peak memory, MiB", "times the weights"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    for stage, value in seconds.items():
        table.add_row(stage, f"{value:.2f}", "", "")
    table.add_row("all", f"{sum(seconds.values()):.2f}", "", "")
    for stage, size in grown.items():
        table.add_row(stage, "", f"{size / 2**20:,.0f}", f"{size / (4 * count):.2f}")
    screen().print(table)
    screen().print(f"The graph that was loaded is the one that was saved: {same}")
    write(given.json, parameters=count, seconds=seconds, bytes=grown, same=same)


if __name__ == "__main__":
    main()
