"""Read a NIR file: one of ours gives back the very graph that was written, another's is read as its equations say.

How a file of others becomes a graph: `nir_time` holds what NIR leaves open (the step, and what frameworks do in it),
`nir_graph` opens subgraphs and loops, `nir_primitives` has a rule for each primitive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput, Unsupported
from unscan.compiler.frontends.nir_foreign import read_foreign
from unscan.compiler.frontends.nir_time import NirDialect
from unscan.compiler.ir import Array, Edge, Graph, Kind, Node
from unscan.compiler.nodes import NODES
from unscan.compiler.nodes.neurons import Phase, Reset
from unscan.compiler.spec import check

FORMAT = 2
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
    dialect: NirDialect = "nir",
    reset: Reset | None = None,
    phase: Phase | None = None,
    kind: Kind = Kind.REAL,
) -> Graph:
    """Read an iterative graph from a NIR file. The options are for files of others; ours hold the answers.

    Args:
        path: the file.
        dt: seconds per step. Where it is not given, a file with neurons must show it: the one dt at which every gain
            is 1; or the dialect knows it.
        dialect: the framework that wrote the file, whose own model the graph is to equal (`CONVENTIONS`): its step,
            its decay, whether a tie fires, and its usual reset. "nir": Euler's step of NIR's equations.
        reset: how the neurons reset (none, subtract, zero) where that is not the dialect's usual way.
        phase: when they do (now, next), likewise.
        kind: what the input carries (spike, graded, real).

    Raises:
        InvalidInput: no such file; dt is needed, not positive, or longer than a time constant; or an option was
            given for a file of ours.
        DamagedFile: the file is truncated, altered, or no NIR graph; an edge or a signal is missing.
        InvalidGraph: the shapes of its signals do not fit.
        Unsupported: what no node can say, by the primitive's name and with the reason.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; `unscan export --target nir` writes one.")
    try:
        read = _unchecked(path)
    except UNREADABLE as fault:
        unknown = _unknown(path)
        if unknown:
            raise Unsupported(
                f"{path} holds {', '.join(unknown)}, which NIR {nir.version} does not have; export the model with its "
                "primitives alone."
            ) from None
        raise DamagedFile(
            f"{path} is not a complete NIR file ({_line(fault)}): it is truncated, altered, or something else. "
            "Copy it again, or export the model again."
        ) from None
    if not isinstance(read, nir.NIRGraph):
        raise DamagedFile(
            f"{path} holds a single {type(read).__name__} and no graph; export the whole model."
        )
    if DOCUMENT not in read.metadata:
        return read_foreign(path, read, dt=dt, dialect=dialect, reset=reset, phase=phase, kind=kind)
    if dialect != "nir" or any(option is not None for option in (dt, reset, phase)):
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
        held |= {(name, field): value for field, value in _fields(primitive.to_dict())}
    for name, field in sorted(held):
        value = np.asarray(held[name, field])
        sha.update(json.dumps([name, field, str(value.dtype.kind), list(value.shape)]).encode())
        sha.update(
            str(value).encode() if value.dtype.kind in "USO" else np.ascontiguousarray(value).tobytes()
        )
    return sha.hexdigest()


def _fields(of: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (field, value) of a primitive; those of a subgraph's primitives as primitive/field."""
    for field, value in of.items():
        if isinstance(value, Mapping) and field != "metadata":
            for inner, leaf in _fields(value):
                yield f"{field}/{inner}", leaf
        elif field == "edges":
            yield field, json.dumps([[str(a), str(b)] for a, b in value])
        elif field != "metadata":
            yield field, value


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


def _unchecked(path: Path) -> nir.NIRNode:
    """Read a file as nir does, but leave its graphs as they were written, those in others too."""

    def leave(held: dict[str, Any]) -> None:
        if held["type"] == "NIRGraph":
            held["type_check"] = False
            for inner in held["nodes"].values():
                leave(inner)

    with h5py.File(path) as file:
        held = nir.serialization.hdf2dict(file["node"])
    leave(held)
    return nir.dict2NIRNode(held)


def _unknown(path: Path) -> list[str]:
    """Return the types of primitives that nir does not know."""
    found: set[str] = set()

    def look(name: str, item: Any) -> None:
        if name.endswith("/type") and isinstance(item, h5py.Dataset) and "metadata" not in name.split("/"):
            found.add(item.asstr()[()])

    try:
        with h5py.File(path) as file:
            file.visititems(look)
    except UNREADABLE:
        return []
    return sorted(kind for kind in found if not hasattr(nir, kind))


def _line(fault: BaseException) -> str:
    return str(fault).partition("\n")[0] or type(fault).__name__
