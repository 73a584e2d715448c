"""Whole numbers against the model they are of: every executor bit for bit, and what rounding cost, in figures."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from tests.graphs import sequence, two_layers
from unscan.cli import main
from unscan.compiler.errors import InvalidInput
from unscan.compiler.frontends.trace import trace
from unscan.compiler.ir import Kind
from unscan.compiler.passes import Quantize
from unscan.compiler.pipeline import compile_graph, run
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import compile_on, judge, ranges
from unscan.runtime.quantisation import cost_of_rounding, decoded, states_apart
from unscan.runtime.verify import verify
from unscan.trainer import AssociativeLeaky

X = sequence(two_layers(kind=Kind.SPIKE), 40, 6)
MODEL = two_layers(kind=Kind.SPIKE).annotate(meta={"decision": "mean"})
LABELS = Reference(MODEL).run(X).outputs.mean(axis=0).argmax(axis=-1)


def whole(profile="loihi2", headroom=1.25):
    return run(MODEL, [Quantize(profile, ranges(X), headroom=headroom)])


def test_every_executor_has_to_equal_the_reference_and_the_cost_is_told():
    found = verify(MODEL, whole(), X, ["reference", "event"], labels=LABELS)
    assert found.holds
    assert [(row.executor, row.precision) for row in found.comparisons] == [
        ("reference", "int"),
        ("event", "int"),
    ]
    cost = found.rounding
    assert cost.accuracy[0] == 1.0
    assert cost.gap == cost.accuracy[1] - 1.0
    assert list(cost.layers) == ["lif1", "lif2"]
    document = json.loads(json.dumps(found.to_json()))
    assert document["rounding"]["profile"] == "loihi2"
    assert set(document["rounding"]["layers"]["lif1"]) == {
        "f1", "neurons", "saturated", "rate_model", "rate", "dead_model", "dead", "always_firing_model",
        "always_firing",
    }  # fmt: skip
    assert document["comparisons"][1]["precision"] == "int"


def test_a_module_is_heard_in_real_numbers_its_memories_too():
    torch.manual_seed(0)
    memory = AssociativeLeaky(in_dim=6, d_value=5, d_key=4, threshold=0.3)
    model = nn.Sequential(nn.Linear(4, 6), memory, nn.Linear(25, 3)).double()
    x = np.random.default_rng(0).normal(0, 2, (40, 5, 4))
    graph = compile_on(trace(model, x[:1, :1]), samples=x, quantize="int16")
    found = verify(model, graph, x, ["event"])
    assert found.holds
    (layer,) = found.rounding.layers.values()
    assert layer.rates[0] > 0.02
    assert layer.agreement.f1 > 0.99


def test_what_it_cost_is_the_same_in_parts_as_in_one(monkeypatch):
    graph = whole()
    at_once = verify(MODEL, graph, X, ["reference"], labels=LABELS).rounding
    monkeypatch.setattr("unscan.runtime.batches.RECORDED_BYTES", 2**16)
    parts = verify(MODEL, graph, X, ["reference"], labels=LABELS).rounding
    assert parts.to_json() == at_once.to_json()


def test_layers_are_counted_on_both_sides():
    graph = whole()
    a, b = Reference(MODEL).run(X), Reference(graph).run(X)
    cost = cost_of_rounding(graph, a, b)
    for name, layer in cost.layers.items():
        sides = [execution.spikes[name] for execution in (a, b)]
        assert layer.rates == pytest.approx([side.mean() for side in sides])
        assert layer.dead == tuple(int((~side.any(axis=(0, 1))).sum()) for side in sides)
        assert layer.always == tuple(int(side.all(axis=(0, 1)).sum()) for side in sides)
        assert layer.agreement.both == np.count_nonzero(sides[0] & sides[1])
    assert cost.output == pytest.approx(np.abs(a.outputs - decoded(graph, b.outputs)).max())


@pytest.mark.parametrize("field", ["threshold", "beta", "bias"])
def test_an_executor_that_computes_another_number_is_caught(monkeypatch, field):
    graph = whole()
    neuron = graph.nodes["lif2"]
    other = graph.with_nodes({"lif2": replace(neuron, **{field: getattr(neuron, field) + np.int32(64)})})
    monkeypatch.setattr("unscan.runtime.verify.executor", lambda name, given: Reference(other))
    found = verify(MODEL, graph, X, ["event"])
    assert not found.holds
    assert found.comparisons[0].states


def test_a_state_that_alone_differs_is_caught():
    a = Reference(whole()).run(X)
    b = replace(a, state={**a.state, "lif1.u": a.state["lif1.u"] + 1})
    assert states_apart(a, a) == ()
    assert states_apart(a, b) == ("lif1.u",)


def test_numbers_beyond_what_was_measured_saturate_and_are_counted():
    graph = run(MODEL, [Quantize("loihi2", ranges(X[:2]), headroom=1.0)])
    loud = np.ones_like(X)
    made = Reference(graph).run(loud)
    counted = sum(found.get("saturated", 0) for found in made.counts.tallies.values())
    cost = cost_of_rounding(graph, Reference(MODEL).run(loud), made)
    shown = sum(layer.saturated for layer in cost.layers.values()) + sum(cost.saturated.values())
    assert counted == shown


def test_a_judge_says_what_rounding_changed():
    made = run(MODEL, [Quantize("int16", ranges(X))], judge=judge(X))
    assert any("changed on the samples: F1 of spikes" in line for line in made.history)


def test_ranges_are_those_of_every_signal_membrane_and_state():
    found = ranges(X)(MODEL)
    seen = Reference(MODEL).run(X)
    assert set(found) == {*MODEL.nodes, "lif1.membrane", "lif2.membrane", "readout.membrane", *MODEL.states}
    np.testing.assert_array_equal(found["lif1.membrane"].high, seen.membranes["lif1"].max(axis=(0, 1)))
    np.testing.assert_array_equal(found["output"].low, seen.outputs.min(axis=(0, 1)))


def call(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def files(tmp_path):
    MODEL.save(tmp_path / "model.unscan")
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "y.npy", LABELS)
    made = call(
        "compile", tmp_path / "model.unscan", "--quantize", "int8", "--input", tmp_path / "x.npy",
        "-o", tmp_path / "q.unscan",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    return tmp_path


def test_the_command_line_compiles_verifies_and_simulates_whole_numbers(files):
    model, made, x = files / "model.unscan", files / "q.unscan", ("--input", files / "x.npy")
    checked = call(
        "verify", model, made, *x, "--labels", files / "y.npy", "--against", "reference,event", "--max-gap", 100,
        "--json", files / "v.json",
    )  # fmt: skip
    assert checked.exit_code == 0, checked.output
    assert "What rounding cost, profile int8" in checked.output
    assert "bit for bit" in checked.output
    assert json.loads((files / "v.json").read_text())["rounding"]["samples"] == 6
    shown = call("simulate", made, *x, "--json", files / "s.json")
    assert shown.exit_code == 0, shown.output
    assert "saturated" in json.loads((files / "s.json").read_text())


def test_a_gap_larger_than_what_is_allowed_gives_exit_code_1(files):
    model = files / "model.unscan"
    graph = whole("int8")
    flipped = graph.nodes["fc3"]
    graph.with_nodes({"fc3": replace(flipped, weight=-flipped.weight)}).save(files / "worse.unscan")
    arguments = ("--input", files / "x.npy", "--labels", files / "y.npy", "--against", "reference")
    worse = call("verify", model, files / "worse.unscan", *arguments, "--max-gap", 1)
    assert worse.exit_code == 1, worse.output
    assert "points, more than 1" in worse.output
    assert call("verify", model, files / "worse.unscan", *arguments).exit_code == 0
    refused = call("verify", model, model, *arguments, "--max-gap", 1)
    assert refused.exit_code == 2
    assert "computes with real ones" in refused.output


def test_a_profile_without_samples_is_refused():
    with pytest.raises(InvalidInput, match="need samples"):
        compile_graph(MODEL, quantize="int8")
