"""Neurons of whole numbers, in every reset and phase, and the leaky integrator that does not fire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from unscan.targets.lava.processes.arithmetic import Whole, fade, saturated, wrapped
from unscan.targets.lava.processes.nodes import Node, Stepping


class LI(Node):
    """u <- sat(fade(beta, u) + limit(x 2^shift) + bias), y = u; limit wraps or saturates."""


class LIF(Node):
    """A leaky integrator that fires behind a leaky current; nothing of the current is kept where alpha = 0.

        i <- limit(fade(alpha, i) + x 2^shift)      u' = sat(fade(beta, u) + i + bias)      y = 1 where u' > threshold

    Then the reset: none, subtract (the threshold) or zero, at once (phase now) or at the next step (next), where what
    is subtracted is taken off before sat.
    """


def limited(settings: Mapping[str, Any], current: Whole) -> Whole:
    """Return a current as its bits hold it."""
    return (wrapped if settings["wraps"] else saturated)(current, settings["bits"])


@implements(proc=LI, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class LIModel(Stepping):
    """Sends its membrane."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    beta: Whole = LavaPyType(np.ndarray, np.int64)
    bias: Whole = LavaPyType(np.ndarray, np.int64)
    u: Whole = LavaPyType(np.ndarray, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Integrate."""
        held = self.settings
        current = limited(held, self.x.recv() << held["shift"])
        self.u = saturated(fade(self.beta, self.u, held["decay_bits"]) + current + self.bias, held["bits"])
        self.y.send(self.u)
        return {"membranes": self.u}


@implements(proc=LIF, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class LIFModel(Stepping):
    """Sends its spikes."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    alpha: Whole = LavaPyType(np.ndarray, np.int64)
    beta: Whole = LavaPyType(np.ndarray, np.int64)
    bias: Whole = LavaPyType(np.ndarray, np.int64)
    threshold: Whole = LavaPyType(np.ndarray, np.int64)
    i: Whole = LavaPyType(np.ndarray, np.int64)
    u: Whole = LavaPyType(np.ndarray, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Integrate, fire and reset."""
        held = self.settings
        faded = fade(self.alpha, self.i, held["decay_bits"])
        self.i = limited(held, faded + (self.x.recv() << held["shift"]))
        membrane, self.u = self.at_once() if held["phase"] == "now" else self.at_the_next_step()
        spikes = membrane > self.threshold
        self.y.send(spikes.astype(np.int64))
        return {"spikes": spikes, "membranes": membrane}

    def at_once(self) -> tuple[Whole, Whole]:
        """Return the membrane that fires or not, and what the reset leaves of it."""
        membrane = self.integrated(0)
        fired = membrane > self.threshold
        if self.settings["reset"] == "subtract":
            return membrane, membrane - self.threshold * fired
        return membrane, membrane * ~fired if self.settings["reset"] == "zero" else membrane

    def at_the_next_step(self) -> tuple[Whole, Whole]:
        """Return the membrane after the reset of the last step's spikes, twice: it is kept as it is."""
        last = self.u > self.threshold
        membrane = self.integrated(self.threshold * last if self.settings["reset"] == "subtract" else 0)
        if self.settings["reset"] == "zero":
            membrane = membrane * ~last
        return membrane, membrane

    def integrated(self, drop: Whole | int) -> Whole:
        """Return sat(fade(beta, u) + i + bias - drop)."""
        faded = fade(self.beta, self.u, self.settings["decay_bits"])
        return saturated(faded + self.i + self.bias - drop, self.settings["bits"])
