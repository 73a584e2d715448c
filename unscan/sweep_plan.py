"""What a sweep tries: sources times compile options, validated, each point with a key made of what defines it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

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
from unscan.sweep_sources import Source, SourceSettings, digest_of, document_of, listed, sources_of
from unscan.trainer.explain import explain
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
            BeforeValidator(listed),
            Field(min_length=1),
        ],
        (known.default,),
    )
    for name, known in Options.model_fields.items()
}
Grid: Any = create_model(
    "Grid", __base__=Settings, __doc__="Lists of options, of which all are combined.", **_lists
)


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
    grid: Annotated[tuple[Grid, ...], BeforeValidator(listed)] = ()
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


def read_sweep(path: Path) -> Sweep:
    """Read a sweep from a YAML file.

    Raises:
        InvalidInput: the file is missing or no YAML, or holds a key or value that is not allowed.
    """
    document = document_of(path, "sweep", Sweep.model_fields)
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
        for source in sources_of(settings, folder, runs):
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
