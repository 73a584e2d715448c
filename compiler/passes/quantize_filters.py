"""Whole numbers for state-space filters and matrix memories.

A filter's modes count 2^m to one: h <- a h + x 2^s, with s such that what was measured of them fits. What it reads,
c and d, is scaled so that y counts what is wanted of it: y_int = (2 c G h_int + d G x_int) >> r, with G as large as 16
bits allow, a number for each channel.

A memory counts the product of what its values and keys count, times 2^s. Where that is more than its bits hold, values
and keys are counted more coarsely, each by half of it.
"""

from __future__ import annotations

from math import floor, log2
from typing import NamedTuple, cast

import numpy as np

from unscan.compiler.fixed import SPIKES, Fixed
from unscan.compiler.ir import Array, Edge, Node
from unscan.compiler.nodes import (
    Associative,
    AssociativeMemory,
    DiagonalSSM,
    IntegerMemory,
    IntegerSSM,
    Shift,
)
from unscan.compiler.passes.quantize_lowering import Carried, Lowering, held, most_of, uniform_fraction
from unscan.compiler.passes.quantize_signals import lower, refused
from unscan.compiler.passes.quantize_weights import whole
from unscan.compiler.profiles import share

DEEPEST = 15
"""The largest shift of an input."""


@lower.register
def _(node: DiagonalSSM, name: str, made: Lowering) -> None:
    unit = 2.0 ** min(float(made.fractions[name]), np.floor(np.log2(finest(node, name, made).min())))
    made.carried[name] = filtered(node, name, made, unit, made.profile.signal_bits)


class Modes(NamedTuple):
    """How a filter counts: what feeds it, by how much that is shifted, and what a mode of 1 counts then."""

    parts: list[Carried]
    shift: int
    unit: float


def modes(name: str, made: Lowering) -> Modes:
    """Return how a filter counts, as finely as what was measured of its modes leaves room for."""
    parts = made.arriving(name, uniform=True, narrow=True)
    arriving = float(parts[0].unit.flat[0])
    fits = float(share(Fixed(made.profile.wide_bits).max, made.largest(f"{name}.h").max()))
    shift = DEEPEST if fits == np.inf else floor(log2(fits / arriving))
    if shift < 0:
        parts = [made.rescaled(part, part.unit * 2.0**shift) for part in parts]
        arriving *= 2.0**shift
    shift = min(max(shift, 0), DEEPEST)
    return Modes(parts, shift, arriving * 2.0**shift)


def read_of_modes(node: DiagonalSSM) -> tuple[Array, Array]:
    """Return 2 c and d, in float64."""
    return 2 * node.c.astype(np.float64), node.d.astype(np.float64)


def finest(node: DiagonalSSM, name: str, made: Lowering) -> Array:
    """Return, for each channel, the largest unit of an output that the bits of its c and d leave room for."""
    c, d = read_of_modes(node)
    largest = np.maximum(np.abs(c).max(axis=(1, 2)), np.abs(d))
    return share(Fixed(made.profile.filter_bits + 1).max * modes(name, made).unit, largest)


def filtered(node: DiagonalSSM, name: str, made: Lowering, unit: Array | float, bits: int) -> Carried:
    """Write a filter whose output is to count `unit`, one number or one for each channel."""
    profile = made.profile
    parts, shift, within = modes(name, made)
    wanted = np.broadcast_to(np.asarray(unit, np.float64), node.d.shape)
    c, d = read_of_modes(node)
    largest = np.maximum(np.abs(c).max(axis=(1, 2)), np.abs(d))
    room = float(share(Fixed(profile.filter_bits + 1).max * within, (largest * wanted).max()))
    out = int(np.clip(np.floor(np.log2(room)), 0, 31)) if np.isfinite(room) else 0
    gain = wanted * 2.0**out / within
    a = decays(node.a.astype(np.float64), profile.filter_bits)
    moved = np.abs(a / 2.0**profile.filter_bits - node.a).max()
    made.add(
        name,
        IntegerSSM(
            a=whole(a),
            c=whole(np.rint(c * gain[:, None, None])),
            d=whole(np.rint(d * gain)),
            shift=shift,
            bits=profile.wide_bits,
            decay_bits=profile.filter_bits,
            out_shift=out,
            out_bits=bits,
            fraction=uniform_fraction(wanted),
        ),
        [part.name for part in parts],
    )
    made.notes.append(
        f"{name}: modes of {profile.wide_bits} bits count 2^{log2(within):.0f} to one; their decays moved by at most "
        f"{moved:.2g}"
    )
    return Carried(name, np.array(wanted), float(Fixed(bits).max))


def decays(a: Array, bits: int) -> Array:
    """Return complex numbers, as pairs, in units of 2^-bits: the nearest, and none larger than 1."""
    nearest = np.rint(a * 2.0**bits)
    outside = np.hypot(*np.moveaxis(nearest, -1, 0)) > 2.0**bits
    return np.where(outside[..., None], np.trunc(a * 2.0**bits), nearest)


@lower.register
def _(node: AssociativeMemory, name: str, made: Lowering) -> None:
    profile = made.profile
    v, k = (made.arriving(name, port, uniform=True, narrow=True) for port in ("v", "k"))
    product = v[0].unit.flat[0] * k[0].unit.flat[0]
    largest = np.maximum(made.largest(f"{name}.membrane").max(), float(node.threshold))
    spare = floor(log2(Fixed(profile.wide_bits).max / largest / product))
    v, k = coarser(made, v, max(0, -spare + 1) // 2), coarser(made, k, max(0, -spare) // 2)
    shift = min(max(spare, 0), DEEPEST)
    unit = v[0].unit.flat[0] * k[0].unit.flat[0] * 2.0**shift
    exact = float(node.threshold) * unit
    level = np.ceil(exact) - 1 if node.fires == ">=" else np.floor(exact)
    made.nodes[name] = IntegerMemory(
        threshold=whole(np.asarray(level)),
        queries=node.queries,
        reset=node.reset,
        trained_reset=node.trained_reset,
        shift=shift,
        bits=profile.wide_bits,
        decay_bits=profile.decay_bits,
    )
    ports = {"v": v, "k": k, "alpha": [decaying(node, name, made)]}
    made.carried[name] = Carried(name, np.ones(made.graph.signals[name].shape), SPIKES.max, counts=True)
    if node.queries is not None:
        ports["q"] = made.arriving(name, "q", uniform=True, narrow=True)
        columns = made.graph.inputs(name)["k"].shape[0]
        counting = np.full(made.graph.signals[name].shape, ports["q"][0].unit.flat[0])
        made.carried[name] = Carried(name, counting, held(columns * most_of(ports["q"])))
    made.edges += [Edge(part.name, name, port) for port, parts in ports.items() for part in parts]
    made.units[name] = np.asarray(unit)
    stored = (
        "; stored as it decays, step by step, which scalar decay equals" if node.decay == "scalar" else ""
    )
    made.notes.append(
        f"{name}: entries of {profile.wide_bits} bits count 2^{log2(unit):.0f} to one, values and keys "
        f"2^{log2(v[0].unit.flat[0]):.0f} and 2^{log2(k[0].unit.flat[0]):.0f}; it fires above {level:.0f}{stored}"
    )


def coarser(made: Lowering, parts: list[Carried], bits: int) -> list[Carried]:
    """Return signals in units that are larger by so many bits."""
    return [made.rescaled(part, part.unit / 2.0**bits) for part in parts]


def decaying(node: Associative, name: str, made: Lowering) -> Carried:
    """Return the decays of a memory: numbers from 0 up to what is just below 1, in units of 2^-decay_bits."""
    bits = made.profile.decay_bits
    parts = made.arriving(name, "alpha", uniform=True)
    if len(parts) > 1:
        raise refused(cast(Node, node), name, "several signals are added to its decays")
    (part,) = parts
    if part.counts:
        raise refused(cast(Node, node), name, "its decays are spikes, and 1 is no decay below 1")
    if part.unit.flat[0] == 2.0**bits and part.most <= 2.0**bits - 1 and part.positive:
        return part
    down = int(log2(part.unit.flat[0])) - bits
    entry = Shift(shift=whole(np.asarray(down)), bits=bits, fraction=bits, signed=False)
    return Carried(
        made.add(f"{name}.alpha", entry, [part.name]), np.full(part.unit.shape, 2.0**bits), 2.0**bits - 1
    )
