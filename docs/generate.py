"""Write docs/nodes.md: which interpreter handles which node, found by asking each of them.

Run as `python docs/generate.py`; a test compares the file with what this makes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from unscan.compiler.errors import UnscanError
from unscan.compiler.ir import Dialect, Edge, Graph, Node
from unscan.compiler.nodes import (
    LI,
    LIF,
    NODES,
    Activation,
    BatchNorm,
    Flatten,
    Input,
    LIConvolution,
    LIFConvolution,
    LIFScan,
    Linear,
    Output,
    Scale,
)
from unscan.runtime.executors import executor
from unscan.runtime.executors.reference import Reference
from unscan.targets import find

PAGE = Path(__file__).parent / "nodes.md"
BETA, THETA = np.float32(0.9), np.float32(0.7)
EYE = np.eye(3, dtype=np.float32)
ONES = np.ones(3, np.float32)

EXAMPLES: dict[str, Node] = {
    "Input": Input((3,)),
    "Output": Output(),
    "Linear": Linear(EYE, ONES),
    "Scale": Scale(2 * ONES),
    "BatchNorm": BatchNorm(ONES, ONES, ONES, ONES),
    "Flatten": Flatten(),
    "Activation": Activation("relu"),
    "LIF": LIF(beta=BETA, threshold=THETA, reset="zero", trained_reset="zero"),
    "LI": LI(beta=BETA),
    "LIFScan": LIFScan(beta=BETA, threshold=THETA, reset="zero"),
    "LIFConvolution": LIFConvolution(beta=BETA, threshold=THETA, reset="none"),
    "LIConvolution": LIConvolution(beta=BETA),
}


def around(node: Node) -> Graph:
    """Return the smallest graph that holds a node."""
    if isinstance(node, Input | Output):
        return Graph({"input": Input((3,)), "output": Output()}, [Edge("input", "output")])
    source = Input((3, 1)) if isinstance(node, Flatten) else Input((3,))
    nodes = {"input": source, "node": node, "output": Output()}
    return Graph(nodes, [Edge("input", "node"), Edge("node", "output")])


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
    refused = find("nir").refusals(graph)
    answers["nir"] = refused.get("node", "yes")
    return answers


def page() -> str:
    """Return docs/nodes.md."""
    lines = [
        "# Nodes, and who handles them",
        "",
        "Written by `python docs/generate.py`, which asks each interpreter of the IR. Where one refuses a node, the",
        "reason stands below the table, in its own words.",
        "",
        "| node | form | reference | operation cost | event-driven | ONNX | NIR, portable |",
        "|---|---|---|---|---|---|---|",
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
        "An example of each: one number for beta and threshold, reset to zero at once, float32.",
        "",
    ]
    return "\n".join([*lines, *(f"{i}. {reason}" for i, reason in enumerate(reasons, start=1)), ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
