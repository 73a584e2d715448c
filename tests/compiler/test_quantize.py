"""Whole numbers for every node: exact where numbers are on the grid, within a derived bound where they are not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import PARTS, chain, graphs, lif, linear, sequence, two_layers
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.fixed import Fixed
from unscan.compiler.formats import formats
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LI,
    SPIKING,
    Activation,
    AdaptiveLIF,
    AssociativeMemory,
    AvgPool2d,
    Conv2d,
    CubaLIF,
    Delay,
    DeltaMemory,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerLIF,
    IntegerMemory,
    LayerNorm,
    Linear,
    Output,
    RMSNorm,
    Shift,
)
from unscan.compiler.nodes.neurons import FIRES, PHASES, RESETS
from unscan.compiler.passes import Quantize, Range
from unscan.compiler.pipeline import run
from unscan.compiler.profiles import PROFILES
from unscan.compiler.storage import load
from unscan.runtime.agreement import in_units_of
from unscan.runtime.executors import executor
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import ranges
from unscan.runtime.quantisation import cost_of_rounding, decoded

EACH = pytest.mark.parametrize("profile", PROFILES)
LARGEST = {"loihi2": 254, "int8": 127, "int16": 32767}
REFUSED = (LayerNorm, RMSNorm, AdaptiveLIF, DeltaMemory)


def quantised(graph: Graph, profile: str, x, **options) -> Graph:
    return run(graph, [Quantize(profile, ranges(x), **options)])


def on_grid(rng, shape, profile):
    """Whole weights of both signs that a profile holds as they are."""
    largest = LARGEST[profile]
    weight = 2.0 * rng.integers(-largest // 4, largest // 4, shape)
    weight.reshape(len(weight), -1)[:, 0] = largest
    weight.reshape(len(weight), -1)[:, -1] = -2
    return weight


def assert_exact(before: Graph, after: Graph, x, *, off: float = 0.0) -> None:
    """Assert the same spikes, from membranes that are the model's in other units, up to a number of these."""
    a, b = in_units_of(after, None, Reference(before).run(x)), Reference(after).run(x)
    for name in before.of(*SPIKING):
        assert a.spikes[name].any()
        np.testing.assert_array_equal(a.spikes[name], b.spikes[name])
        assert np.abs(a.membranes[name] - b.membranes[name]).max() <= off
    np.testing.assert_array_equal(a.outputs, decoded(after, b.outputs))


@EACH
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("fires", FIRES)
def test_numbers_on_the_grid_stay_exactly_what_they_are_and_ties_too(profile, reset, phase, fires):
    rng = np.random.default_rng(0)
    theta = 2.0 * rng.integers(10, 40, 8)
    options = {"reset": reset, "phase": phase, "fires": fires}
    before = chain(
        input=Input((5,), Kind.SPIKE), fc1=Linear(on_grid(rng, (8, 5), profile)), lif1=lif(1.0, theta, **options),
        fc2=Linear(on_grid(rng, (6, 8), profile)), lif2=lif(0.0, 20.0, **options), output=Output(),
    )  # fmt: skip
    x = sequence(before, 63, 3)
    left = reset == "subtract" and fires == ">="
    if left and profile == "loihi2":
        before = before.with_nodes(
            {name: replace(before.nodes[name], fires=">") for name in ("lif1", "lif2")}
        )
    after = quantised(before, profile, x, headroom=1.0)
    assert_exact(before, after, x, off=63 if left and profile != "loihi2" else 0)  # 1 is left at each spike


@EACH
def test_recurrent_layers_and_several_edges_share_one_scale(profile):
    rng = np.random.default_rng(1)
    nodes = {
        "input": Input((5,), Kind.SPIKE), "fc": Linear(on_grid(rng, (6, 5), profile)), "lif": lif(1.0, 30.0),
        "back": Linear(on_grid(rng, (6, 6), profile)),
        "delay": Delay(steps=np.float64(1), shape=(6,), kind=Kind.SPIKE), "output": Output(),
    }  # fmt: skip
    edges = [
        ("input", "fc"),
        ("fc", "lif"),
        ("lif", "delay"),
        ("delay", "back"),
        ("back", "lif"),
        ("lif", "output"),
    ]
    before = Graph(nodes, [Edge(*pair) for pair in edges])
    x = sequence(before, 63, 3)
    after = quantised(before, profile, x, headroom=1.0)
    assert after.nodes["back"].weight.dtype.kind == "i"
    assert_exact(before, after, x)


@EACH
def test_convolutions_have_a_scale_for_each_channel_and_means_become_sums(profile):
    rng = np.random.default_rng(2)
    kernel = on_grid(rng, (3, 2, 3, 3), profile)
    kernel[1] /= 2
    before = chain(
        input=Input((2, 6, 6), Kind.SPIKE), conv=Conv2d(weight=kernel, padding=1), lif1=lif(1.0, 64.0),
        pool=AvgPool2d(kernel=2, stride=2), conv2=Conv2d(weight=4 * on_grid(rng, (2, 3, 2, 2), profile)),
        lif2=lif(0.0, 128.0), flat=Flatten(), output=Output(),
    )  # fmt: skip
    x = sequence(before, 40, 2)
    after = quantised(before, profile, x, headroom=1.0)
    assert np.ravel(after.meta["units"]["lif1"]).shape == (3,)
    assert_exact(before, after, x)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(3))
def test_membranes_without_reset_stay_within_what_rounding_can_do(profile, seed):
    """u_int / K is off by what weights, bias, decay and truncation are off at each step, which decays along."""
    rng = np.random.default_rng(seed)
    weight, beta = rng.normal(0, 0.4, (7, 9)), rng.uniform(0.3, 0.95, 7)
    before = chain(
        input=Input((9,), Kind.SPIKE), fc=Linear(weight, rng.normal(0, 0.1, 7)),
        lif=lif(beta, 1.0, reset="none"), output=Output(),
    )  # fmt: skip
    x = sequence(before, 100, 4)
    after = quantised(before, profile, x)
    neuron = after.nodes["lif"]
    K = np.asarray(after.meta["units"]["lif"])
    q = K / 2.0**neuron.shift
    moved = neuron.beta / 2.0**neuron.decay_bits
    a, b = Reference(before).run(x), Reference(after).run(x)
    assert not b.counts.tallies["lif"]["saturated"]
    off_weights = np.abs(after.nodes["fc"].weight / q[:, None] - weight).sum(axis=1)
    off_bias = np.abs(neuron.bias / K - before.nodes["fc"].bias)
    off_decay = np.abs(moved - beta) * np.abs(a.membranes["lif"]).max(axis=(0, 1))
    bound = (off_weights + off_bias + off_decay + 1 / K) / (1 - moved) + 1e-9
    off = np.abs(b.membranes["lif"] / K - a.membranes["lif"])
    assert np.all(off <= bound)
    near = np.abs(a.membranes["lif"] - 1.0) <= bound + PROFILES[profile].unit / K
    assert np.all((a.spikes["lif"] == b.spikes["lif"]) | near)


@EACH
def test_whole_numbers_stay_within_their_formats(profile):
    before = two_layers()
    x = sequence(before, 63, 4)
    after = quantised(before, profile, x)
    widths = PROFILES[profile]
    made = Reference(after).run(x)
    assert all(Fixed(widths.state_bits).allowed(state) for state in made.state.values())
    for name in ("lif1", "lif2"):
        node = after.nodes[name]
        assert node.bits == widths.state_bits
        assert np.all(node.threshold % widths.unit == 0)
        assert np.all(node.bias % widths.unit == 0)
    assert after.nodes["fc2"].bias is None
    assert np.abs(after.nodes["fc2"].weight.astype(int)).max() <= LARGEST[profile]
    if widths.even:
        assert not np.any(after.nodes["fc2"].weight % 2)
    found = decoded(after, made.outputs)
    wanted = Reference(before).run(x).outputs
    assert cost_of_rounding(after, Reference(before).run(x), made).total.f1 > 0.9
    assert np.corrcoef(found.ravel(), wanted.ravel())[0, 1] > 0.99
    assert after.nodes["readout"].fraction == np.log2(after.meta["quantised"]["output"])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(tuple(part for part in PARTS if part not in REFUSED)), st.sampled_from(list(PROFILES)))
def test_any_graph_becomes_whole_numbers_or_is_refused_by_name(graph, profile):
    x, digest = sequence(graph, 30, 2), graph.digest
    try:
        after = quantised(graph, profile, x)
    except Unsupported as fault:
        assert "cannot become whole numbers" in str(fault)  # noqa: PT017
        return
    assert Graph(graph.nodes, graph.edges).digest == digest
    if not after.integer:  # nothing in it has a number of its own
        return
    assert set(after.of(*SPIKING)) >= set(graph.of(*SPIKING))
    made = Reference(after).run(x)
    found = formats(after)
    assert found[after.of(Output)[0]].allowed(made.outputs)
    cost = cost_of_rounding(after, in_units_of(after, None, Reference(graph).run(x)), made)
    if profile == "int16" and not graph.recurrent and cost.total.spikes_a > 500:
        assert (
            cost.total.f1 > 0.95
        )  # 14 bits leave less than that near a threshold; loops amplify any difference


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(tuple(part for part in PARTS if part not in REFUSED)), st.sampled_from(list(PROFILES)))
def test_the_event_executor_runs_what_was_quantised_bit_for_bit(graph, profile):
    x = sequence(graph, 20, 2)
    try:
        after = quantised(graph, profile, x)
    except Unsupported:
        return
    a, b = Reference(after).run(x), executor("event", after).run(x)
    np.testing.assert_array_equal(a.outputs, b.outputs)
    for name, state in a.state.items():
        np.testing.assert_array_equal(state, b.state[name])


def soft(phase: str, beta: float) -> tuple[Graph, np.ndarray]:
    rng = np.random.default_rng(4)
    weight = on_grid(rng, (6, 5), "loihi2")
    before = chain(
        input=Input((5,), Kind.SPIKE), fc=Linear(weight), lif=lif(beta, 40.0, "subtract", phase=phase, fires=">"),
        output=Output(),
    )  # fmt: skip
    return before, sequence(before, 63, 2)


def test_a_reset_by_recurrent_weights_is_that_of_the_next_step():
    before, x = soft("next", 1.0)
    after = quantised(before, "loihi2", x, soft_reset="recurrent")
    assert isinstance(after.nodes["lif"], IntegerCubaLIF)
    assert np.diag(after.nodes["lif.reset"].weight).tolist() == [-40] * 6
    assert_exact(before, after, x)


def test_a_reset_by_recurrent_weights_comes_late_where_the_model_resets_at_once_and_says_so():
    before, x = soft("now", 0.75)
    after = quantised(before, "loihi2", x, soft_reset="recurrent")
    assert any("one step later" in line for line in after.history)
    assert isinstance(quantised(before, "loihi2", x).nodes["lif"], IntegerLIF)


def memory(decay: str) -> Graph:
    rng = np.random.default_rng(5)
    nodes = {"input": Input((4,))}
    edges = []
    for port, width in {"v": 5, "k": 3, "alpha": 3, "q": 6}.items():
        nodes[port] = Linear(rng.normal(0, 0.6, (width, 4)), rng.normal(0, 0.3, width))
        edges += [Edge("input", port)]
    nodes |= {
        "sigmoid": Activation("sigmoid"),
        "memory": AssociativeMemory(threshold=np.float64(0.5), queries=2, trained_reset="none", decay=decay),
        "fc": linear(rng, 10, 3), "output": Output(),
    }  # fmt: skip
    edges += [
        Edge("alpha", "sigmoid"),
        Edge("sigmoid", "memory", "alpha"),
        Edge("memory", "fc"),
        Edge("fc", "output"),
    ]
    return Graph(nodes, [*edges, *(Edge(port, "memory", port) for port in ("v", "k", "q"))])


@EACH
def test_a_memory_has_one_meaning_however_it_decays(profile):
    dense, scalar = memory("dense"), memory("scalar")
    x = sequence(dense, 63, 3)
    found = [quantised(graph, profile, x) for graph in (dense, scalar)]
    assert found[0] == found[1]
    assert any("which scalar decay equals" in line for line in found[1].history)
    made = found[0].nodes["memory"]
    assert isinstance(made, IntegerMemory)
    assert made.bits == PROFILES[profile].wide_bits
    cost = cost_of_rounding(found[0], Reference(dense).run(x), Reference(found[0]).run(x))
    assert cost.total.f1 > 0.97


def test_residual_sums_are_added_in_one_unit():
    rng = np.random.default_rng(6)
    nodes = {
        "input": Input((4,)), "fc": linear(rng, 4, 6), "lif": lif(0.5, 0.5), "mix": linear(rng, 6, 6),
        "readout": linear(rng, 6, 2), "output": Output(),
    }  # fmt: skip
    edges = [
        ("input", "fc"),
        ("fc", "lif"),
        ("lif", "mix"),
        ("fc", "readout"),
        ("mix", "readout"),
        ("readout", "output"),
    ]
    before = Graph(nodes, [Edge(*pair) for pair in edges])
    x = sequence(before, 30, 2)
    after = quantised(before, "int16", x)
    fractions = {after.nodes[edge.source].fraction for edge in after.into("readout")}
    assert len(fractions) == 1
    assert all(isinstance(after.nodes[edge.source], Shift) for edge in after.into("readout"))
    found = decoded(after, Reference(after).run(x).outputs)
    np.testing.assert_allclose(found, Reference(before).run(x).outputs, atol=0.02)


def test_a_graph_of_whole_numbers_is_stored_with_its_scales(tmp_path):
    before = two_layers()
    after = quantised(before, "loihi2", sequence(before, 30, 2))
    after.save(tmp_path / "q.unscan")
    assert load(tmp_path / "q.unscan") == after
    assert load(tmp_path / "q.unscan").meta["quantised"] == after.meta["quantised"]


def with_node(**nodes) -> Graph:
    return chain(input=Input((6,)), fc=linear(np.random.default_rng(0), 6, 6), **nodes, output=Output())


def test_what_has_no_meaning_in_whole_numbers_is_refused_with_a_remedy():
    ones = np.ones(6)
    neuron = {"beta": np.float64(0.9), "threshold": np.float64(1.0), "trained_reset": "zero"}
    for graph, said in (
        (with_node(norm=LayerNorm(ones)), "LayerNorm 'norm' .* train with BatchNorm"),
        (with_node(norm=RMSNorm(ones)), "RMSNorm 'norm' .* train with BatchNorm"),
        (
            with_node(n=AdaptiveLIF(**neuron, kappa=np.float64(1), rho=np.float64(0.9))),
            "AdaptiveLIF 'n' .* train a Leaky",
        ),
    ):
        with pytest.raises(Unsupported, match=said):
            quantised(graph, "int8", sequence(graph, 5, 1))


def test_a_gain_that_differs_within_a_channel_is_refused():
    graph = chain(
        input=Input((1, 4, 4), Kind.SPIKE), conv=Conv2d(weight=np.ones((2, 1, 2, 2))),
        lif=lif(np.random.default_rng(0).uniform(0, 1, (2, 3, 3)), 1.0, gain="1-beta"), output=Output(),
    )  # fmt: skip
    with pytest.raises(Unsupported, match="input gain 1 - beta differs"):
        quantised(graph, "int8", sequence(graph, 5, 1))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": "int3"}, "no profile 'int3'"),
        ({"headroom": 0.5}, "headroom 0.5"),
        ({"soft_reset": "late"}, "soft reset 'late'"),
    ],
)
def test_options_that_are_none_are_refused(options, said):
    with pytest.raises(InvalidInput, match=said):
        Quantize(**{"profile": "int8", "ranges": lambda graph: {}} | options)


def test_ranges_that_lack_a_node_or_are_not_finite_are_refused():
    graph = two_layers()
    measured = ranges(sequence(graph, 5, 1))(graph)
    lacking = {name: found for name, found in measured.items() if name != "fc1"}
    with pytest.raises(InvalidInput, match="lack 'fc1'"):
        run(graph, [Quantize("int8", lambda _: lacking)])
    endless = measured | {"fc1": Range(np.zeros(12), np.full(12, np.inf))}
    with pytest.raises(InvalidInput, match="fc1 reached numbers that are not finite"):
        run(graph, [Quantize("int8", lambda _: endless)])


def test_whole_numbers_are_not_quantised_again():
    graph = two_layers()
    x = sequence(graph, 5, 1)
    with pytest.raises(InvalidInput, match="whole numbers already"):
        quantised(quantised(graph, "int8", x), "int8", x)


def test_silent_layers_and_zero_weights_have_scales_all_the_same():
    graph = two_layers()
    graph = graph.with_nodes({"fc1": replace(graph.nodes["fc1"], weight=np.zeros((12, 6)), bias=None)})
    x = sequence(graph, 10, 2)
    for profile in PROFILES:
        made = Reference(quantised(graph, profile, x)).run(x)
        assert not made.spikes["lif1"].any()


def test_synaptic_currents_keep_the_bias_in_the_weights_and_integrators_one_scale():
    rng = np.random.default_rng(7)
    graph = chain(
        input=Input((5,), Kind.SPIKE), fc=linear(rng, 5, 6),
        cuba=CubaLIF(beta=np.float64(0.9), alpha=np.float64(0.5), threshold=np.float64(1.0), trained_reset="zero"),
        fc2=linear(rng, 6, 3), li=LI(beta=rng.uniform(0.5, 0.9, 3)), output=Output(),
    )  # fmt: skip
    x = sequence(graph, 30, 2)
    after = quantised(graph, "int8", x)
    assert after.nodes["fc"].bias is not None
    assert after.nodes["cuba"].bias is None
    assert after.nodes["fc2"].bias is None
    assert np.ndim(after.meta["units"]["li"]) == 0
