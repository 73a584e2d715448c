"""What a target is: a name, a file suffix, `emit`, and the nodes that it refuses with the reason.

A target emits node by node, by `functools.singledispatch` on the node class. What it cannot express it refuses
with `Unsupported`; `refusals` is that same emission with the refusals collected, so the two cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Dialect, Graph, Node


class Emit(Protocol):
    """Write a graph to a file."""

    def __call__(self, graph: Graph, path: Path | str, **options: Any) -> None:
        """Write the whole file or nothing; raises Unsupported where a node cannot be expressed."""


class Refusals(Protocol):
    """Say which nodes of a graph cannot be expressed."""

    def __call__(self, graph: Graph, **options: Any) -> dict[str, str]:
        """Return node -> reason, in data-flow order, empty where the whole graph can be written."""


@dataclass(frozen=True)
class Report:
    """What a target says of a graph that it can carry.

    Attributes:
        title: of the table.
        columns: of the table; those after the first hold numbers, or text.
        rows: of the table; none where there is nothing to show.
        lines: sentences below it.
        problems: why the graph does not fit, one sentence each.
        numbers: all of it as JSON.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)


class Reports(Protocol):
    """Say what a graph takes, or what its file changes."""

    def __call__(self, graph: Graph, **options: Any) -> Report:
        """Return the report of a graph that the target can carry."""


@dataclass(frozen=True)
class Target:
    """One file format that a graph can be deployed as.

    Attributes:
        name: as the command line takes it.
        suffix: of its files, with the dot.
        summary: one line that says who runs such a file.
        emit: writes a graph.
        refusals: node -> reason for every node that `emit` would refuse.
        options: the names of the options of `emit`, which `refusals` and `report` take, too.
        report: what the graph takes there, or what its file changes; None where there is nothing to say.
    """

    name: str
    suffix: str
    summary: str
    emit: Emit
    refusals: Refusals
    options: tuple[str, ...] = ()
    report: Reports | None = None


def collect(order: Iterable[str], emit: Callable[[str], None]) -> dict[str, str]:
    """Emit every node in the given order and return the reason of each that was refused."""
    refused: dict[str, str] = {}
    for name in order:
        try:
            emit(name)
        except Unsupported as reason:
            refused[name] = str(reason)
    return refused


def insist(graph: Graph, target: str, refused: dict[str, str]) -> None:
    """Raise Unsupported naming target, every refused node and the reasons, each once, if there is one."""
    if refused:
        nodes: dict[str, list[str]] = {}
        for name, reason in refused.items():
            nodes.setdefault(reason, []).append(f"{type(graph.nodes[name]).__name__} {name!r}")
        clauses = "; ".join(f"{', '.join(named)}: {reason}" for reason, named in nodes.items())
        raise Unsupported(
            f"The target {target} cannot express {len(refused)} of {len(graph.nodes)} nodes. {clauses}."
        )


def no_rule(node: Node) -> Unsupported:
    """Return why a target without a rule for a node refuses it, and the pass that would help."""
    if node.dialect is Dialect.PARALLEL:
        return Unsupported("it is a parallel node, which sees the whole sequence at once; run unroll")
    return Unsupported(f"it has no form of {type(node).__name__}, and no pass replaces it")


def facts(graph: Graph) -> dict[str, Any]:
    """Return what every target writes beside the model: JSON facts by which a reader knows the graph again."""
    return {
        "digest": graph.digest,
        "dtype": graph.dtype.name,
        "history": list(graph.history),
        "meta": dict(graph.meta),
    }


def producer_version() -> str:
    """Return the version of this package; 0 in a checkout that is not installed."""
    try:
        return version("unscan")
    except PackageNotFoundError:
        return "0"
