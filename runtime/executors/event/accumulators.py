"""The accumulators of a matrix memory with scalar decay: many of them decay at once."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types

from unscan.compiler.ir import Array
from unscan.runtime.executors.event.vector import (
    INDEX,
    broadcast,
    instructions,
    load,
    loops,
    store,
)

TOGETHER = 32
"""Accumulators that decay at once."""


def decays() -> Any:
    """Return the intrinsic (A, alpha, at, place, bound) -> whether some accumulators all took their decay, and no more.

    It runs A <- alpha A for the `TOGETHER` of A from `at` on and of alpha from `place` on. Where one of them would fall
    below the bound, or has an alpha outside [0, 1], it leaves them all as they are. Bits are compared, as whole
    numbers: with a sign, what is negative is below every bound; without one, those of [0, 1] are the least. So of all
    numbers that decay at once only the least and the largest are looked at.
    """

    @instructions
    def decayed(typing: Any, A: Any, alpha: Any, at: Any, place: Any, bound: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            kinds, lanes = signature.args, 512 // signature.args[0].dtype.bitwidth
            whole = ir.VectorType(ir.IntType(kinds[0].dtype.bitwidth), lanes)
            made, least, most = [], None, None
            for first in range(0, TOGETHER, lanes):
                here, there = (builder.add(start, ir.Constant(INDEX, first)) for start in arguments[2:4])
                factor = load(context, builder, kinds[1], arguments[1], there, lanes)
                after = builder.fmul(load(context, builder, kinds[0], arguments[0], here, lanes), factor)
                made.append((here, after))
                low, high = builder.bitcast(after, whole), builder.bitcast(factor, whole)
                least = low if least is None else lesser(builder, builder.icmp_signed, low, least)
                most = high if most is None else lesser(builder, builder.icmp_unsigned, high, most, ">")
            limit = builder.bitcast(broadcast(builder, arguments[4], after.type), whole)
            one = builder.bitcast(ir.Constant(after.type, [1.0] * lanes), whole)
            settled = builder.and_(
                builder.icmp_signed(">=", least, limit), builder.icmp_unsigned("<=", most, one)
            )
            bits = ir.IntType(lanes)
            every = builder.icmp_unsigned("==", builder.bitcast(settled, bits), ir.Constant(bits, -1))
            with builder.if_then(every):
                for here, after in made:
                    store(context, builder, kinds[0], arguments[0], here, after)
            return every

        return types.boolean(A, alpha, types.int64, types.int64, A.dtype), generate

    return decayed


def lesser(builder: Any, compare: Any, a: Any, b: Any, sign: str = "<") -> Any:
    """Return the lesser of each of two vectors, or by another sign the greater."""
    return builder.select(compare(sign, a, b), a, b)


decayed = decays()


@loops
def rescale(M: Array, j: int, pitch: int, scale: float) -> None:
    """Multiply a column of M by a number; what is 0 there is read and no more, as a store takes longer by far."""
    for at in range(j, len(M), pitch):
        if M[at] != 0:
            M[at] *= scale


@loops
def collect(M: Array, A: Array, held: int, alpha: Array, place: int, bound: float) -> tuple[int, bool]:
    """Run the decay of a step, A <- alpha A; return how many accumulators in use were set back to 1.

    A: `held` accumulators, and what stands behind them up to a whole vector. place: where their decays start in alpha.
    Return, too, whether one of these is not in [0, 1], so that entries may fire that are not written.
    """
    rescaled, odd = 0, False
    for at in range(0, held, TOGETHER):
        if decayed(A, alpha, at, place + at, bound):
            continue
        for j in range(at, min(at + TOGETHER, held)):
            before, factor = A[j], alpha[place + j]
            after = before * factor
            odd |= not (0 <= factor <= 1)
            if bound > after:
                A[j] = 1
                if before != 0:
                    rescaled += 1
                    rescale(M, j, held, after)
            else:
                A[j] = after
    return rescaled, odd
