"""Training a recipe: the loop is Lightning's; what a step and an epoch mean is here.

The order of the samples in an epoch and the masks of its dropout depend on the recipe's seed and the number of
the epoch, on nothing else. So an epoch that is repeated from its start computes the same numbers, and a run that
was interrupted at any point and resumed ends with the same weights, bit for bit, as one that was not.
"""

import logging
import math
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.network import decide
from unscan.trainer.neurons import Leaky, StateLeaky
from unscan.trainer.recipe import Augmentation, Optimiser, Recipe
from unscan.trainer.run import (
    FitResult,
    Run,
    RunFiles,
    build_model,
    dtype_of,
    load_run,
    load_task,
    read_recipe,
    write_rows,
    write_weights,
)
from unscan.trainer.tasks import Part, Task

__all__ = ["FitResult", "Run", "RunFiles", "evaluate", "fit", "gradients", "load_run"]


def fit(
    recipe: Recipe,
    run_dir: Path | str,
    *,
    data_dir: Path | str | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> FitResult:
    """Train a recipe in a folder and measure the result on the test part.

    The folder gets the recipe, the weights and figures after every epoch, checkpoints, TensorBoard logs, and
    at the end result.json (see `RunFiles`). With `resume` a run continues after its last finished epoch; one
    that is complete returns its result. `quiet` shows no progress.

    Ctrl-C raises KeyboardInterrupt; every finished epoch is kept, and `resume` repeats the broken one from its
    start. Raises InvalidInput when the folder already holds a run and `resume` is not given, when there is none
    to resume, or when its recipe or data differ; DamagedFile when its checkpoint cannot be read.
    """
    files = RunFiles(Path(run_dir))
    _check_folder(files, recipe, resume)
    if files.result.is_file():
        return FitResult.read(files.folder)
    task = load_task(recipe, data_dir)
    training = _Training(recipe, task, files)
    state = _read_checkpoint(files.last) if files.last.is_file() else None
    if state is not None and state["unscan"]["task"] != task.description:
        raise InvalidInput(
            f"the run {files.folder} was trained on other data: {state['unscan']['task']}; now there is: "
            f"{task.description}; name the same data directory, or train in another folder"
        )
    files.folder.mkdir(parents=True, exist_ok=True)
    recipe.write(files.recipe)
    if state is not None and _is_trained(recipe, state["unscan"]["history"]):
        training.load_state_dict(state["state_dict"])
        training.on_load_checkpoint(state)
    else:
        with _settled():
            _trainer(recipe, files, quiet).fit(training, ckpt_path=files.last if state is not None else None)
    if recipe.keep == "best":
        training.load_state_dict(_read_checkpoint(files.best)["state_dict"])
    write_weights(files.model, training.model, task)
    result = _measure(recipe, task, training, files)
    result.write()
    return result


def evaluate(
    model: nn.Module, part: Part, decision: Literal["last", "mean"], *, batch_size: int = 256
) -> tuple[float, float, dict[str, float]]:
    """Measure mean loss, accuracy and each spiking layer's spikes per neuron and step on a part of a task.

    The model is left in the mode, training or evaluation, in which it came.
    """
    spikes: dict[str, float] = {}

    def counter(name: str) -> Any:
        def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            spikes[name] = spikes.get(name, 0.0) + output.mean().item() * output.shape[1]

        return count

    hooks = [
        module.register_forward_hook(counter(name))
        for name, module in model.named_modules()
        if isinstance(module, Leaky | StateLeaky)
    ]
    was_training = model.training
    model.eval()
    loss, correct, samples = 0.0, 0, len(part.y)
    dtype = next(model.parameters()).dtype
    try:
        with torch.no_grad():
            for x, y in Batches(part, batch_size, dtype):
                scores = decide(model(x), decision)
                loss += functional.cross_entropy(scores, y, reduction="sum").item()
                correct += int((scores.argmax(dim=1) == y).sum())
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return loss / samples, correct / samples, {name: total / samples for name, total in spikes.items()}


def gradients(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    decision: Literal["last", "mean"],
    chunk_size: int | None = None,
) -> tuple[float, int]:
    """Add the gradients of the mean loss over a batch x (T, B, F), y (B,); return the loss and how many are right.

    With `chunk_size` the batch goes through the model in chunks, each loss weighted by the chunk's share of the
    batch, so that the gradients are those of the whole batch to rounding, whether or not B is a multiple.
    """
    batch = len(y)
    size = chunk_size or batch
    total, correct = 0.0, 0
    for start in range(0, batch, size):
        end = min(start + size, batch)
        scores = decide(model(x[:, start:end]), decision)
        loss = functional.cross_entropy(scores, y[start:end], reduction="sum") / batch
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
        correct += int((scores.detach().argmax(dim=1) == y[start:end]).sum())
    return total, correct


class Batches:
    """Cut a part into time-major batches (T, B, F), in order, or shuffled and augmented by seed and epoch.

    Indexing whole tensors is all there is to do; worker processes would cost more than they save.
    """

    def __init__(
        self,
        part: Part,
        batch_size: int,
        dtype: torch.dtype,
        seed: int | None = None,
        augmentation: Augmentation | None = None,
    ) -> None:
        self.part, self.batch_size, self.dtype, self.seed = part, batch_size, dtype, seed
        self.augmentation = augmentation or Augmentation()
        self.epoch = 0  # chooses order and augmentation; set it before iterating

    def __len__(self) -> int:
        return math.ceil(len(self.part.y) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        samples = len(self.part.y)
        draws = np.random.default_rng([self.seed or 0, self.epoch])
        order = torch.arange(samples) if self.seed is None else torch.from_numpy(draws.permutation(samples))
        for start in range(0, samples, self.batch_size):
            index = order[start : start + self.batch_size]
            x = _augmented(self.part.x[index], self.augmentation, draws)
            yield x.transpose(0, 1).to(self.dtype).contiguous(), self.part.y[index]


def _augmented(x: Tensor, how: Augmentation, draws: np.random.Generator) -> Tensor:
    """Shift and blur sequences x (N, T, F)."""
    steps = x.shape[1]
    if how.shift:
        later = torch.from_numpy(draws.integers(-how.shift, how.shift, len(x), endpoint=True))
        source = torch.arange(steps) - later[:, None]
        inside = (source >= 0) & (source < steps)
        x = x[torch.arange(len(x))[:, None], source.clamp(0, steps - 1)] * inside[:, :, None]
    if how.noise:
        x = x + how.noise * torch.from_numpy(draws.standard_normal(tuple(x.shape), dtype=np.float32))
    return x


class _Training(LightningModule):
    """The model, its optimiser, and what is done in a step and after an epoch."""

    def __init__(self, recipe: Recipe, task: Task, files: RunFiles) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe, self.task, self.files = recipe, task, files
        self.model = build_model(recipe, task.input_shape[-1], task.classes)
        self.decision = recipe.network.readout.decision
        held_out = round(len(task.train.y) * recipe.validation)
        border = len(task.train.y) - held_out
        if border < 1 or (recipe.validation and held_out < 1):
            raise InvalidInput(
                f"validation is {recipe.validation} of {len(task.train.y)} training samples, which leaves one "
                "of the two parts empty; allowed: a fraction that leaves samples in both"
            )
        dtype = dtype_of(recipe)
        train = Part(task.train.x[:border], task.train.y[:border])
        validation = Part(task.train.x[border:], task.train.y[border:])
        self.batches = Batches(train, recipe.batch_size, dtype, recipe.seed, recipe.augmentation)
        self.validation_batches = Batches(validation, recipe.batch_size, dtype) if held_out else None
        self.history: list[dict[str, float]] = []

    def train_dataloader(self) -> Batches:
        return self.batches

    def val_dataloader(self) -> Batches | None:
        return self.validation_batches

    def configure_optimizers(self) -> Any:
        optimiser = _optimiser(self.recipe, self.model)
        course = _Course(self.recipe.optimiser, self.recipe.epochs, len(self.batches))
        return [optimiser], [LambdaLR(optimiser, course)]

    def on_train_epoch_start(self) -> None:
        words = np.random.SeedSequence([self.recipe.seed, self.current_epoch]).generate_state(2, np.uint32)
        self.batches.epoch = self.current_epoch
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
        self.started = time.perf_counter()
        self.loss_sum, self.correct, self.seen = 0.0, 0, 0

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        x, y = batch
        optimiser, course = (
            cast(LightningOptimizer, self.optimizers()),
            cast(LRScheduler, self.lr_schedulers()),
        )
        optimiser.zero_grad()
        loss, correct = gradients(self.model, x, y, self.decision, self.recipe.chunk_size)
        if self.recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
        optimiser.step()
        course.step()
        self.loss_sum += loss * len(y)
        self.correct += correct
        self.seen += len(y)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
        x, y = batch
        scores = decide(self.model(x), self.decision)
        figures = {
            "validation_loss": functional.cross_entropy(scores, y),
            "validation_accuracy": (scores.argmax(dim=1) == y).to(scores.dtype).mean(),
        }
        self.log_dict(figures, on_step=False, on_epoch=True, batch_size=len(y), prog_bar=True)

    def on_train_epoch_end(self) -> None:
        figures = {"train_loss": self.loss_sum / self.seen, "train_accuracy": self.correct / self.seen}
        self.log_dict(figures, prog_bar=True)
        watched = self.trainer.callback_metrics
        figures |= {key: watched[key].item() for key in watched if key.startswith("validation")}
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        seconds = time.perf_counter() - self.started
        self.history.append({"epoch": self.current_epoch + 1, **figures, "lr": rate, "seconds": seconds})
        write_rows(self.files.metrics, self.history)
        write_weights(self.files.model, self.model, self.task)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["unscan"] = {"history": self.history, "task": self.task.description}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.history = list(checkpoint["unscan"]["history"])


def _optimiser(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Give each layer's weights, its biases and norm, and its neuron the rate and weight decay they are due."""
    settings = recipe.optimiser
    scales = {f"layer{number}": layer.lr_scale for number, layer in enumerate(recipe.network.layers, start=1)}
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        layer, *_, module, leaf = name.split(".")
        if module in ("linear", "norm") and scales.get(layer) == 0:
            parameter.requires_grad_(False)  # saves its gradients, and those of what stands before it
            continue
        own = module in ("neuron", "integrator") and settings.neuron_lr is not None
        lr = (settings.neuron_lr if own else settings.lr) or settings.lr
        if module in ("linear", "norm"):
            lr *= scales.get(layer, 1.0)
        decay = settings.weight_decay if module == "linear" and leaf == "weight" else 0.0
        groups.setdefault((lr, decay), []).append(parameter)
    parameters = [
        {"params": members, "lr": lr, "weight_decay": decay} for (lr, decay), members in groups.items()
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(parameters, lr=settings.lr, momentum=settings.momentum)
    kind = torch.optim.AdamW if settings.kind == "adamw" else torch.optim.Adam
    return kind(parameters, lr=settings.lr)


class _Course:
    """The factor on the learning rate at each optimiser step: warm-up, then constant or half a cosine."""

    def __init__(self, settings: Optimiser, epochs: int, steps_per_epoch: int) -> None:
        self.cosine = settings.schedule == "cosine"
        self.steps = epochs * steps_per_epoch
        self.warm_up = min(round(settings.warm_up * steps_per_epoch), self.steps)

    def __call__(self, step: int) -> float:
        if step < self.warm_up:
            return (step + 1) / (self.warm_up + 1)
        if not self.cosine:
            return 1.0
        done = (step - self.warm_up) / max(self.steps - self.warm_up, 1)
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def _trainer(recipe: Recipe, files: RunFiles, quiet: bool) -> Trainer:
    best: dict[str, Any] = {
        "monitor": recipe.watched,
        "mode": "max" if recipe.watched.endswith("accuracy") else "min",
    }
    place: dict[str, Any] = {"dirpath": files.checkpoints, "enable_version_counter": False}
    each_epoch: dict[str, Any] = {"every_n_epochs": 1, "save_on_train_epoch_end": True}
    callbacks: list[Callback] = []
    if recipe.early_stopping is not None:
        patience = recipe.early_stopping.patience
        callbacks.append(EarlyStopping(patience=patience, check_on_train_epoch_end=True, **best))
    callbacks.append(ModelCheckpoint(filename="best", **best, **place, **each_epoch))
    callbacks.append(ModelCheckpoint(filename="last", **place, **each_epoch))
    if not quiet:
        callbacks.append(RichProgressBar(leave=False))
    return Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=recipe.epochs,
        limit_val_batches=1.0 if recipe.validation else 0,
        callbacks=callbacks,
        logger=TensorBoardLogger(files.folder, name="tensorboard", version=""),
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_progress_bar=not quiet,
        enable_model_summary=False,
        deterministic=True,
        use_distributed_sampler=False,
    )


@contextmanager
def _settled() -> Iterator[None]:
    """Keep Lightning's greetings from the terminal, and leave the process as it was found.

    Lightning seeds and sets for the whole process, and answers Ctrl-C with SystemExit and a deaf process; here
    that becomes KeyboardInterrupt again.
    """
    log = logging.getLogger("lightning.pytorch")
    level, strict = log.level, torch.are_deterministic_algorithms_enabled()
    in_main_thread = threading.current_thread() is threading.main_thread()
    answer = signal.getsignal(signal.SIGINT) if in_main_thread else None
    log.setLevel(logging.WARNING)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Lightning 2.6 asks torch 2.13 in a way that it has renamed.
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            # A resumed run is meant to write where it wrote before.
            warnings.filterwarnings("ignore", r"Checkpoint directory .* exists and is not empty", UserWarning)
            yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        log.setLevel(level)
        torch.use_deterministic_algorithms(strict)
        if in_main_thread:
            signal.signal(signal.SIGINT, answer)


def _check_folder(files: RunFiles, recipe: Recipe, resume: bool) -> None:
    """Check that the folder is free for a new run, or holds this recipe's run when one is resumed."""
    if resume:
        difference = read_recipe(files).first_difference(recipe)
        if difference is not None:
            raise InvalidInput(
                f"the run {files.folder} was started with another recipe: {difference} in the one given; resume "
                f"it with its own recipe, {files.recipe}, or train in another folder"
            )
    elif files.folder.exists() and not files.folder.is_dir():
        raise InvalidInput(f"{files.folder} is a file; name a folder for the run")
    elif files.recipe.exists() or files.checkpoints.exists():
        raise InvalidInput(
            f"{files.folder} already holds a run; continue it with --resume, or name another folder"
        )


def _is_trained(recipe: Recipe, history: list[dict[str, float]]) -> bool:
    """Tell whether a run was broken off after its last epoch, before its result was written."""
    if len(history) >= recipe.epochs:
        return True
    if recipe.early_stopping is None:
        return False
    watched = [row[recipe.watched] for row in history]
    best = max(watched) if recipe.watched.endswith("accuracy") else min(watched)
    return len(watched) - 1 - watched.index(best) >= recipe.early_stopping.patience


def _read_checkpoint(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        wanted = {"state_dict", "unscan"}
        if not isinstance(content, dict) or not wanted <= content.keys():
            raise ValueError("it is no checkpoint of a run")
    except Exception as error:  # torch and pickle raise many kinds for a damaged file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedFile(
            f"the checkpoint {path} cannot be read ({reason}); delete the folder and train again"
        ) from error
    return content


def _measure(recipe: Recipe, task: Task, training: _Training, files: RunFiles) -> FitResult:
    loss, accuracy, rates = evaluate(training.model, task.test, recipe.network.readout.decision)
    last = training.history[-1]
    kept = {key: value for key, value in last.items() if key not in ("epoch", "lr", "seconds")}
    return FitResult(
        run_dir=files.folder,
        task=task.description,
        metrics=kept | {"test_loss": loss, "test_accuracy": accuracy},
        spike_rates=rates,
        epochs=len(training.history),
        seconds=sum(row["seconds"] for row in training.history),
        parameters=sum(parameter.numel() for parameter in training.model.parameters()),
    )
