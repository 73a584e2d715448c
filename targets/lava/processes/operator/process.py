"""The process of everything without memory: products with weights, convolutions, pools, shifts, tables, ..."""

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
from unscan.targets.lava.processes.operators import OPERATORS


class Operator(Node):
    """y = f(x), f one function after another: its setting `functions` has a name from `OPERATORS` and the parameters of
    each, its arrays among them.
    """


@implements(proc=Operator, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class OperatorModel(Stepping):
    """Computes f at each step."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Send f(x)."""
        x = self.x.recv()
        for function in self.settings["functions"]:
            x = OPERATORS[function["name"]](x, **function["parameters"])
        self.y.send(x)
        return {}
