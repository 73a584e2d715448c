"""Read a NIR file of others as its equations say, and as the framework that wrote it runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import nir
import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidGraph, InvalidInput
from unscan.compiler.frontends.builder import Value
from unscan.compiler.frontends.nir_graph import Loops, Opened
from unscan.compiler.frontends.nir_primitives import delay_steps, read_primitive
from unscan.compiler.frontends.nir_reading import Reading
from unscan.compiler.frontends.nir_time import CONVENTIONS, DIALECTS, shown_dt, table, timed
from unscan.compiler.ir import Graph, Kind, Signal
from unscan.compiler.nodes import Delay, Input, Output
from unscan.compiler.nodes.neurons import PHASES, RESETS, Phase, Reset
from unscan.compiler.spec import check

AXES = {nir.Linear: 1, nir.Affine: 1, nir.Conv1d: 2, nir.Conv2d: 3, nir.SumPool2d: 3, nir.AvgPool2d: 3}
"""Axes that a primitive takes, without one for samples."""


def read_foreign(
    path: Path,
    read: nir.NIRGraph,
    *,
    dt: float | None,
    dialect: str,
    reset: Reset | None,
    phase: Phase | None,
    kind: Kind,
) -> Graph:
    """Return the graph of a file of others. Arguments and errors: see `read_nir`."""
    for option, value, known in (
        ("dialect", dialect, DIALECTS),
        ("reset", reset or "zero", RESETS),
        ("phase", phase or "now", PHASES),
    ):
        if value not in known:
            raise InvalidInput(f"There is no {option} {value!r}; there are {', '.join(known)}.")
    if dt is not None and not (dt > 0 and np.isfinite(dt)):
        raise InvalidInput(f"dt is the seconds of one step and must be greater than 0; got {dt:g}.")
    opened, convention = Opened(path, read), CONVENTIONS[dialect]
    step, found = _step(opened, dt, convention.dt)

    def start(fed_back: frozenset[str], carried: Mapping[str, Signal]) -> Reading:
        return Reading(path, step, convention, reset, phase, Kind(kind), fed_back, carried)

    to = start(frozenset(), {})
    held = [
        name
        for name, p in opened.primitives.items()
        if isinstance(p, nir.Delay) and np.all(delay_steps(p, name, to) >= 1)
    ]
    loops = Loops(opened, held)
    carried = _build(opened, loops, to, loops.shape_order)
    while carried != to.carried:
        to = start(frozenset(target for _, target in loops.cuts.values()), carried)
        carried = _build(opened, loops, to, loops.order)
    named = "" if dialect == "nir" else f", as {dialect} runs it"
    seconds = "" if step is None else f", dt = {step:g} s"
    to.builder.notes[:0] = [f"read-nir {note}" for note in (*found, *loops.notes())]
    graph = to.builder.graph(
        history=(f"read-nir {path.name}{named}{seconds}",), meta={} if step is None else {"dt": step}
    )
    return check(graph, where=str(path))


def _step(opened: Opened, asked: float | None, usual: float | None) -> tuple[float | None, list[str]]:
    """Return the seconds of a step, and how they were found where nobody said. Raises InvalidInput where open."""
    if asked is not None or not timed(opened.primitives):
        return asked, []
    if usual is not None:
        return usual, []
    shown = shown_dt(opened.primitives)
    if shown is None:
        raise InvalidInput(
            f"{opened.path} gives time constants in seconds and no time step, so that decay (1 - dt / tau) and gain "
            f"(dt r / tau) are open. Say how long a step is (--dt SECONDS). {table(opened.primitives)}."
        )
    return shown, [f"found dt = {shown:g} s: the one at which every gain is 1"]


def _build(opened: Opened, loops: Loops, to: Reading, order: Iterable[str]) -> dict[str, Signal]:
    """Add every primitive, in order, and return what the Delays of loops carry.

    Where nothing is known yet of what they carry, the edges back are left out: this finds the shapes.
    """
    delays = {source: _before(source, opened) for source, _ in loops.cuts} if to.carried else {}
    to.signals.update({delay: to.carried[delay] for delay in delays.values()})
    values: dict[str, Value] = {}
    for name in order:
        x: Value = ()
        for source, target in opened.edges:
            if target != name or (source, target) in loops.late:
                continue
            if not to.carried and (source, target) in loops.cuts.values():
                continue
            x += (delays[source],) if to.carried and (source, target) in loops.cuts else values[source]
        values[name] = _read(opened, name, x, to)
    carried = {}
    for source in dict.fromkeys(source for source, _ in loops.cuts):
        delay = _before(source, opened)
        carried[delay] = signal = to.arriving(values[source])
        if to.carried:
            to.builder.add(
                delay, Delay(steps=np.ones(()), shape=signal.shape, kind=signal.kind), values[source]
            )
    for source, target in loops.late:
        carried[target] = to.arriving(values[source])
        to.builder.feed(values[target][0], values[source])
    return carried


def _before(source: str, opened: Opened) -> str:
    """Return the name of the Delay that holds what a primitive sent a step before."""
    name = f"{source}.before"
    while name in opened.primitives:
        name += "_"
    return name


def _read(opened: Opened, name: str, x: Value, to: Reading) -> Value:
    """Add one primitive and return what leaves it."""
    primitive = opened.primitives[name]
    if name == opened.input:
        return to.add(name, Input(_input_shape(opened, to), to.kind), ())
    if not x and not isinstance(primitive, nir.Delay):
        raise DamagedFile(
            f"Nothing feeds {type(primitive).__name__} {name!r} of {opened.path}. Export the model again."
        )
    if name in opened.inner:
        return x
    if name == opened.output:
        stated, found = _shape(primitive), to.arriving(x).shape
        if stated not in (None, found, (1, *found)):
            raise InvalidGraph(
                f"Output {name!r} of {opened.path} states the shape {stated}, and gets {found}."
            )
        return to.add(name, Output(), x)
    return read_primitive(primitive, name, x, to)


def _shape(primitive: nir.Input | nir.Output) -> tuple[int, ...] | None:
    stated = next(iter(primitive.input_type.values()))
    return None if stated is None else tuple(int(n) for n in stated)


def _input_shape(opened: Opened, to: Reading) -> tuple[int, ...]:
    """Return the shape of one sample at one step. A first axis of 1 that what it feeds does not take is a batch's."""
    primitive = opened.primitives[opened.input]
    shape = _shape(primitive)
    if not shape:
        raise DamagedFile(f"Input {opened.input!r} of {opened.path} states no shape. Export the model again.")
    fed = [opened.primitives[target] for source, target in opened.edges if source == opened.input]
    if shape[0] == 1 and any(AXES.get(type(p)) == len(shape) - 1 for p in fed):
        to.note(primitive, opened.input, f"the first axis of {shape} is that of a batch and left out")
        return shape[1:]
    return shape
