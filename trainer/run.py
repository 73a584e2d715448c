"""A training run on disk: one folder that holds the recipe, the weights, the checkpoints and the figures."""

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer import tasks
from unscan.trainer.network import build
from unscan.trainer.recipe import Recipe
from unscan.trainer.tasks import Task
from unscan.trainer.tasks.task import Kind


@dataclass(frozen=True)
class RunFiles:
    """Where a run keeps its files. Each is written under another name and then renamed, so none is ever half."""

    folder: Path

    @property
    def recipe(self) -> Path:
        """The recipe, every setting spelled out."""
        return self.folder / "recipe.yaml"

    @property
    def model(self) -> Path:
        """The weights: during training those of the last finished epoch, then those that the recipe keeps."""
        return self.folder / "model.safetensors"

    @property
    def metrics(self) -> Path:
        """One row for each epoch."""
        return self.folder / "metrics.csv"

    @property
    def result(self) -> Path:
        """The final figures; it exists once the run is complete."""
        return self.folder / "result.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of `last.ckpt` and `best.ckpt`."""
        return self.folder / "checkpoints"

    @property
    def last(self) -> Path:
        """The state of training after the last finished epoch."""
        return self.checkpoints / "last.ckpt"

    @property
    def best(self) -> Path:
        """The state of training after the epoch that was best by the watched metric."""
        return self.checkpoints / "best.ckpt"


@dataclass(frozen=True)
class FitResult:
    """What a complete run came to.

    `metrics` are loss and accuracy of the training part in its last epoch, of the validation part if there is
    one, and of the test part with the weights that were kept. `seconds` is the time spent in training epochs,
    over all resumes. `spike_rates` are spikes per neuron and step on the test part, for each spiking layer.
    """

    run_dir: Path
    task: str
    metrics: dict[str, float]
    spike_rates: dict[str, float]
    epochs: int
    seconds: float
    parameters: int

    @property
    def files(self) -> RunFiles:
        """Where the run keeps its files."""
        return RunFiles(self.run_dir)

    def write(self) -> None:
        """Write result.json."""
        content = {key: value for key, value in asdict(self).items() if key != "run_dir"}
        write_text(self.files.result, json.dumps(content, indent=2) + "\n")

    @classmethod
    def read(cls, run_dir: Path) -> "FitResult":
        """Read result.json; raises DamagedFile when it does not hold a result."""
        path = RunFiles(run_dir).result
        try:
            return cls(run_dir=run_dir, **json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise DamagedFile(f"{path} does not hold the result of a run ({error}); train again") from error


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model in evaluation mode, its recipe, and whether its inputs are real numbers or spikes."""

    recipe: Recipe
    model: nn.Sequential
    kind: Kind

    def task(self, data_dir: Path | str | None = None) -> Task:
        """Load the task that the model was trained on."""
        return load_task(self.recipe, data_dir)


def load_run(run_dir: Path | str) -> Run:
    """Load a run's recipe and weights, those after the last finished epoch if it is not complete.

    Raises InvalidInput when the folder holds no run or no finished epoch, DamagedFile when the weights cannot
    be read or do not belong to the recipe. Nothing in the folder is executed.
    """
    files = RunFiles(Path(run_dir))
    recipe = read_recipe(files)
    if not files.model.is_file():
        raise InvalidInput(f"the run {run_dir} has no finished epoch yet; continue it with --resume")
    weights, shape = _read_weights(files.model)
    model = build_model(recipe, shape.in_features, shape.classes)
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DamagedFile(
            f"{files.model} does not hold the weights of {files.recipe} ({reason}); train again"
        ) from error
    return Run(recipe, model.eval(), shape.kind)


LEARNS = ("alpha", "beta", "threshold", "kappa", "rho", "weight", "reset")
TRAINS_ONLY = frozenset(
    {f"learn_{name}" for name in LEARNS}
    | {"lr_scale", "dropout", "start", "surrogate", "surrogate_width", "backward", "form"}
)
"""Settings of a network that its training alone sees."""


def start_from_(model: nn.Module, recipe: Recipe, run_dir: Path | str) -> None:
    """Give a recipe's model what a run has learned: weights, statistics of norms and numbers of neurons.

    Raises InvalidInput when the run's network, or what goes into it and comes out, is another.
    """
    run = load_run(run_dir)
    difference = run.recipe.first_difference(recipe, under="network.", apart_from=TRAINS_ONLY)
    if difference is not None:
        raise InvalidInput(
            f"start_from is {run_dir}, a run of another network: {difference} in this recipe; wanted: the same "
            f"network, apart from {', '.join(sorted(TRAINS_ONLY))}"
        )
    try:
        model.load_state_dict(run.model.state_dict())
    except RuntimeError as error:
        raise InvalidInput(
            f"start_from is {run_dir}, a run on {run.recipe.task.name}, whose inputs or answers have other widths than "
            f"those of this recipe's task ({' '.join(str(error).split())})"
        ) from error


def read_recipe(files: RunFiles) -> Recipe:
    """Read a run's recipe; raises InvalidInput when the folder is missing or holds no run."""
    if not files.folder.is_dir():
        raise InvalidInput(
            f"there is no run folder {files.folder}; name one that `unscan train RECIPE --out FOLDER` wrote"
        )
    if not files.recipe.is_file():
        raise InvalidInput(
            f"{files.folder} holds no run: it lacks {files.recipe.name}; name a folder that `unscan train RECIPE --out "
            "FOLDER` wrote"
        )
    return Recipe.read(files.recipe)


def load_task(recipe: Recipe, data_dir: Path | str | None = None) -> Task:
    """Load the task that a recipe names, encoded as it says."""
    settings = recipe.task
    return tasks.load(
        settings.name,
        settings=settings.settings,
        encoding=settings.encoding,
        steps_per_pixel=settings.steps_per_pixel,
        data_dir=data_dir,
    )


def build_model(recipe: Recipe, in_features: int, classes: int) -> nn.Sequential:
    """Build a recipe's model in its precision, with weights drawn from its seed."""
    standing = torch.get_default_dtype()
    torch.set_default_dtype(dtype_of(recipe))
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return build(recipe.network, in_features, classes)
    finally:
        torch.set_default_dtype(standing)


def dtype_of(recipe: Recipe) -> torch.dtype:
    """Give the number format of a recipe's precision."""
    return torch.float64 if recipe.precision == 64 else torch.float32


@dataclass(frozen=True)
class _Shape:
    """What is stored beside the weights: how many features go in, how many classes come out, the kind of inputs."""

    in_features: int
    classes: int
    kind: Kind


def write_weights(path: Path, model: nn.Module, task: Task) -> None:
    """Write a model's parameters and buffers, how many features go in, of which kind, and classes come out."""
    draft = _draft(path)
    arrays = {name: value.contiguous() for name, value in model.state_dict().items()}
    shape = _Shape(task.input_shape[-1], task.classes, task.kind)
    # One entry only: the order of several is not fixed, and equal weights shall give equal files.
    save_file(arrays, draft, metadata={"shape": json.dumps(asdict(shape))})
    os.replace(draft, path)


def _read_weights(path: Path) -> tuple[dict[str, Tensor], _Shape]:
    try:
        with safe_open(path, framework="pt") as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a mapping
            shape = json.loads((file.metadata() or {})["shape"])
        if shape["kind"] not in get_args(Kind):
            raise ValueError(f"kind is {shape['kind']!r}")
        return weights, _Shape(int(shape["in_features"]), int(shape["classes"]), shape["kind"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
        raise DamagedFile(f"{path} does not hold the weights of a run ({error}); train again") from error


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of figures as CSV, with the keys of the first as the head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    draft = _draft(path)
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.draft")
