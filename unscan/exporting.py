"""The commands that say whether a target can carry a model, and that write it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unscan.compiler.errors import InvalidInput
from unscan.compiling import given, takes_source, with_options
from unscan.train import FILE, json_option

if TYPE_CHECKING:
    from unscan.targets import Target
    from unscan.targets.base import Report

OPTIONS = {
    "form": click.option(
        "--form", type=click.Choice(["step", "scan"]), help="onnx: one step, or a Scan over the sequence."
    ),
    "states": click.option(
        "--states",
        type=click.Choice(["optional", "fed"]),
        help="onnx: states as inputs with initial values in the file, or to be fed (for JavaScript).",
    ),
    "profile": click.option(
        "--profile",
        help="nir: whom the file is for: portable, nir, norse, snntorch, spikingjelly, sinabs, rockpool or spyx.",
    ),
    "flash": click.option("--flash", help="c: the bytes that weights and code may take, such as 256K."),
    "ram": click.option("--ram", help="c: the bytes that one instance may take, such as 64K."),
    "compiler": click.option(
        "--compiler", help="c: what measures the code, such as arm-none-eabi-gcc; by default cc."
    ),
}
"""Option of a target -> the option of the command line."""


def takes_target(command: Any) -> Any:
    """Add the options that targets take."""
    return with_options(command, list(OPTIONS.values()))


def split(target: Target, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options that were given and that the target takes, and those of the source."""
    from unscan.targets import TARGETS, find

    asked = {name: value for name, value in options.items() if name in OPTIONS and value is not None}
    for name in asked:
        if name not in target.options:
            takers = [known for known in TARGETS if name in find(known).options]
            raise InvalidInput(
                f"--{name} is for the target {' or '.join(takers)}, and the target is {target.name}; leave it out."
            )
    return asked, {name: value for name, value in options.items() if name not in OPTIONS}


def show_report(report: Report) -> None:
    """Print what a target says of a graph."""
    from unscan.show import console, show, table

    if report.rows:
        made = table(report.title, *report.columns)
        for row in report.rows:
            made.add_row(*row)
        show(made)
    for line in (*report.lines, *report.problems):
        console.print(line, highlight=False)


@click.command()
@click.argument("source", type=FILE)
@click.option("--target", "name", required=True, help="A target; `unscan targets` lists them.")
@takes_target
@takes_source
@json_option
def check(source: Path, name: str, json_path: Path | None, **options: Any) -> None:
    """Say of each node, in data-flow order, whether a target can carry it, and why not; then what it takes there."""
    from unscan.show import console, show, table, write_json
    from unscan.sources import read_graph
    from unscan.targets import find

    target = find(name)
    asked, source_options = split(target, options)
    graph = read_graph(source, **given(source_options))
    refused = target.refusals(graph, **asked)
    made = table(f"{source} on {name}", "node", "operator", "deployable", "why not, and what helps")
    for node in graph.order:
        kind = type(graph.nodes[node]).__name__
        made.add_row(node, kind, "no" if node in refused else "yes", refused.get(node, ""))
    show(made)
    report = None if refused or target.report is None else target.report(graph, **asked)
    if report is not None:
        show_report(report)
    write_json(
        json_path,
        {
            "target": name,
            "deployable": not refused,
            "refused": refused,
            "nodes": graph.order,
            "report": report and report.numbers,
            "problems": [] if report is None else report.problems,
        },
    )
    if refused:
        console.print(f"{len(refused)} of {len(graph.order)} nodes cannot be deployed on {name}.")
    if refused or (report is not None and report.problems):
        sys.exit(1)


@click.command()
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The file to write; of Lava also a folder.")
@click.option("--target", "name", help="A target; by default the one of the output's suffix.")
@takes_target
def export(source: Path, output: Path, name: str | None, **options: Any) -> None:
    """Write a compiled graph as a target's file, and say what it takes there or what the file changes."""
    from unscan.show import console
    from unscan.sources import read_graph
    from unscan.targets import TARGETS, find

    if name is None:
        name = next((known for known in TARGETS if find(known).suffix == output.suffix), None)
    if name is None:
        known = ", ".join(f"{find(name).suffix} ({name})" for name in TARGETS)
        raise InvalidInput(
            f"No target has the suffix of {output}; the suffixes are {known}. Or name one: --target."
        )
    target = find(name)
    asked, _ = split(target, options)
    graph = read_graph(source)
    target.emit(graph, output, **asked)
    said = ", ".join([name, *map(str, asked.values())])
    console.print(f"Written: {output} ({said}, {size_of(output):,} bytes)", highlight=False)
    if target.report is not None:
        show_report(target.report(graph, **asked))


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files of a folder."""
    files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
    return sum(each.stat().st_size for each in files)
