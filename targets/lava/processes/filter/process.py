"""Diagonal state-space models of whole numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from unscan.targets.lava.processes.arithmetic import Whole, saturated, shifted, truncated
from unscan.targets.lava.processes.nodes import Node, Stepping


class Filter(Node):
    """h_m <- sat(a_m h_m / 2^decay_bits + x 2^shift), complex, and y = sat((sum over m of Re(c_m h_m) + d x 2^shift) >>
    out_shift), rounded. The parts of a_m h_m are each summed and then truncated. a, c, h: (H, M, 2).
    """


@implements(proc=Filter, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FilterModel(Stepping):
    """Turns its modes at each step."""

    x: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    a: Whole = LavaPyType(np.ndarray, np.int64)
    c: Whole = LavaPyType(np.ndarray, np.int64)
    d: Whole = LavaPyType(np.ndarray, np.int64)
    h: Whole = LavaPyType(np.ndarray, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Turn and drive the modes, send what is read of them."""
        held = self.settings
        drive = self.x.recv() << held["shift"]
        (a, b), (c, e), (real, imaginary) = (np.moveaxis(pairs, -1, 0) for pairs in (self.a, self.c, self.h))
        turned = np.stack([a * real - b * imaginary, a * imaginary + b * real], axis=-1)
        h = truncated(turned, held["decay_bits"])
        h[..., 0] += drive[:, None]
        self.h = saturated(h, held["bits"])
        read = (c * self.h[..., 0] - e * self.h[..., 1]).sum(axis=-1) + self.d * drive
        self.y.send(saturated(shifted(read, held["out_shift"]), held["out_bits"]))
        return {}
