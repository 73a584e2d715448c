"""What a comparison found, as tables and paragraphs for the terminal."""

from __future__ import annotations

from rich.table import Table

from unscan.runtime.quantisation import Cost
from unscan.runtime.report.words import score
from unscan.runtime.verify import Comparison, Verification
from unscan.show import saturation_lines, table


def verify_table(found: Verification, title: str) -> Table:
    """Return one row for each executor and precision."""
    truth = "model" if found.rounding is None else "reference"
    made = table(
        title, "executor", "bits", f"{truth}'s spikes", "its spikes", "F1", "apart", "ties", "near", "outputs off by",
        f"{truth} right", "it right", "holds",
        numbers=f"bits,{truth}'s spikes,its spikes,F1,apart,ties,near,outputs off by,{truth} right,it right",
    )  # fmt: skip
    for row in found.comparisons:
        total = row.agreement.total
        made.add_row(
            row.executor,
            str(row.precision),
            f"{total.spikes_a:,}",
            f"{total.spikes_b:,}",
            score(total.f1),
            str(len(row.agreement.partings)),
            str(len(row.agreement.ties)),
            str(row.agreement.near),
            f"{row.agreement.output_absolute:.2g}",
            *(f"{value:.2%}" for value in row.accuracy or ()),
            *([""] * (0 if row.accuracy else 2)),
            "yes" if row.holds else "no",
        )
    return made


def layers_table(row: Comparison, title: str) -> Table:
    """Return the agreement of one comparison, layer by layer, beside what silence would score."""
    truth = "reference" if row.precision == "int" else "model"
    made = table(
        title, "layer", f"{truth}'s spikes", "its spikes", "both", "precision", "recall", "F1", "equal", "silence",
        "membranes off by",
        numbers=f"{truth}'s spikes,its spikes,both,precision,recall,F1,equal,silence,membranes off by",
    )  # fmt: skip
    for name, layer in row.agreement.layers.items():
        made.add_row(
            name,
            f"{layer.spikes_a:,}",
            f"{layer.spikes_b:,}",
            f"{layer.both:,}",
            score(layer.precision),
            score(layer.recall),
            score(layer.f1),
            f"{layer.equality:.4%}",
            f"{layer.silence:.2%}",
            f"{layer.membrane_absolute:.2g}",
        )
    return made


def rounding_table(cost: Cost) -> Table:
    """Return what rounding to whole numbers did to each layer: the model's own figures, and those of whole numbers."""
    made = table(
        f"What rounding cost, profile {cost.profile or 'none'}, {cost.samples} samples: model -> whole numbers",
        "layer", "neurons", "F1", "rate", "dead", "always on", "saturated",
        numbers="neurons,F1,rate,dead,always on,saturated",
    )  # fmt: skip
    for name, layer in cost.layers.items():
        made.add_row(
            name,
            f"{layer.fired[0].size:,}",
            score(layer.agreement.f1),
            "{:.2%} -> {:.2%}".format(*layer.rates),
            "{:,} -> {:,}".format(*layer.dead),
            "{:,} -> {:,}".format(*layer.always),
            "" if layer.saturated is None else f"{layer.saturated:,}",
        )
    return made


def rounding_lines(cost: Cost) -> list[str]:
    """Return lines on what rounding to whole numbers cost in all."""
    said = [f"Outputs differ from the model's by at most {cost.output:.3g}, in its units."]
    if cost.accuracy is not None and cost.gap is not None:
        said.insert(
            0,
            f"Accuracy {cost.accuracy[1]:.2%} in whole numbers, {cost.accuracy[0]:.2%} of the model: "
            f"{100 * cost.gap:+.2f} points over {cost.samples} samples.",
        )
    if cost.decided_alike is not None:
        said.insert(1, f"{cost.decided_alike} of {cost.samples} samples are decided alike.")
    return said + saturation_lines(cost.saturated)


def verdict(found: Verification) -> str:
    """Say in one sentence whether the deployed graph holds."""
    if found.rounding is not None:
        same = "Every executor computes" if found.holds else "Not every executor computes"
        return f"{same} the whole numbers of the reference, bit for bit."
    does = "fires" if found.holds else "does not fire"
    return f"The deployed graph {does} the spikes of the trained model."


def explain(found: Verification) -> list[str]:
    """Return paragraphs on what was restored, what differs and where, and which ties there are."""
    said = [
        f"{name} was trained with reset {trained} and is deployed with reset {deployed}: another model, "
        "and the figures above are the gap."
        for name, (trained, deployed) in found.restored.items()
    ]
    same: dict[str, list[str]] = {}
    for row in found.comparisons:
        for line in _differences(row):
            bits = "whole numbers" if row.precision == "int" else f"{row.precision} bits"
            same.setdefault(line, []).append(f"{row.executor} ({bits})")
    return said + [f"{', '.join(who)}: {line}" for line, who in same.items()]


def localisation_lines(found: Verification) -> list[str]:
    """Return lines on which layers of the model leave their own recurrence, and which keep to it."""
    local = found.localised
    if local is None:
        return []
    said = [f"{departure}." for departure in local.departures]
    if said:
        said[0] = f"[bold]First to leave:[/bold] {said[0]}"
    elif local.kept:
        said.append("No parallel layer of the model leaves its own recurrence.")
    if local.kept:
        said.append(f"They keep to their recurrence: {', '.join(local.kept)}.")
    if local.reason:
        said.append(f"The model could not be held against its own recurrences: {local.reason}")
    if local.unheard:
        said.append(f"They cannot be listened to: {', '.join(local.unheard)}.")
    return said


def _differences(row: Comparison) -> list[str]:
    said = []
    if row.unheard:
        said.append(
            f"{', '.join(row.unheard)} cannot be listened to in the model, and the outputs speak for them: they differ "
            f"by at most {row.agreement.output_relative:.2g} relatively in samples that do not part."
        )
    elif row.precision == "int":
        if row.output_off or row.agreement.total.membrane_absolute or row.states:
            said.append(
                f"whole numbers differ: outputs by up to {row.agreement.output_absolute:g}, membranes by up to "
                f"{row.agreement.total.membrane_absolute:g}, final states {', '.join(row.states) or 'not'}."
            )
    elif row.output_off:
        said.append(
            f"the outputs differ by up to {row.agreement.output_relative:.2g} relatively in samples whose spikes are "
            "the same: what reads the spikes is not what was trained."
        )
    if row.agreement.silent:
        said.append(f"{', '.join(row.agreement.silent)} fired no spike; a silent layer proves nothing.")
    if not row.holds and row.agreement.first:
        said.append(f"first mismatch at {row.agreement.first}.")
    if row.holds and row.agreement.ties:
        listed = "; ".join(map(str, row.agreement.ties[:3]))
        more = len(row.agreement.ties) - 3
        said.append(f"ties at {listed}{f'; and {more} more' if more > 0 else ''}.")
    if not row.holds and row.gap is not None:
        said.append(f"accuracy gap {row.gap:+.2%}.")
    return said
