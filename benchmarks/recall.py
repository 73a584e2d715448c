"""Train three generations of memory on associative recall, and measure them by the number of pairs.

    unscan bench recall [--out FOLDER] [--only NAME ...] [--epochs N] [--data-dir DIR] [--plot FILE]
                        [--quick] [--json FILE]

The recipes are examples/recipes/recall_*.yaml: the network of snnTorch's checkpoint with AssociativeLeaky, DeltaLeaky
or StateLeaky as its two layers of 256 neurons, trained on 2 to 6 pairs with equal settings. Each is measured on newly
drawn sequences of 2 to 20 pairs. The checkpoint itself, with its weights run as the recurrence, is beside them where
DIR (or UNSCAN_DATA) holds snntorch/associative_recall_gen2.pt. Finished trainings in FOLDER are used again, broken ones
continued.
"""

import os
import statistics
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import nn

from unscan.benchmarks.measuring import options, plotter, screen, write
from unscan.compiler.errors import InvalidInput
from unscan.trainer import AssociativeLeaky
from unscan.trainer.fit import fit, load_run
from unscan.trainer.measure import evaluate
from unscan.trainer.objective import Objective
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles
from unscan.trainer.tasks import Part, load

RECIPES = Path(__file__).resolve().parent.parent / "examples" / "recipes"
NAMES = {"AssociativeLeaky": "associative", "DeltaLeaky": "delta", "StateLeaky": "state"}
PAIRS = (2, 3, 4, 5, 6, 8, 12, 16, 20)
TRAINED = PAIRS[:5]
CHECKPOINT = "snntorch/associative_recall_gen2.pt"
OBJECTIVE = Objective("bits", "every")


def checkpoint(folder: Path) -> nn.Module | None:
    """Read snnTorch's network, if it is there, and let its recurrence be computed as it is written."""
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    model = nn.Sequential(
        OrderedDict(
            in_proj=nn.Linear(9, 256),
            gen2_1=AssociativeLeaky(256, 16, 16, fires=">"),
            mid=nn.Sequential(nn.Linear(256, 256), nn.ReLU()),
            gen2_2=AssociativeLeaky(256, 16, 16, fires=">"),
            out_proj=nn.Linear(256, 8),
        )
    )
    weights = torch.load(path, map_location="cpu", weights_only=True)
    known = model.state_dict()
    model.load_state_dict(known | {name: value for name, value in weights.items() if name in known})
    return model.eval()


def by_pairs(model: nn.Module, parts: dict[int, Part]) -> dict[str, float]:
    """Measure bit accuracy for each number of pairs."""
    return {str(pairs): evaluate(model, part, OBJECTIVE).accuracy for pairs, part in parts.items()}


def draw(path: Path, results: dict[str, dict[str, float]]) -> None:
    """Plot bit accuracy against the number of pairs."""
    pyplot = plotter()
    figure, axes = pyplot.subplots(figsize=(6, 3.6), layout="constrained")
    for name, found in results.items():
        axes.plot([int(n) for n in found], list(found.values()), marker="o", label=name)
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle=":")
    axes.axvspan(TRAINED[0], TRAINED[-1], color="grey", alpha=0.12, label="trained on")
    axes.set(xlabel="pairs", ylabel="bit accuracy", ylim=(0.48, 1.01), xticks=PAIRS)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def main(arguments: list[str] | None = None) -> None:
    """Run the trainings and print the table."""
    parser = options(__doc__, quick="one short epoch of each")
    parser.add_argument("--out", type=Path, default=Path("runs/recall"), metavar="FOLDER")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    parser.add_argument("--epochs", type=int, help="of 500 steps; by default those of the recipes")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", default=os.environ.get("UNSCAN_DATA"))
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curve into FILE (.svg, .png)")
    given = parser.parse_args(arguments)
    plotter(given.plot is not None)
    unknown = [name for name in given.only or () if name not in NAMES]
    if unknown:
        raise InvalidInput(f"There is no recipe for {unknown[0]!r}; choose from {', '.join(NAMES)}.")
    count = 200 if given.quick else 4000
    drawn = load(
        "associative_recall", settings={"pairs": list(PAIRS), "train": len(PAIRS), "test": count, "seed": 1}
    )
    parts = {pairs: drawn.tests[f"{pairs} pairs"] for pairs in PAIRS}
    console = screen()
    results: dict[str, dict[str, float]] = {}
    steps: dict[str, Any] = {}
    for name in given.only or NAMES:
        recipe = Recipe.read(RECIPES / f"recall_{NAMES[name]}_leaky.yaml")
        if given.quick:
            recipe = recipe.model_copy(
                update={
                    "epochs": 1,
                    "task": recipe.task.model_copy(update={"settings": {"train": 640, "test": 50}}),
                }
            )
        if given.epochs:
            recipe = recipe.model_copy(update={"epochs": given.epochs})
        console.print(f"training {name} ...", style="dim")
        run_dir = given.out / NAMES[name]
        result = fit(recipe, run_dir, resume=RunFiles(run_dir).recipe.is_file())
        steps[name] = {
            "epochs": result.epochs,
            "minutes": result.seconds / 60,
            "parameters": result.parameters,
        }
        results[name] = by_pairs(load_run(run_dir).model, parts)
    known = checkpoint(Path(given.data_dir)) if given.data_dir else None
    if known is not None:
        results["snnTorch's checkpoint"] = by_pairs(known, parts)
    table = Table(title=f"Bit accuracy by number of pairs, {count:,} new sequences each; chance 0.5")
    table.add_column("memory")
    for title in ("mean 2-6", *map(str, PAIRS)):
        table.add_column(title, justify="right")
    for name, found in results.items():
        mean = statistics.mean(found[str(pairs)] for pairs in TRAINED)
        table.add_row(name, f"{mean:.4f}", *(f"{value:.3f}" for value in found.values()))
    console.print(table)
    if given.plot:
        draw(given.plot, results)
    write(given.json, sequences=count, bit_accuracy=results, training=steps)


if __name__ == "__main__":
    main()
