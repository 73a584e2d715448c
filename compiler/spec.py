"""The invariants of the IR, in one table, checked between passes and before anything runs or is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidGraph
from unscan.compiler.ir import Dialect, Graph, Kind, Node
from unscan.compiler.nodes import (
    Activation,
    Adaptive,
    BatchNorm,
    Concatenate,
    Convolution,
    Cuba,
    Delay,
    Diagonal,
    Embedding,
    Input,
    LayerNorm,
    Leaky,
    LIFAnnealed,
    LIFConvolution,
    LIFSurrogate,
    Linear,
    MaxPool2d,
    Memory,
    Output,
    Pool2d,
    Reshape,
    RMSNorm,
    Spiking,
    StoredMemory,
    Threshold,
    TopK,
)
from unscan.compiler.nodes.convolution import Window
from unscan.compiler.nodes.memory import DECAYS
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES, RESETS
from unscan.compiler.nodes.parallel import WINDOW
from unscan.compiler.nodes.stateless import FUNCTIONS

Rule = tuple[type[Node], str, Callable[[Any], bool]]

RULES: tuple[Rule, ...] = (
    (Node, "every number is finite", lambda n: all(np.isfinite(a).all() for _, a in n.arrays())),
    (Node, "its arrays share one number format", lambda n: len({a.dtype for _, a in n.arrays()}) <= 1),
    (
        Input,
        "its shape has at least one axis, all positive",
        lambda n: n.shape and all(s > 0 for s in n.shape),
    ),
    (Linear, "its weight has two axes", lambda n: n.weight.ndim == 2),
    (
        Linear,
        "its bias has one number per row of the weight",
        lambda n: n.bias is None or n.bias.shape == n.weight.shape[:1],
    ),
    (
        Convolution,
        "its weight has an axis for outputs, one for inputs, and its own",
        lambda n: n.weight.ndim == n.axes + 2,
    ),
    (
        Convolution,
        "its bias has one number per output channel",
        lambda n: n.bias is None or n.bias.shape == n.weight.shape[:1],
    ),
    (
        Convolution,
        "its groups divide its output channels",
        lambda n: n.groups > 0 and n.weight.shape[0] % n.groups == 0,
    ),
    (Convolution, "its dilation is positive", lambda n: len(n.dilation) == n.axes and min(n.dilation) > 0),
    (Pool2d, "its kernel is positive", lambda n: len(n.kernel) == n.axes and min(n.kernel) > 0),
    (Window, "its stride is positive", lambda n: len(n.stride) == n.axes and min(n.stride) > 0),
    (Window, "its padding is not negative", lambda n: len(n.padding) == 2 * n.axes and min(n.padding) >= 0),
    (
        MaxPool2d,
        "its padding is smaller than its kernel",
        lambda n: all(p < k for p, k in zip(n.padding, n.kernel * 2, strict=True)),
    ),
    (Embedding, "its weight has two axes", lambda n: n.weight.ndim == 2),
    (
        LayerNorm,
        "its bias has the shape of its weight",
        lambda n: n.bias is None or n.bias.shape == n.weight.shape,
    ),
    (LayerNorm, "its weight has at least one axis", lambda n: n.weight.ndim > 0),
    (RMSNorm, "its weight has at least one axis", lambda n: n.weight.ndim > 0),
    (LayerNorm, "epsilon is not negative", lambda n: n.epsilon >= 0),
    (RMSNorm, "epsilon is not negative", lambda n: n.epsilon >= 0),
    (Reshape, "its shape has at least one axis, all positive", lambda n: n.shape and min(n.shape) > 0),
    (TopK, "it keeps at least one", lambda n: n.count > 0),
    (Concatenate, "it has at least two parts and an axis from 0 up", lambda n: n.parts > 1 and n.axis >= 0),
    (
        Delay,
        "its steps are whole numbers from 1 up",
        lambda n: bool(np.all((n.steps >= 1) & (n.steps == np.floor(n.steps)))),
    ),
    (Leaky, "beta lies in [0, 1]", lambda n: within(n.beta)),
    (Cuba, "alpha lies in [0, 1]", lambda n: within(n.alpha)),
    (Adaptive, "rho lies in [0, 1]", lambda n: within(n.rho)),
    (Adaptive, "kappa is greater than 0", lambda n: bool(np.all(n.kappa > 0))),
    (Adaptive, "its phase is now", lambda n: n.phase == "now"),
    (
        LIFAnnealed,
        "its strength is one number in [0, 1]",
        lambda n: n.strength.shape == () and within(n.strength),
    ),
    (LIFAnnealed, "it has at least one round, or None", lambda n: n.rounds is None or n.rounds > 0),
    (
        LIFSurrogate,
        f"its network sees {WINDOW} inputs",
        lambda n: n.temporal.shape == (len(n.temporal_bias), WINDOW),
    ),
    (
        LIFSurrogate,
        "the shapes of its network fit",
        lambda n: (
            n.mixing.shape == (len(n.temporal_bias),) * 2
            and n.mixing_bias.shape == n.readout.shape == n.temporal_bias.shape
            and n.readout_bias.shape == (1,)
        ),
    ),
    (Threshold, "threshold is greater than 0", lambda n: bool(np.all(n.threshold > 0))),
    (Threshold, f"fires is one of {FIRES}", lambda n: n.fires in FIRES),
    (Memory, "threshold is one number greater than 0", lambda n: n.threshold.shape == () and n.threshold > 0),
    (Memory, f"fires is one of {FIRES}", lambda n: n.fires in FIRES),
    (Memory, f"reset is one of {RESETS}", lambda n: n.reset in RESETS),
    (Memory, "it has at least one query, or None", lambda n: n.queries is None or n.queries > 0),
    (StoredMemory, f"decay is one of {DECAYS}", lambda n: n.decay in DECAYS),
    (StoredMemory, "its bound lies in (0, 1)", lambda n: 0 < n.bound < 1),
    (
        Diagonal,
        "a and c are pairs of one shape (H, M, 2), and d has H numbers",
        lambda n: (
            n.a.ndim == 3 and n.a.shape[2:] == (2,) and n.c.shape == n.a.shape and n.d.shape == n.a.shape[:1]
        ),
    ),
    (Diagonal, "no |a| is greater than 1", lambda n: bool(np.all(np.hypot(*n.a.T) <= 1 + 1e-6))),
    (Leaky, f"gain is one of {GAINS}", lambda n: n.gain in GAINS),
    (Spiking, "threshold is greater than 0", lambda n: bool(np.all(n.threshold > 0))),
    (Spiking, f"reset is one of {RESETS}", lambda n: n.reset in RESETS),
    (Spiking, f"phase is one of {PHASES}", lambda n: n.phase in PHASES),
    (Spiking, f"fires is one of {FIRES}", lambda n: n.fires in FIRES),
    (LIFConvolution, "it has no reset", lambda n: n.reset == "none"),
    (BatchNorm, "its four arrays have one shape", lambda n: len({a.shape for _, a in n.arrays()}) == 1),
    (BatchNorm, "variance + epsilon is greater than 0", lambda n: bool(np.all(n.variance + n.epsilon > 0))),
    (Activation, f"its function is one of {FUNCTIONS}", lambda n: n.function in FUNCTIONS),
)


def within(values: Any) -> bool:
    """Say whether all values lie in [0, 1]."""
    return bool(np.all((values >= 0) & (values <= 1)))


def faults(graph: Graph, dialect: Dialect | None = None) -> Iterator[str]:
    """Yield one clause per broken invariant; shapes are checked by `Graph.signals`, which raises."""
    for kind in (Input, Output):
        if len(graph.of(kind)) != 1:
            yield f"it has {len(graph.of(kind))} {kind.__name__} nodes, wanted exactly one"
    for name in graph.order:
        node = graph.nodes[name]
        for owner, invariant, holds in RULES:
            if isinstance(node, owner) and not holds(node):
                yield f"{type(node).__name__} {name!r} breaks the rule that {invariant}"
        if dialect and node.dialect not in (dialect, Dialect.ANY):
            remedy = "; run unroll" if dialect is Dialect.ITERATIVE else ""
            yield f"{type(node).__name__} {name!r} is {node.dialect}, wanted {dialect} nodes only{remedy}"
        if not isinstance(node, Embedding) and any(
            isinstance(source := graph.nodes[edge.source], Input) and source.kind is Kind.INDEX
            for edge in graph.into(name)
        ):
            yield f"{type(node).__name__} {name!r} computes with an index, which only an Embedding may read"
        if isinstance(node, Output) and graph.out_of(name):
            yield f"Output {name!r} feeds {graph.out_of(name)[0].target!r}"


def check(graph: Graph, dialect: Dialect | None = None, *, where: str = "The graph") -> Graph:
    """Return the graph if it keeps every invariant.

    Args:
        graph: what is checked.
        dialect: ITERATIVE or PARALLEL, to allow that form alone; None allows both.
        where: how the message names the graph (a file, the pass that made it).

    Raises:
        InvalidGraph: naming every node that breaks a rule and the rule, or the two ends that do not fit.
    """
    found = list(faults(graph, dialect))
    if found:
        raise InvalidGraph(f"{where} is not valid: {'; '.join(found)}.")
    _ = graph.signals
    return graph
