"""Events into steps: against a loop over events, whole and part after part."""

from fractions import Fraction
from math import ceil, floor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.graphs import chain, lif, linear, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Embedding, Input, Output
from unscan.runtime.events import Binning, Events, Stepped, Tally, binned, binning


def one_by_one(events, into, steps=None):
    """The meaning: each event by itself, in fractions; the array (T, ...) and what became of them."""
    tally, found = Tally(), {}
    start = min(events.t) * events.tick if into.start is None else Fraction(repr(into.start))
    f = into.downsample
    sensor = into.sensor or events.sensor
    small = tuple(ceil(size / f) for size in sensor)
    for t, place in zip(events.t.tolist(), events.places.tolist(), strict=True):
        tally.events += 1
        step = floor((t * events.tick - start) / Fraction(repr(into.dt)))
        where = place[-len(sensor) :]
        polarity = place[0] if events.axes == 3 else 0
        if any(at >= size for at, size in zip(where, sensor, strict=True)):
            tally.outside += 1
        elif into.polarity in ("on", "off") and polarity != (into.polarity == "on"):
            tally.unwanted += 1
        elif step < 0:
            tally.before += 1
        elif steps is not None and step >= steps:
            tally.after += 1
        else:
            channel = polarity if into.polarity == "channels" and events.axes == 3 else 0
            neuron = np.ravel_multi_index((channel, *(at // f for at in where)), (2, *small))
            tally.merged += (step, neuron) in found
            found[step, neuron] = found.get((step, neuron), 0) + 1
    tally.steps = steps or max(step for step, _ in found) + 1
    x = np.zeros((tally.steps, into.neurons))
    for (step, neuron), count in found.items():
        x[step, neuron] = 1 if into.several == "one" else count
    tally.silent = int((~x.any(axis=1)).sum())
    return x, tally


@st.composite
def recordings(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    axes = draw(st.integers(1, 3))
    sensor = (7,) if axes == 1 else (3, 5)
    count = draw(st.integers(1, 60))
    t = np.sort(rng.integers(0, draw(st.sampled_from([5, 400, 4_000])), count)) + draw(
        st.sampled_from([0, 2_003])
    )
    highest = {1: (8,), 2: (4, 6), 3: (2, 4, 6)}[axes]
    places = rng.integers(0, highest, (count, axes)).astype(np.int32)
    f = draw(st.integers(1, 3))
    polarity = draw(
        st.sampled_from(["channels", "merged", "on", "off"] if axes == 3 else ["channels", "merged"])
    )
    small = tuple(ceil(size / f) for size in sensor)
    shape = small if axes == 1 else (2 if axes == 3 and polarity == "channels" else 1, *small)
    flat = draw(st.booleans())
    into = Binning(
        draw(st.sampled_from([1e-6, 7e-6, 1e-3, 0.0025])),
        (int(np.prod(shape)),) if flat else shape,
        draw(st.sampled_from(["one", "count"])),
        polarity,
        f,
        sensor,
        draw(st.sampled_from([None, None, 0.0, 0.002001, 1e-4])),
    )
    return Events(t, places, source="drawn"), into


@given(recordings(), st.sampled_from([None, None, 1, 30]))
@settings(max_examples=100, deadline=None)
def test_each_event_is_in_its_bin_or_counted(drawn, steps):
    events, into = drawn
    try:
        wanted, became = one_by_one(events, into, steps)
    except ValueError:
        became = Tally(events=len(events))
        became.outside = len(events)
    if not became.kept:
        with pytest.raises(InvalidInput, match="No event falls into a step"):
            binned(events, into, steps=steps)
        return
    x, tally = binned(events, into, steps=steps)
    assert x.shape == (became.steps, 1, *into.shape)
    assert x.dtype == (np.uint8 if into.several == "one" else np.float32)
    np.testing.assert_array_equal(x.reshape(len(x), -1), wanted)
    assert tally == became


@given(recordings(), st.integers(1, 70), st.sampled_from([None, 1, 30]), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_parts_give_the_steps_of_the_whole(drawn, size, steps, random):
    events, into = drawn
    parts = [
        Events(events.t[k : k + size], events.places[k : k + size], events.tick)
        for k in range(0, len(events), size)
    ]
    stepped = Stepped(parts, into, steps=steps)
    try:
        wanted, became = binned(events, into, steps=steps)
    except InvalidInput as fault:
        with pytest.raises(InvalidInput, match=str(fault)[:30]):
            list(stepped)
        return
    x = np.concatenate(list(stepped.dense(random.randint(1, 9))))
    np.testing.assert_array_equal(x, wanted)
    assert x.dtype == wanted.dtype
    assert stepped.tally == became


def neurons(times, *, places=None, tick=Fraction(1, 10**6)):
    times = np.asarray(times, np.int64)
    return Events(times, np.asarray(places or [0] * len(times), np.int32)[:, None], tick)


def test_edges_of_bins_are_exact():
    every = neurons(np.arange(0, 10**6, 100_000))
    for dt in (0.1, Fraction(1, 10)):
        x, _ = binned(every, Binning(dt, (1,), "count"))
        assert x.ravel().tolist() == [1] * 10  # in floating point 0.3 / 0.1 is below 3
    thirds = neurons([0, 333_333, 333_334, 666_666, 666_667, 10**6])
    x, _ = binned(thirds, Binning(1 / 3, (1,), "count"))
    assert x.ravel().tolist() == [2, 2, 1, 1]


def test_a_step_finer_than_whole_numbers_hold_is_refused():
    with pytest.raises(InvalidInput, match="too fine a fraction"):
        binned(neurons([0, 10**12]), Binning(1.2345678901234567e-9, (1,)), steps=1)


def test_samples_begin_each_at_its_own_start_and_end_in_silence():
    x, tally = binned([neurons([10, 20, 20]), neurons([500, 530], places=[1, 0])], Binning(1e-5, (2,)))
    assert x[:, 0].tolist() == [[1, 0], [1, 0], [0, 0], [0, 0]]
    assert x[:, 1].tolist() == [[0, 1], [0, 0], [0, 0], [1, 0]]
    assert (tally.samples, tally.merged, tally.silent) == (2, 1, 4)
    assert str(tally) == (
        "5 events, 5 of them in 4 steps of 2 samples; 1 met another one in their bin; 4 steps without any"
    )


def test_a_late_event_is_counted():
    parts = [neurons([0, 25]), neurons([24, 9, 40]), neurons([20, 41])]
    stepped = Stepped(parts, Binning(1e-5, (1,), "count"))
    assert [(step.number, step.counts.tolist()) for step in stepped] == [
        (0, [1]),
        (1, []),
        (2, [2]),
        (3, []),
        (4, [2]),
    ]
    assert stepped.tally.late == 2
    assert stepped.tally.kept == 5


def test_a_long_silence_takes_no_memory():
    stepped = Stepped([neurons([0, 10**15])], Binning(1e-6, (1,)))
    steps = iter(stepped)
    assert [next(steps).number for _ in range(1000)] == list(range(1000))
    with pytest.raises(InvalidInput, match="would take 931322.6 GiB; give steps"):
        binned(neurons([0, 10**15]), Binning(1e-6, (1,)))


@pytest.mark.parametrize(
    ("into", "events", "message"),
    [
        (
            {"shape": (2, 4, 4), "sensor": (8, 8)},
            3,
            "give 2x8x8 neurons in a step .* takes 2x4x4; change sensor",
        ),
        ({"shape": (2, 4, 8), "sensor": (8, 4)}, 3, "give 2x8x4"),
        ({"shape": (128,)}, 3, "nobody says how large the sensor is"),
        ({"shape": (1, 8, 8), "sensor": (8, 8), "polarity": "on"}, 2, "which have none"),
        ({"shape": (8,), "sensor": (8, 8)}, 1, r"wanted \(neurons,\) for neurons"),
        ({"shape": (8,), "start": 1e-7}, 1, "no whole number of ticks"),
    ],
)
def test_what_does_not_fit(into, events, message):
    listed = Events(np.arange(3), np.zeros((3, events), np.int32))
    with pytest.raises(InvalidInput, match=message):
        binned(listed, Binning(1e-3, **into))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dt": 0}, "step of 0 s"),
        ({"dt": float("inf")}, "step of inf s"),
        ({"several": "two"}, "'two'; choose one of one, count"),
        ({"polarity": "up"}, "channels, merged, on, off"),
        ({"downsample": 0}, "downsample=0"),
        ({"sensor": (4, 0)}, r"sensor=\(4, 0\)"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InvalidInput, match=message):
        Binning(**{"dt": 1e-3, "shape": (4,)} | settings)


def test_a_graph_says_what_it_takes():
    assert binning(two_layers(kind=Kind.SPIKE), 1e-3) == Binning(1e-3, (6,), "one")
    assert binning(two_layers(), 1e-3, downsample=2) == Binning(1e-3, (6,), "count", downsample=2)
    with pytest.raises(InvalidInput, match="takes spikes, 0 or 1, and several='count'"):
        binning(two_layers(kind=Kind.SPIKE), 1e-3, several="count")
    rng = np.random.default_rng(0)
    words = chain(
        i=Input((1,), Kind.INDEX),
        e=Embedding(rng.normal(size=(9, 4))),
        f=linear(rng, 4, 3),
        n=lif(),
        o=Output(),
    )
    with pytest.raises(InvalidInput, match="rows of an Embedding"):
        binning(words, 1e-3)


def test_a_part_without_events_is_no_end():
    nothing = Events(np.zeros(0, np.int64), np.zeros((0, 1), np.int32), invalid=3)
    stepped = Stepped([nothing, neurons([5, 25]), nothing, neurons([35])], Binning(1e-5, (1,)))
    assert [step.neurons.tolist() for step in stepped] == [[0], [], [0], [0]]
    assert (stepped.origin, stepped.tally.invalid, stepped.tally.kept) == (5, 6, 3)
    with pytest.raises(InvalidInput, match="No event falls into a step: 3 events, 0 of them"):
        list(Stepped([nothing], Binning(1e-5, (1,))))
    for refused in (binned, Stepped):
        with pytest.raises(InvalidInput, match="Got 0 steps, wanted 1 or more"):
            refused(neurons([0]), Binning(1e-5, (1,)), steps=0)
