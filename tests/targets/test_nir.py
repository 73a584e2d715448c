import json
from pathlib import Path

import nir
import numpy as np
import pytest

from tests.targets.networks import DEPLOYED, chain, diagonal, drive, feed_forward, lif, weight, zoo
from tests.targets.walking import walk
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    GLU,
    LI,
    Activation,
    AdaptiveLIF,
    AssociativeMemory,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    Delay,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    LIFScan,
    Linear,
    Multiply,
    Output,
    Reshape,
    RMSNorm,
    Scale,
    SumPool2d,
    TopK,
)
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import DT, emit, encode, refusals
from unscan.targets.nir_neurons import BARELY


def one(node, shape=(4,)):
    return chain({"in": Input(shape), "it": node, "out": Output()})


@pytest.mark.parametrize(
    ("reset", "phase"), [("none", "now"), ("subtract", "now"), ("subtract", "next"), ("zero", "now")]
)
@pytest.mark.parametrize("gain", ["1", "1-beta"])
@pytest.mark.parametrize("beta", [0.0, 0.9, 1.0])
@pytest.mark.parametrize("readout", [False, True])
def test_the_equations_of_the_file_are_those_of_the_graph(reset, phase, gain, beta, readout):
    if beta == 1 and gain == "1-beta":
        return
    graph = feed_forward(
        reset=reset,
        phase=phase,
        gain=gain,
        beta=beta,
        readout=readout,
        threshold=2.1 if beta == 1 else 0.2137,
        fires=">",
    )
    x = (np.random.default_rng(3).random((63, 1, 12)) < 0.4).astype(np.float64)
    truth = Reference(graph).run(x)
    assert all(spikes.any() for spikes in truth.spikes.values())
    got = walk(encode(graph), x[:, 0])
    np.testing.assert_allclose(got, truth.outputs[:, 0], atol=1e-9)


@pytest.mark.parametrize("case", DEPLOYED)
def test_the_equations_of_every_other_node_are_those_of_the_graph(case):
    graph = DEPLOYED[case]().astype(np.float64)
    x = drive(graph, 63, 1)
    truth = Reference(graph).run(x)
    assert all(spikes.any() for spikes in truth.spikes.values())
    np.testing.assert_allclose(walk(encode(graph), x[:, 0]), truth.outputs[:, 0], atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", DEPLOYED)
def test_every_graph_that_is_written_comes_back(tmp_path: Path, case, dtype):
    graph = DEPLOYED[case]().astype(dtype)
    emit(graph, tmp_path / "model.nir")
    again = read_nir(tmp_path / "model.nir")
    assert again == graph
    assert again.edges == graph.edges
    nir.read(tmp_path / "model.nir")  # its own check of shapes


def test_names_stand_in_data_flow_order():
    written = encode(feed_forward(reset="subtract", readout=True))
    names = sorted(written.nodes)
    assert names[0] == "input"
    assert names[-1] == "output"
    assert list(written.nodes) == names
    forward = [(a, b) for a, b in written.edges if a < b]
    backward = [(a, b) for a, b in written.edges if a > b]
    assert {a.partition("_")[2] for a, _ in backward} == {"decay", "subtract"}
    assert len(forward) == len(names) - 1
    for a, b in backward:
        ahead = next(i for i, edge in enumerate(written.edges) if edge[0] == b and "decay" not in edge[1])
        assert "subtract" in a or written.edges.index((a, b)) < ahead


@pytest.mark.parametrize("many", [2, 12, 40])
def test_names_stay_in_order_in_deep_networks(many):
    nodes = {"in": Input((2,))} | {f"l{i}": lif(reset="subtract") for i in range(many)} | {"out": Output()}
    written = encode(chain(nodes))
    names = list(written.nodes)
    assert names == sorted(names)
    assert len(names) == 4 * many + 2


def test_parameters_of_a_lif():
    written = encode(one(lif(beta=0.9, threshold=1.5, reset="zero", fires=">")))
    (neuron,) = (node for node in written.nodes.values() if isinstance(node, nir.LIF))
    np.testing.assert_allclose(neuron.tau, np.full(4, DT / 0.1))
    np.testing.assert_allclose(neuron.v_threshold, 0.15)
    assert set(neuron.r) == {1.0}
    assert set(neuron.v_reset) == set(neuron.v_leak) == {0.0}
    written = encode(one(lif(beta=0.9, threshold=1.5, reset="zero", fires=">", gain="1-beta")))
    np.testing.assert_allclose(written.nodes["n00_lif"].v_threshold, 1.5)


def test_a_tie_that_fires_is_one_float32_lower():
    for fires, wanted in ((">", np.float32(1.5)), (">=", np.nextafter(np.float32(1.5), np.float32(0)))):
        neuron = encode(one(lif(threshold=1.5, reset="none", fires=fires))).nodes["n02_threshold"]
        assert set(neuron.v_threshold) == {float(wanted)}
        assert set(neuron.tau) == {BARELY * DT}


def test_the_metadata_says_what_nir_cannot():
    graph = feed_forward(dtype=np.float32, reset="subtract", phase="next")
    known = json.loads(encode(graph).metadata["unscan"])
    assert known["digest"] == graph.digest
    assert known["dt"] == DT
    assert known["dtype"] == "float32"
    assert known["meta"] == {"task": "test", "decision": "sum"}
    settings = {name: held for name, _, held in known["nodes"]}
    assert settings["hidden.0"] == {
        "gain": "1",
        "reset": "subtract",
        "phase": "next",
        "fires": ">=",
        "trained_reset": "none",
    }


def adaptive_zero():
    one_each = {name: np.asarray(0.5) for name in ("beta", "kappa", "rho", "threshold")}
    return AdaptiveLIF(**one_each, reset="zero", trained_reset="none")


REFUSED = {
    "per-channel decay": (lif(beta=[0.1, 0.2, 0.3, 0.4], reset="zero"), "restore-reset"),
    "zero, next": (lif(reset="zero", phase="next"), "run restore-reset with phase now"),
    "norm": (BatchNorm(*(np.ones(4) for _ in range(4))), "run fold-norm"),
    "activation": (Activation("relu"), "deploy with the target onnx"),
    "layer norm": (LayerNorm(np.ones(4)), "train with BatchNorm"),
    "rms norm": (RMSNorm(np.ones(4)), "train with BatchNorm"),
    "glu": (GLU(), "no product of two signals"),
    "top-k": (TopK(2), "compares one neuron with another"),
    "adaptive, zero": (adaptive_zero(), "restore-reset with none or subtract"),
    "long delay": (Delay(steps=np.asarray(600.0), shape=(4,), kind=Kind.REAL), "more than the 2048"),
    "many modes": (diagonal(4, 300), "more than the 2048"),
    "parallel": (LIFScan(beta=np.float64(0.9), threshold=np.float64(1)), "run unroll"),
    "blurred decay": (lif(beta=1e-6, reset="zero"), "scales its threshold wrongly"),
    "no input": (lif(beta=1.0, reset="zero", gain="1-beta"), "shuts its input out"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_said_is_refused_with_the_remedy(tmp_path: Path, case):
    node, remedy = REFUSED[case]
    graph = one(node)
    assert list(refusals(graph)) == ["it"]
    assert remedy in refusals(graph)["it"]
    with pytest.raises(
        Unsupported, match=f"target nir cannot express 1 of 3 nodes. {type(node).__name__} 'it': "
    ):
        emit(graph, tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())


def test_more_than_one_axis_is_refused_where_a_linear_would_stand_in():
    assert "one axis" in refusals(one(lif(reset="subtract"), (2, 2)))["it"]
    assert "one axis" in refusals(one(LI(beta=np.float64(0.5)), (2, 2)))["it"]
    assert (
        "one axis" in refusals(one(Delay(steps=np.asarray(2.0), shape=(2, 2), kind=Kind.REAL), (2, 2)))["it"]
    )
    assert "places of an image" in refusals(one(Scale(np.arange(4.0).reshape(1, 2, 2)), (3, 2, 2)))["it"]
    assert refusals(one(lif(reset="subtract"), (3, 2, 2))) == {}
    assert refusals(one(lif(reset="zero"), (2, 2))) == {}
    assert refusals(one(Flatten())) == {}


def test_every_refusal_is_listed_in_data_flow_order():
    assert list(refusals(zoo())) == [
        "scale in",
        "norm",
        "lif1",
        "w2",
        "relu",
        "tanh",
        "lif2",
        "sigmoid",
        "silu",
        "gelu",
        "w4",
    ]


def test_a_join_and_a_dead_end_are_refused():
    nodes = {"in": Input((3,)), "a": Linear(np.eye(3)), "b": Linear(np.eye(3)), "out": Output()}
    join = Graph(nodes, [Edge("in", "a"), Edge("a", "b"), Edge("a", "out"), Edge("b", "out")])
    assert "adds a and b" in refusals(join)["out"]
    dead = Graph(nodes, [Edge("in", "a"), Edge("in", "b"), Edge("a", "out")])
    assert refusals(dead) == {"b": "it does not lead to the output; run prune-dead"}


@pytest.mark.parametrize("node", [AssociativeMemory, Multiply, Concatenate])
def test_nodes_of_several_ports_are_refused_for_what_they_are(node):
    settings = {
        AssociativeMemory: {"threshold": np.float64(1), "trained_reset": "none"},
        Multiply: {},
        Concatenate: {"parts": 2},
    }
    it = node(**settings[node])
    edges = [Edge("in", "it", port) for port in it.ports]
    graph = Graph({"in": Input((4,)), "it": it, "out": Output()}, [*edges, Edge("it", "out")])
    assert list(refusals(graph)) == ["it"]
    assert "deploy with the target onnx" in refusals(graph)["it"]
    assert "adds" not in refusals(graph)["it"]


WINDOWS = {
    "kernel": (Conv2d(weight=np.ones((1, 2, 3, 2))), "3 x 2"),
    "padding": (Conv2d(weight=np.ones((1, 2, 3, 3)), padding=(1, 1, 0, 0)), "pads both sides alike"),
    "pool": (SumPool2d(kernel=(1, 2), stride=1), "1 x 2"),
}


@pytest.mark.parametrize("case", WINDOWS)
def test_windows_that_nir_cannot_hold_are_refused(case):
    node, reason = WINDOWS[case]
    assert reason in refusals(one(node, (2, 5, 5)))["it"]


def test_a_convolution_over_one_axis_an_index_and_a_reshape_are_refused():
    assert "Conv2d" in refusals(one(Conv1d(weight=np.ones((1, 2, 3))), (2, 5)))["it"]
    assert "only flatten" in refusals(one(Reshape((2, 2))))["it"]
    assert refusals(one(Reshape((4,)), (2, 2))) == {}
    graph = chain({"in": Input((1,), Kind.INDEX), "it": Embedding(np.ones((3, 4))), "out": Output()})
    assert "feed the rows themselves" in refusals(graph)["it"]


def test_groups_become_one_and_pools_convolutions():
    rng = np.random.default_rng(0)
    conv = Conv2d(weight=rng.normal(size=(4, 2, 3, 3)), groups=2)
    (written,) = (n for n in encode(one(conv, (4, 5, 5))).nodes.values() if isinstance(n, nir.Conv2d))
    assert written.groups == 1
    np.testing.assert_array_equal(written.weight[2:, 2:], conv.weight[2:])
    assert not written.weight[2:, :2].any()
    pool = AvgPool2d(kernel=2, stride=2)
    (written,) = (n for n in encode(one(pool, (3, 4, 4))).nodes.values() if isinstance(n, nir.Conv2d))
    np.testing.assert_array_equal(written.weight.sum(axis=(2, 3)), np.eye(3))


def test_a_scale_is_a_diagonal_linear():
    rng = np.random.default_rng(0)
    graph = chain(
        {
            "in": Input((4,)),
            "w": Linear(weight(rng, 4, 4, np.float64)),
            "it": Scale(np.arange(4.0)),
            "out": Output(),
        }
    )
    np.testing.assert_array_equal(encode(graph).nodes["n01_scale"].weight, np.diag(np.arange(4.0)))


def test_an_unknown_profile_is_refused(tmp_path: Path):
    with pytest.raises(InvalidInput, match="no NIR profile 'brian'; the profiles are portable, nir, norse"):
        emit(feed_forward(), tmp_path / "model.nir", profile="brian")


def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch):
    def fail(path, _):
        Path(path).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(nir, "write", fail)
    with pytest.raises(InvalidInput, match="disk full"):
        emit(feed_forward(), tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())
