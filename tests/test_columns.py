"""Tables in terminals of any width: every figure whole, every row named."""

import io

import pytest
from rich.console import Console

from unscan.columns import fitted
from unscan.show import table

ROWS = [
    ("layer1.neuron", "364,888", "44.54%", "48,140,044", "a text that is longer than what stands in a line of it"),
    ("in all", "508,326", "41.37%", "109,772,800", "short"),
]  # fmt: skip


def printed(width):
    made = table("", "node", "spikes", "rate", "dense MACs", "settings", numbers="spikes,rate,dense MACs")
    for row in ROWS:
        made.add_row(*row)
    console = Console(file=io.StringIO(), width=width, color_system=None)
    parts = fitted(made, width)
    for part in parts:
        console.print(part)
    return parts, console.file.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 120])
def test_no_figure_loses_a_digit_and_each_block_names_its_rows(width):
    parts, said = printed(width)
    assert all(len(line) <= width for line in said.splitlines())
    for name, *figures, _ in ROWS:
        assert all(said.split().count(figure) == 1 for figure in figures)
        assert said.count(name) == len(parts)
    assert sum(len(part.columns) - 1 for part in parts) == 4


def test_a_table_that_fits_is_left_as_it_is():
    parts, _ = printed(120)
    assert len(parts) == 1
    parts, _ = printed(40)
    assert len(parts) > 1
    assert {part.row_count for part in parts} == {2}


def test_a_name_wider_than_half_of_the_terminal_is_wrapped():
    made = table("", "node", "spikes", numbers="spikes")
    made.add_row("a" * 50, "123,456,789")
    console = Console(file=io.StringIO(), width=40, color_system=None)
    (part,) = fitted(made, 40)
    console.print(part)
    said = console.file.getvalue()
    assert "123,456,789" in said
    assert said.count("a") == 50
