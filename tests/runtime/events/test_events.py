"""Lists of events: columns, times, places."""

from fractions import Fraction

import numpy as np
import pytest

from unscan.compiler.errors import InvalidInput
from unscan.runtime.events import Events

TIMES, NEURONS = np.array([30, 10, 20]), np.array([2, 0, 7])
PIXELS = {"t": TIMES, "x": NEURONS, "y": np.array([1, 1, 3]), "p": np.array([1, -1, 0])}


def structured(columns):
    made = np.empty(3, [(name, np.asarray(column).dtype) for name, column in columns.items()])
    for name, column in columns.items():
        made[name] = column
    return made


@pytest.mark.parametrize(
    "listed",
    [
        {"t": TIMES, "neuron": NEURONS},
        {"Times": TIMES, "units": NEURONS, "label": np.zeros(7)},
        structured({"neuron": NEURONS, "t": TIMES}),
        np.stack([TIMES, NEURONS], axis=1),
        np.stack([TIMES, NEURONS], axis=1).astype(np.uint64),
    ],
)
def test_neurons(listed):
    events = Events.of(listed)
    assert events.t.tolist() == [30, 10, 20]
    assert events.places.tolist() == [[2], [0], [7]]
    assert (events.axes, events.tick, len(events)) == (1, Fraction(1, 10**6), 3)


@pytest.mark.parametrize("listed", [PIXELS, structured(PIXELS), np.stack(list(PIXELS.values()), axis=1)])
def test_pixels(listed):
    events = Events.of(listed, sensor=(4, 8))
    assert events.places.tolist() == [[1, 1, 2], [0, 1, 0], [0, 3, 7]]
    assert str(events) == "the events: 3 events (p, y, x) over 2e-05 s, ticks of 1e-06 s, sensor 4x8"


def test_pixels_without_polarity():
    events = Events.of({name: PIXELS[name] for name in "txy"})
    assert events.places.tolist() == [[1, 2], [1, 0], [3, 7]]


def test_floating_point_times_are_seconds_to_the_nanosecond():
    events = Events.of({"t": np.array([0.3, 1e-9, 2.0000000004]), "neuron": NEURONS})
    assert events.tick == Fraction(1, 10**9)
    assert events.t.tolist() == [300_000_000, 1, 2_000_000_000]
    half = Events.of({"t": np.array([0.5, 1.25, 2], np.float16), "neuron": NEURONS}, tick=1e-3)
    assert half.t.tolist() == [500_000, 1_250_000, 2_000_000]


def test_a_tick_is_what_was_written():
    assert Events.of({"t": TIMES, "neuron": NEURONS}, tick=0.001).tick == Fraction(1, 1000)
    assert Events.of({"t": TIMES, "neuron": NEURONS}, tick=Fraction(1, 3)).tick == Fraction(1, 3)


@pytest.mark.parametrize(
    ("listed", "settings", "message"),
    [
        ({"neuron": NEURONS}, {}, "got the columns neuron, wanted t and neuron, or t, x, y and p"),
        ({"t": TIMES, "neuron": NEURONS, "x": NEURONS}, {}, "wanted t and neuron"),
        ({"t": TIMES, "time": TIMES, "neuron": NEURONS}, {}, "two columns say t"),
        ({"t": TIMES, "neuron": NEURONS[:2]}, {}, r"'neuron': \(2,\)"),
        (np.zeros((3, 5)), {}, r"shape \(3, 5\), wanted \(E, 2\)"),
        ({"t": TIMES, "neuron": NEURONS - 1}, {}, "counted from 0, and the lowest is -1"),
        ({"t": TIMES, "neuron": NEURONS / 2 + 0.2}, {}, "column neuron holds numbers that are not whole"),
        ({"t": TIMES, "neuron": NEURONS + 2**31}, {}, r"from 2147483648 to 2147483655, beyond 2\^31"),
        ({"t": np.array([0.0, np.nan, 1.0]), "neuron": NEURONS}, {}, "not all finite"),
        ({"t": TIMES * 1e12, "neuron": NEURONS}, {}, "beyond what nanoseconds count"),
        ({"t": TIMES.astype(np.uint64) + np.uint64(2**63), "neuron": NEURONS}, {}, r"beyond 2\^63"),
        ({"t": TIMES, "neuron": NEURONS}, {"tick": 0}, "tick of 0 s, wanted more than 0"),
        ({"t": TIMES, "neuron": NEURONS}, {"sensor": (4, 8)}, r"\(neurons,\) for events of neurons"),
    ],
)
def test_what_is_no_list_of_events(listed, settings, message):
    with pytest.raises(InvalidInput, match=message):
        Events.of(listed, **settings)


def test_polarities_are_two():
    with pytest.raises(InvalidInput, match="polarities are 0 or 1 and the highest is 2"):
        Events(TIMES, np.array([[0, 1, 1], [2, 0, 0], [1, 0, 0]]))
    with pytest.raises(InvalidInput, match=r"wanted \(E,\) and \(E, k\)"):
        Events(TIMES, NEURONS)
    with pytest.raises(InvalidInput, match="got 4 numbers for the place"):
        Events(TIMES, np.zeros((3, 4), np.int32))
