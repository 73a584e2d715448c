import json
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from tests.compiler.nir_files import DT, full, lif, write
from tests.targets.networks import chain, feed_forward, weight
from tests.targets.networks import lif as our_lif
from unscan.compiler.errors import DamagedFile, InvalidInput, Unsupported
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import LI, LIF, Flatten, Input, Linear, Output, Scale
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import emit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.nir"


OURS = [
    {"reset": reset, "phase": phase, "fires": fires, "gain": gain, "readout": readout}
    for reset, phase in (("none", "now"), ("subtract", "next"), ("zero", "now"))
    for fires in (">", ">=")
    for gain in ("1", "1-beta")
    for readout in (False, True)
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("settings", OURS, ids=lambda s: "-".join(map(str, s.values())))
def test_our_own_file_gives_the_same_graph(path, dtype, settings):
    graph = feed_forward(dtype=dtype, trained_reset="zero", **settings)
    emit(graph, path)
    found = read_nir(path)
    assert found.digest == graph.digest
    assert found == graph
    assert tuple(found.nodes) == tuple(graph.nodes)
    assert found.edges == graph.edges
    assert found.history == graph.history
    assert found.meta == graph.meta
    assert found.nodes["hidden.0"].trained_reset == "zero"


def test_parameters_that_the_encoding_changes_come_back_exactly(path):
    rng = np.random.default_rng(0)
    graph = chain(
        {
            "a/b.c": Input((6,)),
            "output": Flatten(),
            "input": Scale(rng.random(6)),
            "n00": Linear(weight(rng, 5, 6, np.float64)),
            "n01": our_lif(beta=rng.random(5), threshold=0.1 + 0.2, reset="subtract"),
            "ü": LI(beta=rng.random(5), gain="1-beta"),
            "out": Output(),
        }
    )
    emit(graph, path)
    found = read_nir(path)
    assert found == graph
    np.testing.assert_array_equal(found.nodes["n01"].beta, graph.nodes["n01"].beta)
    x = rng.random((5, 2, 6))
    np.testing.assert_array_equal(Reference(found).run(x).outputs, Reference(graph).run(x).outputs)


def edit(path: Path, key: str, change) -> None:
    with h5py.File(path, "r+") as file:
        value = file[key][()]
        del file[key]
        file[key] = change(value)


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("node/nodes/n0_affine/weight", lambda v: v + np.float32(1e-6)),
        ("node/nodes/n0_affine/bias", lambda v: v * 2),
        ("node/nodes/n1_lif/tau", lambda v: v * 2),
        ("node/edges", lambda v: v[::-1]),
        ("node/metadata/unscan_arrays/a0", lambda v: v / 2),
        ("node/metadata/unscan", lambda v: v.replace(b'"zero"', b'"none"')),
        ("node/metadata/unscan_sha256", lambda v: v[::-1]),
    ],
)
def test_an_edited_file_of_ours_is_refused(path, key, change):
    emit(feed_forward(dtype=np.float32, reset="zero"), path)
    with h5py.File(path) as file:
        names = {name.replace("00", "0").replace("01", "1"): name for name in file["node/nodes"]}
    for short, name in names.items():
        key = key.replace(f"/{short}/", f"/{name}/")
    edit(path, key, change)
    with pytest.raises(DamagedFile, match="altered after unscan wrote it"):
        read_nir(path)


def test_a_newer_format_is_refused(path):
    emit(feed_forward(), path)

    def newer(value: bytes) -> str:
        return json.dumps(json.loads(value) | {"format": 99})

    edit(path, "node/metadata/unscan", newer)
    with pytest.raises(DamagedFile, match="format version 99.*upgrade unscan"):
        read_nir(path)


def test_a_document_that_cannot_be_rebuilt_is_refused(path):
    emit(feed_forward(), path)
    edit(path, "node/metadata/unscan", lambda v: v[:-10])
    with pytest.raises(DamagedFile, match="cannot be rebuilt"):
        read_nir(path)


def test_truncated_and_foreign_bytes_are_refused(path):
    with pytest.raises(InvalidInput, match="no file"):
        read_nir(path)
    emit(feed_forward(), path)
    whole = path.read_bytes()
    for part in (b"", whole[:100], whole[: len(whole) // 2], whole[:-1], b"text"):
        path.write_bytes(part)
        with pytest.raises(DamagedFile, match="not a complete NIR file"):
            read_nir(path)
    with h5py.File(path, "w") as file:
        file["other"] = 1
    with pytest.raises(DamagedFile, match="not a complete NIR file"):
        read_nir(path)


def test_options_for_a_file_of_ours_are_refused(path):
    emit(feed_forward(), path)
    with pytest.raises(InvalidInput, match="holds its own dt and reset"):
        read_nir(path, dt=DT)
    with pytest.raises(InvalidInput, match="restore-reset"):
        read_nir(path, reset="zero")
    with pytest.raises(InvalidInput, match="without those options"):
        read_nir(path, dialect="snntorch")


def test_the_history_says_how_each_neuron_was_read(path):
    primitives = [
        lif(),
        lif(tau=full(0.002), r=np.array([1.5, 2.0, 3.0]), v_threshold=np.array([0.5, 0.7, 0.9])),
        nir.IF(r=full(1 / DT), v_threshold=full(1.5)),
    ]
    graph = read_nir(write(path, *primitives), dt=DT)
    assert graph.meta["dt"] == DT
    assert graph.history[0] == "read-nir model.nir, dt = 0.001 s"
    assert "read-nir LIF p0: decay 1 - dt/tau = 0.9, gain dt r/tau = 0.1" in graph.history
    assert "read-nir IF p2: no decay, gain dt r = 1" in graph.history
    assert graph.nodes["p0"].gain == "1-beta"
    assert isinstance(graph.nodes["p1.gain"], Scale)
    assert "p2.gain" not in graph.nodes


def test_a_lif_of_others_is_strict_and_resets_to_zero(path):
    found = read_nir(write(path, lif(r=full(10.0))), dt=DT, kind=Kind.SPIKE)
    node = found.nodes["p0"]
    assert isinstance(node, LIF)
    assert (node.reset, node.fires, node.phase, node.trained_reset, node.gain) == (
        "zero",
        ">",
        "now",
        "zero",
        "1",
    )
    assert found.nodes["in"].kind is Kind.SPIKE
    assert read_nir(path, dt=DT, reset="subtract").nodes["p0"].reset == "subtract"


STRIPPED = {
    "zero": {"reset": "zero", "fires": ">", "threshold": 1.5, "beta": 0.5},
    "subtract": {"reset": "subtract", "threshold": 0.8137},
    "subtract-next": {"reset": "subtract", "phase": "next", "threshold": 0.8137},
    "none": {"reset": "none", "threshold": 0.8137},
    "no-leak": {"reset": "subtract", "beta": 1.0, "threshold": 2.0137},
    "forgets": {"reset": "zero", "beta": 0.0, "threshold": 0.8137},
    "gain": {"reset": "subtract", "gain": "1-beta", "threshold": 0.1137},
}


@pytest.mark.parametrize("readout", [False, True], ids=["spikes", "readout"])
@pytest.mark.parametrize("settings", STRIPPED.values(), ids=STRIPPED)
def test_our_file_without_its_metadata_runs_the_same(path, settings, readout):
    graph = feed_forward(**settings, readout=readout)
    emit(graph, path)
    with h5py.File(path, "r+") as file:
        del file["node/metadata"]
    found = read_nir(path, dt=1e-4, kind=Kind.SPIKE)
    assert found != graph
    x = (np.random.default_rng(0).random((100, 2, 12)) < 0.5).astype(float)
    got, truth = Reference(found).run(x).outputs, Reference(graph).run(x).outputs
    if readout:
        np.testing.assert_allclose(got, truth, atol=1e-6)
    else:
        assert truth.any()
        np.testing.assert_array_equal(got, truth)


def test_a_file_that_shows_no_dt_asks_for_it(path):
    write(path, lif())
    with pytest.raises(
        InvalidInput, match=r"--dt SECONDS.*LIF 'p0': tau 0.01 s, gain dt r / tau = dt x 100, which"
    ):
        read_nir(path)
    for dt in (-1, float("inf")):
        with pytest.raises(InvalidInput, match=f"greater than 0; got {dt}"):
            read_nir(path, dt=dt)
    with pytest.raises(InvalidInput, match="shorter than dt = 1 s.*negative"):
        read_nir(path, dt=1)
    read_nir(write(path, nir.Linear(np.eye(3))))


def test_a_primitive_that_nir_does_not_have_is_named(path):
    write(path, lif())
    edit(path, "node/nodes/p0/type", lambda v: "Izhikevich")
    with pytest.raises(Unsupported, match="holds Izhikevich, which NIR .* does not have"):
        read_nir(path, dt=DT)


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("dialect", "brian", "nir, snntorch"),
        ("reset", "soft", "none, subtract"),
        ("phase", "late", "now, next"),
    ],
)
def test_an_option_that_is_not_there_is_refused(path, option, value, known):
    with pytest.raises(InvalidInput, match=f"no {option} '{value}'; there are {known}"):
        read_nir(write(path, lif()), dt=DT, **{option: value})
