"""Associative matrix memories of whole numbers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from unscan.targets.lava.processes.arithmetic import Whole, fade, saturated
from unscan.targets.lava.processes.nodes import Node, Stepping


class Memory(Node):
    """S <- sat(fade(alpha, S) + (v k^T) 2^shift), an alpha for each column; Z = 1 where S > threshold; y = Z q, or Z
    where `queries` is None, and nothing is connected to q; then the reset of what fired. S: (d, n).
    """


@implements(proc=Memory, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class MemoryModel(Stepping):
    """Decays, writes, fires and is read at each step."""

    v: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    k: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    alpha: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    q: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)
    threshold: Whole = LavaPyType(np.ndarray, np.int64)
    S: Whole = LavaPyType(np.ndarray, np.int64)

    def advance(self) -> Mapping[str, Whole]:
        """Decay, write, fire, read, reset."""
        held = self.settings
        written = np.outer(self.v.recv(), self.k.recv()) << held["shift"]
        S = saturated(fade(self.alpha.recv(), self.S, held["decay_bits"]) + written, held["bits"])
        Z = self.threshold < S
        q = self.q.recv()
        y = Z if held["queries"] is None else Z @ q.reshape(S.shape[1], held["queries"])
        self.y.send(y.astype(np.int64).ravel())
        self.S = (
            S - self.threshold * Z
            if held["reset"] == "subtract"
            else S * ~Z
            if held["reset"] == "zero"
            else S
        )
        return {"spikes": Z, "membranes": S}
