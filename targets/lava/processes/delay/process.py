"""The delay line, which lets processes feed each other in a loop: it sends before it receives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from unscan.targets.lava.processes.arithmetic import Whole
from unscan.targets.lava.processes.nodes import Node, Stepping


class Delay(Node):
    """y_t = x_{t - delays}, 0 before; `past` holds the last inputs, the newest first."""


@implements(proc=Delay, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class DelayModel(Stepping):
    """Keeps as many inputs as its longest delay needs."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    delays: Whole = LavaPyType(np.ndarray, np.int64)
    past: Whole = LavaPyType(np.ndarray, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Send what arrived some steps ago, then receive."""
        delays = np.broadcast_to(self.delays, self.past.shape[1:])
        self.y.send(np.take_along_axis(self.past, delays[None] - 1, axis=0)[0])
        self.past = np.concatenate([self.x.recv()[None], self.past[:-1]])
        return {}
