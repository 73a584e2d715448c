"""Every parallel node becomes its step, with the same spikes; what is no step of a neuron is refused or named."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import assert_same, executed, memory_graph, memory_graphs
from tests.graphs import chain, linear, sequence
from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Dialect, Graph, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    NODES,
    RESETTING,
    AdaptiveLIF,
    AdaptiveLIFScan,
    AssociativeScan,
    CubaLIF,
    CubaLIFScan,
    DeltaScan,
    DiagonalConvolution,
    DiagonalSSM,
    Input,
    LIConvolution,
    LIFAnnealed,
    LIFConvolution,
    LIFScan,
    LIFSurrogate,
    Output,
)
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES, RESETS
from unscan.compiler.passes import Unroll
from unscan.compiler.passes.unroll import STEPS, unrolled
from unscan.compiler.pipeline import run
from unscan.runtime.executors.reference import Reference


def around(node: Node, *, inputs: int = 5, width: int = 6, seed: int = 0) -> Graph:
    """Input -> Linear -> the node -> Output."""
    return chain(
        input=Input((inputs,)),
        fc=linear(np.random.default_rng(seed), inputs, width),
        node=node,
        output=Output(),
    )


def diagonal(rng: np.random.Generator, width: int, modes: int) -> DiagonalConvolution:
    a = np.exp(-rng.uniform(0.01, 1, (width, modes)) + 1j * rng.uniform(0, np.pi, (width, modes)))
    c = rng.normal(size=(width, modes, 2))
    return DiagonalConvolution(a=np.stack([a.real, a.imag], axis=-1), c=c, d=rng.normal(size=width))


def annealed(strength: float, rounds: int | None, **settings: Any) -> LIFAnnealed:
    return LIFAnnealed(
        beta=np.float64(0.9), threshold=np.float64(0.5), reset="none", strength=np.float64(strength),
        rounds=rounds, **settings,
    )  # fmt: skip


def surrogate(*, exact: bool) -> LIFSurrogate:
    rng = np.random.default_rng(0)
    return LIFSurrogate(
        beta=np.float64(0.125), threshold=np.float64(1), temporal=rng.normal(size=(8, 8)),
        temporal_bias=np.zeros(8), mixing=rng.normal(size=(8, 8)), mixing_bias=np.zeros(8),
        readout=rng.normal(size=8), readout_bias=np.zeros(1), exact=exact,
    )  # fmt: skip


def test_every_parallel_node_has_a_rule():
    parallel = {kind for kind in NODES.values() if kind.dialect is Dialect.PARALLEL}
    assert parallel == {*STEPS, LIFAnnealed, LIFSurrogate}
    assert all(unrolled.dispatch(kind) is not unrolled.dispatch(object) for kind in parallel)


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("kind", STEPS)
def test_the_step_is_the_parallel_node_at_every_length(kind, steps):
    rng = np.random.default_rng(3)
    shared = {"beta": np.float64(0.9), "threshold": np.float64(0.7), "phase": "now", "fires": ">"}
    makes = {
        LIFScan: lambda: LIFScan(**{**shared, "phase": "next"}, reset="subtract", gain="1-beta"),
        LIFConvolution: lambda: LIFConvolution(**shared, reset="none"),
        LIConvolution: lambda: LIConvolution(beta=np.float64(0.9), gain="1-beta"),
        CubaLIFScan: lambda: CubaLIFScan(**shared, alpha=rng.uniform(0, 1, 6), reset="zero"),
        AdaptiveLIFScan: lambda: AdaptiveLIFScan(
            **shared, kappa=np.float64(0.3), rho=np.float64(0.8), reset="subtract"
        ),
        DiagonalConvolution: lambda: diagonal(rng, 6, 3),
    }
    graph = memory_graph(rng, kind) if kind in (AssociativeScan, DeltaScan) else around(makes[kind]())
    name = "memory" if kind in (AssociativeScan, DeltaScan) else "node"
    after, notes = Unroll().rewrite(graph)
    before, made = graph.nodes[name], after.nodes[name]
    assert type(made) is STEPS[kind]
    assert notes == [f"{name}: {kind.__name__} -> {type(made).__name__}"]
    assert all(getattr(made, field) == value for field, value in before.settings().items())
    assert all(np.array_equal(getattr(made, field), value) for field, value in before.arrays())
    if isinstance(made, RESETTING):
        assert made.trained_reset == before.reset
    assert_same(graph, after, sequence(graph, steps, 3))


@pytest.mark.parametrize("kind", [LIFScan, AssociativeScan, DiagonalConvolution])
def test_a_sequence_cut_in_two_is_one_run_of_the_parallel_node(kind):
    rng = np.random.default_rng(1)
    if kind is AssociativeScan:
        graph = memory_graph(rng, kind)
    else:
        node = (
            diagonal(rng, 6, 2)
            if kind is DiagonalConvolution
            else LIFScan(beta=np.float64(0.9), threshold=np.float64(0.6))
        )
        graph = around(node)
    x = sequence(graph, 63, 2)
    after = Reference(Unroll().rewrite(graph).graph)
    first = after.run(x[:20])
    second = after.run(x[20:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), executed(graph, x).outputs)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("fires", FIRES)
def test_an_annealed_neuron_that_converged_is_the_one_that_subtracts(gain, fires):
    graph = around(annealed(1.0, None, gain=gain, fires=fires))
    after, notes = Unroll().rewrite(graph)
    node = after.nodes["node"]
    assert isinstance(node, LIF)
    assert (node.reset, node.phase, node.trained_reset) == ("subtract", "now", "subtract")
    assert (node.gain, node.fires) == (gain, fires)
    assert notes == ["node: LIFAnnealed -> LIF"]
    assert executed(after).spikes["node"].mean() > 0.01
    # u0 grows to about 10 where u stays near 1, so the two round differently: 100 steps of 2^-53 each
    assert_same(graph, after, sequence(graph, 100, 3), tolerance=1e-12)


def test_rounds_of_annealing_are_exact_over_as_many_steps_and_one_more():
    graph = around(annealed(1.0, 4))
    after, (note,) = Unroll().rewrite(graph)
    assert "another neuron than the trained one beyond 5 steps" in note
    assert_same(graph, after, sequence(graph, 5, 50), tolerance=1e-12)
    x = sequence(graph, 60, 50)
    assert (executed(graph, x).spikes["node"] != executed(after, x).spikes["node"]).any()


@pytest.mark.parametrize(("strength", "trained"), [(0.0, "none"), (0.4, "subtract")])
def test_annealing_in_less_strength_is_another_neuron_and_the_note_says_so(strength, trained):
    after, (note,) = Unroll().rewrite(around(annealed(strength, 1)))
    assert "another neuron than the trained one" in note
    assert f"strength {strength:g}; verify measures" in note
    assert after.nodes["node"].trained_reset == trained


def test_a_surrogate_is_refused_with_what_to_do():
    with pytest.raises(Unsupported, match=r"'node'.*Run drop-surrogate first"):
        Unroll().rewrite(around(surrogate(exact=True)))
    with pytest.raises(Unsupported, match=r"'node' stands for no neuron.*Train again"):
        Unroll().rewrite(around(surrogate(exact=False)))


def test_a_node_without_a_rule_is_refused_by_name():
    with pytest.raises(Unsupported, match="Flatten 'odd' has no step form"):
        unrolled(NODES["Flatten"](), "odd")


@st.composite
def parallel_graphs(draw: st.DrawFn) -> Graph:
    """Layers of random parallel neurons and filters, with a residual around each."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(st.sampled_from([1, 5, 16]))
    nodes: dict[str, Node] = {"input": Input((5,)), "fc": linear(rng, 5, width)}

    def per_neuron(low: float, high: float) -> Any:
        return rng.uniform(low, high, () if draw(st.booleans()) else (width,))

    for i in range(draw(st.integers(1, 4))):
        leaky = {"beta": per_neuron(0, 1), "gain": draw(st.sampled_from(GAINS))}
        fires = {"threshold": per_neuron(0.2, 1), "fires": draw(st.sampled_from(FIRES))}
        reset = {"reset": draw(st.sampled_from(RESETS))}
        phase = {"phase": draw(st.sampled_from(PHASES))}
        nodes[f"fc{i}"] = linear(rng, width, width)
        nodes[f"node{i}"] = draw(
            st.sampled_from(
                [
                    LIFScan(**leaky, **fires, **reset, **phase),
                    LIFConvolution(**leaky, **fires, **phase, reset="none"),
                    LIConvolution(**leaky),
                    CubaLIFScan(**leaky, **fires, **reset, **phase, alpha=per_neuron(0, 1)),
                    AdaptiveLIFScan(
                        **leaky, **fires, **reset, kappa=per_neuron(0.1, 1), rho=per_neuron(0, 1)
                    ),
                    diagonal(rng, width, 2),
                ]
            )
        )
    return chain(**nodes, output=Output())


@settings(deadline=None, max_examples=40)
@given(
    graph=st.one_of(parallel_graphs(), memory_graphs((AssociativeScan, DeltaScan))), seed=st.integers(0, 99)
)
def test_on_random_graphs_the_reference_after_is_the_reference_before(graph, seed):
    after = run(graph, [Unroll()])
    assert all(node.dialect is not Dialect.PARALLEL for node in after.nodes.values())
    assert_same(graph, after, sequence(graph, 12, 2, seed))


def test_an_iterative_graph_is_left_as_it_is():
    graph = around(LIF(beta=np.float64(0.9), threshold=np.float64(1), trained_reset="none"))
    assert Unroll().rewrite(graph) == (graph, [])
    for kind in (LI, CubaLIF, AdaptiveLIF, DiagonalSSM):
        assert kind in STEPS.values()


def test_the_trained_reset_of_a_neuron_trained_without_one_is_none():
    after = (
        Unroll()
        .rewrite(around(LIFConvolution(beta=np.float64(0.9), threshold=np.float64(0.6), reset="none")))
        .graph
    )
    node = replace(after.nodes["node"], reset="zero")
    assert node.trained_reset == "none"
