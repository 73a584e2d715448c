"""What a report shows is what the executors did: agreement, decisions, rates, counts, over parts joined."""

import numpy as np
import pytest
from torch import nn

from tests.graphs import sequence, two_layers
from unscan.compiler.errors import InvalidInput, MissingDependency
from unscan.compiler.ir import Kind
from unscan.compiler.passes import Quantize
from unscan.compiler.pipeline import run
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import compile_on, ranges
from unscan.runtime.report import evidence as module
from unscan.runtime.report.evidence import MODEL, gather, within
from unscan.runtime.report.traces import choose, figure, named

GRAPH = two_layers(kind=Kind.SPIKE).annotate(meta={"decision": "mean"})
X = sequence(GRAPH, 63, 5)
TRUTH = Reference(GRAPH).run(X)
LABELS = TRUTH.outputs.mean(axis=0).argmax(axis=-1)


def test_every_execution_stands_against_each():
    found = gather("g", GRAPH, X, ["reference", "event", "onnx"], labels=LABELS)
    assert found.runs == ("reference", "event", "onnx")
    assert set(found.pairs) == {("reference", "event"), ("reference", "onnx"), ("event", "onnx")}
    assert found.between("onnx", "event") is found.pairs["event", "onnx"]
    assert found.between("event", "event") is None
    assert all(agreement.total.f1 == 1 for agreement in found.pairs.values())
    assert found.right == dict.fromkeys(found.runs, 5)
    assert found.accuracy("event") == 1
    for name, spikes in TRUTH.spikes.items():
        assert found.rate("event", name) == pytest.approx(spikes.mean())
    assert found.counts.total.spikes == sum(int(s.sum()) for s in TRUTH.spikes.values())
    assert (found.trained, found.deployed, found.other) == (False, "event", "event")
    assert found.rounding is None


def test_parts_are_joined_to_the_same(monkeypatch):
    whole = gather("g", GRAPH, X, ["reference", "event"], model=GRAPH, labels=LABELS)
    monkeypatch.setattr(module, "batches", lambda *_: [slice(0, 2), slice(2, 3), slice(3, 5)])
    told = []
    parts = gather(
        "g", GRAPH, X, ["reference", "event"], model=GRAPH, labels=LABELS,
        progress=lambda now, share: told.append((share, now)),
    )  # fmt: skip
    assert told == sorted(told, key=lambda it: it[0])
    assert {now for _, now in told} == {MODEL, "reference", "event"}
    assert 0 <= told[0][0] <= told[-1][0] < 1
    assert parts.samples == whole.samples == 5
    assert parts.right == whole.right
    assert parts.alike == whole.alike
    assert parts.counts.total == whole.counts.total
    for pair, agreement in whole.pairs.items():
        assert parts.pairs[pair].total == agreement.total
        assert parts.pairs[pair].samples == 5
    for run_ in whole.runs:
        for layer in whole.fired[run_]:
            np.testing.assert_array_equal(parts.fired[run_][layer], whole.fired[run_][layer])


def test_another_reset_is_another_model_and_parts_where_it_resets():
    other = compile_on(two_layers(kind=Kind.SPIKE), reset="none").annotate(meta={"decision": "mean"})
    found = gather("g", other, X, ["reference", "event"], model=GRAPH, labels=LABELS)
    assert found.runs == (MODEL, "reference", "event")
    assert found.between(MODEL, "event").total.f1 < 1
    assert found.between("reference", "event").total.f1 == 1
    first = found.between(MODEL, "event").first
    chosen = choose(found, [], [other])
    assert (first.node, first.neuron, first.step) in [(c.node, c.neuron, c.step) for c in chosen]
    for each in chosen:
        drawn = figure(found, each)
        assert "here the executions part" in drawn.caption or "fires most" in drawn.caption
        assert "threshold" in drawn.svg


def test_whole_numbers_stand_against_their_model():
    graph = run(GRAPH, [Quantize("loihi2", ranges(X))])
    found = gather("g", graph, X, ["reference", "event"], model=GRAPH, labels=LABELS)
    assert found.rounding.samples == 5
    assert found.between(MODEL, "event").total.f1 == found.rounding.total.f1
    assert found.between("reference", "event").total.mismatches == 0
    assert not found.between(MODEL, "event").partings
    with pytest.raises(InvalidInput, match="by the module's own graph"):
        gather("g", graph, X, ["reference"], model=nn.Identity())


def test_what_cannot_run_is_listed_with_its_reason(monkeypatch):
    ask = module.executor

    def without_onnx(name, graph):
        if name == "onnx":
            raise MissingDependency("onnxruntime is not here")
        return ask(name, graph)

    monkeypatch.setattr(module, "executor", without_onnx)
    found = gather("g", GRAPH, X, ["event", "onnx"])
    assert found.runs == ("event",)
    assert found.missing == {"onnx": "onnxruntime is not here"}
    with pytest.raises(InvalidInput, match="No executor can run g.*onnxruntime is not here"):
        gather("g", GRAPH, X, ["onnx"])


def test_wrong_input_is_refused():
    with pytest.raises(InvalidInput, match="no executor 'ghost'"):
        gather("g", GRAPH, X, ["ghost"])
    with pytest.raises(InvalidInput, match=r"labels of shape \(3,\) for 5 samples"):
        gather("g", GRAPH, X, ["event"], labels=LABELS[:3])
    with pytest.raises(InvalidInput, match="got an array of shape"):
        gather("g", GRAPH, X[0], ["event"])


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("lif1", "write NODE:NEURON"),
        (":3", "write NODE:NEURON"),
        ("lif1:x", "write NODE:NEURON"),
        ("ghost:0", "those that do are lif1, lif2"),
        ("lif1:99", "counted from 0 in the shape"),
        ("lif1:-1", "counted from 0 in the shape"),
        ("lif1:0,0", "counted from 0 in the shape"),
    ],
)
def test_a_neuron_that_is_not_there_is_refused(asked, said):
    with pytest.raises(InvalidInput, match=said):
        named(asked, [GRAPH])


def test_a_trace_is_of_the_neuron_that_was_asked_for():
    found = gather("g", GRAPH, X, ["reference", "event"])
    (chosen,) = choose(found, ["lif2:3"], [GRAPH])
    assert (chosen.node, chosen.neuron, chosen.sample) == ("lif2", (3,), 0)
    drawn = figure(found, chosen)
    times = int(TRUTH.spikes["lif2"][:, 0, 3].sum())
    assert f"ticks above are spikes, {times} of reference, {times} of event" in drawn.caption


def test_progress_is_told_within_its_share():
    told = []
    within(lambda now, share: told.append((now, share)), 0.5, 0.25)("x", 0.5)
    assert told == [("x", 0.625)]
    within(None, 0.5, 0.25)("x", 0.5)
