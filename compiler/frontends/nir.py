"""Read a NIR file: one of ours gives back the very graph that was written, another's is read as its equations say.

NIR is continuous in time and holds no dt. A LIF, tau dv/dt = (v_leak - v) + r i, becomes with a step dt

    v = (1 - dt / tau) v + (dt r / tau) i        fires on v > v_threshold, then v = 0

so decay and gain follow from dt alone, and a file that does not say dt cannot be run without being told. Both
numbers of every neuron stand in the history of the graph that was read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import singledispatch
from pathlib import Path
from typing import Any

import networkx as nx
import nir
import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput, Unsupported
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import LI, LIF, NODES, Flatten, Input, Linear, Output, Scale
from unscan.compiler.nodes.neurons import RESETS, Gain, Reset
from unscan.compiler.spec import check

FORMAT = 1
DOCUMENT, ARRAYS, CHECKSUM = "unscan", "unscan_arrays", "unscan_sha256"
"""Keys of a file's metadata: our graph as JSON, the arrays that NIR's own do not hold, and `fingerprint`."""

UNREADABLE = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    IndexError,
    RuntimeError,
)
"""What nir and h5py raise on a file that is not a whole NIR graph."""


def read_nir(
    path: Path | str,
    *,
    dt: float | None = None,
    reset: Reset | None = None,
    kind: Kind = Kind.REAL,
) -> Graph:
    """Read an iterative graph from a NIR file.

    Args:
        path: the file.
        dt: seconds per step. Needed by a file of others that holds neurons; one of ours knows its own.
        reset: how the neurons of a file of others reset where that is not NIR's own (zero).
        kind: what the input of a file of others carries (spike, graded, real).

    Raises:
        InvalidInput: no such file; dt is needed, not positive, or longer than a time constant; or an option was
            given for a file of ours, which holds the answer.
        DamagedFile: the file is truncated, altered, or no NIR graph.
        Unsupported: a primitive of another's file that this version does not read, by name and with the reason.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; `unscan export --target nir` writes one.")
    try:
        read = nir.read(str(path), type_check=False)
    except UNREADABLE as fault:
        raise DamagedFile(
            f"{path} is not a complete NIR file ({_line(fault)}): it is truncated, altered, or something else. "
            "Copy it again, or export the model again."
        ) from None
    if not isinstance(read, nir.NIRGraph):
        raise DamagedFile(
            f"{path} holds a single {type(read).__name__} and no graph; export the whole model."
        )
    if DOCUMENT not in read.metadata:
        return _Foreign(path, read, dt, reset, kind).graph()
    if dt is not None or reset is not None:
        raise InvalidInput(
            f"{path} was written by unscan and holds its own dt and reset; read it without those options, and "
            "change the reset with the pass restore-reset."
        )
    return _ours(path, read)


def fingerprint(graph: nir.NIRGraph) -> str:
    """Return the SHA-256 of everything in a NIR graph: primitives, edges, and our document and arrays."""
    sha = hashlib.sha256(graph.metadata[DOCUMENT].encode())
    sha.update(json.dumps([[str(a), str(b)] for a, b in graph.edges]).encode())
    held = {("", key): value for key, value in graph.metadata.get(ARRAYS, {}).items()}
    for name, primitive in graph.nodes.items():
        for field, value in primitive.to_dict().items():
            if field != "metadata":
                held[name, field] = value
    for name, field in sorted(held):
        value = np.asarray(held[name, field])
        sha.update(json.dumps([name, field, str(value.dtype.kind), list(value.shape)]).encode())
        sha.update(
            str(value).encode() if value.dtype.kind in "USO" else np.ascontiguousarray(value).tobytes()
        )
    return sha.hexdigest()


def _ours(path: Path, read: nir.NIRGraph) -> Graph:
    again = "Copy it again, or export the model again."
    try:
        document = json.loads(read.metadata[DOCUMENT])
        if document["format"] > FORMAT:
            raise DamagedFile(
                f"{path} has format version {document['format']}, and this unscan reads versions up to {FORMAT}: "
                "upgrade unscan (pip install --upgrade unscan)."
            )
        if fingerprint(read) != read.metadata[CHECKSUM]:
            raise DamagedFile(
                f"{path} was altered after unscan wrote it: its content does not have the checksum in its metadata. "
                f"{again} To read an edited file by its equations alone, delete the metadata that unscan wrote."
            )
        nodes: dict[str, Node] = {}
        for name, class_name, settings in document["nodes"]:
            nodes[name] = NODES[class_name](**settings, **_arrays(read, document["arrays"].get(name, {})))
        edges = [Edge(*edge) for edge in document["edges"]]
        graph = Graph(nodes, edges, history=document["history"], meta=document["meta"])
        known = graph.digest == document["digest"]
    except UNREADABLE as fault:
        raise DamagedFile(
            f"{path} holds an unscan graph that cannot be rebuilt ({_line(fault)}). {again}"
        ) from None
    if not known:
        raise DamagedFile(f"{path} gives another graph than the one it was written from. {again}")
    return check(graph, where=str(path))


def _arrays(read: nir.NIRGraph, places: Mapping[str, Any]) -> dict[str, Array]:
    found = {}
    for field, place in places.items():
        if "primitive" in place:
            found[field] = getattr(read.nodes[place["primitive"]], place["field"])
        else:
            found[field] = read.metadata[ARRAYS][place["array"]].reshape(place["shape"])
    return found


def _line(fault: BaseException) -> str:
    return str(fault).partition("\n")[0] or type(fault).__name__


class _Foreign:
    """A file of others, on its way to a graph."""

    def __init__(
        self, path: Path, read: nir.NIRGraph, dt: float | None, reset: Reset | None, kind: Kind
    ) -> None:
        if dt is not None and not dt > 0:
            raise InvalidInput(f"dt is the seconds of one step and must be greater than 0; got {dt:g}.")
        if reset is not None and reset not in RESETS:
            raise InvalidInput(f"There is no reset {reset!r}; the resets are {', '.join(RESETS)}.")
        self.path, self.read, self.reset, self.kind = path, read, reset or "zero", Kind(kind)
        self.dt = dt
        self.notes: list[str] = []
        self.gains: dict[str, Array] = {}

    def graph(self) -> Graph:
        """Return the graph. Raises as `read_nir`."""
        self._refuse()
        if self.dt is None:
            self._ask_dt()
        nodes: dict[str, Node] = {}
        edges = []
        for name, primitive in self.read.nodes.items():
            node = read_primitive(primitive, self, name)
            if name in self.gains:
                nodes[f"{name}.gain"] = Scale(self.gains[name])
                edges.append(Edge(f"{name}.gain", name))
            nodes[name] = node
        for source, target in self.read.edges:
            edges.append(Edge(source, f"{target}.gain" if target in self.gains else target))
        step = f", dt = {self.dt:g} s" if self.dt is not None else ""
        history = [f"read-nir {self.path.name}{step}", *(f"read-nir {note}" for note in self.notes)]
        meta = {} if self.dt is None else {"dt": self.dt}
        return check(Graph(nodes, edges, history=history, meta=meta), where=str(self.path))

    def _refuse(self) -> None:
        for name, primitive in self.read.nodes.items():
            if read_primitive.dispatch(type(primitive)) is read_primitive.dispatch(object):
                raise self.unsupported(name, f"this version does not read {type(primitive).__name__}")
        for primitive_class in (nir.Input, nir.Output):
            found = [name for name, p in self.read.nodes.items() if isinstance(p, primitive_class)]
            if len(found) != 1:
                raise Unsupported(
                    f"{self.path} has {len(found)} {primitive_class.__name__} nodes "
                    f"({', '.join(found) or 'none'}), and a graph of unscan has exactly one."
                )
        loops: nx.DiGraph[str] = nx.DiGraph(self.read.edges)
        if not nx.is_directed_acyclic_graph(loops):
            cycle = [a for a, _ in nx.find_cycle(loops)]
            raise Unsupported(
                f"{self.path} has a recurrence {' -> '.join(cycle)} -> {cycle[0]}, and this version reads "
                "feed-forward graphs only."
            )

    def _ask_dt(self) -> None:
        timed = {n: p for n, p in self.read.nodes.items() if isinstance(p, nir.LIF | nir.LI | nir.IF)}
        if not timed:
            return
        lines = []
        for name, primitive in timed.items():
            if isinstance(primitive, nir.IF):
                lines.append(f"IF {name!r}: gain dt x {_range(primitive.r)}")
            else:
                rate = np.asarray(primitive.r, np.float64) / primitive.tau
                lines.append(
                    f"{type(primitive).__name__} {name!r}: tau {_range(primitive.tau)} s, gain dt x {_range(rate)}, "
                    f"which is 1 at dt {_range(1 / rate) if np.all(rate > 0) else 'none'} s"
                )
        raise InvalidInput(
            f"{self.path} gives time constants in seconds and no time step, so that decay (1 - dt / tau) and gain "
            f"(dt r / tau) are open. Say how long a step is (--dt SECONDS). {'; '.join(lines)}."
        )

    def leaky(self, name: str, primitive: Any) -> tuple[Array, Gain]:
        """Return (beta, gain) of a LIF or LI; a gain of neither 1 nor 1 - beta becomes a Scale before it."""
        if np.any(primitive.v_leak != 0):
            raise self.unsupported(name, f"its v_leak is {_range(primitive.v_leak)}, and only 0 is read")
        dtype = _dtype(primitive.tau, primitive.r)
        tau, r = np.asarray(primitive.tau, np.float64), np.asarray(primitive.r, np.float64)
        assert self.dt is not None
        if np.any(tau <= 0) or np.any(self.dt > tau * (1 + 1e-6)):
            raise InvalidInput(
                f"{type(primitive).__name__} {name!r} of {self.path} has tau {_range(tau)} s, shorter than dt = "
                f"{self.dt:g} s: its decay 1 - dt / tau would be negative. Pass a shorter dt."
            )
        rate = self.dt / tau
        beta, gain = np.clip(1 - rate, 0, 1), rate * r
        self.notes.append(
            f"{type(primitive).__name__} {name}: decay 1 - dt/tau = {_range(beta)}, gain dt r/tau = {_range(gain)}"
        )
        if np.all(r == 1) and np.any(rate != 1):
            return self.per_channel(name, "tau", beta).astype(dtype), "1-beta"
        if not np.allclose(gain, 1, rtol=1e-6, atol=0):
            self.gains[name] = self.per_channel(name, "gain", gain).astype(dtype)
        return self.per_channel(name, "tau", beta).astype(dtype), "1"

    def spiking(self, name: str, primitive: Any, beta: Array, gain: Gain) -> LIF:
        """Return the LIF of a primitive with v_threshold and v_reset."""
        if np.any(primitive.v_reset != 0):
            raise self.unsupported(name, f"its v_reset is {_range(primitive.v_reset)}, and only 0 is read")
        if np.any(primitive.v_threshold <= 0):
            raise self.unsupported(
                name,
                f"its v_threshold is {_range(primitive.v_threshold)}, and a threshold must be greater than 0",
            )
        theta = self.per_channel(name, "v_threshold", np.asarray(primitive.v_threshold))
        dtype = np.result_type(beta.dtype, _dtype(theta))
        return LIF(
            beta=beta.astype(dtype),
            gain=gain,
            threshold=theta.astype(dtype),
            reset=self.reset,
            phase="now",
            fires=">",
            trained_reset=self.reset,
        )

    def per_channel(self, name: str, field: str, value: Array) -> Array:
        """Return a full-shape parameter as one number, or one per neuron of the last axis."""
        if np.all(value == value.flat[0]):
            return np.asarray(value.flat[0])
        if value.ndim > 1:
            raise self.unsupported(
                name, f"its {field} of shape {value.shape} differs between neurons of more than one axis"
            )
        return value

    def unsupported(self, name: str, reason: str) -> Unsupported:
        """Return the error for one primitive."""
        return Unsupported(f"{type(self.read.nodes[name]).__name__} {name!r} of {self.path}: {reason}.")


def _range(value: Array) -> str:
    low, high = float(np.min(value)), float(np.max(value))
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _dtype(*values: Array) -> np.dtype[Any]:
    return np.dtype(np.float64 if any(np.asarray(v).dtype == np.float64 for v in values) else np.float32)


@singledispatch
def read_primitive(primitive: Any, file: _Foreign, name: str) -> Node:
    """Return the node of one NIR primitive. Raises Unsupported with its name and the reason."""
    raise file.unsupported(name, f"this version does not read {type(primitive).__name__}")


def _reads(primitive_class: Any) -> Callable[..., Any]:
    return read_primitive.register(primitive_class)


@_reads(nir.Input)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    (shape,) = primitive.input_type.values()
    return Input(tuple(int(n) for n in shape), file.kind)


@_reads(nir.Output)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    return Output()


@_reads(nir.Linear)
@_reads(nir.Affine)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    if primitive.weight.ndim != 2:
        raise file.unsupported(
            name, f"its weight has shape {primitive.weight.shape}, and only two axes are read"
        )
    bias = getattr(primitive, "bias", None)
    dtype = _dtype(primitive.weight, *(() if bias is None else (bias,)))
    return Linear(primitive.weight.astype(dtype), None if bias is None else np.asarray(bias, dtype))


@_reads(nir.Scale)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    return Scale(file.per_channel(name, "scale", np.asarray(primitive.scale)))


@_reads(nir.Flatten)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    shape = next(iter(primitive.input_type.values()))
    axes = None if shape is None else len(shape)
    start, end = int(primitive.start_dim), int(primitive.end_dim)
    if not (axes == 1 or (start == 0 and end in (-1, None if axes is None else axes - 1))):
        raise file.unsupported(
            name,
            f"it joins axes {start} to {end} of {axes or 'unknown'}, and only a flattening of all is read",
        )
    return Flatten()


@_reads(nir.LI)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    beta, gain = file.leaky(name, primitive)
    return LI(beta=beta, gain=gain)


@_reads(nir.LIF)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    return file.spiking(name, primitive, *file.leaky(name, primitive))


@_reads(nir.IF)
def _(primitive: Any, file: _Foreign, name: str) -> Node:
    assert file.dt is not None
    gain = file.dt * np.asarray(primitive.r, np.float64)
    dtype = _dtype(primitive.r)
    file.notes.append(f"IF {name}: no decay, gain dt r = {_range(gain)}")
    if not np.allclose(gain, 1, rtol=1e-6, atol=0):
        file.gains[name] = file.per_channel(name, "r", gain).astype(dtype)
    return file.spiking(name, primitive, np.ones((), dtype), "1")
