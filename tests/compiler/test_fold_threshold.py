"""Thresholds and scales go into weights: the same spikes, from membranes that are scaled along."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.compiler.rewriting import (
    assert_same,
    conv,
    executed,
    firing,
    memory_graph,
    memory_graphs,
    recurrent_graph,
    spatial_graphs,
)
from tests.compiler.test_unroll import diagonal
from tests.graphs import chain, graphs, lif, linear, sequence
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LIF,
    AdaptiveLIF,
    AssociativeMemory,
    AvgPool2d,
    CubaLIF,
    DeltaMemory,
    DiagonalSSM,
    Embedding,
    Flatten,
    Input,
    Output,
    Reshape,
    Scale,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.neurons import GAINS, PHASES, RESETS
from unscan.compiler.passes import FoldThreshold
from unscan.compiler.passes.fold_threshold import FIRING
from unscan.compiler.pipeline import run

RNG = np.random.default_rng(0)
NEURONS = (LIF, CubaLIF, AdaptiveLIF, Threshold)
STORED = (AssociativeMemory, DeltaMemory)


def level(graph: Graph, name: str) -> list[float]:
    return np.unique(graph.nodes[name].threshold).tolist()


@pytest.mark.parametrize("wanted", [1.0, 2.5])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("gain", GAINS)
def test_membranes_are_scaled_and_spikes_kept(wanted, reset, phase, gain):
    theta = RNG.uniform(0.3, 1.7, 8)
    options = {"reset": reset, "phase": phase, "gain": gain}
    before = chain(
        input=Input((5,)), twice=Scale(np.float64(2)), fc1=linear(RNG, 5, 8), half=Scale(RNG.uniform(0.5, 2, 8)),
        lif1=lif(0.9, theta, **options), fc2=linear(RNG, 8, 4), lif2=lif(0.8, 0.2, **options), output=Output(),
    )  # fmt: skip
    after, notes = FoldThreshold(wanted).rewrite(before)
    assert not after.of(Scale)
    assert [after.nodes[n].threshold.tolist() for n in ("lif1", "lif2")] == [wanted, wanted]
    assert len(notes) == 4
    a, b = executed(before), executed(after)
    assert (a.spikes["lif1"] == b.spikes["lif1"]).all()
    assert (a.spikes["lif2"] == b.spikes["lif2"]).all()
    np.testing.assert_allclose(
        b.membranes["lif1"], a.membranes["lif1"] * wanted / theta, rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("kind", NEURONS)
def test_each_neuron_that_fires_is_scaled_as_a_whole(kind):
    neuron = firing(RNG, kind, 8, **({} if kind is Threshold else {"reset": "subtract"}))
    before = chain(input=Input((5,)), fc=linear(RNG, 5, 8), neuron=neuron, output=Output())
    after, notes = FoldThreshold(2.0).rewrite(before)
    assert notes == ["neuron: threshold folded into fc"]
    assert after.nodes["neuron"].threshold == 2.0
    assert executed(before).spikes["neuron"].mean() > 0.01
    assert_same(before, after, sequence(before, 63, 3), tolerance=1e-12)


def test_what_a_spike_of_a_neuron_that_tires_is_worth_scales_along():
    neuron = firing(RNG, AdaptiveLIF, 4)
    before = chain(input=Input((5,)), fc=linear(RNG, 5, 4), neuron=neuron, output=Output())
    made = FoldThreshold(3.0).rewrite(before).graph.nodes["neuron"]
    np.testing.assert_allclose(made.kappa, neuron.kappa * 3 / neuron.threshold, rtol=1e-15)
    np.testing.assert_array_equal(made.rho, neuron.rho)


@pytest.mark.parametrize("power", [0.25, 0.5, 4.0])
def test_a_power_of_two_is_exact(power):
    before = chain(
        input=Input((5,)),
        fc=linear(RNG, 5, 8, dtype=np.float32),
        lif=lif(0.9, 1.0, dtype=np.float32),
        output=Output(),
    )
    after = FoldThreshold(power).rewrite(before).graph
    assert_same(before, after, sequence(before, 100, 3))


def test_a_threshold_that_was_folded_is_not_folded_again():
    before = chain(
        input=Input((5,)),
        fc=linear(RNG, 5, 8, dtype=np.float32),
        lif=lif(0.9, 0.7, dtype=np.float32),
        output=Output(),
    )
    once = FoldThreshold(0.3).rewrite(before).graph
    assert once.nodes["lif"].threshold == np.float32(0.3)
    assert FoldThreshold(0.3).rewrite(once) == (once, [])


@pytest.mark.parametrize("top", [{}, {"v": 2, "k": 3}])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("kind", STORED)
def test_of_a_memory_the_values_alone_are_scaled(kind, reset, top):
    before = memory_graph(RNG, kind, top=top, reset=reset)
    after, notes = FoldThreshold(1.0).rewrite(before)
    assert notes == ["memory: threshold folded into to_v"]
    assert [name for name in before.nodes if not equal(before.nodes[name], after.nodes[name])] == [
        "to_v",
        "memory",
    ]
    assert_same(before, after, sequence(before, 63, 3), tolerance=1e-11)


def equal(a, b) -> bool:
    return a.settings() == b.settings() and all(
        np.array_equal(value, dict(b.arrays())[field]) for field, value in a.arrays()
    )


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("kind", NEURONS)
def test_weights_that_feed_a_neuron_back_are_scaled_too(kind, late):
    before = recurrent_graph(RNG, firing(RNG, kind, 8), 8, late=late)
    after, notes = FoldThreshold(1.0).rewrite(before)
    assert notes == ["neuron: threshold folded into fc, back"]
    assert executed(before).spikes["neuron"].mean() > 0.01
    assert_same(before, after, sequence(before, 40, 3), tolerance=1e-11)


@pytest.mark.parametrize("pool", [AvgPool2d, SumPool2d])
def test_through_pools_and_shapes_into_a_convolution(pool):
    theta = RNG.uniform(0.3, 1.5, (4, 1, 1))
    before = chain(
        input=Input((2, 6, 6)), conv=conv(RNG, 2, 2, padding=1), pool=pool(kernel=2, stride=2, padding=1),
        lif=lif(0.9, theta), output=Output(),
    )  # fmt: skip
    after, notes = FoldThreshold().rewrite(before)
    assert notes == ["lif: threshold folded into conv"]
    assert_same(before, after, sequence(before, 30, 2), tolerance=1e-12)
    signal = before.signals["pool"].shape
    flat = int(np.prod(signal))
    shaped = chain(
        input=Input((2, 6, 6)), conv=before.nodes["conv"], pool=before.nodes["pool"], flat=Flatten(),
        shape=Reshape((flat, 1)), lif=lif(0.9, np.repeat(theta.ravel(), flat // 4)[:, None]), output=Output(),
    )  # fmt: skip
    after, notes = FoldThreshold().rewrite(shaped)
    assert notes == ["lif: threshold folded into conv"]
    assert_same(shaped, after, sequence(shaped, 30, 2), tolerance=1e-12)


def test_into_an_embedding():
    before = chain(
        input=Input((1,), Kind.INDEX), table=Embedding(RNG.normal(size=(7, 5))),
        lif=lif(0.9, RNG.uniform(0.3, 2, 5)), output=Output(),
    )  # fmt: skip
    after, notes = FoldThreshold().rewrite(before)
    assert notes == ["lif: threshold folded into table"]
    assert_same(before, after, RNG.integers(0, 7, (30, 3, 1)).astype(float), tolerance=1e-12)


def test_into_a_state_space_layer():
    layer = diagonal(RNG, 5, 3)
    ssm = DiagonalSSM(a=layer.a, c=layer.c, d=layer.d)
    before = chain(
        input=Input((5,)), ssm=ssm, divide=Scale(RNG.uniform(0.5, 2, 5)), lif=lif(0.125, RNG.uniform(0.3, 2, 5)),
        output=Output(),
    )  # fmt: skip
    after, notes = FoldThreshold().rewrite(before)
    assert notes == ["divide: folded into ssm", "lif: threshold folded into ssm"]
    np.testing.assert_array_equal(after.nodes["ssm"].a, ssm.a)
    assert_same(before, after, sequence(before, 100, 2), tolerance=1e-12)


def places(graph_threshold) -> Graph:
    layer = conv(np.random.default_rng(5), 2, 2, padding=1)
    return chain(input=Input((2, 6, 6)), conv=layer, lif=lif(0.9, graph_threshold), output=Output())


def test_what_cannot_be_folded_stays_with_its_reason():
    alone = chain(input=Input((5,)), lif=lif(0.9, 0.5), output=Output())
    assert FoldThreshold().rewrite(alone) == (
        alone,
        ["lif: threshold stays, because input, which feeds it, is Input and has no weights"],
    )
    nodes = {"input": Input((5,)), "fc": linear(RNG, 5, 5), "lif": lif(0.9, 0.5), "output": Output()}
    pairs = [("input", "fc"), ("fc", "lif"), ("lif", "output"), ("fc", "output")]
    shared = Graph(nodes, [Edge(*pair) for pair in pairs])
    assert FoldThreshold().rewrite(shared) == (
        shared,
        ["lif: threshold stays, because fc feeds it and 1 more"],
    )
    shape = places(1.0).signals["conv"].shape
    spread = places(RNG.uniform(0.3, 1, shape))
    (note,) = FoldThreshold().rewrite(spread).notes
    assert note == (
        "lif: threshold stays, because its thresholds differ from place to place of a channel, which conv has one "
        "weight for"
    )


def test_neurons_whose_inputs_are_compared_need_one_threshold():
    before = chain(
        input=Input((5,)),
        fc=linear(RNG, 5, 6),
        top=TopK(2),
        lif=lif(0.9, RNG.uniform(0.3, 2, 6)),
        output=Output(),
    )
    (note,) = FoldThreshold().rewrite(before).notes
    assert note == "lif: threshold stays, because its thresholds differ, and top compares what feeds them"
    one = before.with_nodes({"lif": replace(before.nodes["lif"], threshold=np.float64(0.3))})
    after, notes = FoldThreshold().rewrite(one)
    assert notes == ["lif: threshold folded into fc"]
    assert_same(one, after, sequence(one, 40, 2), tolerance=1e-12)


@pytest.mark.parametrize("wrong", [0.0, -1.0, np.nan, np.inf])
def test_thresholds_that_are_none_are_refused(wrong):
    with pytest.raises(InvalidInput, match="greater than 0"):
        FoldThreshold(wrong)


def test_equal_thresholds_become_one_number():
    graph = chain(input=Input((2, 6, 6)), lif=lif(0.9, np.ones((2, 1, 1))), output=Output())
    after, notes = FoldThreshold(1.0).rewrite(graph)
    assert after.nodes["lif"].threshold.shape == ()
    assert notes == []


@st.composite
def firing_graphs(draw: st.DrawFn) -> Graph:
    """A neuron of any class, with numbers per neuron, fed forward or in a loop."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind, width = draw(st.sampled_from(NEURONS)), draw(st.integers(1, 9))
    options = {"fires": draw(st.sampled_from([">=", ">"]))}
    if kind is not Threshold:
        options |= {"reset": draw(st.sampled_from(RESETS)), "gain": draw(st.sampled_from(GAINS))}
        options["phase"] = "now" if kind is AdaptiveLIF else draw(st.sampled_from(PHASES))
    return recurrent_graph(rng, firing(rng, kind, width, **options), width, late=draw(st.booleans()))


@settings(deadline=None, max_examples=120)
@given(
    graph=st.one_of(graphs(), spatial_graphs(), firing_graphs(), memory_graphs(STORED)),
    wanted=st.sampled_from([1.0, 0.25, 3.0]),
    seed=st.integers(0, 99),
)
def test_on_random_graphs_the_spikes_stay(graph, wanted, seed):
    after = run(graph, [FoldThreshold(wanted)])
    stay = {line.split(": ")[1] for line in after.history if "stays" in line}
    assert all(level(after, name) == [wanted] for name in graph.of(*FIRING) if name not in stay)
    assert not [name for name in after.of(Scale) if name not in stay]
    # outputs that are membranes are scaled with them
    assert_same(graph, after, sequence(graph, 12, 2, seed), tolerance=1e-9)
