"""Sweeps as a user runs them: what a point measures, what is kept, and what is done again."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

import unscan
from tests.graphs import chain, lif, linear, sequence, two_layers
from tests.test_tiny import RECIPE
from unscan import sweep_points, sweep_run, sweep_workers
from unscan.cli import main
from unscan.compiler.frontends.load import load_model
from unscan.compiler.nodes import Input, Output
from unscan.runtime.agreement import LayerAgreement, compare
from unscan.runtime.decision import accuracy
from unscan.runtime.energy import Energy
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import rates
from unscan.sources import read_graph
from unscan.sweep_plan import plan, read_sweep
from unscan.sweep_points import measure
from unscan.sweep_workers import failed


class Here:
    """A pool that does jobs in this process, in order, when their outcomes are asked for."""

    done: ClassVar[list[str]] = []
    stop_after: ClassVar[int | None] = None

    def __init__(self, count=1):
        self.waiting = []

    def submit(self, key, job, *arguments):
        self.waiting.append((key, job, arguments))

    def next(self):
        if len(Here.done) == Here.stop_after:
            raise KeyboardInterrupt
        key, job, arguments = self.waiting.pop(0)
        Here.done.append(key)
        return key, job(*arguments)

    def __enter__(self):
        return self

    def __exit__(self, *fault):
        pass


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Do jobs in this process, and say which were done."""
    monkeypatch.setattr(sweep_workers, "Processes", Here)
    monkeypatch.setattr(Here, "done", [])
    monkeypatch.setattr(Here, "stop_after", None)
    sweep_points._trained.cache_clear()
    return Here


@pytest.fixture
def folder(tmp_path):
    """A folder with a graph, what it runs on, and a sweep of three points."""
    graph = two_layers("none").annotate(meta={"decision": "mean"})
    graph.save(tmp_path / "model.unscan")
    x = sequence(graph, 63, 20)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "train.npy", sequence(graph, 40, 6, seed=5))
    decided = Reference(graph).run(x).outputs.mean(axis=0).argmax(axis=-1)
    np.save(tmp_path / "y.npy", np.where(np.arange(20) < 18, decided, (decided + 1) % 4))
    write(tmp_path, {"grid": {"reset": [None, "zero", "subtract"]}})
    return tmp_path


def write(folder, document, **source):
    """Write a sweep over the folder's graph."""
    source = {
        "path": "model.unscan",
        "input": "x.npy",
        "labels": "y.npy",
        "training_input": "train.npy",
    } | source
    document = {"sources": [source]} | document
    (folder / "sweep.yaml").write_text(yaml.safe_dump(document))


def swept(folder, *arguments, code=0):
    """Run the command; return what it printed, and the rows it wrote."""
    command = ["sweep", folder / "sweep.yaml", "--out", folder / "out", *arguments]
    done = CliRunner().invoke(main, [str(a) for a in command])
    assert done.exit_code == code, (done.output, done.exception)
    if done.exception is not None:
        assert isinstance(done.exception, SystemExit), done.exception
    lines = folder / "out" / "results.jsonl"
    rows = [json.loads(line) for line in lines.read_text().splitlines()] if lines.is_file() else []
    return " ".join(done.output.split()), rows


def points(folder):
    """Return the points of the folder's sweep."""
    return plan(read_sweep(folder / "sweep.yaml"), folder=folder, runs=folder / "out" / "runs")


OPTIONS = [
    {},
    {"reset": "zero"},
    {"reset": "subtract", "phase": "next", "calibrate": True},
    {"quantize": "int8"},
    {"quantize": "loihi2", "reset": "zero", "threshold": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("cut", [2**28, 2**16])
def test_a_point_measures_what_compiling_and_running_by_hand_gives(folder, options, cut, monkeypatch):
    monkeypatch.setattr("unscan.runtime.batches.RECORDED_BYTES", cut)
    write(folder, {"points": [options]})
    (point,) = points(folder)
    got = measure(point, None)

    graph, x, y = unscan.load(folder / "model.unscan"), np.load(folder / "x.npy"), np.load(folder / "y.npy")
    train = np.load(folder / "train.npy")
    asked = options | ({"calibrate": rates(train)} if "calibrate" in options else {})
    compiled = unscan.compile(graph, samples=train, **asked)
    run, model = unscan.simulate(compiled, x), Reference(graph).run(x)
    agreed = compare(compiled, model, run)
    assert got["graph"] == compiled.digest
    assert got["accuracy_model"] == accuracy(model.outputs, y, "mean") == 0.9
    assert got["accuracy"] == accuracy(run.outputs, y, "mean")
    assert got["gap"] == got["accuracy"] - 0.9
    assert got["f1"] == agreed.total.f1
    assert {name: layer["f1"] for name, layer in got["layers"].items()} == {
        name: layer.f1 for name, layer in agreed.layers.items()
    }
    assert got["operations"] == json.loads(json.dumps(run.counts.total.to_json()))
    assert got["rate"] == run.counts.total.rate
    assert (got["samples"], got["steps"], got["status"], got["unheard"]) == (20, 63, "done", [])
    assert got["whole_numbers"] == ("quantize" in options)
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize("steps", [1, 8, 63, 100])
def test_packed_spikes_agree_as_spikes_do(steps):
    draw = np.random.default_rng(steps).random((2, steps, 3, 5)) < 0.3
    packed = np.packbits(draw[0], axis=0)
    wanted = LayerAgreement(*(int(a.sum()) for a in (*draw, draw[0] & draw[1])), draw[0].size)
    assert sweep_points._agreement(packed, draw[1]) == wanted


def test_without_labels_or_spikes_nothing_is_made_up(folder):
    rng = np.random.default_rng(0)
    layers = {"fc1": linear(rng, 6, 5), "lif": lif(0.9, 1e9), "fc2": linear(rng, 5, 4)}
    silent = chain(input=Input((6,)), **layers, output=Output())
    silent.save(folder / "model.unscan")
    write(folder, {}, labels=None)
    said, (row,) = swept(folder)
    assert row["accuracy"] is row["accuracy_model"] is row["gap"] is row["f1"] is None
    assert row["rate"] == 0
    assert row["fronts"] == []
    assert " silent 0.00% " in said
    assert "accuracy as trained" not in said
    ET.parse(folder / "out" / "pareto.svg")


def test_the_results_are_table_csv_lines_and_picture(folder):
    said, rows = swept(folder, "--json", folder / "all.json")
    assert said.startswith("3 points, 0 of them finished before")
    assert [row["settings"] for row in rows] == [
        {"source": "model"},
        {"source": "model", "reset": "zero"},
        {"source": "model", "reset": "subtract"},
    ]
    assert rows[0]["f1"] == 1
    assert rows[0]["gap"] == 0
    assert rows[1]["f1"] < 1
    assert "as trained" in said
    assert "reset subtract" in said
    assert "model: accuracy as trained 90.00%, dense network" in said
    with (folder / "out" / "results.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["setting reset"] for row in table] == ["", "zero", "subtract"]
    for row, flat in zip(rows, table, strict=True):
        assert float(flat["energy_total_joules"]) == row["energy"]["total"]
        assert float(flat["acs_per_sample"]) == row["operations"]["acs"] / 20
        assert float(flat["f1"]) == row["f1"]
        assert flat["fronts"] == " + ".join(row["fronts"])
        assert (flat["key"], flat["status"]) == (row["key"], "done")
    assert "energy" in min(rows, key=lambda row: row["energy"]["total"])["fronts"]
    ET.parse(folder / "out" / "pareto.svg")
    document = json.loads((folder / "all.json").read_text())
    assert [row["key"] for row in document["points"]] == [row["key"] for row in rows]
    assert rows[0]["number"] in document["fronts"]["F1"]
    assert len(list((folder / "out" / "points").iterdir())) == 3


def test_energies_are_those_of_the_numbers_or_of_the_tables_that_are_named(folder):
    write(folder, {"grid": {"quantize": [None, "int8"]}})
    _, first = swept(folder)
    assert [row["energy_table"] for row in first] == ["horowitz-45nm-float32", "horowitz-45nm-int8"]
    counts = unscan.simulate(
        unscan.compile(unscan.load(folder / "model.unscan")), np.load(folder / "x.npy")
    ).counts
    assert first[0]["energy"]["total"] == pytest.approx(Energy.of(counts).total / 20, rel=1e-12)
    write(folder, {"grid": {"quantize": [None, "int8"]}, "energy": {"whole": "horowitz-45nm-int32"}})
    said, second = swept(folder)
    assert "2 of them finished before" in said
    assert second[0]["energy"] == first[0]["energy"]
    assert second[1]["energy"]["total"] > first[1]["energy"]["total"]


NET = """
from torch import nn
from unscan.trainer import Leaky, LeakyIntegrator

class Net(nn.Module):
    def __init__(self, hidden=6):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, hidden), Leaky(hidden, beta=0.9, reset="zero", threshold=0.1), nn.Linear(hidden, 4),
            LeakyIntegrator(4),
        )
    def forward(self, x):
        return self.layers(x)
"""


def test_an_energy_table_that_lacks_a_price_is_refused_at_the_first_point(folder, here):
    (folder / "e.yaml").write_text("add: 1\nmultiply: 1\nmemory: 1\nupdates: {decay: 1}\n")
    write(folder, {"grid": {"reset": [None, "zero"]}, "energy": str(folder / "e.yaml")})
    assert "has no price for updates of kind" in swept(folder, code=2)[0]
    assert len(here.done) == 1
    write(folder, {"grid": {"reset": [None, "zero"]}})
    assert "2 points, 1 of them finished before" in swept(folder)[0]


def test_a_class_in_a_python_file_is_a_source(folder, here):
    (folder / "net.py").write_text(NET)
    rng = np.random.default_rng(3)
    np.save(folder / "x3.npy", rng.normal(0, 2, (30, 20, 3)).astype(np.float32))
    built = load_model(f"{folder / 'net.py'}:Net", None, {"hidden": 5})
    torch.save({name: value * 1.5 for name, value in built.state_dict().items()}, folder / "w.pt")
    read = {"weights": "w.pt", "arguments": {"hidden": 5}, "shape": 3}
    source = {"path": "net.py:Net", "input": "x3.npy", "training_input": "x3.npy", "decision": "mean"}
    write(folder, {"grid": {"quantize": [None, "int8"]}}, **source, read=read)
    _, rows = swept(folder)
    assert [row["settings"]["source"] for row in rows] == ["Net", "Net"]
    graph = read_graph(
        Path(f"{folder / 'net.py'}:Net"), weights=folder / "w.pt", arguments={"hidden": 5}, shape=(3,)
    )
    outputs = Reference(graph).run(np.load(folder / "x3.npy")).outputs
    right = accuracy(outputs, np.load(folder / "y.npy"), "mean")
    assert rows[0]["accuracy_model"] == rows[0]["accuracy"] == right
    assert rows[0]["f1"] == 1
    assert rows[1]["energy_table"] == "horowitz-45nm-int8"
    first = points(folder)[0].key
    swept(folder)
    assert len(here.done) == 2
    built.layers[0].bias.data += 1
    torch.save(built.state_dict(), folder / "w.pt")
    assert points(folder)[0].key != first
    write(folder, {}, **source, read=read | {"shape": None})
    assert "with --shape" in swept(folder, code=1)[1][-1]["error"]


def test_what_is_finished_is_not_run_again(folder, here):
    first = swept(folder)[1]
    assert len(here.done) == 3
    write(folder, {"grid": {"reset": ["zero", None, "subtract", "none"]}})
    said, rows = swept(folder)
    assert "4 points, 3 of them finished before" in said
    assert len(here.done) == 4
    assert rows[0] | {"number": 2, "fronts": []} == first[1] | {"number": 2, "fronts": []}


def test_an_interrupted_sweep_keeps_what_is_finished_and_goes_on(folder, here):
    here.stop_after = 2
    said, rows = swept(folder, code=130)
    assert "interrupted; what was finished is kept, 2 of 3 points: the same command goes on." in said
    assert len(rows) == 2
    here.stop_after = None
    said, rows = swept(folder)
    assert "3 points, 2 of them finished before" in said
    assert len(rows) == 3
    assert sorted(here.done) == sorted({row["key"] for row in rows})


def test_a_sweep_that_is_broken_off_before_its_first_point_writes_nothing(folder, here):
    here.stop_after = 0
    said, _ = swept(folder, code=130)
    assert "0 of 3 points: the same command goes on" in said
    assert not (folder / "out").exists()


def test_each_finished_point_is_told_where_there_is_no_terminal(folder):
    write(folder, {"grid": {"quantize": [None, "int8"]}}, training_input=None)
    done = CliRunner().invoke(main, ["sweep", str(folder / "sweep.yaml"), "--out", str(folder / "out")])
    lines = [line.partition(", ")[0] for line in done.stderr.splitlines()]
    assert lines == ["1 of 2: point 1 (as trained) done", "2 of 2: point 2 (quantize int8) failed"]


def test_a_folder_that_cannot_hold_results_is_refused_before_the_work(folder, here, monkeypatch):
    (folder / "file").write_text("")
    for out, said in (
        ("file", "it is a file"),
        ("file/below", "Not a directory"),
        ("/proc/none", "No such file"),
    ):
        done = CliRunner().invoke(main, ["sweep", str(folder / "sweep.yaml"), "--out", str(folder / out)])
        assert done.exit_code == 2
        assert said in done.stderr
        assert "--out" in done.stderr
        assert done.stderr.count("\n") == 1
    assert here.done == []


def test_a_sweep_file_that_cannot_be_read_says_why(folder):
    path = folder / "sweep.yaml"
    for spoil, said in (
        (lambda: path.write_text(""), "sweep.yaml is empty; wanted keys and values, among sources"),
        (lambda: path.write_bytes(b"\xff"), "is no text in UTF-8"),
        (lambda: (path.unlink(), path.mkdir()), "cannot be read: Is a directory; name a file"),
    ):
        spoil()
        assert said in swept(folder, code=2)[0]
    assert not (folder / "out").exists()


def test_a_folder_is_swept_into_by_one_process_at_a_time(folder, here):
    hold = "import sys, pathlib; from unscan.sweep_folder import held\n"
    hold += "with held(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", hold, str(folder / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        said, rows = swept(folder, code=2)
        assert f"Another sweep runs in {folder / 'out'} (process {other.pid} on " in said
        assert (rows, here.done) == ([], [])
        other.kill()
    assert (folder / "out" / ".lock").is_file()  # it was killed, and could not take it away
    assert len(swept(folder)[1]) == 3
    assert not (folder / "out" / ".lock").exists()


def test_a_point_that_fails_is_told_of_and_stops_no_other(folder, here, monkeypatch):
    write(folder, {"grid": {"quantize": [None, "int8"], "reset": [None, "zero"]}}, training_input=None)
    said, rows = swept(folder, code=1)
    assert [row["status"] for row in rows] == ["done", "failed", "done", "failed"]
    assert "does not say which task it was trained on" in rows[1]["error"]
    assert "Failed: 2 (quantize int8), 4 (reset zero, quantize int8): The graph does not say" in said
    with (folder / "out" / "results.csv").open() as file:
        assert [row["error"][:9] for row in csv.DictReader(file)] == ["", "The graph", "", "The graph"]
    swept(folder, code=1)
    assert len(here.done) == 4
    swept(folder, "--retry-failed", code=1)
    assert len(here.done) == 6
    monkeypatch.setattr(sweep_run, "measure", lambda point, data_dir: measured(rows[0]))
    assert [row["status"] for row in swept(folder, "--retry-failed")[1]] == ["done"] * 4


def measured(row):
    """Return the outcome that a row tells of."""
    return {name: value for name, value in row.items() if name not in ("key", "number", "settings", "fronts")}


def test_a_defect_of_one_point_is_told_with_its_place(folder, monkeypatch):
    def defect(*arguments, **options):
        raise ZeroDivisionError("of a point")

    monkeypatch.setattr(sweep_points, "compile_on", defect)
    _, rows = swept(folder, code=1)
    assert {row["error"].partition(" in ")[0] for row in rows} == {"ZeroDivisionError"}
    assert "test_sweep.py, line" in rows[0]["error"]
    assert rows[0]["error"].endswith(": of a point")


def test_a_recipe_is_trained_once_for_all_its_points(tmp_path, here):
    recipe = RECIPE | {"epochs": 1, "precision": 32}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    source = {"recipe": "tiny.yaml", "settings": {"network.layers.0.width": [4, 6]}}
    document = {"sources": [source], "grid": {"quantize": [None, "int8"]}, "samples": 30}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
    said, rows = swept(tmp_path)
    assert [key.partition("-")[0] for key in here.done[:2]] == ["train", "train"]
    assert len(here.done) == 6
    assert [row["settings"]["network.layers.0.width"] for row in rows] == [4, 4, 6, 6]
    assert rows[0]["f1"] == 1
    assert rows[0]["f1"] > rows[1]["f1"] > 0.8
    assert rows[0]["data"].startswith("the first 30 of the 360 test samples")
    assert "tiny, width 4: accuracy as trained" in said
    run = next((tmp_path / "out" / "runs").iterdir())
    assert (run / "result.json").is_file()
    document["grid"]["quantize"].append("int16")
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
    swept(tmp_path)
    assert len(here.done) == 8


def test_the_points_of_a_training_that_fails_fail_with_it(tmp_path, here, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    document = {"sources": [{"recipe": "tiny.yaml"}], "grid": {"reset": [None, "zero"]}}
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setattr(sweep_run, "train", lambda source, data_dir: failed("no data"))
    _, rows = swept(tmp_path, code=1)
    assert [row["error"] for row in rows] == ["its training failed: no data"] * 2
    assert len(here.done) == 1


def test_a_damaged_outcome_is_named(folder):
    _, rows = swept(folder)
    (folder / "out" / "points" / f"{rows[0]['key']}.json").write_text("{")
    said, _ = swept(folder, code=2)
    assert "does not hold the outcome of a point" in said
    assert "delete it" in said


def test_processes_and_a_scheduler_exclude_each_other(folder):
    said, _ = swept(folder, "--workers", 2, "--scheduler", "tcp://127.0.0.1:1", code=2)
    assert "give one of the two" in said


def test_real_processes_find_what_this_one_finds(folder, monkeypatch):
    wanted = swept(folder)[1]
    monkeypatch.undo()
    (folder / "out").rename(folder / "first")
    _, rows = swept(folder, "--workers", 1)
    where = {"seconds": None, "machine": None}
    assert [row | where for row in rows] == [row | where for row in wanted]


@pytest.mark.slow
def test_a_cluster_that_loses_a_worker_on_the_way_finds_what_this_process_finds(folder):
    distributed = pytest.importorskip("distributed")
    write(folder, {"grid": {"reset": [None, "zero", "subtract"], "threshold": [None, 0.5, 1.0, 2.0]}})
    wanted = swept(folder)[1]
    (folder / "out").rename(folder / "first")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50
    ) as cluster:
        first = next(iter(cluster.workers.values())).pid

        def kill():
            while len(list((folder / "out").glob("points/*.json"))) < 2:
                time.sleep(0.001)
            os.kill(first, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        _, rows = swept(folder, "--scheduler", cluster.scheduler_address)
        killer.join()
    where = {"seconds": None, "machine": None}
    assert [row | where for row in rows] == [row | where for row in wanted]
