"""What was trained: the recipe, its curves, what it came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unscan.runtime.report.blocks import Block, Code, Figure, Section, Table, Text
from unscan.runtime.report.plots import Bar, Line, bars, lines
from unscan.runtime.report.words import share

PARTS = (("train", "training", 1, ""), ("validation", "validation", 2, "dashed"), ("test", "test", 3, ""))


@dataclass(frozen=True)
class Trained:
    """A training run, as its folder tells it.

    Attributes:
        name: of the run.
        recipe: every setting.
        lines: the recipe as it stands in its file.
        epochs: one row of figures for each, as written during training; "" where an epoch has none.
        task: what the task is, in words; "" where the run is not complete.
        metrics: the final figures.
        rates: spikes per neuron and step on the test part, by layer.
        parameters: how many; None where the run is not complete.
        seconds: spent in training; likewise.
    """

    name: str
    recipe: Mapping[str, Any]
    lines: str
    epochs: Sequence[Mapping[str, str]] = ()
    task: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    parameters: int | None = None
    seconds: float | None = None


def trained_section(run: Trained) -> Section:
    """Return the section on a training run."""
    blocks: list[Block] = [Text(f"Task: {run.task or run.recipe['task']['name']}.")]
    if run.parameters is None:
        blocks.append(Text("The run is not complete: it has no final figures yet."))
    blocks.append(settings_table(run))
    blocks += curves(run)
    if run.metrics:
        rows = [
            [name.replace("_", " "), share(value) if "accuracy" in name else f"{value:.4g}"]
            for name, value in run.metrics.items()
        ]
        blocks.append(Table("What training came to, on the whole of each part", ["figure", "value"], rows))
    if run.rates:
        most = [Bar(name, [(1, rate)], share(rate)) for name, rate in run.rates.items()]
        label = "Firing rates by layer: " + ", ".join(f"{bar.name} {bar.said}" for bar in most)
        blocks.append(Figure(bars(most, label), "Spikes per neuron and step on the test part, as trained."))
    blocks.append(Code(run.lines, "The recipe, every setting spelled out"))
    return Section("What was trained", blocks)


def settings_table(run: Trained) -> Table:
    """Return the layers of a recipe's network, and how it was trained."""
    recipe = run.recipe
    rows = [
        [f"layer {i}", ", ".join(spoken(layer))] for i, layer in enumerate(recipe["network"]["layers"], 1)
    ]
    rows.append(["readout", ", ".join(spoken(recipe["network"]["readout"]))])
    rows.append(["optimiser", ", ".join(spoken(recipe["optimiser"]))])
    rows.append(
        [
            "training",
            f"{recipe['epochs']} epochs, batches of {recipe['batch_size']}, seed {recipe['seed']}, "
            f"{recipe['precision']} bits",
        ]
    )
    if run.parameters is not None and run.seconds is not None:
        rows.append(["size", f"{run.parameters:,} parameters, trained in {run.seconds / 60:.1f} minutes"])
    return Table("The network and its training", ["part", "settings"], rows, words=["settings"])


def spoken(settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield settings as words; what is off, empty or left to its default is left to the recipe below."""
    if "kind" in settings:
        yield str(settings["kind"])
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield f"{name}: {' '.join(spoken(value))}"
        elif name != "kind" and value not in (None, False, 0, "none", "default", "auto", ""):
            yield name if value is True else f"{name} {value}"


def curves(run: Trained) -> Iterator[Block]:
    """Yield the curves of loss and accuracy over epochs."""
    for figure in ("loss", "accuracy"):
        series = []
        for key, name, colour, style in PARTS:
            points = [
                (float(row["epoch"]), float(row[column]))
                for row in run.epochs
                if (column := f"{key}_{figure}") in row and row[column] != ""
            ]
            if points:
                x, y = zip(*points, strict=True)
                series.append(Line(name, x, y, colour, style))
        if series:
            last = ", ".join(f"{line.name} {line.y[-1]:.4g}" for line in series)
            label = f"{figure} over {len(run.epochs)} epochs; in the last: {last}"
            yield Figure(
                lines(series, label, axes=("epoch", figure)),
                f"{figure.capitalize()} by epoch; in the last: {last}.",
            )
