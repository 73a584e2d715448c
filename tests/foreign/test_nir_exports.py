"""What other frameworks export to NIR fires, read here, the spikes of their own models."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.foreign.running import run
from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Delay
from unscan.runtime.executors.reference import Reference

pytestmark = pytest.mark.slow

FRAMEWORKS = ("snntorch", "norse", "sinabs", "spikingjelly")
SPIKES: dict[tuple[str, str], dict[str, Any]] = {
    ("snntorch", "leaky"): {},
    ("snntorch", "leaky-now"): {"phase": "now"},
    ("snntorch", "leaky-zero"): {"reset": "zero"},
    ("snntorch", "leaky-none"): {"reset": "none"},
    ("snntorch", "synaptic"): {},
    ("snntorch", "synaptic-zero"): {"reset": "zero"},
    ("snntorch", "synaptic-zero-now"): {"reset": "zero", "phase": "now"},
    ("snntorch", "conv"): {},
    ("snntorch", "rleaky"): {},
    ("snntorch", "rleaky-zero"): {"reset": "zero"},
    ("snntorch", "rleaky-one-to-one"): {},
    ("snntorch", "rsynaptic"): {},
    ("norse", "box"): {},
    ("norse", "box-seconds"): {"dt": 1e-3},
    ("norse", "cell"): {},
    ("norse", "iaf"): {},
    ("norse", "conv"): {},
    ("sinabs", "lif"): {},
    ("sinabs", "lif-reset"): {"reset": "zero"},
    ("sinabs", "iaf"): {},
    ("sinabs", "conv"): {},
    ("spikingjelly", "lif"): {},
    ("spikingjelly", "lif-gain"): {},
    ("spikingjelly", "lif-rest"): {},
    ("spikingjelly", "plif"): {},
    ("spikingjelly", "if"): {},
    ("spikingjelly", "if-rest"): {},
    ("spikingjelly", "cuba"): {},
    ("spikingjelly", "conv"): {},
    ("spikingjelly", "conv1d"): {},
}
"""Network -> how its file is read, besides with its framework's dialect."""


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> dict[str, Path]:
    """Return, for each framework, the folder of what it wrote."""
    folders = {}
    for framework in FRAMEWORKS:
        folders[framework] = tmp_path_factory.mktemp(framework)
        run(framework, f"export_{framework}.py", folders[framework])
    return folders


def read(folder: Path, name: str, **options: Any) -> Graph:
    return read_nir(folder / f"{name}.nir", kind=Kind.SPIKE, **options).astype(np.float64)


def driven(folder: Path, name: str, graph: Graph) -> tuple[Any, Any]:
    """Return the outputs of the reference, and those of the framework."""
    return Reference(graph).run(np.load(folder / f"{name}.x.npy")).outputs, np.load(folder / f"{name}.y.npy")


def f1(got: Any, truth: Any) -> float:
    return 2 * np.count_nonzero((got > 0) & (truth > 0)) / (np.count_nonzero(got) + np.count_nonzero(truth))


def test_every_network_is_read(exported):
    written = {(f, path.stem) for f, folder in exported.items() for path in folder.glob("*.nir")}
    assert written == {*SPIKES, ("norse", "box-leak"), ("norse", "readout"), ("sinabs", "readout")}


@pytest.mark.parametrize(("framework", "name"), SPIKES, ids=["-".join(case) for case in SPIKES])
def test_spikes_are_those_of_the_framework(exported, framework, name):
    graph = read(exported[framework], name, dialect=framework, **SPIKES[framework, name])
    got, truth = driven(exported[framework], name, graph)
    assert set(np.unique(truth)) == {0.0, 1.0}
    assert 0.005 < truth.mean() < 0.9
    assert f1(got, truth) == 1.0
    assert (
        graph.recurrent
        == any(isinstance(node, Delay) for node in graph.nodes.values())
        == name.startswith("r")
    )


@pytest.mark.parametrize("framework", ["norse", "sinabs"])
def test_a_readout_gives_the_same_numbers(exported, framework):
    graph = read(exported[framework], "readout", dialect=framework)
    got, truth = driven(exported[framework], "readout", graph)
    np.testing.assert_allclose(got, truth, atol=1e-5)


@pytest.mark.parametrize(
    ("framework", "name", "options"),
    [
        ("snntorch", "leaky", {}),
        ("norse", "cell", {"dt": 1e-6}),
        ("sinabs", "lif", {"dt": 1.0}),
        ("spikingjelly", "lif-gain", {}),
    ],
)
def test_how_far_nir_s_own_equations_are_from_each(exported, framework, name, options):
    got, truth = driven(exported[framework], name, read(exported[framework], name, **options))
    same = f1(got, truth) == 1.0
    assert same == (framework == "spikingjelly")  # whose inequality alone differs, and no membrane ties


def test_norse_writes_no_v_reset(exported):
    """Its neurons reset to 0 and leak to 0.1; the file says both, and no node resets to elsewhere than its rest."""
    with pytest.raises(Unsupported, match=r"LIF '1' .*v_reset is 0 and its v_leak 0.1"):
        read(exported["norse"], "box-leak", dialect="norse")
