"""Recipes: everything that decides what a training run computes, validated, in one YAML file."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from unscan.compiler.errors import InvalidInput
from unscan.trainer.explain import explain, shown
from unscan.trainer.settings import Augmentation, Network, Positive, Settings, Share
from unscan.trainer.tasks import TASKS, Encoding

Metric = Literal["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]


class TaskSettings(Settings):
    """Which task, with which `settings` of its own (see docs/tasks.md).

    `encoding` and `steps_per_pixel` say how brightness becomes input (see `unscan.trainer.tasks.encoding`).
    """

    name: str
    settings: Mapping[str, Any] = Field(default_factory=dict)
    encoding: Encoding = "direct"
    steps_per_pixel: Positive = 1

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in TASKS:
            raise ValueError(f"allowed: {', '.join(TASKS)}")
        return name

    @model_validator(mode="after")
    def _latency_needs_steps(self) -> Self:
        if self.encoding == "latency" and self.steps_per_pixel == 1:
            raise ValueError("steps_per_pixel is 1 with encoding latency; allowed: steps_per_pixel from 2")
        return self


class Optimiser(Settings):
    """The optimiser and the course of its learning rate.

    The rate rises over `warm_up` epochs (fractions allowed), then stays (`constant`) or falls to nothing along
    half a cosine (`cosine`). `neuron_lr` is the rate of what neurons learn themselves (decays, thresholds), by
    default `lr`; `ssm_lr` that of the state matrices and time steps of state-space layers. These, the biases and
    the norms have no weight decay.
    """

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    neuron_lr: float | None = Field(default=None, gt=0)
    ssm_lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    warm_up: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _momentum_is_of_sgd(self) -> Self:
        if self.momentum and self.kind != "sgd":
            raise ValueError(
                f"momentum is {self.momentum} with kind {self.kind}; allowed: with kind sgd only"
            )
        return self


class EarlyStopping(Settings):
    """Stop when `metric` has not improved for `patience` epochs."""

    patience: Positive
    metric: Metric = "validation_accuracy"


class Recipe(Settings):
    """A whole training run.

    `validation` is the fraction of the training part, its end, that is held out to watch; the test part is only
    ever measured at the end. `keep` says which weights are the result: those after the `last` epoch, or the
    `best` by `early_stopping.metric` (without early stopping: by validation accuracy).

    `chunk_size` cuts every batch into chunks that go through the network one after another, their gradients
    added, each weighted by its share of the batch: the gradients of the whole batch to rounding, in the memory
    of a chunk (001, section 4.2). BatchNorm takes its statistics from what it sees at once, so with it chunks
    would be another computation, and the two are refused together. Dropout and neurons that fire by chance draw
    other numbers with chunks.

    `precision` is the number format of weights and arithmetic, in bits; "bf16" keeps weights, membranes and states in
    float32 and multiplies matrices in bfloat16.

    `start_from` is the folder of a run with the same network, whose weights, statistics of norms and numbers of neurons
    the training starts from. `quantise` trains with the numbers that a profile of the compiler's `quantize` will make
    of them (see `unscan.trainer.quantisation`).
    """

    task: TaskSettings
    network: Network
    augmentation: Augmentation = Augmentation()
    optimiser: Optimiser = Optimiser()
    epochs: Positive = 30
    batch_size: Positive = 64
    chunk_size: Positive | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    validation: Share = 0.0
    keep: Literal["last", "best"] = "last"
    early_stopping: EarlyStopping | None = None
    gradient_clip: float | None = Field(default=None, gt=0)
    precision: Literal[32, 64, "bf16"] = 32
    start_from: str | None = None
    quantise: Literal["loihi2", "int8", "int16"] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chunk_size is not None and self.network.has_batch_norm:
            raise ValueError(
                f"chunk_size is {self.chunk_size} with norm batch, whose statistics over a chunk are not those "
                "of the batch; allowed: chunk_size with norm none, or norm batch without chunk_size"
            )
        if self.augmentation.noise and self.task.encoding != "direct":
            raise ValueError(
                f"augmentation.noise is {self.augmentation.noise} with encoding {self.task.encoding}, whose inputs "
                "are spikes; allowed: noise with encoding direct"
            )
        if (
            self.early_stopping
            and self.early_stopping.metric.startswith("validation")
            and not self.validation
        ):
            raise ValueError(
                f"early_stopping.metric is {self.early_stopping.metric} with validation 0; allowed: validation "
                "above 0, or a metric of the training part"
            )
        if self.keep == "best" and self.early_stopping is None and not self.validation:
            raise ValueError("keep is best with validation 0; allowed: validation above 0, or keep: last")
        if self.quantise and self.precision == "bf16":
            raise ValueError(
                f"quantise is {self.quantise} with precision bf16, which would round whole numbers again; allowed: "
                "precision 32 or 64"
            )
        if self.quantise and self.network.has_batch_norm and self.start_from is None:
            raise ValueError(
                f"quantise is {self.quantise} with norm batch and nothing to start from: norms are folded into weights "
                "with the statistics of an earlier run; allowed: start_from, the folder of such a run, or norm none"
            )
        return self

    @property
    def watched(self) -> Metric:
        """The metric by which an epoch is the best."""
        if self.early_stopping is not None:
            return self.early_stopping.metric
        return "validation_accuracy" if self.validation else "train_loss"

    @classmethod
    def read(cls, path: Path | str) -> "Recipe":
        """Read a recipe from a YAML file.

        Raises InvalidInput when the file is missing, is no YAML, or holds a key or value that is not allowed:
        file, key, what was got, what is allowed.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise InvalidInput(f"there is no recipe file {path}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"the recipe {path} cannot be read: {error}") from error
        try:
            document = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise InvalidInput(f"the recipe {path}{place} is not YAML: {problem}") from error
        if not isinstance(document, dict):
            raise InvalidInput(
                f"the recipe {path} holds {shown(document)}; wanted keys and values, among "
                f"{', '.join(cls.model_fields)}"
            )
        return cls.parse(document, source=str(path))

    @classmethod
    def parse(cls, document: Mapping[str, Any], *, source: str) -> "Recipe":
        """Validate a recipe given as nested dictionaries and lists; `source` names it in errors."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidInput(explain(error, cls, document, source)) from error

    def write(self, path: Path | str) -> None:
        """Write the recipe as YAML, every setting spelled out, so that `read` gives an equal recipe."""
        path = Path(path)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        os.replace(draft, path)

    def first_difference(
        self, other: "Recipe", *, under: str = "", apart_from: frozenset[str] = frozenset()
    ) -> str | None:
        """Name the first setting in which the two differ with both its values, or return None.

        Only settings whose path begins with `under` are compared, without those whose own name is in `apart_from`.
        """
        mine, others = (
            dict(_leaves(self.model_dump(mode="json"))),
            dict(_leaves(other.model_dump(mode="json"))),
        )
        for key in mine | others:
            if not key.startswith(under) or key.rpartition(".")[2] in apart_from:
                continue
            if mine.get(key, "absent") != others.get(key, "absent"):
                return f"{key} is {mine.get(key, 'absent')} against {others.get(key, 'absent')}"
        return None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
