"""Netx files: what stands in them, and what is refused, with the reason and the remedy."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from tests.integers import integer_network, memory_network, state_space_network
from tests.targets.lava import networks
from tests.targets.lava.networks import lif, line, loop, weights
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import LIF, Conv2d, Delay, Flatten, Input, Linear, SumPool2d
from unscan.targets.lava import TARGET, netx


def written(graph: Graph, folder: Path) -> dict[str, Any]:
    """The datasets of the netx file of a graph, by path."""
    netx.emit(graph, folder / "model.net")
    found: dict[str, Any] = {}
    with h5py.File(folder / "model.net") as file:
        file.visititems(
            lambda name, at: found.update({name: at[()]}) if isinstance(at, h5py.Dataset) else None
        )
    return found


def types(found: dict[str, Any]) -> list[str]:
    return [found[f"layer/{row}/type"].decode() for row in range(sum(name.endswith("/shape") for name in found) + 1)
            if f"layer/{row}/type" in found]  # fmt: skip


def test_dense_layers(tmp_path: Path) -> None:
    graph = networks.dense()
    found = written(graph, tmp_path)
    assert types(found) == ["input", "dense", "dense"]
    assert np.array_equal(found["layer/1/weight"], graph.nodes["fc1"].weight)  # type: ignore[attr-defined]
    assert found["layer/1/neuron/iDecay"] == 4096
    assert found["layer/1/neuron/vDecay"] == 4096 - 3500
    assert found["layer/1/neuron/vThMant"] == 90
    assert found["layer/1/bias"].tolist() == [10] * 5
    assert found["layer/2/neuron/iDecay"] == 4096 - 2000
    assert "layer/2/bias" not in found


def test_a_soft_reset_is_a_recurrence(tmp_path: Path) -> None:
    found = written(networks.soft_reset(), tmp_path)
    assert types(found) == ["input", "dense_rec"]
    assert np.array_equal(found["layer/1/weight_rec"], -100 * np.eye(5))
    assert found["layer/1/neuron/vDecay"] == 4096


def test_a_convolution(tmp_path: Path) -> None:
    found = written(networks.convolution(), tmp_path)
    assert types(found) == ["input", "conv", "flatten", "dense"]
    assert [found[f"layer/1/{name}"].tolist() for name in ("stride", "padding", "dilation")] == [
        [2, 1],
        [1, 1],
        [1, 2],
    ]
    assert found["layer/1/groups"] == 2
    assert found["layer/1/neuron/vThMant"].shape == (6, 4, 4)
    assert found["layer/1/bias"][0, 0].tolist() == [2, -2, 2, 6]


def test_delays_add_up_in_the_synapse(tmp_path: Path) -> None:
    found = written(networks.delays(), tmp_path)
    assert found["layer/1/delay"][0].tolist() == [1, 2, 3, 1, 5, 62]
    assert found["layer/2/delay"][:, 0].tolist() == [1, 7, 2, 1]


def test_the_facts(tmp_path: Path) -> None:
    graph = networks.readout()
    facts = json.loads(written(graph, tmp_path)["unscan"])
    assert facts["digest"] == graph.digest
    assert facts["input"] == {"name": "input", "shape": [6], "bits": 8, "signed": True, "fraction": 5}
    assert [(each["name"], each["gives"]) for each in facts["layers"]] == [
        ("first", "spikes"),
        ("fc2", "sums"),
    ]


def test_the_same_graph_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.net", "b.net"):
        netx.emit(networks.convolution(), tmp_path / name)
    assert (tmp_path / "a.net").read_bytes() == (tmp_path / "b.net").read_bytes()


@pytest.mark.parametrize("seed", range(30))
def test_random_networks_are_netx(seed: int, tmp_path: Path) -> None:
    graph = integer_network(seed, "loihi2")
    assert not netx.refusals(graph)
    assert not TARGET.refusals(graph)
    netx.emit(graph, tmp_path / "model.net")


def changed(graph: Graph, name: str, **fields: Any) -> Graph:
    from dataclasses import replace

    return graph.with_nodes({name: replace(graph.nodes[name], **fields)})


def float_graph(kind: Kind = Kind.SPIKE) -> Graph:
    neuron = LIF(beta=np.float32(0.5), threshold=np.float32(1), trained_reset="zero")
    return line(
        ("input", Input((6,), kind)),
        ("fc1", Linear(weights(5, 6).astype(np.float32))),
        ("first", neuron),
    )


def pooled() -> Graph:
    return line(
        ("input", Input((2, 6, 6), Kind.SPIKE)),
        ("conv", Conv2d(weight=weights(3, 2, 3, 3), padding=1)),
        ("first", lif()),
        ("pool", SumPool2d(kernel=2, stride=2)),
        ("conv2", Conv2d(weight=weights(3, 3, 3, 3), padding=1)),
        ("second", lif()),
    )


def skipping() -> Graph:
    graph = networks.dense()
    nodes = {**graph.nodes, "skip": Linear(weights(4, 6))}
    return Graph(nodes, [*graph.edges, Edge("input", "skip"), Edge("skip", "second")])


def two_ends() -> Graph:
    graph = networks.dense()
    nodes = {**graph.nodes, "fc3": Linear(weights(4, 5, seed=1)), "third": lif()}
    return Graph(nodes, [*graph.edges, Edge("first", "fc3"), Edge("fc3", "third")])


def late() -> Graph:
    wait = Delay(steps=np.float32(1), shape=(5,), kind=Kind.SPIKE)
    return line(
        ("input", Input((6,), Kind.SPIKE)), ("fc1", Linear(weights(5, 6))), ("first", lif()), ("wait", wait)
    )


def delayed_convolution() -> Graph:
    wait = Delay(steps=np.float32(1), shape=(2, 6, 6), kind=Kind.SPIKE)
    return line(
        ("input", Input((2, 6, 6), Kind.SPIKE)),
        ("wait", wait),
        ("conv", Conv2d(weight=weights(3, 2, 3, 3))),
        ("first", lif()),
    )


def flattened_early() -> Graph:
    return line(
        ("input", Input((2, 6, 6), Kind.SPIKE)),
        ("conv", Conv2d(weight=weights(3, 2, 3, 3))),
        ("flatten", Flatten()),
        ("first", lif()),
    )


def waiting_twice() -> Graph:
    nodes = dict(networks.delays().nodes)
    behind = Delay(steps=np.float32(1), shape=(5,), kind=Kind.REAL)
    front = [(name, nodes[name]) for name in ("input", "wait", "fc1")]
    return line(*front, ("more", behind), ("first", lif()))


def waiting_loop() -> Graph:
    return loop(networks.delays(), "second", weights(4, 4))


def integrators() -> Graph:
    graph = networks.integrator()
    nodes = {name: node for name, node in graph.nodes.items() if name != "output"}
    return line(*nodes.items(), ("fc3", Linear(weights(3, 3))))


def flattened_output() -> Graph:
    return line(
        ("input", Input((2, 6, 6), Kind.SPIKE)),
        ("conv", Conv2d(weight=weights(3, 2, 3, 3))),
        ("first", lif()),
        ("flatten", Flatten()),
    )


REFUSED: dict[str, tuple[Graph, str, str]] = {
    "real numbers": (float_graph(), "fc1", "run quantize"),
    "real input": (float_graph(Kind.REAL), "input", "quantize the graph"),
    "reset": (changed(networks.dense(), "first", reset="subtract"), "first", "its reset is subtract"),
    "phase": (changed(networks.dense(), "first", phase="next"), "first", "its phase is next"),
    "shift": (changed(networks.dense(), "first", shift=0), "first", "its shift is 0"),
    "bits": (changed(networks.dense(), "first", bits=16), "first", "its bits is 16"),
    "decay bits": (changed(networks.dense(), "first", decay_bits=14), "first", "its decay_bits is 14"),
    "saturating": (changed(networks.dense(), "first", wraps=False), "first", "its wraps is False"),
    "threshold": (changed(networks.dense(), "first", threshold=np.int32(65)), "first", "multiples of 64"),
    "wide threshold": (
        changed(networks.dense(), "first", threshold=np.int32(2**23 - 1)), "first", "below 8388608"),
    "bias": (changed(networks.dense(), "first", bias=np.int32(65)), "first", "its bias"),
    "wide bias": (changed(networks.dense(), "first", bias=np.int32(64 * 4096)), "first", "below 262144"),
    "weights": (changed(networks.dense(), "fc1", weight=300 * np.ones((5, 6), np.int16)), "first", "without a word"),
    "no weights": (changed(networks.dense(), "fc1", weight=np.zeros((5, 6), np.int16)), "first", "are 0"),
    "bias in a current": (
        changed(networks.dense(), "fc2", bias=np.array([1, 0, 0, 0], np.int16)), "second", "the neuron's bias"),
    "bias of a readout": (
        changed(networks.readout(), "fc2", bias=np.array([1, 0, 0], np.int16)), "fc2", "and not at each step"),
    "padding": (changed(networks.convolution(), "conv", padding=(0, 1, 2, 1)), "first", "both sides"),
    "pooling": (pooled(), "pool", "netx has no SumPool2d"),
    "skip": (skipping(), "second", "2 layers and 0 recurrences"),
    "two ends": (two_ends(), "output", "chain"),
    "slow loop": (loop(networks.dense(), "first", weights(5, 5), steps=2), "first", "netx has only 1"),
    "delay and loop": (waiting_loop(), "second", "other delays"),
    "delayed convolution": (delayed_convolution(), "first", "ignores the delays"),
    "long delay": (
        changed(networks.delays(), "wait", steps=np.full(6, 63, np.float32)), "first", "a delay of 63 steps"),
    "two delays": (waiting_twice(), "first", "a delay of 63 steps"),
    "flattened early": (flattened_early(), "first", "put it behind the neuron"),
    "late output": (late(), "output", "not what its last layer"),
    "integrator inside": (integrators(), "li", "read at the end"),
    "memory": (memory_network(), "memory", "netx has no IntegerMemory"),
    "filter": (state_space_network(), "ssm", "netx has no IntegerSSM"),
    "wide sums": (
        changed(networks.readout(), "quantize", bits=14, fraction=5), "first", "back into 24 bits"),
    "wide bias of weights": (
        changed(networks.readout(), "fc1", weight=200 * np.ones((5, 6), np.int16)), "first", "before it adds the bias"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_netx_lacks_is_refused(what: str, tmp_path: Path) -> None:
    graph, node, reason = REFUSED[what]
    found = netx.refusals(graph)
    assert node in found
    assert reason in found[node]
    with pytest.raises(Unsupported, match="The target lava"):
        netx.emit(graph, tmp_path / "model.net")
    assert not list(tmp_path.iterdir())


def test_an_integrator_is_a_neuron_that_never_fires(tmp_path: Path) -> None:
    found = written(networks.integrator(), tmp_path)
    assert types(found) == ["input", "dense", "dense"]
    assert found["layer/2/neuron/vThMant"] << 6 == 2**23
    assert found["layer/2/neuron/iDecay"] == 4096
    assert found["layer/2/neuron/vDecay"] == 4096 - 4000
    assert json.loads(found["unscan"])["layers"][1]["gives"] == "membranes"


def test_a_flat_output_is_taken() -> None:
    assert not netx.refusals(flattened_output())


def test_the_target_writes_by_suffix(tmp_path: Path) -> None:
    TARGET.emit(networks.dense(), tmp_path / "model.hdf5")
    assert (tmp_path / "model.hdf5").is_file()
    with pytest.raises(InvalidInput, match="give it the suffix .net"):
        TARGET.emit(networks.dense(), tmp_path / "model.onnx")
