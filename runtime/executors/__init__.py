"""Ways to run a graph, by name; each is loaded when it is asked for."""

from __future__ import annotations

from importlib import import_module

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph
from unscan.runtime.executors.base import Executor

EXECUTORS: dict[str, tuple[str, str, str]] = {
    "reference": ("reference", "Reference", "float64 numpy, node by node: the meaning of the graph"),
    "event": ("event", "EventDriven", "event by event, counting every operation"),
    "onnx": ("onnx", "OnnxStep", "onnxruntime, one step at a time with its state bound"),
    "onnx-scan": ("onnx", "OnnxScan", "onnxruntime, one Scan over the sequence"),
    "c": ("c", "C", "C11, compiled on the spot"),
    "lava": (
        "lava",
        "Lava",
        "Lava's simulation of Loihi 2, in an environment of its own; whole numbers alone",
    ),
}
"""name -> module, class, what it is."""


def executor(name: str, graph: Graph) -> Executor:
    """Return the executor of a name for a graph. Raises InvalidInput for an unknown name, listing those there are."""
    if name not in EXECUTORS:
        raise InvalidInput(f"There is no executor {name!r}; choose one of {', '.join(EXECUTORS)}.")
    module, kind, _ = EXECUTORS[name]
    made: Executor = getattr(import_module(f"unscan.runtime.executors.{module}"), kind)(graph)
    return made
