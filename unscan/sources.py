"""What a command line names, found: a run, a graph file, the samples that belong to it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import Input, Output
from unscan.recordings import gathered

if TYPE_CHECKING:
    from torch import nn

    from unscan.compiler.nodes.neurons import Phase, Reset
    from unscan.trainer.run import Run

MAPPED = 2**28
"""Bytes from which on an array's file is read part by part, as it is run."""


@dataclass(frozen=True)
class Samples:
    """Inputs x (T, B, ...), their labels (B,) where known, and what they are."""

    x: Array
    labels: Array | None
    description: str


def read_run(path: Path) -> Run:
    """Return the trained run in a folder."""
    from unscan.trainer.run import load_run

    return load_run(path)


def traced(run: Run) -> Graph:
    """Return the parallel graph of a trained run, with what it needs to be run and judged later."""
    from torch import nn

    from unscan.compiler.frontends.trace import trace

    first = next(module for module in run.model.modules() if isinstance(module, nn.Linear))
    recipe = run.recipe.model_dump(mode="json")
    meta = {"task": recipe["task"], "recipe": recipe}
    if run.recipe.network.readout.decision != "every":
        meta["decision"] = run.recipe.network.readout.decision
    return trace(run.model, np.zeros((1, 1, first.in_features), np.float32), kind=Kind(run.kind), meta=meta)


def read_graph(
    path: Path,
    *,
    weights: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    shape: tuple[int, ...] | None = None,
    kind: Kind | str | None = None,
    stepwise: bool = False,
    static: bool = False,
    steps: int | None = None,
    output: int | None = None,
    dt: float | None = None,
    nir_dialect: str | None = None,
    nir_reset: Reset | None = None,
    nir_phase: Phase | None = None,
) -> Graph:
    """Return the graph that a path names.

    Args:
        path: a run's folder (traced), a `.unscan` file, a `.nir` file, or FILE.py:NAME, a class in a Python file,
            which is run (see `unscan.compiler.frontends.load`).
        weights, arguments, shape, stepwise, static, steps, output: of a class in a Python file.
        kind: what the input carries, of such a class, or of a `.nir` file of others.
        dt, nir_dialect, nir_reset, nir_phase: of a `.nir` file of others (see `unscan.compiler.frontends.nir`).

    Raises:
        InvalidInput: an option that the kind of source does not take, or what the reader of it raises.
    """
    of_module = {
        "weights": weights, "arguments": arguments or None, "shape": shape, "stepwise": stepwise or None,
        "static": static or None, "steps": steps, "output": output, "kind": kind,
    }  # fmt: skip
    of_nir = {"dt": dt, "dialect": nir_dialect, "reset": nir_reset, "phase": nir_phase, "kind": kind}
    taken: dict[str, Any] = {}
    if is_source(path):
        taken = of_module
    elif path.suffix == ".nir" and not path.is_dir():
        taken = of_nir
    for name, value in (of_module | of_nir).items():
        if value is not None and name not in taken:
            raise InvalidInput(
                f"Got {name}={value}, which {path} does not take: {', '.join(of_module)} are for a class in a Python "
                f"file, FILE.py:NAME; {', '.join(of_nir)} are for .nir files of others."
            )
    said: dict[str, Any] = {name: value for name, value in taken.items() if value is not None}
    if taken is of_module:
        from unscan.compiler.frontends.load import load_graph

        return load_graph(path, **said)
    if taken is of_nir:
        from unscan.compiler.frontends.nir import read_nir

        return read_nir(path, **said)
    if path.is_dir():
        return traced(read_run(path))
    from unscan.compiler.storage import load

    return load(path)


def read_model(
    path: Path, *, weights: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> nn.Module:
    """Return the torch module that a path names: a run's folder, or FILE.py:NAME, a class in a Python file."""
    if is_source(path):
        from unscan.compiler.frontends.load import load_model

        return load_model(path, weights, arguments)
    if weights is not None or arguments:
        raise InvalidInput(
            f"Got weights or arguments for {path}; they are for a class in a Python file, FILE.py:NAME."
        )
    return read_run(path).model


def is_source(path: Path) -> bool:
    """Say whether a path names a class in a Python file, FILE.py:NAME."""
    file, _, _ = str(path).rpartition(":")
    return file.endswith(".py") or path.suffix == ".py"


def read_samples(
    graph: Graph,
    *,
    inputs: Path | None,
    labels: Path | None,
    data_dir: Path | None,
    limit: int | None,
    event_dt: float | None = None,
    event: Sequence[str] = (),
    training: bool = False,
) -> Samples:
    """Return what a graph is run on: arrays from files, or else a part of the task it was trained on.

    Indices may stand in an array (T, B). With `event_dt` the file holds events, which are gathered in steps of so many
    seconds, read and binned as the texts NAME=VALUE in `event` say (see `unscan.recordings`); what that merged or left
    out stands in the description. A file of several recordings gives a sample for each, and their labels where it holds
    some and none are given. The part is that for tests, or with `training` that for training, on which thresholds may
    be moved.
    Of a task that asks for answers at its steps there are no labels: their accuracy is measured in training alone.

    Raises:
        InvalidInput: files that are missing or do not fit, labels without inputs, or no task to fall back on.
    """
    if inputs is None and labels is not None:
        raise InvalidInput("Got --labels without --input; give the inputs that they belong to, too.")
    if event and event_dt is None:
        raise InvalidInput("Got --event without --event-dt; give the seconds of a step, too.")
    if event_dt is not None:
        if inputs is None:
            raise InvalidInput("Got --event-dt without --input; give the file of events, too.")
        x, held, description = gathered(graph, inputs, event_dt, event, limit)
        given = read_labels(labels, graph, x) if labels else fitting_labels(held, graph, x, inputs)
        found = Samples(x, given, description)
    elif inputs is not None:
        from unscan.runtime.simulate import fitting

        x = read_array(inputs)
        (entry,) = graph.of(Input)
        if graph.signals[entry].kind is Kind.INDEX and x.ndim == 2:
            x = x[..., None]
        x = fitting(graph, x)
        found = Samples(x, read_labels(labels, graph, x), str(inputs))
    else:
        found = _task_samples(graph, data_dir, training=training)
    if limit is None:
        return found
    count = min(limit, found.x.shape[1])
    part = found.description if count == found.x.shape[1] else f"the first {count} of {found.description}"
    return Samples(found.x[:, :count], None if found.labels is None else found.labels[:count], part)


def read_labels(path: Path | None, graph: Graph, x: Array) -> Array | None:
    """Return the classes (B,) in a `.npy` file, one for each sample of x (T, B, ...) that a graph is run on.

    Raises:
        InvalidInput: no such file, or as `fitting_labels`.
    """
    return None if path is None else fitting_labels(read_array(path, "(B,) of classes"), graph, x, path)


def fitting_labels(labels: Array | None, graph: Graph, x: Array, path: Path) -> Array | None:
    """Return classes (B,) that a file gave, if there are any, once they fit the samples x (T, B, ...) and the graph.

    Raises:
        InvalidInput: other than one whole number for each sample, or a class that the graph does not tell apart.
    """
    if labels is None:
        return None
    if labels.shape != x.shape[1:2] or labels.dtype.kind not in "iu":
        raise InvalidInput(
            f"{path} holds an array {labels.shape} of {labels.dtype} for {x.shape[1]} samples; wanted one label for "
            "each sample, a whole number."
        )
    classes = graph.signals[graph.of(Output)[0]].shape[-1]
    if labels.min() < 0 or labels.max() >= classes:
        raise InvalidInput(
            f"{path} holds labels from {labels.min()} to {labels.max()}, and the graph has {classes} outputs: classes "
            f"are 0 to {classes - 1}."
        )
    return labels


def read_array(path: Path, wanted: str = "(T, B, ...)") -> Array:
    """Return the array in a `.npy` file."""
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; give a .npy file with an array {wanted}.")
    if path.suffix != ".npy":
        raise InvalidInput(
            f"{path} is no .npy file; save an array {wanted} with numpy.save, or say with --event-dt that it holds "
            "events."
        )
    try:
        array = np.load(path, mmap_mode="c" if path.stat().st_size > MAPPED else None, allow_pickle=False)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile):
        raise DamagedFile(
            f"{path} is not a complete .npy file of numbers: it is truncated, altered, or something else. Copy it "
            "again, or save it again with numpy.save."
        ) from None
    if not isinstance(array, np.ndarray):
        raise InvalidInput(f"{path} is an archive of several arrays; save one array with numpy.save.")
    return array


def _task_samples(graph: Graph, data_dir: Path | None, *, training: bool) -> Samples:
    from unscan.trainer.tasks import load

    settings: dict[str, Any] | None = graph.meta.get("task")
    if settings is None:
        raise InvalidInput(
            "The graph does not say which task it was trained on, so its data is not known; give inputs with "
            "--input FILE.npy, an array (T, B, ...)."
        )
    task = load(**settings, data_dir=data_dir)
    part, name = (task.train, "training") if training else (task.test, "test")
    return Samples(
        np.ascontiguousarray(part.x.numpy().swapaxes(0, 1), np.float32),
        part.y.numpy() if task.targets == "class" else None,
        f"the {len(part.y)} {name} samples of {task.description}",
    )
