"""What one point of a sweep comes to: its recipe trained, its graph compiled, and run beside the trained model."""

from __future__ import annotations

import json
import platform
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from unscan.compiler.errors import UnscanError
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import SPIKING
from unscan.runtime.agreement import LayerAgreement
from unscan.runtime.batches import batches
from unscan.runtime.counts import Counts
from unscan.runtime.decision import decide
from unscan.runtime.energy import table_for
from unscan.runtime.executors import executor
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import compile_on, ranges, rates
from unscan.show import saturated
from unscan.sources import Samples, read_graph, read_run, read_samples, traced
from unscan.sweep_plan import Point
from unscan.sweep_sources import Source
from unscan.sweep_workers import Outcome, failed


def _guarded(job: Callable[[], Outcome]) -> Outcome:
    """Run a job; one that fails says why."""
    began = time.perf_counter()
    try:
        outcome = job()
    except UnscanError as fault:
        outcome = failed(str(fault))
    except Exception as fault:  # one point's defect is not to stop the others
        last = traceback.extract_tb(fault.__traceback__)[-1]
        place = f"{Path(last.filename).name}, line {last.lineno}"
        outcome = failed(f"{type(fault).__name__} in {place}: {fault}")
    return outcome | {"seconds": time.perf_counter() - began, "machine": platform.node()}


def train(source: Source, data_dir: Path | None) -> Outcome:
    """Train a source's recipe in its folder, or continue what was broken off there."""
    from unscan.trainer.fit import RunFiles, fit
    from unscan.trainer.recipe import Recipe

    def job() -> Outcome:
        recipe = Recipe.model_validate_json(source.recipe or "")
        begun = RunFiles(Path(source.path)).recipe.is_file()
        fit(recipe, source.path, data_dir=data_dir, resume=begun, quiet=True)
        return {"status": "done"}

    return _guarded(job)


def measure(point: Point, data_dir: Path | None) -> Outcome:
    """Compile a point's source with its options, and run it beside the trained model on the same samples.

    The outcome says, of the samples all together: `accuracy_model` and `accuracy`, as shares, and their difference
    `gap`, None without labels; `f1` of all spikes against those of the trained model in float32, None where both are
    silent; `rate`, spikes per neuron and step; `layers`, the same of each; `operations` as
    `unscan.runtime.costs.Operations` has them; `energy_table`, the table of the compiled graph's numbers; `saturated`,
    numbers that did not fit, by node.
    """
    return _guarded(lambda: _measured(point, data_dir))


def _measured(point: Point, data_dir: Path | None) -> Outcome:
    model = _trained(point.source, point.samples, data_dir)
    compiled = _compiled(point, model.graph, data_dir)
    runner, x, labels = executor("event", compiled), model.samples.x, model.samples.labels
    decision = compiled.meta.get("decision")
    layers: dict[str, LayerAgreement] = {}
    counts: list[Counts] = []
    right = 0
    for part in batches(compiled, *x.shape[:2]):
        run = runner.run(x[:, part])
        if run.counts is not None:
            counts.append(run.counts)
        if labels is not None and decision is not None:
            right += int(np.sum(decide(run.outputs, decision) == labels[part]))
        for name in compiled.of(*SPIKING):
            if name in model.spikes:
                found = _agreement(model.spikes[name][:, part], run.spikes[name])
                layers[name] = layers.get(name, LayerAgreement()) + found
    done = sum(counts[1:], counts[0])
    accuracy = right / x.shape[1] if model.accuracy is not None else None
    total = sum(layers.values(), LayerAgreement())
    return {
        "status": "done",
        "data": model.samples.description,
        "samples": x.shape[1],
        "steps": x.shape[0],
        "accuracy_model": model.accuracy,
        "accuracy": accuracy,
        "gap": None if accuracy is None or model.accuracy is None else accuracy - model.accuracy,
        "f1": _number(total.f1),
        "rate": _number(done.total.rate),
        "layers": {name: _layer(layer) for name, layer in layers.items()},
        "unheard": [name for name in compiled.of(*SPIKING) if name not in layers],
        "operations": done.total.to_json(),
        "whole_numbers": compiled.integer,
        "energy_table": table_for(compiled).table.name,
        "saturated": saturated(done),
        "graph": compiled.digest,
    }


def _compiled(point: Point, graph: Graph, data_dir: Path | None) -> Graph:
    given = point.options.model_dump(exclude_none=True)
    x = None
    if point.options.measured:
        x = _samples(point.source, graph, point.training_samples, data_dir, training=True).x
    if given.pop("calibrate") and x is not None:
        given["calibrate"] = rates(x)
    if x is not None and point.options.quantize is not None:
        given["ranges"] = ranges(x)
    return compile_on(graph, **given)


@dataclass(frozen=True)
class _Trained:
    """A source as it was trained, and what it does on samples.

    `spikes` are packed, eight steps to a byte: (ceil(T / 8), B, ...).
    """

    graph: Graph
    samples: Samples
    accuracy: float | None
    spikes: Mapping[str, Array]


@lru_cache(maxsize=1)
def _trained(source: Source, limit: int | None, data_dir: Path | None) -> _Trained:
    """Read a source and run it as trained; the points of one source follow one another."""
    path = Path(source.path)
    runner: Model | Reference
    if path.is_dir():
        run = read_run(path)
        graph = traced(run)
        runner = Model(run.model, graph)
    else:
        graph = read_graph(path, **reading(source))
        runner = Reference(graph)
    if source.decision is not None and "decision" not in graph.meta:
        graph = graph.annotate(meta={"decision": source.decision})
    samples = _samples(source, graph, limit, data_dir)
    decision = graph.meta.get("decision")
    spikes: dict[str, list[Array]] = {}
    right = 0
    for part in batches(graph, *samples.x.shape[:2]):
        execution = runner.run(samples.x[:, part])
        for name, fired in execution.spikes.items():
            spikes.setdefault(name, []).append(np.packbits(fired, axis=0))
        if samples.labels is not None and decision is not None:
            right += int(np.sum(decide(execution.outputs, decision) == samples.labels[part]))
    known = samples.labels is not None and decision is not None
    accuracy = right / samples.x.shape[1] if known else None
    packed = {name: np.concatenate(parts, axis=1) for name, parts in spikes.items()}
    return _Trained(graph, samples, accuracy, packed)


def reading(source: Source) -> dict[str, Any]:
    """Return the keywords of `read_graph` for a source."""
    said: dict[str, Any] = json.loads(source.read)
    if "weights" in said:
        said["weights"] = Path(said["weights"])
    if "shape" in said:
        said["shape"] = tuple(said["shape"])
    return said


def _samples(
    source: Source, graph: Graph, limit: int | None, data_dir: Path | None, *, training: bool = False
) -> Samples:
    inputs = source.training_input if training else source.input
    labels = None if training else source.labels
    return read_samples(
        graph,
        inputs=None if inputs is None else Path(inputs),
        labels=None if labels is None else Path(labels),
        data_dir=data_dir,
        limit=limit,
        training=training,
        event_dt=None if inputs is None else source.event_dt,
        event=() if inputs is None else source.event,
    )


def _agreement(packed: Array, spikes: Array) -> LayerAgreement:
    """Return how far spikes (T, B, ...) agree with packed ones."""
    mine = np.packbits(spikes, axis=0)
    fired, fires, both = (int(np.bitwise_count(bits).sum()) for bits in (packed, mine, packed & mine))
    return LayerAgreement(fired, fires, both, spikes.size)


def _layer(layer: LayerAgreement) -> dict[str, float | None]:
    return {
        "f1": _number(layer.f1),
        "rate_model": layer.spikes_a / layer.slots,
        "rate": layer.spikes_b / layer.slots,
    }


def _number(value: float) -> float | None:
    """Return a number as JSON holds it: None in place of nan."""
    return None if value != value else value
