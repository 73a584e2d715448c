"""Folders for Lava: what is written, and what is refused. What they compute: `test_folder_runs`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from tests.integers import integer_network, memory_network, state_space_network
from tests.targets.lava.folders import chain, every_neuron, neuron, operators, weights
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LIF,
    Activation,
    Concatenate,
    Delay,
    Flatten,
    Input,
    IntegerLI,
    LayerNorm,
    LIFScan,
    Linear,
    Quantize,
)
from unscan.targets.lava import folder
from unscan.targets.lava.wiring import wiring


def test_the_folder_holds_what_it_needs_and_names_nothing_of_ours(tmp_path: Path):
    folder.emit(integer_network(0), tmp_path / "model")
    made = {
        str(file.relative_to(tmp_path / "model"))
        for file in (tmp_path / "model").rglob("*")
        if file.is_file()
    }
    needed = {"source", "sink", "operator", "neuron", "delay"}
    shared = {"__init__", "arithmetic", "nodes", "operators"}
    assert made == {
        *("graph.json", "weights.npz", "run.py", "start.py", "README.txt"),
        *(f"processes/{name}.py" for name in shared),
        *(f"processes/{name}/{file}.py" for name in needed for file in ("__init__", "process")),
    }
    for name in made:
        if name.endswith(".py"):
            assert not re.search(
                r"^\s*(from|import) unscan", (tmp_path / "model" / name).read_text(), re.MULTILINE
            )
    document = json.loads((tmp_path / "model" / "graph.json").read_text())
    assert document["digest"] == integer_network(0).digest
    assert "spikes, 0 or 1" in (tmp_path / "model" / "README.txt").read_text()


def test_a_readme_says_how_the_input_is_quantised(tmp_path: Path):
    folder.emit(memory_network(), tmp_path / "model")
    assert "which run.py makes int8 x 2^-5" in (tmp_path / "model" / "README.txt").read_text()


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path):
    folder.emit(integer_network(0), tmp_path / "model")
    folder.emit(memory_network(), tmp_path / "model")
    assert (tmp_path / "model" / "processes" / "memory" / "process.py").exists()
    assert not (tmp_path / "model" / "processes" / "neuron").exists()
    with pytest.raises(Unsupported):
        folder.emit(chain(Input((3,), Kind.SPIKE), Linear(np.ones((3, 3)))), tmp_path / "model")
    assert (tmp_path / "model" / "processes" / "memory").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "file").touch()
    for taken in ("other", "file"):
        with pytest.raises(InvalidInput, match="something else stands there"):
            folder.emit(memory_network(), tmp_path / taken)
    with pytest.raises(InvalidInput, match="choose a folder that exists"):
        folder.emit(memory_network(), tmp_path / "absent" / "model")
    assert {path.name for path in tmp_path.iterdir()} == {"model", "other", "file"}


SPIKES = Input((3,), Kind.SPIKE)
WIDE = 2**30 * np.ones((3, 3), np.int32)
FLOAT_LIF = LIF(beta=np.float32(0.9), threshold=np.float32(1), reset="none", trained_reset="none")
LOOP = {
    "back": Delay(steps=np.ones((), np.float32), shape=(3,), kind=Kind.SPIKE), "alone": neuron(bias=np.int32(9))
}  # fmt: skip
REFUSED = {
    "real weights": (chain(SPIKES, Linear(np.ones((3, 3)))), "1", "its weight holds real numbers; run quantize"),
    "a real neuron": (chain(SPIKES, Linear(weights(3, 3)), FLOAT_LIF), "2", "holds real numbers; run quantize"),
    "a norm": (chain(SPIKES, LayerNorm(np.ones(3, np.float32))), "1", "holds real numbers"),
    "a real input": (chain(Input((3,))), "0", "it takes real numbers; run quantize"),
    "a real port": (chain(Input((3,)), Activation("relu")), "1", "its port x gets real numbers"),
    "a late Quantize": (
        chain(SPIKES, Flatten(), Quantize(bits=8, fraction=0)), "2", "it stands behind other nodes than the Input"
    ),
    "tanh": (chain(SPIKES, Activation("tanh")), "1", "tanh gives real numbers; run quantize, which makes a table"),
    "sums": (
        chain(
            SPIKES, Linear(WIDE // 2), neuron(), beside={"b": Linear(WIDE // 2)}, more=(Edge("0", "b"), Edge("b", "2"))
        ),
        "2", "its port x may get numbers of 33 bits, wanted at most 32; put a Shift in front",
    ),
    "a loop": (
        chain(
            SPIKES, Linear(weights(3, 3)), beside=LOOP, more=(Edge("back", "alone"), Edge("alone", "back"))
        ), "alone", "no input reaches it",
    ),
    "names": (
        chain(
            SPIKES,
            beside={"c": Concatenate(2), "c.x1": Flatten(), "f": Linear(weights(3, 6))},
            more=(
                Edge("0", "c.x1"), Edge("0", "c", "x0"), Edge("c.x1", "c", "x1"), Edge("c", "f"), Edge("f", "output")
            ),
        ), "c", "is named 'c.x1', as another node is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_process_says_is_refused(case: str, tmp_path: Path):
    graph, name, reason = REFUSED[case]
    assert reason in folder.refusals(graph)[name]
    with pytest.raises(Unsupported, match="The target lava \\(folder\\) cannot express"):
        folder.emit(graph, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_parallel_node_is_refused_with_the_pass_that_helps(tmp_path):
    graph = chain(SPIKES, LIFScan(beta=np.float32(0.9), threshold=np.float32(1)))
    (reason,) = folder.refusals(graph).values()
    assert "run unroll" in reason
    with pytest.raises(Unsupported, match="run unroll"):
        folder.emit(graph, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_operators_that_feed_each_other_alone_share_a_process_in_whatever_order_edges_are_written():
    graph = operators()
    for edges in (graph.edges, graph.edges[::-1]):
        wires = wiring(Graph(graph.nodes, edges))
        functions = {
            name: [function["name"] for function in cell.settings["functions"]]
            for name, cell in wires.cells.items()
            if cell.process == "Operator"
        }
        front = ["convolution", "scale", "relu", "max_pool", "sum_pool", "reshape", "shift"]
        assert functions == {
            "shift": front,
            "first": ["linear"],
            "second": ["linear"],
            "narrow": ["shift"],
            "pair.x0": ["place"],
            "pair.x1": ["place"],
            "square": ["reshape"],
            "again": ["top_k", "reshape"],
        }
        assert set(wires.cells["shift"].arrays) == {"0.weight", "0.bias", "1.scale", "6.shift"}
        assert {(edge.source, edge.target) for edge in wires.edges if edge.target == "shift"} == {
            ("input", "shift")
        }


def test_a_graph_of_whole_numbers_is_not_refused():
    for graph in (integer_network(2), memory_network(), state_space_network(), operators(), every_neuron()):
        assert folder.refusals(graph) == {}
    assert folder.refusals(chain(SPIKES, Linear(weights(3, 3)), IntegerLI(beta=np.int32(0)))) == {}
