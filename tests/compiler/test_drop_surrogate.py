"""The neuron that a surrogate network was trained to follow takes its place."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.test_unroll import around, surrogate
from tests.graphs import sequence
from unscan.compiler.nodes import LIF, LIFScan
from unscan.compiler.passes import DropSurrogate, Unroll
from unscan.compiler.pipeline import run
from unscan.runtime.executors.reference import Reference


def test_an_exact_surrogate_becomes_its_neuron_which_unrolls():
    graph = around(surrogate(exact=True))
    after, notes = DropSurrogate().rewrite(graph)
    node = after.nodes["node"]
    assert type(node) is LIFScan
    assert (node.beta, node.threshold, node.reset, node.phase, node.fires) == (
        0.125,
        1.0,
        "zero",
        "now",
        ">=",
    )
    assert notes == ["node: LIFSurrogate -> LIFScan with reset zero, which its network approximates"]
    step = run(graph, [DropSurrogate(), Unroll()]).nodes["node"]
    assert isinstance(step, LIF)
    assert (step.reset, step.trained_reset) == ("zero", "zero")


def test_a_surrogate_that_stands_for_no_neuron_stays():
    graph = around(surrogate(exact=False))
    after, notes = DropSurrogate().rewrite(graph)
    assert after == graph
    assert notes == ["node: stays, because its surrogate stands for no neuron"]


@settings(deadline=None, max_examples=20)
@given(beta=st.floats(0, 1), threshold=st.floats(0.2, 2), seed=st.integers(0, 99))
def test_what_is_deployed_is_the_exact_neuron_of_its_parameters(beta, threshold, seed):
    node = replace(surrogate(exact=True), beta=np.float64(beta), threshold=np.float64(threshold))
    graph = around(node)
    after = run(graph, [DropSurrogate(), Unroll()])
    x = sequence(graph, 20, 2, seed)
    fed = x @ graph.nodes["fc"].weight.T + graph.nodes["fc"].bias
    u = np.zeros(fed.shape[1:])
    for t, spikes in enumerate(Reference(after).run(x).spikes["node"]):
        u = beta * u + fed[t]
        assert (spikes == (u >= threshold)).all()
        u = u * ~spikes
