"""The invariants of the IR, in one table, checked between passes and before anything runs or is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidGraph
from unscan.compiler.ir import Dialect, Graph, Node
from unscan.compiler.nodes import Activation, BatchNorm, Input, Leaky, LIFConvolution, Linear, Output, Spiking
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES, RESETS
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
    (Leaky, "beta lies in [0, 1]", lambda n: bool(np.all((n.beta >= 0) & (n.beta <= 1)))),
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
