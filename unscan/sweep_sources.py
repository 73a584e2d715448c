"""Where the models of a sweep come from: runs, graphs' files, classes in Python files, recipes; each with a digest."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, model_validator

from unscan import __version__
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Kind
from unscan.compiler.nodes.neurons import Phase, Reset
from unscan.recordings import settings_of
from unscan.trainer.explain import shown
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles
from unscan.trainer.settings import Positive, Settings


def listed(value: Any) -> Any:
    """Return a list, of one where a value stands alone."""
    return value if isinstance(value, list | tuple) else [value]


class Reading(Settings):
    """How a `path` is read that is a class in a Python file, FILE.py:NAME, or a NIR file of others: the options of
    `unscan compile` for it, by the names of `unscan.sources.read_graph`.
    """

    weights: str | None = None
    arguments: Mapping[str, Any] | None = None
    shape: Annotated[tuple[Positive, ...], BeforeValidator(listed)] | None = None
    kind: Kind | None = None
    stepwise: bool = False
    static: bool = False
    steps: Positive | None = None
    output: Annotated[int, Field(ge=0)] | None = None
    dt: Annotated[float, Field(gt=0)] | None = None
    nir_dialect: str | None = None
    nir_reset: Reset | None = None
    nir_phase: Phase | None = None


class SourceSettings(Settings):
    """Where a model comes from: `path`, a run's folder, a graph's file or FILE.py:NAME, or a `recipe` that is trained
    first.

    `read` says how such a class, or a NIR file of others, is read.

    Each of a recipe's `settings` is a list of values for the setting at its dotted key, such as
    `network.layers.0.neuron.beta`; all are combined. `input` and `labels` are arrays in place of the task's test part,
    `training_input` one in place of its training part, on which is measured what calibrate and quantize
    need. With `event_dt` they are files of events, gathered in steps of so many seconds; `event` says more of them in
    the words of the command line's `--event`, such as sensor=34x34. `decision` says how outputs become a class, where
    the model does not.
    """

    path: str | None = None
    recipe: str | None = None
    name: str | None = None
    read: Reading = Reading()
    settings: Mapping[str, Annotated[tuple[Any, ...], BeforeValidator(listed), Field(min_length=1)]] = Field(
        default_factory=dict
    )
    input: str | None = None
    labels: str | None = None
    training_input: str | None = None
    event_dt: Annotated[float | None, Field(gt=0)] = None
    event: Annotated[tuple[str, ...], BeforeValidator(listed)] = ()
    decision: Literal["last", "mean"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_of_two(self) -> Self:
        if (self.path is None) == (self.recipe is None):
            raise ValueError("path and recipe are both given or both missing; allowed: one of the two")
        if self.settings and self.recipe is None:
            raise ValueError("settings change a recipe, and there is none; allowed: with recipe")
        if self.labels and not self.input:
            raise ValueError("labels belong to an input, and there is none; allowed: with input")
        if self.event_dt and not (self.input or self.training_input):
            raise ValueError("event_dt is of a file of events, and there is none; allowed: with input")
        if self.event and not self.event_dt:
            raise ValueError("event says how a file of events is, and there is none; allowed: with event_dt")
        settings_of(self.event)
        if self.read != Reading() and self.path is None:
            raise ValueError("read says how a path is read, and there is none; allowed: with path")
        return self


@dataclass(frozen=True)
class Source:
    """A model to compile.

    Attributes:
        name: how it is called in tables.
        path: its run's folder, its graph's file or FILE.py:NAME, absolute.
        digest: of all that decides what it computes and on what it runs.
        recipe: JSON of the recipe that is trained into `path` first; None where it is there.
        settings: what that recipe changes, by dotted keys.
        input, labels, training_input: files of arrays, or of events, absolute.
        event_dt, event: seconds of a step of such events, and what else is said of them.
        decision: how outputs become a class, where the model does not say.
        read: JSON of the keywords of `unscan.sources.read_graph` for `path`.
    """

    name: str
    path: str
    digest: str
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    input: str | None = None
    labels: str | None = None
    training_input: str | None = None
    event_dt: float | None = None
    event: tuple[str, ...] = ()
    decision: str | None = None
    read: str = "{}"


def digest_of(definition: Any) -> str:
    """Return a short digest of anything that JSON holds."""
    return sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]


def sources_of(settings: SourceSettings, folder: Path, runs: Path) -> Iterator[Source]:
    """Yield the models that an entry of `sources` means; see `sweep_plan.plan`."""
    files = {
        name: _existing(folder / given)
        for name in ("input", "labels", "training_input")
        if (given := getattr(settings, name)) is not None
    }
    facts = {
        name: value
        for name in ("event_dt", "event", "decision")
        if (value := getattr(settings, name)) not in (None, ())
    }
    named: dict[str, Any] = {name: str(path) for name, path in files.items()} | facts
    contents = {name: _content(path) for name, path in files.items()} | facts
    if settings.path is not None:
        path, name = _place(folder, settings.path)
        read = settings.read.model_dump(mode="json", exclude_defaults=True)
        said = dict(read)
        if settings.read.weights is not None:
            weights = _existing(folder / settings.read.weights)
            read["weights"], said["weights"] = str(weights), _content(weights)
        digest = digest_of([_model(path, is_class=bool(name)), name, said, contents])
        whole = f"{path}:{name}" if name else str(path)
        yield Source(settings.name or name or path.stem, whole, digest, read=json.dumps(read), **named)
    elif settings.recipe is not None:
        path = _existing(folder / settings.recipe)
        for changed in _combined(settings.settings):
            recipe = _recipe(path, changed)
            content = recipe.model_dump(mode="json")
            known = dict(content)
            if recipe.start_from is not None:
                start = _existing(Path(recipe.start_from))
                content["start_from"], known["start_from"] = str(start), _model(start)
            run = runs / digest_of([__version__, known])
            digest = digest_of([run.name, contents])
            text = json.dumps(content)
            yield Source(settings.name or path.stem, str(run), digest, text, changed, **named)


def _combined(lists: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values, strict=True))


def _recipe(path: Path, changed: Mapping[str, Any]) -> Recipe:
    document = document_of(path, "recipe", Recipe.model_fields)
    for key, value in changed.items():
        _change(document, key, value, path)
    said = ", ".join(f"{key} {shown(value)}" for key, value in changed.items())
    return Recipe.parse(document, source=f"{path} with {said}" if said else str(path))


def _change(document: Any, key: str, value: Any, path: Path) -> None:
    """Set what stands at a dotted key; mappings on the way to it are made where there are none."""
    last: Any
    *way, last = (int(part) if part.isdecimal() else part for part in key.split("."))
    try:
        for part in way:
            document = document.setdefault(part, {}) if isinstance(document, dict) else document[part]
        if isinstance(document, list):
            document[last]  # an entry that is not there is none to change
        document[last] = deepcopy(value)
    except (LookupError, TypeError):
        raise InvalidInput(
            f"the setting {key} is none of the recipe {path}: nothing stands at {last!r} or on the way to it; write a "
            "key such as network.layers.0.neuron.beta, in which lists count from 0"
        ) from None


def _place(folder: Path, given: str) -> tuple[Path, str]:
    """Return the file or folder of a path, and the class that it names of a Python file, "" where it names none."""
    file, colon, name = given.rpartition(":")
    if colon and file.endswith(".py"):
        return _existing(folder / file), name
    return _existing(folder / given), ""


def _model(path: Path, *, is_class: bool = False) -> str:
    """Return a digest of a run, a graph's file or a Python file."""
    if not path.is_dir():
        if not is_class and path.suffix not in (".unscan", ".nir"):
            raise InvalidInput(
                f"The source {path} is neither a run's folder nor a .unscan or .nir file, nor a class in a Python "
                "file, FILE.py:NAME."
            )
        return _content(path)
    files = RunFiles(path)
    for file in (files.recipe, files.model):
        if not file.is_file():
            raise InvalidInput(
                f"The source {path} holds no trained run: it lacks {file.name}; train one with `unscan train`."
            )
    return digest_of([_content(files.recipe), _content(files.model)])


def _content(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _existing(path: Path) -> Path:
    if not path.exists():
        raise InvalidInput(
            f"There is no {path}; what a sweep names is looked for beside the sweep's own file."
        )
    return path.resolve()


def document_of(path: Path, what: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a YAML file holds."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"there is no {what} file {path}") from None
    except OSError as fault:
        raise InvalidInput(
            f"the {what} {path} cannot be read: {fault.strerror}; name a file that you may read"
        ) from None
    except UnicodeDecodeError:
        raise InvalidInput(f"the {what} {path} is no text in UTF-8, as YAML is; write it again") from None
    except yaml.YAMLError as fault:
        said = " ".join(str(fault).split())
        raise InvalidInput(f"the {what} {path} is not YAML: {said}") from None
    if not isinstance(document, dict):
        held = "is empty" if document is None else f"holds {shown(document)}"
        raise InvalidInput(f"the {what} {path} {held}; wanted keys and values, among {', '.join(keys)}")
    return document
