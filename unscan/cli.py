"""The command line: thin commands over the library; heavy imports happen inside them.

Exit codes: 0 done and within bounds; 1 done, and a bound is broken; 2 the user's input is wrong; 130 interrupted;
143 ended by SIGTERM.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from unscan.compare import bisect, compare
from unscan.compiler.errors import InvalidInput, UnscanError
from unscan.compiling import arguments_of, compile_, inspect, takes_input, takes_module
from unscan.exporting import check, export
from unscan.lava import lava
from unscan.lists import bench, doctor, energies, executors, neurons, passes, targets, tasks
from unscan.report import report
from unscan.sweep import sweep
from unscan.terminated import Terminated, terminable
from unscan.train import FILE, WRITTEN, json_option, train, train_sdn


class Main(click.Group):
    """Turns the project's own errors into one paragraph and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            with terminable():
                return super().invoke(ctx)
        except UnscanError as fault:
            click.echo(f"unscan: {fault}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("unscan: interrupted; what was finished is kept.", err=True)
            ctx.exit(130)
        except Terminated:
            click.echo("unscan: ended by SIGTERM; what was finished is kept.", err=True)
            raise


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="unscan")
def main() -> None:
    """Train spiking models with scans, deploy them step by step, and prove that they fire the same spikes."""


@main.command()
@click.option(
    "--out", type=FILE, default=Path("unscan-demo"), show_default=True, help="Folder for everything it makes."
)
def demo(out: Path) -> None:
    """Train on digits, compile, export, simulate event by event, and verify every form, in one go."""
    from unscan.demo import demo

    if not demo(out):
        sys.exit(1)


@main.command()
@click.argument("source", type=FILE)
@click.option(
    "--executor", "using", default="event", show_default=True, help="`unscan executors` lists them."
)
@click.option(
    "--energy",
    "energy_name",
    default=None,
    help="Energy table: a name, `unscan energies` lists them, or a YAML file; by default that of the graph's numbers.",
)
@click.option(
    "--decision",
    type=click.Choice(["last", "mean"]),
    help="How outputs become a class; by default as the model says.",
)
@click.option(
    "--output", type=WRITTEN, help="Also write outputs, spikes, membranes and final state to this .npz file."
)
@takes_input
@json_option
def simulate(
    source: Path,
    using: str,
    energy_name: str | None,
    decision: str | None,
    output: Path | None,
    inputs: Path | None,
    event_dt: float | None,
    event: tuple[str, ...],
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    json_path: Path | None,
) -> None:
    """Run a compiled graph on data: accuracy, spikes, operations, energy."""
    import numpy as np

    from unscan.compiler.storage import writing
    from unscan.runtime.decision import accuracy
    from unscan.runtime.energy import Energy, break_even, table_for
    from unscan.runtime.simulate import simulate
    from unscan.show import (
        break_even_table,
        console,
        counts_table,
        energy_table,
        neurons_line,
        progress,
        saturated,
        saturation_lines,
        show,
        traffic_table,
        write_json,
    )
    from unscan.sources import read_graph, read_samples

    if output is not None and output.suffix != ".npz":
        raise InvalidInput(
            f"Got the output {output}; give it the suffix .npz, by which `unscan compare` knows it."
        )
    graph = read_graph(source)
    chosen = table_for(graph, energy_name)
    decided = decision or graph.meta.get("decision")
    if labels is not None and decided is None:
        raise InvalidInput(
            f"Got --labels, and {source} does not say how its outputs become a class; say it with --decision "
            "last or mean."
        )
    data = read_samples(
        graph, inputs=inputs, event_dt=event_dt, event=event, labels=labels, data_dir=data_dir, limit=samples
    )
    with progress(f"simulate, {using}") as bar:
        run = simulate(
            graph, data.x, using=using, record=output is not None, progress=lambda share: bar(using, share)
        )
    count = data.x.shape[1]
    console.print(f"{source} on {data.description}, executor {using}; {neurons_line(graph)}")
    document: dict[str, Any] = {
        "source": str(source),
        "data": data.description,
        "executor": using,
        "samples": count,
    }
    if data.labels is not None and decided is not None:
        right = accuracy(run.outputs, data.labels, decided)
        console.print(f"Accuracy {right:.2%} ({round(right * count)} of {count}), by the {decided} output")
        document["accuracy"] = right
    elif data.labels is not None:
        console.print(
            "No accuracy: the model does not say how its outputs become a class, and neither does --decision."
        )
    if run.counts is None:
        console.print("This executor counts no operations; the event executor does.")
    else:
        energy = Energy.of(run.counts, chosen.table)
        samples_said = "1 sample" if count == 1 else f"{count} samples"
        show(counts_table(run.counts, f"Operations over {samples_said} of {data.x.shape[0]} steps"))
        show(traffic_table(run.counts, "What travels and what is fetched"))
        show(energy_table(energy, count))
        show(break_even_table(run.counts, chosen.table))
        console.print(str(chosen), highlight=False)
        each, whole = break_even(run.counts, chosen.table)
        rates = {name: found.to_json() for name, found in each.items()} | {"in all": whole.to_json()}
        document |= {
            "counts": run.counts.to_json(samples=True),
            "energy": {**energy.to_json(), "why": chosen.why},
            "break_even": rates,
        }
        if graph.integer:
            lost = saturated(run.counts)
            document["saturated"] = lost
            for line in saturation_lines(lost) or ["Every number fitted in its bits."]:
                console.print(line, highlight=False)
    if output is not None:
        arrays = {"outputs": run.outputs, **{f"spikes/{k}": v for k, v in run.spikes.items()}}
        arrays |= {f"membranes/{k}": v for k, v in run.membranes.items()}
        with progress(f"write {output}"), writing(output) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays, **{f"state/{k}": v for k, v in run.state.items()})  # type: ignore[arg-type]
        console.print(f"Written: {output}")
    write_json(json_path, document)


@main.command()
@click.argument("model", type=FILE)
@click.argument("deployed", type=FILE)
@click.option("--against", default=None, help="Executors, separated by commas; by default all.")
@click.option("--precision", type=click.Choice(["64", "32", "both"]), default="both", show_default=True)
@click.option(
    "--max-gap",
    type=click.FloatRange(min=0),
    help="Exit with 1 where whole numbers decide worse than MODEL by more points of accuracy; by default they are only "
    "reported.",
)
@takes_module
@takes_input
@json_option
def verify(
    model: Path,
    deployed: Path,
    against: str | None,
    precision: str,
    max_gap: float | None,
    weights: Path | None,
    arguments: tuple[str, ...],
    inputs: Path | None,
    event_dt: float | None,
    event: tuple[str, ...],
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    json_path: Path | None,
) -> None:
    """Compare the spikes of the trained MODEL with those of the DEPLOYED graph.

    MODEL is a run's folder, a graph's file, or FILE.py:NAME, a torch module's class in a Python file, which is run.
    Both run at 64 bits and as they are shipped. A sample may part where float32 rounding explains how far apart
    two membranes at a threshold are; such ties are listed. Any other difference, or a silent layer, gives exit
    code 1; then each parallel layer of the model is held against its own recurrence, and the first that leaves it is
    named.

    A DEPLOYED graph of whole numbers is another model: every executor has to equal the reference bit for bit, and what
    rounding cost against MODEL is shown beside.
    """
    from unscan.runtime.verify import AGAINST, PRECISIONS
    from unscan.runtime.verify import verify as run
    from unscan.show import (
        changes,
        console,
        neurons_line,
        progress,
        show,
        write_json,
    )
    from unscan.show_verification import (
        explain,
        layers_table,
        localisation_lines,
        rounding_lines,
        rounding_table,
        verdict,
        verify_table,
    )
    from unscan.sources import read_graph, read_model, read_samples

    in_file = model.suffix in (".unscan", ".nir")
    trained = (
        read_graph(model)
        if in_file
        else read_model(model, weights=weights, arguments=arguments_of(arguments))
    )
    graph = read_graph(deployed)
    if max_gap is not None and not graph.integer:
        raise InvalidInput(
            f"--max-gap bounds what whole numbers cost, and {deployed} computes with real ones; compile it with "
            "--quantize, or leave the option."
        )
    data = read_samples(
        graph, inputs=inputs, event_dt=event_dt, event=event, labels=labels, data_dir=data_dir, limit=samples
    )
    with progress("verify") as bar:
        found = run(
            trained,
            graph,
            data.x,
            AGAINST if against is None else [name.strip() for name in against.split(",")],
            labels=data.labels,
            precisions=PRECISIONS if precision == "both" else [int(precision)],
            progress=bar,
        )
    show(verify_table(found, f"{model} and {deployed} on {data.description}"))
    console.print(f"Deployed: {neurons_line(graph)}")
    show(layers_table(found.comparisons[0], f"By layer, {found.comparisons[0].executor}"))
    changed = [] if found.holds else changes(graph)
    for line in [*explain(found), *localisation_lines(found), *changed]:
        console.print(line, highlight=False)
    write_json(
        json_path,
        {"model": str(model), "deployed": str(deployed), "data": data.description} | found.to_json(),
    )
    if found.rounding is not None:
        show(rounding_table(found.rounding))
        for line in rounding_lines(found.rounding):
            console.print(line, highlight=False)
    console.print(f"[bold]{verdict(found)}[/bold]")
    if not found.holds:
        sys.exit(1)
    if max_gap is not None and found.rounding is not None:
        gap = found.rounding.gap
        if gap is None:
            raise InvalidInput(
                "--max-gap needs labels and a decision over time, and there are none; give --labels, or leave it out."
            )
        if -100 * gap > max_gap:
            console.print(f"[bold]Whole numbers cost {-100 * gap:.2f} points, more than {max_gap:g}.[/bold]")
            sys.exit(1)


for command in (
    compile_, inspect, check, export, compare, bisect, report, sweep, lava, train, train_sdn, bench, doctor, passes,
    targets, executors, neurons, tasks, energies,
):  # fmt: skip
    main.add_command(command)
