import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tests.graphs import chain, lif, linear, sequence, two_layers
from tests.integers import integer_network, spikes_for
from unscan.cli import main
from unscan.compare import compare as command
from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.ir import Graph
from unscan.compiler.nodes import Input, Output
from unscan.compiler.passes import FoldThreshold, RestoreReset
from unscan.runtime.agreement import compare
from unscan.runtime.agreement_replay import Side
from unscan.runtime.agreement_runs import (
    Compared,
    compare_graphs,
    compare_sides,
    is_exact,
    read_execution,
    rounding_of,
)
from unscan.runtime.decision import accuracy
from unscan.runtime.executors.reference import Reference
from unscan.runtime.quantisation import EXACT


def ran(graph: Graph, x: np.ndarray, name: str = "") -> Side:
    return Side(Reference(graph).run(x), graph, x, name, exact=True)


def zero(graph: Graph) -> Graph:
    return RestoreReset("zero").rewrite(graph).graph


def fired(found: Compared) -> list[object]:
    """Spikes by layer, and where samples part: what does not depend on the order of sums."""
    layers = [
        (name, each.spikes_a, each.spikes_b, each.both) for name, each in found.agreement.layers.items()
    ]
    return [*layers, *((m.step, m.sample, m.node) for m in found.agreement.partings)]


def three_layers() -> Graph:
    """Two layers as in `two_layers`, by name and shape, then one more, and one of another width."""
    rng = np.random.default_rng(0)
    base = two_layers().nodes
    return chain(
        input=Input((6,)), fc1=base["fc1"], lif1=base["lif1"], fc2=linear(rng, 12, 7), lif2=lif(0.8, 0.6),
        fc3=linear(rng, 7, 5), lif3=lif(0.8, 0.4), fc4=linear(rng, 5, 4), output=Output(),
    )  # fmt: skip


def test_executors_of_one_graph_agree():
    graph = two_layers()
    x = sequence(graph, 63, 5)
    found = compare_graphs(graph, graph, x, using=("reference", "event"))
    assert found.same
    assert found.agreement.total.f1 == 1
    assert found.parted is None
    assert found.explained() is None
    assert found.distances.total.van_rossum == (0.0, 0.0)
    assert (found.rounding.unit, found.rounding.weights) == (2.0**-52, 0.0)
    json.dumps(found.to_json(), allow_nan=False)


def test_two_graphs_are_compared_and_their_first_mismatch_explained():
    graph = two_layers("none")
    x = sequence(graph, 40, 5)
    labels = np.random.default_rng(0).integers(0, 4, 5)
    found = compare_graphs(
        graph, zero(graph), x, labels=labels, decision="mean", tau=4.0, names=("old", "new")
    )
    whole = compare(zero(graph), Reference(graph).run(x), Reference(zero(graph)).run(x), x=x)
    assert found.agreement.layers == whole.layers
    assert not found.same
    outputs = [Reference(each).run(x).outputs for each in (graph, zero(graph))]
    assert found.accuracy == tuple(accuracy(each, labels, "mean") for each in outputs)
    assert found.gap == found.accuracy[1] - found.accuracy[0]
    assert found.decided_alike == np.sum(
        outputs[0].mean(axis=0).argmax(-1) == outputs[1].mean(axis=0).argmax(-1)
    )
    assert found.distances.tau == 4.0
    assert found.distances.total.van_rossum[1] > 0
    assert found.agreement.total.mismatches_per_spike > 0
    explained = found.explained()
    assert explained.cause == "graph"
    assert explained.names == ("old", "new")
    written = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert written["explanation"]["links"][0]["layer"] == explained.links[0].node


def test_parts_join_to_the_whole(monkeypatch):
    import unscan.runtime.batches as module

    graph = two_layers("none")
    x = sequence(graph, 40, 9)
    labels = np.zeros(9, int)
    settings = {"labels": labels, "decision": "last"}
    whole = compare_graphs(graph, zero(graph), x, **settings)
    monkeypatch.setattr(module, "RECORDED_BYTES", 8 * 40 * 70 * 2)
    done = []
    parts = compare_graphs(graph, zero(graph), x, progress=done.append, **settings)
    assert len(done) > 2
    assert done[-1] == 1.0
    assert fired(parts) == fired(whole)
    assert (parts.right, parts.decided_alike) == (whole.right, whole.decided_alike)
    assert parts.distances.to_json()["total"] == pytest.approx(whole.distances.to_json()["total"])
    assert parts.parted[0] == parts.agreement.first
    place = [(each.sample, str(each.origin), each.cause) for each in (parts.explained(), whole.explained())]
    assert place[0] == place[1]


def test_layers_of_one_side_alone_are_named_and_not_compared():
    graph, other = two_layers(), three_layers()
    x = sequence(graph, 30, 3)
    found = compare_graphs(graph, other, x)
    assert list(found.agreement.layers) == ["lif1"]
    assert found.agreement.total.f1 == 1
    assert found.alone == (("lif2",), ("lif2", "lif3"))
    assert not found.same


def test_membranes_are_compared_in_the_units_of_b():
    graph = two_layers()
    folded = FoldThreshold(2.0).rewrite(graph).graph
    x = sequence(graph, 40, 3)
    found = compare_graphs(graph, folded, x)
    assert found.agreement.total.f1 == 1
    assert found.agreement.total.membrane_relative < 1e-6
    back = compare_graphs(folded, graph, x)
    assert back.agreement.total.membrane_relative < 1e-6


def test_whole_numbers_are_granted_nothing():
    graph = integer_network(1, stress=False)
    x = spikes_for(graph, 30, 3)
    found = compare_graphs(graph, graph, x, using=("reference", "event"))
    assert found.rounding == EXACT
    assert found.agreement.total.f1 == 1
    assert found.agreement.output_absolute == 0
    run = Reference(graph).run(x)
    off = replace(run, outputs=run.outputs + 1e-9)
    assert compare_sides(Side(run, graph, x), Side(off, graph, x)).output_off


def test_what_is_granted_follows_from_the_number_formats():
    single, double = two_layers(dtype=np.float32), two_layers()
    x = sequence(double, 5, 1)
    assert is_exact(single, "reference")
    assert not is_exact(single, "event")
    assert is_exact(double, "event")
    exact = ran(double, x)
    assert rounding_of(exact, replace(exact, exact=False)).unit == 2.0**-23
    assert rounding_of(exact, ran(zero(two_layers("none")), x)).weights == 2.0**-24
    assert rounding_of(exact, ran(double, x)).weights == 0.0


def test_what_does_not_belong_together_is_refused():
    graph = two_layers()
    x = sequence(graph, 10, 2)
    side = ran(graph, x, "one")
    with pytest.raises(InvalidInput, match=r"outputs of one have the shape \(10, 2, 4\)"):
        compare_sides(side, ran(graph, x[:9], "two"))
    renamed = replace(side.execution, spikes={"x": side.execution.spikes["lif1"]})
    with pytest.raises(
        InvalidInput, match="No layer was recorded on both sides: one has lif1, lif2, two has x"
    ):
        compare_sides(side, Side(renamed, name="two"))
    with pytest.raises(InvalidInput, match="labels of shape"):
        compare_graphs(graph, graph, x, labels=np.zeros(3), decision="last")
    with pytest.raises(InvalidInput, match="the decision None"):
        compare_graphs(graph, graph, x, labels=np.zeros(2))
    with pytest.raises(InvalidInput, match="no executor 'gpu'"):
        compare_graphs(graph, graph, x, using=("gpu", "event"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two graphs, an input, and what `unscan simulate` wrote of both."""
    graph = two_layers("none")
    graph.save(tmp_path / "a.unscan")
    zero(graph).save(tmp_path / "b.unscan")
    np.save(tmp_path / "x.npy", sequence(graph, 30, 6))
    for name in "ab":
        wanted = ["simulate", f"{tmp_path}/{name}.unscan", "--input", f"{tmp_path}/x.npy"]
        made = CliRunner().invoke(main, [*wanted, "--output", f"{tmp_path}/{name}.npz"])
        assert made.exit_code == 0, made.output
    return tmp_path


def test_files_are_compared_as_the_runs_are_that_wrote_them(files):
    x = np.load(files / "x.npy")
    graphs = [two_layers("none"), zero(two_layers("none"))]
    wanted = compare_graphs(*graphs, x, using=("event", "event"))
    sides = [Side(read_execution(files / f"{name}.npz")) for name in "ab"]
    found = compare_sides(*sides)
    for name, layer in wanted.agreement.layers.items():
        assert found.agreement.layers[name].f1 == layer.f1
    assert found.agreement.first.step == min(m.step for m in wanted.agreement.partings)
    assert found.explained() is None
    known = [replace(side, graph=graph, x=x) for side, graph in zip(sides, graphs, strict=True)]
    assert compare_sides(*known).explained().cause == "graph"
    json.dumps(found.to_json(), allow_nan=False)


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    with pytest.raises(InvalidInput, match="There is no file"):
        read_execution(path)
    path.write_bytes(b"nothing")
    with pytest.raises(DamagedFile, match="not a complete .npz file"):
        read_execution(path)
    np.savez(path, spikes=np.zeros(3))
    with pytest.raises(DamagedFile, match="not a complete .npz file"):
        read_execution(path)
    np.savez(path, outputs=np.zeros((3, 1, 2)), **{"spikes/a": np.zeros((2, 1, 4), bool)})
    with pytest.raises(DamagedFile, match=r"spikes of 'a' in the shape \(2, 1, 4\)"):
        read_execution(path)
    np.save(tmp_path / "one.npy", np.zeros((3, 1, 2)))
    with pytest.raises(DamagedFile, match="not a complete .npz file"):
        read_execution(tmp_path / "one.npy")


def invoked(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(command, [str(word) for word in words])
    if isinstance(done.exception, InvalidInput):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.output
    return done.exit_code, done.output


def test_the_command_runs_graphs_and_reads_files(files):
    given = ["--input", files / "x.npy"]
    a, b = files / "a.unscan", files / "b.unscan"
    code, said = invoked(a, a, *given, "--executors", "reference,event")
    assert code == 0
    assert "They fire the same spikes." in said
    code, said = invoked(a, b, *given, "--json", files / "found.json", "--events", 2, "--tau", 3)
    assert code == 1
    assert "Mismatch at sample" in said
    assert "tau 3 steps" in said
    written = json.loads((files / "found.json").read_text())
    assert written["same"] is False
    assert written["explanation"]["cause"] == "graph"
    code, said = invoked(files / "a.npz", a, *given)
    assert code == 0
    code, said = invoked(files / "a.npz", files / "b.npz")
    assert code == 1
    assert "What led there is not known" in said
    code, said = invoked(files / "a.npz", files / "b.npz", "--graph", a, *given)
    assert code == 1
    assert "does not compute what its graph says" in " ".join(said.split())


def test_the_command_says_what_it_needs(files):
    with pytest.raises(InvalidInput, match="with --graph"):
        invoked(files / "a.npz", files / "b.npz", "--input", files / "x.npy")
    with pytest.raises(InvalidInput, match="how a model is read, dt, and two .npz files"):
        invoked(files / "a.npz", files / "b.npz", "--dt", 0.1)
    with pytest.raises(InvalidInput, match="neither .* is one; leave it out"):
        invoked(files / "a.unscan", files / "b.unscan", "--graph", files / "a.unscan")
    with pytest.raises(InvalidInput, match="name one for both sides, or two"):
        invoked(files / "a.unscan", files / "b.unscan", "--executors", "a,b,c")
