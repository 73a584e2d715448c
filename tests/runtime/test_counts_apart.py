"""The same counts from every executor: by node, by sample, and the peaks, of memories too."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.runtime.test_steps import memory_graph
from unscan.compiler.nodes import AssociativeMemory, DeltaMemory
from unscan.runtime.executors import executor
from unscan.runtime.executors.reference import Reference


@pytest.mark.parametrize("decay", ["dense", "scalar"])
@pytest.mark.parametrize("kind", [AssociativeMemory, DeltaMemory])
@pytest.mark.parametrize("queries", [None, 3])
def test_every_executor_tells_the_samples_of_a_memory_apart(kind: Any, decay: Any, queries: int | None):
    node = kind(threshold=np.float64(0.2), queries=queries, trained_reset="none", decay=decay, bound=0.1)
    graph, _ = memory_graph(node, 4, 5, queries)
    x = np.random.default_rng(0).normal(size=(30, 3, graph.signals["input"].shape[0]))
    x[..., 9:] = np.abs(x[..., 9:]) % 1
    x[..., 9:15] = 0.3
    truth = Reference(graph).run(x).counts
    assert truth is not None
    assert sum(done.updates["write"] for done in truth.per_sample) == truth.total.updates["write"] > 0
    for name in ("event", "onnx"):
        found = executor(name, graph).run(x).counts
        assert found is not None
        assert found.by_node == truth.by_node
        assert found.per_sample == truth.per_sample
        assert found.peaks == truth.peaks
