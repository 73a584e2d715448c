"""Every benchmark runs: quickly, and to the end."""

import json
from importlib import import_module

import numpy as np
import pytest
import torch

from unscan.benchmarks import BENCHMARKS, activity, counting, frameworks, inference, memory_inference
from unscan.benchmarks.measuring import medians, memory
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.program import Column, Op

OWN_DATA = sorted(BENCHMARKS.keys() - {"ablation", "sparsity"})


def test_every_benchmark_says_what_it_is():
    for name in BENCHMARKS:
        module = import_module(f"unscan.benchmarks.{name}")
        assert f"unscan bench {name}" in module.__doc__
        with pytest.raises(SystemExit) as stop:
            module.main(["--help"])
        assert stop.value.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_DATA)
def test_every_benchmark_runs(name, tmp_path):
    more = ["--out", str(tmp_path / "runs")] if name == "recall" else []
    import_module(f"unscan.benchmarks.{name}").main(["--quick", "--json", str(tmp_path / "f.json"), *more])
    assert json.loads((tmp_path / "f.json").read_text())["torch"]


def test_medians_take_turns():
    turns = []
    found = medians({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 0.0)
    assert turns[:2] == ["a", "b"]
    assert "".join(turns[2:]).replace("a" * 25, "A").replace("b" * 25, "B") == "ABABAB"
    assert set(found) == {"a", "b"}


def test_memory_is_that_of_the_pass_and_not_of_its_inputs():
    prepared = import_module("unscan.benchmarks.memory").prepared
    lanes = 4 * 128
    small, large = (memory(prepared, "Leaky", steps) for steps in (2048, 8192))
    assert 2 * 4 * lanes * 6144 < large - small < 6 * 4 * lanes * 6144


def test_a_framework_answers_with_the_spikes_of_the_executor(tmp_path):
    x = (np.random.default_rng(2).random((20, 3, 784)) < 0.1).astype(np.float32)
    graph = inference.network([0.8, 0.5, 0.5])
    weights = {f"w{i}": graph.nodes[f"fc{i}"].weight for i in inference.LAYERS}
    thresholds = np.array([graph.nodes[f"lif{i}"].threshold for i in inference.LAYERS])
    np.savez(tmp_path / "n.npz", x=x, beta=inference.BETA, thresholds=thresholds, **weights)
    sent = frameworks.opened("torch", str(tmp_path / "n.npz"))
    fired = EventDriven(graph, np.float32, threads=1).run(x).spikes
    for i, (found, wanted) in enumerate(zip(zip(*sent(), strict=True), fired.values(), strict=True)):
        assert np.array_equal(torch.stack(found).numpy(), wanted), i
    assert frameworks.answer(sent, "count") == sum(spikes.sum() for spikes in fired.values()) > 0
    assert frameworks.answer(sent, "time", "0.001") > 0


def test_a_process_answers_in_turn_and_says_when_it_is_gone(tmp_path):
    script = "import sys\nfor line in sys.stdin:\n if line == 'end\\n': break\n print(len(line), flush=True)"
    with inference.ExitStack() as stack:
        ask = inference.asking("a peer", [inference.sys.executable, "-c", script], stack)
        assert [ask("count"), ask("time 0.5")] == [6, 9]
        with pytest.raises(RuntimeError, match="a peer ended without an answer to 'end'"):
            ask("end")


def test_a_dense_cell_reads_what_the_memory_reads():
    drawn = memory_inference.tables(24)
    words = np.random.default_rng(0).integers(0, memory_inference.WORDS, (100, 1, 1))
    read = EventDriven(memory_inference.graph(drawn, "scalar")).run(words).outputs[:, 0]
    assert np.count_nonzero(read) > 100
    np.testing.assert_allclose(memory_inference.dense(drawn, words[:, 0, 0]), read, rtol=1e-12, atol=1e-12)


def test_a_program_without_an_operation_computes_the_rest():
    x = (np.random.default_rng(2).random((20, 2, 784)) < 0.1).astype(np.float32)
    graph = inference.network([0.8, 0.5, 0.5])
    full, rest = EventDriven(graph, np.float32, threads=1), counting.without(graph, Op.COUNT, np.float32)
    assert Op.COUNT in full._program.ops
    assert Op.COUNT not in rest._program.code.table[:, Column.OP]
    assert np.array_equal(full.run(x).outputs, rest.run(x).outputs)


def test_a_fit_finds_what_times_were_made_of():
    made = activity.Line(2.0, 0.5, 0.25, 1.0)
    points = [
        activity.Point(n, share, 32 * n * share, {}) for n in (64, 512, 4096) for share in (0.001, 0.01)
    ]
    for point in points:
        point.us[activity.OURS] = made.at(point)
    found = activity.fitted(points)
    np.testing.assert_allclose(vars(found)["a"], 2.0)
    np.testing.assert_allclose([found.b, found.c, found.r2], [0.5, 0.25, 1.0])
    assert activity.fitted(points[:2]).c == 0


def test_neurons_fire_at_the_rate_of_their_input():
    x = (np.random.default_rng(3).random((200, 1, 128)) < 0.05).astype(np.float32)
    graph = activity.calibrated(128, 0.05, True, x)
    assert all((graph.nodes[f"fc{i}"].weight != 0).sum(axis=0).tolist() == [16] * 128 for i in range(2))
    rates = [spikes.mean() for spikes in EventDriven(graph, np.float32).run(x).spikes.values()]
    np.testing.assert_allclose(rates, 0.05, rtol=0.05)


def test_both_panels_are_drawn(tmp_path):
    points = [
        activity.Point(n, share, 32 * n * share, {activity.OURS: n * share + 1, activity.DENSE: float(n)})
        for share in activity.SPARSE
        for n in (64, 512)
    ]
    line = activity.fitted(points)
    activity.plotted(points, points, (line, line), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_text().count("<svg") == 1
