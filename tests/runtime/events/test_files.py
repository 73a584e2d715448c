"""Event files: what was written is read, whole and in parts; what is no such file is said to be none."""

import os
import struct
import tracemalloc
from fractions import Fraction
from importlib import import_module
from pathlib import Path

import h5py
import numpy as np
import pytest

from unscan.compiler.errors import DamagedFile, InvalidInput, MissingDependency, Unsupported
from unscan.runtime.events import Binning, Events, Stepped, binned, chunks, read, write
from unscan.runtime.events.files import READERS
from unscan.runtime.events.hdf5 import loaded

RNG = np.random.default_rng(3)
T = np.sort(RNG.integers(0, 100_000, 500))
X, Y, P = RNG.integers(0, 64, 500), RNG.integers(0, 48, 500), RNG.integers(0, 2, 500)
COLUMNS = {"t": T, "x": X, "y": Y, "p": P}
PLACES = np.stack([P, Y, X], axis=1)
HERE = Path(__file__).parent


def holds(path, *, tick=Fraction(1, 10**6), sensor=None, size=64, **asked):
    """Check that a file gives the events above, whole and in parts."""
    events = read(path, **asked)
    np.testing.assert_array_equal(events.t, T)
    np.testing.assert_array_equal(events.places, PLACES)
    assert (events.tick, events.sensor) == (tick, sensor)
    parts = list(chunks(path, size=size, **asked))
    assert len(parts) == -(-len(T) // size)
    np.testing.assert_array_equal(np.concatenate([part.t for part in parts]), T)
    np.testing.assert_array_equal(np.concatenate([part.places for part in parts]), PLACES)


def test_npz_as_we_write_it(tmp_path):
    events = Events(T, PLACES.astype(np.int32), Fraction(1, 3000), (48, 64))
    write(events, tmp_path / "e.npz")
    holds(tmp_path / "e.npz", tick=Fraction(1, 3000), sensor=(48, 64))
    assert read(tmp_path / "e.npz", sensor=(99, 98)).sensor == (99, 98)
    write(Events(T, X[:, None].astype(np.int32)), tmp_path / "n.npz")
    assert read(tmp_path / "n.npz").places[:, 0].tolist() == X.tolist()
    with pytest.raises(InvalidInput, match=r"written to \.npz"):
        write(events, tmp_path / "e.npy")


def test_npz_of_others(tmp_path):
    np.savez_compressed(tmp_path / "e.npz", ts=T, x=X.astype(np.int16), y=Y, polarity=P * 2 - 1)
    holds(tmp_path / "e.npz")


def test_npy(tmp_path):
    np.save(tmp_path / "e.npy", np.stack([T, X, Y, P], axis=1))
    holds(tmp_path / "e.npy")
    listed = np.empty(500, [("x", "<i2"), ("y", "<i2"), ("t", "<i8"), ("p", "?")])
    for name, column in COLUMNS.items():
        listed[name] = column
    np.save(tmp_path / "s.npy", listed)
    holds(tmp_path / "s.npy")


@pytest.mark.parametrize(("suffix", "sign"), [(".csv", ","), (".txt", " ")])
def test_text(tmp_path, suffix, sign):
    path = tmp_path / f"e{suffix}"
    rows = [sign.join(map(str, row)) for row in zip(T, X, Y, P, strict=True)]
    path.write_text("# a remark\n" + "\n".join(rows) + "\n")
    holds(path)
    path.write_text(sign.join(["p", "label", "y", "x", "timestamp"]) + "\n" + "\n".join(
        sign.join(map(str, row)) for row in zip(P, X * 0.5, Y, X, T, strict=True)
    ))  # fmt: skip
    holds(path)


def test_text_in_seconds(tmp_path):
    (tmp_path / "e.csv").write_text("0.0,3\n0.3,1\n1e-6,2\n")
    events = read(tmp_path / "e.csv")
    assert (events.t.tolist(), events.places[:, 0].tolist()) == ([0, 300_000_000, 1000], [3, 1, 2])
    (tmp_path / "e.csv").write_text("0,3\n0.3,1\n")
    with pytest.raises(DamagedFile, match="times are all written with a point, or all without"):
        read(tmp_path / "e.csv")


def test_hdf5_of_one_recording(tmp_path):
    with h5py.File(tmp_path / "e.h5", "w") as file:
        for name, column in COLUMNS.items():
            file[f"events/{name}"] = column
        file["events/height"] = 48
    holds(tmp_path / "e.h5")
    with h5py.File(tmp_path / "s.hdf5", "w") as file:
        file["events"] = np.rec.fromarrays([T, X, Y, P], names="t,x,y,p")
    holds(tmp_path / "s.hdf5")


def test_hdf5_of_many_recordings(tmp_path):
    times = [np.array([0.25, 0.5], np.float16), np.array([0.125], np.float16)]
    with h5py.File(tmp_path / "e.h5", "w") as file:
        for name, rows, kind in (("times", times, "f2"), ("units", [[699, 3], [0]], "i8")):
            column = file.create_dataset(f"spikes/{name}", 2, h5py.vlen_dtype(np.dtype(kind)))
            for k, row in enumerate(rows):
                column[k] = row
    events = read(tmp_path / "e.h5", sample=0, sensor=(700,))
    assert (events.t.tolist(), events.places.tolist()) == ([250_000_000, 500_000_000], [[699], [3]])
    assert str(events).startswith(f"{tmp_path / 'e.h5'}, recording 0: 2 events (neuron) over 0.25 s")
    assert len(read(tmp_path / "e.h5", sample=1)) == 1
    with pytest.raises(InvalidInput, match="holds 2 recordings, and nothing said which; give sample=0 to 1"):
        read(tmp_path / "e.h5")
    with pytest.raises(InvalidInput, match="holds 2 recordings, and got 2"):
        read(tmp_path / "e.h5", sample=2)


@pytest.mark.parametrize(("encoding", "suffix"), [("dat", ".dat"), ("evt2", ".raw"), ("evt3", ".raw")])
def test_prophesee(tmp_path, encoding, suffix):
    expelliarmus = pytest.importorskip("expelliarmus")
    listed = np.empty(500, [("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    for name, column in COLUMNS.items():
        listed[name] = column
    path = tmp_path / f"e{suffix}"
    expelliarmus.Wizard(encoding=encoding).save(fpath=path, arr=listed)
    holds(path, size=100)
    (tmp_path / f"sized{suffix}").write_bytes(b"% geometry 64x48\n" + path.read_bytes())
    assert read(tmp_path / f"sized{suffix}").sensor == (48, 64)
    (tmp_path / f"sized{suffix}").write_bytes(b"% format EVT3;height=48;width=64\n" + path.read_bytes())
    if encoding != "evt2":
        assert read(tmp_path / f"sized{suffix}").sensor == (48, 64)
    (tmp_path / f"cut{suffix}").write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="wanted a multiple of"):
        read(tmp_path / f"cut{suffix}")
    if encoding == "evt2":
        path.write_bytes(path.read_bytes()[:-1] + b"\x33")  # a kind of word that there is not
        with pytest.raises(
            DamagedFile, match=r"something that is no EVT2 within the 16 events after event \d+"
        ):
            list(chunks(path, size=16))


def test_prophesee_headers(tmp_path):
    path = tmp_path / "e.raw"
    path.write_bytes(b"% evt 2.1\n% end\n" + bytes(8))
    with pytest.raises(Unsupported, match=r"the encoding 2\.1; wanted EVT2 or EVT3"):
        read(path)
    path.write_bytes(bytes(8))
    with pytest.raises(DamagedFile, match="no header"):
        read(path)
    path.write_bytes(b"% evt 3.0\n% end\n" + bytes(8))
    with pytest.raises(InvalidInput, match="counts microseconds; leave it out"):
        read(path, tick=1e-3)


def aedat3(path, *, packets=5, overflow=0, end=b"#!END-HEADER\r\n"):
    """Write the events above as AEDAT 3.1, with a frame packet and two events that are marked invalid."""
    text = b"#!AER-DAT3.1\r\n#Format: RAW\r\n" + end
    for part in np.array_split(np.arange(500), packets):
        text += struct.pack("<hhiiiiii", 2, 1, 12, 4, 0, 1, 1, 1) + bytes(12)
        words = (X[part] << 17) | (Y[part] << 2) | (P[part] << 1) | 1
        body = np.stack([words, T[part]], axis=1)
        body = np.concatenate([body[:2], [[0, 5], [0, 6]], body[2:]]).astype("<u4")
        room = np.zeros((3, 2), "<u4")
        text += struct.pack("<hhiiiiii", 1, 1, 8, 4, overflow, len(body) + 3, len(body), len(part))
        text += body.tobytes() + room.tobytes()
    path.write_bytes(text)


def test_aedat_3(tmp_path):
    aedat3(tmp_path / "e.aedat")
    holds(tmp_path / "e.aedat", size=100)
    assert read(tmp_path / "e.aedat").invalid == 10
    assert sum(part.invalid for part in chunks(tmp_path / "e.aedat", size=30)) == 10
    _, tally = binned(read(tmp_path / "e.aedat"), Binning(1e-2, (2, 48, 64)))
    assert (tally.events, tally.kept, tally.invalid) == (510, 500, 10)
    assert "10 marked invalid in the file" in str(tally)
    aedat3(tmp_path / "e.aedat", overflow=1, end=b"")
    np.testing.assert_array_equal(read(tmp_path / "e.aedat").t, T + 2**31)
    (tmp_path / "e.aedat").write_bytes((tmp_path / "e.aedat").read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="ends within a packet"):
        read(tmp_path / "e.aedat")


def test_aedat_4(tmp_path):
    pytest.importorskip("aedat")
    events, k = read(HERE / "few.aedat4"), np.arange(60)
    np.testing.assert_array_equal(events.t, 1_700_000_000_000_000 + 250 * k)
    np.testing.assert_array_equal(events.places, np.stack([k % 3 == 0, k * 7 % 12, k * 5 % 16], axis=1))
    assert events.sensor == (12, 16)
    assert [len(part) for part in chunks(HERE / "few.aedat4", size=25)] == [25, 25, 10]
    assert read(HERE / "few.aedat4", sample=0, sensor=(9, 9)).sensor == (9, 9)
    with pytest.raises(InvalidInput, match="streams of events 0; got sample=1"):
        read(HERE / "few.aedat4", sample=1)
    (tmp_path / "cut.aedat4").write_bytes((HERE / "few.aedat4").read_bytes()[:900])
    with pytest.raises(DamagedFile, match="not a complete AEDAT 4 file"):
        read(tmp_path / "cut.aedat4")


def test_aedat_of_earlier_versions(tmp_path):
    (tmp_path / "e.aedat").write_bytes(b"#!AER-DAT2.0\r\n" + bytes(8))
    with pytest.raises(Unsupported, match=r"wanted AEDAT 3\.1 or 4"):
        read(tmp_path / "e.aedat")


@pytest.mark.parametrize(("name", "file"), [("expelliarmus", "e.raw"), ("aedat", "few.aedat4")])
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, name, file):
    (tmp_path / "e.raw").write_bytes(b"% evt 3.0\n% end\n" + bytes(8))
    monkeypatch.setattr("unscan.runtime.events.files.import_module", missing)
    with pytest.raises(MissingDependency, match=f"which the package {name} reads, .*: pip install {name}\\."):
        read((HERE if file.startswith("few") else tmp_path) / file)


def missing(name):
    """Fail as an import does where the package is not there, and load what is ours."""
    if name.startswith("unscan"):
        return import_module(name)
    raise ModuleNotFoundError(name=name)


@pytest.mark.parametrize("suffix", sorted(READERS))
def test_what_is_something_else(tmp_path, suffix):
    path = tmp_path / f"e{suffix}"
    path.write_bytes(os.urandom(3) + b"\xff\x00 no list of events\n" * 20)
    with pytest.raises((DamagedFile, InvalidInput, Unsupported)) as fault:
        read(path)
    assert str(path) in str(fault.value)


@pytest.mark.parametrize(
    ("name", "text", "asked", "message"),
    [
        ("missing.npz", None, {}, "There is no file"),
        ("e.mat", "", {}, "has the suffix '.mat'; event files are .npy"),
        ("e.csv", "", {}, "holds no events"),
        ("e.csv", "t,x\n", {}, "holds no events"),
        ("e.csv", "1,2,3,4,5\n", {}, "has 5 columns and no names"),
        ("e.csv", "t,t\n1,2\n", {}, "names a column twice"),
        ("e.csv", "1,2\n", {"sample": 3}, "Got sample=3 .* which takes none"),
    ],
)
def test_what_cannot_be_read(tmp_path, name, text, asked, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InvalidInput, match=message):
        read(tmp_path / name, **asked)


def test_hdf5_without_events(tmp_path):
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["frames"] = np.zeros(3)
    with pytest.raises(InvalidInput, match="holds frames; wanted events"):
        read(tmp_path / "e.h5")
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["events/t"], file["events/x"], file["events/y"] = T, X, Y[:-1]
    with pytest.raises(DamagedFile, match="columns of different lengths"):
        read(tmp_path / "e.h5")


class Unreadable:
    """A column of an HDF5 file whose numbers cannot be read."""

    name = "/events/t"

    def __init__(self, message):
        self.message = message

    def __getitem__(self, where):
        raise OSError(self.message)


def test_hdf5_columns_that_cannot_be_read(tmp_path):
    with pytest.raises(MissingDependency, match="pip install hdf5plugin"):
        loaded(tmp_path / "e.h5", Unreadable("required filter 'blosc' is not registered"), 0)
    with pytest.raises(DamagedFile, match="is damaged at /events/t: file read failed"):
        loaded(tmp_path / "e.h5", Unreadable("file read failed"), 0)


def peak(path, count):
    """The most bytes that are held while a recording of so many events is read and binned."""
    rng = np.random.default_rng(0)
    np.save(path, np.stack([np.arange(count) * 50, rng.integers(0, 64, count)], axis=1))
    tracemalloc.start()
    stepped = Stepped(chunks(path, size=4096), Binning(1e-3, (64,)))
    steps = sum(1 for _ in stepped)
    highest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert steps == -(-count // 20)
    assert stepped.tally.kept == count
    return highest


def test_memory_does_not_grow_with_the_recording(tmp_path):
    short = peak(tmp_path / "short.npy", 50_000)
    assert (
        peak(tmp_path / "long.npy", 500_000) <= short + 20_000
    )  # bytes: counters, and the interpreter's own caches
