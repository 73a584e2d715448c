from dataclasses import replace

import numpy as np
import pytest

from tests.graphs import chain, lif, sequence, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.nodes import Input, Linear, Output
from unscan.compiler.passes import RestoreReset
from unscan.runtime.agreement import TIE, compare
from unscan.runtime.batches import batches
from unscan.runtime.decision import accuracy, decide
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.reference import Reference
from unscan.runtime.simulate import simulate
from unscan.runtime.stream import Stream
from unscan.runtime.verify import verify

GRAPH = chain(input=Input((3,)), a=lif(), b=lif(0.9, [0.5, 1.0, 2.0]), output=Output())


def execution(spikes: dict, membranes: dict | None = None) -> Execution:
    """An execution that recorded these spikes, with membranes far above or below the threshold by default."""
    recorded = {name: np.asarray(value, bool) for name, value in spikes.items()}
    membranes = membranes or {name: np.where(value, 9.0, -9.0) for name, value in recorded.items()}
    return Execution(recorded["b"].astype(float), recorded, membranes, {}, None)


def silent() -> dict:
    return {name: np.zeros((4, 2, 3), bool) for name in "ab"}


def test_precision_recall_and_f1_are_those_of_spikes():
    left, right = silent(), silent()
    left["a"][0, 0] = True
    right["a"][0, 0, :2] = True
    right["a"][1, 1, 0] = True
    left["b"][0, 0, 0] = right["b"][0, 0, 0] = True
    found = compare(GRAPH, execution(left), execution(right))
    layer = found.layers["a"]
    assert (layer.spikes_a, layer.spikes_b, layer.both, layer.slots) == (3, 3, 2, 24)
    assert (layer.precision, layer.recall, layer.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (layer.mismatches, layer.equality, layer.silence) == (2, 22 / 24, 21 / 24)
    assert found.layers["b"].f1 == 1
    assert found.total.f1 == 2 * 3 / 8
    assert not found.holds


def test_the_first_mismatch_says_where_and_how_far_from_the_threshold():
    left, right = silent(), silent()
    left["a"][3, 0, 1] = True
    right["b"][1, 1, 2] = True
    left["b"][0, 0, 0] = right["b"][0, 0, 0] = True
    a, b = execution(left), execution(right)
    a.membranes["b"][1, 1, 2], b.membranes["b"][1, 1, 2] = 1.25, 2.5
    first = compare(GRAPH, a, b).first
    assert (first.step, first.sample, first.node, first.neuron) == (1, 1, "b", (2,))
    assert (first.membrane_a, first.membrane_b, first.threshold, first.distance) == (1.25, 2.5, 2.0, 0.5)
    assert "step 1, sample 1, layer b, neuron 2" in str(first)


@pytest.mark.parametrize(("away", "tie"), [(0.4 * TIE, True), (1e-3, False)])
def test_a_sample_is_judged_by_where_it_parts_not_by_what_follows(away, tie):
    left, right = silent(), silent()
    for side in (left, right):
        side["a"][0, 1] = side["b"][0, 1] = True
    left["a"][1, 0, 1] = True
    right["b"][1, 0, 0] = True  # the same step, but a later layer: a consequence
    right["a"][2:, 0] = True
    a, b = execution(left), execution(right)
    a.membranes["a"][0, 0, 1] = b.membranes["a"][0, 0, 1] = 0.0
    a.membranes["a"][1, 0, 1], b.membranes["a"][1, 0, 1] = 1.0 + away, 1.0 - away
    found = compare(GRAPH, a, b)
    assert [m.tie for m in found.partings] == [tie]
    assert found.partings[0].node == "a"
    assert found.holds is tie


@pytest.mark.parametrize(("before", "tie"), [(0.5, False), (500.0, True)])
def test_rounding_explains_more_where_the_membrane_was_large(before, tie):
    left, right = silent(), silent()
    for side in (left, right):
        side["a"][0, 1] = side["b"][0, 1] = True
    left["a"][2, 0, 1] = True
    membranes = {name: np.full((4, 2, 3), 0.1) for name in "ab"}
    a, b = execution(left, membranes), execution(right, {name: m.copy() for name, m in membranes.items()})
    a.membranes["a"][:3, 0, 1] = [-before, 0.2, 1 + 1e-5]
    b.membranes["a"][:3, 0, 1] = [0.1, 0.2, 1 - 1e-5]
    a.membranes["a"][3, 0, 1] = 1e9  # comes later, so it excuses nothing
    first = compare(GRAPH, a, b).first
    large = max(before, 0.1) * 0.9**2 + 0.2 * 0.9 + 1 + 1e-5  # beta of the layer is 0.9
    assert first.rounding == pytest.approx(max(TIE, 2**-23 * 2 * large))
    assert first.tie is tie
    assert compare(GRAPH, a, b).near == 0  # 1e-5 from the threshold, whatever rounding explains


def test_rounding_explains_more_where_large_weights_cancel():
    weight = np.array([[30.0, -30.0, 0.0]])
    graph = chain(input=Input((3,)), a=lif(), fc=Linear(weight), b=lif(0.5), output=Output())
    sent = np.zeros((3, 1, 3), bool)
    sent[0, 0, :2] = True
    fired = {"a": sent, "b": np.zeros((3, 1, 1), bool)}
    membranes = {"a": np.ones((3, 1, 3)), "b": np.zeros((3, 1, 1))}
    a = execution(fired, membranes)
    b = execution({**fired, "b": np.array([False, True, False]).reshape(3, 1, 1)}, membranes)
    first = compare(graph, a, b).first
    assert first.node == "b"
    assert first.rounding == pytest.approx(2**-23 * 3**0.5 * 60 * 0.5)


def test_a_membrane_at_the_threshold_excuses_no_other_far_from_it():
    left, right = silent(), silent()
    left["a"][1, 0, 1] = True
    a, b = execution(left), execution(right)
    a.membranes["a"][:2, 0, 1], b.membranes["a"][:2, 0, 1] = [0.0, 1.0], [0.0, 0.2]
    first = compare(GRAPH, a, b).first
    assert first.distance == 0
    assert not first.tie
    assert compare(GRAPH, a, b).near == 1


def test_beside_a_tie_a_real_difference_counts():
    left, right = silent(), silent()
    for side in (left, right):
        side["a"][0, 1] = side["b"][0, 1] = True
    left["a"][1, 0, :2] = True
    a, b = execution(left), execution(right)
    a.membranes["a"][1, 0, 1], b.membranes["a"][1, 0, 1] = 1.0, 1.0 - 1e-9
    found = compare(GRAPH, a, b)
    assert found.first.neuron == (0,)
    assert not found.holds


def test_silence_is_an_error_of_its_own():
    left = silent()
    left["a"][0] = True
    found = compare(GRAPH, execution(left), execution(left))
    assert not found.partings
    assert found.silent == ["b"]
    assert np.isnan(found.layers["b"].f1)
    assert not found.holds


def test_what_was_not_recorded_cannot_be_compared():
    graph = two_layers()
    x = sequence(graph, 5, 2)
    run = Reference(graph).run(x)
    with pytest.raises(InvalidInput, match="'lif1' cannot be compared"):
        compare(graph, run, Reference(graph).run(x, record=False))
    with pytest.raises(InvalidInput, match=r"\(5, 2, 12\).*\(4, 2, 12\)"):
        compare(graph, run, Reference(graph).run(x[:4]))


def test_agreement_of_parts_is_agreement_of_the_whole():
    graph = two_layers("none")
    other = RestoreReset("zero").rewrite(graph).graph
    x = sequence(graph, 30, 7)
    whole = compare(graph, Reference(graph).run(x), Reference(other).run(x))
    parts = [
        compare(graph, Reference(graph).run(x[:, part]), Reference(other).run(x[:, part]))
        for part in (slice(0, 3), slice(3, 5), slice(5, 7))
    ]
    joined = parts[0] + parts[1] + parts[2]
    assert joined == whole
    assert whole.total.f1 < 1
    assert len(whole.partings) > 0


def test_batches_cover_the_samples_once(monkeypatch):
    import unscan.runtime.batches as module

    monkeypatch.setattr(module, "RECORDED_BYTES", 8 * 10 * 70 * 3)
    graph = two_layers()
    parts = list(batches(graph, 10, 8))
    assert len(parts) > 1
    assert np.concatenate([np.arange(8)[part] for part in parts]).tolist() == list(range(8))


@pytest.mark.parametrize("using", ["reference", "event"])
def test_simulate_in_parts_is_one_run(monkeypatch, using):
    graph = two_layers()
    x = sequence(graph, 20, 9)
    whole = simulate(graph, x, using=using)
    import unscan.runtime.batches as module

    monkeypatch.setattr(module, "RECORDED_BYTES", 8 * 20 * 70 * 4)
    parts = simulate(graph, x, using=using, record=False)
    np.testing.assert_allclose(parts.outputs, whole.outputs, rtol=0, atol=1e-14)
    assert parts.counts.total == whole.counts.total
    halves = simulate(graph, x[:7], using=using, record=False)
    rest = simulate(graph, x[7:], halves.state, using=using, record=False)
    np.testing.assert_allclose(rest.outputs, whole.outputs[7:], rtol=0, atol=1e-14)


@pytest.mark.parametrize("using", ["reference", "event", "onnx", "onnx-scan"])
def test_a_stream_is_a_run_step_by_step(using):
    graph = two_layers()
    x = sequence(graph, 20, 1)
    stream = Stream(graph, using=using)
    whole = Reference(graph).run(x).outputs
    np.testing.assert_allclose([stream.step(x_t[0]) for x_t in x], whole[:, 0], rtol=0, atol=1e-12)
    stream.reset()
    np.testing.assert_allclose([stream.step(x_t) for x_t in x], whole, rtol=0, atol=1e-12)


def test_unknown_executors_and_decisions_are_refused():
    with pytest.raises(InvalidInput, match="'gpu'; choose one of reference, event"):
        simulate(two_layers(), np.zeros((1, 1, 6)), using="gpu")
    with pytest.raises(InvalidInput, match="last, mean"):
        decide(np.zeros((1, 1, 2)), "first")


def test_decisions():
    outputs = np.array([[[0.0, 5.0]], [[1.0, 0.0]]])
    assert decide(outputs, "last") == [0]
    assert decide(outputs, "mean") == [1]
    assert accuracy(outputs, np.array([1]), "mean") == 1.0


def test_equal_membranes_on_other_sides_of_other_thresholds_are_no_tie():
    graph = two_layers()
    lower = graph.with_nodes({"lif1": replace(graph.nodes["lif1"], threshold=np.float64(0.35))})
    x = sequence(graph, 30, 3)
    found = compare(lower, Reference(graph).run(x), Reference(lower).run(x), x=x)
    assert found.partings
    assert not found.ties
    assert not found.holds
    assert found.first.membrane_a == found.first.membrane_b


def test_another_readout_of_the_same_spikes_does_not_hold():
    graph = two_layers()
    read = graph.nodes["fc3"]
    other = graph.with_nodes({"fc3": replace(read, weight=read.weight * 1.01)})
    x = sequence(graph, 30, 3)
    for deployed, same in ((graph, True), (other, False)):
        found = verify(graph, deployed, x, ["reference"], precisions=[64]).comparisons[0]
        assert found.agreement.total.f1 == 1
        assert found.holds is same
