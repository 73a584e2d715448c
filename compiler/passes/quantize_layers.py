"""The scales of a layer of neurons, and the weights that take them up.

A membrane counts K to one, u_int = K u, a K for each channel, and what feeds it P = K / 2^s, s being the shift of the
neuron's input. All weights that feed the neuron, forward and recurrent, are then P g w / U, g being its input gain
and U what their inputs count. P is as large as the widths allow:

- no weight is larger than its bits hold, nor a sum of them;
- K times the largest membrane and current that were measured, with headroom, fits in the state;
- threshold and bias fit in theirs.

Weights on real inputs would leave no room for the state, K being q 2^f: they have a scale of their own, and a shift
behind them (`weighted`). Where a profile shifts every neuron's input by the same number, as Loihi 2 does, what comes
from the graph's own input is weighted directly, and the input's fraction is chosen so that both are about as fine.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from unscan.compiler.ir import Array
from unscan.compiler.nodes import Delay, DiagonalSSM
from unscan.compiler.passes.quantize_filters import filtered, finest
from unscan.compiler.passes.quantize_lowering import Carried, Leaf, Lowering, most_of
from unscan.compiler.passes.quantize_signals import lower, reading, refused, weighted
from unscan.compiler.passes.quantize_weights import ROOM, Grid, bias_of, reach, rounded, rows
from unscan.compiler.profiles import power_below, share, weight_scale

DEEPEST = 15
"""The largest shift of an input."""


class Tight(NamedTuple):
    """A leaf whose weights are in the neuron's own units, what feeds it, and its weights on those units."""

    leaf: Leaf
    parts: list[Carried]
    node: Any


class Layer:
    """A reader of weights, and the scales that are chosen for it.

    Args:
        name: the node: a neuron, or the output.
        made: what is written so far.
        one: whether all neurons are to have one scale, a power of two, as their numbers are compared or read.
        stateless: whether it keeps nothing, and its input is not shifted.
        direct: whether all weights are in the neurons' own units.
    """

    def __init__(
        self, name: str, made: Lowering, *, one: bool = False, stateless: bool = False, direct: bool = False
    ) -> None:
        self.name, self.made, self.one, self.direct = name, made, one, direct
        node: Any = made.graph.nodes[name]
        self.node = node
        self.shape = made.graph.inputs(name)["x"].shape
        self.profile = made.profile
        self.given = 0 if stateless else self.profile.shift
        branches = made.leaves[name]
        self.straight = all(leaf.straight for leaves in branches if leaves for leaf in leaves)
        self.count = self.shape[0] if self.straight else 1
        self.gain = self.rows(1.0 - node.beta if getattr(node, "gain", "1") != "1" else 1.0)
        if np.ptp(self.gain, axis=1).any() and any(branches):
            where = "channel" if self.straight else "layer"
            raise refused(
                self.node,
                name,
                f"its input gain 1 - beta differs from neuron to neuron of a {where}, which the weights before it have "
                "one scale for; give it one decay",
            )
        self.factor = self.gain[:, 0]
        self.heaviest = 0
        self.mixed = any(leaves is None for leaves in branches)
        self.tight = [
            tight for leaves in branches if leaves for leaf in leaves if (tight := self._tight(leaf))
        ]

    def rows(self, values: Any) -> Array:
        """Return numbers that broadcast to the neurons as (rows, neurons of a row)."""
        return np.broadcast_to(np.asarray(values, np.float64), self.shape).reshape(self.count, -1)

    def full(self, values: Array) -> Array:
        """Return one number for each row as one for each neuron."""
        each = np.broadcast_to(values, self.count).reshape(self.count, *(1,) * (len(self.shape) - 1))
        return np.broadcast_to(each, self.shape)

    def _tight(self, leaf: Leaf) -> Tight | None:
        node: Any = self.made.graph.nodes[leaf.name]
        if isinstance(node, DiagonalSSM):
            return None
        parts, x = reading(node, leaf.name, self.made)
        balanced = self.given is not None and all(
            edge.source in self.made.balanced for edge in self.made.graph.into(leaf.name)
        )
        if not (self.direct or balanced or all(part.counts for part in parts)):
            return None
        return Tight(leaf, parts, x)

    def matrix(self, tight: Tight) -> Array:
        """Return what multiplies a row's inputs in the neuron's units, but for P."""
        weights = rows(tight.node) / tight.leaf.divisor
        return weights.reshape(self.count, -1) * self.factor[:, None]

    def reached(self) -> Array:
        """Return the largest |input| of each row over all tight weights, in the neuron's units, but for P."""
        total = np.zeros(self.count)
        for tight in self.tight:
            each = reach(tight.node, most_of(tight.parts)) / tight.leaf.divisor
            total = total + each.reshape(self.count, -1).max(axis=1) * self.factor
        return total

    def filters(self) -> Array:
        """Return the largest P of each row that the filters before it can give."""
        found = np.full(self.count, np.inf)
        for leaf in self.all:
            node = self.made.graph.nodes[leaf.name]
            if isinstance(node, DiagonalSSM):
                each = finest(node, leaf.name, self.made) * leaf.divisor
                gain = np.where(self.factor > 0, self.factor, 1.0)
                found = np.minimum(found, each.reshape(self.count, -1).min(axis=1) / gain)
        return found

    def shifted(self) -> Array:
        """Return the largest P of each row that shifts of 31 bits give of signals that have units already."""
        found = np.full(self.count, np.inf)
        for edge, leaves in zip(self.made.graph.into(self.name), self.made.leaves[self.name], strict=True):
            if leaves is None:
                found = np.minimum(
                    found, self.rows(self.made.carried[edge.source].unit).min(axis=1) * 2.0**30
                )
        return found

    def measured(self, *keys: str) -> Array:
        """Return the largest size that was measured of each row, headroom included, of membranes and input."""
        sent = [self.made.largest(edge.source) for edge in self.made.graph.into(self.name)]
        arrived = self.rows(np.sum(sent, axis=0)) * self.gain
        sizes = [arrived, *(self.rows(self.made.largest(f"{self.name}.{key}")) for key in keys)]
        return np.asarray(np.max(sizes, axis=0).max(axis=1))

    def bias(self) -> Array | None:
        """Return the biases that move into the neuron, (rows,), in real numbers; None where none does."""
        found = [
            np.asarray(bias, np.float64)
            for leaf in self.own
            if (bias := bias_of(self.made.graph.nodes[leaf.name])) is not None
        ]
        return np.asarray(np.sum(found, axis=0)) if found else None

    def largest_bias(self, bias: Array | None) -> Array | None:
        """Return the largest bias of each row, with the input gain in it."""
        return None if bias is None else np.abs(bias).reshape(self.count, -1).max(axis=1) * self.factor

    @property
    def all(self) -> list[Leaf]:
        """The leaves behind all its edges."""
        return [leaf for leaves in self.made.leaves[self.name] for leaf in leaves or ()]

    @property
    def own(self) -> list[Leaf]:
        """The leaves right before the neuron."""
        return [leaf for leaf in self.all if leaf.alone]

    def scales(self, ceiling: Array, threshold: Array | None, bias: Array | None) -> tuple[Array, int]:
        """Return P of each row, and the shift s: K = P 2^s. `ceiling`: the largest K of each."""
        profile = self.profile
        if not self.tight:
            shift = self.given or 0
            ceiling = np.min([ceiling, self.filters() * 2.0**shift, self.shifted() * 2.0**shift], axis=0)
            return self._agreed(power_below(finite(ceiling / 2.0**shift))), shift
        matrices = [self.matrix(tight) for tight in self.tight]
        room = 2.0 ** (profile.state_bits - self.given) if profile.wraps and self.given else ROOM / 2
        highest = np.min([share(room, self.reached()), self.filters(), self.shifted()], axis=0)
        if self.given is not None:
            powers = profile.powers or self.one or self.mixed
            scale = weight_scale(
                profile if self.given else replace(profile, shift=0, unit=1),
                matrices,
                threshold=None if powers else threshold,
                bias=bias,
                ceiling=np.minimum(ceiling / 2.0**self.given, highest),
            )
            return self._agreed(power_below(scale) if powers else scale), self.given
        finest = weight_scale(profile, matrices, ceiling=highest)
        ratio = float(np.min(ceiling / finest))
        shift = int(np.clip(np.floor(np.log2(ratio)), 0, DEEPEST)) if np.isfinite(ratio) else 0
        return self._agreed(power_below(np.minimum(ceiling / 2.0**shift, finest))), shift

    def _agreed(self, scale: Array) -> Array:
        return np.full(self.count, scale.min()) if self.one else scale

    def write(self, scale: Array, bits: int, *, moved: bool) -> list[str]:
        """Write what feeds it, counting P g to one; return the nodes that now do, and note what became of weights.

        `bits`: of what is rescaled. `moved`: whether biases right before it are its own now.
        """
        grid = Grid.of(self.profile, [self.matrix(tight) for tight in self.tight])
        found = {tight.leaf.name: tight for tight in self.tight}
        lost: list[str] = []
        sources = []
        for edge, leaves in zip(self.made.graph.into(self.name), self.made.leaves[self.name], strict=True):
            if leaves is None:
                wanted = self.full(scale) * np.reshape(self.gain, self.shape)
                sources.append(self.made.rescaled(self.made.carried[edge.source], wanted, bits).name)
                continue
            for leaf in leaves:
                kept = not (moved and leaf.alone)
                self._write_leaf(leaf, found.get(leaf.name), scale, grid, bits, lost, bias=kept)
            sources.append(self._through(edge.source))
        self.made.notes += lost
        return sources

    def _write_leaf(
        self,
        leaf: Leaf,
        tight: Tight | None,
        scale: Array,
        grid: Grid,
        bits: int,
        lost: list[str],
        *,
        bias: bool,
    ) -> None:
        made = self.made
        node: Any = made.graph.nodes[leaf.name]
        shape = made.graph.signals[leaf.name].shape
        scale = scale / leaf.divisor
        if isinstance(node, DiagonalSSM):
            each = filtered(node, leaf.name, made, scale * self.factor, bits)
            made.carried[leaf.name] = each._replace(unit=np.broadcast_to(scale, shape))
        elif tight is None:
            made.carried[leaf.name] = weighted(
                node,
                leaf.name,
                made,
                scale,
                bits,
                gain=self.factor,
                bias=bias,
            )
        else:
            done = rounded(tight.node, scale * self.factor, self.profile, grid, bias=bias)
            made.add(leaf.name, done.node, [part.name for part in tight.parts])
            self.heaviest = max(self.heaviest, done.largest)
            if done.said:
                lost.append(f"{leaf.name}: {done.said}")
            unit = np.broadcast_to(scale.reshape(-1, *(1,) * (len(shape) - 1)), shape)
            made.carried[leaf.name] = Carried(leaf.name, unit, ROOM)

    def _through(self, name: str) -> str:
        """Write what stands between leaves and the neuron; return the node that now sends what `name` did."""
        made, node = self.made, self.made.graph.nodes[name]
        if name not in made.carried or isinstance(node, Delay):
            for edge in made.graph.into(name):
                self._through(edge.source)
            lower(node, name, made)
            if name not in made.carried:
                (first, *_) = made.graph.into(name)
                made.carried[name] = made.carried[first.source]._replace(name=name)
        return made.carried[name].name


def finite(values: Array) -> Array:
    """Return values, 1 in the place of those that are infinite."""
    return np.where(np.isfinite(values), values, 1.0)
