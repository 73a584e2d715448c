"""What a task is: labelled sequences, cut into a training and a test part."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from torch import Tensor


class Part(NamedTuple):
    """Sequences `x` (N, T, F) and their classes `y` (N,)."""

    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """A classification of sequences.

    `description` names the source and the split, because a figure means nothing without them. `chance` is the
    accuracy of a guess; `input_shape` the shape of one step of one sample; `steps` the length T; `kind` says
    whether the inputs are real numbers or spikes (0 or 1).
    """

    name: str
    description: str
    classes: int
    chance: float
    input_shape: tuple[int, ...]
    steps: int
    kind: Literal["real", "spike"]
    train: Part
    test: Part
