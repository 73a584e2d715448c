"""What a pass is: a name, options as fields, and a pure function from graph to graph."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from unscan.compiler.ir import Dialect, Graph


class Rewrite(NamedTuple):
    """What a pass made, and a line for each thing that it did or left with a reason."""

    graph: Graph
    notes: list[str]


class Pass(ABC):
    """A rewrite of the graph. Subclasses are frozen dataclasses whose fields are the options.

    The first line of the docstring says what it does; Given and Result are its contract, which the pipeline
    checks; Preserves says what stays the same, and how exactly.
    """

    name: ClassVar[str]
    given: ClassVar[Dialect | None] = Dialect.ITERATIVE
    result: ClassVar[Dialect | None] = Dialect.ITERATIVE
    changes: ClassVar[bool] = False
    """Whether it makes another model on purpose, to be measured on data."""

    @abstractmethod
    def rewrite(self, graph: Graph) -> Rewrite:
        """Return the new graph and notes; leave the given one alone."""
