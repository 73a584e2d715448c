"""The commands that hold executions against each other: any two, or the stages of a compilation."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unscan.compiler.errors import InvalidInput
from unscan.compiling import SAMPLES, compile_, ending, given, takes_input, takes_source
from unscan.train import FILE, json_option

if TYPE_CHECKING:
    from rich.table import Table

    from unscan.compiler.ir import Array, Graph
    from unscan.runtime.agreement_replay import Side
    from unscan.runtime.agreement_runs import Compared
    from unscan.runtime.bisect import Bisection
    from unscan.runtime.executors.base import Execution

NOT_OF_BISECT = ("output", "judged", "timed", "printed")
"""The parameters of `unscan compile` that say what it writes and shows."""


@click.command()
@click.argument("a", type=FILE)
@click.argument("b", type=FILE)
@click.option(
    "--executors",
    default="reference",
    show_default=True,
    help="The executor of both, or those of A and B: reference,event.",
)
@click.option("--graph", "ran", type=FILE, help="The .unscan file that .npz files were made by.")
@click.option("--decision", type=click.Choice(["last", "mean"]), help="How outputs become a class.")
@click.option(
    "--tau",
    type=click.FloatRange(min=0, min_open=True),
    help="Steps: the time constant of the van Rossum distance; by default 10.",
)
@click.option(
    "--events", type=click.IntRange(min=1), help="How many events to list of each neuron; by default 5."
)
@takes_source
@takes_input
@json_option
def compare(
    a: Path,
    b: Path,
    executors: str,
    ran: Path | None,
    decision: str | None,
    tau: float | None,
    events: int | None,
    inputs: Path | None,
    event_dt: float | None,
    event: tuple[str, ...],
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    json_path: Path | None,
    **options: Any,
) -> None:
    """Compare two executions on the same input, spike by spike, and explain where they part.

    A and B are models as in `unscan compile`, which are run, or .npz files that `unscan simulate --output` wrote.
    Layers are compared by name. Exit code 1 where spikes or outputs differ by more than rounding explains, a layer is
    silent, or only one side has it.
    """
    from unscan.runtime.agreement_account import EVENTS
    from unscan.runtime.agreement_runs import compare_graphs, compare_sides, decision_of, read_execution
    from unscan.runtime.distances import TAU
    from unscan.show import console, progress, show, write_json
    from unscan.sources import read_array, read_graph, read_samples

    using = _pair([name.strip() for name in executors.split(",")])
    asked = given(options)
    held = [path for path in (a, b) if ending(path) != ".npz"]
    graphs: dict[Path, Graph] = {
        path: read_graph(path, **(asked if ending(path) == ending(held[0]) else {})) for path in held
    }
    recorded = {path: read_execution(path) for path in (a, b) if path not in graphs}
    written = None if ran is None else read_graph(ran)
    if not held and asked:
        raise InvalidInput(
            f"Got options that say how a model is read, {', '.join(asked)}, and two .npz files."
        )
    if written is not None and len(held) == 2:
        raise InvalidInput(
            f"--graph says what made .npz files, and neither {a} nor {b} is one; leave it out."
        )
    known = [*graphs.values(), *([] if written is None else [written])]
    x, y, described = None, None, "what the files hold"
    if graphs or inputs is not None or (written is not None and "task" in written.meta):
        if not known:
            raise InvalidInput(
                "Got --input for two .npz files; name the graph that made them, too, with --graph."
            )
        found = read_samples(
            known[-1],
            inputs=inputs,
            event_dt=event_dt,
            event=event,
            labels=labels,
            data_dir=data_dir,
            limit=samples or min((run.outputs.shape[1] for run in recorded.values()), default=None),
        )
        decided = decision or decision_of(*known)
        x, y, described = found.x, found.labels if decided or labels else None, found.description
    elif labels is not None:
        y = read_array(labels)
    how: dict[str, Any] = {"labels": y, "decision": decision, "tau": tau or TAU}
    names = _pair(
        [f"{path}, {name}" if path in graphs else str(path) for path, name in zip((a, b), using, strict=True)]
    )
    if len(held) == 2 and x is not None:
        with progress("compare") as bar:
            compared = compare_graphs(
                graphs[a],
                graphs[b],
                x,
                using=using,
                names=names,
                progress=lambda share: bar("compare", share),
                **how,
            )
    else:
        sides = [
            _side(recorded.get(path), graphs.get(path), written, x, name, executor_)
            for path, name, executor_ in zip((a, b), names, using, strict=True)
        ]
        compared = compare_sides(*sides, **how)
    console.print(f"A: {names[0]}\nB: {names[1]}\nOn {described}", highlight=False)
    show(agreement_table(compared, "Spikes and membranes, by layer"))
    show(distances_table(compared, f"Distances between spike trains, tau {compared.distances.tau:g} steps"))
    for line in summary(compared):
        console.print(line, highlight=False)
    explained = compared.explained(most=events or EVENTS)
    if explained is not None:
        click.echo("\n" + "\n".join(explained.lines()))
    elif compared.parted is not None:
        console.print("What led there is not known without the graphs; name them with --graph.")
    write_json(json_path, {"a": names[0], "b": names[1], "data": described} | compared.to_json())
    if not compared.same:
        sys.exit(1)


@click.command()
@click.option("--executor", "using", default="reference", show_default=True, help="What runs the stages.")
@json_option
def bisect(
    source: Path,
    using: str,
    calibrate: bool,
    quantize: str | None,
    top_k: tuple[str, ...],
    passes: str | None,
    inputs: Path | None,
    event_dt: float | None,
    event: tuple[str, ...],
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    json_path: Path | None,
    **options: Any,
) -> None:
    """Say which pass of a compilation changes spikes or outputs.

    SOURCE and options as in `unscan compile`. The graph that each pass makes is run on samples and held against the one
    before it; the first mismatch of each pass that changed something is explained. Some make another model on purpose,
    and are said to; exit code 1 where any other changes something.
    """
    from unscan.runtime.agreement_runs import decision_of
    from unscan.runtime.bisect import bisect as run
    from unscan.runtime.judge import rates
    from unscan.show import console, progress, show, write_json
    from unscan.sources import read_graph, read_samples

    of_passes = {
        name: options.pop(name)
        for name in ("reset", "phase", "memory_reset", "scalar_decay", "threshold", "soft_reset")
        if name in options
    }
    if of_passes.get("soft_reset") is None:
        of_passes.pop("soft_reset", None)
    graph = read_graph(source, **given(options))
    found = read_samples(
        graph,
        inputs=inputs,
        event_dt=event_dt,
        event=event,
        labels=labels,
        data_dir=data_dir,
        limit=samples or SAMPLES,
        training=True,
    )
    with progress("bisect") as bar:
        bisected = run(
            graph,
            found.x,
            using=using,
            labels=found.labels if labels or decision_of(graph) else None,
            progress=lambda share: bar("bisect", share),
            **of_passes,
            top_k=top_k or None,
            calibrate=rates(found.x, bar) if calibrate else None,
            quantize=quantize,
            passes=None if passes is None else [name.strip() for name in passes.split(",")],
        )
    if bisected.steps:
        show(passes_table(bisected, f"{source}, pass by pass, on {found.description}"))
    if bisected.idle:
        console.print(f"They left the graph as it was: {', '.join(bisected.idle)}.", highlight=False)
    for step in bisected.changed:
        explained = step.found.explained()
        said = "on purpose" if step.on_purpose else "and is not to"
        click.echo(f"\n{step.name} changes what the model does, {said}.")
        click.echo(
            "\n".join(explained.lines() if explained else ["Spikes are the same, and outputs are not."])
        )
    console.print(f"\n[bold]{verdict(bisected)}[/bold]", highlight=False)
    write_json(json_path, {"source": str(source), "data": found.description} | bisected.to_json())
    if bisected.faults:
        sys.exit(1)


bisect.params[:0] = [parameter for parameter in compile_.params if parameter.name not in NOT_OF_BISECT]


def _pair(names: Iterable[str]) -> tuple[str, str]:
    """Return one name for each side."""
    held = list(names)
    if len(held) not in (1, 2):
        raise InvalidInput(
            f"Got the executors {', '.join(held)}; name one for both sides, or two: reference,event."
        )
    return held[0], held[-1]


def _side(
    recorded: Execution | None,
    graph: Graph | None,
    written: Graph | None,
    x: Array | None,
    name: str,
    using: str,
) -> Side:
    """Return a side: of a graph that is run here, or of a file."""
    from unscan.runtime.agreement_replay import Side
    from unscan.runtime.agreement_runs import is_exact
    from unscan.runtime.simulate import simulate

    if recorded is not None:
        return Side(recorded, written, x, name)
    assert graph is not None
    assert x is not None
    return Side(simulate(graph, x, using=using), graph, x, name, is_exact(graph, using))


def agreement_table(found: Compared, title: str) -> Table:
    """Return one row for each layer, beside what silence would score, and one for all."""
    from unscan.runtime.report.words import score
    from unscan.show import table

    figures = "spikes A,spikes B,both,precision,recall,F1,per spike,equal,silence,membranes,relative"
    made = table(title, "layer", *figures.split(","), numbers=figures)
    for name, layer in [*found.agreement.layers.items(), ("in all", found.agreement.total)]:
        made.add_row(
            name,
            f"{layer.spikes_a:,}",
            f"{layer.spikes_b:,}",
            f"{layer.both:,}",
            score(layer.precision),
            score(layer.recall),
            score(layer.f1),
            f"{layer.mismatches_per_spike:.2g}",
            f"{layer.equality:.4%}",
            f"{layer.silence:.2%}",
            f"{layer.membrane_absolute:.2g}",
            f"{layer.membrane_relative:.2g}",
        )
    return made


def distances_table(found: Compared, title: str) -> Table:
    """Return mean and largest distances of each layer's trains, and of all."""
    from unscan.show import table

    figures = "trains,van Rossum,largest,ISI,largest ISI,spike count,largest count,rate correlation"
    made = table(title, "layer", *figures.split(","), numbers=figures)
    rows = [*found.distances.layers.items(), ("in all", found.distances.total)]
    for name, layer in rows:
        if layer is not None:
            made.add_row(
                name,
                f"{layer.trains:,}",
                f"{layer.van_rossum[0] / layer.trains:.4g}",
                f"{layer.van_rossum[1]:.4g}",
                f"{layer.isi[0] / layer.trains:.4g}",
                f"{layer.isi[1]:.4g}",
                f"{layer.count[0] / layer.trains:.4g}",
                f"{layer.count[1]}",
                f"{layer.rate_correlation:.6f}",
            )
    return made


def passes_table(found: Bisection, title: str) -> Table:
    """Return one row for each pass that rewrote the graph."""
    from unscan.runtime.report.words import score
    from unscan.show import table

    figures = "F1,apart,ties,membranes,outputs,F1 since source"
    made = table(title, "pass", "what it does", "on samples", *figures.split(","), numbers=figures)
    for step in found.steps:
        agreement = step.found.agreement
        made.add_row(
            step.name,
            "another model" if step.on_purpose else "the same model",
            step.verdict,
            score(agreement.total.f1),
            f"{len(agreement.partings)} of {agreement.samples}",
            str(len(agreement.ties)),
            f"{agreement.total.membrane_relative:.2g}",
            f"{agreement.output_absolute:.2g}",
            score(step.since.agreement.total.f1),
        )
    return made


def summary(found: Compared) -> list[str]:
    """Return lines on what differs besides spikes."""
    agreement = found.agreement
    said = [
        f"Outputs differ by at most {agreement.output_absolute:.3g}; {len(agreement.partings)} of {agreement.samples} "
        f"samples part, {len(agreement.ties)} of them at a tie, {agreement.near} within 1e-6 of a threshold."
    ]
    if found.accuracy is not None and found.gap is not None:
        said.append(
            f"Accuracy {found.accuracy[0]:.2%} of A, {found.accuracy[1]:.2%} of B: {100 * found.gap:+.2f} points."
        )
    if found.decided_alike is not None:
        said.append(f"{found.decided_alike} of {agreement.samples} samples are decided alike.")
    said += [
        f"Not compared, as {side} alone has them in this shape: {', '.join(names)}."
        for side, names in zip("AB", found.alone, strict=True)
        if names
    ]
    if agreement.silent:
        said.append(f"{', '.join(agreement.silent)} fired no spike; a silent layer proves nothing.")
    if agreement.first is not None:
        said.append(f"First mismatch at {agreement.first}.")
    return [*said, "They fire the same spikes." if found.same else "They do not agree."]


def verdict(found: Bisection) -> str:
    """Say in one sentence which passes changed what the model does."""
    if not found.changed:
        return "No pass changes what the model does on these samples."
    first, *later = (
        f"{step.name}{' (on purpose)' if step.on_purpose else ''}, F1 {step.found.agreement.total.f1:.6f}"
        for step in found.changed
    )
    said = f"First to change it: {first}."
    return f"{said} Later: {'; '.join(later)}." if later else said
