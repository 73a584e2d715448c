"""Commands that say what there is: this installation, and the names that other commands take."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unscan.runtime.energy_tables import Table


@click.command()
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Also write the result to this file."
)
def doctor(json_path: Path | None) -> None:
    """Say what this installation has, what it lacks, and what adds it."""
    from unscan.doctor import examine
    from unscan.show import show, table, write_json

    findings = examine()
    made = table("unscan doctor", "part", "found", "for", "to do")
    for finding in findings:
        missing = not finding.well or finding.found in ("missing", "not set")
        made.add_row(finding.part, finding.found, finding.use, finding.remedy if missing else "")
    show(made)
    write_json(json_path, {"parts": [vars(finding) for finding in findings]})
    if not all(finding.well for finding in findings):
        sys.exit(1)


def listing(title: str, rows: dict[str, str]) -> None:
    """Print names with what they are."""
    from unscan.show import show, table

    made = table(title, "name", "what it is")
    for name, what in rows.items():
        made.add_row(name, what)
    show(made)


def first_line(thing: Any) -> str:
    """Return the first line of a docstring."""
    return (thing.__doc__ or "").strip().splitlines()[0]


@click.command()
def passes() -> None:
    """List the compiler's passes."""
    from unscan.compiler.passes import PASSES

    listing(
        "Passes, in the order in which they run", {name: first_line(kind) for name, kind in PASSES.items()}
    )


@click.command()
def targets() -> None:
    """List what a graph can be exported to."""
    from unscan.targets import TARGETS, find

    listing("Targets", {name: find(name).summary for name in TARGETS})


@click.command()
def executors() -> None:
    """List the ways to run a graph."""
    from unscan.runtime.executors import EXECUTORS

    listing("Executors", {name: what for name, (_, _, what) in EXECUTORS.items()})


@click.command()
def neurons() -> None:
    """List the neurons that can be trained."""
    from unscan.trainer import neurons as kinds

    listing("Neurons", {name: first_line(getattr(kinds, name)) for name in kinds.__all__})


@click.command()
def tasks() -> None:
    """List the tasks to train on."""
    from unscan.trainer.tasks import TASKS

    listing("Tasks", {name: first_line(loader()) for name, loader in TASKS.items()})


def told(table: Table) -> str:
    """Return the numbers of an energy table."""
    neuron = f", update of a neuron {table.neuron}" if table.neuron else ""
    return f"add {table.add}, multiply {table.multiply}, memory access {table.memory}{neuron}"


@click.command()
def energies() -> None:
    """List the energy tables."""
    from unscan.runtime.energy import TABLES
    from unscan.show import console

    listing("Energy tables, in pJ", {name: told(table) for name, table in TABLES.items()})
    origins: dict[str, list[str]] = {}
    for name, table in TABLES.items():
        origins.setdefault(f"{table.source}. {table.note}", []).append(name)
    for origin, names in origins.items():
        console.print(f"\n{', '.join(names)}: {origin}", highlight=False)


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("name", required=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(name: str | None, arguments: tuple[str, ...]) -> None:
    """Measure a comparison with named peers; without NAME list them. Each tells its options with --help."""
    from importlib import import_module

    from unscan.benchmarks import BENCHMARKS
    from unscan.compiler.errors import InvalidInput

    if name is None or name.startswith("-"):
        listing("Benchmarks: unscan bench NAME [--quick] [--json FILE]", BENCHMARKS)
        return
    if name not in BENCHMARKS:
        raise InvalidInput(f"There is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}.")
    called, sys.argv[0] = sys.argv[0], f"unscan bench {name}"  # what argparse calls the program
    try:
        import_module(f"unscan.benchmarks.{name}").main(list(arguments))
    finally:
        sys.argv[0] = called
