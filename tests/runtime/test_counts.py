import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import chain, graphs, lif, linear, sequence, two_layers
from tests.runtime.test_steps import memory_graph
from tests.targets.networks import DEPLOYED, drive
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LI,
    Activation,
    AssociativeMemory,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    DiagonalSSM,
    Input,
    Linear,
    Output,
    Scale,
)
from unscan.runtime.costs import Operations
from unscan.runtime.counts import Counts, origins, senders
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.onnx import OnnxScan, OnnxStep
from unscan.runtime.executors.reference import Reference


def test_acs_and_macs_are_events_times_nonzero_weights():
    rng = np.random.default_rng(0)
    graph = two_layers()
    holes = graph.nodes["fc2"].weight * (rng.random((9, 12)) < 0.5)
    graph = graph.with_nodes({"fc2": Linear(holes)})
    x = sequence(graph, 30, 4) * (rng.random((30, 4, 6)) < 0.4)
    run = Reference(graph).run(x)
    acs = sum((holes[:, j] != 0).sum() for *_, j in np.argwhere(run.spikes["lif1"]))
    by_node = run.counts.by_node
    assert (by_node["fc1"].macs, by_node["fc1"].acs) == (np.count_nonzero(x) * 12, 0)
    assert (by_node["fc2"].acs, by_node["fc2"].macs) == (acs, 0)
    assert by_node["fc3"].acs == run.spikes["lif2"].sum() * 4
    assert by_node["fc2"].dense_macs == 30 * 4 * 12 * 9
    assert by_node["lif1"].spikes == run.spikes["lif1"].sum()
    assert by_node["lif1"].rate == run.spikes["lif1"].mean()
    assert run.counts.total.acs == acs + by_node["fc3"].acs


def test_spiking_input_costs_acs():
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 10, 2)
    done = Reference(graph).run(x).counts.by_node["fc1"]
    assert (done.acs, done.macs) == (x.sum() * 12, 0)


def test_state_updates_are_counted_apart():
    nodes = {
        "input": Input((3,)), "fc": linear(np.random.default_rng(0), 3, 3), "n": lif(0.5, 0.1, gain="1-beta"),
        "scale": Scale(np.float64(2)), "norm": BatchNorm(*np.ones((4, 3))), "f": Activation("tanh"),
        "li": LI(beta=np.float64(0.5)), "output": Output(),
    }  # fmt: skip
    names = list(nodes)
    edges = [Edge(a, b) for a, b in itertools.pairwise(names)] + [Edge("input", "n")]
    run = Reference(Graph(nodes, edges)).run(np.ones((5, 2, 3)))
    slots, spikes = 30, int(run.spikes["n"].sum())
    assert spikes > 0
    updates = {name: done.updates for name, done in run.counts.by_node.items()}
    assert updates["fc"] == {"bias": slots}
    assert updates["n"] == {
        "decay": slots, "integrate": slots, "scale": slots, "compare": slots, "reset": spikes, "join": slots,
    }  # fmt: skip
    assert updates["scale"] == {"scale": spikes}
    assert updates["norm"] == {"norm": slots}
    assert updates["f"] == {"activation": slots}
    assert updates["li"] == {"decay": slots, "integrate": slots}


def test_a_chain_of_linears_multiplies():
    rng = np.random.default_rng(0)
    graph = chain(input=Input((3,), Kind.SPIKE), a=linear(rng, 3, 5), b=linear(rng, 5, 2), output=Output())
    by_node = Reference(graph).run(np.ones((4, 2, 3))).counts.by_node
    assert (by_node["a"].acs, by_node["b"].macs) == (4 * 2 * 15, 4 * 2 * 10)


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups"), [(1, 0, 1, 1), (2, 1, 2, 2), ((2, 3), (1, 2), 1, 1)]
)
def test_a_convolution_costs_the_nonzero_weights_that_each_event_meets(stride, padding, dilation, groups):
    rng = np.random.default_rng(3)
    weight = rng.normal(size=(4, 4 // groups, 3, 2)) * (rng.random((4, 4 // groups, 3, 2)) < 0.6)
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    conv = Conv2d(weight=weight, bias=np.ones(4), **settings)
    graph = chain(input=Input((4, 9, 11), Kind.SPIKE), conv=conv, output=Output())
    x = sequence(graph, 3, 2)
    done = Reference(graph).run(x).counts.by_node["conv"]
    # the same convolution of ones with ones counts what meets
    ones = chain(
        input=Input((4, 9, 11)), conv=Conv2d(weight=(weight != 0) * 1.0, **settings), output=Output()
    )
    met = Reference(ones).run(x * 1.0).outputs
    assert (done.acs, done.macs) == (int(met.sum()), 0)
    assert done.dense_macs == met.size * weight[0].size
    assert done.updates == {"bias": met.size}


def test_a_pool_counts_what_each_event_adds():
    graph = chain(input=Input((2, 4, 5), Kind.SPIKE), pool=AvgPool2d(kernel=2, stride=1), output=Output())
    x = np.zeros((1, 1, 2, 4, 5), bool)
    x[0, 0, 0, 0, 0] = x[0, 0, 1, 2, 2] = True  # a corner stands in one window, the other in four
    assert Reference(graph).run(x).counts.by_node["pool"].updates == {"pool": 5, "scale": 5}


def test_a_memory_costs_what_is_written_and_what_fires():
    rng = np.random.default_rng(4)
    kinds = {}
    for decay in ("dense", "scalar"):
        node = AssociativeMemory(
            threshold=np.float64(0.2), queries=3, trained_reset="none", decay=decay, bound=0.1
        )
        graph, _ = memory_graph(node, 4, 5, 3)
        x = rng.normal(size=(30, 2, graph.signals["input"].shape[0]))
        x[..., :9] *= rng.random((30, 2, 9)) < 0.4
        x[..., 9:14] = 0.3
        run = Reference(graph).run(x)
        writes = (np.count_nonzero(x[..., :4], axis=-1) * np.count_nonzero(x[..., 4:9], axis=-1)).sum()
        fired = run.spikes["node"].sum()
        done = run.counts.by_node["node"]
        assert fired > 0
        assert (done.spikes, done.slots) == (fired, 30 * 2 * 20)
        assert (done.updates["write"], done.updates["read"]) == (writes, fired * 3)
        kinds[decay] = done.updates, writes, fired, np.count_nonzero(x[..., 4:9])
    dense, *_ = kinds["dense"]
    assert (dense["decay"], dense["compare"]) == (30 * 2 * 20, 30 * 2 * 20)
    scalar, writes, fired, keys = kinds["scalar"]
    # decays of 0.3 fall below 0.1 with every second step, from the first step after the one that starts them
    assert scalar == {
        "write": writes, "read": fired * 3, "decay": 30 * 2 * 5, "scale": keys, "compare": writes + fired,
        "rescale": 2 * 5 * 14 * 4,
    }  # fmt: skip


def test_a_filter_counts_the_products_of_its_modes():
    node = DiagonalSSM(a=np.full((3, 4, 2), 0.5), c=np.ones((3, 4, 2)), d=np.ones(3))
    graph = chain(input=Input((3,)), ssm=node, output=Output())
    done = Reference(graph).run(np.ones((5, 2, 3))).counts.by_node["ssm"]
    assert done.updates == {"ssm": 5 * 2 * 3 * 25}
    assert done.state_accesses == 5 * 2 * 3 * 16


def told_apart(counts: Counts) -> list[dict]:
    return [{name: done.to_json() for name, done in counts.sample(b).items()} for b in range(counts.samples)]


def whole(graph: Graph, x) -> Counts:
    return EventDriven(graph).run(x, record=False).counts


@given(graphs(), st.sampled_from([1, 63, 100]), st.integers(1, 3), st.sampled_from([0.0, 0.3]))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_samples_of_every_graph_are_told_apart_and_sum_up(graph, steps, samples, rate):
    x = sequence(graph, steps, samples, rate=rate)
    counts = whole(graph, x)
    assert sum(counts.per_sample, Operations()) == counts.total
    for b in range(samples):
        alone = whole(graph, x[:, b : b + 1])
        assert alone.per_sample == [counts.per_sample[b]]
        assert alone.by_node == counts.sample(b)


@pytest.mark.parametrize(
    "name", ["images-zero", "loop-of-three", "cuba-zero", "adaptive-none", "threshold", "delay"]
)
def test_every_counting_executor_gives_the_same_numbers(name):
    graph = DEPLOYED[name]().astype(np.float64)
    x = drive(graph, 63, 3)
    truth = Reference(graph).run(x).counts
    for counts in (
        whole(graph, x),
        EventDriven(graph, threads=2).run(x).counts,
        OnnxStep(graph).run(x).counts,
        OnnxScan(graph).run(x).counts,
    ):
        assert counts.by_node == truth.by_node
        assert counts.peaks == truth.peaks
        assert told_apart(counts) == told_apart(truth)


def test_peaks_are_the_most_events_of_one_step_and_sample():
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 40, 3)
    run = EventDriven(graph).run(x)
    sent = {name: fired.reshape(40, 3, -1).sum(axis=-1) for name, fired in {"input": x, **run.spikes}.items()}
    assert set(sent) == set(origins(graph)) <= set(senders(graph))
    for name, many in sent.items():
        assert run.counts.peaks.nodes[name] == many.max() > 0
    assert run.counts.peaks.graph == sum(sent.values()).max()


def test_graded_numbers_and_a_real_input_have_peaks_too():
    graph = chain(input=Input((4,)), n=lif(0.5, 0.1), scale=Scale(np.float64(2)), output=Output())
    x = np.array([[[1, 0, 0, 0]], [[1, 2, 3, 0]], [[0, 0, 0, 0]]], float)
    for runner in (EventDriven, Reference):
        assert runner(graph).run(x).counts.peaks.nodes == {"input": 3, "n": 3, "scale": 3, "output": 3}


@pytest.mark.parametrize("cut", [1, 30, 50])
def test_a_sequence_cut_in_two_and_samples_side_by_side_are_one_run(cut):
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 100, 4)
    executor = EventDriven(graph)
    wanted = whole(graph, x)
    first = executor.run(x[:cut])
    second = executor.run(x[cut:], first.state)
    beside = whole(graph, x[:, :1]) + whole(graph, x[:, 1:])
    for got in (first.counts.then(second.counts), beside):
        assert (got.steps, got.samples) == (100, 4)
        assert got.peaks == wanted.peaks
        assert got.by_node == wanted.by_node
        assert told_apart(got) == told_apart(wanted)
        assert got.to_json(samples=True) == wanted.to_json(samples=True)


def test_sparsity_is_the_share_of_zeros():
    graph = two_layers(kind=Kind.SPIKE)
    pruned = graph.nodes["fc2"].weight * (np.arange(12) < 3)
    graph = graph.with_nodes({"fc2": Linear(pruned)})
    run = EventDriven(graph).run(sequence(graph, 50, 2))
    assert run.counts.weight_sparsity["fc2"] == 0.75
    assert run.counts.weight_sparsity["fc1"] == 0
    assert run.counts.activation_sparsity["lif1"] == pytest.approx(1 - run.spikes["lif1"].mean(), abs=1e-15)
    assert "fc1" not in run.counts.activation_sparsity
    document = run.counts.to_json()
    assert document["sparsity"] == {
        "activations": run.counts.activation_sparsity,
        "weights": run.counts.weight_sparsity,
    }


def test_reads_and_writes_of_states_are_counted_apart():
    graph = chain(input=Input((3,), Kind.SPIKE), n=lif(0.5, 0.1), output=Output())
    done = whole(graph, np.ones((5, 2, 3))).by_node["n"]
    assert (done.state_reads, done.state_writes, done.state_accesses, done.neurons) == (30, 30, 60, 30)
    assert (done.events_in, done.events_out) == (30, done.spikes)


def test_sums_that_do_not_tell_samples_apart_say_so():
    graph = two_layers()
    counts = whole(graph, sequence(graph, 5, 2))
    summed = Counts(graph, counts.events, 5, 2)
    with pytest.raises(InvalidInput, match="sums over 2 samples"):
        _ = summed.per_sample
    assert (summed + counts).each is None
    assert summed.to_json(samples=True)["each"] is None
    with pytest.raises(InvalidInput, match="no sample 2"):
        counts.sample(2)
