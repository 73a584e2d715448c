"""examples/sensor.py: every step is decided as a run decides it, and what is late, held back or dropped is counted."""

import re
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import unscan
from unscan.runtime import events

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "sensor.py"


@pytest.fixture(scope="module")
def sensor():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def files(sensor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sensor")
    sensor["make_model"](folder / "model.unscan")
    quarters = sensor["make_recording"](folder / "dot.npz", seconds=0.5)
    return folder / "model.unscan", folder / "dot.npz", quarters


@pytest.mark.parametrize("size", [1, 64])
def test_decisions_are_those_of_a_run(sensor, files, capsys, size):
    model, recording, quarters = files
    changes = sensor["serve"](model, recording, dt=1e-3, speed=100.0, size=size, waits=True)
    graph = unscan.load(model)
    x, tally = events.binned(events.read(recording), events.binning(graph, 1e-3))
    scores = unscan.simulate(graph, x).outputs[:, 0]
    first = int(np.flatnonzero(np.ptp(scores, axis=-1))[0])
    decided = scores.argmax(axis=-1)
    at = [first, *(np.flatnonzero(np.diff(decided[first:])) + first + 1)]
    assert changes == [(pytest.approx((t + 1) * 1e-3), decided[t]) for t in at]
    assert [decision for _, decision in changes] == quarters
    printed = capsys.readouterr().out
    assert f"{len(x)} steps of 0.001 s at 100 times the recording's speed; latency p50 " in printed
    assert re.search(r"p90 \d+, p99 \d+, max \d+ us, .*; \d+ deadlines of 10 us missed", printed)
    assert f"dot.npz: {tally}" in printed
    assert re.search(
        rf"ring of {size}: at most \d+ steps .* held back \d+ times, 0 steps were dropped", printed
    )


def test_a_full_ring_drops_the_oldest_and_counts_it(sensor, files, capsys):
    model, recording, _ = files
    sensor["serve"](model, recording, dt=1e-3, speed=1e6, size=4, waits=False)
    printed = capsys.readouterr().out
    ran = int(re.search(r"(\d+) steps of 0.001 s", printed)[1])
    binned = int(re.search(r"in (\d+) steps", printed)[1])
    dropped = int(re.search(r"(\d+) steps were dropped", printed)[1])
    assert ran + dropped == binned
    assert "held back 0 times" in printed


def test_a_ring_gives_what_was_put_into_it(sensor):
    ring = sensor["Ring"](3, waits=False)
    steps = [events.Step(k, np.zeros(0), np.zeros(0)) for k in range(5)]
    for step in steps:
        ring.put(step, step.number / 10)
    ring.close()
    assert [(step.number, due) for step, due in ring] == [(2, 0.2), (3, 0.3), (4, 0.4)]
    assert (ring.dropped, ring.fullest) == (2, 3)


def test_what_the_reader_raises_ends_the_loop(sensor, files, tmp_path):
    (tmp_path / "empty.csv").write_text("# nothing\n")
    with pytest.raises(unscan.UnscanError, match="holds no events"):
        sensor["serve"](files[0], tmp_path / "empty.csv", dt=1e-3, speed=1.0, size=4, waits=True)


def test_it_runs_by_itself(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--speed", "50"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    (quarters,) = re.findall(r"A dot in the quarters \[(.*)\]", printed)
    assert re.findall(r"decision (\d)", printed) == quarters.split(", ")


def test_what_it_is_not_started_with(monkeypatch, capsys, tmp_path):
    for wrong in (["--speed", "0"], ["--ring", "0"], ["model.unscan"]):
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *wrong])
        with pytest.raises(SystemExit):
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        assert "a model goes with a recording" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path / "no.unscan"), "no.npz"])
    with pytest.raises(SystemExit, match="There is no file"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
