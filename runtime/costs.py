"""The cost of each node: which operations follow from what arrived at it, what it sent, and what it tallied.

AC and MAC are NeuroBench's effective operations: one per event and nonzero weight that it meets, AC where the event
is a spike, MAC where it carries a number. The updates of states are counted apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import singledispatch
from math import prod
from typing import Any

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Kind, Node
from unscan.compiler.nodes import (
    GLU,
    Activation,
    Adaptive,
    AvgPool2d,
    BatchNorm,
    Concatenate,
    Convolution,
    Cuba,
    Delay,
    Delta,
    Diagonal,
    Embedding,
    Flatten,
    Input,
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLeaky,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    LayerNorm,
    Leaky,
    LIFAnnealed,
    LIFSurrogate,
    Linear,
    Lookup,
    MaxPool2d,
    Memory,
    Multiply,
    Output,
    Pool2d,
    Quantize,
    Reshape,
    RMSNorm,
    Scale,
    Shift,
    Spiking,
    StoredMemory,
    Threshold,
    TopK,
)
from unscan.runtime.work import Work, reached


@dataclass(frozen=True)
class Operations:
    """Operations of one node, or of all, over every step and sample.

    Attributes:
        acs: additions of a weight because of a spike.
        macs: multiplications and additions because of a number that is not zero.
        dense_macs: the same work without sparsity: every weight at every step.
        spikes: spikes that the node sent.
        slots: neurons x steps x samples of a spiking node, so that spikes / slots is its firing rate.
        updates: state updates by kind. decay, integrate, compare, reset, adapt: of neurons; write, erase, read,
            rescale: of memories; ssm: of state-space modes; bias, scale, norm, activation, product, pool, top-k, join.
        weight_reads: weights fetched by ACs, MACs and elementwise work.
        state_reads, state_writes: numbers of states fetched, and stored.
        neurons: updates of whole neurons, or entries of memories: neurons x steps x samples of a node with membranes.
        events_in: spikes, or numbers that are not zero, that arrived at its ports.
        events_out: those that it sent. In all, what a node sends is one event out, and one in for each that reads it.
    """

    acs: int = 0
    macs: int = 0
    dense_macs: int = 0
    spikes: int = 0
    slots: int = 0
    updates: Mapping[str, int] = field(default_factory=dict)
    weight_reads: int = 0
    state_reads: int = 0
    state_writes: int = 0
    neurons: int = 0
    events_in: int = 0
    events_out: int = 0

    def __add__(self, other: Operations) -> Operations:
        kinds = [*self.updates, *(kind for kind in other.updates if kind not in self.updates)]
        updates = {kind: self.updates.get(kind, 0) + other.updates.get(kind, 0) for kind in kinds}
        numbers = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__
            if name != "updates"
        }
        return Operations(**numbers, updates=updates)

    @property
    def rate(self) -> float:
        """Spikes per neuron and step; nan where nothing spikes."""
        return self.spikes / self.slots if self.slots else float("nan")

    @property
    def state_accesses(self) -> int:
        """States read and written."""
        return self.state_reads + self.state_writes

    def each(self, change: Callable[[Any], Any]) -> Operations:
        """Return the operations with every number changed."""
        numbers = {
            name: change(getattr(self, name)) for name in self.__dataclass_fields__ if name != "updates"
        }
        return Operations(**numbers, updates={kind: change(n) for kind, n in self.updates.items()})

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__} | {
            "updates": dict(self.updates),
            "rate": self.rate if self.slots else None,
        }


@singledispatch
def cost(node: Node, work: Work) -> Operations:
    """Return what a node did. Raises Unsupported for a node whose cost is not defined."""
    raise Unsupported(f"The operations of a {type(node).__name__} are not defined.")


def synaptic(work: Work, fan_out: Array, dense: int, bias: Array | None) -> Operations:
    """Return the operations of weights: fan_out nonzero ones leave each input, and each output has `dense` in all."""
    met = work.met(fan_out)
    acs, macs = (
        sum(n for signal, n in met if (signal.kind is Kind.SPIKE) is spikes) for spikes in (True, False)
    )
    return Operations(
        acs=acs,
        macs=macs,
        dense_macs=work.slots * dense,
        updates={} if bias is None else {"bias": work.slots},
        weight_reads=acs + macs + (0 if bias is None else work.slots),
    )


def fan_out(node: Linear | Convolution, shape: tuple[int, ...]) -> Array:
    """Return how many nonzero weights leave each number of an input (...)."""
    if isinstance(node, Linear):
        return np.asarray(np.count_nonzero(node.weight, axis=0))
    assert isinstance(node.dilation, tuple)
    each = [np.count_nonzero(part, axis=0) for part in np.split(node.weight, node.groups)]
    return reached(node, shape, np.concatenate(each), node.dilation)  # each: (in, *kernel)


@cost.register
def _(node: Linear | Convolution, work: Work) -> Operations:
    return synaptic(work, fan_out(node, work.shape("x")), prod(node.weight.shape[1:]), node.bias)


@cost.register
def _(node: Pool2d, work: Work) -> Operations:
    assert isinstance(node.kernel, tuple)
    shape = work.shape("x")
    windows = reached(node, shape, np.ones((shape[0], *node.kernel), np.int64), (1, 1))
    met = sum(n for _, n in work.met(windows))
    return Operations(updates={"pool": met, **({"scale": work.sent} if isinstance(node, AvgPool2d) else {})})


@cost.register
def _(node: MaxPool2d, work: Work) -> Operations:
    assert isinstance(node.kernel, tuple)
    shape = work.shape("x")
    compared = int(reached(node, shape, np.ones((shape[0], *node.kernel), np.int64), (1, 1)).sum())
    return Operations(updates={"pool": compared * work.turns})


@cost.register
def _(node: Embedding, work: Work) -> Operations:
    return Operations(weight_reads=work.slots)


@cost.register
def _(node: Scale, work: Work) -> Operations:
    return Operations(updates={"scale": work.arrived()}, weight_reads=work.arrived())


@cost.register
def _(node: BatchNorm, work: Work) -> Operations:
    return Operations(updates={"norm": work.slots}, weight_reads=2 * work.slots)


@cost.register
def _(node: LayerNorm, work: Work) -> Operations:
    passes = 4 if node.bias is not None else 3  # mean, variance, normalise, and the offset
    return Operations(updates={"norm": passes * work.slots}, weight_reads=(passes - 2) * work.slots)


@cost.register
def _(node: RMSNorm, work: Work) -> Operations:
    return Operations(updates={"norm": 2 * work.slots}, weight_reads=work.slots)


@cost.register
def _(node: Activation, work: Work) -> Operations:
    return Operations(updates={"activation": work.slots})


@cost.register
def _(node: GLU, work: Work) -> Operations:
    return Operations(updates={"activation": work.slots, "product": work.slots})


@cost.register
def _(node: Multiply, work: Work) -> Operations:
    return Operations(updates={"product": work.sent})


@cost.register
def _(node: TopK, work: Work) -> Operations:
    return Operations(updates={"top-k": work.slots})


@cost.register
def _(node: Delay, work: Work) -> Operations:
    return Operations(state_reads=work.arrived(), state_writes=work.arrived())


@cost.register
def _(node: Threshold, work: Work) -> Operations:
    return Operations(spikes=work.sent, slots=work.slots, neurons=work.slots, updates={"compare": work.slots})


@cost.register
def _(node: Leaky, work: Work) -> Operations:
    updates = {"decay": work.slots, "integrate": work.slots}
    if node.gain != "1":
        updates["scale"] = work.slots
    return Operations(neurons=work.slots, updates=updates, state_reads=work.slots, state_writes=work.slots)


@cost.register
def _(node: Spiking, work: Work) -> Operations:
    leaky = cost.dispatch(Leaky)(node, work)
    spiking = {"compare": work.slots} | ({} if node.reset == "none" else {"reset": work.sent})
    return leaky + Operations(spikes=work.sent, slots=work.slots, updates=spiking)


@cost.register
def _(node: Cuba, work: Work) -> Operations:
    current = {"decay": work.slots, "integrate": work.slots}
    behind = cost.dispatch(Spiking)(node, work)
    return behind + Operations(updates=current, state_reads=work.slots, state_writes=work.slots)


@cost.register
def _(node: Adaptive, work: Work) -> Operations:
    tiring = {"decay": work.slots, "adapt": work.slots}
    behind = cost.dispatch(Spiking)(node, work)
    return behind + Operations(updates=tiring, state_reads=work.slots, state_writes=work.slots)


@cost.register
def _(node: LIFAnnealed, work: Work) -> Operations:
    rounds = 1 if node.rounds is None else node.rounds
    each = {"decay": rounds * work.slots, "reset": rounds * work.slots, "compare": rounds * work.slots}
    behind = cost.dispatch(Leaky)(node, work)
    return behind + Operations(
        spikes=work.sent,
        slots=work.slots,
        updates=each,
        state_reads=rounds * work.slots,
        state_writes=rounds * work.slots,
    )


@cost.register
def _(node: LIFSurrogate, work: Work) -> Operations:
    macs = node.temporal.size + node.mixing.size + node.readout.size
    return Operations(
        spikes=work.sent,
        slots=work.slots,
        neurons=work.slots,
        updates={"norm": macs * work.slots, "compare": work.slots},
        state_reads=node.temporal.shape[1] * work.slots,
        state_writes=work.slots,
    )


@cost.register
def _(node: Memory, work: Work) -> Operations:
    writes, fired = work.tallies["writes"], work.tallies["fired"]
    rows, (columns,) = work.shape("v")[0], work.shape("k")
    entries = rows * columns * work.turns
    updates = {"write": writes, "read": fired * (node.queries or 0)}
    if isinstance(node, Delta):
        updates |= {"erase": writes, "norm": 2 * work.arrived("k")}
    if node.reset != "none":
        updates["reset"] = fired
    if isinstance(node, StoredMemory) and node.decay == "scalar":
        accumulators = 1 if isinstance(node, Delta) else columns
        rescaled = work.tallies["rescaled"] * rows * columns // accumulators
        updates |= {
            "decay": accumulators * work.turns,
            "scale": work.arrived("k"),
            "compare": writes + fired,
            "rescale": rescaled,
        }
        stored = writes + rescaled + accumulators * work.turns
        looked = stored + fired
    else:
        updates |= {"decay": entries, "compare": entries}
        stored = looked = entries
    return Operations(
        spikes=fired, slots=entries, neurons=entries, updates=updates, state_reads=looked, state_writes=stored
    )


@cost.register
def _(node: Diagonal | IntegerSSM, work: Work) -> Operations:
    modes = node.a.shape[1]
    # of each mode: a h is 4 products, and the real part of c h 2; one for the skip
    return Operations(
        updates={"ssm": (6 * modes + 1) * work.slots},
        weight_reads=(4 * modes + 1) * work.slots,
        state_reads=2 * modes * work.slots,
        state_writes=2 * modes * work.slots,
    )


@cost.register
def _(node: Quantize | Shift, work: Work) -> Operations:
    return Operations(updates={"scale": work.arrived()})


@cost.register
def _(node: Lookup, work: Work) -> Operations:
    return Operations(updates={"activation": work.slots}, weight_reads=work.slots)


@cost.register
def _(node: IntegerGLU, work: Work) -> Operations:
    return cost.dispatch(GLU)(node, work) + Operations(weight_reads=work.slots)


@cost.register
def _(node: IntegerLeaky, work: Work) -> Operations:
    updates = {"decay": work.slots, "integrate": work.slots}
    if node.bias is not None:
        updates["bias"] = work.slots
    return Operations(neurons=work.slots, updates=updates, state_reads=work.slots, state_writes=work.slots)


@cost.register
def _(node: IntegerLIF, work: Work) -> Operations:
    spiking = {"compare": work.slots} | ({} if node.reset == "none" else {"reset": work.sent})
    leaky = cost.dispatch(IntegerLeaky)(node, work)
    return leaky + Operations(spikes=work.sent, slots=work.slots, updates=spiking)


@cost.register
def _(node: IntegerCubaLIF, work: Work) -> Operations:
    current = {"decay": work.slots, "integrate": work.slots}
    behind = cost.dispatch(IntegerLIF)(node, work)
    return behind + Operations(updates=current, state_reads=work.slots, state_writes=work.slots)


@cost.register
def _(node: IntegerMemory, work: Work) -> Operations:
    writes, fired = work.tallies["writes"], work.tallies["fired"]
    entries = work.shape("v")[0] * work.shape("k")[0] * work.turns
    updates = {"write": writes, "read": fired * (node.queries or 0), "decay": entries, "compare": entries}
    if node.reset != "none":
        updates["reset"] = fired
    return Operations(
        spikes=fired,
        slots=entries,
        neurons=entries,
        updates=updates,
        state_reads=entries,
        state_writes=entries,
    )


@cost.register
def _(node: Input | Output | Flatten | Reshape | Concatenate, work: Work) -> Operations:
    return Operations()
