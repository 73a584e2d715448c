"""NIR for sinabs: exponential decays, tau in steps, the threshold subtracted, as many spikes in a step as fit.

sinabs reads every LIF as u = exp(-1 / tau) u + x, n = trunc(u / theta) where u > 0, and u - n theta. A neuron that
cannot reach two thresholds in one step is such a LIF. For every other, the state is a matrix from a primitive to
itself, as in the portable profile, and what fires is brought down to one spike without a branch: two LIF that forget,

    n = trunc(u / theta),        (a, b) = trunc(n + 1/2, n - 1/2),        spikes = a - b = min(n, 1).

It knows no Linear, only Affine, and nir 1.0.4, on which it is pinned, reads no v_reset: the file has none. It fails on
a LIF over an image; an IF it reads there, with several spikes in a step, and keeps its membrane above -theta.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch

import nir
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.ir import Array, Kind, Node
from unscan.compiler.nodes import LIF, Conv2d, Linear, Spiking
from unscan.targets.nir_encoding import Encoding, emit_node
from unscan.targets.nir_neurons import FORGETFUL, each, exponential, lif, open_gain, thresholds

FLAT = (
    "its signal has shape {}, and sinabs fails on a LIF over an image; put a Flatten before it in the model, or take "
    "neurons that do not leak, with reset subtract"
)
SEVERAL = "it fires once for every threshold that its membrane reaches in a step, and subtracts them all"


@singledispatch
def emit_sinabs(node: Node, to: Encoding, name: str, x: str) -> str:
    """Write the primitives of one node for sinabs and return the one that its output leaves."""
    return emit_node(node, to, name, x)


@emit_sinabs.register
def _(node: Spiking, to: Encoding, name: str, x: str) -> str:
    if node.reset == "zero":
        raise Unsupported(
            "sinabs subtracts the threshold of every neuron that it reads from NIR and resets none to zero; run "
            "restore-reset with subtract, or with none"
        )
    if isinstance(node, LIF) and len(to.shape(name)) > 1:
        return over_image(node, to, name, x)
    if not (isinstance(node, LIF) and once_at_most(node, to, name)):
        return emit_node(node, to, name, x)
    shape, levels = to.shape(name), thresholds(node, to)
    if node.gain != "1":
        levels = levels / open_gain(node.beta)
    return to.add(lif(shape, exponential(node.beta), levels), "lif", x)


def over_image(node: LIF, to: Encoding, name: str, x: str) -> str:
    """Write neurons over an image, which sinabs reads where they do not leak."""
    if node.reset != "subtract" or node.phase != "now" or node.gain != "1" or np.any(node.beta != 1):
        raise Unsupported(FLAT.format(to.shape(name)))
    shape = to.shape(name)
    if not once_at_most(node, to, name):
        to.change(name, "several", SEVERAL)
    to.change(name, "clipped", "its membrane is kept from falling below minus its threshold")
    return to.add(nir.IF(r=np.ones(shape), v_threshold=each(thresholds(node, to), shape)), "if", x)


def once_at_most(node: Spiking, to: Encoding, name: str) -> bool:
    """Say whether weights and bias bound a neuron below two thresholds, so that it never fires twice in a step.

    It starts below theta, and after a spike it stands below theta again: u' <= beta theta + the largest input.
    """
    if node.reset != "subtract" or node.phase != "now" or node.fires != ">=":
        return False
    (edge, *others) = to.graph.into(name)
    source = to.graph.nodes[edge.source]
    if others or not isinstance(source, Linear | Conv2d):
        return False
    if [to.graph.signals[before.source].kind for before in to.graph.into(edge.source)] != [Kind.SPIKE]:
        return False
    weight = source.weight.astype(np.float64)
    most = np.maximum(weight.reshape(len(weight), -1), 0).sum(axis=1)
    most = most if source.bias is None else most + np.maximum(source.bias, 0)
    shape = to.shape(name)
    largest = most.reshape(-1, *(1,) * (len(shape) - 1))
    gain = 1 if node.gain == "1" else 1 - node.beta.astype(np.float64)
    return bool(np.all(node.beta * node.threshold + gain * largest < 2 * node.threshold * (1 - 1e-6)))


def fire_once(to: Encoding, name: str, levels: Array, u: str) -> str:
    """Write what fires once where u reaches its level, whatever the multiple, and remembers nothing."""
    if len(to.shape(name)) > 1:
        raise Unsupported(FLAT.format(to.shape(name)))
    return capped(to, name, levels, u, lambda shape, theta: lif(shape, np.asarray(FORGETFUL), theta))


def capped(
    to: Encoding, name: str, levels: Array, u: str, counts: Callable[[tuple[int, ...], Array], nir.NIRNode]
) -> str:
    """Write min(1, trunc(u / level)) from what counts: a primitive of a shape and a threshold that forgets."""
    shape = to.shape(name)
    (neurons,) = shape
    eye, half = np.eye(neurons), np.full(neurons, 0.5)
    counted = to.add(counts(shape, levels), "counts", u)
    twice = to.add(to.linear(np.vstack([eye, eye]), np.concatenate([half, -half])), "twice", counted)
    whole = to.add(counts((2 * neurons,), np.ones(())), "whole", twice)
    return to.add(to.linear(np.hstack([eye, -eye])), "threshold", whole)
