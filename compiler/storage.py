"""The `.unscan` file: one safetensors file, arrays as tensors and the graph as JSON in its header.

Reading one never executes code. A SHA-256 over the JSON and every array stands beside them, so that a truncated
or altered file is refused; so is one of a newer format version.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.ir import Array, Edge, Graph
from unscan.compiler.nodes import NODES
from unscan.compiler.spec import check

FORMAT = 2


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, remove it on failure.

    Raises:
        InvalidInput: what `writable` raises, or the disk does not take the file.
    """
    path = writable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield temporary
        os.replace(temporary, path)
    except (OSError, SafetensorError) as fault:
        if isinstance(fault, OSError) and fault.filename not in (None, str(temporary), temporary):
            raise
        reason = getattr(fault, "strerror", None) or str(fault)
        raise InvalidInput(
            f"Cannot write {path}: {reason}; choose a folder that you may write to, on a disk with room."
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def writable(path: str | os.PathLike[str]) -> Path:
    """Return the path of a file that can be written; to be asked before long work.

    Raises:
        InvalidInput: it names a folder, or its folder does not exist or must not be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise InvalidInput(f"Cannot write {path}: it is a folder; name a file.")
    if not path.parent.is_dir():
        raise InvalidInput(f"Cannot write {path}: the folder {path.parent} does not exist; make it first.")
    if not os.access(path.parent, os.W_OK):
        raise InvalidInput(
            f"Cannot write {path}: you must not write to {path.parent.absolute()}; choose a folder that you may "
            "write to."
        )
    return path


def save(graph: Graph, path: str | os.PathLike[str]) -> None:
    """Write a graph. Raises InvalidGraph where it breaks an invariant, InvalidInput where it cannot be written."""
    check(graph)
    tensors = {
        f"{name}/{field}": value for name, node in graph.nodes.items() for field, value in node.arrays()
    }
    text = json.dumps(
        {
            "nodes": [[name, type(node).__name__, node.settings()] for name, node in graph.nodes.items()],
            "edges": graph.edges,
            "history": graph.history,
            "meta": dict(graph.meta),
        }
    )
    header = {"format": str(FORMAT), "graph": text, "sha256": checksum(f"{FORMAT} {text}", tensors)}
    with writing(path) as temporary:
        save_file({name: np.asarray(value) for name, value in tensors.items()}, temporary, header)


def load(path: str | os.PathLike[str]) -> Graph:
    """Read a graph.

    Raises:
        InvalidInput: there is no such file.
        DamagedFile: it is not a `.unscan` file, is truncated or altered, or is of a newer format.
        InvalidGraph: it holds a graph that breaks an invariant.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; `unscan compile` makes one from a trained run.")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise DamagedFile(
            f"{path} is not a complete .unscan file ({fault}): it is truncated, altered, or something else. "
            "Copy it again, or compile the model again."
        ) from None
    version = header.get("format", "")
    if "graph" not in header or not version.isdecimal():
        raise DamagedFile(
            f"{path} is a safetensors file without an unscan graph in its header; compile a model to get one."
        )
    if int(version) > FORMAT:
        raise DamagedFile(
            f"{path} has format version {version}, and this unscan reads versions up to {FORMAT}: upgrade unscan "
            "(pip install --upgrade unscan), or write the file with an older one."
        )
    if checksum(f"{version} {header['graph']}", tensors) != header.get("sha256"):
        raise DamagedFile(
            f"{path} was altered after it was written: its content does not have the checksum in its header. "
            "Copy it again, or compile the model again."
        )
    return check(_rebuild(path, json.loads(header["graph"]), tensors), where=str(path))


def checksum(text: str, tensors: Mapping[str, Array]) -> str:
    """Return the SHA-256 of a text (format version and JSON) and of every array with its name, type and shape."""
    sha = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        sha.update(f"{name} {tensors[name].dtype.str} {tensors[name].shape}".encode())
        sha.update(np.ascontiguousarray(tensors[name]).data)
    return sha.hexdigest()


def _rebuild(path: Path, document: Mapping[str, Any], tensors: Mapping[str, Array]) -> Graph:
    arrays: dict[str, dict[str, Array]] = {}
    for key, value in tensors.items():
        value.setflags(write=False)
        name, _, field = key.rpartition("/")
        arrays.setdefault(name, {})[field] = value
    nodes = {}
    for name, kind, settings in document["nodes"]:
        if kind not in NODES:
            raise DamagedFile(
                f"{path} holds a node {name!r} of the unknown kind {kind!r}; this unscan has {', '.join(NODES)}."
            )
        nodes[name] = NODES[kind](**settings, **arrays.get(name, {}))
    edges = [Edge(*edge) for edge in document["edges"]]
    return Graph(nodes, edges, history=document["history"], meta=document["meta"])
