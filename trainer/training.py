"""One training step and one epoch, as Lightning calls for them.

The order of the samples in an epoch and the masks of its dropout depend on the recipe's seed and the number of
the epoch, on nothing else. So an epoch that is repeated from its start computes the same numbers, and a run that
was interrupted at any point and resumed ends with the same weights, bit for bit, as one that was not.
"""

import time
from typing import Any, cast

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from unscan.compiler.errors import InvalidInput
from unscan.trainer.batches import Batch, Batches
from unscan.trainer.network import scale_starts_
from unscan.trainer.neurons import StochasticLeaky
from unscan.trainer.objective import Objective, gradients
from unscan.trainer.optimiser import Course, freeze_, optimiser_of
from unscan.trainer.quantisation import Quantised
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles, build_model, dtype_of, start_from_, write_rows, write_weights
from unscan.trainer.tasks import Part, Task


class Training(LightningModule):
    """A recipe's model with its optimiser and batches.

    Modules that have `anneal(progress)` are told before each step how much of the training is done, in [0, 1]; neurons
    that fire by chance get new chances.
    Of several processes each takes its share of every batch, and the gradients are those of the whole batch.
    The validation part is the end of the task's training part; a task with `fresh` trains on what that draws for each
    epoch instead of the rest.
    With `quantise` what runs is `quantised`, which reads its numbers off the model's, and the model is what learns.
    """

    def __init__(self, recipe: Recipe, task: Task, files: RunFiles) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.recipe, self.task, self.files = recipe, task, files
        self.objective = Objective.of(task, recipe.network.readout.decision)
        self.model = build_model(recipe, task.input_shape[-1], task.classes)
        if recipe.start_from is not None and not files.last.is_file():
            start_from_(self.model, recipe, recipe.start_from)
        freeze_(recipe, self.model)
        self.quantised: Quantised | None = None
        if recipe.quantise is not None:
            self.quantised = Quantised(self.model, recipe.network, recipe.quantise, real=task.kind == "real")
        _check_augmentation(recipe, task)
        self.annealed = [cast(Any, module) for module in self.model.modules() if hasattr(module, "anneal")]
        self.renewed = [module for module in self.model.modules() if isinstance(module, StochasticLeaky)]
        held_out = round(len(task.train.y) * recipe.validation)
        border = len(task.train.y) - held_out
        if border < 1 or (recipe.validation and held_out < 1):
            raise InvalidInput(
                f"validation is {recipe.validation} of {len(task.train.y)} training samples, which leaves one "
                "of the two parts empty; allowed: a fraction that leaves samples in both"
            )
        dtype, size = dtype_of(recipe), recipe.batch_size
        fixed = Part(task.train.x[:border], task.train.y[:border])
        train = (fixed,) if task.fresh is None else task.fresh(0, recipe.seed)
        validation = Part(task.train.x[border:], task.train.y[border:])
        self.batches = Batches(train, size, dtype, recipe.seed, recipe.augmentation, task.fresh)
        self.validation_batches = Batches((validation,), size, dtype) if held_out else None
        if recipe.start_from is None and any(layer.start == "unit" for layer in recipe.network.layers):
            scale_starts_(self.model, recipe.network, next(iter(self.batches)).x)
        self.history: list[dict[str, float]] = []

    @property
    def running(self) -> nn.Module:
        """What computes the outputs."""
        return self.model if self.quantised is None else self.quantised

    def train_dataloader(self) -> Batches:
        """Give each process its share of the batches."""
        self.batches.process, self.batches.processes = self.trainer.global_rank, self.trainer.world_size
        return self.batches

    def val_dataloader(self) -> Batches | None:
        """Give every process all of the validation part."""
        return self.validation_batches

    def configure_optimizers(self) -> Any:
        """Make the optimiser and the course of its rate."""
        optimiser = optimiser_of(self.recipe, self.model)
        course = Course(self.recipe.optimiser, self.recipe.epochs, len(self.batches))
        return [optimiser], [LambdaLR(optimiser, course)]

    def on_train_epoch_start(self) -> None:
        """Settle what is random in this epoch, in this process."""
        key = [self.recipe.seed, self.current_epoch]
        words = np.random.SeedSequence(key, spawn_key=self._process()).generate_state(2, np.uint32)
        self.batches.epoch = self.current_epoch
        torch.manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)
        self.started = time.perf_counter()
        self.loss_sum, self.right, self.asked = 0.0, 0, 0

    def _process(self) -> tuple[int, ...]:
        """Tell processes apart, the first being a single one's."""
        return (self.trainer.global_rank,) if self.trainer.global_rank else ()

    def training_step(self, batch: Batch, index: int) -> None:
        """Take one step of the optimiser."""
        optimiser, course = (
            cast(LightningOptimizer, self.optimizers()),
            cast(LRScheduler, self.lr_schedulers()),
        )
        steps = course.last_epoch
        if self.quantised is not None and index == 0:
            self.quantised.observe(batch.x, self._largest)
        for module in self.annealed:
            module.anneal(steps / (self.recipe.epochs * len(self.batches)))
        for module in self.renewed:
            module.renew(steps)
        optimiser.zero_grad()
        loss, right = gradients(
            self.running, batch.x, batch.y, self.objective, self.recipe.chunk_size,
            count=batch.asked / self.trainer.world_size, backward=self.manual_backward,
        )  # fmt: skip
        if self.recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.gradient_clip)
        optimiser.step()
        course.step()
        self.loss_sum += loss
        self.right += right
        self.asked += batch.asked

    def _largest(self, numbers: Tensor) -> Tensor:
        """Return the largest of all processes' numbers."""
        return cast(Tensor, self.trainer.strategy.reduce(numbers.clone(), reduce_op="max"))

    def validation_step(self, batch: Batch, index: int) -> None:
        """Measure a batch of the validation part."""
        loss, right = self.objective.score(self.running(batch.x), batch.y)
        figures: dict[str, Any] = {
            "validation_loss": loss / batch.asked,
            "validation_accuracy": right / batch.asked,
        }
        self.log_dict(
            figures, on_step=False, on_epoch=True, batch_size=batch.asked, prog_bar=True, sync_dist=True
        )

    def on_train_epoch_end(self) -> None:
        """Write down the epoch's figures and weights."""
        sums = self.trainer.strategy.reduce(
            torch.tensor([self.loss_sum, self.right], dtype=torch.float64), reduce_op="sum"
        )
        loss, right = cast(Tensor, sums).tolist()
        figures = {"train_loss": loss / self.asked, "train_accuracy": right / self.asked}
        self.log_dict(figures, prog_bar=True, sync_dist=True)
        watched = self.trainer.callback_metrics
        figures |= {key: watched[key].item() for key in watched if key.startswith("validation")}
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        seconds = time.perf_counter() - self.started
        self.history.append({"epoch": self.current_epoch + 1, **figures, "lr": rate, "seconds": seconds})
        if self.trainer.is_global_zero:
            write_rows(self.files.metrics, self.history)
            write_weights(self.files.model, self.model, self.task)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what a resumed run needs to know."""
        checkpoint["unscan"] = {"history": self.history, "task": self.task.description}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the history."""
        self.history = list(checkpoint["unscan"]["history"])


def _check_augmentation(recipe: Recipe, task: Task) -> None:
    """Refuse what would make other sequences of these, or leave their answers behind."""
    if recipe.augmentation.noise and task.kind == "spike":
        raise InvalidInput(
            f"augmentation.noise is {recipe.augmentation.noise}, but the inputs of the task {task.name} are spikes; "
            "allowed: noise 0"
        )
    if recipe.augmentation.shift and task.targets != "class":
        raise InvalidInput(
            f"augmentation.shift is {recipe.augmentation.shift}, but the answers of the task {task.name} stand at its "
            "steps and would not move along; allowed: shift 0"
        )
