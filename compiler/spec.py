"""The invariants of the IR, in one table, checked between passes and before anything runs or is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import UnionType
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidGraph
from unscan.compiler.fixed import Fixed
from unscan.compiler.formats import WIDEST, arriving, formats
from unscan.compiler.ir import INTEGERS, Array, Dialect, Graph, Kind, Node
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
    Integer,
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLeaky,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    LayerNorm,
    Leaky,
    LIFAnnealed,
    LIFConvolution,
    LIFSurrogate,
    Linear,
    Lookup,
    MaxPool2d,
    Memory,
    Output,
    Pool2d,
    Quantize,
    Reshape,
    RMSNorm,
    Scale,
    Shift,
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

Rule = tuple[type[Node] | UnionType, str, Callable[[Any], bool]]

EXACT = 2**53
"""Below it float64, which the reference computes in, holds every whole number."""
COUNTING = (Integer, Linear, Convolution, Embedding, Scale, Threshold, Delay)
"""The nodes that may hold whole numbers."""

RULES: tuple[Rule, ...] = (
    (Node, "every number is finite", lambda n: all(np.isfinite(a).all() for _, a in n.arrays())),
    (
        Node,
        "its arrays share one number format, or are all whole numbers",
        lambda n: len({"whole" if a.dtype in INTEGERS else a.dtype for _, a in n.arrays()}) <= 1,
    ),
    (
        Node,
        "its numbers are floating-point ones",
        lambda n: isinstance(n, COUNTING) or all(a.dtype not in INTEGERS for _, a in n.arrays()),
    ),
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
    (
        Integer,
        f"its numbers have from 2 to {WIDEST} bits",
        lambda n: all(2 <= b <= WIDEST for b in widths(n)),
    ),
    (Quantize, "its fraction lies in -64 .. 64", lambda n: -64 <= n.fraction <= 64),
    (Shift, "its shifts lie in -31 .. 31", lambda n: bool(np.all(np.abs(n.shift) < WIDEST))),
    (Lookup, "its table has 2, 4, 8, ... numbers", lambda n: even_power(n.table)),
    (IntegerGLU, "its table has 2, 4, 8, ... numbers", lambda n: even_power(n.table)),
    (Lookup | IntegerGLU, "its shifts lie in -31 .. 31", lambda n: abs(n.shift) < WIDEST),
    (IntegerGLU, "its shifts lie in -31 .. 31", lambda n: abs(n.index_shift) < WIDEST),
    (
        IntegerLeaky | IntegerSSM | IntegerMemory,
        "its decays have from 1 to 15 bits, and its input is shifted by 0 to 15",
        lambda n: 1 <= n.decay_bits <= 15 and 0 <= n.shift <= 15,
    ),
    (IntegerLeaky, "beta lies in 0 .. 2^decay_bits", lambda n: decays(n.beta, n)),
    (IntegerCubaLIF, "alpha lies in 0 .. 2^decay_bits", lambda n: decays(n.alpha, n)),
    (
        IntegerLIF | IntegerMemory,
        "threshold is not negative and fits in its bits",
        lambda n: bool(np.all((n.threshold >= 0) & (n.threshold <= Fixed(n.bits).max))),
    ),
    (IntegerLIF | IntegerMemory, f"reset is one of {RESETS}", lambda n: n.reset in RESETS),
    (IntegerLIF, f"phase is one of {PHASES}", lambda n: n.phase in PHASES),
    (IntegerMemory, "threshold is one number", lambda n: n.threshold.shape == ()),
    (IntegerMemory, "it has at least one query, or None", lambda n: n.queries is None or n.queries > 0),
    (
        IntegerSSM,
        "a and c are pairs of one shape (H, M, 2), and d has H numbers",
        lambda n: (
            n.a.ndim == 3 and n.a.shape[2:] == (2,) and n.c.shape == n.a.shape and n.d.shape == n.a.shape[:1]
        ),
    ),
    (
        IntegerSSM,
        "no |a| is greater than 1 in its units",
        lambda n: bool(np.all(np.hypot(*n.a.T.astype(np.float64)) <= 2**n.decay_bits)),
    ),
    (IntegerSSM, "out_shift lies in 0 .. 31", lambda n: 0 <= n.out_shift < WIDEST),
)


def widths(node: Any) -> list[int]:
    """Return the bits of a node's states and of what leaves it, where they are settings."""
    return [getattr(node, name) for name in ("bits", "out_bits") if hasattr(node, name)]


def even_power(table: Array) -> bool:
    """Say whether a table has one axis, and 2, 4, 8, ... numbers."""
    return table.ndim == 1 and len(table) > 1 and len(table) & (len(table) - 1) == 0


def decays(values: Array, node: Any) -> bool:
    """Say whether all values are decays of an integer node."""
    return bool(np.all((values >= 0) & (values <= 2**node.decay_bits)))


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
    if graph.integer:
        yield from whole_number_faults(graph)


def whole_number_faults(graph: Graph) -> Iterator[str]:
    """Yield one clause per node that would compute whole numbers from real ones, or wider ones than a sum holds."""
    known = formats(graph)
    for name, node in graph.nodes.items():
        if not whole_node(node):
            continue
        for port in node.ports:
            got = arriving(graph, known, name, port)
            if got is None:
                yield (
                    f"{type(node).__name__} {name!r} computes with whole numbers and its port {port} gets real ones; "
                    "put a Quantize in front of it"
                )
            if port == "alpha" and got is not None and (got.signed or got.bits > node.decay_bits):  # type: ignore[attr-defined]
                yield f"IntegerMemory {name!r} gets decays of the format {got}, wanted numbers below 1 in its units"
        inside = within_a_step(node, {port: arriving(graph, known, name, port) for port in node.ports})
        if inside >= EXACT:
            yield (
                f"{type(node).__name__} {name!r} may reach numbers of {inside.bit_length()} bits within a step, wanted "
                f"less than {EXACT.bit_length()}, which float64 holds exactly; make its numbers or its input smaller"
            )
        wide = known[name]
        if wide is not None and wide.bits > WIDEST:
            yield (
                f"{type(node).__name__} {name!r} may send numbers of {wide.bits} bits, wanted at most {WIDEST}; make "
                "its weights or what feeds it smaller"
            )


def within_a_step(node: Node, fed: Mapping[str, Fixed | None]) -> int:
    """Return the largest number that a node computes before it shifts, truncates or saturates it."""
    largest = {port: 0 if got is None else got.max for port, got in fed.items()}
    if isinstance(node, IntegerMemory):
        return int(largest["v"] * largest["k"] * 2**node.shift + Fixed(node.bits).max)
    if isinstance(node, IntegerGLU):
        return int(largest["x"] * int(np.abs(node.table.astype(np.int64)).max()))
    if isinstance(node, IntegerSSM):
        read = np.abs(node.c.astype(np.int64)).sum(axis=(1, 2)) * Fixed(node.bits).max
        skipped = np.abs(node.d.astype(np.int64)) * largest["x"] * 2**node.shift
        return int((read + skipped).max())
    return 0


def whole_node(node: Node) -> bool:
    """Say whether a node takes whole numbers alone."""
    if isinstance(node, Delay | Threshold | Quantize | Embedding):
        return False
    return isinstance(node, Integer) or any(array.dtype in INTEGERS for _, array in node.arrays())


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
