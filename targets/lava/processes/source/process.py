"""The process that sends what comes into a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol

from unscan.targets.lava.processes.arithmetic import Whole
from unscan.targets.lava.processes.nodes import Node, Stepping


class Source(Node):
    """y_t = row t of a file (samples x steps, *shape), whose name is its setting `rows`."""


@implements(proc=Source, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class SourceModel(Stepping):
    """Reads the rows from the file as they are sent."""

    y: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self.rows = np.load(self.settings["rows"], mmap_mode="r")

    def advance(self) -> Mapping[str, Whole]:
        """Send the next row."""
        self.y.send(self.rows[self.time_step - 1].astype(np.int64))
        return {}
