"""A command that SIGTERM ends leaves nothing half written, and says so by its exit code."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from tests.graphs import chain, lif, two_layers
from unscan.compiler.nodes import Input, Linear, Output
from unscan.terminated import Terminated, terminable


def test_sigterm_is_an_exit_with_143_and_a_second_one_is_not_answered():
    with pytest.raises(Terminated) as ended, terminable():
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_an_answer_that_is_there_is_left_alone():
    heard = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with terminable():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]


def test_another_thread_is_left_alone():
    seen = []

    def run():
        with terminable():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]


def test_a_command_that_is_killed_while_it_writes_leaves_no_part(tmp_path):
    wide = 800
    graph = chain(
        input=Input((wide,)), fc=Linear(np.random.default_rng(0).normal(size=(wide, wide))),
        n=lif(0.9, 0.5), output=Output(),
    )  # fmt: skip
    graph.save(tmp_path / "g.unscan")
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(40, 60, wide)).astype(np.float32))
    command = [
        sys.executable,
        "-m",
        "unscan",
        "simulate",
        "g.unscan",
        "--input",
        "x.npy",
        "--output",
        "run.npz",
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        while running.poll() is None and not list(tmp_path.glob(".run.npz.*.part")):
            time.sleep(0.001)
        assert running.poll() is None, "it was over before it was told to stop"
        running.terminate()
        _, said = running.communicate()
    assert running.returncode == 143
    assert said == "unscan: ended by SIGTERM; what was finished is kept.\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["g.unscan", "x.npy"]


def test_a_sweep_that_is_killed_takes_its_workers_along_and_keeps_what_is_finished(tmp_path):
    graph = two_layers("none").annotate(meta={"decision": "mean"})
    graph.save(tmp_path / "model.unscan")
    np.save(tmp_path / "x.npy", np.zeros((5, 4, *graph.signals["input"].shape), np.float32))
    thresholds = ", ".join(str(1 + k / 100) for k in range(200))
    (tmp_path / "s.yaml").write_text(
        f"sources: [{{path: model.unscan, input: x.npy}}]\ngrid: {{threshold: [{thresholds}]}}\n"
    )
    command = [sys.executable, "-m", "unscan", "sweep", "s.yaml", "--out", "out", "--workers", "1"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as running:
        while running.poll() is None and len(list(tmp_path.glob("out/points/*.json"))) < 2:
            time.sleep(0.001)
        assert running.poll() is None, "it was over before it was told to stop"
        running.terminate()
        _, said = running.communicate()
    assert running.returncode == 143
    assert "ended by SIGTERM" in said
    finished = len(list((tmp_path / "out" / "points").glob("*.json")))
    assert 2 <= finished < 200
    assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "out" / ".lock").exists()
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == finished
