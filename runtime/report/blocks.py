"""What a page is made of: sections of text, tables, figures and code, and how they become one HTML file.

The template holds every tag; the sections are written in Python. Nothing in the file comes from elsewhere: styles and
drawings stand in it, and it runs no script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    kind: ClassVar[str] = "text"
    said: str


@dataclass(frozen=True)
class Cell:
    """One cell of a table: what it says, and how it is marked, "" or "good", "near" or "off"."""

    said: str
    mark: str = ""


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows; every row is as long as `columns`, `numbers` are aligned right."""

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    words: Sequence[str] = ()
    """The columns that hold words; all others hold numbers."""

    @property
    def cells(self) -> list[list[Cell]]:
        """The rows, every entry a Cell."""
        return [[entry if isinstance(entry, Cell) else Cell(entry) for entry in row] for row in self.rows]


@dataclass(frozen=True)
class Figure:
    """A drawing, whose SVG says in its own label what it shows, and a caption under it."""

    kind: ClassVar[str] = "figure"
    svg: str
    caption: str

    @property
    def markup(self) -> Markup:
        """The drawing, to be written as it is."""
        return Markup(self.svg)


@dataclass(frozen=True)
class Code:
    """Lines to be read or typed as they are; a long one is folded away under its `title`."""

    kind: ClassVar[str] = "code"
    lines: str
    title: str = ""


Block = Text | Table | Figure | Code


@dataclass(frozen=True)
class Section:
    """A heading, what stands under it, and the sections within."""

    title: str
    blocks: Sequence[Block] = ()
    within: Sequence[Section] = ()
    id: str = field(default="", compare=False)

    def named(self, taken: set[str]) -> Section:
        """Return the section with an id that is not taken, and those within likewise."""
        short = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") or "section"
        number, name = 1, short
        while name in taken:
            number += 1
            name = f"{short}-{number}"
        taken.add(name)
        return Section(self.title, self.blocks, [part.named(taken) for part in self.within], name)

    def walk(self) -> Iterator[Section]:
        """Yield the section and all within."""
        yield self
        for part in self.within:
            yield from part.walk()


@dataclass(frozen=True)
class Page:
    """A page: its title, a line under it, the figures that matter most as (what, how much), and its sections."""

    title: str
    subtitle: str
    figures: Sequence[tuple[str, str]]
    sections: Sequence[Section]

    @cached_property
    def named(self) -> list[Section]:
        """The sections, each with an id of its own."""
        taken = {"main", "contents"}
        return [section.named(taken) for section in self.sections]

    def html(self) -> str:
        """Return the page as one HTML file."""
        here = Path(__file__).parent
        environment = Environment(
            loader=FileSystemLoader(here),
            autoescape=select_autoescape(default=True, default_for_string=True),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        style = Markup((here / "style.css").read_text(encoding="utf-8"))
        return environment.get_template("page.html.jinja").render(page=self, style=style)
