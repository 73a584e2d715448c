"""What a task is: labelled sequences, cut into a training and a test part."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from torch import Tensor

Kind = Literal["real", "spike"]
Targets = Literal["class", "classes", "bits"]

IGNORED = -1
"""The target of a step, or of a bit, where no answer is asked."""


class Part(NamedTuple):
    """Sequences `x` (N, T, F) of one length and their targets `y`, whose shape and type `Task.targets` names.

    `x` is float32, or int8 where it would fill the memory and holds 0 and 1 only; a batch is cast when it is cut.
    """

    x: Tensor
    y: Tensor


@dataclass(frozen=True, eq=False)
class Task:
    """A classification of sequences, of their steps, or of bits at their steps.

    `description` names the source and the split, because a figure means nothing without them. `input_shape` is
    the shape of one step of one sample; `steps` the length T; `kind` says whether the inputs are real numbers or
    spikes (0 or 1).

    `targets` says what is asked, of a network with `classes` outputs:

    - **class**: one class a sequence, `y` (N,) int64.
    - **classes**: one class a step, `y` (N, T) int64, IGNORED where no answer is asked.
    - **bits**: `classes` bits a step, `y` (N, T, O) int8, each 0, 1, or IGNORED where no answer is asked.

    `chance` is the accuracy of a guess, of a class or of a single bit, over the answers that are asked.

    `tests` holds further test parts by name. `fresh(epoch, seed)` draws the training parts of an epoch, a pure
    function of its arguments; None where the data is fixed. Their parts have `train`'s features and kind of targets,
    and a length T of their own: a task of several sizes has one of each, and `train` and `test` are of the largest.
    The parts of `fresh` have the same shapes in every epoch and as many sequences as `train`, all together.
    """

    name: str
    description: str
    classes: int
    chance: float
    input_shape: tuple[int, ...]
    steps: int
    kind: Kind
    train: Part
    test: Part
    targets: Targets = "class"
    fresh: Callable[[int, int], tuple[Part, ...]] | None = None
    tests: Mapping[str, Part] = field(default_factory=dict)
