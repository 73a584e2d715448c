import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from click.testing import CliRunner

from tests.graphs import chain, linear, sequence
from unscan.compare import bisect as command
from unscan.compiler import passes as known
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import BatchNorm, Input, LIConvolution, LIFConvolution, Output
from unscan.compiler.passes import Pass, Rewrite
from unscan.runtime.bisect import bisect


def trained(kind: Kind = Kind.REAL) -> Graph:
    """Input 6 -> Linear, BatchNorm -> LIF 12 -> Linear -> LIF 9 -> Linear -> LI 4, as trained."""
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.5, 2, (4, 12))
    return chain(
        input=Input((6,), kind),
        fc1=linear(rng, 6, 12),
        norm=BatchNorm(*spread),
        lif1=LIFConvolution(beta=np.float64(0.8), threshold=np.float64(0.7), reset="none"),
        fc2=linear(rng, 12, 9),
        lif2=LIFConvolution(beta=np.float64(0.7), threshold=np.float64(0.5), reset="none"),
        fc3=linear(rng, 9, 4, bias=False),
        readout=LIConvolution(beta=np.float64(0.9)),
        output=Output(),
    )


@dataclass(frozen=True)
class Slip(Pass):
    """Make one neuron of the second layer fire earlier. It says that it preserves the model, and does not."""

    name = "slip"

    def rewrite(self, graph: Graph) -> Rewrite:
        threshold = np.full(9, 0.5)
        threshold[4] = 0.3
        return Rewrite(
            graph.with_nodes({"lif2": replace(graph.nodes["lif2"], threshold=threshold)}), ["slipped"]
        )


def slipping(monkeypatch) -> None:
    """Let the compilation have one more pass, after unroll."""
    from unscan.compiler import pipeline

    offered = pipeline.passes_for

    def passes_for(**options):
        made = offered(**options)
        return [*made[:2], Slip(), *made[2:]]

    monkeypatch.setattr(pipeline, "passes_for", passes_for)


def test_passes_that_preserve_the_model_change_nothing():
    x = sequence(trained(), 63, 4)
    found = bisect(trained(), x, threshold=1.0, using="event")
    assert {"unroll", "fold-norm", "fold-threshold"} <= {step.name for step in found.steps}
    assert {"drop-surrogate", "prune-dead"} <= set(found.idle)
    assert found.changed == found.faults == ()
    assert all(step.found.agreement.total.f1 == step.since.agreement.total.f1 == 1 for step in found.steps)
    assert found.to_json()["first_that_changed"] is None


def test_a_pass_that_changes_on_purpose_is_said_to():
    x = sequence(trained(), 40, 4)
    found = bisect(trained(), x, reset="zero")
    assert [step.name for step in found.changed] == ["restore-reset"]
    assert found.faults == ()
    (step,) = found.changed
    assert step.on_purpose
    assert step.found.agreement.total.f1 < 1
    assert step.found.explained().cause == "graph"
    assert any("reset 'none' -> 'zero'" in reason for reason in step.found.explained().reasons)
    later = found.steps[-1]
    assert later.since.agreement.total.f1 < 1
    assert later.found.agreement.total.f1 == 1
    json.dumps(found.to_json(), allow_nan=False)


def test_the_pass_that_slipped_is_found_and_explained(monkeypatch):
    slipping(monkeypatch)
    x = sequence(trained(), 40, 4)
    found = bisect(trained(), x, reset="zero", using="event")
    assert [step.name for step in found.changed] == ["slip", "restore-reset"]
    assert [step.name for step in found.faults] == ["slip"]
    explained = found.faults[0].found.explained()
    assert explained.names == ("after unroll", "after slip")
    assert (explained.origin.node, explained.origin.neuron, explained.cause) == ("lif2", (4,), "graph")
    assert (explained.origin.a.fired, explained.origin.b.fired) == (False, True)
    document = found.to_json()
    assert document["not_on_purpose"] == ["slip"]
    assert document["first_that_changed"] == "slip"


def test_whole_numbers_are_one_more_pass():
    x = sequence(trained(Kind.SPIKE), 40, 4).astype(float)
    found = bisect(trained(Kind.SPIKE), x, quantize="loihi2")
    assert found.steps[-1].name == "quantize"
    assert found.steps[-1].on_purpose
    assert found.graph.integer
    if found.steps[-1].changed:
        assert found.steps[-1].found.explained().cause == "graph"


def test_parts_are_the_whole(monkeypatch):
    import unscan.runtime.batches as batches

    x = sequence(trained(), 30, 8)
    whole = bisect(trained(), x, reset="zero")
    monkeypatch.setattr(batches, "RECORDED_BYTES", 8 * 30 * 80 * 3)
    shares = []
    parts = bisect(trained(), x, reset="zero", progress=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    for one, other in zip(whole.steps, parts.steps, strict=True):
        for left, right in ((one.found, other.found), (one.since, other.since)):
            spikes = [[(m.step, m.sample, m.node) for m in each.agreement.partings] for each in (left, right)]
            assert spikes[0] == spikes[1]
            assert left.agreement.total.both == right.agreement.total.both
        assert one.verdict == other.verdict


def test_options_are_those_of_compile():
    x = sequence(trained(), 5, 1)
    with pytest.raises(InvalidInput, match="There is no pass 'nothing'"):
        bisect(trained(), x, passes=["nothing"])
    with pytest.raises(InvalidInput, match="There is no pass to look at"):
        bisect(trained(), x, passes=[])
    with pytest.raises(InvalidInput, match="no executor 'gpu'"):
        bisect(trained(), x, using="gpu")
    seen = []
    bisect(trained(), x, watch=seen.append)
    assert [stage.step.name for stage in seen][:2] == ["drop-surrogate", "unroll"]
    assert set(known.PASSES) >= {stage.step.name for stage in seen}


def test_the_command_names_the_pass(tmp_path, monkeypatch):
    graph = trained()
    graph.save(tmp_path / "trained.unscan")
    np.save(tmp_path / "x.npy", sequence(graph, 40, 4))
    words = [f"{tmp_path}/trained.unscan", "--input", f"{tmp_path}/x.npy", "--reset", "zero"]
    done = CliRunner().invoke(command, [*words, "--calibrate", "--json", f"{tmp_path}/found.json"])
    assert done.exit_code == 0, done.output
    assert "First to change it: restore-reset (on purpose)" in done.output
    assert "restore-reset changes what the model does, on purpose." in done.output
    assert json.loads((tmp_path / "found.json").read_text())["changed"][0] == "restore-reset"
    slipping(monkeypatch)
    done = CliRunner().invoke(command, [*words, "--executor", "event"])
    assert done.exit_code == 1, done.output
    assert "slip changes what the model does, and is not to." in done.output
    assert "First to change it: slip" in done.output
