"""What a sweep tries: sources times compile options, validated, each point with a key made of what defines it."""

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
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    StrictFloat,
    StrictInt,
    ValidationError,
    create_model,
    model_validator,
)

from unscan import __version__
from unscan.compiler.errors import InvalidInput
from unscan.compiler.nodes.neurons import Phase, Reset
from unscan.compiler.options import TopK, parse_top_k
from unscan.compiler.passes import SoftReset
from unscan.runtime.energy import find
from unscan.trainer.explain import explain, shown
from unscan.trainer.recipe import Recipe
from unscan.trainer.run import RunFiles
from unscan.trainer.settings import Positive, Settings

FORMAT = 2
"""Of what is kept of a point; another one is another key."""


def _top_k(wanted: TopK | None) -> TopK | None:
    try:
        parse_top_k(1 if wanted is None else wanted)
    except InvalidInput:
        raise ValueError(
            "allowed: a count (4), a share (0.25), text such as 'k=4,v=8' or 'gen2_1:k=4', or a list of such texts"
        ) from None
    return wanted


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


class Options(Settings):
    """What a graph is compiled with: the options of `unscan compile`, none of them by default."""

    reset: Reset | None = None
    phase: Phase | None = None
    memory_reset: Reset | None = None
    top_k: Annotated[StrictInt | StrictFloat | str | tuple[str, ...] | None, AfterValidator(_top_k)] = None
    calibrate: bool = False
    scalar_decay: bool = False
    threshold: Annotated[float | None, Field(gt=0)] = None
    quantize: Literal["loihi2", "int8", "int16"] | None = None
    soft_reset: SoftReset | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.phase and not self.reset:
            raise ValueError(
                f"phase is {self.phase} without a reset, of which it says when it acts; allowed: with a reset, in a "
                "grid of its own where others have none"
            )
        if self.soft_reset and not self.quantize:
            raise ValueError(
                f"soft_reset is {self.soft_reset} without quantize, of whose neurons it says how they reset; allowed: "
                "with quantize, in a grid of its own where others have none"
            )
        return self

    @property
    def measured(self) -> bool:
        """Whether compiling needs samples of the training part."""
        return self.calibrate or self.quantize is not None

    @property
    def asked(self) -> dict[str, Any]:
        """The options that are not left as they are by default."""
        return self.model_dump(mode="json", exclude_defaults=True)


_lists: dict[str, Any] = {
    name: (
        Annotated[
            tuple[Annotated[known.annotation, Field(), *known.metadata], ...],  # type: ignore[name-defined]
            BeforeValidator(_listed),
            Field(min_length=1),
        ],
        (known.default,),
    )
    for name, known in Options.model_fields.items()
}
Grid: Any = create_model(
    "Grid", __base__=Settings, __doc__="Lists of options, of which all are combined.", **_lists
)


class SourceSettings(Settings):
    """Where a model comes from: `path`, a run's folder or a graph's file, or a `recipe` that is trained first.

    Each of a recipe's `settings` is a list of values for the setting at its dotted key, such as
    `network.layers.0.neuron.beta`; all are combined. `input` and `labels` are arrays in place of the task's test part,
    `training_input` one in place of its training part, on which is measured what calibrate and quantize need.
    """

    path: str | None = None
    recipe: str | None = None
    name: str | None = None
    settings: Mapping[str, Annotated[tuple[Any, ...], BeforeValidator(_listed), Field(min_length=1)]] = Field(
        default_factory=dict
    )
    input: str | None = None
    labels: str | None = None
    training_input: str | None = None

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
        return self


class Energies(Settings):
    """The energy tables of graphs that compute with real numbers, and of those with whole ones.

    Where None, the table of each graph's own numbers (`unscan.runtime.energy.table_for`).
    """

    real: str | None = None
    whole: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _of_text(cls, value: Any) -> Any:
        return {"real": value, "whole": value} if isinstance(value, str) else value


class Sweep(Settings):
    """A sweep: every source with every combination of each grid, and with every one of `points`.

    Without `grid` and `points`, every source is compiled without options. `samples` is how many of the test part each
    point runs on, by default all; `training_samples` on how many calibrate and quantize measure.
    """

    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    grid: Annotated[tuple[Grid, ...], BeforeValidator(_listed)] = ()
    points: tuple[Options, ...] = ()
    samples: Positive | None = None
    training_samples: Positive = 32
    energy: Energies = Energies()

    @property
    def options(self) -> Iterator[Mapping[str, Any]]:
        """The options of each point, of the grids first; they may be asked for more than once."""
        for grid in self.grid:
            lists = {name: getattr(grid, name) for name in Options.model_fields}
            for values in itertools.product(*lists.values()):
                yield dict(zip(lists, values, strict=True))
        yield from (point.model_dump() for point in self.points)
        if not self.grid and not self.points:
            yield {}


@dataclass(frozen=True)
class Source:
    """A model to compile.

    Attributes:
        name: how it is called in tables.
        path: its run's folder or its graph's file, absolute.
        digest: of all that decides what it computes and on what it runs.
        recipe: JSON of the recipe that is trained into `path` first; None where it is there.
        settings: what that recipe changes, by dotted keys.
        input, labels, training_input: files of arrays, absolute.
    """

    name: str
    path: str
    digest: str
    recipe: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict, compare=False)
    input: str | None = None
    labels: str | None = None
    training_input: str | None = None


@dataclass(frozen=True)
class Point:
    """One thing that a sweep tries: a source, what it is compiled with, and on how many samples it runs."""

    source: Source
    options: Options
    samples: int | None
    training_samples: int

    @property
    def key(self) -> str:
        """The name under which its result is kept: equal for equal definitions, in all sweeps."""
        return digest_of(
            {
                "format": FORMAT,
                "unscan": __version__,
                "source": self.source.digest,
                "options": self.options.asked,
                "samples": self.samples,
                "training_samples": self.training_samples if self.options.measured else None,
            }
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What sets it apart: the source's name, the recipe's changed settings, the options."""
        return {"source": self.source.name, **self.source.settings, **self.options.asked}


def digest_of(definition: Any) -> str:
    """Return a short digest of anything that JSON holds."""
    return sha256(json.dumps(definition, sort_keys=True).encode()).hexdigest()[:16]


def read_sweep(path: Path) -> Sweep:
    """Read a sweep from a YAML file.

    Raises:
        InvalidInput: the file is missing or no YAML, or holds a key or value that is not allowed.
    """
    document = _document(path, "sweep", Sweep.model_fields)
    try:
        return Sweep.model_validate(document)
    except ValidationError as fault:
        said = explain(fault, Sweep, document, str(path)).removeprefix("the recipe ")
        raise InvalidInput(f"the sweep {said}") from fault


def plan(sweep: Sweep, *, folder: Path, runs: Path, samples: int | None = None) -> list[Point]:
    """Lay out the points of a sweep, each once.

    Args:
        sweep: as `read_sweep` gives it.
        folder: what its paths are relative to.
        runs: where recipes are trained, each in a folder of its own.
        samples: in place of the sweep's own.

    Raises:
        InvalidInput: a source, recipe, energy table or setting that there is not, or options that do not go together.
    """
    for table in (sweep.energy.real, sweep.energy.whole):
        if table is not None:
            find(table)
    found: dict[str, Point] = {}
    options = [_options(given) for given in sweep.options]
    for settings in sweep.sources:
        for source in _sources(settings, folder, runs):
            for each in options:
                point = Point(source, each, samples or sweep.samples, sweep.training_samples)
                found.setdefault(point.key, point)
    return list(found.values())


def _options(given: Mapping[str, Any]) -> Options:
    try:
        return Options.model_validate(given)
    except ValidationError as fault:
        said = explain(fault, Options, given, "").removeprefix("the recipe : ")
        raise InvalidInput(f"the sweep's options do not go together: {said}") from fault


def _sources(settings: SourceSettings, folder: Path, runs: Path) -> Iterator[Source]:
    files = {
        name: _existing(folder / given)
        for name in ("input", "labels", "training_input")
        if (given := getattr(settings, name)) is not None
    }
    named: dict[str, Any] = {name: str(path) for name, path in files.items()}
    contents = {name: _content(path) for name, path in files.items()}
    if settings.path is not None:
        path = _existing(folder / settings.path)
        digest = digest_of([_model(path), contents])
        yield Source(settings.name or path.stem, str(path), digest, **named)
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
    document = _document(path, "recipe", Recipe.model_fields)
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


def _model(path: Path) -> str:
    """Return a digest of a run or a graph's file."""
    if not path.is_dir():
        if path.suffix not in (".unscan", ".nir"):
            raise InvalidInput(
                f"The source {path} is neither a run's folder nor a .unscan or .nir file; compile a class of a Python "
                "file with `unscan compile` first, and give the file that this writes."
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


def _document(path: Path, what: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a YAML file holds."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput(f"there is no {what} file {path}") from None
    except (OSError, UnicodeDecodeError) as fault:
        raise InvalidInput(f"the {what} {path} cannot be read: {fault}") from None
    except yaml.YAMLError as fault:
        said = " ".join(str(fault).split())
        raise InvalidInput(f"the {what} {path} is not YAML: {said}") from None
    if not isinstance(document, dict):
        raise InvalidInput(
            f"the {what} {path} holds {shown(document)}; wanted keys and values, among {', '.join(keys)}"
        )
    return document
