"""Training a recipe in a folder: the loop is Lightning's, a step and an epoch are those of `training`."""

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer.measure import evaluate, is_approximate, measure_gap
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import (
    FitResult,
    Run,
    RunFiles,
    load_run,
    load_task,
    read_recipe,
    write_weights,
)
from unscan.trainer.tasks import Task
from unscan.trainer.training import Training

__all__ = ["FitResult", "Machine", "Run", "RunFiles", "fit", "load_run"]


@dataclass(frozen=True)
class Machine:
    """What trains: Lightning's accelerator, the number of devices on each node, the nodes, and the strategy."""

    accelerator: str = "cpu"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"

    @property
    def processes(self) -> int:
        """How many processes share a batch."""
        return self.devices * self.nodes


def is_first_process() -> bool:
    """Tell whether this process is the one of several that writes and speaks."""
    return os.environ.get("LOCAL_RANK", "0") == os.environ.get("NODE_RANK", "0") == "0"


def fit(
    recipe: Recipe,
    run_dir: Path | str,
    *,
    data_dir: Path | str | None = None,
    resume: bool = False,
    quiet: bool = False,
    machine: Machine | None = None,
) -> FitResult:
    """Train a recipe in a folder and measure the result on the test part.

    The folder gets the recipe, the weights and figures after every epoch, checkpoints, TensorBoard logs, and
    at the end result.json (see `RunFiles`). With `resume` a run continues after its last finished epoch; one
    that is complete returns its result. `quiet` shows no progress. With a `machine` of several devices or nodes the
    processes share every batch; the gradients are those of one process, but dropout draws other masks.

    Ctrl-C raises KeyboardInterrupt; every finished epoch is kept, and `resume` repeats the broken one from its
    start. Raises InvalidInput when the folder already holds a run and `resume` is not given, when there is none
    to resume, when its recipe or data differ, or for a machine that is not there; DamagedFile when its checkpoint
    cannot be read.
    """
    machine = machine or Machine()
    files = RunFiles(Path(run_dir))
    first = is_first_process()
    if first:  # the other processes start when the folder is already in use
        _check_folder(files, recipe, resume)
    if files.result.is_file():
        return FitResult.read(files.folder)
    task = load_task(recipe, data_dir)
    training = Training(recipe, task, files)
    state = _read_checkpoint(files.last) if files.last.is_file() else None
    if state is not None and state["unscan"]["task"] != task.description:
        raise InvalidInput(
            f"the run {files.folder} was trained on other data: {state['unscan']['task']}; now there is: "
            f"{task.description}; name the same data directory, or train in another folder"
        )
    if machine.processes > 1 and machine.accelerator == "cpu" and recipe.network.has_batch_norm:
        raise InvalidInput(
            f"norm batch takes its statistics over the whole batch, which {machine.processes} processes on CPUs cannot "
            "share; train in one process, on GPUs, or with norm layer or none"
        )
    with _settled():
        trainer = _trainer(recipe, files, quiet, machine)
        if first:
            try:
                files.folder.mkdir(parents=True, exist_ok=True)
            except OSError as fault:
                raise InvalidInput(
                    f"the run's folder {files.folder} cannot be made ({fault.strerror}); name one with --out in a "
                    "folder that you may write to"
                ) from None
            recipe.write(files.recipe)
        if state is not None and _is_trained(recipe, state["unscan"]["history"]):
            training.load_state_dict(state["state_dict"])
            training.on_load_checkpoint(state)
        else:
            trainer.fit(training, ckpt_path=files.last if state is not None else None)
    if recipe.keep == "best":
        training.load_state_dict(_read_checkpoint(files.best)["state_dict"])
    result = _measure(recipe, task, training, files)
    if first:
        write_weights(files.model, training.model, task)
        result.write()
    return result


def _trainer(recipe: Recipe, files: RunFiles, quiet: bool, machine: Machine) -> Trainer:
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
    try:
        return Trainer(
            accelerator=machine.accelerator,
            devices=machine.devices,
            num_nodes=machine.nodes,
            strategy=machine.strategy,
            precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
            sync_batchnorm=machine.accelerator != "cpu",
            max_epochs=recipe.epochs,
            limit_val_batches=1.0 if recipe.validation else 0,
            callbacks=callbacks,
            logger=TensorBoardLogger(files.folder, name="tensorboard", version=""),
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            enable_progress_bar=not quiet,
            enable_model_summary=False,
            deterministic=machine.accelerator == "cpu",
            use_distributed_sampler=False,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise InvalidInput(
            f"Training cannot be set up with accelerator {machine.accelerator}, {machine.devices} device(s), "
            f"{machine.nodes} node(s) and strategy {machine.strategy}: {str(error).splitlines()[0]}"
        ) from error


@contextmanager
def _settled() -> Iterator[None]:
    """Keep Lightning's greetings from the terminal, and leave the process as it was found.

    Lightning seeds and sets for the whole process, and answers Ctrl-C with SystemExit and a deaf process; here
    that becomes KeyboardInterrupt again.
    """
    logs = {log: log.level for log in map(logging.getLogger, ("lightning.pytorch", "lightning.fabric"))}
    strict = torch.are_deterministic_algorithms_enabled()
    in_main_thread = threading.current_thread() is threading.main_thread()
    answer = signal.getsignal(signal.SIGINT) if in_main_thread else None
    for log in logs:
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
        for log, level in logs.items():
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


def _measure(recipe: Recipe, task: Task, training: Training, files: RunFiles) -> FitResult:
    """Measure the test parts, and the gap to the deployed neuron where training used another."""
    objective, model = training.objective, training.model
    tested = evaluate(model, task.test, objective)
    figures = {"test_loss": tested.loss, "test_accuracy": tested.accuracy}
    for name, part in task.tests.items():
        found = tested if part is task.test else evaluate(model, part, objective)
        figures[f"test_accuracy, {name}"] = found.accuracy
    if is_approximate(model):
        gap = measure_gap(model, task.test, objective)
        figures |= {"deployed_test_accuracy": gap.deployed.accuracy, "deployed_spike_f1": gap.f1}
    if training.quantised is not None:
        figures["quantised_test_accuracy"] = evaluate(
            training.quantised.frozen(), task.test, objective
        ).accuracy
    last = training.history[-1]
    kept = {key: value for key, value in last.items() if key not in ("epoch", "lr", "seconds")}
    return FitResult(
        run_dir=files.folder,
        task=task.description,
        metrics=kept | figures,
        spike_rates=tested.spike_rates,
        epochs=len(training.history),
        seconds=sum(row["seconds"] for row in training.history),
        parameters=sum(parameter.numel() for parameter in training.model.parameters()),
    )
