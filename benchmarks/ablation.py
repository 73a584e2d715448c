"""Train one network on sequential MNIST with every training form of its neuron, and deploy each.

    unscan bench ablation --data-dir DIR [--out FOLDER] [--only NAME ...] [--epochs N] [--quick] [--json FILE]

Two SpikingSSM blocks; all settings but the one that is named are equal (see RECIPE). What is deployed is the exact
neuron with its reset: to zero, but for the annealed forms, whose reset subtracts. `gap` is the accuracy
deployed minus that as trained, F1 that of all spikes of both, each network running on its own. Finished trainings in
FOLDER are used again, broken ones continued.
"""

import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from unscan.benchmarks.measuring import options, screen, write
from unscan.compiler.errors import InvalidInput
from unscan.trainer.fit import fit, load_run
from unscan.trainer.measure import measure_gap
from unscan.trainer.objective import Objective
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles

TAU = 0.125
WIDTH = {"surrogate": "piecewise_quadratic", "surrogate_width": 1.0}
EXACT: dict[str, Any] = {"kind": "leaky", "beta": TAU, **WIDTH}
RECIPE: dict[str, Any] = {
    "task": {"name": "smnist"},
    "optimiser": {"lr": 0.01, "ssm_lr": 0.001, "weight_decay": 0.01, "warm_up": 1},
    "epochs": 6,
    "batch_size": 50,
    "chunk_size": 10,
}


def annealed(end: float) -> dict[str, Any]:
    return {"kind": "annealed_leaky", "beta": TAU, "end": end, **WIDTH}


VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "exact, BPTT": (EXACT, "learned"),
    "exact, SLTT": (EXACT | {"backward": "sltt"}, "learned"),
    "exact, fixed threshold": (EXACT, "fixed"),
    "exact, one learned beta": (EXACT | {"learn_beta": True}, "learned"),
    "exact, a learned beta each": (EXACT | {"learn_beta": True, "beta_to": TAU}, "learned"),
    "SDN": ({"kind": "surrogate_leaky", "tau": TAU, **WIDTH}, "learned"),
    "SDN from scratch": ({"kind": "surrogate_leaky", "tau": TAU, "network": "scratch", **WIDTH}, "learned"),
    "annealed to 0.25": (annealed(0.25), "learned"),
    "annealed to 0.5": (annealed(0.5), "learned"),
    "annealed to 0.75": (annealed(0.75), "learned"),
    "annealed to 1": (annealed(1.0), "learned"),
    "no reset": ({"kind": "state_leaky", "beta": TAU, **WIDTH}, "learned"),
}


def recipe(name: str, epochs: int | None) -> Recipe:
    """The recipe of a variant."""
    neuron, threshold = VARIANTS[name]
    block = {
        "kind": "spiking_ssm", "states": 16, "norm": "layer", "dropout": 0.1, "threshold": threshold, "neuron": neuron
    }  # fmt: skip
    layers = [{"kind": "linear", "width": 48}, block, block]
    network = {"layers": layers, "readout": {"kind": "linear", "decision": "mean"}}
    changed = {} if epochs is None else {"epochs": epochs}
    return Recipe.parse(RECIPE | {"network": network} | changed, source=name)


def measured(name: str, folder: Path, data_dir: Path | None, epochs: int | None) -> dict[str, float]:
    """Train a variant, or take up its training, and measure it."""
    run_dir = folder / name.replace(", ", "-").replace(" ", "-")
    chosen = recipe(name, epochs)
    result = fit(chosen, run_dir, data_dir=data_dir, resume=RunFiles(run_dir).recipe.is_file())
    run = load_run(run_dir)
    task = run.task(data_dir)
    found = measure_gap(run.model, task.test, Objective.of(task, "mean"), reset="zero")
    return {
        "trained": found.trained.accuracy,
        "deployed": found.deployed.accuracy,
        "gap": found.gap,
        "f1": found.f1,
        "rate": statistics.mean(found.trained.spike_rates.values()),
        "seconds": result.seconds / result.epochs,
    }


def main(arguments: list[str] | None = None) -> None:
    """Run the trainings and print the table."""
    parser = options(__doc__, quick="one epoch of two variants")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of MNIST's files")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"), metavar="FOLDER")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of: {'; '.join(VARIANTS)}")
    parser.add_argument("--epochs", type=int, help=f"by default {RECIPE['epochs']}")
    given = parser.parse_args(arguments)
    names = given.only or (["exact, BPTT", "no reset"] if given.quick else list(VARIANTS))
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise InvalidInput(f"There is no variant {unknown[0]!r}; choose from {'; '.join(VARIANTS)}.")
    console = screen()
    epochs = 1 if given.quick else given.epochs
    table = Table(title=f"{epochs or RECIPE['epochs']} epochs, sequential MNIST")
    for title in (
        "trained with",
        "test accuracy",
        "deployed",
        "gap",
        "F1 of spikes",
        "spike rate",
        "seconds an epoch",
    ):
        table.add_column(title, justify="left" if title == "trained with" else "right")
    results: dict[str, dict[str, float]] = {}
    for name in names:
        console.print(f"training with {name} ...", style="dim")
        row = results[name] = measured(name, given.out, given.data_dir, epochs)
        table.add_row(
            name, f"{row['trained']:.2%}", f"{row['deployed']:.2%}", f"{100 * row['gap']:+.2f}", f"{row['f1']:.4f}",
            f"{row['rate']:.2%}", f"{row['seconds']:.0f}",
        )  # fmt: skip
    console.print(table)
    write(given.json, epochs=epochs or RECIPE["epochs"], results=results)


if __name__ == "__main__":
    main()
