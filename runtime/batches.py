"""Cut the samples of a sequence so that what is recorded of one cut fits into memory."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from unscan.compiler.ir import Graph

RECORDED_BYTES = 2**28


def batches(graph: Graph, steps: int, samples: int) -> Iterator[slice]:
    """Yield slices over the samples, such that all signals and membranes over `steps` stay near 256 MiB."""
    shapes = [signal.shape for signal in graph.signals.values()] + list(graph.membranes().values())
    neurons = sum(map(prod, shapes))
    size = max(1, RECORDED_BYTES // (8 * steps * neurons))
    for start in range(0, samples, size):
        yield slice(start, min(start + size, samples))
