"""The command that tries many ways to train and compile, and shows what accuracy costs in energy."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unscan.train import FILE, data_option, json_option

if TYPE_CHECKING:
    from unscan.sweep_plan import Point
    from unscan.sweep_results import Row
    from unscan.sweep_workers import Outcome, Pool


@click.command()
@click.argument("sweep_file", metavar="SWEEP.yaml", type=FILE)
@click.option("--out", type=FILE, help="Folder of the results; by default sweeps/ and the sweep's name.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes here; by default one for each core.")
@click.option("--scheduler", help="Address of a dask scheduler, tcp://..., whose workers do it instead.")
@click.option(
    "--samples", type=click.IntRange(min=1), help="Run on the first N samples, whatever the sweep says."
)
@click.option("--retry-failed", is_flag=True, help="Run those points again that failed.")
@data_option
@json_option
def sweep(
    sweep_file: Path,
    out: Path | None,
    workers: int | None,
    scheduler: str | None,
    samples: int | None,
    retry_failed: bool,
    data_dir: Path | None,
    json_path: Path | None,
) -> None:
    """Compile models with many options, and compare accuracy, spikes, operations and energy.

    SWEEP.yaml names runs, graphs, or recipes, which are trained first, and lists of options. What is finished is kept:
    the same command goes on where it was broken off. A point that fails is reported and stops no other; exit code 1.
    """
    from unscan.compiler.errors import InvalidInput
    from unscan.show import console, progress, write_json
    from unscan.sweep_folder import held
    from unscan.sweep_plan import plan, read_sweep
    from unscan.sweep_results import Store, rows, write_results
    from unscan.sweep_run import run
    from unscan.sweep_workers import Cluster, Processes

    if scheduler is not None and workers is not None:
        raise InvalidInput(
            "--workers are processes here, and --scheduler has workers of its own; give one of the two."
        )
    out = out or Path("sweeps") / sweep_file.stem
    read = read_sweep(sweep_file)
    points = plan(read, folder=sweep_file.absolute().parent, runs=out.absolute() / "runs", samples=samples)
    store = Store(out / "points")
    again = ("done",) if retry_failed else ("done", "failed")
    found: list[dict[str, Any]] = []
    fronts: dict[str, list[int]] = {}
    with held(out):
        wanted = [point for point in points if (store.read(point) or {}).get("status") not in again]
        console.print(
            f"{len(points)} points, {len(points) - len(wanted)} of them finished before", highlight=False
        )
        tell = _teller(points, len(wanted))

        def told(point: Point, outcome: Outcome) -> None:
            rows([point], store, read.energy)  # a table that lacks a price is refused now, not at the end
            tell(point, outcome)

        try:
            if wanted:
                folder = None if data_dir is None else data_dir.absolute()
                with progress("sweep") as bar:
                    if scheduler is not None:
                        bar(f"look for the scheduler {scheduler}", 0.0)
                    pool: Pool = (
                        Processes(workers or os.cpu_count() or 1) if scheduler is None else Cluster(scheduler)
                    )
                    run(wanted, store, pool, data_dir=folder, progress=bar, told=told)
        except KeyboardInterrupt:
            finished = sum(store.read(point) is not None for point in points)
            click.echo(
                f"unscan: interrupted; what was finished is kept, {finished} of {len(points)} points: the same "
                "command goes on.",
                err=True,
            )
            sys.exit(130)
        finally:
            found = rows(points, store, read.energy)
            if found:
                fronts = write_results(out, found, title=sweep_file.stem)
    _tell(found, fronts, str(sweep_file))
    console.print(f"Written: results.csv, results.jsonl and pareto.svg in {out}", highlight=False)
    write_json(json_path, {"sweep": str(sweep_file), "points": found, "fronts": fronts})
    if any(row["status"] == "failed" for row in found):
        sys.exit(1)


def _teller(points: Sequence[Point], count: int) -> Callable[[Point, Outcome], None]:
    """Return what tells of each point that is finished, where stderr is no terminal and has no bar."""
    from unscan.sweep_results import label, varied

    settings = {point.key: {"settings": point.settings} for point in points}
    numbers, names = {key: number for number, key in enumerate(settings, 1)}, varied(list(settings.values()))
    over = itertools.count(1)

    def told(point: Point, outcome: Outcome) -> None:
        if not sys.stderr.isatty():
            taken = f", {outcome['seconds']:.1f} s" if "seconds" in outcome else ""
            said = f"{numbers[point.key]} ({label(settings[point.key], names)}) {outcome['status']}{taken}"
            click.echo(f"{next(over)} of {count}: point {said}", err=True)

    return told


def _tell(found: Sequence[Row], fronts: Mapping[str, Sequence[int]], title: str) -> None:
    """Print finished points as a table, and what the others met."""
    from unscan.show import console, show, table
    from unscan.sweep_results import columns, done, label, notes, varied

    finished, names = done(found), varied(found)
    if finished:
        heads = list(columns(finished[0]))
        made = table(
            f"{title}, per sample; E, F, R: on the Pareto front by energy, F1 or rate", "", "point", *heads, "front",
            numbers=",".join(["", *heads]),
        )  # fmt: skip
        for row in finished:
            fronted = " ".join(
                name[0].upper() for name, numbers in fronts.items() if row["number"] in numbers
            )
            made.add_row(str(row["number"]), label(row, names), *columns(row).values(), fronted)
        show(made)
        for line in notes(found):
            console.print(line, highlight=False)
    errors: dict[str, list[str]] = {}
    for row in found:
        if row["status"] == "failed":
            errors.setdefault(row["error"], []).append(f"{row['number']} ({label(row, names)})")
    for error, who in errors.items():
        console.print(f"Failed: {', '.join(who)}: {error}", highlight=False)
