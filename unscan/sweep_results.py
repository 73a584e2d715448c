"""What a sweep found: a file for each point, written once and whole, and the table, CSV and JSON lines of them all."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unscan.compiler.errors import DamagedFile
from unscan.compiler.storage import writing
from unscan.runtime.costs import Operations
from unscan.runtime.energy import Energy
from unscan.runtime.report.words import joules, score
from unscan.sweep_pareto import COLOURS, Axis, Dot, Panel, draw, fronts
from unscan.sweep_plan import Energies, Options, Point

Row = Mapping[str, Any]
"""A finished point: its settings, and what was measured and modelled of it."""

FIGURES = ("accuracy_model", "accuracy", "gap", "f1", "rate")
COUNTED = ("acs", "macs", "dense_macs")
MODELLED = ("synaptic", "updates", "memory", "total", "dense", "dense_memory")


_energy = Axis("energy per sample", joules)
_accuracy = Axis("accuracy", "{:.1%}".format)
PANELS = (
    (Panel("energy", _energy, _accuracy), "energy", "accuracy"),
    (Panel("F1", _energy, Axis("F1 of spikes", "{:.4g}".format)), "energy", "f1"),
    (Panel("rate", Axis("spikes per neuron and step", "{:.3g}".format), _accuracy), "rate", "accuracy"),
)
"""The panels of the picture, and the figures along their axes."""


class Store:
    """The outcomes of points in a folder, each in a file that its key names.

    A file is written under another name and renamed, so it is there whole or not at all, and a key has one outcome.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, point: Point) -> dict[str, Any] | None:
        """Return the outcome of a point, None where there is none yet. Raises DamagedFile where it is not readable."""
        path = self._path(point)
        if not path.is_file():
            return None
        try:
            outcome: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if outcome["status"] not in ("done", "failed"):
                raise ValueError(f"its status is {outcome['status']!r}")
        except (ValueError, KeyError, TypeError) as fault:
            raise DamagedFile(
                f"{path} does not hold the outcome of a point ({fault}); delete it, and the point is run again."
            ) from None
        return outcome

    def write(self, point: Point, outcome: Mapping[str, Any]) -> None:
        """Keep the outcome of a point, in place of an earlier one."""
        document = {"key": point.key, "settings": point.settings, **outcome}
        self.folder.mkdir(parents=True, exist_ok=True)
        with writing(self._path(point)) as temporary:
            temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")

    def _path(self, point: Point) -> Path:
        return self.folder / f"{point.key}.json"


def rows(points: Sequence[Point], store: Store, energies: Energies) -> list[dict[str, Any]]:
    """Return what is known of points, in their order, with energies per sample; numbered from 1."""
    found: list[dict[str, Any]] = []
    for number, point in enumerate(points, 1):
        outcome = store.read(point)
        if outcome is not None:
            trained_with = list(point.source.settings)
            named = {"number": number, **outcome, "settings": point.settings, "trained_with": trained_with}
            found.append(named | _modelled(outcome, energies))
    return found


def _modelled(outcome: Mapping[str, Any], energies: Energies) -> dict[str, Any]:
    if outcome["status"] != "done":
        return {}
    counted = outcome["operations"]
    operations = Operations(
        **{name: counted[name] for name in Operations.__dataclass_fields__ if name in counted}
    )
    table = (energies.whole if outcome["whole_numbers"] else energies.real) or outcome["energy_table"]
    modelled = Energy.of(operations, table).to_json()
    return {
        "energy_table": table,
        "energy": {name: value / outcome["samples"] for name, value in modelled.items() if name != "table"},
    }


def done(found: Sequence[Row]) -> list[Row]:
    """Return the rows of points that came to their end."""
    return [row for row in found if row["status"] == "done"]


def varied(found: Sequence[Row]) -> list[str]:
    """Return the settings in which rows differ, options last."""
    given = dict.fromkeys(name for row in found for name in row["settings"])
    names = [*(name for name in given if name not in Options.model_fields), *Options.model_fields]
    return [name for name in names if len({_text(row["settings"].get(name)) for row in found}) > 1]


def shown(row: Row, name: str) -> str:
    """Return a setting of a row as a table shows it; one that is left as it is by default is not shown."""
    value = row["settings"].get(name)
    if value is None:
        return ""
    return "yes" if value is True else value if isinstance(value, str) else _text(value)


def label(row: Row, names: Sequence[str]) -> str:
    """Say in one line what sets a row apart; of a dotted key its last part alone, where no other ends so."""
    ends = [name.rpartition(".")[2] for name in names]
    said = []
    for name, end in zip(names, ends, strict=True):
        key, text = end if ends.count(end) == 1 else name, shown(row, name)
        if text:
            said.append(text if name == "source" else key if text == "yes" else f"{key} {text}")
    return ", ".join(said) or "as trained"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def columns(row: Row) -> dict[str, str]:
    """Return the figures of a finished row as the terminal shows them, by the heads of their columns."""
    samples, operations = row["samples"], row["operations"]
    lost = sum(row["saturated"].values())
    return {
        "accuracy": "" if row["accuracy"] is None else f"{row['accuracy']:.2%}",
        "gap": "" if row["gap"] is None else f"{100 * row['gap']:+.2f}",
        "F1": "silent" if row["f1"] is None else score(row["f1"]),
        "rate": "" if row["rate"] is None else f"{row['rate']:.2%}",
        **{name: f"{operations[field] / samples:,.0f}" for name, field in (("ACs", "acs"), ("MACs", "macs"))},
        "energy": joules(row["energy"]["total"]),
        "saturated": f"{lost:,}" if row["whole_numbers"] else "",
    }


def notes(found: Sequence[Row]) -> list[str]:
    """Return lines on what rows were measured on, modelled with, and compared with."""
    finished = done(found)
    said = [f"Measured on {data}." for data in dict.fromkeys(row["data"] for row in finished)]
    tables: dict[str, list[str]] = {}
    for row in finished:
        kinds = tables.setdefault(row["energy_table"], [])
        kinds += {"whole" if row["whole_numbers"] else "real"}.difference(kinds)
    named = " and ".join(f"{table} ({' and '.join(kinds)} numbers)" for table, kinds in tables.items())
    said.append(f"Energies are modelled with {named}, memory included.")
    trained: dict[str, list[str]] = {}
    for row in finished:
        figures = trained.setdefault(label(row, ["source", *row["trained_with"]]), [])
        dense = joules(row["energy"]["dense"] + row["energy"]["dense_memory"])
        told = [f"dense network {dense} with {row['energy_table']}"]
        if row["accuracy_model"] is not None:
            told.insert(0, f"accuracy as trained {row['accuracy_model']:.2%}")
        figures += [figure for figure in told if figure not in figures]
    return said + [f"{source}: {', '.join(figures)}." for source, figures in trained.items()]


def write_results(folder: Path, found: Sequence[Row], *, title: str) -> dict[str, list[int]]:
    """Write rows as results.jsonl, results.csv and pareto.svg; return the numbers of those on each Pareto front."""
    panels, dots = _picture(found)
    chosen = fronts(panels, dots)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_with_fronts(row, chosen), allow_nan=False) + "\n" for row in found]
    settings = list(dict.fromkeys(name for row in found for name in row["settings"]))
    table = [_flat(row, settings, chosen) for row in found]
    text = io.StringIO()
    if table:
        writer = csv.DictWriter(text, table[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(table)
    tables = " and ".join(dict.fromkeys(row["energy_table"] for row in done(found)))
    picture = draw(title, panels, dots, f"Energies modelled with {tables}, memory included.")
    written = {"results.jsonl": "".join(lines), "results.csv": text.getvalue(), "pareto.svg": picture}
    for name, content in written.items():
        with writing(folder / name) as temporary:
            temporary.write_text(content, encoding="utf-8")
    return chosen


def _picture(found: Sequence[Row]) -> tuple[list[Panel], list[Dot]]:
    """Return the panels that rows have figures for, and the rows as dots."""
    names = [name for name in varied(found) if name != "source"]
    groups = {row["number"]: label(row, ["source", *row["trained_with"]]) for row in found}
    if len(set(groups.values())) > len(COLOURS):
        groups = {row["number"]: row["settings"]["source"] for row in found}
    dots = []
    for row in done(found):
        figures = {name: row[name] for name in ("accuracy", "f1", "rate")} | {
            "energy": row["energy"]["total"]
        }
        places = {
            panel.name: (figures[x], figures[y])
            for panel, x, y in PANELS
            if figures[x] is not None and figures[y] is not None
        }
        dots.append(Dot(row["number"], groups[row["number"]], label(row, names), places))
    return [panel for panel, _, _ in PANELS if any(panel.name in dot.places for dot in dots)], dots


def _with_fronts(row: Row, fronts: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    return dict(row) | {"fronts": [name for name, numbers in fronts.items() if row["number"] in numbers]}


def _flat(row: Row, settings: Sequence[str], fronts: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Return a row as CSV holds it: operations and joules per sample, empty where nothing is known."""
    known = row["status"] == "done"
    energy, operations, samples = row.get("energy", {}), row.get("operations", {}), row.get("samples", 1)
    return {
        **{name: row[name] for name in ("number", "key", "status")},
        **{f"setting {name}": shown(row, name) for name in settings},
        "samples": row.get("samples"),
        **{name: row.get(name) for name in FIGURES},
        **{f"{name}_per_sample": operations[name] / samples if known else None for name in COUNTED},
        "updates_per_sample": sum(operations["updates"].values()) / samples if known else None,
        **{f"energy_{name}_joules": energy.get(name) for name in MODELLED},
        "energy_table": row.get("energy_table"),
        "saturated": sum(row["saturated"].values()) if known else None,
        "fronts": " + ".join(_with_fronts(row, fronts)["fronts"]),
        "seconds": row.get("seconds"),
        "error": row.get("error"),
    }
