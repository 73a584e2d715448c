"""Matrix memories: a state S (d, n) with a neuron at every entry, written by values along keys, read by queries.

Both forms of each stand here: as it is scanned over a sequence in training, and as a step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from unscan.compiler.ir import Array, Dialect, Kind, Node, Signal
from unscan.compiler.nodes.neurons import Fires, Reset

Decay = Literal["dense", "scalar"]
DECAYS: tuple[str, ...] = get_args(Decay)


@dataclass(frozen=True, eq=False, kw_only=True)
class Memory(Node):
    """What matrix memories share: Z = H(S - theta), then y = Z q, or y = Z where `queries` is None.

    Ports: v (d,), k (n,), the gates, and q (n * r,), rows of r = `queries` numbers. y: (d * r,) or (d * n,), by rows.
    theta > 0 is one number. S starts at 0.
    """

    threshold: Array
    queries: int | None = None
    fires: Fires = ">="
    reset: Reset = "none"

    gates: ClassVar[tuple[str, ...]]

    @property
    def ports(self) -> tuple[str, ...]:
        """Values, keys, gates, and queries where there are some."""
        return ("v", "k", *self.gates, *(() if self.queries is None else ("q",)))

    def width(self, gate: str, columns: int) -> int:
        """Return the numbers of one gate, for a memory of so many columns."""
        return columns

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes, or what the queries read of them."""
        _, columns = self.membrane(inputs)
        for gate in self.gates:
            wanted = (self.width(gate, columns),)
            if inputs[gate].shape != wanted:
                raise ValueError(f"its port {gate} got {inputs[gate].shape}, wanted {wanted}")
        return answer(inputs, self.queries)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the memory."""
        return {"S": self.membrane(inputs)}

    def membrane(self, inputs: Mapping[str, Signal]) -> tuple[int, int]:
        """Return (d, n)."""
        return entries(inputs)


@dataclass(frozen=True, eq=False, kw_only=True)
class StoredMemory(Memory):
    """What both memories have where they are deployed: a reset, as an option, and how S is stored.

    reset, at once, of the entries that fire, after they are read: subtract S - theta, zero 0. `trained_reset` is that
    of training.

    decay "dense": S itself; every entry decays at every step.
    decay "scalar": S = M A, where the accumulators A (one for each number of the gate that decays) collect the decays
    and a step touches only what is written. At each step A <- alpha A; where A < `bound`, the entries of M that it
    stands for are multiplied by it and it becomes 1. So A = 0, as every state starts, is an accumulator still unused.
    State: M (d, n) and A. Equal to the dense form up to rounding.
    """

    dialect: ClassVar[Dialect] = Dialect.ITERATIVE
    trained_reset: Reset
    decay: Decay = "dense"
    bound: float = 2.0**-60

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the memory, and its accumulators where it has some."""
        shape = self.membrane(inputs)
        if self.decay == "dense":
            return {"S": shape}
        return {"M": shape, "A": (self.width("alpha", shape[1]),)}


@dataclass(frozen=True, eq=False, kw_only=True)
class Associative(Memory):
    """S_t = S_{t-1} diag(alpha_t) + v_t k_t^T: each key column decays on its own. Gate: alpha (n,) in [0, 1]."""

    gates: ClassVar[tuple[str, ...]] = ("alpha",)


@dataclass(frozen=True, eq=False, kw_only=True)
class AssociativeScan(Associative):
    """The associative memory over a whole sequence, as trained (`AssociativeLeaky`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class AssociativeMemory(StoredMemory, Associative):
    """One step of the associative memory; see `Associative` and `StoredMemory`."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Delta(Memory):
    """S_t = alpha_t S_{t-1} (I - beta_t k_t k_t^T) + beta_t v_t k_t^T: what is written erases what stood there.

    k is scaled to length 1 here; one shorter than 1e-12 counts as 0. Gates: alpha and beta, one number each, in [0, 1].
    """

    gates: ClassVar[tuple[str, ...]] = ("alpha", "beta")

    def width(self, gate: str, columns: int) -> int:
        """One number each."""
        return 1


@dataclass(frozen=True, eq=False, kw_only=True)
class DeltaScan(Delta):
    """The delta memory over a whole sequence, as trained (`DeltaLeaky`)."""

    dialect: ClassVar[Dialect] = Dialect.PARALLEL


@dataclass(frozen=True, eq=False, kw_only=True)
class DeltaMemory(StoredMemory, Delta):
    """One step of the delta memory; see `Delta` and `StoredMemory`."""


def entries(inputs: Mapping[str, Signal]) -> tuple[int, int]:
    """Return (d, n) of a memory that such values and keys write."""
    for port in ("v", "k"):
        if len(inputs[port].shape) != 1:
            raise ValueError(f"its port {port} got {inputs[port].shape}, wanted one axis")
    return inputs["v"].shape[0], inputs["k"].shape[0]


def answer(inputs: Mapping[str, Signal], queries: int | None) -> Signal:
    """Return what leaves a memory: its spikes, or what so many queries read of them."""
    rows, columns = entries(inputs)
    if queries is None:
        return Signal(Kind.SPIKE, (rows * columns,))
    if inputs["q"].shape != (columns * queries,):
        raise ValueError(f"its port q got {inputs['q'].shape}, wanted ({columns * queries},)")
    return Signal(Kind.GRADED, (rows * queries,))
