"""Operators on whole numbers, as they run on chips without floating point: one meaning, bit for bit, everywhere.

Two roundings occur. Decays truncate towards zero, as on Loihi 2: fade(a, x) = trunc(a x / 2^fraction). Rescaling
rounds to the nearest, ties upwards: x >> s with rounding is floor(x / 2^s + 1/2); for s <= 0 it is x 2^-s. sat is
`Fixed.saturated` and wrap `Fixed.wrapped`, in the node's `bits`. All arrays are whole numbers.

Linear, convolutions, sums, maxima, products, delays and the like compute with whole numbers where their own are
(int8, int16 or int32); what they send is exact, and as wide as it has to be (`unscan.compiler.formats`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import INTEGERS, Array, Dialect, Kind, Node, Signal
from unscan.compiler.nodes.memory import answer, entries
from unscan.compiler.nodes.neurons import Phase, Reset
from unscan.compiler.nodes.stateless import as_sparse, fits


@dataclass(frozen=True, eq=False, kw_only=True)
class Integer(Node):
    """What operators on whole numbers share: arrays of int8, int16 or int32 (other whole numbers become int32)."""

    dialect: ClassVar[Dialect] = Dialect.ITERATIVE
    whole: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if str(field.type).startswith("Array") and value is not None:
                array = np.asarray(value)
                if array.dtype not in INTEGERS:
                    if not np.all(array == np.rint(array)) or np.abs(array).max(initial=0) >= 2**31:
                        raise ValueError(f"{field.name} holds numbers that are no whole numbers of 32 bits")
                    array = array.astype(np.int32)
                object.__setattr__(self, field.name, array)
        super().__post_init__()

    @property
    def format(self) -> Fixed:
        """What leaves it."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantize(Integer):
    """y = sat(rint(x 2^fraction)), half to even: real numbers become whole ones of `bits` bits, in units of
    2^-fraction.
    """

    dialect: ClassVar[Dialect] = Dialect.ANY
    bits: int
    fraction: int
    signed: bool = True

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return numbers as sparse as the input."""
        return Signal(as_sparse(inputs["x"]), inputs["x"].shape)

    @property
    def format(self) -> Fixed:
        """Numbers of `bits` bits."""
        return Fixed(self.bits, self.fraction, self.signed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Shift(Integer):
    """y = sat(x >> shift), rounded: whole numbers in other units. shift broadcasts to x, and may be negative."""

    dialect: ClassVar[Dialect] = Dialect.ANY
    shift: Array
    bits: int
    fraction: int = 0
    signed: bool = True

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return numbers as sparse as the input."""
        fits(self.shift, "shift", inputs["x"])
        return Signal(as_sparse(inputs["x"]), inputs["x"].shape)

    @property
    def format(self) -> Fixed:
        """Numbers of `bits` bits."""
        return Fixed(self.bits, self.fraction, self.signed)


@dataclass(frozen=True, eq=False, kw_only=True)
class Lookup(Integer):
    """y = table[clip(x >> shift, -n/2, n/2 - 1) + n/2], rounded, for a table of n numbers: any function of one number.

    Its numbers count units of 2^-fraction.
    """

    dialect: ClassVar[Dialect] = Dialect.ANY
    table: Array
    shift: int
    fraction: int = 0

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers, but sparse ones where the table keeps 0 and the input is sparse."""
        keeps = self.table[len(self.table) // 2] == 0
        return Signal(as_sparse(inputs["x"]) if keeps else Kind.REAL, inputs["x"].shape)

    @property
    def format(self) -> Fixed:
        """The narrowest numbers that hold the table."""
        largest, signed = int(np.abs(self.table.astype(np.int64)).max()), bool(self.table.min() < 0)
        return Fixed.holding(largest, self.fraction, signed=signed)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerGLU(Integer):
    """y = sat((a table[b]) >> shift), rounded: a and b are the halves of x along the last axis, and table[b] is read
    as in `Lookup`, with `index_shift`. x: (..., 2 H) -> y: (..., H).
    """

    dialect: ClassVar[Dialect] = Dialect.ANY
    table: Array
    index_shift: int
    shift: int
    bits: int
    fraction: int = 0

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return half as many numbers, as sparse as a."""
        *lead, width = inputs["x"].shape
        if width % 2:
            raise ValueError(f"got {inputs['x'].shape}, wanted an even last axis, which it halves")
        return Signal(as_sparse(inputs["x"]), (*lead, width // 2))

    @property
    def format(self) -> Fixed:
        """Numbers of `bits` bits."""
        return Fixed(self.bits, self.fraction)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerLeaky(Integer):
    """What leaky integrators of whole numbers share: u' = sat(fade(beta, u) + I + bias), I = limit(x 2^shift).

    beta: in 0 .. 2^decay_bits. bias: added at each step, or None. limit is wrap where `wraps`, as a current overflows
    on Loihi 2, else sat. sat and wrap have `bits` bits.
    """

    beta: Array
    bias: Array | None = None
    shift: int = 0
    bits: int = 24
    decay_bits: int = 12
    wraps: bool = False

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return the membrane: real numbers of the input's shape."""
        for name, value in self.arrays():
            fits(value, name, inputs["x"])
        return Signal(Kind.REAL, inputs["x"].shape)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the membrane that is kept."""
        return {"u": inputs["x"].shape}

    def membrane(self, inputs: Mapping[str, Signal]) -> tuple[int, ...]:
        """Return the input's shape."""
        return inputs["x"].shape


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerLI(IntegerLeaky):
    """Leaky integrator of whole numbers, one step: u = u', y = u; see `IntegerLeaky`. State: u.

    A unit of y stands for 2^-fraction.
    """

    fraction: int = 0

    @property
    def format(self) -> Fixed:
        """The membrane's."""
        return Fixed(self.bits, self.fraction)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerLIF(IntegerLeaky):
    """Leaky integrate-and-fire on whole numbers, one step: u' as in `IntegerLeaky`, s = 1 where u' > threshold.

    Then the reset, at once or at the next step, as in `LIF`; at phase next and subtract the threshold of the last spike
    is taken off before sat. threshold >= 0; a tie never fires, as u >= theta is u > theta - 1 between whole numbers.

    State: u. `trained_reset` is the reset that the model was trained with. With shift 6, bits 24 and wraps it is a
    Loihi 2 neuron without a current's memory (`lava.proc.lif` with du = 4095).
    """

    threshold: Array
    reset: Reset = "zero"
    phase: Phase = "now"
    trained_reset: Reset

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes of the input's shape."""
        return Signal(Kind.SPIKE, super().signal(inputs).shape)

    @property
    def format(self) -> Fixed:
        """Spikes."""
        return Fixed(1, signed=False)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerCubaLIF(IntegerLIF):
    """`IntegerLIF` behind a leaking synaptic current i = limit(fade(alpha, i) + x 2^shift), which takes the place of I.

    alpha: in 0 .. 2^decay_bits. State: i and u. With shift 6, bits 24 and wraps it is Lava's integer LIF with
    du = 4095 - alpha, dv = 4096 - beta.
    """

    alpha: Array

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name current and membrane."""
        return {"i": inputs["x"].shape, "u": inputs["x"].shape}


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerSSM(Integer):
    """Diagonal state-space model on whole numbers: h_m <- sat(fade(a_m, h_m) + x 2^shift), a complex product whose
    parts are each summed and then truncated; y = sat((sum over m of Re(c_m h_m) + d x 2^shift) >> out_shift), rounded.

    a (H, M, 2), in units of 2^-decay_bits, c (H, M, 2) and d (H,) in units of their own (the factor 2 of `Diagonal` is
    in c); h has `bits` bits, y `out_bits`, in units of 2^-fraction. State: h (H, M, 2).
    """

    a: Array
    c: Array
    d: Array
    shift: int = 0
    bits: int = 24
    decay_bits: int = 14
    out_shift: int
    out_bits: int = 16
    fraction: int = 0

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return real numbers of the input's shape."""
        if inputs["x"].shape != self.d.shape:
            raise ValueError(f"got {inputs['x'].shape}, wanted {self.d.shape}, the channels of its filters")
        return Signal(Kind.REAL, self.d.shape)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the modes."""
        return {"h": self.a.shape}

    @property
    def format(self) -> Fixed:
        """Numbers of `out_bits` bits."""
        return Fixed(self.out_bits, self.fraction)


@dataclass(frozen=True, eq=False, kw_only=True)
class IntegerMemory(Integer):
    """Associative matrix memory on whole numbers: S <- sat(fade(alpha, S) + (v k^T) 2^shift), an alpha for each column.

    Z = 1 where S > threshold; y = Z q, or Z where `queries` is None; then the reset of the entries that fired. Ports as
    in `Associative`: v (d,), k (n,), alpha (n,) in 0 .. 2^decay_bits - 1, q (n * r,). A decay truncates at every step,
    so decaying an entry late, step by step, gives the same numbers: an entry needs a look only where it is written or
    has fired last, as a decay alone raises none. State: S (d, n). threshold >= 0 is one number.
    """

    threshold: Array
    queries: int | None = None
    reset: Reset = "none"
    trained_reset: Reset
    shift: int = 0
    bits: int = 24
    decay_bits: int = 12

    @property
    def ports(self) -> tuple[str, ...]:
        """Values, keys, decays, and queries where there are some."""
        return ("v", "k", "alpha", *(() if self.queries is None else ("q",)))

    def signal(self, inputs: Mapping[str, Signal]) -> Signal:
        """Return spikes, or what the queries read of them."""
        _, columns = self.membrane(inputs)
        if inputs["alpha"].shape != (columns,):
            raise ValueError(f"its port alpha got {inputs['alpha'].shape}, wanted ({columns},)")
        return answer(inputs, self.queries)

    def state(self, inputs: Mapping[str, Signal]) -> dict[str, tuple[int, ...]]:
        """Name the memory."""
        return {"S": self.membrane(inputs)}

    def membrane(self, inputs: Mapping[str, Signal]) -> tuple[int, int]:
        """Return (d, n)."""
        return entries(inputs)
