"""The text form of graphs that hold every operator, against files; and what two graphs differ in."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings

from tests.graphs import chain, graphs, lif, two_layers
from tests.integers import integer_network, memory_network, state_space_network
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    GLU,
    LI,
    NODES,
    Activation,
    AdaptiveLIF,
    AdaptiveLIFScan,
    AssociativeMemory,
    AssociativeScan,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    CubaLIF,
    CubaLIFScan,
    Delay,
    DeltaMemory,
    DeltaScan,
    DiagonalConvolution,
    DiagonalSSM,
    Embedding,
    Flatten,
    Input,
    LayerNorm,
    LIConvolution,
    LIFAnnealed,
    LIFConvolution,
    LIFScan,
    LIFSurrogate,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    Reshape,
    RMSNorm,
    Scale,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.storage import load
from unscan.compiler.text import diff, text

GOLDEN = Path(__file__).parent / "golden"


def numbers(*shape):
    """Numbers from 1/16 up to 1, the same on every machine."""
    return (np.arange(np.prod(shape, dtype=int)) % 16 + 1).reshape(shape).astype(np.float32) / 16


def image():
    """What has no memory, on images."""
    return chain(
        input=Input((24,), Kind.SPIKE),
        folded=Reshape((2, 3, 4)),
        conv=Conv2d(weight=numbers(4, 1, 3, 3), bias=numbers(4), padding=1, groups=2),
        norm=BatchNorm(numbers(4, 1, 1), numbers(4, 1, 1), numbers(4, 1, 1), numbers(4, 1, 1)),
        added=SumPool2d(kernel=2, stride=1),
        mean=AvgPool2d(kernel=(1, 2), stride=1, padding=(0, 1)),
        largest=MaxPool2d(kernel=(1, 3), stride=1, padding=(0, 1)),
        rows=Reshape((4, 8)),
        conv1=Conv1d(weight=numbers(2, 4, 3), stride=2, padding=1),
        flat=Flatten(),
        output=Output(),
    )


def words():
    """What has no memory, behind an embedding, with ports of more than one name."""
    nodes = {
        "input": Input((1,), Kind.INDEX),
        "table": Embedding(numbers(5, 4)),
        "layer": LayerNorm(numbers(4), numbers(4)),
        "root": RMSNorm(numbers(4)),
        "wide": Linear(numbers(8, 4), numbers(8)),
        "gated": GLU(),
        "product": Multiply(),
        "most": TopK(2),
        "curve": Activation("gelu"),
        "twice": Scale(np.float32(2)),
        "both": Concatenate(parts=2),
        "output": Output(),
    }
    edges = [
        *[Edge(a, b) for a, b in zip(list(nodes)[:5], list(nodes)[1:6], strict=True)],
        Edge("gated", "product", "a"),
        Edge("root", "product", "b"),
        Edge("product", "most"),
        Edge("layer", "most"),
        Edge("most", "curve"),
        Edge("most", "twice"),
        Edge("curve", "both", "x0"),
        Edge("twice", "both", "x1"),
        Edge("both", "output"),
    ]
    return Graph(nodes, edges)


def neurons(*, parallel: bool):
    """Every neuron, memory and filter of one form, and a loop."""
    leak = {"beta": np.float32(0.875), "threshold": numbers(4)}
    trained = {} if parallel else {"trained_reset": "none"}
    adaptive = AdaptiveLIFScan if parallel else AdaptiveLIF
    memory, delta = (AssociativeScan, DeltaScan) if parallel else (AssociativeMemory, DeltaMemory)
    stored = {} if parallel else {"decay": "scalar", "trained_reset": "none"}
    pairs = numbers(4, 2, 2) / 2
    nodes = {
        "input": Input((4,)),
        "late": Delay(steps=np.float32(1), shape=(4,), kind=Kind.SPIKE),
        "back": Linear(numbers(4, 4)),
        "sign": Threshold(threshold=np.float32(0.5), fires=">"),
        "cuba": (CubaLIFScan if parallel else CubaLIF)(alpha=np.float32(0.5), **leak, **trained),
        "tires": adaptive(kappa=np.float32(0.25), rho=np.float32(0.5), reset="subtract", **leak, **trained),
        "filter": (DiagonalConvolution if parallel else DiagonalSSM)(a=pairs, c=pairs, d=numbers(4)),
        "alpha": Activation("sigmoid"),
        "memory": memory(threshold=np.float32(0.5), queries=1, **stored),
        "beta": Linear(numbers(1, 4)),
        "delta": delta(threshold=np.float32(0.5), **{k: v for k, v in stored.items() if k != "decay"}),
        "flat": Linear(numbers(4, 16)),
        "kept": (LIConvolution if parallel else LI)(beta=np.float32(0.5), gain="1-beta"),
        "output": Output(),
    }
    edges = [
        Edge("input", "sign"),
        *[Edge("sign", n) for n in ("cuba", "tires", "filter", "alpha", "beta")],
        Edge("cuba", "late"),
        Edge("late", "back"),
        Edge("back", "cuba"),
        Edge("cuba", "memory", "v"),
        Edge("tires", "memory", "k"),
        Edge("alpha", "memory", "alpha"),
        Edge("filter", "memory", "q"),
        Edge("memory", "delta", "v"),
        Edge("tires", "delta", "k"),
        Edge("beta", "delta", "alpha"),
        Edge("beta", "delta", "beta"),
        Edge("delta", "flat"),
        Edge("flat", "kept"),
        Edge("kept", "output"),
    ]
    if parallel:
        eight = numbers(8, 8)
        nodes |= {
            "conv": LIFConvolution(reset="none", **leak),
            "scan": LIFScan(**leak),
            "annealed": LIFAnnealed(strength=np.float32(0.5), rounds=3, reset="subtract", **leak),
            "guessed": LIFSurrogate(
                temporal=eight, temporal_bias=eight[0], mixing=eight, mixing_bias=eight[0], readout=eight[0],
                readout_bias=eight[0, :1], **leak,
            ),
        }  # fmt: skip
        edges += [
            Edge("input", "conv"),
            Edge("conv", "scan"),
            Edge("scan", "annealed"),
            Edge("annealed", "guessed"),
        ]
    else:
        nodes["lif"] = lif(np.float32(0.875), numbers(4), phase="next", dtype=np.float32)
        edges.append(Edge("input", "lif"))
    return Graph(
        nodes, edges, history=("unroll: nothing",), meta={"task": {"b": 1, "a": [2]}, "decision": "last"}
    )


GRAPHS = {
    "image": image(),
    "words": words(),
    "parallel": neurons(parallel=True),
    "iterative": neurons(parallel=False),
    "whole-memory": memory_network(),
    "whole-filter": state_space_network(),
    "whole-spikes": integer_network(2),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_the_text_form_is_that_of_the_file(name):
    assert text(GRAPHS[name], meta=True, history=True) == (GOLDEN / f"{name}.txt").read_text()


def test_the_files_hold_every_operator():
    written = "".join(path.read_text() for path in GOLDEN.iterdir())
    assert [name for name in NODES if f" = {name}(" not in written] == []


def test_the_text_form_does_not_depend_on_the_order_of_edges_and_listing():
    graph = words()
    turned = Graph(dict(reversed(graph.nodes.items())), reversed(graph.edges))
    assert sorted(text(turned).splitlines()) == sorted(text(graph).splitlines())


def test_equal_graphs_do_not_differ():
    for graph in GRAPHS.values():
        assert diff(graph, graph.annotate(history=["x"])) == []


@given(graphs())
@settings(max_examples=30, deadline=None)
def test_any_graph_has_a_text_form_that_survives_its_file(graph):
    with TemporaryDirectory() as folder:
        graph.save(Path(folder) / "g.unscan")
        again = load(Path(folder) / "g.unscan")
    assert text(again) == text(graph)
    assert len(text(graph).splitlines()) == len(graph.nodes)
    assert diff(again, graph) == []


def test_a_difference_is_named_by_node():
    graph = two_layers()
    faster = replace(graph.nodes["lif1"], beta=np.asarray(0.5), phase="next")
    weight = graph.nodes["fc2"].weight.copy()
    weight[0, 0] += 0.25
    other = graph.with_nodes({"lif1": faster, "fc2": replace(graph.nodes["fc2"], weight=weight)})
    lines = diff(graph, other)
    assert lines[0] == "~ lif1: beta float64 0.9 -> float64 0.5; phase 'now' -> 'next'"
    assert lines[1].startswith("~ fc2: weight float64[9x12] differs in 1 of 108 numbers, by at most 0.25,")
    assert len(lines) == 2


def test_what_was_added_removed_and_rewired_is_named_in_its_place():
    graph = two_layers()
    less = graph.bypass("lif1")
    lines = diff(graph, less)
    assert [line[:6] for line in lines] == ["- lif1", "~ fc2:"]
    assert "fed by lif1 -> fc1" in lines[1]
    assert [line[:6] for line in diff(less, graph)] == ["+ lif1", "~ fc2:"]
    exchanged = graph.with_nodes({"fc3": Activation("tanh")})
    assert diff(graph, exchanged)[0].startswith("~ fc3: Linear -> Activation; weight float64[4x9] ")
