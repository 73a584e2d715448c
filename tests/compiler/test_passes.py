"""What all passes share: names, contracts, an input that is left alone; and all of them behind each other."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import assert_same, memory_graphs, spatial_graphs
from tests.graphs import chain, graphs, linear, sequence, two_layers
from unscan.compiler.errors import InvalidGraph
from unscan.compiler.ir import Dialect, Graph
from unscan.compiler.nodes import (
    BatchNorm,
    Input,
    LIConvolution,
    LIFConvolution,
    LIFScan,
    Output,
    Scale,
)
from unscan.compiler.nodes.neurons import RESETS
from unscan.compiler.passes import (
    PASSES,
    Calibrate,
    FoldNorm,
    FoldThreshold,
    FuseLinear,
    Pass,
    PruneDead,
    RestoreReset,
    ScalarDecay,
    SparsifyTopK,
    Unroll,
)
from unscan.compiler.pipeline import compile_graph, run
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import judge

RNG = np.random.default_rng(0)


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


def passes(reset: str, graph: Graph) -> list[Pass]:
    """Every pass, told to do something."""
    x = sequence(graph, 4, 2)

    def rates(measured):
        return {name: fired.mean(axis=(0, 1)) for name, fired in Reference(measured).run(x).spikes.items()}

    told = {
        "restore-reset": RestoreReset(reset, memories=reset),
        "sparsify-top-k": SparsifyTopK(keys=0.5, values=0.5),
        "scalar-decay": ScalarDecay(0.25),
        "fold-threshold": FoldThreshold(0.5),
    }
    wanted = rates(graph)
    if wanted:
        told["calibrate"] = Calibrate({name: rate / 2 for name, rate in wanted.items()}, rates, rounds=1)
    left_out = {"quantize"} | (set() if wanted else {"calibrate"})
    return [told.get(name) or kind() for name, kind in PASSES.items() if name not in left_out]


@settings(deadline=None, max_examples=30)
@given(
    graph=st.one_of(graphs(), spatial_graphs(), memory_graphs()),
    reset=st.sampled_from(RESETS),
)
def test_a_pass_leaves_the_graph_that_it_was_given_alone(graph, reset):
    digest, edges, nodes = graph.digest, graph.edges, dict(graph.nodes)
    for step in passes(reset, graph):
        step.rewrite(graph)
    assert dict(graph.nodes) == nodes
    assert Graph(graph.nodes, edges).digest == digest


@settings(deadline=None, max_examples=60)
@given(
    graph=st.one_of(graphs(), spatial_graphs(), memory_graphs()),
    wanted=st.sampled_from([1.0, 0.25, 3.0]),
    seed=st.integers(0, 99),
)
def test_compiled_for_nothing_but_another_form_a_random_model_stays_the_same(graph, wanted, seed):
    after = compile_graph(graph, threshold=wanted, scalar_decay=True)
    assert all(node.dialect is not Dialect.PARALLEL for node in after.nodes.values())
    assert_same(graph, after, sequence(graph, 12, 2, seed), tolerance=1e-9)


@settings(deadline=None, max_examples=60)
@given(
    graph=st.one_of(graphs(), spatial_graphs(), memory_graphs()),
    step=st.sampled_from(
        [Unroll(), FoldNorm(), FuseLinear(), ScalarDecay(), FoldThreshold(0.3), PruneDead()]
    ),
)
def test_a_pass_leaves_nothing_for_itself(graph, step):
    once = run(graph, [Unroll(), step])
    assert run(once, [step]) == once


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
    lines = run(graph, [PruneDead(), RestoreReset("zero")], judge=judge(sequence(graph, 30, 4))).history
    assert len(lines) == 3
    assert lines[-1].startswith("restore-reset: ")
    assert "F1 of spikes 0." in lines[-1]


def test_what_compiling_does_to_a_trained_model_stands_behind_it():
    graph = chain(
        input=Input((5,)), fc=linear(RNG, 5, 8), bn=BatchNorm(*RNG.uniform(0.5, 1.5, (4, 8))),
        lif=LIFScan(beta=np.float64(0.9), threshold=np.float64(0.5)), half=Scale(np.float64(0.5)),
        out=linear(RNG, 8, 3), output=Output(),
    )  # fmt: skip
    after = compile_graph(graph, threshold=1.0)
    assert list(after.nodes) == ["input", "fc", "lif", "out", "output"]
    assert_same(graph, after, sequence(graph, 63, 3), tolerance=1e-12)


def test_every_pass_has_a_name_and_a_line_on_what_it_does():
    for name, kind in PASSES.items():
        assert kind.name == name
        first, *contract = (kind.__doc__ or "").strip().split("\n")
        assert first.endswith(".")
        for word in ("Given", "result", "Preserves:"):
            assert word.lower() in "\n".join(contract).lower()


def test_passes_stand_in_the_order_in_which_they_run():
    order = list(PASSES)
    assert order.index("drop-surrogate") < order.index("unroll") < order.index("restore-reset")
    assert order.index("sparsify-top-k") < order.index("calibrate") < order.index("fold-norm")
    assert order.index("fold-norm") < order.index("fuse-linear") < order.index("fold-threshold")
    assert order[-2:] == ["prune-dead", "quantize"]
