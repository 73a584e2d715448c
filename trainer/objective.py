"""What a network is asked, and how far its outputs are from it: loss, and how many answers are right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from unscan.compiler.errors import InvalidInput
from unscan.trainer.network import decide
from unscan.trainer.tasks.task import IGNORED, Targets, Task


class Score(NamedTuple):
    """The sum of the losses over the answers asked for, and how many of these are right."""

    loss: Tensor
    right: int


@dataclass(frozen=True)
class Objective:
    """Cross-entropy for what a task's `targets` are, with the readout's `decision` where one answer is asked.

    class: of the scores that `decide` makes of the outputs. classes: of the outputs of each step. bits: binary,
    of each output as a logit. Targets that are IGNORED count nowhere.
    """

    targets: Targets
    decision: str

    @classmethod
    def of(cls, task: Task, decision: str) -> "Objective":
        """Match a task with a readout; raises InvalidInput when the one asks at other steps than the other answers."""
        if (task.targets == "class") == (decision == "every"):
            wanted = "last or mean" if task.targets == "class" else "every"
            raise InvalidInput(
                f"network.readout.decision is {decision}, but the task {task.name} asks for "
                f"{'one class a sequence' if task.targets == 'class' else f'{task.targets} at its steps'}; "
                f"allowed: {wanted}"
            )
        return cls(task.targets, decision)

    def asked(self, y: Tensor) -> int:
        """Count the answers that targets y (B, ...) ask for."""
        return int((y != IGNORED).sum())

    def score(self, outputs: Tensor, y: Tensor) -> Score:
        """Compare outputs (T, B, O) with targets y: (B,), (B, T) or (B, T, O)."""
        wanted = y != IGNORED
        if self.targets == "bits":
            logits = outputs.transpose(0, 1)
            bits = y.clamp(min=0).to(outputs.dtype)
            losses = functional.binary_cross_entropy_with_logits(logits, bits, reduction="none")
            return Score((losses * wanted).sum(), int((((logits >= 0) == (y == 1)) & wanted).sum()))
        scores = decide(outputs, self.decision) if self.targets == "class" else outputs.transpose(0, 1)
        loss = functional.cross_entropy(
            scores.flatten(0, -2), y.flatten(), ignore_index=IGNORED, reduction="sum"
        )
        return Score(loss, int(((scores.argmax(dim=-1) == y) & wanted).sum()))


def gradients(
    model: torch.nn.Module,
    x: Tensor,
    y: Tensor,
    objective: Objective,
    chunk_size: int | None = None,
    *,
    count: float | None = None,
    backward: Callable[[Tensor], Any] = Tensor.backward,
) -> tuple[float, int]:
    """Add the gradients of the mean loss over a batch x (T, B, F), y (B, ...); return its sum
    and how many are right.

    With `chunk_size` the batch goes through the model in chunks, each loss weighted as in the whole, so that the
    gradients are those of the whole batch to rounding, whether or not B is a multiple. `count` divides the sum of the
    losses, by default the number of answers asked; `backward` is called for the last chunk, once.
    """
    batch = len(y)
    size = chunk_size or batch
    count = objective.asked(y) if count is None else count
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    total, right = 0.0, 0
    for start in range(0, batch, size):
        end = min(start + size, batch)
        found = objective.score(model(x[:, start:end]), y[start:end])
        if end == batch:
            backward(found.loss / count)
        else:  # leaves alone the hooks with which several processes share their gradients, for the last to call
            pieces = torch.autograd.grad(found.loss / count, parameters, allow_unused=True)
            for parameter, piece in zip(parameters, pieces, strict=True):
                if piece is not None:
                    parameter.grad = piece if parameter.grad is None else parameter.grad + piece
        total += found.loss.item()
        right += found.right
    return total, right
