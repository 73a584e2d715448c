"""Long sequences in parts: what one run gives, in memory that does not grow."""

import tracemalloc

import numpy as np
import pytest

from tests.graphs import sequence, two_layers
from tests.integers import numbers_for, state_space_network
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Kind
from unscan.runtime import simulate as module
from unscan.runtime.events import Binning, Events, Stepped, binned
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.reference import Reference
from unscan.runtime.simulate import parts, simulate, simulate_stream


@pytest.fixture
def small_parts(monkeypatch):
    """Cut as if memory held 16 steps of 2 samples."""
    graph = two_layers(kind=Kind.SPIKE)
    neurons = sum(
        int(np.prod(shape))
        for shape in [*(s.shape for s in graph.signals.values()), *graph.membranes().values()]
    )
    monkeypatch.setattr(module, "RECORDED_BYTES", 8 * neurons * 32)
    monkeypatch.setattr("unscan.runtime.batches.RECORDED_BYTES", 8 * neurons * 32)
    monkeypatch.setattr(module, "STRETCH", 8)
    return graph


def same(got, wanted):
    np.testing.assert_allclose(got.outputs, wanted.outputs, rtol=0, atol=1e-13)
    for name, value in wanted.state.items():
        np.testing.assert_allclose(got.state[name], value, rtol=0, atol=1e-13)


@pytest.mark.parametrize("using", ["event", "reference", "onnx", "c"])
@pytest.mark.parametrize(("steps", "samples"), [(1, 1), (63, 1), (100, 9), (16, 2)])
def test_parts_of_steps_and_samples_are_one_run(small_parts, using, steps, samples):
    x = sequence(small_parts, steps, samples)
    wanted = Reference(small_parts).run(x)
    shares = []
    got = simulate(small_parts, x, using=using, record=False, progress=shares.append)
    same(got, wanted)
    assert shares[-1] == 1
    if using in ("event", "reference"):
        assert got.counts.to_json() == wanted.counts.to_json()
    half = simulate(small_parts, x[: steps // 2 + 1], using=using, record=False)
    if steps > 1:
        rest = simulate(small_parts, x[steps // 2 + 1 :], half.state, using=using, record=False)
        np.testing.assert_allclose(rest.outputs, wanted.outputs[steps // 2 + 1 :], rtol=0, atol=1e-13)


def test_whole_numbers_bit_for_bit(monkeypatch):
    monkeypatch.setattr(module, "RECORDED_BYTES", 8000)
    graph = state_space_network()
    x = numbers_for(graph, 100, 2)
    wanted, got = Reference(graph).run(x), simulate(graph, x, record=False)
    np.testing.assert_array_equal(got.outputs, wanted.outputs)
    for name, value in wanted.state.items():
        np.testing.assert_array_equal(got.state[name], value)


@pytest.mark.parametrize("using", ["event", "reference", "onnx", "c"])
def test_a_stream_of_parts_is_one_run(using):
    graph = two_layers(kind=Kind.SPIKE)
    x = sequence(graph, 100, 3)
    wanted, kept = EventDriven(graph).run(x), []
    got = simulate_stream(
        graph, iter([x[:1], x[1:64], x[64:]]), using=using, each=lambda run: kept.append(run.outputs)
    )
    np.testing.assert_allclose(np.concatenate(kept), wanted.outputs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.last, wanted.outputs[-1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.mean, wanted.outputs.mean(axis=0), rtol=0, atol=1e-12)
    for name, value in wanted.state.items():
        np.testing.assert_allclose(got.state[name], value, rtol=0, atol=1e-12)
    assert (got.steps, got.samples) == (100, 3)
    if using in ("event", "reference"):
        assert got.counts.to_json() == wanted.counts.to_json()
        assert got.energy == wanted.energy
    else:
        assert got.counts is None
    again = simulate_stream(graph, parts(graph, x[40:]), simulate(graph, x[:40]).state, using=using)
    np.testing.assert_allclose(again.last, wanted.outputs[-1], rtol=0, atol=1e-12)


def test_a_file_larger_than_its_parts(tmp_path, small_parts):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", bool, (200, 2, 6))
    x[:] = sequence(small_parts, 200, 2)
    x.flush()
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    wanted = EventDriven(small_parts).run(np.asarray(x))
    same(simulate(small_parts, mapped, record=False), wanted)
    lengths = [len(part) for part in parts(small_parts, mapped)]
    assert max(lengths) <= 16 < len(lengths) * 16
    np.testing.assert_array_equal(
        simulate_stream(small_parts, parts(small_parts, mapped)).last, wanted.outputs[-1]
    )


def test_events_of_a_recording_run_part_after_part():
    graph = two_layers(kind=Kind.SPIKE)
    rng = np.random.default_rng(0)
    events = Events(
        np.sort(rng.integers(0, 300_000, 2000)), rng.integers(0, 6, (2000, 1)).astype(np.int32), sensor=(6,)
    )
    into = Binning(1e-3, (6,))
    x, _ = binned(events, into)
    cut = (
        Events(events.t[k : k + 100], events.places[k : k + 100], events.tick) for k in range(0, 2000, 100)
    )
    got, wanted = simulate_stream(graph, Stepped(cut, into).dense(17)), simulate(graph, x)
    np.testing.assert_array_equal(got.last, wanted.outputs[-1])
    assert got.counts.total == wanted.counts.total


def peak(steps):
    """The most bytes that a run of so many steps holds at once, its input being made on the way."""
    graph = two_layers(kind=Kind.SPIKE)
    part = sequence(graph, 1000, 1)
    simulate_stream(graph, [part])
    tracemalloc.start()
    got = simulate_stream(graph, (part for _ in range(steps // 1000)))
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert got.steps == got.counts.steps == steps
    return highest


def test_memory_does_not_grow_with_the_steps():
    short, long = peak(100_000), peak(1_000_000)
    assert (
        long <= short + 20_000
    )  # bytes: counters that grow to larger integers, and the interpreter's own caches


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "got no part of a sequence"),
        (np.zeros((4, 1, 6)), r"got one array \(4, 1, 6\), wanted parts"),
        ([np.zeros((4, 1, 5))], r"shape \(4, 1, 5\)"),
        ([np.zeros((4, 1, 6)), np.zeros((4, 2, 6))], "after step 4 has 2 samples, those before have 1"),
        ([np.zeros((4, 1, 6)), np.full((4, 1, 6), np.nan)], "not finite"),
    ],
)
def test_parts_that_do_not_fit(chunks, message):
    with pytest.raises(InvalidInput, match=message):
        simulate_stream(two_layers(), chunks)


def test_what_simulate_does_not_take():
    graph = two_layers()
    with pytest.raises(InvalidInput, match="got the iterator list_iterator, .* simulate_stream runs parts"):
        simulate(graph, iter([np.zeros((1, 1, 6))]))
    with pytest.raises(InvalidInput, match=r"shape \(4, 6\)"):
        simulate(graph, np.zeros((4, 6)), record=False)
    with pytest.raises(InvalidInput, match="the graph has the states"):
        simulate(graph, np.zeros((4, 1, 6)), {"x.y": np.zeros(1)})


def test_a_record_larger_than_memory_is_refused_before_it_runs(monkeypatch):
    graph = two_layers()
    monkeypatch.setattr("unscan.runtime.simulate.memory", lambda: 1000.0)
    x = np.zeros((20, 3, *graph.signals["input"].shape))
    with pytest.raises(InvalidInput, match="GiB"):
        simulate(graph, x)
    assert len(simulate(graph, x, record=False).outputs) == 20
