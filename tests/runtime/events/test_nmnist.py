"""Events of 40 bits: what a recording of N-MNIST holds, whole and in parts, and what is none."""

from fractions import Fraction

import numpy as np
import pytest

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.runtime.events import Binning, binned, chunks, read

RNG = np.random.default_rng(1)
T = np.sort(RNG.integers(0, 300_000, 500))
X, Y, P = RNG.integers(0, 34, 500), RNG.integers(0, 34, 500), RNG.integers(0, 2, 500)
PLACES = np.stack([P, Y, X], axis=1)


def coded(t, x, y, p):
    """The bytes of events: x, y, then the polarity above 23 bits of time."""
    words = np.asarray(p).astype(np.int64) << 23 | np.asarray(t)
    columns = [x, y, words >> 16, words >> 8 & 255, words & 255]
    return np.stack(np.broadcast_arrays(*columns), axis=-1).astype(np.uint8).tobytes()


def test_events_of_forty_bits(tmp_path):
    assert coded([0x123456], [7], [9], [1]) == bytes([7, 9, 0x92, 0x34, 0x56])
    path = tmp_path / "00002.bin"
    path.write_bytes(coded(T, X, Y, P))
    events = read(path)
    np.testing.assert_array_equal(events.t, T)
    np.testing.assert_array_equal(events.places, PLACES)
    assert (events.tick, events.sensor) == (Fraction(1, 10**6), None)
    parts = list(chunks(path, size=64, sensor=(34, 34)))
    assert [len(part) for part in parts] == [64] * 7 + [52]
    np.testing.assert_array_equal(np.concatenate([part.t for part in parts]), T)
    assert parts[0].sensor == (34, 34)
    x, tally = binned(events, Binning(1e-3, (2, 34, 34)))
    assert x.shape[1:] == (1, 2, 34, 34)
    assert tally.kept == 500


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_an_event_below_the_sensor_lengthens_time(tmp_path, size):
    path = tmp_path / "long.bin"
    kept = coded([5, 8000, 10, 20, 30], [1, 2, 3, 4, 5], [0, 0, 0, 0, 0], [0, 1, 0, 1, 0])
    marks = [kept[:10], coded([0], [0], [240], [0]), kept[10:20], coded([0], [0], [240], [1]), kept[20:]]
    path.write_bytes(b"".join(marks))
    parts = list(chunks(path, size=size))
    assert np.concatenate([part.t for part in parts]).tolist() == [
        5,
        8000,
        8192 + 10,
        8192 + 20,
        2 * 8192 + 30,
    ]
    assert np.concatenate([part.places for part in parts])[:, 2].tolist() == [1, 2, 3, 4, 5]


def test_what_is_no_recording_is_refused(tmp_path):
    path = tmp_path / "r.bin"
    path.write_bytes(coded(T, X, Y, P)[:-2])
    with pytest.raises(DamagedFile, match="has 2498 bytes, wanted a multiple of 5"):
        read(path)
    path.write_bytes(coded([0, 3_000_000, 5], 1, 1, 1))
    for size in (1, 2, 100):
        with pytest.raises(DamagedFile, match="goes back in time by 3 s at event 2"):
            list(chunks(path, size=size))
    path.write_bytes(RNG.bytes(500))
    with pytest.raises(DamagedFile, match="goes back in time"):
        read(path)
    path.write_bytes(b"")
    with pytest.raises(InvalidInput, match="holds no events"):
        read(path)
    path.write_bytes(coded(T, X, Y, P))
    with pytest.raises(InvalidInput, match="counts microseconds"):
        read(path, tick=1e-3)
    with pytest.raises(InvalidInput, match="takes none"):
        read(path, sample=3)
