"""The process that receives what leaves a graph."""

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


class Sink(Node):
    """y = x, kept."""


@implements(proc=Sink, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class SinkModel(Stepping):
    """Keeps what arrives."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Receive, and pass on."""
        x = self.x.recv()
        self.y.send(x)
        return {"outputs": x}
