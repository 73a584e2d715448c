"""What float32 does to a trained model, measured on the model itself; see `unscan.runtime.rounding`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.runtime.executors.base import Execution


def measure(graph: Graph, exact: Execution, single: Execution) -> dict[str, Array]:
    """Return layer -> (T,) the largest difference of membranes up to each step, over samples that have not parted.

    Args:
        graph: gives the order of the layers.
        exact: the trained model in float64.
        single: the same in float32.
    """
    names = [name for name in graph.of(*SPIKING) if name in exact.membranes and name in single.membranes]
    differs: dict[str, Array] = {
        name: np.asarray(_per_sample(exact.spikes[name] != single.spikes[name]).any(axis=2)) for name in names
    }
    if not names:
        return {}
    anywhere = np.logical_or.reduce(list(differs.values()))
    parted = np.zeros_like(anywhere)
    parted[1:] = np.logical_or.accumulate(anywhere, axis=0)[:-1]
    return dict(_measured(names, differs, parted, exact, single))


def _measured(
    names: list[str], differs: Mapping[str, Array], parted: Array, exact: Execution, single: Execution
) -> Iterator[tuple[str, Array]]:
    for name in names:
        apart = _per_sample(np.abs(exact.membranes[name] - single.membranes[name].astype(np.float64))).max(
            axis=2
        )
        yield name, np.maximum.accumulate(np.where(parted, 0.0, apart).max(axis=1))
        parted = parted | differs[name]


def _per_sample(recorded: Array) -> Array:
    return recorded.reshape(*recorded.shape[:2], -1)
