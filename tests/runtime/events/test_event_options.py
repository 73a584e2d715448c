"""Event files of every format on the command line, with what `--event` says of them."""

import json
from fractions import Fraction

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.graphs import chain, lif
from tests.runtime.events.test_files import HERE, PLACES, P, T, X, Y, aedat3
from tests.runtime.events.test_nmnist import coded
from tests.runtime.events.test_recordings import GRAPH, written
from unscan.cli import main
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Input, Linear, Output
from unscan.recordings import gathered, settings_of
from unscan.runtime.events import Events, binned, binning, read, read_all
from unscan.runtime.events import write as write_events

DT = 1e-3


def flat(neurons, kind=Kind.SPIKE):
    weight = np.random.default_rng(neurons).normal(size=(3, neurons))
    return chain(input=Input((neurons,), kind), fc=Linear(weight), n=lif(0.9, 0.2), output=Output())


def told(*arguments, code=0):
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.output


def prophesee(encoding):
    def write(path):
        expelliarmus = pytest.importorskip("expelliarmus")
        listed = np.rec.fromarrays(
            [T, X, Y, P], dtype=[("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")]
        )
        expelliarmus.Wizard(encoding=encoding).save(fpath=path, arr=np.asarray(listed))

    return write


def text(sign):
    def write(path):
        rows = zip(T, X, Y, P, strict=True)
        path.write_text("\n".join(sign.join(map(str, row)) for row in rows))

    return write


def hdf5(path):
    with h5py.File(path, "w") as file:
        for name, column in {"t": T, "x": X, "y": Y, "p": P}.items():
            file[f"events/{name}"] = column


FORMATS = {
    "e.aedat": aedat3,
    "e.raw": prophesee("evt3"),
    "two.raw": prophesee("evt2"),
    "e.dat": prophesee("dat"),
    "e.bin": lambda path: path.write_bytes(coded(T, X, Y, P)),
    "e.csv": text(","),
    "e.txt": text(" "),
    "e.npy": lambda path: np.save(path, np.stack([T, X, Y, P], axis=1)),
    "e.npz": lambda path: write_events(Events(T, PLACES.astype(np.int32)), path),
    "e.h5": hdf5,
}


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_gives_the_steps_that_python_gives(tmp_path, name):
    path, graph = tmp_path / name, flat(24 * 32)
    FORMATS[name](path)
    into = binning(graph, DT, sensor=(48, 64), polarity="merged", downsample=2)
    wanted, tally = binned(Events(T, PLACES.astype(np.int32)), into, steps=60)
    event = ["sensor=48x64", "polarity=merged", "downsample=2", "steps=60"]
    x, labels, description = gathered(graph, path, DT, event, None)
    np.testing.assert_array_equal(x, wanted)
    assert labels is None
    assert description.startswith(
        f"{path} in steps of 0.001 s, sensor=48x64, polarity=merged, downsample=2, "
    )
    assert f"{tally.kept:,} of them in 60 steps" in description


@pytest.mark.parametrize("name", ["e.aedat", "e.raw", "e.dat", "e.bin"])
def test_a_sensor_that_the_file_does_not_say_is_said_on_the_command_line(tmp_path, name):
    path, file = tmp_path / name, tmp_path / "g.unscan"
    FORMATS[name](path)
    flat(2 * 48 * 64).save(file)
    said = told("simulate", file, "--input", path, "--event-dt", DT, code=2)
    assert "--event sensor=HEIGHTxWIDTH" in " ".join(said.split())
    told(
        "simulate", file, "--input", path, "--event-dt", DT, "--event", "sensor=48x64", "--json",
        tmp_path / "r.json",
    )  # fmt: skip
    node = json.loads((tmp_path / "r.json").read_text())["counts"]["nodes"]["fc"]
    x, _ = binned(read(path, sensor=(48, 64)), binning(flat(2 * 48 * 64), DT))
    assert node["events_in"] == np.count_nonzero(x)


def test_aedat_4_says_its_sensor_and_names_its_streams(tmp_path):
    pytest.importorskip("aedat")
    path, file = HERE / "few.aedat4", tmp_path / "g.unscan"
    flat(2 * 12 * 16).save(file)
    told("simulate", file, "--input", path, "--event-dt", DT)
    told("simulate", file, "--input", path, "--event-dt", DT, "--event", "sample=0")
    said = told("simulate", file, "--input", path, "--event-dt", DT, "--event", "sample=7", code=2)
    assert "--event sample=NUMBER" in " ".join(said.split())


def test_one_recording_of_many_has_its_label(tmp_path):
    path = written(tmp_path / "s.h5", np.array([0, 1, 2, 3, 0, 1, 2]))
    x, labels, description = gathered(GRAPH, path, 0.01, ["sample=2"], 5)
    wanted, _ = binned(read(path, sample=2), binning(GRAPH, 0.01))
    np.testing.assert_array_equal(x, wanted)
    assert labels.tolist() == [2]
    assert "sample=2" in description
    assert read_all(path, sample=6).labels.tolist() == [2]
    with pytest.raises(InvalidInput, match="holds 7 recordings, and got 7; give sample=0 to 6"):
        gathered(GRAPH, path, 0.01, ["sample=7"], None)


def test_every_command_that_takes_events_takes_what_is_said_of_them(tmp_path):
    path, file = written(tmp_path / "s.h5"), tmp_path / "g.unscan"
    GRAPH.save(file)
    event = ["--input", path, "--event-dt", 0.01, "--event", "sample=3", "--event", "steps=20"]
    alone = ["verify", file, file, "--against", "event"]
    for command in (
        ["simulate", file],
        alone,
        ["compare", file, file],
        ["compile", file, "-o", tmp_path / "c.unscan", "--check"],
        ["bisect", file],
        ["report", file, "-o", tmp_path / "r.html", "--against", "event"],
    ):
        assert "holds 7" in told(*command, *event[:4], "--event", "sample=9", code=2)
        said = " ".join(told(*command, *event).split())
        assert "recording" not in said
        if command[0] != "bisect":
            assert "sample=3" in said, command


def test_times_are_exact_and_counts_may_be_one(tmp_path):
    (tmp_path / "e.csv").write_text("t,neuron\n0,0\n1,0\n3,1\n9,1\n")
    graph = flat(2, Kind.REAL)
    for event, wanted in (
        (["tick=1e-3"], [[2, 0], [0, 1], [0, 0], [0, 0], [0, 1]]),
        (["tick=1e-3", "several=one"], [[1, 0], [0, 1], [0, 0], [0, 0], [0, 1]]),
        (["tick=1/1000", "start=2e-3", "steps=2"], [[0, 1], [0, 0]]),
    ):
        x, _, _ = gathered(graph, tmp_path / "e.csv", 2e-3, event, None)
        assert x[:, 0].tolist() == wanted
    assert settings_of(["tick=1e-9"]) == {"tick": Fraction(1, 10**9)}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        (["speed=3"], "with a name of sensor, polarity"),
        (["sensor"], "write --event NAME=VALUE"),
        (["sensor=axb"], "wanted HEIGHTxWIDTH such as 34x34"),
        (["sensor=0x3"], "Got sensor=(0, 3)"),
        (["tick=1/0"], "wanted seconds such as 1e-9"),
        (["steps=2.5"], "wanted a whole number"),
        (["polarity=up"], "choose one of channels, merged, on, off"),
        (["several=count"], "several='count' makes larger numbers"),
        (["steps=2", "steps=3"], "steps twice"),
    ],
)
def test_what_cannot_be_said_of_events_is_refused(tmp_path, event, said):
    GRAPH.save(tmp_path / "g.unscan")
    path = written(tmp_path / "s.h5")
    options = [word for text in event for word in ("--event", text)]
    command = ["simulate", tmp_path / "g.unscan", "--input", path]
    assert said in " ".join(told(*command, "--event-dt", 0.01, *options, code=2).split())
    assert "--event-dt" in told(*command, "--event", "steps=3", code=2)


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_a_damaged_file_is_told_in_our_words(tmp_path, name):
    GRAPH.save(tmp_path / "g.unscan")
    path = tmp_path / name
    command = ["simulate", tmp_path / "g.unscan", "--input", path, "--event-dt", 0.01]
    held = np.empty(2, object)
    for spoil in (
        lambda: path.write_bytes(b"nothing of the kind" * 9),
        lambda: np.save(path, held) if name == "x.npy" else np.savez(path, t=held),
    ):
        spoil()
        said = " ".join(told(*command, code=2).split())
        assert f"{path} is not a complete {path.suffix} file of numbers" in said
        assert "pickle" not in said


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("t,neuron\n1,2\n\n# a remark\n5\n", "line 5 has 1 column, wanted 2"),
        ("1,2\n3,4,5\n", "line 2 has 3 columns, wanted 2"),
        ("1,2\n2,x\n", "line 2 has 'x' as neuron, wanted a number"),
        ("1,2\n2.5,1\n", "line 2 has '2.5' as t, wanted a whole number"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, lines, said):
    (tmp_path / "e.csv").write_text(lines)
    GRAPH.save(tmp_path / "g.unscan")
    command = ["simulate", tmp_path / "g.unscan", "--input", tmp_path / "e.csv", "--event-dt", 0.01]
    assert said in " ".join(told(*command, code=2).split())
