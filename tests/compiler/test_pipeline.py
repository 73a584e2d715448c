"""The passes that options ask for, in which order, and what is said of each that runs."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from tests.graphs import chain, sequence, two_layers
from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.ir import Graph
from unscan.compiler.nodes import BatchNorm, Input, LIFConvolution, Linear, Output
from unscan.compiler.options import parse_top_k
from unscan.compiler.passes import PASSES, Pass, Quantize, Rewrite
from unscan.compiler.passes.sparsify_top_k import Kept, SparsifyTopK
from unscan.compiler.pipeline import Stage, compile_graph, passes_for, run
from unscan.runtime.agreement import in_units_of
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import compile_on, judge, ranges, rates


def names(**options):
    return [step.name for step in passes_for(**options)]


ALWAYS = ["drop-surrogate", "unroll", "fold-norm", "fuse-linear", "prune-dead"]


def test_without_options_only_what_keeps_the_model_runs():
    assert names() == ALWAYS


def test_every_option_adds_its_pass_in_the_order_of_the_table():
    whole = Quantize("int8", lambda graph: {})
    asked = names(reset="zero", top_k=2, scalar_decay=True, threshold=1.0, quantize=whole)
    assert asked == [name for name in PASSES if name != "calibrate"]
    assert names(memory_reset="zero") == [*ALWAYS[:2], "restore-reset", *ALWAYS[2:]]


def test_named_passes_run_in_the_order_in_which_they_are_named():
    assert names(passes=["prune-dead", "unroll"]) == ["prune-dead", "unroll"]
    assert names(passes=["scalar-decay"]) == ["scalar-decay"]
    assert names(passes=["restore-reset", "unroll"], reset="zero") == ["restore-reset", "unroll"]


WRONG = {
    "unknown": ({"passes": ["fold"]}, "no pass 'fold'; choose from drop-surrogate"),
    "no option": ({"passes": ["fold-threshold"]}, "give a threshold, too"),
    "no pass": ({"passes": ["unroll"], "scalar_decay": True}, "asks for the pass scalar-decay"),
    "phase alone": ({"phase": "next"}, "name the reset, too"),
}


@pytest.mark.parametrize("case", WRONG)
def test_options_that_contradict_each_other_are_refused(case):
    options, said = WRONG[case]
    with pytest.raises(InvalidInput, match=said):
        passes_for(**options)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (4, SparsifyTopK(4, 4)),
        (0.25, SparsifyTopK(0.25, 0.25)),
        ("4", SparsifyTopK(4, 4)),
        ("1.0", SparsifyTopK(1.0, 1.0)),
        ("k=4, v=0.5", SparsifyTopK(4, 0.5)),
        ("v=8", SparsifyTopK(None, 8)),
        (["2", "gen2_1:k=4"], SparsifyTopK(2, 2, {"gen2_1": Kept(4, None)})),
        (("a.b:3",), SparsifyTopK(None, None, {"a.b": Kept(3, 3)})),
    ],
)
def test_top_k_is_written_in_one_way(text, wanted):
    assert parse_top_k(text) == wanted


@pytest.mark.parametrize("text", ["", "k", "k=", "x=3", "k=1,k=2", ":k=3", ["1", "2"], "k=0", "1.5"])
def test_other_top_k_is_refused(text):
    with pytest.raises(InvalidInput, match=r"top-k|second one|no layer"):
        parse_top_k(text)


def normed() -> Graph:
    rng = np.random.default_rng(0)
    return chain(
        input=Input((5,)),
        fc=Linear(rng.normal(size=(7, 5)).astype(np.float32)),
        norm=BatchNorm(*rng.uniform(0.5, 1.5, (4, 7)).astype(np.float32)),
        lif=LIFConvolution(beta=np.float32(0.9), threshold=np.float32(0.8), reset="none"),
        output=Output(),
    )


def stages_of(graph: Graph, **options) -> dict[str, Stage]:
    found: list[Stage] = []
    compile_graph(graph, judge=judge(sequence(graph, 40, 8)), watch=found.append, **options)
    return {stage.step.name: stage for stage in found}


def test_every_stage_is_timed_and_says_what_it_changed():
    stages = stages_of(normed(), reset="subtract", threshold=1.0)
    assert list(stages) == [step.name for step in passes_for(reset="subtract", threshold=1.0)]
    assert all(stage.seconds >= 0 for stage in stages.values())
    assert stages["drop-surrogate"].change is None
    assert stages["unroll"].change.verdict == "exact"
    assert stages["restore-reset"].change.verdict == "changed"
    assert stages["restore-reset"].change.apart > 0
    assert stages["fold-norm"].change.verdict == "within rounding"
    assert 0 < stages["fold-norm"].change.membranes < 1e-5
    assert stages["fold-threshold"].change.verdict == "within rounding"
    assert len(stages["fold-norm"].before.nodes) == len(stages["fold-norm"].after.nodes) + 1


def test_what_a_pass_changed_stands_in_the_history():
    graph = normed()
    history = compile_graph(graph, reset="zero", judge=judge(sequence(graph, 40, 4))).history
    assert "unroll: changes nothing on the samples" in history
    assert any(line.startswith("restore-reset: changed on the samples: F1 of spikes 0.") for line in history)


def test_calibration_aims_at_the_rates_of_training():
    graph = two_layers("none")
    x = sequence(graph, 60, 8)
    measure = rates(x)
    trained, plain = measure(graph), measure(compile_graph(graph, reset="subtract"))
    calibrated = measure(compile_graph(graph, reset="subtract", calibrate=measure))
    for name in ("lif1", "lif2"):
        assert (
            np.abs(calibrated[name] - trained[name]).mean() < 0.1 * np.abs(plain[name] - trained[name]).mean()
        )


def test_membranes_are_compared_in_units_of_their_threshold():
    graph = two_layers()
    folded = compile_graph(graph, threshold=1.0)
    x = sequence(graph, 20, 2)
    scaled = in_units_of(folded, graph, Reference(graph).run(x)).membranes["lif1"]
    np.testing.assert_allclose(scaled, Reference(folded).run(x).membranes["lif1"], rtol=1e-12, atol=1e-13)


@dataclass(frozen=True)
class Breaking(Pass):
    """Do nothing, or what is wrong.

    Given: iterative nodes. Result: none that is valid. Preserves: nothing.
    """

    name: ClassVar[str] = "breaking"
    how: str

    def rewrite(self, graph: Graph) -> Rewrite:
        if self.how == "raise":
            raise Unsupported("lif1 cannot be broken.")
        return Rewrite(graph.without(["output"]), [])


def test_a_pass_that_fails_is_named_with_those_before_it():
    steps = passes_for()
    with pytest.raises(
        Unsupported, match=r"In the pass breaking \(after drop-surrogate, unroll.*lif1 cannot"
    ):
        run(two_layers(), [*steps, Breaking("raise")])
    with pytest.raises(InvalidGraph, match="What the pass breaking made.*0 Output"):
        run(two_layers(), [Breaking("lose")])
    with pytest.raises(InvalidGraph, match=r"What the pass fold-norm got is not valid.*run unroll"):
        compile_graph(normed(), passes=["fold-norm"])


def test_whole_numbers_come_last_and_by_samples():
    graph, x = two_layers(), sequence(two_layers(), 20, 3)
    made = compile_on(graph, samples=x, quantize="loihi2")
    assert made == compile_graph(graph, quantize="loihi2", ranges=ranges(x))
    assert made.integer
    assert made.history[-1].startswith("quantize: readout")
    assert compile_on(graph, samples=x) == compile_graph(graph)


def test_a_profile_is_named_with_its_pass_and_its_samples():
    graph, x = two_layers(), sequence(two_layers(), 20, 3)
    with pytest.raises(InvalidInput, match="hand in ranges, or samples to unscan.compile"):
        compile_on(graph, quantize="int8")
    with pytest.raises(InvalidInput, match="asks for the pass quantize"):
        compile_on(graph, samples=x, quantize="int8", passes=["unroll"])
    with pytest.raises(InvalidInput, match="a profile of whole numbers"):
        passes_for(passes=["quantize"])
    assert compile_on(graph, samples=x, quantize="int8", passes=["unroll", "quantize"]).integer
