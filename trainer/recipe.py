"""Recipes: everything that decides what a training run computes, validated, in one YAML file."""

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from unscan.compiler.errors import InvalidInput
from unscan.trainer.surrogate import SURROGATES
from unscan.trainer.tasks import TASKS, Encoding

__all__ = [
    "Augmentation",
    "EarlyStopping",
    "Layer",
    "LeakyNeuron",
    "Network",
    "Neuron",
    "Optimiser",
    "Readout",
    "Recipe",
    "StateLeakyNeuron",
    "TaskSettings",
]

Positive = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
Metric = Literal["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class TaskSettings(_Settings):
    """Which task, and how its brightness becomes input (see `unscan.trainer.tasks.encoding`)."""

    name: str
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


class _Spiking(_Settings):
    """What all spiking neurons share.

    `beta_to` spreads the decays over the channels, from `beta` in the first to `beta_to` in the last, with
    1 - beta evenly spaced on a logarithmic scale. Without it one beta serves the whole layer.
    """

    beta: Decay = 0.9
    beta_to: Decay | None = None
    threshold: float = Field(default=1.0, gt=0)
    fires: Literal[">=", ">"] = ">="
    gain: Literal["1", "1-beta"] = "1"
    learn_beta: bool = False
    learn_threshold: bool = False
    surrogate: str = "atan"
    surrogate_width: float | None = Field(default=None, gt=0)

    @field_validator("surrogate")
    @classmethod
    def _known(cls, surrogate: str) -> str:
        if surrogate not in SURROGATES:
            raise ValueError(f"allowed: {', '.join(SURROGATES)}")
        return surrogate

    @field_validator("gain", mode="before")
    @classmethod
    def _gain_as_text(cls, gain: Any) -> Any:
        return "1" if gain == 1 else gain


class LeakyNeuron(_Spiking):
    """The LIF neuron with its reset, trained exactly (`unscan.trainer.neurons.Leaky`)."""

    kind: Literal["leaky"] = "leaky"
    reset: Literal["zero", "subtract", "none"] = "zero"
    phase: Literal["now", "next"] = "now"
    backward: Literal["bptt", "sltt"] = "bptt"


class StateLeakyNeuron(_Spiking):
    """The neuron without reset, parallel in time (`unscan.trainer.neurons.StateLeaky`)."""

    kind: Literal["state_leaky"]


Neuron = Annotated[LeakyNeuron | StateLeakyNeuron, Field(discriminator="kind")]


class Layer(_Settings):
    """One layer: linear, norm, neuron, dropout.

    `norm: batch` normalises each channel over time and batch before the neuron. `residual` adds the layer's
    input to its output and needs both equally wide. `start: clocks` is a starting point for a layer that sees
    one or few numbers at a time (`unscan.trainer.network.start_as_clocks_`). `lr_scale` multiplies the learning
    rate of the layer's weights; 0 leaves them as they start.
    """

    width: Positive
    neuron: Neuron
    norm: Literal["none", "batch"] = "none"
    dropout: float = Field(default=0.0, ge=0, lt=1)
    residual: bool = False
    start: Literal["default", "clocks"] = "default"
    lr_scale: float = Field(default=1.0, ge=0)


class Readout(_Settings):
    """The last layer: linear, then a leaky integrator u_t = beta u_{t-1} + x_t for each class.

    `decision` takes the class from the integrator's `last` step or from its `mean` over time.
    """

    kind: Literal["leaky_integrator"] = "leaky_integrator"
    beta: float = Field(default=0.99, gt=0, le=1)
    gain: Literal["1", "1-beta"] = "1"
    learn_beta: bool = False
    decision: Literal["last", "mean"] = "last"


class Network(_Settings):
    """The layers from input to readout."""

    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]
    readout: Readout = Readout()

    @model_validator(mode="after")
    def _residual_widths(self) -> Self:
        for index in range(1, len(self.layers)):
            before, layer = self.layers[index - 1].width, self.layers[index].width
            if self.layers[index].residual and before != layer:
                raise ValueError(
                    f"layers.{index} is residual with width {layer} after width {before}; "
                    f"allowed: width {before}, or residual: false"
                )
        return self


class Optimiser(_Settings):
    """The optimiser and the course of its learning rate.

    The rate rises over `warm_up` epochs (fractions allowed), then stays (`constant`) or falls to nothing along
    half a cosine (`cosine`). `neuron_lr` is the rate of what neurons learn themselves (decays, thresholds), by
    default `lr`; these and the biases have no weight decay.
    """

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    neuron_lr: float | None = Field(default=None, gt=0)
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


class Augmentation(_Settings):
    """Vary the training sequences anew in each epoch.

    `shift` moves each sequence by up to so many steps earlier or later, zeros filling the gap; `noise` is the
    standard deviation of normal noise added to real inputs.
    """

    shift: Annotated[int, Field(ge=0)] = 0
    noise: float = Field(default=0.0, ge=0)


class EarlyStopping(_Settings):
    """Stop when `metric` has not improved for `patience` epochs."""

    patience: Positive
    metric: Metric = "validation_accuracy"


class Recipe(_Settings):
    """A whole training run.

    `validation` is the fraction of the training part, its end, that is held out to watch; the test part is only
    ever measured at the end. `keep` says which weights are the result: those after the `last` epoch, or the
    `best` by `early_stopping.metric` (without early stopping: by validation accuracy).

    `chunk_size` cuts every batch into chunks that go through the network one after another, their gradients
    added, each weighted by its share of the batch: the gradients of the whole batch to rounding, in the memory
    of a chunk (001, section 4.2). BatchNorm takes its statistics from what it sees at once, so with it chunks
    would be another computation, and the two are refused together. Dropout draws other masks with chunks.
    """

    task: TaskSettings
    network: Network
    augmentation: Augmentation = Augmentation()
    optimiser: Optimiser = Optimiser()
    epochs: Positive = 30
    batch_size: Positive = 64
    chunk_size: Positive | None = None
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    validation: float = Field(default=0.0, ge=0, lt=1)
    keep: Literal["last", "best"] = "last"
    early_stopping: EarlyStopping | None = None
    gradient_clip: float | None = Field(default=None, gt=0)
    precision: Literal[32, 64] = 32

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.chunk_size is not None and any(layer.norm == "batch" for layer in self.network.layers):
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
                f"the recipe {path} holds {_shown(document)}; wanted keys and values, among "
                f"{', '.join(cls.model_fields)}"
            )
        return cls.parse(document, source=str(path))

    @classmethod
    def parse(cls, document: Mapping[str, Any], *, source: str) -> "Recipe":
        """Validate a recipe given as nested dictionaries and lists; `source` names it in errors."""
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            raise InvalidInput(_explain(error, document, source)) from error

    def write(self, path: Path | str) -> None:
        """Write the recipe as YAML, every setting spelled out, so that `read` gives an equal recipe."""
        path = Path(path)
        draft = path.with_name(f".{path.name}.draft")
        draft.write_text(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
        os.replace(draft, path)

    def first_difference(self, other: "Recipe") -> str | None:
        """Name the first setting in which the two differ with both its values, or return None."""
        mine, others = (
            dict(_leaves(self.model_dump(mode="json"))),
            dict(_leaves(other.model_dump(mode="json"))),
        )
        for key in mine | others:
            if mine.get(key, "absent") != others.get(key, "absent"):
                return f"{key} is {mine.get(key, 'absent')} against {others.get(key, 'absent')}"
        return None


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _explain(error: ValidationError, document: Mapping[str, Any], source: str) -> str:
    """Turn pydantic's list into one paragraph about its first entry: key, got, allowed."""
    entries = error.errors(include_url=False)
    # a list whose entry failed is reported as too short besides
    first, *others = [entry for entry in entries if entry["type"] != "too_short"] or entries
    path = _path(first["loc"], document)
    key = ".".join(map(str, path))
    text = f"the recipe {source}: "
    if first["type"] == "extra_forbidden":
        allowed = list(_model_at(first["loc"][:-1]).model_fields)
        close = difflib.get_close_matches(str(path[-1]), allowed, n=1)
        text += f"unknown key {key}; allowed here: {', '.join(allowed)}"
        text += f"; did you mean {close[0]}?" if close else ""
    elif first["type"] == "missing":
        text += f"{key} is missing"
    elif first["type"] == "value_error":
        said = str(first["ctx"]["error"])
        if said.startswith("allowed"):
            text += f"{key} is {_shown(first['input'])}; {said}"
        else:
            text += f"{key}.{said}" if key else said
    elif first["type"] in ("union_tag_invalid", "union_tag_not_found"):
        kind = first["input"].get("kind") if isinstance(first["input"], dict) else first["input"]
        got = "is missing" if kind is None else f"is {_shown(kind)}"
        text += f"{key}.kind {got}; allowed: {first.get('ctx', {}).get('expected_tags', _kinds())}"
    else:
        message = first["msg"].removeprefix("Input should be ").removeprefix("Value should be ")
        text += f"{key} is {_shown(first['input'])}; allowed: {message[:1].lower()}{message[1:]}"
    return text + (f" (and {len(others)} more)" if others else "")


def _kinds() -> str:
    neurons = get_args(get_args(Neuron)[0])
    return ", ".join(repr(get_args(neuron.model_fields["kind"].annotation)[0]) for neuron in neurons)


def _path(loc: Sequence[str | int], document: Any) -> list[str | int]:
    """Drop from pydantic's location what is not a key of the document: the tags of unions."""
    path: list[str | int] = []
    for position, part in enumerate(loc):
        last = position == len(loc) - 1
        if isinstance(document, dict) and (part in document or last):
            document = document.get(part)
        elif isinstance(document, list | tuple) and isinstance(part, int) and part < len(document):
            document = document[part]
        else:
            continue
        path.append(part)
    return path


def _model_at(loc: Sequence[str | int]) -> type[BaseModel]:
    """Find the settings class at pydantic's location, choosing among a union's by the tag in it."""
    choices: list[type[BaseModel]] = [Recipe]
    for part in loc:
        if isinstance(part, int):
            continue
        tagged = [choice for choice in choices if len(choices) > 1 and _tag(choice) == part]
        inside = [] if tagged else list(_models_in(choices[0].model_fields[part].annotation))
        choices = tagged or inside
    return choices[0]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _tag(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return get_args(field.annotation)[0] if field is not None else None


def _shown(value: Any) -> str:
    text = (
        repr(value)
        if not isinstance(value, dict | list)
        else "a list"
        if isinstance(value, list)
        else "a mapping"
    )
    return text if len(text) <= 60 else text[:57] + "..."
