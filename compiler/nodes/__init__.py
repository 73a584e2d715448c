"""The closed set of operators, by family; `NODES` names them for files and tables."""

from unscan.compiler.ir import Node
from unscan.compiler.nodes.boundary import Input, Output
from unscan.compiler.nodes.neurons import LI, LIF, Leaky, Spiking
from unscan.compiler.nodes.parallel import LIConvolution, LIFConvolution, LIFScan
from unscan.compiler.nodes.stateless import Activation, BatchNorm, Flatten, Linear, Scale

NODES: dict[str, type[Node]] = {
    node.__name__: node
    for node in (
        Input,
        Output,
        Linear,
        Scale,
        BatchNorm,
        Flatten,
        Activation,
        LIF,
        LI,
        LIFScan,
        LIFConvolution,
        LIConvolution,
    )
}

__all__ = [
    "LI",
    "LIF",
    "NODES",
    "Activation",
    "BatchNorm",
    "Flatten",
    "Input",
    "LIConvolution",
    "LIFConvolution",
    "LIFScan",
    "Leaky",
    "Linear",
    "Node",
    "Output",
    "Scale",
    "Spiking",
]
