"""The command line: thin commands over the library; heavy imports happen inside them.

Exit codes: 0 done and within bounds; 1 done, and a bound is broken; 2 the user's input is wrong; 130 interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from unscan.compiler.errors import InvalidInput, UnscanError
from unscan.lists import bench, doctor, energies, executors, neurons, passes, targets, tasks
from unscan.train import FILE, data_option, json_option, train, train_sdn

RESET = click.Choice(["none", "subtract", "zero"])
PHASE = click.Choice(["now", "next"])


class Main(click.Group):
    """Turns the project's own errors into one paragraph and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except UnscanError as fault:
            click.echo(f"unscan: {fault}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("unscan: interrupted; what was finished is kept.", err=True)
            ctx.exit(130)


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="unscan")
def main() -> None:
    """Train spiking models with scans, deploy them step by step, and prove that they fire the same spikes."""


input_options = [
    click.option(
        "--input", "inputs", type=FILE, help="A .npy array (T, B, ...) instead of the task's test data."
    ),
    click.option("--labels", type=FILE, help="A .npy array (B,) of classes that belong to --input."),
    click.option("--samples", type=click.IntRange(min=1), help="Use only the first N samples."),
    data_option,
]


def takes_input(command: Any) -> Any:
    """Add the options that say what a graph is run on."""
    for option in reversed(input_options):
        command = option(command)
    return command


@main.command()
@click.option(
    "--out", type=FILE, default=Path("unscan-demo"), show_default=True, help="Folder for everything it makes."
)
def demo(out: Path) -> None:
    """Train on digits, compile, export, simulate event by event, and verify every form, in one go."""
    from unscan.demo import demo

    if not demo(out):
        sys.exit(1)


@main.command("compile")
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The .unscan file to write.")
@click.option("--reset", type=RESET, help="Deploy with this reset; by default the one it was trained with.")
@click.option("--phase", type=PHASE, help="When the reset acts: at once, or at the next step. Needs --reset.")
@click.option("--threshold", type=float, help="Fold every threshold into the weights, to become this number.")
@click.option("--check", "judged", is_flag=True, help="Measure on samples what each pass changes.")
@click.option("--dt", type=float, help="Seconds per step of a NIR file that does not say.")
@takes_input
def compile_(
    source: Path,
    output: Path,
    reset: Any,
    phase: Any,
    threshold: float | None,
    judged: bool,
    dt: float | None,
    inputs: Path | None,
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
) -> None:
    """Compile a trained run, or a .nir or .unscan file, into the graph that is deployed."""
    from unscan.compiler.pipeline import compile_graph
    from unscan.show import console, graph_table, show
    from unscan.sources import read_graph, read_samples

    if phase and not reset:
        raise InvalidInput("--phase says when a reset acts; name the reset, too, with --reset.")
    if output.suffix != ".unscan":
        raise InvalidInput(
            f"Got the output {output}; give it the suffix .unscan (other formats: unscan export)."
        )
    graph = read_graph(source, dt=dt)
    judge = None
    if judged:
        from unscan.runtime.judge import judge as judging

        judge = judging(
            read_samples(graph, inputs=inputs, labels=labels, data_dir=data_dir, limit=samples or 32).x
        )
    compiled = compile_graph(graph, reset=reset, phase=phase, threshold=threshold, judge=judge)
    compiled.save(output)
    show(graph_table(compiled, f"{output}, compiled from {source}"))
    for line in compiled.history:
        console.print(f"  {line}", highlight=False)


@main.command()
@click.argument("source", type=FILE)
@click.option("--svg", type=FILE, help="Also draw the graph into this file.")
@click.option("--dt", type=float, help="Seconds per step of a NIR file that does not say.")
@json_option
def inspect(source: Path, svg: Path | None, dt: float | None, json_path: Path | None) -> None:
    """Show what a run, .unscan or .nir file holds: nodes, signals, neurons, history."""
    from unscan.show import console, graph_table, neurons_line, show, states_line, write_json
    from unscan.sources import read_graph

    graph = read_graph(source, dt=dt)
    show(graph_table(graph, str(source)))
    console.print(
        f"{neurons_line(graph)}; {states_line(graph)}; numbers are {graph.dtype}; digest {graph.digest[:12]}"
    )
    for key in ("task", "decision"):
        if key in graph.meta:
            console.print(f"  {key}: {graph.meta[key]}", highlight=False)
    for line in graph.history:
        console.print(f"  {line}", highlight=False)
    if svg:
        from unscan.compiler.storage import writing
        from unscan.runtime.report.drawing import draw

        with writing(svg) as temporary:
            temporary.write_text(draw(graph), encoding="utf-8")
        console.print(f"Drawn: {svg}")
    write_json(
        json_path,
        {
            "digest": graph.digest,
            "nodes": {
                name: {
                    "operator": type(node).__name__,
                    "fed_by": [edge.source for edge in graph.into(name)],
                    "sends": graph.signals[name].kind,
                    "shape": graph.signals[name].shape,
                    "settings": node.settings(),
                    "arrays": {field: list(value.shape) for field, value in node.arrays()},
                }
                for name, node in ((name, graph.nodes[name]) for name in graph.order)
            },
            "meta": dict(graph.meta),
            "history": graph.history,
        },
    )


@main.command()
@click.argument("source", type=FILE)
@click.option("--target", required=True, help="A target; `unscan targets` lists them.")
@click.option("--dt", type=float, help="Seconds per step of a NIR file that does not say.")
@json_option
def check(source: Path, target: str, dt: float | None, json_path: Path | None) -> None:
    """Say of each node, in data-flow order, whether a target can carry it, and why not."""
    from unscan.show import console, show, table, write_json
    from unscan.sources import read_graph
    from unscan.targets import find

    aim = find(target)
    graph = read_graph(source, dt=dt)
    refused = aim.refusals(graph)
    made = table(f"{source} on {target}", "node", "operator", "deployable", "why not, and what helps")
    for name in graph.order:
        made.add_row(
            name, type(graph.nodes[name]).__name__, "no" if name in refused else "yes", refused.get(name, "")
        )
    show(made)
    write_json(
        json_path, {"target": target, "deployable": not refused, "refused": refused, "nodes": graph.order}
    )
    if refused:
        console.print(f"{len(refused)} of {len(graph.order)} nodes cannot be deployed on {target}.")
        sys.exit(1)


@main.command()
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The file to write.")
@click.option("--target", help="A target; by default the one of the output's suffix.")
@click.option(
    "--form", type=click.Choice(["step", "scan"]), help="ONNX only: one step, or a Scan over the sequence."
)
def export(source: Path, output: Path, target: str | None, form: str | None) -> None:
    """Write a compiled graph as a target's file."""
    from unscan.show import console
    from unscan.sources import read_graph
    from unscan.targets import TARGETS, find

    if target is None:
        target = next((name for name in TARGETS if find(name).suffix == output.suffix), None)
        if target is None:
            known = ", ".join(f"{find(name).suffix} ({name})" for name in TARGETS)
            raise InvalidInput(
                f"No target has the suffix of {output}; the suffixes are {known}. Or name one: --target."
            )
    if form is not None and target != "onnx":
        raise InvalidInput(f"--form is for the target onnx, and the target is {target}; leave it out.")
    options = {} if form is None else {"form": form}
    find(target).emit(read_graph(source), output, **options)
    console.print(
        f"Written: {output} ({target}{f', {form}' if form else ''}, {output.stat().st_size:,} bytes)"
    )


@main.command()
@click.argument("source", type=FILE)
@click.option(
    "--executor", "using", default="event", show_default=True, help="`unscan executors` lists them."
)
@click.option("--energy", "energy_name", default=None, help="Energy table; `unscan energies` lists them.")
@click.option("--output", type=FILE, help="Also write outputs, spikes and final state to this .npz file.")
@takes_input
@json_option
def simulate(
    source: Path,
    using: str,
    energy_name: str | None,
    output: Path | None,
    inputs: Path | None,
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    json_path: Path | None,
) -> None:
    """Run a compiled graph on data: accuracy, spikes, operations, energy."""
    import numpy as np

    from unscan.compiler.storage import writing
    from unscan.runtime.decision import accuracy
    from unscan.runtime.energy import DEFAULT, Energy, find
    from unscan.runtime.simulate import simulate
    from unscan.show import console, counts_table, energy_table, neurons_line, progress, show, write_json
    from unscan.sources import read_graph, read_samples

    energies = find(energy_name or DEFAULT)
    graph = read_graph(source)
    data = read_samples(graph, inputs=inputs, labels=labels, data_dir=data_dir, limit=samples)
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
    if data.labels is not None and "decision" in graph.meta:
        right = accuracy(run.outputs, data.labels, graph.meta["decision"])
        console.print(
            f"Accuracy {right:.2%} ({round(right * count)} of {count}), by the {graph.meta['decision']} output"
        )
        document["accuracy"] = right
    if run.counts is None:
        console.print("This executor counts no operations; the event executor does.")
    else:
        energy = Energy.of(run.counts, energies.name)
        show(counts_table(run.counts, f"Operations over {count} samples of {data.x.shape[0]} steps"))
        show(energy_table(energy, count))
        document |= {"counts": run.counts.to_json(), "energy": energy.to_json()}
    if output is not None:
        arrays = {"outputs": run.outputs, **{f"spikes/{k}": v for k, v in run.spikes.items()}}
        with writing(output) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **arrays, **{f"state/{k}": v for k, v in run.state.items()})  # type: ignore[arg-type]
        console.print(f"Written: {output}")
    write_json(json_path, document)


@main.command()
@click.argument("model", type=FILE)
@click.argument("deployed", type=FILE)
@click.option("--against", default=None, help="Executors, separated by commas; by default all.")
@click.option("--precision", type=click.Choice(["64", "32", "both"]), default="both", show_default=True)
@takes_input
@json_option
def verify(
    model: Path,
    deployed: Path,
    against: str | None,
    precision: str,
    inputs: Path | None,
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    json_path: Path | None,
) -> None:
    """Compare the spikes of the trained MODEL (a run's folder) with those of the DEPLOYED graph.

    Both run at 64 bits and as they are shipped. A sample may part where float32 rounding explains how far apart
    two membranes at a threshold are; such ties are listed. Any other difference, or a silent layer, gives exit
    code 1.
    """
    from unscan.runtime.verify import AGAINST, PRECISIONS
    from unscan.runtime.verify import verify as run
    from unscan.show import (
        console,
        explain,
        layers_table,
        neurons_line,
        progress,
        show,
        verify_table,
        write_json,
    )
    from unscan.sources import read_graph, read_run, read_samples

    trained = read_run(model).model if model.is_dir() else read_graph(model)
    graph = read_graph(deployed)
    data = read_samples(graph, inputs=inputs, labels=labels, data_dir=data_dir, limit=samples)
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
    for line in explain(found):
        console.print(line, highlight=False)
    write_json(
        json_path,
        {"model": str(model), "deployed": str(deployed), "data": data.description} | found.to_json(),
    )
    if not found.holds:
        console.print("[bold]The deployed graph does not fire the spikes of the trained model.[/bold]")
        sys.exit(1)
    console.print("[bold]The deployed graph fires the spikes of the trained model.[/bold]")


for command in (train, train_sdn, bench, doctor, passes, targets, executors, neurons, tasks, energies):
    main.add_command(command)
