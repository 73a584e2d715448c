"""Run a graph of whole numbers in Lava's CPU simulation of Loihi 2, in Lava's own environment, under guard.

A graph that is a chain of netx layers runs as its netx file, unchanged; any other as the folder that
`unscan export --target lava` writes. All samples run after each other in one run of Lava, which takes about two seconds
to begin and end, and then a step for each step of each sample.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Dialect, Graph, Node
from unscan.compiler.nodes import Delay, Input, IntegerCubaLIF, IntegerLeaky, IntegerLIF, Output, Quantize
from unscan.compiler.spec import check
from unscan.runtime.executors.arithmetic import double
from unscan.runtime.executors.base import Execution, State, check_input
from unscan.runtime.executors.steps import step
from unscan.runtime.lava import guard
from unscan.runtime.lava.environment import environment
from unscan.runtime.lava.netx import BEGIN, EACH, Ran, running
from unscan.targets.base import insist
from unscan.targets.lava import netx
from unscan.targets.lava.chain import Layer, chain


class Lava:
    """Run a graph in Lava.

    Args:
        graph: an iterative graph of whole numbers.
        seconds: how long one run may take; by default a minute, and 20 ms for each step of each node.

    Raises:
        InvalidGraph: a node is not iterative.
        Unsupported: Lava cannot say a node.
        MissingDependency: Lava's environment is missing.
    """

    def __init__(self, graph: Graph, *, seconds: float | None = None) -> None:
        self.graph = check(graph, Dialect.ITERATIVE, where="The graph for Lava")
        self.seconds = seconds
        self.chained = not netx.refusals(graph)
        if not self.chained:
            from unscan.targets.lava import folder

            insist(graph, "lava", folder.refusals(graph))
        environment().interpreter()

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...) from zeros; see `Executor.run`. Lava counts no operations.

        Raises:
            InvalidInput: x does not fit, or a state other than zeros is given.
            LavaFailed: Lava raised, died or took too long.
        """
        x = check_input(self.graph, x)
        held = [name for name, value in (state or {}).items() if np.any(value)]
        if held:
            raise InvalidInput(
                f"Lava starts every sample from zeros and was given a state that is not zero: {', '.join(held)}. Run "
                "the whole sequence at once, or carry the state in another executor (event, onnx)."
            )
        seconds = self.seconds or BEGIN + EACH * len(self.graph.nodes) * x.shape[0] * x.shape[1]
        with tempfile.TemporaryDirectory(prefix="unscan-lava-") as made:
            run = self._run_chain if self.chained else self._run_folder
            return run(Path(made), x, seconds, record)

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...) from zeros as a sequence of one; see `Executor.step`."""
        ran = self.run(check_input(self.graph, x, steps=False)[None], state, record=False)
        return ran.outputs[0], ran.state

    def _run_chain(self, folder: Path, x: Array, seconds: float, record: bool) -> Execution:
        layers = chain(self.graph)
        netx.emit(self.graph, folder / "model.net")
        x = _quantized(self.graph, x)
        shaped = x.reshape(*x.shape[:2], *netx.input_shape(self.graph, layers))
        described = netx.described(self.graph, layers)
        with running(folder / "model.net", described, shaped, membranes=record, seconds=seconds) as ran:
            return _Reading(self.graph, layers, x, ran).execution(record)

    def _run_folder(self, folder: Path, x: Array, seconds: float, record: bool) -> Execution:
        from unscan.targets.lava import folder as target

        target.emit(self.graph, folder / "model")
        np.savez(folder / "job.npz", x=x, record=record)
        guard.run(folder / "model" / "run.py", folder, seconds=seconds)
        kept: dict[str, dict[str, Array]] = {"spikes": {}, "membranes": {}, "state": {}}
        with np.load(folder / "result.npz") as given:
            outputs = double(given["outputs"])
            for key in given.files:
                what, _, name = key.partition("/")
                if what in kept:
                    kept[what][name] = given[key].astype(bool if what == "spikes" else np.float64)
        return Execution(outputs, kept["spikes"], kept["membranes"], kept["state"], None)


class _Reading:
    """What a run of a chain says of the graph's nodes, outputs and states."""

    def __init__(self, graph: Graph, layers: list[Layer], x: Array, ran: Ran) -> None:
        self._graph, self._layers, self._x, self._ran = graph, layers, x, ran
        self._spikes = {each.name: ran.spikes(each.name) for each in layers if self._is(each, IntegerLIF)}
        self._leaky = [each.name for each in layers if self._is(each, IntegerLeaky)]

    def _is(self, layer: Layer, kind: type[Node]) -> bool:
        return isinstance(self._graph.nodes[layer.name], kind)

    def execution(self, record: bool) -> Execution:
        """Return the run; spikes and membranes where they are recorded."""
        return Execution(
            outputs=self._outputs(),
            spikes=self._spikes if record else {},
            membranes={name: double(self._ran.membranes(name)) for name in self._leaky if record},
            state=self._state(),
            counts=None,
        )

    def _outputs(self) -> Array:
        (out,) = self._graph.of(Output)
        last = self._layers[-1]
        y = double(getattr(self._ran, netx.gives(self._graph, last))(last.name))
        return y.reshape(*y.shape[:2], *self._graph.signals[out].shape)

    def _state(self) -> dict[str, Array]:
        """Return u and v as Lava left them, and the past of delays, which is what went into its synapses."""
        found: dict[str, Array] = {}
        for name in self._leaky:
            i, u = (double(values) for values in self._ran.ends(name))
            found[f"{name}.u"] = u
            if isinstance(self._graph.nodes[name], IntegerCubaLIF):
                found[f"{name}.i"] = i
        for name in self._graph.of(Delay):
            node = self._graph.nodes[name]
            assert isinstance(node, Delay)
            went = self._signal(self._graph.into(name)[0].source)[::-1][: node.longest]
            past = np.zeros((node.longest, *went.shape[1:]))
            past[: len(went)] = went
            found[f"{name}.past"] = past.swapaxes(0, 1)
        return {name: found[name] for name in self._graph.states}

    def _signal(self, name: str) -> Array:
        """Return what left a node (T, B, ...): a neuron's spikes, or what follows from them without other neurons."""
        node = self._graph.nodes[name]
        if name in self._spikes:
            return double(self._spikes[name])
        if isinstance(node, Input | Quantize):
            return double(self._x)
        given = self._signal(self._graph.into(name)[0].source)
        if isinstance(node, Delay):
            steps = np.broadcast_to(node.steps, node.shape)
            delayed = np.zeros_like(given)
            for count in np.unique(steps).astype(int):
                delayed[count:, :, steps == count] = given[:-count, :, steps == count]
            return delayed
        value = step(node, {}, x=given.reshape(-1, *given.shape[2:])).value
        return value.reshape(*given.shape[:2], *value.shape[1:])


def _quantized(graph: Graph, x: Array) -> Array:
    """Return whole numbers: x itself, or what the Quantize behind the Input makes of it."""
    for name in graph.of(Quantize):
        if isinstance(graph.nodes[graph.into(name)[0].source], Input):
            return step(graph.nodes[name], {}, x=double(x)).value
    return x
