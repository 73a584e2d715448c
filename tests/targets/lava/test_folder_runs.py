"""Exported folders in Lava: every spike, membrane, output and last state against the reference."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

import unscan
from tests.integers import integer_network, memory_network, numbers_for, spikes_for, state_space_network
from tests.targets.lava.folders import chain, every_neuron, neuron, operators, weights
from tests.targets.lava.needed import needs_lava
from unscan.compiler.ir import Array, Edge, Graph, Kind
from unscan.compiler.nodes import Embedding, Input, IntegerMemory, IntegerSSM, Linear, Quantize, Shift
from unscan.compiler.nodes.neurons import RESETS
from unscan.compiler.passes import quantize
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import ranges
from unscan.runtime.lava import guard
from unscan.runtime.lava.environment import environment
from unscan.sources import read_graph
from unscan.targets.lava import folder
from unscan.trainer.neurons import SpikingSSM

pytestmark = needs_lava
EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "associative_recall.py"


def same_in_lava(graph: Graph, x: Array, into: Path) -> dict[str, Array]:
    """Run a graph in Lava and hold all that it tells to the reference; return the spikes."""
    folder.emit(graph, into / "model")
    np.savez(into / "job.npz", x=x, record=True)
    guard.run(into / "model" / "run.py", into, seconds=120)
    with np.load(into / "result.npz") as told:
        got = dict(told)
    wanted = Reference(graph).run(x)
    expected = {
        "outputs": wanted.outputs,
        **{f"spikes/{name}": value for name, value in wanted.spikes.items()},
        **{f"membranes/{name}": value for name, value in wanted.membranes.items()},
        **{f"state/{name}": value for name, value in wanted.state.items()},
    }
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)
    return dict(wanted.spikes)


def test_every_reset_and_phase_in_one_run_of_two_samples(tmp_path: Path):
    graph = every_neuron()
    spikes = same_in_lava(graph, spikes_for(graph, 50, 2), tmp_path)
    assert all(fired.any() and not fired.all() for fired in spikes.values())


def test_every_operator_and_a_loop_in_one_step(tmp_path: Path):
    graph = operators()
    spikes = same_in_lava(graph, spikes_for(graph, 30, 2), tmp_path)
    assert spikes["threshold"].any()


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.slow
def test_lengths_of_a_row_of_an_embedding(steps: int, tmp_path: Path):
    graph = chain(Input((1,), Kind.INDEX), Embedding(weights(7, 5)), neuron(), Linear(weights(3, 5)))
    x = np.random.default_rng(0).integers(0, 7, (steps, 3, 1)).astype(np.float32)
    same_in_lava(graph, x, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int, tmp_path: Path):
    graph = integer_network(seed)
    same_in_lava(graph, spikes_for(graph, 200, 1, seed), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reset", "queries", "top_k"),
    [*product(RESETS, (1, 3, None), (2,)), ("zero", 1, None), ("none", None, None)],
)
def test_memories(reset: str, queries: int | None, top_k: int | None, tmp_path: Path):
    graph = memory_network(1, reset=reset, queries=queries, top_k=top_k)
    spikes = same_in_lava(graph, numbers_for(graph, 100, 2), tmp_path)
    assert spikes["memory"].any()


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["loihi2", "int8", "int16"])
def test_associative_recall_with_the_four_largest_keys_and_values(profile: str, tmp_path: Path):
    data = os.environ.get("UNSCAN_DATA", "")
    checkpoint = Path(data) / "snntorch" / "associative_recall_gen2.pt"
    if not data or not checkpoint.exists():
        pytest.skip("no snntorch/associative_recall_gen2.pt in UNSCAN_DATA")
    source = Path(f"{EXAMPLE}:RecallNet")
    graph = unscan.compile(read_graph(source, weights=checkpoint, shape=(9,), kind="spike"), top_k=4)
    x = np.random.default_rng(0).integers(0, 2, (14, 8, 9)).astype(np.float32)
    whole = quantize.Quantize(profile, ranges(x)).rewrite(graph).graph
    assert len(whole.of(IntegerMemory)) == 2
    spikes = same_in_lava(whole, x, tmp_path)
    assert all(fired.any() for fired in spikes.values())


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["loihi2", "int8", "int16"])
def test_a_quantised_spiking_ssm(profile: str, tmp_path: Path):
    torch.manual_seed(0)
    blocks = [SpikingSSM(16, 8, dt_min=0.05, dt_max=0.5) for _ in range(2)]
    model = nn.Sequential(nn.Linear(3, 16), *blocks, nn.Linear(16, 4)).eval()
    x = np.random.default_rng(1).normal(0, 1.5, (200, 2, 3)).astype(np.float32)
    whole = quantize.Quantize(profile, ranges(x)).rewrite(unscan.compile(unscan.trace(model, x))).graph
    assert len(whole.of(IntegerSSM)) == 2
    spikes = same_in_lava(whole, x, tmp_path)
    assert all(fired.any() for fired in spikes.values())


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "channels", "modes"), [(0, 4, 3), (1, 16, 16), (2, 1, 1)])
def test_state_space_models(seed: int, channels: int, modes: int, tmp_path: Path):
    graph = state_space_network(seed, channels=channels, modes=modes)
    spikes = same_in_lava(graph, numbers_for(graph, 200, 2), tmp_path)
    assert spikes["neuron"].any()


@pytest.mark.slow
def test_modes_and_memories_that_saturate(tmp_path: Path):
    filters, memories = state_space_network(), memory_network(1, reset="subtract")
    narrow = {"ssm": replace(cast(IntegerSSM, filters.nodes["ssm"]), bits=14, out_bits=11)}
    low = np.int32(1500)
    few = {"memory": replace(cast(IntegerMemory, memories.nodes["memory"]), bits=12, shift=1, threshold=low)}
    for name, graph in (("ssm", filters.with_nodes(narrow)), ("memory", memories.with_nodes(few))):
        (tmp_path / name).mkdir()
        x = numbers_for(graph, 60, 2)
        counted = Reference(graph).run(x).counts
        assert counted is not None
        assert counted.tallies[name]["saturated"] > 20
        same_in_lava(graph, x, tmp_path / name)


@pytest.mark.slow
def test_an_input_read_in_two_formats(tmp_path: Path):
    more = (Edge("0", "fine"), Edge("fine", "narrow"), Edge("narrow", "output"))
    beside = {"fine": Quantize(bits=16, fraction=9), "narrow": Shift(shift=np.int32(5), bits=12)}
    graph = chain(
        Input((3,), Kind.REAL), Quantize(bits=4, fraction=1), Linear(weights(3, 3)), more=more, beside=beside
    )
    same_in_lava(graph, numbers_for(graph, 20, 2), tmp_path)


BETWEEN_LAVAS_OWN = """
import sys
from pathlib import Path
import numpy as np
sys.path.insert(0, str(Path(sys.argv[1]) / "model"))
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from processes.neuron.process import LIF
from processes.nodes import About

x = np.load(Path(sys.argv[1]) / "x.npy")
settings = {"shift": 0, "bits": 24, "decay_bits": 12, "wraps": False, "reset": "subtract", "phase": "now"}
arrays = {"alpha": 0, "beta": 3000, "bias": 2, "threshold": 50}
arrays = {name: np.array(value) for name, value in arrays.items()}
lif = LIF(About({"x": (3,)}, (3,), settings, arrays, {"i": (3,), "u": (3,)}))
source, sink = Source(data=x.T), Sink(shape=(3,), buffer=len(x))
source.s_out.connect(lif.x)
lif.y.connect(sink.a_in)
lif.run(condition=RunSteps(num_steps=len(x)), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
np.savez(Path(sys.argv[1]) / "got.npz", u=lif.u.get(), spikes=sink.data.get().T)
lif.stop()
"""


@pytest.mark.slow
def test_a_process_stands_between_those_of_lava(tmp_path: Path):
    made = neuron(beta=np.int32(3000), bias=np.int32(2), threshold=np.int32(50), reset="subtract")
    graph = chain(Input((3,), Kind.SPIKE), Linear(weights(3, 3, largest=90)), made)
    folder.emit(graph, tmp_path / "model")
    x = spikes_for(graph, 40, 1)
    np.save(tmp_path / "x.npy", (x[:, 0] @ weights(3, 3, largest=90).T).astype(np.int64))
    (tmp_path / "script.py").write_text(BETWEEN_LAVAS_OWN)
    guard.run(tmp_path / "script.py", tmp_path, seconds=60)
    wanted = Reference(graph).run(x)
    with np.load(tmp_path / "got.npz") as got:
        np.testing.assert_array_equal(got["spikes"], wanted.outputs[:, 0])
        np.testing.assert_array_equal(got["u"], wanted.state["2.u"][0])
    assert wanted.outputs.any()


def run_py(model: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the script of a folder by itself, in Lava's environment and nothing else."""
    command = [
        environment().interpreter(),
        "-W",
        "error::SyntaxWarning",
        model / "run.py",
        *map(str, arguments),
    ]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin"}
    )


def test_the_folder_runs_by_itself(tmp_path: Path):
    graph = state_space_network()
    folder.emit(graph, tmp_path / "model")
    x = numbers_for(graph, 20, 3)
    np.save(tmp_path / "x.npy", x)
    done = run_py(tmp_path / "model", "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz")
    assert done.returncode == 0, done.stderr
    wanted = Reference(graph).run(x)
    with np.load(tmp_path / "y.npz") as got:
        assert set(got.files) == {"outputs", *(f"state/{name}" for name in wanted.state)}
        np.testing.assert_array_equal(got["outputs"], wanted.outputs)


@pytest.mark.slow
def test_the_folder_takes_one_sample_and_refuses_what_does_not_fit(tmp_path: Path):
    graph = integer_network(0)
    folder.emit(graph, tmp_path / "model")
    x, given = spikes_for(graph, 10, 1), ("--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz")
    np.save(tmp_path / "x.npy", x[:, 0])
    assert run_py(tmp_path / "model", *given, "--record").returncode == 0
    with np.load(tmp_path / "y.npz") as got:
        np.testing.assert_array_equal(got["spikes/neuron1"], Reference(graph).run(x).spikes["neuron1"])
    (tmp_path / "y.npz").unlink()
    for wrong, said in ((x[..., :-1], "wanted \\(T, "), (x * np.nan, "finite"), (x * 2, "from 0 to 1")):
        np.save(tmp_path / "x.npy", wrong)
        done = run_py(tmp_path / "model", *given)
        assert done.returncode
        assert re.search(said, done.stderr), done.stderr
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.slow
def test_the_folder_ends_where_a_process_fails_or_takes_too_long(tmp_path: Path):
    graph = integer_network(0)
    folder.emit(graph, tmp_path / "model")
    np.save(tmp_path / "x.npy", spikes_for(graph, 2000, 1))
    given = ("--input", tmp_path / "x.npy", "--output", tmp_path / "y.npz")
    late = run_py(tmp_path / "model", *given, "--seconds", 2)
    assert late.returncode == 1
    assert "within 2 seconds" in late.stderr
    source = tmp_path / "model" / "processes" / "neuron" / "process.py"
    source.write_text(
        source.read_text().replace('"""Integrate, fire and reset."""', "raise RuntimeError('broken')")
    )
    broken = run_py(tmp_path / "model", *given)
    assert broken.returncode == 1
    assert "RuntimeError: broken" in broken.stderr
    assert not (tmp_path / "y.npz").exists()
