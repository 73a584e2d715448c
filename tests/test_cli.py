"""The commands as a user types them: what they print, write and return."""

import json
import re

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tests.graphs import two_layers
from tests.test_tiny import RECIPE
from unscan.cli import main
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import TopK
from unscan.compiler.storage import load


def unscan(*arguments, code=0):
    """Run a command, expect an exit code, and return what it printed."""
    done = CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=True)
    assert done.exit_code == code, (done.output, done.exception)
    if done.exception is not None:
        assert isinstance(done.exception, SystemExit), done.exception
    return done.output


def refused(*arguments):
    """Run a command with wrong input: exit code 2 and one paragraph, which is returned."""
    said = unscan(*arguments, code=2)
    assert said.startswith("unscan: ")
    assert said.count("\n") == 1
    return said


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a reset-free run, its graph deployed as trained and with the reset restored."""
    folder = tmp_path_factory.mktemp("cli")
    layers = [{"width": 20, "neuron": {"kind": "state_leaky", "beta": 0.9}, "norm": "batch"}]
    network = {"layers": layers, "readout": {"beta": 0.98}}
    recipe = {**RECIPE, "network": network, "precision": 32}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    said = unscan("train", folder / "tiny.yaml", "--out", folder / "run", "--json", folder / "train.json")
    assert "test accuracy" in said
    assert json.loads((folder / "train.json").read_text())["epochs"] == 1
    unscan("compile", folder / "run", "-o", folder / "same.unscan")
    said = unscan("compile", folder / "run", "-o", folder / "zero.unscan", "--reset", "zero", "--check")
    assert "trained with reset none" in said.replace("\n", " ")
    flat = " ".join(said.split())
    assert "restore-reset: changed on the samples: F1 of spikes" in flat
    assert re.search(r"restore-reset 1 changed 0\.\d+ ", flat)
    assert re.search(r"fold-norm 3 within rounding 1 ", flat)
    return folder


def test_inspect_shows_nodes_and_draws_them(trained):
    said = unscan(
        "inspect", trained / "zero.unscan", "--svg", trained / "g.svg", "--json", trained / "i.json"
    )
    assert "layer1.neuron" in said
    assert "reset zero (now), fires at u >= threshold" in said
    drawing = (trained / "g.svg").read_text()
    assert drawing.startswith("<svg")
    assert drawing.count("<rect") == 1 + len(load(trained / "zero.unscan").nodes)
    document = json.loads((trained / "i.json").read_text())
    assert document["nodes"]["layer1.neuron"]["settings"]["trained_reset"] == "none"


def test_inspect_prints_the_text_form_alone(trained):
    lines = unscan("inspect", trained / "zero.unscan", "--text").splitlines()
    assert lines[0] == "input = Input() -> real[1]"
    assert lines[2].startswith(
        "layer1.neuron = LIF(layer1.linear) beta float32 0.9, threshold float32 1.0, gain '1',"
    )
    assert lines[2].endswith("-> spike[20] keeps u[20]")
    assert any(line.startswith("# meta task: ") for line in lines)
    assert lines[-1].startswith("# history ")


def test_inspect_compares_two(trained):
    said = unscan("inspect", trained / "same.unscan", "--diff", trained / "zero.unscan")
    assert said == "~ layer1.neuron: reset 'none' -> 'zero'\n"
    said = unscan("inspect", trained / "same.unscan", "--diff", trained / "same.unscan")
    assert "compute the same" in said


def test_compare_runs_as_many_samples_as_a_record_holds(trained):
    record = trained / "seven.npz"
    unscan("simulate", trained / "same.unscan", "--samples", 7, "--output", record)
    said = unscan("compare", record, trained / "same.unscan", "--executors", "event")
    assert "the first 7 of" in " ".join(said.split())
    said = unscan("compare", record, record, "--graph", trained / "same.unscan")
    assert "7 of 7 samples are decided alike" in said


def test_labels_need_a_decision(trained):
    np.save(trained / "d.npy", np.random.default_rng(0).random((6, 3, 1)))
    np.save(trained / "dy.npy", np.array([0, 1, 2]))
    graph = load(trained / "same.unscan")
    Graph(graph.nodes, graph.edges).save(trained / "bare.unscan")
    given = (
        "simulate",
        trained / "bare.unscan",
        "--input",
        trained / "d.npy",
        "--labels",
        trained / "dy.npy",
    )
    assert "--decision" in refused(*given)
    assert "by the mean output" in unscan(*given, "--decision", "mean")


def test_compile_shows_times_and_what_is_rewritten(trained):
    said = unscan(
        "compile", trained / "run", "-o", trained / "timed.unscan", "--time-passes", "--print-between-passes"
    )
    assert "layer1.norm = BatchNorm(layer1.linear)" in said
    assert "# after unroll\n~ layer1.neuron: LIFConvolution -> LIF" in said
    assert "\n- layer1.norm = BatchNorm(layer1.linear)" in said
    flat = " ".join(said.split())
    assert re.search(r"fold-norm 3 0\.\d+ 7 -> 6", flat)
    assert load(trained / "timed.unscan") == load(trained / "same.unscan")


def test_compile_runs_the_passes_that_are_named(trained):
    unscan("compile", trained / "run", "-o", trained / "few.unscan", "--passes", "unroll, prune-dead")
    assert "layer1.norm" in load(trained / "few.unscan").nodes


def test_compile_calibrates_the_restored_reset(trained):
    said = unscan(
        "compile",
        trained / "run",
        "-o",
        trained / "cal.unscan",
        "--reset",
        "zero",
        "--calibrate",
        "--samples",
        8,
    )
    assert "calibrate: layer1.neuron: fired at" in " ".join(said.split())
    assert load(trained / "cal.unscan").nodes["layer1.neuron"].threshold.shape == (20,)


MODEL = """
import torch
from torch import nn
from unscan.trainer import AssociativeLeaky, Leaky


class Net(nn.Module):
    def __init__(self, width=6, slower=False):
        super().__init__()
        torch.manual_seed(3)
        self.front = nn.Linear(4, width)
        self.spikes = Leaky(width, 0.8, 0.4)
        self.memory = AssociativeLeaky(width, 4, 3, threshold=0.05)
        if slower:
            self.spikes = Leaky(width, 0.9, 0.4)

    def forward(self, x):
        return self.memory(self.spikes(self.front(x)))
"""


@pytest.fixture(scope="module")
def in_python(tmp_path_factory):
    """A folder with a model's file, an input, and the deployed graph."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "net.py").write_text(MODEL)
    np.save(folder / "x.npy", np.random.default_rng(0).normal(0, 1, (30, 5, 4)))
    compiled = ("compile", f"{folder / 'net.py'}:Net", "--shape", "4", "--arg", "width=8", "-o")
    unscan(*compiled, folder / "m.unscan")
    unscan(*compiled, folder / "k.unscan", "--top-k", "k=2", "--top-k", "memory:v=0.5,k=1", "--scalar-decay")
    return folder


def test_a_class_in_a_python_file_is_compiled_and_verified(in_python):
    arguments = ("--arg", "width=8", "--input", in_python / "x.npy", "--against", "reference")
    said = unscan("verify", f"{in_python / 'net.py'}:Net", in_python / "m.unscan", *arguments)
    assert "fires the spikes of the trained model" in said
    assert "memory of 4 x 3, decay dense, reset none, fires at S >= threshold" in " ".join(said.split())


def test_top_k_and_scalar_decay_are_compiled_in(in_python):
    graph = load(in_python / "k.unscan")
    assert graph.nodes["memory"].decay == "scalar"
    assert {name: graph.nodes[name].count for name in graph.of(TopK)} == {
        "memory.top_k": 1,
        "memory.top_v": 2,
    }
    said = " ".join(unscan("inspect", in_python / "k.unscan").split())
    assert "23 numbers of state in 3 arrays" in said
    assert "v=memory.top_v" in said


def test_verify_says_which_layer_is_another(in_python):
    arguments = ("--arg", "width=8", "--arg", "slower=True", "--input", in_python / "x.npy")
    said = unscan(
        "verify", f"{in_python / 'net.py'}:Net", in_python / "m.unscan", *arguments, "--against", "reference",
        "--json", in_python / "v.json", code=1,
    )  # fmt: skip
    assert "No parallel layer of the model leaves its own recurrence" in " ".join(said.split())
    document = json.loads((in_python / "v.json").read_text())
    assert document["localised"]["kept"] == ["spikes", "memory"]
    assert document["localised"]["departures"] == []


def test_verify_names_the_layer_column_and_step_of_a_scan_that_underflows(tmp_path):
    (tmp_path / "net.py").write_text(
        MODEL.replace("from unscan.trainer import AssociativeLeaky, Leaky", "from snntorch import AssociativeLeaky\n"
                      "from unscan.trainer import Leaky")
        .replace("AssociativeLeaky(width, 4, 3, threshold=0.05)", "AssociativeLeaky(width, 4, 4, 16)")
    )  # fmt: skip
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(1, 2, (40, 4, 4)))
    unscan("compile", f"{tmp_path / 'net.py'}:Net", "--shape", "4", "-o", tmp_path / "m.unscan")
    said = unscan(
        "verify", f"{tmp_path / 'net.py'}:Net", tmp_path / "m.unscan", "--input", tmp_path / "x.npy",
        "--against", "reference", code=1,
    )  # fmt: skip
    flat = " ".join(said.split())
    assert "First to leave: memory (AssociativeScan) leaves its own recurrence at step" in flat
    assert "and to less than 1e-08 from step" in flat
    assert "They keep to their recurrence: spikes." in flat


def test_verify_holds_for_the_model_as_trained(trained):
    said = unscan(
        "verify", trained / "run", trained / "same.unscan", "--samples", 30, "--json", trained / "v.json"
    )
    assert "fires the spikes of the trained model" in said
    found = json.loads((trained / "v.json").read_text())
    assert found["holds"]
    assert len(found["comparisons"]) == 8


def test_verify_compares_membranes_in_units_of_their_threshold(trained):
    unscan("compile", trained / "run", "-o", trained / "folded.unscan", "--threshold", "8")
    unscan(
        "verify", trained / "run", trained / "folded.unscan", "--samples", 20, "--against", "event",
        "--json", trained / "f.json",
    )  # fmt: skip
    for comparison in json.loads((trained / "f.json").read_text())["comparisons"]:
        assert comparison["agreement"]["layers"]["layer1.neuron"]["membrane_relative"] < 1e-5


def test_verify_breaks_on_a_restored_reset_and_says_where(trained):
    said = unscan(
        "verify", trained / "run", trained / "zero.unscan", "--samples", 30, "--against", "event", code=1
    )
    flat = " ".join(said.split())
    assert "trained with reset none and is deployed with reset zero" in flat
    assert "first mismatch at step" in flat
    assert "layer layer1.neuron, neuron" in flat
    assert "from the threshold 1" in flat
    assert "accuracy gap" in flat


def test_simulate_counts_and_writes(trained):
    out, result = trained / "out.npz", trained / "s.json"
    said = unscan("simulate", trained / "same.unscan", "--samples", 10, "--output", out, "--json", result)
    assert "Accuracy" in said
    document = json.loads(result.read_text())
    with np.load(out) as arrays:
        assert arrays["outputs"].shape == (64, 10, 10)
        assert document["counts"]["total"]["spikes"] == arrays["spikes/layer1.neuron"].sum()
        assert "state/layer1.neuron.u" in arrays
    for executor in ("reference", "onnx", "onnx-scan"):
        unscan("simulate", trained / "same.unscan", "--samples", 10, "--executor", executor)


def test_simulate_takes_arrays(trained, tmp_path):
    two_layers(kind=Kind.SPIKE).save(tmp_path / "g.unscan")
    np.save(tmp_path / "x.npy", np.ones((5, 2, 6), bool))
    assert "ACs" in unscan("simulate", tmp_path / "g.unscan", "--input", tmp_path / "x.npy")
    assert "task" in refused("simulate", tmp_path / "g.unscan")
    np.save(tmp_path / "x.npy", np.full((5, 2, 6), 0.5))
    assert "takes spikes" in refused("simulate", tmp_path / "g.unscan", "--input", tmp_path / "x.npy")


@pytest.mark.parametrize(("target", "suffix"), [("nir", "nir"), ("onnx", "onnx")])
def test_export_and_check(trained, target, suffix):
    path = trained / f"m.{suffix}"
    assert "yes" in unscan("check", trained / "same.unscan", "--target", target)
    assert str(path.name) in unscan("export", trained / "same.unscan", "-o", path)
    assert path.stat().st_size > 1000


def test_check_says_why_not_and_what_helps(trained):
    said = unscan("check", trained / "run", "--target", "nir", "--json", trained / "c.json", code=1)
    assert "run fold-norm" in " ".join(said.split())
    document = json.loads((trained / "c.json").read_text())
    assert document["deployable"] is False
    assert "layer1.norm" in document["refused"]


def test_a_nir_file_can_be_read_back(trained):
    unscan("export", trained / "same.unscan", "-o", trained / "again.nir")
    unscan("compile", trained / "again.nir", "-o", trained / "again.unscan")
    assert load(trained / "again.unscan") == load(trained / "same.unscan")


@pytest.mark.parametrize(
    "command", ["passes", "targets", "executors", "neurons", "tasks", "energies", "bench"]
)
def test_lists(command):
    assert len(unscan(command).splitlines()) >= 3


def test_a_source_that_several_energy_tables_share_is_shown_once():
    said = " ".join(unscan("energies").split())
    assert said.count("Horowitz") == 1
    assert "horowitz-45nm-int32, horowitz-45nm-int8: M. Horowitz" in said
    assert "loihi-1: M. Davies" in said


def test_a_benchmark_says_how_it_is_called(tmp_path):
    assert "does not exist" in refused("bench", "neurons", "--quick", "--json", tmp_path / "none" / "x.json")
    done = CliRunner().invoke(main, ["bench", "neurons", "--json"])
    assert done.exit_code == 2
    assert "usage: unscan bench neurons [-h] [--quick] [--json FILE]" in done.output


def test_a_surrogate_network_is_trained_measured_and_used(tmp_path):
    out = tmp_path / "small.safetensors"
    said = unscan(
        "train-sdn", "--epochs", "0.0002", "--seed", "3", "--out", out, "--json", tmp_path / "s.json"
    )
    assert "N(0, 1)" in said
    figures = json.loads((tmp_path / "s.json").read_text())["figures"]
    assert 0 < figures[0]["accuracy"] <= 1
    neuron = {"kind": "surrogate_leaky", "network": str(out)}
    recipe = {**RECIPE, "network": {"layers": [{"width": 8, "neuron": neuron}]}, "precision": 32}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    said = unscan("train", tmp_path / "r.yaml", "--out", tmp_path / "run")
    assert "deployed test accuracy" in said
    said = unscan("compile", tmp_path / "run", "-o", tmp_path / "m.unscan")
    assert "drop-surrogate: layer1.neuron: LIFSurrogate -> LIFScan with reset zero" in " ".join(said.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "m.unscan",
        "r.yaml",
        "run",
        "s.json",
        "small.safetensors",
    ]


def test_wrong_calls_of_train_sdn_and_bench_are_refused(tmp_path):
    assert "There is no folder" in refused("train-sdn", "--out", tmp_path / "ghost" / "x.safetensors")
    assert "tau is 2" in refused("train-sdn", "--tau", "2", "--out", tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []
    assert "There is no benchmark 'speed'" in refused("bench", "speed")
    assert "There is no variant 'exakt'" in refused("bench", "ablation", "--only", "exakt")
    assert "There is no recipe for 'Gen2'" in refused("bench", "recall", "--only", "Gen2")


def test_doctor(tmp_path, monkeypatch):
    said = unscan("doctor", "--json", tmp_path / "d.json")
    assert "torch" in said
    assert json.loads((tmp_path / "d.json").read_text())["parts"][0]["part"] == "python"
    monkeypatch.setenv("UNSCAN_DATA", str(tmp_path / "ghost"))
    assert "name a folder that exists" in unscan("doctor", code=1)
