"""Run a graph as its ONNX form in onnxruntime: step by step with resident states, or a whole sequence in a Scan.

Both run in the graph's number format on the CPU: whole numbers as such, real ones beside them in float64, so that
nothing is rounded before it is quantised. Operations are counted where a run records: then the model also gives what
leaves every node, and events are counted from that. An unrecorded run gives `counts` None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.ir import Array, Dialect, Graph, Kind
from unscan.compiler.nodes import SPIKING, Input, IntegerMemory, StoredMemory
from unscan.compiler.spec import check
from unscan.runtime.counts import Tallying
from unscan.runtime.executors.base import Execution, State, check_input, check_state
from unscan.targets.onnx import Form, build
from unscan.targets.onnx_step import computes_whole

ERRORS_ONLY = 3
TALLIES = ("writes", "rescaled", "saturated")
"""What nodes tally beside their spikes."""
FORMATS = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
}


def session(model: bytes, threads: int = 1) -> ort.InferenceSession:
    """Return a quiet onnxruntime session on the CPU with so many threads inside an operator."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = ERRORS_ONLY
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Resident:
    """The step form with its states kept where onnxruntime reads and writes them.

    Two sets of state buffers are bound, one to be read and one to be written; a step swaps them, and copies
    nothing but its input.
    """

    def __init__(
        self, of: ort.InferenceSession, x_shape: tuple[int, ...], state: Mapping[str, Array]
    ) -> None:
        self._session = of
        self._x = np.zeros(x_shape, entering(of)["x"])
        sets = (dict(state), {name: np.empty_like(value) for name, value in state.items()})
        x = ort.OrtValue.ortvalue_from_numpy(self._x)
        self.outputs: dict[str, Array] = {}
        for output in of.get_outputs():
            if output.name.removesuffix(".next") not in state:
                shape = (x_shape[0], *output.shape[1:])
                self.outputs[output.name] = np.empty(shape, FORMATS[output.type])
        held = {name: ort.OrtValue.ortvalue_from_numpy(value) for name, value in self.outputs.items()}
        values = [{name: ort.OrtValue.ortvalue_from_numpy(v) for name, v in each.items()} for each in sets]
        self._sets, self._bindings = sets, []
        for read, written in (values, values[::-1]):
            binding = of.io_binding()
            binding.bind_ortvalue_input("x", x)
            for name in state:
                binding.bind_ortvalue_input(name, read[name])
                binding.bind_ortvalue_output(f"{name}.next", written[name])
            for name, value in held.items():
                binding.bind_ortvalue_output(name, value)
            self._bindings.append(binding)
        self._values = (x, held, values)
        self._turn = 0

    def step(self, x: Array) -> Array:
        """Run one step x (B, ...): the output, in a buffer that the next step overwrites."""
        self._x[...] = x
        self._session.run_with_iobinding(self._bindings[self._turn])
        self._turn = 1 - self._turn
        return self.outputs["y"]

    @property
    def state(self) -> dict[str, Array]:
        """A copy of the state after the last step."""
        return {name: value.copy() for name, value in self._sets[self._turn].items()}


def entering(of: ort.InferenceSession) -> dict[str, np.dtype[Any]]:
    """Return the number format of every input of a session, those that may be left out among them."""
    return {
        each.name: np.dtype(FORMATS[each.type])
        for each in (*of.get_inputs(), *of.get_overridable_initializers())
    }


def apart(numbers: Array) -> Array:
    """Return the sum of what each sample tallied in a step, (B, ...) -> (B,)."""
    return np.asarray(numbers.reshape(len(numbers), -1).sum(axis=1, dtype=np.int64))


class _Onnx:
    """What both forms share: the graph, and one session each for recorded and unrecorded runs."""

    form: Form

    def __init__(self, graph: Graph, *, threads: int = 1) -> None:
        self.graph = check(graph, Dialect.ITERATIVE, where="The graph for onnxruntime")
        self._threads = threads
        self._sessions: dict[bool, ort.InferenceSession] = {}

    def _session(self, record: bool) -> ort.InferenceSession:
        if record not in self._sessions:
            real = np.float64 if computes_whole(self.graph) else self.graph.dtype
            model = build(self.graph, self.form, record, values=record, real=real)
            self._sessions[record] = session(model.SerializeToString(), self._threads)
        return self._sessions[record]

    def _kept(self, state: State | None, batch: int, of: ort.InferenceSession) -> dict[str, Array]:
        """Return a fresh copy of a state in the formats of a session."""
        known = entering(of)
        given = check_state(self.graph, state, batch, self.graph.dtype)
        kept = {name: value.astype(known[name], copy=False) for name, value in given.items()}
        if computes_whole(self.graph):
            for name, value in kept.items():
                if not np.array_equal(value, given[name]):
                    raise InvalidInput(
                        f"The carried state {name} holds numbers that {value.dtype} does not; wanted whole numbers, as "
                        "a run of the same graph gives them."
                    )
        return kept

    def _execution(self, x: Array, given: Mapping[str, Array], state: State, record: bool) -> Execution:
        if not record:
            return Execution(outputs=given["y"], spikes={}, membranes={}, state=state, counts=None)
        graph = self.graph
        sent = {
            name: next(
                given[key] for what in ("value", "spikes", "membrane") if (key := f"{name}.{what}") in given
            )
            for name in graph.order
        }
        spikes = {name: given[f"{name}.spikes"] > 0 for name in graph.of(*SPIKING)}
        tallied = {
            name: {what: given[key] for what in TALLIES if (key := f"{name}.{what}") in given}
            for name in graph.nodes
        }
        for name in graph.of(StoredMemory, IntegerMemory):
            tallied[name]["fired"] = spikes[name]
        tallying = Tallying(graph, x.shape[1])
        for t in range(len(x)):
            tallying.add(
                {name: value[t] for name, value in sent.items()},
                {
                    name: {what: apart(value[t]) for what, value in kinds.items()}
                    for name, kinds in tallied.items()
                },
            )
        return Execution(
            outputs=given["y"],
            spikes=spikes,
            membranes={name: given[f"{name}.membrane"] for name in graph.membranes()},
            state=state,
            counts=tallying.counts(steps=len(x)),
        )


class OnnxStep(_Onnx):
    """Run the step form once per step.

    Args:
        graph: an iterative graph.
        threads: threads inside one operator.

    Raises:
        InvalidGraph: a node is not iterative.
        Unsupported: a node has no form in ONNX.
    """

    form: Form = "step"

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...); see `Executor.run`."""
        x = check_input(self.graph, x)
        loop = self._resident(x.shape[1:], state, record)
        given = {name: np.empty((len(x), *value.shape), value.dtype) for name, value in loop.outputs.items()}
        for t, x_t in enumerate(x):
            loop.step(x_t)
            for name, value in loop.outputs.items():
                given[name][t] = value
        return self._execution(x, given, loop.state, record)

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...); see `Executor.step`. For many steps with little in each, `resident` is faster."""
        x = check_input(self.graph, x, steps=False)
        of = self._session(False)
        kept = self._kept(state, len(x), of)
        names = [output.name for output in of.get_outputs()]
        feeds = {"x": x.astype(entering(of)["x"], copy=False), **kept}
        given = dict(zip(names, of.run(names, feeds), strict=True))
        return given["y"], {name: given[f"{name}.next"] for name in kept}

    def resident(self, batch: int, state: State | None = None) -> Resident:
        """Return a loop over single steps whose states stay in onnxruntime's buffers between them."""
        (name,) = self.graph.of(Input)
        return self._resident((batch, *self.graph.signals[name].shape), state, False)

    def _resident(self, shape: tuple[int, ...], state: State | None, record: bool) -> Resident:
        of = self._session(record)
        return Resident(of, shape, self._kept(state, shape[0], of))


class OnnxScan(_Onnx):
    """Run the scan form: the whole sequence in one call.

    Args:
        graph: an iterative graph.
        threads: threads inside one operator.

    Raises:
        InvalidGraph: a node is not iterative.
        Unsupported: a node has no form in ONNX.
    """

    form: Form = "scan"

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...); see `Executor.run`."""
        x = check_input(self.graph, x)
        of = self._session(record)
        kept = self._kept(state, x.shape[1], of)
        names = [output.name for output in of.get_outputs()]
        feeds = {"x": np.ascontiguousarray(x, entering(of)["x"]), **kept}
        given = dict(zip(names, of.run(names, feeds), strict=True))
        return self._execution(x, given, {name: given[f"{name}.next"] for name in kept}, record)

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...) as a sequence of one; see `Executor.step`."""
        ran = self.run(check_input(self.graph, x, steps=False)[None], state, record=False)
        return ran.outputs[0], ran.state


class OnnxFile:
    """An exported ONNX file, run without its graph.

    Attributes:
        form: "step" or "scan".
        facts: what the exporter wrote beside the model (states, kind of the input, meta, ...).
    """

    def __init__(self, model: bytes, *, threads: int = 1) -> None:
        self._session = session(model, threads)
        written = self._session.get_modelmeta().custom_metadata_map
        self.facts = {
            key.removeprefix("unscan."): value
            if key in ("unscan.digest", "unscan.dtype", "unscan.form", "unscan.producer")
            else json.loads(value)
            for key, value in written.items()
            if key.startswith("unscan.")
        }
        self.form: Form = self.facts["form"]
        self._entering = entering(self._session)

    def run(self, x: Array, state: State | None = None) -> tuple[dict[str, Array], State]:
        """Run the file on x, (B, ...) in the step form and (T, B, ...) in the scan form, from its own start where None.

        Raises InvalidInput where x has another shape, is no spike, or names a row that an embedding does not have.

        Returns:
            Every output that is not a state, by name (`y`, `node.spikes`, ...), and the next state.
        """
        shape = self.facts["input"]["shape"]
        wanted = (2 if self.form == "scan" else 1) + len(shape)
        x = np.asarray(x)
        if x.ndim != wanted or list(x.shape[-len(shape) :]) != shape:
            axes = "T, B" if self.form == "scan" else "B"
            raise InvalidInput(
                f"The ONNX file in {self.form} form got x of shape {x.shape}, wanted ({axes}, "
                f"{', '.join(map(str, shape))})."
            )
        rows = self.facts["input"].get("rows")
        if rows is not None and not ((x == np.floor(x)) & (x >= 0) & (x < rows)).all():
            raise InvalidInput(
                f"The ONNX file takes whole numbers from 0 to {rows - 1}, which name rows of an embedding, and got "
                f"numbers from {x.min():g} to {x.max():g}; check the vocabulary that x was encoded with."
            )
        if self.facts["input"]["kind"] == Kind.SPIKE and not ((x == 0) | (x == 1)).all():
            raise InvalidInput(
                f"The ONNX file takes spikes (0 or 1) and got other numbers, from {x.min():g} to {x.max():g}; encode "
                "the data as spikes."
            )
        feeds = {"x": x, **self._start(x.shape[wanted - len(shape) - 1], state)}
        feeds = {name: np.ascontiguousarray(value, self._entering[name]) for name, value in feeds.items()}
        names = [output.name for output in self._session.get_outputs()]
        given = dict(zip(names, self._session.run(names, feeds), strict=True))
        nexts = {name: given.pop(f"{name}.next") for name in self.facts["states"]}
        return given, nexts

    def _start(self, batch: int, state: State | None) -> dict[str, Array]:
        """Return the states to feed: those that were carried in, or zeros for those that the file cannot do without."""
        if state is not None:
            return {name: state[name] for name in self.facts["states"]}
        needed = {each.name for each in self._session.get_inputs()}
        return {
            name: np.zeros((batch, *each["shape"]), self._entering[name])
            for name, each in self.facts["states"].items()
            if name in needed
        }


def from_file(path: Path | str, *, threads: int = 1) -> OnnxFile:
    """Load an ONNX file that `unscan.targets.onnx` wrote.

    Raises:
        InvalidInput: there is no such file.
        DamagedFile: it is not a complete ONNX model, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; `unscan export --target onnx` writes one.")
    try:
        return OnnxFile(path.read_bytes(), threads=threads)
    except (KeyError, ValueError) as fault:
        raise DamagedFile(
            f"{path} is an ONNX model without the metadata that unscan writes ({fault}); run it in onnxruntime itself."
        ) from None
    except Exception as fault:
        if type(fault).__module__.startswith("onnxruntime"):
            reason = str(fault).partition("\n")[0]
            raise DamagedFile(
                f"{path} is not a complete ONNX model ({reason}): it is truncated, altered, or something else. "
                "Export it again."
            ) from None
        raise


__all__ = ["OnnxFile", "OnnxScan", "OnnxStep", "Resident", "from_file", "session"]
