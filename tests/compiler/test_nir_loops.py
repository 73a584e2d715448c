"""Loops, subgraphs and what is missing: graphs of NIR files that are no plain chain."""

import nir
import numpy as np
import pytest

from tests.compiler.nir_files import DT, Euler, cuba, full, graph_of, inputs, lif, ours
from unscan.compiler.errors import DamagedFile, InvalidGraph, Unsupported
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Edge, Kind
from unscan.compiler.nodes import LIF, Delay, Scale
from unscan.runtime.executors.reference import Reference


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.nir"


def recurrent_weight(bias=False, seed=1):
    drawn = np.random.default_rng(seed).normal(0, 0.6, (3, 3))
    return nir.Affine(drawn, np.array([0.2, 0.0, -0.1])) if bias else nir.Linear(drawn)


def neuron():
    return lif(tau=full(0.003), r=full(3), v_threshold=np.array([0.9, 1.1, 1.3]))


def read(path, graph, **options):
    nir.write(path, graph)
    return read_nir(path, dt=DT, kind=Kind.SPIKE, **options)


def agree(graph, oracle, steps=(1, 63, 100)):
    for count in steps:
        x = inputs(count, rate=0.5)
        np.testing.assert_allclose(ours(graph, x), oracle().run(x), atol=1e-12)
    assert 0.02 < ours(graph, inputs(100, rate=0.5)).mean() < 0.98


FEEDBACK = [("in", "lif"), ("w", "lif"), ("lif", "w"), ("lif", "out")]


@pytest.mark.parametrize("kind", ["lif", "cuba", "if"])
def test_spikes_come_back_one_step_later(path, kind):
    made = {
        "lif": neuron(),
        "cuba": cuba(w_in=full(4), r=full(10), v_threshold=full(0.9)),
        "if": nir.IF(full(1 / DT), full(1.4), full(0)),
    }[kind]
    file = graph_of({"lif": made, "w": recurrent_weight()}, FEEDBACK)
    graph = read(path, file)
    assert graph.recurrent
    assert next(iter(graph.nodes)) == "in"
    assert graph.nodes["lif.before"].kind is Kind.SPIKE
    assert {Edge("lif", "lif.before"), Edge("lif.before", "w")} <= set(graph.edges)
    listed = graph_of({"w": recurrent_weight(), "lif": made}, FEEDBACK)
    agree(graph, lambda: Euler(listed, back={("lif", "w")}))
    assert (
        "read-nir the edge w -> lif closes a loop and is read one step later, by a delay of what lif sends to w"
        in graph.history
    )


def test_a_recurrent_graph_cut_in_two_equals_one_run(path):
    executor = Reference(read(path, graph_of({"lif": neuron(), "w": recurrent_weight(bias=True)}, FEEDBACK)))
    x = inputs(100)[:, None]
    first = executor.run(x[:41])
    cut = np.concatenate([first.outputs, executor.run(x[41:], first.state).outputs])
    np.testing.assert_array_equal(cut, executor.run(x).outputs)


def test_a_bias_on_the_way_back_acts_from_the_first_step_on(path):
    file = graph_of({"lif": neuron(), "w": recurrent_weight(bias=True)}, FEEDBACK)
    listed = graph_of({"w": recurrent_weight(bias=True), "lif": neuron()}, FEEDBACK)
    agree(read(path, file), lambda: Euler(listed, back={("lif", "w")}))


def test_a_way_back_that_others_share_is_cut_where_it_comes_back(path):
    edges = [("in", "lif"), ("in", "w"), ("lif", "w"), ("w", "lif"), ("lif", "out")]
    file = graph_of({"lif": neuron(), "w": recurrent_weight()}, edges)
    graph = read(path, file)
    assert graph.nodes["w.before"].kind is Kind.REAL
    agree(graph, lambda: Euler(file, back={("w", "lif")}))
    assert "read-nir the edge w -> lif closes a loop and is read one step later" in graph.history


def test_a_loop_over_two_layers(path):
    nodes = {
        "a": neuron(),
        "forth": recurrent_weight(seed=2),
        "b": neuron(),
        "back": recurrent_weight(seed=3),
    }
    edges = [("in", "a"), ("a", "forth"), ("forth", "b"), ("b", "back"), ("back", "a"), ("b", "out")]
    for weight in ("forth", "back"):
        nodes[weight].weight = np.abs(nodes[weight].weight)
    graph = read(path, graph_of(nodes, edges))
    listed = graph_of({name: nodes[name] for name in ("back", "a", "forth", "b")}, edges)
    agree(graph, lambda: Euler(listed, back={("b", "back")}))
    assert [name for name in graph.nodes if isinstance(graph.nodes[name], Delay)] == ["b.before"]


@pytest.mark.parametrize("seed", range(6))
def test_the_order_in_which_a_file_lists_its_parts_means_nothing(path, seed):
    rng = np.random.default_rng(seed)
    nodes = {
        "a": neuron(),
        "forth": nir.Linear(np.abs(recurrent_weight(seed=2).weight)),
        "again": recurrent_weight(bias=True, seed=4),
        "b": neuron(),
        "back": recurrent_weight(bias=True, seed=3),
        "keep": nir.Scale(full(0.5)),
    }
    edges = [
        *(("in", "a"), ("a", "again"), ("again", "a"), ("a", "forth"), ("forth", "b"), ("b", "back")),
        *(("back", "a"), ("forth", "keep"), ("keep", "forth"), ("b", "out")),
    ]
    x = inputs(60, rate=0.5)
    truth = ours(read(path, graph_of(nodes, edges)), x)
    assert truth.any()
    names = list(nodes)
    rng.shuffle(names)
    rng.shuffle(edges)
    shuffled = graph_of({name: nodes[name] for name in names}, [(str(a), str(b)) for a, b in edges])
    np.testing.assert_allclose(ours(read(path, shuffled), x), truth, atol=1e-12)


def test_a_neuron_that_feeds_itself(path):
    edges = [("in", "lif"), ("lif", "lif"), ("lif", "out")]
    file = graph_of({"lif": neuron()}, edges)
    agree(read(path, file), lambda: Euler(file, back={("lif", "lif")}))


def test_a_membrane_of_linears(path):
    """u = x + beta u, built of a Linear that feeds itself through another."""
    nodes = {
        "u": nir.Linear(np.eye(3)),
        "keep": nir.Linear(0.9 * np.eye(3)),
        "z": nir.Threshold(full(2.3)),
        "drop": nir.Linear(-2.3 * np.eye(3)),
    }
    edges = [
        ("in", "u"),
        ("keep", "u"),
        ("u", "keep"),
        ("u", "z"),
        ("z", "drop"),
        ("drop", "u"),
        ("z", "out"),
    ]
    file = graph_of(nodes, edges)
    graph = read(path, file)
    assert graph.nodes["keep.before"].kind is Kind.REAL
    assert graph.nodes["z.before"].kind is Kind.SPIKE
    listed = graph_of({name: nodes[name] for name in ("drop", "u", "keep", "z")}, edges)
    agree(graph, lambda: Euler(listed, back={("z", "drop"), ("keep", "u")}))


def test_a_delay_of_a_step_or_more_holds_its_loop(path):
    nodes = {"lif": neuron(), "late": nir.Delay(np.array([1, 2, 1]) * DT), "w": recurrent_weight()}
    edges = [("in", "lif"), ("lif", "late"), ("late", "w"), ("w", "lif"), ("lif", "out")]
    graph = read(path, graph_of(nodes, edges))
    assert [name for name in graph.nodes if isinstance(graph.nodes[name], Delay)] == ["late"]
    listed = graph_of(
        {"late": nir.Delay(np.array([0, 1, 0]) * DT), "w": nodes["w"], "lif": nodes["lif"]}, edges
    )
    agree(graph, lambda: Euler(listed, back={("lif", "late")}))


def test_pools_and_scales_in_a_loop_carry_numbers(path):
    """What comes back is known to be numbers only when the loop was read once."""
    nodes = {"s": nir.Scale(full(0.5)), "lif": neuron(), "t": nir.Scale(full(0.5))}
    edges = [("in", "s"), ("s", "lif"), ("s", "t"), ("t", "s"), ("lif", "out")]
    file = graph_of(nodes, edges)
    graph = read(path, file)
    assert graph.nodes["t.before"].kind is Kind.GRADED
    agree(graph, lambda: Euler(file, back={("t", "s")}))


def nested():
    """Return in -> rnn {input, lif, w_rec, output} -> last {deep {..} } -> out, and the same without subgraphs."""
    parts = {"lif": neuron(), "w_rec": recurrent_weight(bias=True)}
    edges = [("input", "lif"), ("lif", "w_rec"), ("w_rec", "lif"), ("lif", "output")]

    def sub(nodes, links):
        ends = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
        return nir.NIRGraph({**nodes, **ends}, links, type_check=False)

    deep = sub({"scale": nir.Scale(np.array([1.0, 2.0, 3.0]))}, [("input", "scale"), ("scale", "output")])
    last = sub({"deep": deep, "lif": neuron()}, [("input", "deep"), ("deep", "lif"), ("lif", "output")])
    file = graph_of({"rnn": sub(parts, edges), "last": last})
    flat = graph_of(
        {
            "w": recurrent_weight(bias=True),
            "lif": neuron(),
            "scale": nir.Scale(np.array([1.0, 2.0, 3.0])),
            "end": neuron(),
        },
        [("in", "lif"), ("w", "lif"), ("lif", "w"), ("lif", "scale"), ("scale", "end"), ("end", "out")],
    )
    return file, flat


def test_subgraphs_are_opened_at_any_depth(path):
    file, flat = nested()
    graph = read(path, file)
    assert set(graph.nodes) == {
        "in",
        "rnn.lif",
        "rnn.lif.before",
        "rnn.w_rec",
        "last.deep.scale",
        "last.lif",
        "out",
    }
    agree(graph, lambda: Euler(flat, back={("lif", "w")}))


def test_one_signal_by_two_ways_counts_twice(path):
    ends = {"input": nir.Input(np.array([3])), "output": nir.Output(np.array([3]))}
    nothing = nir.NIRGraph(ends, [("input", "output")], type_check=False)
    edges = [("in", "lif"), ("in", "hold"), ("hold", "lif"), ("lif", "out")]
    graph = read(path, graph_of({"hold": nothing, "lif": neuron()}, edges))
    assert any(isinstance(node, Scale) and node.scale == 2 for node in graph.nodes.values())
    listed = graph_of(
        {"two": nir.Scale(full(2)), "lif": neuron()}, [("in", "two"), ("two", "lif"), ("lif", "out")]
    )
    agree(graph, lambda: Euler(listed))


def test_names_that_the_reader_makes_give_way_to_the_file_s(path):
    nodes = {"lif": neuron(), "lif.before": nir.Scale(full(1)), "lif.gain": recurrent_weight()}
    edges = [
        ("in", "lif.before"),
        ("lif.before", "lif"),
        ("lif", "lif.gain"),
        ("lif.gain", "lif"),
        ("lif", "out"),
    ]
    graph = read(path, graph_of(nodes, edges))
    assert isinstance(graph.nodes["lif"], LIF)
    listed = graph_of({n: nodes[n] for n in ("lif.before", "lif.gain", "lif")}, edges)
    agree(graph, lambda: Euler(listed, back={("lif", "lif.gain")}))


def test_the_batch_axis_that_an_exporter_leaves_is_dropped(path):
    file = graph_of({"w": recurrent_weight(), "lif": neuron()}, shape=(1, 3), out=(1, 3))
    graph = read(path, file)
    assert graph.nodes["in"].shape == (3,)
    assert graph.signals["out"].shape == (3,)
    assert "read-nir Input in: the first axis of (1, 3) is that of a batch and left out" in graph.history


BROKEN = {
    "inputs": (
        {"second": nir.Input(np.array([3])), "lif": neuron()},
        [("in", "lif"), ("second", "lif"), ("lif", "out")],
        (Unsupported, r"has 2 Input nodes \(in, second\)"),
    ),
    "outputs": (
        {"second": nir.Output(np.array([3]))},
        [("in", "out"), ("in", "second")],
        (Unsupported, "has 2 Output nodes"),
    ),
    "dangling": (
        {"lif": neuron()},
        [("in", "lif"), ("lif", "elsewhere"), ("lif", "out")],
        (DamagedFile, "edge lif -> elsewhere in .* names a node 'elsewhere' that is not there"),
    ),
    "twice": (
        {"lif": neuron()},
        [("in", "lif"), ("in", "lif"), ("lif", "out")],
        (Unsupported, "edge in -> lif stands twice"),
    ),
    "unfed": ({"lif": neuron()}, [("in", "out")], (DamagedFile, "Nothing feeds LIF 'lif'")),
    "shapes": (
        {"w": nir.Linear(np.ones((4, 3))), "v": nir.Linear(np.ones((3, 3))), "s": nir.Scale(full(1))},
        [("in", "w"), ("in", "v"), ("w", "s"), ("v", "s"), ("s", "out")],
        (InvalidGraph, "different shapes are added"),
    ),
    "subgraph": (
        {"sub": nir.NIRGraph({"input": nir.Input(np.array([3]))}, [], type_check=False)},
        None,
        (Unsupported, "The subgraph 'sub' of .* has 0 Output nodes"),
    ),
    "names": (
        {
            "sub.lif": neuron(),
            "sub": nir.NIRGraph(
                {"i": nir.Input(np.array([3])), "lif": neuron(), "o": nir.Output(np.array([3]))},
                [("i", "lif"), ("lif", "o")],
                type_check=False,
            ),
        },
        None,
        (Unsupported, "two nodes 'sub.lif'"),
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_missing_or_twice_is_said(path, case):
    nodes, edges, (error, reason) = BROKEN[case]
    with pytest.raises(error, match=reason):
        read(path, graph_of(nodes, edges))
