"""The process that multiplies two signals."""

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


class Product(Node):
    """y = a b, elementwise."""


@implements(proc=Product, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class ProductModel(Stepping):
    """Multiplies what arrives at a step."""

    a: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    b: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Send a b."""
        self.y.send(self.a.recv() * self.b.recv())
        return {}
