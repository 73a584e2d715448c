"""Each node's reference step against an independent truth: torch's operator, a trained neuron's, or its equation."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.graphs import chain
from unscan.compiler.errors import InvalidGraph, InvalidInput
from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    GLU,
    Activation,
    AdaptiveLIF,
    AssociativeMemory,
    AvgPool2d,
    Concatenate,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    DeltaMemory,
    DiagonalSSM,
    Embedding,
    Input,
    LayerNorm,
    LIFAnnealed,
    LIFSurrogate,
    Linear,
    MaxPool2d,
    Multiply,
    Output,
    Reshape,
    RMSNorm,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.stateless import FUNCTIONS
from unscan.runtime.executors.reference import Reference
from unscan.trainer.neurons import (
    S4D,
    AdaptiveLeaky,
    AnnealedLeaky,
    AssociativeLeaky,
    DeltaLeaky,
    SurrogateLeaky,
    Synaptic,
)

RNG = np.random.default_rng(0)


def alone(node: Node, shape: tuple[int, ...], kind: Kind = Kind.REAL) -> Graph:
    return chain(input=Input(shape, kind), node=node, output=Output())


def ran(node: Node, x: np.ndarray, kind: Kind = Kind.REAL) -> np.ndarray:
    return Reference(alone(node, x.shape[2:], kind)).run(x).outputs


def by_torch(function, x: np.ndarray) -> np.ndarray:
    """Apply a torch operator to each step of x (T, B, ...)."""
    return np.stack([function(torch.from_numpy(step)).detach().numpy() for step in x])


def close(a, b) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


TORCH = {
    "relu": functional.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu-tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "elu": functional.elu,
    "softplus": lambda x: functional.softplus(x, threshold=1000),
    "relu6": functional.relu6,
    "hardtanh": functional.hardtanh,
    "hardsigmoid": functional.hardsigmoid,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_an_activation_is_torchs(function):
    x = RNG.normal(0, 4, (3, 2, 50))
    close(ran(Activation(function), x), by_torch(TORCH[function], x))


@pytest.mark.parametrize(
    ("stride", "padding", "dilation", "groups", "bias"),
    [(1, 0, 1, 1, True), (2, 1, 1, 2, False), (3, 2, 2, 4, True)],
)
def test_convolutions_are_torchs(stride, padding, dilation, groups, bias):
    b = RNG.normal(size=8) if bias else None
    settings = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    given = None if b is None else torch.from_numpy(b)
    x = RNG.normal(size=(2, 3, 4, 13))
    w = RNG.normal(size=(8, 4 // groups, 3))
    close(
        ran(Conv1d(weight=w, bias=b, **settings), x),
        by_torch(lambda s: functional.conv1d(s, torch.from_numpy(w), given, **settings), x),
    )
    x2, w2 = RNG.normal(size=(2, 3, 4, 11, 13)), RNG.normal(size=(8, 4 // groups, 3, 2))
    close(
        ran(Conv2d(weight=w2, bias=b, **settings), x2),
        by_torch(lambda s: functional.conv2d(s, torch.from_numpy(w2), given, **settings), x2),
    )


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 2, 0), ((3, 2), (2, 1), (1, 0))])
def test_pools_are_torchs(kernel, stride, padding):
    x = RNG.normal(size=(2, 3, 4, 9, 10))
    size = kernel * kernel if isinstance(kernel, int) else kernel[0] * kernel[1]
    mean = by_torch(lambda s: functional.avg_pool2d(s, kernel, stride, padding), x)
    settings = {"kernel": kernel, "stride": stride, "padding": padding}
    close(ran(AvgPool2d(**settings), x), mean)
    close(ran(SumPool2d(**settings), x), mean * size)
    largest = by_torch(lambda s: functional.max_pool2d(s, kernel, stride, padding), x)
    close(ran(MaxPool2d(**settings), x), largest)


def test_a_window_pads_before_and_behind_as_it_says():
    x = np.ones((1, 1, 1, 3))
    y = ran(Conv1d(weight=np.array([[[1.0, 2.0]]]), padding=(1, 0)), x)
    assert y[0, 0].tolist() == [[2, 3, 3]]


def test_norms_are_torchs():
    x, w, b = RNG.normal(size=(2, 3, 4, 6)), RNG.normal(size=6), RNG.normal(size=6)
    weight, bias = torch.from_numpy(w), torch.from_numpy(b)
    close(ran(LayerNorm(w, b), x), by_torch(lambda s: functional.layer_norm(s, (6,), weight, bias), x))
    close(ran(RMSNorm(w, 1e-6), x), by_torch(lambda s: functional.rms_norm(s, (6,), weight, 1e-6), x))
    both = RNG.normal(size=(4, 6))
    close(
        ran(LayerNorm(both), x),
        by_torch(lambda s: functional.layer_norm(s, (4, 6), torch.from_numpy(both)), x),
    )


def test_glu_and_reshape_are_torchs():
    x = RNG.normal(size=(2, 3, 8))
    close(ran(GLU(), x), by_torch(lambda s: functional.glu(s, -1), x))
    assert ran(Reshape((2, 4)), x).tolist() == x.reshape(2, 3, 2, 4).tolist()


def test_an_embedding_reads_the_row_that_it_is_given():
    weight = RNG.normal(size=(5, 3))
    x = RNG.integers(0, 5, (4, 2, 1))
    close(ran(Embedding(weight), x, Kind.INDEX), weight[x[..., 0]])


@pytest.mark.parametrize("wrong", [5, -1, 0.5])
def test_an_index_that_names_no_row_is_refused(wrong):
    with pytest.raises(InvalidInput, match="whole numbers from 0 to 4"):
        ran(Embedding(np.ones((5, 3))), np.full((1, 1, 1), wrong), Kind.INDEX)


def test_an_index_is_for_embeddings_alone():
    with pytest.raises(InvalidGraph, match="only an Embedding may read"):
        Reference(alone(Activation("relu"), (1,), Kind.INDEX))


def test_top_k_keeps_the_largest_and_of_equals_the_first():
    x = np.array([[[1.0, -3.0, 3.0, 2.0, -3.0]]])
    assert ran(TopK(1), x)[0, 0].tolist() == [0, -3, 0, 0, 0]
    assert ran(TopK(3), x)[0, 0].tolist() == [0, -3, 3, 0, -3]


def test_products_and_concatenations():
    x = RNG.normal(size=(2, 3, 4))
    nodes = {"input": Input((4,)), "w": Linear(RNG.normal(size=(4, 4)))}
    w = nodes["w"].weight
    product = Graph(
        {**nodes, "node": Multiply(), "output": Output()},
        [Edge("input", "w"), Edge("input", "node", "a"), Edge("w", "node", "b"), Edge("node", "output")],
    )
    close(Reference(product).run(x).outputs, x * (x @ w.T))
    joined = Graph(
        {**nodes, "node": Concatenate(2), "output": Output()},
        [Edge("input", "w"), Edge("input", "node", "x1"), Edge("w", "node", "x0"), Edge("node", "output")],
    )
    close(Reference(joined).run(x).outputs, np.concatenate([x @ w.T, x], axis=-1))


def test_a_delay_gives_what_came_so_many_steps_before():
    x = RNG.normal(size=(6, 2, 3))
    y = ran(Delay(steps=np.array([1.0, 2.0, 4.0]), shape=(3,), kind=Kind.REAL), x)
    for c, steps in enumerate((1, 2, 4)):
        assert not y[:steps, :, c].any()
        assert y[steps:, :, c].tolist() == x[:-steps, :, c].tolist()


def recurrent() -> Graph:
    """x and half of the output before -> Threshold at 1, and back."""
    nodes = {
        "input": Input((2,)),
        "back": Delay(steps=np.array(1.0), shape=(2,), kind=Kind.SPIKE),
        "half": Linear(np.eye(2) / 2),
        "fire": Threshold(threshold=np.array(1.0)),
        "output": Output(),
    }
    edges = [("input", "fire"), ("fire", "back"), ("back", "half"), ("half", "fire"), ("fire", "output")]
    return Graph(nodes, [Edge(*edge) for edge in edges])


def test_nodes_may_feed_each_other_through_a_delay():
    x = np.full((4, 1, 2), 0.5)
    x[0, 0, 0] = 1
    graph = recurrent()
    assert graph.recurrent
    assert graph.order.index("back") < graph.order.index("half") < graph.order.index("fire")
    ran = Reference(graph).run(x)
    assert ran.outputs[:, 0].tolist() == [[1, 0], [1, 0], [1, 0], [1, 0]]
    first, second = (
        Reference(graph).run(x[:1]),
        Reference(graph).run(x[1:], Reference(graph).run(x[:1]).state),
    )
    assert np.concatenate([first.outputs, second.outputs]).tolist() == ran.outputs.tolist()


def test_a_loop_without_a_delay_is_refused():
    graph = recurrent()
    nodes = {name: node for name, node in graph.nodes.items() if name != "back"}
    edges = [e for e in graph.edges if "back" not in e] + [Edge("fire", "half")]
    with pytest.raises(InvalidGraph, match="needs a Delay"):
        Reference(Graph(nodes, edges))


def numbers(neuron, *names: str) -> dict[str, np.ndarray]:
    return {name: getattr(neuron, name).detach().numpy() for name in names}


def trained(neuron, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and membranes of one of our neurons, stepped in float64."""
    spikes, membrane = neuron.double()(torch.from_numpy(x), return_membrane=True)
    return spikes.detach().numpy(), membrane.detach().numpy()


def agrees(node: Node, neuron, x: np.ndarray) -> None:
    spikes, membranes = trained(neuron, x)
    run = Reference(alone(node, x.shape[2:])).run(x)
    assert 0 < spikes.mean() < 0.9
    assert (run.outputs == spikes).all()
    assert (run.spikes["node"] == (spikes > 0)).all()
    close(run.membranes["node"], membranes)


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("steps", [1, 63, 100])
def test_neurons_step_as_they_are_trained(reset, steps):
    x = RNG.normal(0.4, 1, (steps, 3, 5))
    synaptic = Synaptic(
        5, 0.7, 0.8, 0.5 if steps > 1 else 0.2, reset, phase="next", fires=">", gain="1-beta"
    ).double()
    how = {"reset": reset, "trained_reset": reset}
    node = CubaLIF(
        **numbers(synaptic, "alpha", "beta", "threshold"), phase="next", fires=">", gain="1-beta", **how
    )
    agrees(node, synaptic, x)
    adaptive = AdaptiveLeaky(5, 0.8, 0.7, reset, kappa=0.3, rho=0.9).double()
    agrees(AdaptiveLIF(**numbers(adaptive, "beta", "threshold", "kappa", "rho"), **how), adaptive, x)


@pytest.mark.parametrize("rounds", [1, 3, None])
def test_annealing_steps_as_it_is_trained(rounds):
    neuron = AnnealedLeaky(
        5, 0.7, 0.8, rounds=rounds, end=1.0 if rounds is None else 0.6, warm_up=0.0
    ).double()
    neuron.anneal(1.0)
    node = LIFAnnealed(**numbers(neuron, "beta", "threshold", "strength"), rounds=rounds, reset="subtract")
    agrees(node, neuron, RNG.normal(0.4, 1, (40, 3, 5)))


def test_the_surrogate_network_steps_as_it_is_trained():
    neuron = SurrogateLeaky(5, threshold=0.8).double()
    arrays = numbers(neuron, "beta", "threshold") | {
        k: v.numpy() for k, v in neuron.network.state_dict().items()
    }
    spikes, membranes = trained(neuron, x := RNG.normal(0.4, 1, (60, 3, 5)))
    run = Reference(alone(LIFSurrogate(**arrays, reset="zero"), (5,))).run(x)
    np.testing.assert_allclose(run.membranes["node"], membranes, rtol=0, atol=1e-12)
    assert (run.outputs == spikes).all()


def test_a_filter_steps_as_it_is_trained():
    layer = S4D(5, 6).double()
    a, c, d = layer.coefficients(torch.float64)
    pairs = [torch.view_as_real(z).detach().numpy() for z in (a, c)]
    x = RNG.normal(size=(100, 3, 5))
    y = ran(DiagonalSSM(a=pairs[0], c=pairs[1], d=d.detach().numpy()), x)
    np.testing.assert_allclose(y, layer(torch.from_numpy(x)).detach().numpy(), rtol=0, atol=1e-10)


def memory_graph(node: Node, d: int, n: int, r: int | None) -> tuple[Graph, tuple[str, ...]]:
    """An input that is cut into the ports of a memory by Linears that select."""
    widths = (
        {"v": d, "k": n} | {gate: node.width(gate, n) for gate in node.gates} | ({"q": n * r} if r else {})
    )
    total = sum(widths.values())
    nodes, edges, start = {"input": Input((total,)), "node": node, "output": Output()}, [], 0
    for port, width in widths.items():
        nodes[port] = Linear(np.eye(total)[start : start + width])
        edges += [Edge("input", port), Edge(port, "node", port)]
        start += width
    return Graph(nodes, [*edges, Edge("node", "output")]), tuple(widths)


@pytest.mark.parametrize("layer", [AssociativeLeaky, DeltaLeaky])
@pytest.mark.parametrize("queries", [None, 2])
@pytest.mark.parametrize("decay", ["dense", "scalar"])
@pytest.mark.parametrize("steps", [1, 63, 100])
def test_memories_step_as_they_are_trained(layer, queries, decay, steps):
    d, n = 4, 3
    memory = layer(6, d, n, use_q=queries is not None, queries=queries, threshold=0.3).double()
    x = torch.from_numpy(RNG.normal(0, 2, (steps, 2, 6)))
    y, S = memory(x, return_membrane=True)
    parts = [memory.to_v(x), memory.to_k(x), torch.sigmoid(memory.to_alpha(x))]
    if layer is DeltaLeaky:
        parts.append(torch.sigmoid(memory.to_beta(x)))
    if queries:
        parts.append(memory.to_q(x))
    node_class = AssociativeMemory if layer is AssociativeLeaky else DeltaMemory
    node = node_class(
        threshold=np.float64(memory.threshold), queries=queries, trained_reset="none", decay=decay
    )
    graph, _ = memory_graph(node, d, n, queries)
    signal = torch.cat(parts, -1).detach().numpy()
    whole = Reference(graph).run(signal)
    np.testing.assert_allclose(whole.membranes["node"], S.detach().numpy(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(whole.outputs, y.detach().numpy(), rtol=1e-10, atol=1e-10)
    fired = S.detach().numpy() >= memory.threshold.item()
    assert steps == 1 or fired.any()
    assert (whole.spikes["node"] == fired).all()
    tallies = whole.counts.tallies["node"]
    assert tallies["fired"] == fired.sum()
    assert tallies["writes"] == steps * 2 * d * n
    if steps > 1:
        begun = Reference(graph).run(signal[:40])
        ended = Reference(graph).run(signal[40:], begun.state)
        close(np.concatenate([begun.outputs, ended.outputs]), whole.outputs)


@pytest.mark.parametrize("node_class", [AssociativeMemory, DeltaMemory])
@pytest.mark.parametrize("reset", ["subtract", "zero"])
def test_the_reset_of_a_memory_is_the_same_in_both_stores(node_class, reset):
    rng = np.random.default_rng(1)
    settings = {"threshold": np.float64(0.4), "reset": reset, "trained_reset": "none"}
    graphs = [
        memory_graph(node_class(**settings, decay=decay), 4, 3, None)[0] for decay in ("dense", "scalar")
    ]
    width = graphs[0].signals["input"].shape[0]
    x = rng.normal(0, 1, (80, 2, width))
    x[..., 7:] = rng.uniform(0.01, 1, x[..., 7:].shape)
    dense, scalar = (Reference(graph).run(x) for graph in graphs)
    assert dense.spikes["node"].any()
    assert (dense.spikes["node"] == scalar.spikes["node"]).all()
    close(scalar.membranes["node"], dense.membranes["node"])
    after = dense.membranes["node"][-1] - (0.4 * dense.spikes["node"][-1] if reset == "subtract" else 0)
    kept = after if reset == "subtract" else np.where(dense.spikes["node"][-1], 0, after)
    close(dense.state["node.S"], kept)
