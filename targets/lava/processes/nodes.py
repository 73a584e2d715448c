"""What all processes share: how they are made of a node, and how their models run samples after each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var

from unscan.targets.lava.processes.arithmetic import Whole

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """One run: samples after each other, each from zeros.

    Attributes:
        steps: of each sample.
        samples: how many.
        file: where a process writes what it keeps, at the last step; it keeps nothing where None.
        record: whether it keeps what it tells at each step, beside its last states.
    """

    steps: int
    samples: int
    file: str | None = None
    record: bool = False


@dataclass(frozen=True)
class About:
    """One node, as its process is made of it.

    Attributes:
        inputs: port -> shape of what arrives.
        shape: of what leaves it.
        settings: numbers and names.
        arrays: int64.
        states: name -> shape of what it keeps between steps.
        run: the samples that it will see; None where it steps on from zeros and keeps nothing.
    """

    inputs: Mapping[str, Shape]
    shape: Shape
    settings: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, Whole] = field(default_factory=dict)
    states: Mapping[str, Shape] = field(default_factory=dict)
    run: Run | None = None


class Node(AbstractProcess):
    """A node of a graph: ports of whole numbers, settings, and a variable for each array and state.

    Its output port `y` sends at the step at which the input arrives: unlike Lava's own synapses it costs no step.
    """

    def __init__(self, about: About) -> None:
        super().__init__(settings=about.settings, states=tuple(about.states), run=about.run)
        for port, shape in about.inputs.items():
            setattr(self, port, InPort(shape=shape))
        self.y = OutPort(shape=about.shape)
        for name, array in about.arrays.items():
            setattr(self, name, Var(shape=array.shape or (1,), init=array.reshape(array.shape or (1,))))
        for name, shape in about.states.items():
            setattr(self, name, Var(shape=shape, init=0))


class Stepping(PyLoihiProcessModel):
    """One step after another of one node, all states zero before the first step of each sample of a run."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.settings: Mapping[str, Any] = proc_params["settings"]
        self.states: Sequence[str] = proc_params["states"]
        self.run_of: Run | None = proc_params["run"]
        self.kept: dict[str, Whole] = {}

    def advance(self) -> Mapping[str, Whole]:
        """Receive, compute, send: one step. Return what it tells of it, by name."""
        raise NotImplementedError

    def run_spk(self) -> None:
        """Run one step in Lava's spiking phase."""
        if self.run_of is None:
            self.advance()
            return
        sample, step = divmod(self.time_step - 1, self.run_of.steps)
        if step == 0:
            for name in self.states:
                getattr(self, name)[...] = 0
        told = self.advance()
        if self.run_of.file is not None:
            self.keep(self.run_of, sample, step, told)

    def keep(self, run: Run, sample: int, step: int, told: Mapping[str, Whole]) -> None:
        """Keep what was told of a step, and the states after the last one; write all of it at the end."""
        if run.record:
            for name, values in told.items():
                self._held(name, (run.steps, run.samples), values)[step, sample] = values
        if step == run.steps - 1:
            for name in self.states:
                value = getattr(self, name)
                self._held(f"state/{name}", (run.samples,), value)[sample] = value
            if sample == run.samples - 1:
                np.savez(str(run.file), **self.kept)  # type: ignore[arg-type]

    def _held(self, name: str, lead: Shape, values: Whole) -> Whole:
        if name not in self.kept:
            self.kept[name] = np.zeros((*lead, *values.shape), values.dtype)
        return self.kept[name]
