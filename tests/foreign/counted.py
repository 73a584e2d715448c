"""Five networks whose operations others count too, and how they are handed over."""

import json

import numpy as np

from tests.foreign.running import run
from tests.targets.networks import chain, drive, feed_forward, lif, looped
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import (
    LIF,
    Conv2d,
    Convolution,
    Delay,
    Flatten,
    Input,
    Leaky,
    Linear,
    Output,
    Pool2d,
    SumPool2d,
)


def images() -> Graph:
    """Spikes (2, 8, 8) -> convolution, LIF, SumPool -> a second in groups, LIF -> Flatten -> Linear -> LIF."""
    rng = np.random.default_rng(4)
    nodes = {
        "in": Input((2, 8, 8), kind=Kind.SPIKE),
        "conv1": Conv2d(weight=rng.normal(size=(4, 2, 3, 3)) * 0.5, bias=rng.normal(size=4) * 0.1),
        "lif1": lif(np.float64, 0.8, 0.9137, reset="zero"),
        "sum": SumPool2d(kernel=2, stride=2),
        "conv2": Conv2d(weight=rng.normal(size=(6, 2, 2, 2)) * 0.4, groups=2),
        "lif2": lif(np.float64, 0.7, 0.9137, reset="subtract"),
        "flat": Flatten(),
        "read": Linear(rng.normal(size=(5, 24)) * 0.8),
        "last": lif(np.float64, 0.9, 0.9137, reset="subtract"),
        "out": Output(),
    }
    return chain(nodes).astype(np.float64)


def deep() -> Graph:
    """Six layers whose thresholds rise, so that each fires at a rate of its own."""
    rng = np.random.default_rng(8)
    nodes = {"in": Input((20,), kind=Kind.SPIKE)}
    for i in range(6):
        nodes[f"w{i}"] = Linear(rng.normal(size=(20, 20)) * 0.6)
        nodes[f"lif{i}"] = lif(np.float64, 0.8, 0.4 + 0.2137 * i, reset="subtract")
    nodes["out"] = Output()
    return chain(nodes)


def real() -> Graph:
    """Real numbers into a feed-forward network."""
    return feed_forward(reset="subtract").with_nodes({"in": Input((12,), kind=Kind.REAL)})


NETWORKS = {
    "dense LIF": lambda: feed_forward(reset="zero", readout=True),
    "recurrent": lambda: looped(bias=True, dtype=np.float64),
    "conv and pool": images,
    "real input": real,
    "deep": deep,
}


def sparse(graph: Graph) -> Graph:
    """Set a third of the weights to zero: an effective operation needs a weight too."""
    rng = np.random.default_rng(5)
    return graph.with_nodes(
        {
            name: Linear(node.weight * (rng.random(node.weight.shape) > 1 / 3), node.bias)
            for name, node in graph.nodes.items()
            if isinstance(node, Linear)
        }
    )


def plain(name: str) -> str:
    """Return a name that a module of torch may have."""
    return name.replace(".", "_")


def described(graph: Graph) -> tuple[list[dict], dict]:
    """Return the nodes as `counted_network` reads them, and their arrays."""
    found, arrays = [], {}
    for name in graph.order:
        node = graph.nodes[name]
        said = {
            "name": plain(name),
            "kind": "pass",
            "from": [plain(edge.source) for edge in graph.into(name)],
        }
        if isinstance(node, Input):
            said["kind"] = "input"
        elif isinstance(node, Linear | Convolution):
            said["kind"] = "linear" if isinstance(node, Linear) else "conv"
            for field, value in node.arrays():
                said[field] = f"{name}/{field}"
                arrays[said[field]] = value
            if isinstance(node, Convolution):
                assert set(node.padding) == {0}
                said |= {
                    "stride": node.stride,
                    "padding": 0,
                    "dilation": node.dilation,
                    "groups": node.groups,
                }
        elif isinstance(node, Pool2d):
            times = int(np.prod(node.kernel)) if isinstance(node, SumPool2d) else 1
            said |= {"kind": "pool", "kernel": node.kernel, "stride": node.stride, "times": times}
        elif isinstance(node, Flatten):
            said["kind"] = "flatten"
        elif isinstance(node, Delay):
            assert (node.steps == 1).all()
            said |= {"kind": "delay", "width": node.shape[0]}
        elif isinstance(node, Leaky):
            said |= {"kind": "li", "beta": float(node.beta)}
            if isinstance(node, LIF):
                said |= {"kind": "lif", "threshold": float(node.threshold), "reset": node.reset}
        else:
            assert isinstance(node, Output)
        found.append(said)
    return found, arrays


def counted(framework: str, graph: Graph, x, folder) -> dict[str, int]:
    """Return what a framework counts."""
    nodes, arrays = described(graph)
    np.savez(folder / "network.npz", nodes=json.dumps(nodes), x=x, **arrays)
    run(framework, f"{framework}_counts.py", folder / "network.npz", folder / "counts.json")
    return {name: round(value) for name, value in json.loads((folder / "counts.json").read_text()).items()}


def driven(graph: Graph, steps: int = 50, batch: int = 4):
    """Return an input of which a real one is sparse, too."""
    x = drive(graph, steps, batch)
    if graph.signals["in"].kind is Kind.REAL:
        x *= np.random.default_rng(6).random(x.shape) < 0.4
    return x
