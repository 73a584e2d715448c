"""The commands that read a model, wherever it comes from, and compile it or show what it is."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unscan.compiler.errors import InvalidInput
from unscan.recordings import sizes
from unscan.train import FILE, WRITTEN, data_option, json_option

if TYPE_CHECKING:
    from unscan.compiler.passes import SoftReset

RESET = click.Choice(["none", "subtract", "zero"])
PHASE = click.Choice(["now", "next"])
SAMPLES = 32
"""What passes are judged and calibrated on, and ranges measured, by default."""


input_options = [
    click.option(
        "--input",
        "inputs",
        type=FILE,
        help="A .npy array (T, B, ...), or a file of events, instead of the task's own data.",
    ),
    click.option(
        "--event-dt",
        type=click.FloatRange(min=0, min_open=True),
        help="Seconds of a step into which the events of --input are gathered.",
    ),
    click.option(
        "--event",
        multiple=True,
        metavar="NAME=VALUE",
        help="How they are: sensor=34x34, polarity=merged, downsample=2, several=one, start=0.5, steps=100, tick=1e-9, "
        "or sample=3, one recording of a file of many; any number of times.",
    ),
    click.option("--labels", type=FILE, help="A .npy array (B,) of classes that belong to --input."),
    click.option("--samples", type=click.IntRange(min=1), help="Use only the first N samples."),
    data_option,
]
module_options = [
    click.option("--weights", type=FILE, help="The state dict (.pt) of a class in a Python file."),
    click.option("--arg", "arguments", multiple=True, help="An argument that the class takes: name=value."),
]
source_options = [
    *module_options,
    click.option("--shape", help="Neurons of one step that the class takes: 9, or 3x32x32."),
    click.option(
        "--kind", type=click.Choice(["spike", "graded", "real", "index"]), help="What the input carries."
    ),
    click.option("--stepwise", is_flag=True, help="The class's forward is one step, its states kept inside."),
    click.option(
        "--static", is_flag=True, help="The class's forward repeats one step, as an image, by itself."
    ),
    click.option(
        "--steps", type=click.IntRange(min=1), help="The fixed number of steps that the class takes."
    ),
    click.option(
        "--returned",
        type=click.IntRange(min=0),
        help="Which of several things that the class returns is the output.",
    ),
    click.option("--dt", type=float, help="Seconds per step of a NIR file that does not say."),
    click.option(
        "--nir-dialect",
        help="What wrote a NIR file: nir, snntorch, norse, sinabs or spikingjelly; its model is what is read.",
    ),
    click.option(
        "--nir-reset", type=RESET, help="How the neurons of a NIR file reset, where it does not say."
    ),
    click.option("--nir-phase", type=PHASE, help="When they do."),
]


def takes_input(command: Any) -> Any:
    """Add the options that say what a graph is run on."""
    return with_options(command, input_options)


def takes_module(command: Any) -> Any:
    """Add the options that make a module of a class in a Python file."""
    return with_options(command, module_options)


def takes_source(command: Any) -> Any:
    """Add the options that say how a model is read; the command gets them as keywords of `read_graph`."""
    return with_options(command, source_options)


def with_options(command: Any, options: list[Any]) -> Any:
    """Add options to a command."""
    for option in reversed(options):
        command = option(command)
    return command


def ending(source: Path) -> str:
    """Return the ending of a source's file, without the class that it names in a Python file."""
    return source.suffix.partition(":")[0]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options that a user gave, as `unscan.sources` takes them."""
    held = {**options, "output": options["returned"], "arguments": arguments_of(options["arguments"])}
    held["shape"] = None if options["shape"] is None else shape_of(options["shape"])
    del held["returned"]
    return {
        name: value
        for name, value in held.items()
        if value is not None and value != {} and value is not False
    }


def shape_of(text: str) -> tuple[int, ...]:
    """Return the neurons of one step, from 9 or 3x32x32."""
    try:
        return sizes(text)
    except ValueError:
        raise InvalidInput(f"Got the shape {text!r}; write sizes such as 9 or 3x32x32.") from None


def arguments_of(texts: tuple[str, ...]) -> dict[str, Any]:
    """Return the arguments of a class, from name=value; a value is a Python literal, or else text."""
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InvalidInput(f"Got the argument {text!r}; write name=value, as in --arg hidden=64.")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value
    return found


def typed(context: click.Context) -> Iterator[str]:
    """Yield the arguments and options of a command as they were given and can be typed again."""
    for parameter in context.command.params:
        name = parameter.name or ""
        value, source = context.params.get(name), context.get_parameter_source(name)
        given = value if isinstance(value, tuple) else (value,)
        if isinstance(parameter, click.Argument):
            yield from map(str, given)
        elif source is click.core.ParameterSource.COMMANDLINE:
            for each in given:
                yield max(parameter.opts, key=len)
                if each is not True:
                    yield str(each)


@click.command("compile")
@click.argument("source", type=FILE)
@click.option("-o", "--output", type=WRITTEN, required=True, help="The .unscan file to write.")
@click.option("--reset", type=RESET, help="Deploy with this reset; by default the one it was trained with.")
@click.option(
    "--phase",
    type=PHASE,
    help="When the reset acts: at once, or at the next step. Needs --reset.",
)
@click.option("--memory-reset", type=RESET, help="Give the entries of matrix memories this reset.")
@click.option(
    "--top-k",
    multiple=True,
    help="What matrix memories keep of keys and values: 4, 0.25, k=4,v=8, or gen2_1:k=4 for one of them.",
)
@click.option(
    "--scalar-decay", is_flag=True, help="Let the columns of matrix memories decay by one number each."
)
@click.option("--calibrate", is_flag=True, help="Move thresholds until neurons fire as often as in training.")
@click.option("--threshold", type=float, help="Fold every threshold into the weights, to become this number.")
@click.option(
    "--quantize",
    type=click.Choice(["loihi2", "int8", "int16"]),
    help="Write it in the whole numbers of this profile, by how far numbers reach on samples.",
)
@click.option(
    "--soft-reset",
    type=click.Choice(["node", "recurrent"]),
    help="With --quantize: neurons subtract their threshold themselves, or by weights of their spikes, a step later.",
)
@click.option("--passes", help="Run these passes in this order, a,b,c; `unscan passes` lists them.")
@click.option("--check", "judged", is_flag=True, help="Measure on samples what each pass changes.")
@click.option("--time-passes", "timed", is_flag=True, help="Show how long each pass takes.")
@click.option("--print-between-passes", "printed", is_flag=True, help="Show what each pass rewrites.")
@takes_source
@takes_input
def compile_(
    source: Path,
    output: Path,
    judged: bool,
    timed: bool,
    printed: bool,
    calibrate: bool,
    quantize: str | None,
    soft_reset: SoftReset | None,
    top_k: tuple[str, ...],
    passes: str | None,
    inputs: Path | None,
    event_dt: float | None,
    event: tuple[str, ...],
    labels: Path | None,
    samples: int | None,
    data_dir: Path | None,
    **options: Any,
) -> None:
    """Compile a model into the graph that is deployed.

    SOURCE is the folder of a trained run, a .nir or .unscan file, or FILE.py:NAME, a torch module's class in a Python
    file, which is run.
    """
    from unscan.compiler.pipeline import Stage, compile_graph
    from unscan.compiler.text import diff, text
    from unscan.runtime.judge import judge, ranges, rates, unseen
    from unscan.show import console, graph_table, progress, show, stages_table
    from unscan.sources import read_graph, read_samples

    if options["phase"] and not options["reset"]:
        raise InvalidInput("--phase says when a reset acts; name the reset, too, with --reset.")
    if soft_reset and not quantize:
        raise InvalidInput(
            "--soft-reset says how whole numbers reset; name their profile, too, with --quantize."
        )
    if output.suffix != ".unscan":
        raise InvalidInput(
            f"Got the output {output}; give it the suffix .unscan (other formats: unscan export)."
        )
    asked = {
        name: options.pop(name) for name in ("reset", "phase", "memory_reset", "scalar_decay", "threshold")
    }
    graph = read_graph(source, **given(options))
    x = None
    if judged or calibrate or quantize:
        limit = samples or SAMPLES
        found = read_samples(
            graph,
            inputs=inputs,
            event_dt=event_dt,
            event=event,
            labels=labels,
            data_dir=data_dir,
            limit=limit,
            training=True,
        )
        x = found.x
        console.print(f"Measured on {found.description}", highlight=False)
    stages: list[Stage] = []

    def watch(stage: Stage) -> None:
        stages.append(stage)
        if printed:
            click.echo(f"\n# after {stage.step.name}")
            click.echo("\n".join(diff(stage.before, stage.after)) or "# nothing changed")

    if printed:
        click.echo(f"# {source}\n{text(graph)}", nl=False)
    with nullcontext(unseen) if printed else progress("compile") as bar:
        compiled = compile_graph(
            graph,
            **asked,
            top_k=top_k or None,
            calibrate=rates(x, bar) if calibrate and x is not None else None,
            quantize=quantize,
            ranges=ranges(x, bar) if quantize and x is not None else None,
            soft_reset=soft_reset or "node",
            passes=None if passes is None else [name.strip() for name in passes.split(",")],
            judge=judge(x, bar) if judged and x is not None else None,
            watch=watch,
        )
    typed_in = shlex.join(["unscan", "compile", *typed(click.get_current_context())])
    compiled = compiled.annotate(meta={"command": typed_in})
    compiled.save(output)
    show(graph_table(compiled, f"{output}, compiled from {source}"))
    for line in compiled.history:
        console.print(f"  {line}", highlight=False)
    if timed or judged:
        show(stages_table(stages, timed=timed, judged=judged))


@click.command()
@click.argument("source", type=FILE)
@click.option("--text", "as_text", is_flag=True, help="Print the text form alone: one line for each node.")
@click.option("--diff", "other", type=FILE, help="Show in which nodes another model differs from SOURCE.")
@click.option("--svg", type=WRITTEN, help="Also draw the graph into this file.")
@takes_source
@json_option
def inspect(
    source: Path, as_text: bool, other: Path | None, svg: Path | None, json_path: Path | None, **options: Any
) -> None:
    """Show what a model holds: nodes, signals, neurons, history. SOURCE as in `unscan compile`."""
    from unscan.compiler.text import diff, text
    from unscan.show import console, graph_table, neurons_line, show, states_line, write_json
    from unscan.sources import read_graph

    graph = read_graph(source, **given(options))
    if other is not None:
        alike = ending(other) == ending(source)
        lines = diff(graph, read_graph(other, **(given(options) if alike else {})))
        click.echo("\n".join(lines) or f"{source} and {other} compute the same.")
    elif as_text:
        click.echo(text(graph, meta=True, history=True), nl=False)
    else:
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
                    "ports": [edge.port for edge in graph.into(name)],
                    "sends": graph.signals[name].kind,
                    "shape": graph.signals[name].shape,
                    "state": node.state(graph.inputs(name)),
                    "settings": node.settings(),
                    "arrays": {field: list(value.shape) for field, value in node.arrays()},
                }
                for name, node in ((name, graph.nodes[name]) for name in graph.order)
            },
            "meta": dict(graph.meta),
            "history": graph.history,
        },
    )
