"""Each pass: the old node is gone, and what it promises to preserve is preserved, on random graphs too."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graphs import chain, graphs, lif, linear, sequence, two_layers
from unscan.compiler.errors import InvalidGraph, InvalidInput
from unscan.compiler.ir import Dialect, Edge, Graph
from unscan.compiler.nodes import (
    LIF,
    BatchNorm,
    Flatten,
    Input,
    LIConvolution,
    LIFConvolution,
    LIFScan,
    Output,
    Scale,
)
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES, RESETS
from unscan.compiler.passes import PASSES, FoldNorm, FoldThreshold, PruneDead, RestoreReset, Unroll
from unscan.compiler.pipeline import compile_graph, passes_for, run
from unscan.runtime.agreement import compare
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import judge

RNG = np.random.default_rng(0)


def executed(graph: Graph, seed: int = 1, *, steps: int = 40, batch: int = 3):
    return Reference(graph).run(sequence(graph, steps, batch, seed))


def norm(width: int) -> BatchNorm:
    return BatchNorm(*(RNG.uniform(0.5, 1.5, width) for _ in range(4)))


def parallel(reset: str = "zero") -> Graph:
    beta, theta = np.float64(0.9), np.float64(0.7)
    return chain(
        input=Input((5,)),
        fc1=linear(RNG, 5, 8),
        lif1=LIFScan(beta=beta, threshold=theta, reset=reset, phase="next", fires=">", gain="1-beta"),
        fc2=linear(RNG, 8, 6),
        lif2=LIFConvolution(beta=beta, threshold=theta, reset="none"),
        fc3=linear(RNG, 6, 3),
        readout=LIConvolution(beta=beta, gain="1-beta"),
        output=Output(),
    )


def test_unroll_leaves_no_parallel_node_and_the_same_model():
    before = parallel()
    after, notes = Unroll().rewrite(before)
    assert not [n for n in after.nodes.values() if n.dialect is Dialect.PARALLEL]
    assert notes == ["lif1: LIFScan -> LIF", "lif2: LIFConvolution -> LIF", "readout: LIConvolution -> LI"]
    lif1, lif2 = after.nodes["lif1"], after.nodes["lif2"]
    assert isinstance(lif1, LIF)
    assert isinstance(lif2, LIF)
    assert (lif1.reset, lif1.phase, lif1.fires, lif1.gain, lif1.trained_reset) == (
        "zero",
        "next",
        ">",
        "1-beta",
        "zero",
    )
    assert (lif2.reset, lif2.trained_reset) == ("none", "none")
    x = sequence(before, 63, 2)
    a, b = Reference(before).run(x), Reference(after).run(x)
    found = compare(after, a, b)
    assert found.total.f1 == 1
    assert found.output_absolute == 0


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("phase", [None, *PHASES])
def test_restore_reset_sets_every_neuron_and_remembers_the_trained_one(reset, phase):
    before = two_layers("none")
    after, notes = RestoreReset(reset, phase).rewrite(before)
    for name in ("lif1", "lif2"):
        node = after.nodes[name]
        assert (node.reset, node.phase, node.trained_reset) == (reset, phase or "now", "none")
    changes = reset != "none" or phase == "next"
    assert len(notes) == (2 if changes else 0)
    assert all("trained with reset none" in note for note in notes)
    assert before.nodes["lif1"].reset == "none"


def test_restore_reset_to_the_trained_one_changes_nothing():
    graph = two_layers("subtract")
    assert RestoreReset("subtract").rewrite(graph) == (graph, [])


def test_restore_reset_refuses_what_does_not_exist():
    with pytest.raises(InvalidInput, match="'hard'.*none, subtract, zero"):
        RestoreReset("hard")
    with pytest.raises(InvalidInput, match="'later'.*now, next"):
        RestoreReset("zero", "later")


@pytest.mark.parametrize("bias", [True, False])
def test_fold_norm_into_the_linear_before_and_after(bias):
    before = chain(
        input=Input((5,)), fc1=linear(RNG, 5, 8, bias=bias), bn1=norm(8), lif1=lif(), bn2=norm(8),
        fc2=linear(RNG, 8, 4, bias=bias), lif2=lif(), output=Output(),
    )  # fmt: skip
    after, notes = FoldNorm().rewrite(before)
    assert not after.of(BatchNorm)
    assert notes == ["bn1: folded into fc1", "bn2: folded into fc2"]
    a, b = executed(before), executed(after)
    assert compare(after, a, b).total.f1 == 1
    for name in ("lif1", "lif2"):
        np.testing.assert_allclose(b.membranes[name], a.membranes[name], rtol=0, atol=1e-12)


def test_a_norm_that_cannot_be_folded_stays_with_its_reason():
    nodes = {"input": Input((5,)), "fc": linear(RNG, 5, 5), "bn": norm(5), "lif": lif(), "output": Output()}
    edges = [
        Edge("input", "fc"),
        Edge("fc", "bn"),
        Edge("fc", "lif"),
        Edge("bn", "lif"),
        Edge("lif", "output"),
    ]
    before = Graph(nodes, edges)
    after, notes = FoldNorm().rewrite(before)
    assert after == before
    assert notes == ["bn: stays, because no Linear stands alone before or after it"]


@pytest.mark.parametrize("wanted", [1.0, 2.5])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("gain", GAINS)
def test_fold_threshold_scales_membranes_and_keeps_spikes(wanted, reset, phase, gain):
    theta = RNG.uniform(0.3, 1.7, 8)
    settings = {"reset": reset, "phase": phase, "gain": gain}
    before = chain(
        input=Input((5,)), twice=Scale(np.float64(2)), fc1=linear(RNG, 5, 8), half=Scale(RNG.uniform(0.5, 2, 8)),
        lif1=lif(0.9, theta, **settings), fc2=linear(RNG, 8, 4), lif2=lif(0.8, 0.2, **settings), output=Output(),
    )  # fmt: skip
    after, notes = FoldThreshold(wanted).rewrite(before)
    assert not after.of(Scale)
    assert [after.nodes[n].threshold.tolist() for n in ("lif1", "lif2")] == [wanted, wanted]
    assert len(notes) == 4
    a, b = executed(before), executed(after)
    assert compare(after, a, b).total.f1 == 1
    np.testing.assert_allclose(
        b.membranes["lif1"], a.membranes["lif1"] * wanted / theta, rtol=1e-12, atol=1e-12
    )


def test_a_threshold_that_cannot_be_folded_stays_with_its_reason():
    before = chain(input=Input((5,)), lif=lif(0.9, 0.5), output=Output())
    after, notes = FoldThreshold().rewrite(before)
    assert after == before
    assert notes == ["lif: threshold stays, because input feeds it and is no Linear of its own"]


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_fold_threshold_refuses_thresholds_that_are_none(wrong):
    with pytest.raises(InvalidInput, match="greater than 0"):
        FoldThreshold(wrong)


def test_prune_dead_removes_what_no_output_needs_and_what_does_nothing():
    graph = chain(
        input=Input((5,)),
        fc=linear(RNG, 5, 3),
        one=Scale(np.ones(3)),
        flat=Flatten(),
        lif=lif(),
        output=Output(),
    )
    dead = {"dead1": linear(RNG, 5, 2), "dead2": lif()}
    before = Graph({**graph.nodes, **dead}, [*graph.edges, Edge("input", "dead1"), Edge("dead1", "dead2")])
    after, notes = PruneDead().rewrite(before)
    assert list(after.nodes) == ["input", "fc", "lif", "output"]
    assert len(notes) == 4
    np.testing.assert_array_equal(executed(after).outputs, executed(before).outputs)


def test_prune_dead_keeps_a_scale_whose_removal_would_make_a_double_edge():
    nodes = {"input": Input((3,)), "one": Scale(np.float64(1)), "output": Output()}
    before = Graph(nodes, [Edge("input", "one"), Edge("one", "output"), Edge("input", "output")])
    assert PruneDead().rewrite(before).graph == before


@settings(deadline=None, max_examples=60)
@given(graph=graphs(), name=st.sampled_from(["fold-norm", "prune-dead"]), seed=st.integers(0, 99))
def test_on_random_graphs_the_reference_after_is_the_reference_before(graph, name, seed):
    after = run(graph, [PASSES[name]()])
    a, b = executed(graph, seed, steps=12), executed(after, seed, steps=12)
    found = compare(after, a, b)
    assert not [m for m in found.partings if m.distance > 1e-9]
    if not found.partings:
        np.testing.assert_allclose(b.outputs, a.outputs, rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(graph=graphs(), wanted=st.sampled_from([1.0, 0.25, 3.0]), seed=st.integers(0, 99))
def test_on_random_graphs_fold_threshold_keeps_the_spikes(graph, wanted, seed):
    after = run(graph, [FoldThreshold(wanted)])
    found = compare(after, executed(graph, seed, steps=12), executed(after, seed, steps=12))
    assert not [m for m in found.partings if m.distance > 1e-9]


@settings(deadline=None, max_examples=30)
@given(graph=graphs(), reset=st.sampled_from(RESETS), fires=st.sampled_from(FIRES))
def test_a_pass_leaves_the_graph_that_it_was_given_alone(graph, reset, fires):
    digest, edges = graph.digest, graph.edges
    for step in passes_for(reset=reset, threshold=0.5):
        step.rewrite(graph)
    again = Graph(graph.nodes, edges)
    assert again.digest == digest


def test_compile_writes_a_history_and_keeps_what_was_known():
    compiled = compile_graph(
        parallel().annotate(meta={"decision": "last"}), reset="zero", phase="now", threshold=1.0
    )
    assert compiled.meta["decision"] == "last"
    assert [line.split(":")[0] for line in compiled.history] == [
        "unroll", "unroll", "unroll", "restore-reset", "restore-reset", "fold-threshold", "fold-threshold",
    ]  # fmt: skip
    assert "trained with reset none" in compiled.history[4]
    assert compiled.nodes["lif2"].trained_reset == "none"


def test_a_pass_that_breaks_the_graph_is_named_with_those_before_it():
    class Spoil(PruneDead):
        name = "spoil"

        def rewrite(self, graph):
            return graph.with_nodes({"lif1": replace(graph.nodes["lif1"], beta=np.float64(7))}), []

    with pytest.raises(InvalidGraph, match=r"the pass spoil made \(after fold-norm\).*'lif1'.*beta lies in"):
        run(two_layers(), [FoldNorm(), Spoil()])


def test_a_pass_is_not_given_a_form_that_it_does_not_take():
    with pytest.raises(InvalidGraph, match="the pass fold-norm got"):
        run(parallel(), [FoldNorm()])


def test_the_judge_says_what_a_pass_changed():
    graph = two_layers("none")
    x = sequence(graph, 30, 4)
    lines = run(graph, [PruneDead(), RestoreReset("zero")], judge=judge(x)).history
    assert len(lines) == 3
    assert lines[-1].startswith("restore-reset: on the samples, F1 of spikes 0.")
    chained = chain(
        input=Input((5,)),
        fc=linear(RNG, 5, 3),
        one=Scale(np.ones(3)),
        lif=lif(threshold=0.1),
        output=Output(),
    )
    assert "changes nothing" in run(chained, [PruneDead()], judge=judge(sequence(chained, 30, 4))).history[-1]


def test_every_pass_has_a_name_and_a_line_on_what_it_does():
    for name, kind in PASSES.items():
        assert kind.name == name
        assert kind.__doc__
        assert kind.__doc__.strip()
