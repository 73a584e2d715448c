"""Files of many recordings, as of SHD: all of them at once, with their labels, from Python and the command line."""

import json

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from tests.graphs import chain, lif
from unscan.cli import main
from unscan.compiler.errors import DamagedFile
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Input, Linear, Output
from unscan.runtime.decision import accuracy
from unscan.runtime.events import binned, binning, read, read_all
from unscan.runtime.simulate import simulate

RNG = np.random.default_rng(8)
COUNT, NEURONS = 7, 6
GRAPH = chain(
    input=Input((NEURONS,), Kind.SPIKE),
    fc=Linear(RNG.normal(size=(4, NEURONS))),
    n=lif(0.9, 0.2),
    output=Output(),
)


def written(path, labels=None, count=COUNT, units=COUNT):
    """Write a file as SHD has it: seconds in half precision, channels, and perhaps labels."""
    times = [np.sort(RNG.uniform(0, 0.5, 40 + k)).astype(np.float16) for k in range(count)]
    with h5py.File(path, "w") as file:
        for name, rows, kind in (
            ("times", times, "f2"),
            ("units", [RNG.integers(0, NEURONS, len(row)) for row in times[:units]], "u2"),
        ):
            column = file.create_dataset(f"spikes/{name}", len(rows), h5py.vlen_dtype(np.dtype(kind)))
            for number, row in enumerate(rows):
                column[number] = row
        if labels is not None:
            file["labels"] = labels
    return path


def test_all_recordings_are_those_that_are_read_one_by_one(tmp_path):
    path = written(tmp_path / "s.h5", np.arange(COUNT, dtype=np.uint8))
    found = read_all(path)
    assert found.labels.tolist() == list(range(COUNT))
    assert len(found.events) == COUNT
    for number, events in enumerate(found.events):
        one = read(path, sample=number)
        np.testing.assert_array_equal(events.t, one.t)
        np.testing.assert_array_equal(events.places, one.places)
        assert events.source == one.source
    some = read_all(path, limit=3)
    assert (len(some.events), some.labels.tolist()) == (3, [0, 1, 2])
    assert len(read_all(path, limit=99).events) == COUNT
    assert read_all(written(tmp_path / "n.h5")).labels is None


def test_a_file_of_one_recording_is_one(tmp_path):
    np.save(tmp_path / "e.npy", np.array([[1, 2], [3, 4]]))
    assert len(read_all(tmp_path / "e.npy").events) == 1
    with h5py.File(tmp_path / "e.h5", "w") as file:
        file["events/t"], file["events/x"], file["events/y"] = [1, 2], [0, 1], [1, 0]
    found = read_all(tmp_path / "e.h5")
    assert (len(found.events), found.labels) == (1, None)


@pytest.mark.parametrize(
    ("labels", "sizes", "said"),
    [
        (np.arange(5), {}, r"labels of shape \(5,\) in int64 for 7 recordings"),
        (np.arange(7.0), {}, r"labels of shape \(7,\) in float64"),
        (np.zeros((7, 1), int), {}, r"labels of shape \(7, 1\)"),
        (None, {"units": 5}, "columns of {'times': 7, 'units': 5} recordings"),
        (None, {"count": 0}, "one at least"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, labels, sizes, said):
    path = written(tmp_path / "s.h5", labels, **sizes)
    with pytest.raises(DamagedFile, match=said) as caught:
        read_all(path)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(tmp_path):
    path = written(tmp_path / "s.h5", np.arange(COUNT))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedFile, match="not a complete HDF5 file"):
        read_all(path)


def test_a_whole_set_is_simulated_with_its_accuracy(tmp_path):
    path = written(tmp_path / "s.h5")
    x, _ = binned(read_all(path).events, binning(GRAPH, 0.01))
    outputs = simulate(GRAPH, x).outputs
    decided = outputs.mean(axis=0).argmax(axis=-1)
    labels = np.where(np.arange(COUNT) == 0, (decided + 1) % 4, decided)
    with h5py.File(path, "a") as file:
        file["labels"] = labels
    GRAPH.save(tmp_path / "g.unscan")

    def told(*options):
        command = ["simulate", tmp_path / "g.unscan", "--input", path, "--event-dt", "0.01", *options]
        done = CliRunner().invoke(main, [str(a) for a in [*command, "--json", tmp_path / "r.json"]])
        assert done.exit_code == 0, done.output
        return " ".join(done.output.split()), json.loads((tmp_path / "r.json").read_text())

    said, document = told("--decision", "mean")
    assert document["accuracy"] == accuracy(outputs, labels, "mean") == pytest.approx(6 / 7)
    assert "Accuracy 85.71% (6 of 7), by the mean output" in said
    assert "Energies are modelled with horowitz-45nm-float32" in said
    _, document = told("--decision", "mean", "--samples", "3")
    assert (document["samples"], document["accuracy"]) == (3, pytest.approx(2 / 3))
    said, document = told()
    assert "No accuracy: the model does not say" in said
    assert "accuracy" not in document
    np.save(tmp_path / "y.npy", decided)
    assert told("--decision", "mean", "--labels", tmp_path / "y.npy")[1]["accuracy"] == 1
