"""Commands that train: a recipe's model, and the surrogate network of the hard-reset neuron."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

FILE = click.Path(path_type=Path)


class _Written(click.Path):
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from unscan.compiler.storage import writable

        path: Any = super().convert(value, param, ctx)
        return writable(path)


WRITTEN = _Written(path_type=Path)
"""A file that a command writes, which is looked at before its work begins."""
json_option = click.option("--json", "json_path", type=WRITTEN, help="Also write the result to this file.")
data_option = click.option(
    "--data-dir", type=FILE, help="Folder of data files; by default the environment variable UNSCAN_DATA."
)


@click.command()
@click.argument("recipe", type=FILE)
@click.option("--out", type=FILE, help="Folder of the run; by default runs/ and the recipe's name.")
@click.option(
    "--from", "start", type=FILE, help="Start from this run's weights, in place of start_from in the recipe."
)
@click.option("--resume", is_flag=True, help="Continue the interrupted run in --out.")
@click.option("--accelerator", type=click.Choice(["cpu", "gpu"]), default="cpu", show_default=True)
@click.option(
    "--devices", type=click.IntRange(min=1), default=1, show_default=True, help="Devices on each node."
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--strategy",
    default="auto",
    show_default=True,
    help="How processes share the work: Lightning's name for it.",
)
@data_option
@json_option
def train(
    recipe: Path,
    out: Path | None,
    start: Path | None,
    resume: bool,
    accelerator: str,
    devices: int,
    nodes: int,
    strategy: str,
    data_dir: Path | None,
    json_path: Path | None,
) -> None:
    """Train the model that RECIPE describes."""
    from unscan.show import console, show, table, write_json
    from unscan.trainer.fit import Machine, fit, is_first_process
    from unscan.trainer.recipe import Recipe

    out = out or Path("runs") / recipe.stem
    machine = Machine(accelerator, devices, nodes, strategy)
    wanted = Recipe.read(recipe)
    if start is not None:
        wanted = wanted.model_copy(update={"start_from": str(start)})
    try:
        result = fit(wanted, out, data_dir=data_dir, resume=resume, machine=machine)
    except KeyboardInterrupt:
        click.echo(
            f"unscan: interrupted; continue with: unscan train {recipe} --out {out} --resume", err=True
        )
        sys.exit(130)
    if not is_first_process():
        return
    made = table(f"{out}, trained on {result.task}", "figure", "value", numbers="value")
    for name, value in result.metrics.items():
        made.add_row(name.replace("_", " "), f"{value:.2%}" if "accuracy" in name else f"{value:.4f}")
    for name, rate in result.spike_rates.items():
        made.add_row(f"spike rate of {name}", f"{rate:.2%}")
    made.add_row("parameters", f"{result.parameters:,}")
    made.add_row(f"minutes for {result.epochs} epochs", f"{result.seconds / 60:.1f}")
    show(made)
    console.print(f"Next: unscan compile {out} -o {out.name}.unscan", highlight=False)
    write_json(json_path, json.loads(result.files.result.read_text(encoding="utf-8")))


@click.command("train-sdn")
@click.option(
    "--tau", type=float, default=0.125, show_default=True, help="Decay of the neuron that it stands for."
)
@click.option(
    "--epochs", type=float, default=10.0, show_default=True, help="Of 100 000 sequences of 1024 steps."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--out", type=FILE, required=True, help="The .safetensors file to write.")
@json_option
def train_sdn(tau: float, epochs: float, seed: int, out: Path, json_path: Path | None) -> None:
    """Train a surrogate dynamic network (SDN) for a hard-reset neuron, and measure where it agrees with it."""
    from dataclasses import asdict

    from unscan.compiler.errors import InvalidInput
    from unscan.show import console, progress, show, table, write_json
    from unscan.trainer import sdn

    if not out.absolute().parent.is_dir():
        raise InvalidInput(
            f"There is no folder {out.parent} to write {out.name} to; make it, or name another."
        )
    with progress("train-sdn") as bar:
        network = sdn.train_sdn(
            tau, epochs=epochs, seed=seed,
            progress=lambda step, steps, loss: bar(f"loss {loss:.2e}", step / steps),
        )  # fmt: skip
    found = sdn.evaluate_sdn(network)
    command = f"unscan train-sdn --tau {tau:g} --epochs {epochs:g} --seed {seed} --out {out.name}"
    sdn.save_sdn(out, network, command=command, seed=seed, figures=found)
    made = table(
        f"{out}, against the exact neuron on new currents", "currents", "spikes per step", "equal", "precision",
        "recall", "F1", numbers="spikes per step,equal,precision,recall,F1",
    )  # fmt: skip
    for row in found:
        shares = (f"{share:.3%}" for share in (row.accuracy, row.precision, row.recall))
        made.add_row(f"N({row.mean:g}, {row.deviation:g})", f"{row.rate:.4f}", *shares, f"{row.f1:.5f}")
    show(made)
    console.print(f"Use it in a recipe: neuron: {{kind: surrogate_leaky, tau: {tau:g}, network: {out}}}")
    write_json(json_path, {"command": command, "figures": [asdict(row) for row in found]})
