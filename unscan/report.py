"""The command that writes a report."""

from __future__ import annotations

import csv
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiling import takes_input, typed
from unscan.train import FILE, WRITTEN, json_option

if TYPE_CHECKING:
    from unscan.compiler.ir import Graph
    from unscan.runtime.energy import Choice
    from unscan.runtime.report.evidence import Evidence
    from unscan.runtime.report.trained import Trained

SAMPLES = 32
"""What is run by default."""


@click.command()
@click.argument("source", type=FILE)
@click.option(
    "--deployed",
    "paths",
    type=FILE,
    multiple=True,
    help="A graph compiled from SOURCE, any number of times; by default SOURCE compiled as it was trained.",
)
@click.option(
    "-o",
    "--output",
    type=WRITTEN,
    default=Path("report.html"),
    show_default=True,
    help="The HTML file to write.",
)
@click.option("--against", help="Executors, separated by commas; by default those that can run.")
@click.option(
    "--trace",
    "traces",
    multiple=True,
    help="A neuron whose membrane is drawn: NODE:NEURON; any number of times.",
)
@click.option(
    "--energy",
    "energy",
    default=None,
    help="Energy table: a name, `unscan energies` lists them, or a YAML file; by default that of each graph's numbers.",
)
@takes_input
@json_option
def report(
    source: Path,
    paths: tuple[Path, ...],
    output: Path,
    against: str | None,
    traces: tuple[str, ...],
    energy: str | None,
    inputs: Path | None,
    event_dt: float | None,
    event: tuple[str, ...],
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    json_path: Path | None,
) -> None:
    """Write one HTML file on what was trained, deployed, measured.

    SOURCE is a run's folder, or a graph's file (.unscan or .nir). It needs no network to be read, and no JavaScript.
    """
    from unscan.compiler.storage import writing
    from unscan.runtime.energy import table_for
    from unscan.runtime.report.evidence import AGAINST, gather, within
    from unscan.runtime.report.page import report as write
    from unscan.runtime.report.traces import named
    from unscan.show import console, progress, write_json
    from unscan.sources import read_run, read_samples

    run = read_run(source) if source.is_dir() else None
    traced, graphs = read_graphs(source, paths)
    tables = {name: table_for(graph, energy) for name, graph in graphs.items()}
    for asked in traces:
        named(asked, list(graphs.values()))
    data = read_samples(
        next(iter(graphs.values())),
        inputs=inputs,
        event_dt=event_dt,
        event=event,
        labels=labels,
        data_dir=data_dir,
        limit=samples or SAMPLES,
    )
    executors = AGAINST if against is None else [name.strip() for name in against.split(",")]
    found: list[Evidence] = []
    with progress("report") as bar:
        for name, graph in graphs.items():
            found.append(
                gather(
                    name,
                    graph,
                    data.x,
                    executors,
                    model=run.model if run else traced,
                    traced=traced,
                    labels=data.labels,
                    progress=within(bar, len(found) / len(graphs), 1 / len(graphs)),
                )
            )
    text = write(
        f"{source.resolve().name}: {'trained and deployed' if run else 'deployed'}",
        found,
        on=data.description,
        trained=read_trained(source) if run else None,
        energy=energy,
        traces=traces,
        commands=list(
            commands(source, dict(zip(paths, graphs.values(), strict=False)), of_run=run is not None)
        ),
    )
    with writing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    console.print(f"{', '.join(graphs)}; executions {', '.join(found[0].runs)}", highlight=False)
    console.print(f"On {data.description}", highlight=False)
    console.print(f"Written: {output}, {len(text.encode()) / 1024:.0f} kB", highlight=False)
    write_json(
        json_path,
        {
            "source": str(source),
            "data": data.description,
            "deployed": [figures(each, tables[each.name]) for each in found],
        },
    )


def read_graphs(source: Path, paths: Sequence[Path]) -> tuple[Graph | None, dict[str, Graph]]:
    """Return the graph as trained, None where there is none, and those that are reported on, by name.

    Raises:
        InvalidInput: one was not compiled, or they take other inputs than each other.
    """
    import unscan
    from unscan.compiler.ir import Dialect
    from unscan.compiler.nodes import Input
    from unscan.sources import read_graph

    first = read_graph(source)
    if not paths:
        parallel = any(node.dialect is Dialect.PARALLEL for node in first.nodes.values())
        if source.is_dir() or parallel:
            return first, {f"{source.resolve().name}, compiled as it was trained": unscan.compile(first)}
        return None, {source.name: first}
    names = [path.name for path in paths]
    named = {path.name if names.count(path.name) == 1 else str(path): path for path in paths}
    found = {name: read_graph(path) for name, path in named.items()}
    for name, graph in found.items():
        if any(node.dialect is Dialect.PARALLEL for node in graph.nodes.values()):
            raise InvalidInput(
                f"{name} is a model as it was trained, in parallel form, and --deployed wants one that was compiled: "
                f"unscan compile {named[name]} -o model.unscan."
            )
        got, wanted = (each.signals[each.of(Input)[0]] for each in (graph, first))
        if got.shape != wanted.shape:
            raise InvalidInput(
                f"{name} takes {got} and {source} takes {wanted}; a report compares graphs on the same samples, so "
                "name graphs that were compiled from SOURCE."
            )
        tasks = [each.meta.get("task") for each in (graph, first)]
        if None not in tasks and tasks[0] != tasks[1]:
            raise InvalidInput(
                f"{name} is of a model of the task {tasks[0]} and {source} of {tasks[1]}; name graphs that were "
                "compiled from SOURCE."
            )
    return first, found


def read_trained(folder: Path) -> Trained:
    """Return what the folder of a run tells. Raises DamagedFile where its figures cannot be read."""
    from unscan.runtime.report.trained import Trained
    from unscan.trainer.run import FitResult, RunFiles, read_recipe

    files = RunFiles(folder)
    recipe = read_recipe(files).model_dump(mode="json")
    rows: list[dict[str, str]] = []
    if files.metrics.is_file():
        with files.metrics.open(encoding="utf-8", newline="") as table:
            rows = list(csv.DictReader(table))
    try:
        for row in rows:
            _ = [float(value) for value in row.values() if value]
    except (TypeError, ValueError) as fault:
        raise DamagedFile(f"{files.metrics} does not hold figures ({fault}); train again.") from None
    text = files.recipe.read_text(encoding="utf-8")
    made = Trained(folder.resolve().name, recipe, text, rows)
    if not files.result.is_file():
        return made
    result = FitResult.read(folder)
    return replace(
        made,
        task=result.task,
        metrics=result.metrics,
        rates=result.spike_rates,
        parameters=result.parameters,
        seconds=result.seconds,
    )


def commands(source: Path, graphs: Mapping[Path, Graph], *, of_run: bool) -> Iterator[str]:
    """Yield what makes the run, the graphs and this report again, as it is typed."""
    if of_run:
        yield shlex.join(["unscan", "train", str(source / "recipe.yaml"), "--out", f"{source}-again"])
    for path, graph in graphs.items():
        told = graph.meta.get("command")
        yield told or shlex.join(["unscan", "inspect", str(path)]) + "  # tells the passes that made it"
    for path in graphs:
        yield shlex.join(["unscan", "verify", str(source), str(path)])
    yield shlex.join(["unscan", "report", *typed(click.get_current_context())])


def figures(evidence: Evidence, chosen: Choice) -> dict[str, Any]:
    """Return what was measured of one deployed graph as JSON, and its energy as it is modelled."""
    from unscan.runtime.energy import Energy, break_even

    modelled: dict[str, Any] = {"energy": None, "break_even": None}
    if evidence.counts is not None:
        nodes, whole = break_even(evidence.counts, chosen.table)
        rates = {name: each.to_json() for name, each in [*nodes.items(), ("in all", whole)]}
        energy = Energy.of(evidence.counts, chosen.table)
        modelled = {"energy": {**energy.to_json(), "why": chosen.why}, "break_even": rates}
    return {
        "name": evidence.name,
        "graph": evidence.graph.digest,
        "samples": evidence.samples,
        "steps": evidence.steps,
        "executions": evidence.runs,
        "did_not_run": dict(evidence.missing),
        "right": dict(evidence.right),
        "decided_as_the_first": dict(evidence.alike),
        "rates": {
            run: {name: evidence.rate(run, name) for name in layers} for run, layers in evidence.fired.items()
        },
        "pairs": [
            {"a": a, "b": b, "agreement": agreement.to_json()} for (a, b), agreement in evidence.pairs.items()
        ],
        "counts": evidence.counts and evidence.counts.to_json(),
        **modelled,
        "rounding": evidence.rounding and evidence.rounding.to_json(),
    }
