"""Lava against the reference: every spike, membrane, output and final state equal, bit for bit."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.integers import integer_network, spikes_for
from tests.targets.lava import networks
from tests.targets.lava.needed import needs_lava
from unscan.compiler.errors import DamagedFile, InvalidInput, MissingDependency
from unscan.compiler.ir import Array, Graph
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.lava import Lava
from unscan.runtime.executors.reference import Reference
from unscan.runtime.lava import environment, guard, netx
from unscan.runtime.lava.guard import LavaFailed
from unscan.targets.lava import netx as target


def assert_equal(there: Execution, here: Execution) -> None:
    """Fail unless two executions are equal bit for bit."""
    assert np.array_equal(there.outputs, here.outputs)
    assert set(there.spikes) == set(here.spikes)
    assert set(there.membranes) == set(here.membranes)
    assert set(there.state) == set(here.state)
    for what in ("spikes", "membranes", "state"):
        for name, value in getattr(here, what).items():
            assert np.array_equal(getattr(there, what)[name], value), (what, name)


def numbers(graph: Graph, steps: int, samples: int) -> Array:
    """Spikes, or real numbers where the graph takes those."""
    if not graph.of(networks.Quantize):
        return spikes_for(graph, steps, samples)
    shape = graph.signals["input"].shape
    return np.random.default_rng(0).normal(0, 1.5, (steps, samples, *shape)).astype(np.float32)


@needs_lava
def test_one_small_network() -> None:
    graph = integer_network(1, "loihi2")
    x = spikes_for(graph, 63, 3)
    there, here = Lava(graph).run(x), Reference(graph).run(x)
    assert all(spikes.any() for spikes in here.spikes.values())
    assert_equal(there, here)


MADE: dict[str, Callable[[], Graph]] = {
    "dense": networks.dense,
    "soft reset": networks.soft_reset,
    "recurrent": lambda: networks.loop(networks.dense(), "second", networks.weights(4, 4, seed=1)),
    "convolution": networks.convolution,
    "delays": networks.delays,
    "integrator": networks.integrator,
    "readout": networks.readout,
}


@needs_lava
@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 100])
@pytest.mark.parametrize("made", MADE)
def test_everything_that_netx_says(made: str, steps: int) -> None:
    graph = MADE[made]()
    x = numbers(graph, steps, 3)
    here = Reference(graph).run(x)
    assert steps == 1 or all(spikes.any() and not spikes.all() for spikes in here.spikes.values())
    assert_equal(Lava(graph).run(x), here)


STOCK = """
import sys
from pathlib import Path
import numpy as np
from lava.lib.dl.netx import hdf5
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io import sink, source

folder = Path(sys.argv[1])
x = np.load(folder / "x.npy")
net = hdf5.Network(net_config=str(folder / "model.net"))
given = source.RingBuffer(data=np.pad(x, ((0, 0), (0, 1))))
kept = sink.RingBuffer(shape=net.out.shape, buffer=x.shape[1] + 1)
given.s_out.connect(net.inp)
net.out.connect(kept.a_in)
net.run(condition=RunSteps(num_steps=x.shape[1] + 1), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
neuron = net.layers[0].neuron
np.savez(folder / "result.npz", spikes=kept.data.get(), u=neuron.u.get(), v=neuron.v.get())
net.stop()
"""


@needs_lava
@pytest.mark.slow
def test_sinks_and_vars_say_the_same(tmp_path: Path) -> None:
    graph = networks.soft_reset()
    x = spikes_for(graph, 50, 1)
    here = Reference(graph).run(x)
    target.emit(graph, tmp_path / "model.net")
    np.save(tmp_path / "x.npy", x[:, 0].T.astype(np.int32))
    (tmp_path / "script.py").write_text(STOCK)
    guard.run(tmp_path / "script.py", tmp_path, seconds=60)
    with np.load(tmp_path / "result.npz") as there:
        assert here.spikes["first"].any()
        assert np.array_equal(there["spikes"][:, 1:].T, here.spikes["first"][:, 0])
        assert np.array_equal(there["u"], here.state["first.i"][0])
        assert np.array_equal(there["v"], here.state["first.u"][0])


@needs_lava
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(40))
def test_random_networks(seed: int) -> None:
    graph = integer_network(seed, "loihi2")
    x = spikes_for(graph, 200, 2)
    assert_equal(Lava(graph).run(x), Reference(graph).run(x))


@needs_lava
def test_a_file_runs_without_its_graph(tmp_path: Path) -> None:
    graph = networks.readout()
    target.emit(graph, tmp_path / "model.net")
    file = netx.from_file(tmp_path / "model.net")
    x = np.random.default_rng(0).integers(-127, 128, (20, 2, 6))
    given = file.run(x)
    here = Reference(graph).run(x / 32)
    assert np.array_equal(given["first"], here.spikes["first"])
    assert np.array_equal(given["fc2"], here.outputs)
    with pytest.raises(InvalidInput, match=r"wanted \(T, B, 6\)"):
        file.run(x[0])
    with pytest.raises(InvalidInput, match="takes whole numbers from -127 to 127"):
        file.run(x / 2)
    with pytest.raises(InvalidInput, match="takes whole numbers from -127 to 127"):
        file.run(2 * x)


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.net"
    with pytest.raises(InvalidInput, match="There is no file"):
        netx.from_file(path)
    target.emit(networks.dense(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile, match="not a netx file that unscan wrote"):
        netx.from_file(path)
    path.write_bytes(b"no file of ours")
    with pytest.raises(DamagedFile, match="not a netx file that unscan wrote"):
        netx.from_file(path)


@needs_lava
def test_an_altered_file_ends_with_lavas_own_words(tmp_path: Path) -> None:
    import h5py

    path = tmp_path / "model.net"
    target.emit(networks.dense(), path)
    with h5py.File(path, "a") as file:
        del file["layer/1/neuron/vThMant"]
    with pytest.raises(LavaFailed, match="vThMant"):
        netx.from_file(path).run(np.zeros((2, 1, 6)))


@needs_lava
def test_wrong_input_is_refused() -> None:
    graph = networks.dense()
    lava = Lava(graph)
    with pytest.raises(InvalidInput, match="wanted"):
        lava.run(np.zeros((4, 2, 7)))
    with pytest.raises(InvalidInput, match="takes spikes"):
        lava.run(np.full((4, 2, 6), 0.5))
    state = {name: np.ones((2, *shape)) for name, shape in graph.states.items()}
    with pytest.raises(InvalidInput, match=r"starts every sample from zeros.*first\.u"):
        lava.run(np.zeros((4, 2, 6)), state)


@needs_lava
def test_a_run_that_takes_too_long_is_ended() -> None:
    with pytest.raises(LavaFailed, match="still running after 0.5 seconds"):
        Lava(networks.dense(), seconds=0.5).run(np.zeros((4000, 1, 6)))


@needs_lava
def test_an_interrupt_leaves_nothing() -> None:
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        Lava(networks.dense()).run(np.zeros((60000, 1, 6)))
    timer.join()


def test_a_missing_environment_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path / "none"))
    with pytest.raises(MissingDependency, match="unscan lava install"):
        Lava(networks.dense())


def test_an_environment_is_named_or_in_the_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(environment.VARIABLE, raising=False)
    assert environment.environment().folder.name == ".lava-venv"
    monkeypatch.setenv(environment.VARIABLE, str(tmp_path))
    assert environment.environment().folder == tmp_path


def test_a_folder_of_something_else_is_not_made_an_environment(tmp_path: Path) -> None:
    (tmp_path / "work.txt").touch()
    with pytest.raises(InvalidInput, match="no Python environment and not empty"):
        environment.install(environment.Environment(tmp_path))
