"""Write docs/nodes.md: which interpreter handles which node, found by asking each of them.

Run as `python docs/generate.py`; a test compares the file with what this makes.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from unscan.compiler.errors import UnscanError
from unscan.compiler.ir import Dialect, Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    GLU,
    LI,
    LIF,
    NODES,
    Activation,
    AdaptiveLIF,
    AdaptiveLIFScan,
    AssociativeMemory,
    AssociativeScan,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Conv1d,
    Conv2d,
    CubaLIF,
    CubaLIFScan,
    Delay,
    DeltaMemory,
    DeltaScan,
    DiagonalConvolution,
    DiagonalSSM,
    Embedding,
    Flatten,
    Input,
    Integer,
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLI,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    LayerNorm,
    LIConvolution,
    LIFAnnealed,
    LIFConvolution,
    LIFScan,
    LIFSurrogate,
    Linear,
    Lookup,
    MaxPool2d,
    Memory,
    Multiply,
    Output,
    Quantize,
    Reshape,
    RMSNorm,
    Scale,
    Shift,
    SumPool2d,
    Threshold,
    TopK,
)
from unscan.compiler.spec import COUNTING
from unscan.runtime.executors import executor
from unscan.runtime.executors.reference import Reference
from unscan.targets import find

PAGE = Path(__file__).parent / "nodes.md"
BETA, THETA = np.float32(0.9), np.float32(0.7)
EYE = np.eye(3, dtype=np.float32)
ONES = np.ones(3, np.float32)

NEURON = {"beta": BETA, "threshold": THETA, "reset": "zero"}
DEPLOYED = NEURON | {"trained_reset": "zero"}
CURRENT, TIRING = {"alpha": BETA}, {"kappa": THETA, "rho": BETA}
MEMORY = {"threshold": THETA}
COUNTED = {"beta": np.int32(3686), "threshold": np.int32(64), "trained_reset": "zero"}
FILTER = {"a": np.full((3, 2, 2), 0.5, np.float32), "c": np.ones((3, 2, 2), np.float32), "d": ONES}
NETWORK = {
    "temporal": np.eye(8, dtype=np.float32),
    "temporal_bias": np.zeros(8, np.float32),
    "mixing": np.eye(8, dtype=np.float32),
    "mixing_bias": np.zeros(8, np.float32),
    "readout": np.ones(8, np.float32),
    "readout_bias": np.zeros(1, np.float32),
}

EXAMPLES: dict[str, Node] = {
    "Input": Input((3,)),
    "Output": Output(),
    "Linear": Linear(EYE, ONES),
    "Conv1d": Conv1d(weight=np.ones((2, 3, 2), np.float32)),
    "Conv2d": Conv2d(weight=np.ones((2, 3, 2, 2), np.float32)),
    "SumPool2d": SumPool2d(kernel=2, stride=2),
    "AvgPool2d": AvgPool2d(kernel=2, stride=2),
    "MaxPool2d": MaxPool2d(kernel=2, stride=2),
    "Embedding": Embedding(EYE),
    "Scale": Scale(2 * ONES),
    "BatchNorm": BatchNorm(ONES, ONES, ONES, ONES),
    "LayerNorm": LayerNorm(ONES, ONES),
    "RMSNorm": RMSNorm(ONES),
    "Flatten": Flatten(),
    "Reshape": Reshape((1, 3)),
    "Activation": Activation("relu"),
    "GLU": GLU(),
    "Multiply": Multiply(),
    "Concatenate": Concatenate(2),
    "TopK": TopK(2),
    "Delay": Delay(steps=np.float32(2), shape=(3,), kind=Kind.REAL),
    "Threshold": Threshold(threshold=THETA),
    "LIF": LIF(**DEPLOYED),
    "LI": LI(beta=BETA),
    "CubaLIF": CubaLIF(**DEPLOYED, **CURRENT),
    "AdaptiveLIF": AdaptiveLIF(**DEPLOYED, **TIRING),
    "AssociativeMemory": AssociativeMemory(**MEMORY, trained_reset="none"),
    "DeltaMemory": DeltaMemory(**MEMORY, trained_reset="none"),
    "DiagonalSSM": DiagonalSSM(**FILTER),
    "Quantize": Quantize(bits=8, fraction=4),
    "Shift": Shift(shift=np.int8(2), bits=8),
    "Lookup": Lookup(table=np.arange(-4, 4), shift=2),
    "IntegerGLU": IntegerGLU(table=np.arange(8), index_shift=2, shift=3, bits=8),
    "IntegerLI": IntegerLI(beta=np.int32(3686)),
    "IntegerLIF": IntegerLIF(**COUNTED),
    "IntegerCubaLIF": IntegerCubaLIF(**COUNTED, alpha=np.int32(3686)),
    "IntegerSSM": IntegerSSM(
        a=np.full((3, 2, 2), 8192), c=np.ones((3, 2, 2)), d=np.ones(3), shift=4, out_shift=4
    ),
    "IntegerMemory": IntegerMemory(threshold=np.int32(64), trained_reset="none"),
    "LIFScan": LIFScan(**NEURON),
    "LIFConvolution": LIFConvolution(beta=BETA, threshold=THETA, reset="none"),
    "LIConvolution": LIConvolution(beta=BETA),
    "CubaLIFScan": CubaLIFScan(**NEURON, **CURRENT),
    "AdaptiveLIFScan": AdaptiveLIFScan(**NEURON, **TIRING),
    "LIFAnnealed": LIFAnnealed(**NEURON | {"reset": "subtract"}, strength=np.float32(1), rounds=1),
    "LIFSurrogate": LIFSurrogate(**NEURON, **NETWORK),
    "AssociativeScan": AssociativeScan(**MEMORY),
    "DeltaScan": DeltaScan(**MEMORY),
    "DiagonalConvolution": DiagonalConvolution(**FILTER),
}
SHAPES: dict[str, tuple[int, ...]] = {
    "Conv1d": (3, 4),
    "Conv2d": (3, 4, 4),
    "SumPool2d": (3, 4, 4),
    "AvgPool2d": (3, 4, 4),
    "MaxPool2d": (3, 4, 4),
    "Embedding": (1,),
    "Flatten": (3, 1),
    "GLU": (4,),
    "IntegerGLU": (4,),
}
"""What feeds the example, where it is not (3,)."""


def counting(node: Node) -> Node:
    """Return the example of a node that can hold whole numbers, with such numbers; any other as it is."""
    return node.map_arrays(lambda a: np.ceil(a).astype(np.int8)) if isinstance(node, COUNTING[1:-1]) else node


def around(node: Node, *, whole: bool = False) -> Graph:
    """Return the smallest graph that holds a node, which whole numbers may feed."""
    whole = (whole or isinstance(node, Integer)) and not isinstance(node, Quantize | Embedding | Memory)
    if isinstance(node, Input | Output):
        nodes = {"input": Input((3,)), "output": Output()} | (
            {"node": Quantize(bits=8, fraction=4)} if whole else {}
        )
        chained = ["input", "node", "output"] if whole else ["input", "output"]
        return Graph(nodes, [Edge(*ends) for ends in pairwise(chained)])
    kind = Kind.INDEX if isinstance(node, Embedding) else Kind.REAL
    nodes = {"input": Input(SHAPES.get(type(node).__name__, (3,)), kind), "node": node, "output": Output()}
    edges = [Edge("node", "output")]
    if whole:
        nodes["whole"] = Quantize(bits=8, fraction=4)
        edges.append(Edge("input", "whole"))
    if isinstance(node, IntegerMemory):
        nodes["alpha"] = Lookup(table=np.arange(16), shift=4)
        edges.append(Edge("whole", "alpha"))
    for port in node.ports:
        if whole:
            edges.append(Edge("alpha" if port == "alpha" else "whole", "node", port))
            continue
        gate = port in getattr(node, "gates", ())
        if gate:
            nodes |= {
                port: Linear(EYE[:1] if "Delta" in type(node).__name__ else EYE),
                f"{port}.gate": Activation("sigmoid"),
            }
            edges += [Edge("input", port), Edge(port, f"{port}.gate")]
        edges.append(Edge(f"{port}.gate" if gate else "input", "node", port))
    return Graph(nodes, edges)


def ran(run: Callable[[], object]) -> str:
    """Return yes, or why not, in the words of the interpreter."""
    try:
        run()
    except UnscanError as fault:
        return str(fault)
    return "yes"


def ask(node: Node) -> dict[str, str]:
    """Return what each interpreter says of a node."""
    graph = around(node)
    (name,) = graph.of(Input)
    x = np.ones((2, 1, *graph.signals[name].shape), np.float32)
    answers = {
        "reference": ran(lambda: Reference(graph).run(x)),
        "cost": ran(lambda: Reference(graph).run(x).counts.by_node),  # type: ignore[union-attr]
    }
    for runner in ("event", "onnx"):
        answers[runner] = ran(lambda runner=runner: executor(runner, graph).run(x))  # type: ignore[misc]
    for target in ("nir", "c"):
        answers[target] = find(target).refusals(graph).get("node", "yes")
    refused = find("lava").refusals(around(counting(node), whole=True))
    answers["lava"] = next(iter(refused.values()), "yes")
    return answers


def page() -> str:
    """Return docs/nodes.md."""
    lines = [
        "# Nodes, and who handles them",
        "",
        "Written by `python docs/generate.py`, which asks each interpreter of the IR. Where one refuses a node, the",
        "reason stands below the table, in its own words.",
        "",
        "| node | form | reference | operation cost | event-driven | ONNX | NIR, portable | C | Lava |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reasons: list[str] = []
    for name, kind in NODES.items():
        cells, parallel = [], kind.dialect is Dialect.PARALLEL
        for interpreter, answer in ask(EXAMPLES[name]).items():
            if answer == "yes":
                cells.append("yes")
            else:
                reason = f"{interpreter}: {answer.replace(name, 'a parallel node') if parallel else answer}"
                if reason not in reasons:
                    reasons.append(reason)
                cells.append(f"no ({reasons.index(reason) + 1})")
        form = "both" if kind.dialect is Dialect.ANY else str(kind.dialect)
        lines.append(f"| {name} | {form} | {' | '.join(cells)} |")
    lines += [
        "",
        "An example of each: one number for beta and threshold, reset to zero at once, float32; for Lava, which runs",
        "whole numbers alone, with int8 where the node can hold them.",
        "",
    ]
    return "\n".join([*lines, *(f"{i}. {reason}" for i, reason in enumerate(reasons, start=1)), ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
