"""What is measured for passes says how far it is, and measures the same whether somebody looks or not."""

import numpy as np
import pytest

from tests.graphs import sequence, two_layers
from unscan.compiler.passes import FoldThreshold
from unscan.runtime.judge import judge, ranges, rates

GRAPH = two_layers("zero")


@pytest.mark.parametrize("steps", [1, 63])
def test_the_share_done_grows_to_one(steps):
    x, seen = sequence(GRAPH, steps, 3), []

    def look(what, share):
        seen.append((what, share))

    watched, alone = rates(x, look)(GRAPH), rates(x)(GRAPH)
    assert seen == [("how often neurons fire", (t + 1) / steps) for t in range(steps)]
    assert all(np.array_equal(watched[name], alone[name]) for name in alone)
    seen.clear()
    measured, wanted = ranges(x, look)(GRAPH), ranges(x)(GRAPH)
    assert seen == [("how far numbers reach", (t + 1) / steps) for t in range(steps)]
    assert measured.keys() == wanted.keys()
    assert all(np.array_equal(measured[name].high, wanted[name].high) for name in wanted)
    seen.clear()
    step = FoldThreshold(0.5)
    after = step.rewrite(GRAPH).graph
    assert judge(x, look)(step, GRAPH, after) == judge(x)(step, GRAPH, after)
    assert seen == [("what fold-threshold changes", (t + 1) / (2 * steps)) for t in range(2 * steps)]
