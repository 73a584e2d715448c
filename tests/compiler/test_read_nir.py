import json
from itertools import pairwise
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from tests.targets.networks import chain, feed_forward, lif, weight
from unscan.compiler.errors import DamagedFile, InvalidInput, Unsupported
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import LI, LIF, Flatten, Input, Linear, Output, Scale
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import emit

DT = 1e-3


def full(value, n=3):
    return np.full(n, value, np.float64)


def neuron(**changed):
    return nir.LIF(
        **{"tau": full(0.01), "r": full(1), "v_leak": full(0), "v_threshold": full(0.5), "v_reset": full(0)}
        | changed
    )


def write(path: Path, *primitives, edges=None, n=3) -> Path:
    nodes = {"in": nir.Input(np.array([n]))}
    nodes |= {f"p{i}": primitive for i, primitive in enumerate(primitives)}
    nodes["out"] = nir.Output(np.array([n]))
    nir.write(path, nir.NIRGraph(nodes, edges or list(pairwise(nodes)), type_check=False))
    return path


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
            "n01": lif(beta=rng.random(5), threshold=0.1 + 0.2, reset="subtract"),
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


def euler(primitives, x):
    """The equations of a chain of NIR primitives, as `nir.ir` states them."""
    v = [np.zeros(3)] * len(primitives)
    outputs = []
    for x_t in x:
        y = x_t
        for i, p in enumerate(primitives):
            if isinstance(p, nir.Affine):
                y = p.weight @ y + p.bias
            elif isinstance(p, nir.Linear):
                y = p.weight @ y
            elif isinstance(p, nir.Scale):
                y = p.scale * y
            elif isinstance(p, nir.LI):
                y = v[i] = v[i] + DT / p.tau * (p.r * y - v[i])
            else:
                rate = DT * p.r if isinstance(p, nir.IF) else DT / p.tau * p.r
                kept = 1 if isinstance(p, nir.IF) else 1 - DT / p.tau
                u = kept * v[i] + rate * y
                y = (u > p.v_threshold).astype(float)
                v[i] = u * (1 - y)
        outputs.append(y)
    return np.stack(outputs)


def test_a_file_of_others_runs_as_its_equations_say(path):
    rng = np.random.default_rng(0)
    primitives = [
        nir.Affine(weight(rng, 3, 3, np.float64), rng.random(3)),
        neuron(),
        nir.Linear(weight(rng, 3, 3, np.float64)),
        neuron(tau=full(0.002), r=np.array([1.5, 2.0, 3.0]), v_threshold=np.array([0.5, 0.7, 0.9])),
        nir.Scale(np.array([1.0, 2.0, 3.0])),
        nir.IF(r=full(1 / DT), v_threshold=full(1.5)),
        nir.LI(tau=np.array([0.01, 0.02, 0.03]), r=full(1), v_leak=full(0)),
    ]
    graph = read_nir(write(path, *primitives), dt=DT)
    x = rng.random((100, 3)) * 3
    ran = Reference(graph).run(x[:, None])
    assert all(0.01 < spikes.mean() < 0.99 for spikes in ran.spikes.values())
    np.testing.assert_allclose(ran.outputs[:, 0], euler(primitives, x), atol=1e-12)
    assert graph.meta["dt"] == DT
    assert "read-nir LIF p1: decay 1 - dt/tau = 0.9, gain dt r/tau = 0.1" in graph.history
    assert graph.nodes["p1"].gain == "1-beta"
    assert isinstance(graph.nodes["p3.gain"], Scale)
    assert "p5.gain" not in graph.nodes


def test_a_lif_of_others_is_strict_and_resets_to_zero(path):
    found = read_nir(write(path, neuron(r=full(10.0))), dt=DT, kind=Kind.SPIKE)
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


def test_our_file_without_its_metadata_runs_the_same(path):
    graph = feed_forward(reset="zero", fires=">", threshold=1.5, beta=0.5)
    emit(graph, path)
    with h5py.File(path, "r+") as file:
        del file["node/metadata"]
    found = read_nir(path, dt=1e-4, kind=Kind.SPIKE)
    x = (np.random.default_rng(0).random((50, 2, 12)) < 0.5).astype(float)
    np.testing.assert_array_equal(Reference(found).run(x).outputs, Reference(graph).run(x).outputs)


def test_dt_is_asked_for_and_never_guessed(path):
    write(path, neuron())
    with pytest.raises(InvalidInput, match=r"--dt SECONDS.*LIF 'p0': tau 0.01 s, gain dt x 100"):
        read_nir(path)
    with pytest.raises(InvalidInput, match="greater than 0; got -1"):
        read_nir(path, dt=-1)
    with pytest.raises(InvalidInput, match="shorter than dt = 1 s.*negative"):
        read_nir(path, dt=1)
    read_nir(write(path, nir.Linear(np.eye(3))))


REFUSED = {
    "v_leak": (neuron(v_leak=full(0.1)), "LIF 'p0' .*v_leak is 0.1"),
    "v_reset": (neuron(v_reset=full(-1)), "LIF 'p0' .*v_reset is -1"),
    "v_threshold": (neuron(v_threshold=full(0)), "LIF 'p0' .*v_threshold is 0"),
    "Delay": (nir.Delay(full(1)), "Delay 'p0' .*does not read Delay"),
    "Threshold": (nir.Threshold(full(1)), "Threshold 'p0' .*does not read Threshold"),
    "subgraph": (
        nir.NIRGraph(
            {"i": nir.Input(np.array([3])), "o": nir.Output(np.array([3]))}, [("i", "o")], type_check=False
        ),
        "NIRGraph 'p0' .*does not read NIRGraph",
    ),
    "CubaLI": (nir.CubaLI(*(full(1) for _ in range(4))), "does not read CubaLI"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(path, case):
    primitive, reason = REFUSED[case]
    with pytest.raises(Unsupported, match=reason):
        read_nir(write(path, primitive), dt=DT)


def test_a_recurrence_is_refused(path):
    edges = [("in", "p0"), ("p0", "p1"), ("p1", "p0"), ("p0", "out")]
    with pytest.raises(Unsupported, match="recurrence p0 -> p1 -> p0"):
        read_nir(write(path, neuron(), nir.Linear(np.eye(3)), edges=edges), dt=DT)


def test_a_flatten_that_keeps_an_axis_is_refused(path):
    nodes = {
        "in": nir.Input(np.array([2, 3, 4])),
        "f": nir.Flatten({"input": np.array([2, 3, 4])}, start_dim=1),
        "out": nir.Output(np.array([2, 12])),
    }
    nir.write(path, nir.NIRGraph(nodes, list(pairwise(nodes))))
    with pytest.raises(Unsupported, match="Flatten 'f' .*joins axes 1 to -1"):
        read_nir(path)
    nodes["f"] = nir.Flatten({"input": np.array([2, 3, 4])}, start_dim=0)
    nodes["out"] = nir.Output(np.array([24]))
    nir.write(path, nir.NIRGraph(nodes, list(pairwise(nodes))))
    assert read_nir(path).signals["out"].shape == (24,)
