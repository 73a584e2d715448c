"""A stream: one step at a time, against the reference's run; its state, its events, its refusals."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import chain, graphs, lif, linear, sequence, two_layers
from tests.integers import integer_network, numbers_for, spikes_for, state_space_network
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Embedding, Flatten, Input, Output
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.reference import Reference
from unscan.runtime.simulate import after
from unscan.runtime.stream import Stream

USING = ["event", "reference", "c", "onnx", "onnx-scan"]


@pytest.mark.parametrize("using", USING)
@pytest.mark.parametrize("kind", [Kind.SPIKE, Kind.REAL])
@pytest.mark.parametrize("batch", [1, 3])
def test_steps_are_a_run(using, kind, batch):
    graph = two_layers(kind=kind)
    x = sequence(graph, 63, batch)
    stream, whole = Stream(graph, using=using), Reference(graph).run(x)
    outputs = np.stack([stream.step(x_t) for x_t in x])
    np.testing.assert_allclose(outputs, whole.outputs, rtol=0, atol=1e-12)
    assert stream.state.keys() == whole.state.keys()
    for name, value in stream.state.items():
        np.testing.assert_allclose(value, whole.state[name], rtol=0, atol=1e-12)


@given(graphs(), st.integers(0, 2**16))
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_node_steps_as_it_runs(graph, seed):
    x = sequence(graph, 9, 2, seed)
    runner, stream, state, counts = EventDriven(graph), Stream(graph), None, None
    for x_t in x:
        run = runner.run(x_t[None], state, record=False)
        state, counts = run.state, after(counts, run.counts) if counts else run.counts
        np.testing.assert_array_equal(stream.step(x_t), run.outputs[0])
    for name, value in stream.state.items():
        np.testing.assert_array_equal(value, state[name])
    assert stream.counts.to_json() == counts.to_json()


def test_whole_numbers_bit_for_bit():
    graph = state_space_network()
    x = numbers_for(graph, 100, 1)
    stream, whole = Stream(graph), Reference(graph).run(x)
    np.testing.assert_array_equal(np.stack([stream.step(x_t[0]) for x_t in x]), whole.outputs[:, 0])
    for name, value in stream.state.items():
        np.testing.assert_array_equal(value, whole.state[name])
    assert stream.counts.total == whole.counts.total


@pytest.mark.parametrize("using", USING)
def test_a_stream_goes_on_where_another_stopped(using):
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 40, 1)
    whole = Reference(graph).run(x).outputs
    first = Stream(graph, using=using)
    begun = [first.step(x_t[0]) for x_t in x[:15]]
    second = Stream(graph, using=using, state=first.state)
    np.testing.assert_allclose(
        [*begun, *(second.step(x_t[0]) for x_t in x[15:])], whole[:, 0], rtol=0, atol=1e-12
    )
    kept = first.state
    first.reset()
    np.testing.assert_allclose([first.step(x_t) for x_t in x[:15]], whole[:15], rtol=0, atol=1e-12)
    first.reset(kept)
    np.testing.assert_allclose(first.step(x[15]), whole[15], rtol=0, atol=1e-12)


@pytest.mark.parametrize("using", USING)
def test_events_are_the_spikes_of_a_step(using):
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 63, 1)
    whole, stream = Reference(graph).run(x).outputs[:, 0], Stream(graph, using=using)
    outputs = [stream.step_events(np.flatnonzero(x_t)[::-1]) for x_t in x]
    np.testing.assert_allclose(outputs, whole, rtol=0, atol=1e-12)
    stream.reset()
    mixed = [
        stream.step_events(np.flatnonzero(x_t).tolist()) if t % 2 else stream.step(x_t[0])
        for t, x_t in enumerate(x)
    ]
    np.testing.assert_allclose(mixed, whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("using", ["event", "c", "onnx"])
def test_any_number_format_of_the_input(using, dtype):
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 20, 1)
    stream, whole = Stream(graph, using=using), Reference(graph).run(x).outputs
    np.testing.assert_allclose([stream.step(x_t.astype(dtype)) for x_t in x], whole, rtol=0, atol=1e-12)


def test_what_a_step_returned_is_kept():
    graph = two_layers()
    x = sequence(graph, 2, 1)
    stream = Stream(graph)
    first = stream.step(x[0, 0])
    copy = first.copy()
    stream.step(x[1, 0])
    np.testing.assert_array_equal(first, copy)


@pytest.mark.parametrize("using", USING)
@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full(6, 0.5), "takes spikes .* got other numbers"),
        (np.array([0, 1, 2, 0, 0, 0], np.uint8), "takes spikes .* got other numbers"),
        (np.array([0, 1, np.nan, 0, 0, 0]), "not finite"),
        (np.zeros(5), r"shape \(1, 5\)|shape \(5,\)"),
        (np.zeros((2, 2, 6)), r"shape \(2, 2, 6\)"),
        (0.0, r"shape \(\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(using, x, message):
    graph = two_layers(kind=Kind.SPIKE)
    stream, good = Stream(graph, using=using), sequence(graph, 8, 1)
    for x_t in good[:4]:
        stream.step(x_t[0])
    with pytest.raises(InvalidInput, match=message):
        stream.step(x)
    outputs = [stream.step(x_t[0]) for x_t in good[4:]]
    np.testing.assert_allclose(outputs, Reference(graph).run(good).outputs[4:, 0], rtol=0, atol=1e-12)


def test_a_bad_sample_of_a_batch_changes_nothing():
    graph = two_layers()
    stream, good = Stream(graph), sequence(graph, 2, 3)
    stream.step(good[0])
    bad = good[1].copy()
    bad[2, 0] = np.inf
    with pytest.raises(InvalidInput, match="not finite"):
        stream.step(bad)
    np.testing.assert_allclose(stream.step(good[1]), Reference(graph).run(good).outputs[1], atol=1e-12)


def test_numbers_beyond_the_format():
    stream = Stream(two_layers(dtype=np.float32))
    with pytest.raises(InvalidInput, match="beyond the range of float32"):
        stream.step(np.full(6, 1e300))


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ([6], "neurons from 6 to 6; .* has 0 to 5"),
        ([0, -1], "neurons from -1 to 0"),
        ([2, 3, 2], "neuron 2 2 times in one step"),
        ([0.0, 1.0], "dtype float64, wanted whole numbers"),
        ([[0, 1]], r"shape \(1, 2\)"),
    ],
)
def test_events_that_are_none(neurons, message):
    with pytest.raises(InvalidInput, match=message):
        Stream(two_layers(kind=Kind.SPIKE)).step_events(neurons)


def test_events_are_for_graphs_that_take_spikes():
    with pytest.raises(
        InvalidInput, match="step_events sends spikes, and the input of this graph carries real"
    ):
        Stream(two_layers()).step_events([0])


def test_events_of_an_input_with_axes():
    rng = np.random.default_rng(0)
    graph = chain(
        i=Input((2, 3, 4), Kind.SPIKE), flat=Flatten(), f=linear(rng, 24, 5), n=lif(threshold=0.5), o=Output()
    )
    x = sequence(graph, 20, 1)
    whole = Reference(graph).run(x).outputs[:, 0]
    assert whole.any()
    for using in ("event", "onnx"):
        stream = Stream(graph, using=using)
        np.testing.assert_array_equal([stream.step_events(np.flatnonzero(x_t)) for x_t in x], whole)


def test_another_batch_needs_a_reset():
    stream = Stream(two_layers())
    stream.step(np.zeros((3, 6)))
    with pytest.raises(InvalidInput, match="got 2 samples after steps of 3, whose state it keeps; reset it"):
        stream.step(np.zeros((2, 6)))
    stream.reset()
    assert stream.step(np.zeros(6)).shape == (4,)


def test_a_state_of_another_batch_is_refused():
    graph = two_layers()
    state = Reference(graph).run(sequence(graph, 3, 2)).state
    stream = Stream(graph, state=state)
    assert stream.state is state
    with pytest.raises(InvalidInput, match="carried state does not fit"):
        stream.step(np.zeros(6))


def test_indices():
    rng = np.random.default_rng(0)
    graph = chain(
        i=Input((1,), Kind.INDEX),
        e=Embedding(rng.normal(size=(9, 4))),
        f=linear(rng, 4, 3),
        n=lif(),
        o=Output(),
    )
    x = sequence(graph, 20, 1)
    stream = Stream(graph)
    np.testing.assert_array_equal([stream.step(x_t) for x_t in x], Reference(graph).run(x).outputs)
    with pytest.raises(InvalidInput, match="from 0 to 8"):
        stream.step([9])


def test_counts_are_those_of_a_run():
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 50, 1)
    stream = Stream(graph)
    assert stream.counts is None
    for x_t in x:
        stream.step(x_t[0])
    wanted = EventDriven(graph).run(x).counts
    assert stream.counts.total == wanted.total
    assert (stream.counts.steps, stream.counts.samples) == (50, 1)
    assert Stream(graph, using="onnx").counts is None


@pytest.mark.parametrize("seed", range(3))
def test_whole_numbers_in_c_are_those_of_the_reference_step_by_step(seed: int) -> None:
    graph = integer_network(seed)
    x = spikes_for(graph, 60, 1, seed)
    truth = Reference(graph).run(x)
    stream = Stream(graph, using="c")
    y = np.stack([stream.step(x_t[0]) for x_t in x[:40]])
    again = Stream(graph, using="c", state=stream.state)
    y = np.concatenate([y, np.stack([again.step(x_t[0]) for x_t in x[40:]])])
    np.testing.assert_array_equal(y, truth.outputs[:, 0])
    assert again.state is not None
    for name, values in truth.state.items():
        np.testing.assert_array_equal(again.state[name], values)


@pytest.mark.parametrize("wrong", [1j, "a", None])
def test_only_real_numbers_are_stepped(wrong):
    graph = two_layers()
    with pytest.raises(InvalidInput, match="real numbers"):
        Stream(graph).step(np.full((1, *graph.signals["input"].shape), wrong))
