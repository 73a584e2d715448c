"""A BatchNorm goes into the weights beside it: Linears, convolutions, Embeddings; what cannot stays with its reason."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import assert_same, conv, memory_graph, norm, spatial_graphs
from tests.compiler.test_unroll import diagonal
from tests.graphs import chain, graphs, lif, linear, sequence
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    AssociativeMemory,
    BatchNorm,
    Conv1d,
    Conv2d,
    DiagonalSSM,
    Embedding,
    Input,
    LayerNorm,
    Output,
    RMSNorm,
)
from unscan.compiler.passes import FoldNorm
from unscan.compiler.pipeline import run
from unscan.runtime.executors.reference import Reference

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_into_the_linear_before_and_after(bias, dtype):
    before = chain(
        input=Input((5,)), fc1=linear(RNG, 5, 8, bias=bias, dtype=dtype), bn1=norm(RNG, (8,), dtype=dtype),
        lif1=lif(dtype=dtype), bn2=norm(RNG, (8,), dtype=dtype), fc2=linear(RNG, 8, 4, bias=bias, dtype=dtype),
        lif2=lif(dtype=dtype), output=Output(),
    )  # fmt: skip
    after, notes = FoldNorm().rewrite(before)
    assert not after.of(BatchNorm)
    assert notes == ["bn1: folded into fc1", "bn2: folded into fc2"]
    assert after.dtype == dtype
    # weights rounded once to their format, 40 steps, about 10 terms a sum
    tolerance = 1e-12 if dtype is np.float64 else 40 * 10 * 2.0**-24
    assert_same(before, after, sequence(before, 40, 3), tolerance=tolerance)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("shape", ["channels", "one"])
def test_into_the_convolution_before_whatever_it_pads(axes, groups, shape):
    x = (4, *(7, 6)[:axes])
    layer = conv(RNG, 4, axes, out=6, padding=2, stride=2, dilation=2, groups=groups)
    numbers = (6,) + (1,) * axes if shape == "channels" else ()
    before = chain(input=Input(x), conv=layer, bn=norm(RNG, numbers), lif=lif(threshold=0.3), output=Output())
    after, notes = FoldNorm().rewrite(before)
    assert notes == ["bn: folded into conv"]
    assert isinstance(after.nodes["conv"], Conv1d if axes == 1 else Conv2d)
    assert_same(before, after, sequence(before, 20, 2), tolerance=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("axes", [1, 2])
def test_into_the_convolution_after_where_it_does_not_pad(axes, groups):
    x = (4, *(7, 6)[:axes])
    layer = conv(RNG, 4, axes, out=6, groups=groups)
    before = chain(
        input=Input(x), lif0=lif(threshold=0.4), bn=norm(RNG, (4,) + (1,) * axes), conv=layer, lif=lif(),
        output=Output(),
    )  # fmt: skip
    after, notes = FoldNorm().rewrite(before)
    assert notes == ["bn: folded into conv"]
    assert_same(before, after, sequence(before, 20, 2), tolerance=1e-12)


def test_in_front_of_a_padded_convolution_only_a_norm_that_adds_nothing():
    made = norm(RNG, (4, 1, 1))
    layer = conv(RNG, 4, 2, padding=1)
    nodes: dict[str, Any] = {
        "input": Input((4, 6, 6)),
        "lif0": lif(),
        "bn": made,
        "conv": layer,
        "output": Output(),
    }
    before = chain(**nodes)
    after, notes = FoldNorm().rewrite(before)
    assert after == before
    assert notes == ["bn: stays, because conv pads with zeros behind it, to which nothing is added"]
    nodes["bn"] = BatchNorm(made.weight, made.mean * 0, made.mean * 0, made.variance)
    before = chain(**nodes)
    after, notes = FoldNorm().rewrite(before)
    assert notes == ["bn: folded into conv"]
    assert after.nodes["conv"].bias is layer.bias or np.array_equal(after.nodes["conv"].bias, layer.bias)
    assert_same(before, after, sequence(before, 10, 2), tolerance=1e-12)


def test_numbers_that_differ_from_place_to_place_stay():
    layer = conv(RNG, 2, 2, out=4)
    height, width = Graph({"i": Input((2, 6, 6)), "c": layer}, [Edge("i", "c")]).signals["c"].shape[1:]
    before = chain(input=Input((2, 6, 6)), conv=layer, bn=norm(RNG, (4, height, width)), output=Output())
    after, notes = FoldNorm().rewrite(before)
    assert after == before
    assert notes == [
        "bn: stays, because its numbers differ from place to place of a channel, which conv has one weight for"
    ]


def test_into_an_embedding():
    table = Embedding(RNG.normal(size=(7, 5)))
    before = chain(input=Input((1,), Kind.INDEX), table=table, bn=norm(RNG, (5,)), lif=lif(), output=Output())
    after, notes = FoldNorm().rewrite(before)
    assert notes == ["bn: folded into table"]
    assert_same(before, after, RNG.integers(0, 7, (20, 3, 1)).astype(float), tolerance=1e-12)


def test_into_the_linear_that_feeds_a_port_of_a_memory():
    graph = memory_graph(RNG, AssociativeMemory)
    edges = [e for e in graph.edges if e != Edge("to_k", "memory", "k")]
    nodes = {**graph.nodes, "bn": norm(RNG, (6,))}
    before = Graph(nodes, [*edges, Edge("to_k", "bn"), Edge("bn", "memory", "k")])
    after, notes = FoldNorm().rewrite(before)
    assert notes == ["bn: folded into to_k"]
    assert_same(before, after, sequence(before, 40, 3), tolerance=1e-12)


def test_into_a_state_space_layer_only_what_adds_nothing():
    layer = diagonal(RNG, 4, 3)
    ssm = DiagonalSSM(a=layer.a, c=layer.c, d=layer.d)
    made = norm(RNG, (4,))
    before = chain(input=Input((4,)), ssm=ssm, bn=made, lif=lif(0.125), output=Output())
    after, notes = FoldNorm().rewrite(before)
    assert after == before
    assert notes == ["bn: stays, because ssm, before it, has no bias that could take up what it adds"]
    behind = chain(input=Input((4,)), ssm=ssm, bn=made, fc=linear(RNG, 4, 3), lif=lif(0.125), output=Output())
    after, notes = FoldNorm().rewrite(behind)
    assert notes == ["bn: folded into fc"]
    assert_same(behind, after, sequence(behind, 40, 2), tolerance=1e-12)
    still = before.with_nodes({"bn": BatchNorm(made.weight, made.mean * 0, made.mean * 0, made.variance)})
    after, notes = FoldNorm().rewrite(still)
    assert notes == ["bn: folded into ssm"]
    assert_same(still, after, sequence(still, 40, 2), tolerance=1e-12)


def test_a_norm_that_cannot_be_folded_stays_with_its_reason():
    nodes = {
        "input": Input((5,)),
        "fc": linear(RNG, 5, 5),
        "bn": norm(RNG, (5,)),
        "lif": lif(),
        "output": Output(),
    }
    pairs = [("input", "fc"), ("fc", "bn"), ("fc", "lif"), ("bn", "lif"), ("lif", "output")]
    before = Graph(nodes, [Edge(*pair) for pair in pairs])
    after, notes = FoldNorm().rewrite(before)
    assert after == before
    assert notes == ["bn: stays, because no Linear or convolution stands alone before or after it"]


def test_norms_of_each_step_stay_with_the_reason():
    before = chain(
        input=Input((5,)),
        fc=linear(RNG, 5, 5),
        layer=LayerNorm(np.ones(5)),
        root=RMSNorm(np.ones(5)),
        output=Output(),
    )
    after, notes = FoldNorm().rewrite(before)
    assert after == before
    assert [note.split(",")[0] for note in notes] == ["layer: stays", "root: stays"]
    assert all("numbers of each step" in note for note in notes)


@settings(deadline=None, max_examples=80)
@given(graph=st.one_of(graphs(), spatial_graphs()), seed=st.integers(0, 99))
def test_on_random_graphs_the_reference_after_is_the_reference_before(graph, seed):
    after = run(graph, [FoldNorm()])
    left = [note for note in after.history if "stays" in note]
    assert len(after.of(BatchNorm)) <= len(left)
    assert_same(graph, after, sequence(graph, 12, 2, seed), tolerance=1e-9)


def test_a_folded_graph_gives_its_outputs_at_every_length():
    before = chain(
        input=Input((2, 5)), conv=conv(RNG, 2, 1), bn=norm(RNG, (4, 1)), lif=lif(), output=Output()
    )
    after = FoldNorm().rewrite(before).graph
    for steps in (1, 63, 100):
        x = sequence(before, steps, 2)
        np.testing.assert_array_equal(Reference(after).run(x).outputs, Reference(before).run(x).outputs)
