"""Tables that are wider than the terminal, cut between columns: a figure that loses a digit is another figure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.table import Table

GAP = 2
"""Blanks between two columns."""
TEXT = 24
"""How many characters of a text are kept in a line, where it has more; figures and names stand in one line."""


def fitted(made: Table, width: int) -> list[Table]:
    """Return a table as it is where `width` characters hold it, else several with some of its columns each.

    The first column, which names the rows, is in each of them. Texts are wrapped, and so are names that take more than
    half of the width; figures never are.
    """
    needs = [min(need, width // 2) if not place else need for place, need in enumerate(_needs(made))]
    blocks = list(_blocks(needs, width))
    made.columns[0].no_wrap = needs[0] == _longest(made, 0)
    return [made] if len(blocks) == 1 else [_part(made, block) for block in blocks]


def _longest(made: Table, place: int) -> int:
    column = made.columns[place]
    return max(cell_len(str(cell)) for cell in [column.header, *column.cells])


def _needs(made: Table) -> Iterator[int]:
    for place, column in enumerate(made.columns):
        longest = _longest(made, place)
        yield longest if column.no_wrap else min(longest, max(TEXT, cell_len(str(column.header))))


def _blocks(needs: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield which columns stand side by side, the first among them."""
    block, used = [0], needs[0]
    for place, need in enumerate(needs[1:], start=1):
        if len(block) > 1 and used + GAP + need > width:
            yield block
            block, used = [0], needs[0]
        block.append(place)
        used += GAP + need
    yield block


def _part(made: Table, block: Sequence[int]) -> Table:
    part = Table(header_style=made.header_style, box=made.box, pad_edge=made.pad_edge)
    for place in block:
        column = made.columns[place]
        part.add_column(
            column.header, justify=column.justify, overflow=column.overflow, no_wrap=column.no_wrap
        )
    for row in zip(*(made.columns[place].cells for place in block), strict=True):
        part.add_row(*row)
    return part
