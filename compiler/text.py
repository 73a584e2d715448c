"""A graph as text, the same on every machine, and the difference of two graphs as lines.

`text` writes one line per node, in data-flow order:

    lif1 = LIF(fc1) beta float64 0.9, threshold float64[12] 5f3c9a01, gain '1', reset 'zero' -> spike[12] keeps u[12]

that is its operator, what feeds each port (a + b where several edges add up; the port is named where there is more
than one), its arrays with format, shape and number (the first 8 digits of a SHA-256 where there are more numbers
than one), its settings, what it sends, and what it keeps between steps. A value that comes back through a loop is
marked by a *.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from unscan.compiler.ir import Array, Graph, Node


def text(graph: Graph, *, meta: bool = False, history: bool = False) -> str:
    """Return a graph as text.

    Args:
        graph: a valid graph.
        meta: also write its facts, in lines that begin with `# meta`.
        history: also write what its passes did, in lines that begin with `# history`.

    Raises:
        InvalidGraph: nodes do not fit what feeds them.
    """
    lines = [line(graph, name) for name in graph.order]
    if meta:
        lines += [
            f"# meta {key}: {json.dumps(graph.meta[key], sort_keys=True)}" for key in sorted(graph.meta)
        ]
    if history:
        lines += [f"# history {said}" for said in graph.history]
    return "".join(f"{written}\n" for written in lines)


def line(graph: Graph, name: str) -> str:
    """Return the line of one node."""
    node, signal = graph.nodes[name], graph.signals[name]
    parts = [f"{field} {array(value)}" for field, value in node.arrays()]
    parts += [f"{key} {setting(value)}" for key, value in settings(node).items() if value is not None]
    kept = [f"{key}{shape(size)}" for key, size in node.state(graph.inputs(name)).items()]
    return (
        f"{name} = {type(node).__name__}({', '.join(feeds(graph, name))})"
        + (f" {', '.join(parts)}" if parts else "")
        + f" -> {signal.kind}{shape(signal.shape)}"
        + (f" keeps {', '.join(kept)}" if kept else "")
    )


def feeds(graph: Graph, name: str) -> list[str]:
    """Return what feeds each port of a node."""
    rank = {node: i for i, node in enumerate(graph.order)}
    node = graph.nodes[name]
    found = []
    for port in node.ports:
        sources = sorted((e.source for e in graph.into(name) if e.port == port), key=rank.__getitem__)
        added = " + ".join(f"{source}*" if rank[source] >= rank[name] else source for source in sources)
        found.append(added if len(node.ports) == 1 else f"{port}={added}")
    return found


def settings(node: Node) -> dict[str, object]:
    """Return the settings of a node that its signal does not say already."""
    hidden = ("shape", "kind") if not node.ports or node.delays else ()
    return {key: value for key, value in node.settings().items() if key not in hidden}


def shape(size: tuple[int, ...]) -> str:
    """Return a shape as text: [3x4], and nothing for a single number."""
    return f"[{'x'.join(map(str, size))}]" if size else ""


def array(value: Array) -> str:
    """Return the format, the shape, and the number or a digest of the numbers of an array."""
    return f"{value.dtype}{shape(value.shape)} {digest(value) if value.shape else str(value[()])}"


def digest(value: Array) -> str:
    """Return 8 hexadecimal digits that stand for the numbers of an array."""
    little = np.ascontiguousarray(value, value.dtype.newbyteorder("<"))
    return hashlib.sha256(little.tobytes()).hexdigest()[:8]


def setting(value: object) -> str:
    """Return a setting as text."""
    return json.dumps(value).replace('"', "'") if isinstance(value, str | list | tuple) else repr(value)


def diff(a: Graph, b: Graph) -> list[str]:
    """Compare two graphs by the names of their nodes; return no line where they are equal.

    A line begins with - for a node of a alone, with + for one of b alone, and with ~ for one that differs: in its
    operator, in what feeds it, in a setting, or in an array (largest absolute difference, and the largest relative
    to the larger of the two numbers).
    """
    lines = []
    for name in merged(a, b):
        if name not in b.nodes:
            lines.append(f"- {line(a, name)}")
        elif name not in a.nodes:
            lines.append(f"+ {line(b, name)}")
        else:
            found = list(changes(a, b, name))
            if found:
                lines.append(f"~ {name}: {'; '.join(found)}")
    return lines


def merged(a: Graph, b: Graph) -> list[str]:
    """Return the names of both graphs: those of b in order, each of a's alone behind the one that it followed."""
    names = list(b.order)
    for before, name in pairwise(("", *a.order)):
        if name not in b.nodes:
            names.insert(names.index(before) + 1 if before else 0, name)
    return names


def changes(a: Graph, b: Graph, name: str) -> Iterator[str]:
    """Yield one clause for everything in which a node of both graphs differs."""
    left, right = a.nodes[name], b.nodes[name]
    if type(left) is not type(right):
        yield f"{type(left).__name__} -> {type(right).__name__}"
    fed = (", ".join(feeds(a, name)), ", ".join(feeds(b, name)))
    if fed[0] != fed[1]:
        yield f"fed by {fed[0]} -> {fed[1]}"
    olds, news = dict(left.arrays()), dict(right.arrays())
    for field in dict.fromkeys((*olds, *news)):
        old, new = olds.get(field), news.get(field)
        if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
            yield f"{field} {'none' if old is None else array(old)} -> {'none' if new is None else array(new)}"
        elif not np.array_equal(old, new):
            yield f"{field} {moved(old, new)}"
    before, after = left.settings(), right.settings()
    for key in dict.fromkeys((*before, *after)):
        if key not in olds and key not in news and before.get(key) != after.get(key):
            yield f"{key} {setting(before.get(key))} -> {setting(after.get(key))}"


def moved(old: Array, new: Array) -> str:
    """Say how far the numbers of an array moved."""
    if old.shape == ():
        return f"{array(old)} -> {array(new)}"
    wide = old.astype(np.float64), new.astype(np.float64)
    apart = np.abs(wide[0] - wide[1])
    size = np.maximum(np.abs(wide[0]), np.abs(wide[1]))
    relative = np.divide(apart, size, out=np.zeros_like(apart), where=size > 0)
    return (
        f"{old.dtype}{shape(old.shape)} differs in {np.count_nonzero(apart):,} of {old.size:,} numbers, by at most "
        f"{apart.max():.3g}, relatively {relative.max():.3g}"
    )
