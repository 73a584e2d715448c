"""The netx HDF5 file of `lava.lib.dl.netx.hdf5.Network`, for graphs of whole numbers that are a chain of layers.

Such a file says: LIF neurons with the reset to zero, with or without a current's memory (IntegerLIF and IntegerCubaLIF
with shift 6, 24 bits and wraps), behind a Linear (dense), a Linear and one that leads back over a Delay of one step
(dense_rec), or a Conv2d (conv), with Flatten, delays up to 62 steps, and biases. A soft reset is said so: alpha is the
decay, beta 0, and a recurrence of -theta / 64 on the diagonal takes the threshold off the current a step later. The
last layer may be an IntegerLI, a neuron whose threshold lies beyond 24 bits, to be read by its v; or a Linear alone:
Lava then keeps v = 64 times the sum of what it gave at every step so far.

Groups `layer/0` (the input), `layer/1`, ... with `type`, `shape`, `weight`, `weight_rec`, `bias`, `delay`, `stride`,
`padding`, `dilation`, `groups` and `neuron/type`, `iDecay`, `vDecay`, `vThMant`; beside them `unscan`, which Lava
ignores: JSON facts (layers by name, what the input takes, the graph's digest, history and meta). A graph that begins
with a Quantize is written from behind it: the file takes its whole numbers, and `input.fraction` says their units.

A refusal names what netx or Loihi 2 lacks. Lava's CPU simulation checks no widths, so they are checked here: threshold
17 bits, bias 13 bits, decays 12 bits, delays 6 bits, and sums that its one wrap of 24 bits can bring back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.formats import formats
from unscan.compiler.ir import Array, Graph
from unscan.compiler.nodes import (
    Conv2d,
    Input,
    IntegerCubaLIF,
    IntegerLeaky,
    IntegerLI,
    IntegerLIF,
    Linear,
    Output,
    Quantize,
)
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets.base import collect, facts, insist, producer_version
from unscan.targets.lava.chain import FOLDER, Layer, chain, cuba, layer, synapse_nodes
from unscan.targets.lava.weights import insist_on_kernel, insist_on_weights

UNIT = 64
"""Units of the membrane in one unit of a synapse's sum, a threshold or a bias: 2^6."""
SHIFT, BITS, DECAY_BITS = 6, 24, 12
THRESHOLD, BIAS = 2**17, 2**12
"""Mantissas are smaller: 17 bits without sign, 13 with."""
REACH = 2**18
"""The largest sum of a synapse that one wrap brings back into 24 bits, beside any current."""


def emit(graph: Graph, path: Path | str) -> None:
    """Write a graph as a netx file; see the head of this file.

    Raises:
        Unsupported: a node, setting or number that netx or Loihi 2 lacks; nothing is written.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    insist(graph, "lava (netx)", refusals(graph))
    layers = chain(graph)
    with writing(path) as temporary, h5py.File(temporary, "w") as file:
        _write_input(file.create_group("layer/0"), graph, layers)
        row = 1
        for each in layers:
            if each.flat:
                file[f"layer/{row}/type"] = np.bytes_("flatten")
                row += 1
            _write(file.create_group(f"layer/{row}"), graph, each)
            row += 1
        file["unscan"] = json.dumps({**facts(graph), **described(graph, layers)})


def refusals(graph: Graph) -> dict[str, str]:
    """Return node -> reason for every node that netx cannot say, in data-flow order; empty where it can say all."""
    check(graph, where="The graph for Lava")
    refused = collect(graph.order, lambda name: _insist(graph, name))
    if not refused:
        try:
            chain(graph)
        except Unsupported as reason:
            refused[graph.of(Output)[0]] = str(reason)
    return refused


def described(graph: Graph, layers: list[Layer]) -> dict[str, Any]:
    """Return what a reader has to know beside the layers: their names, shapes and latency, and the input's format."""
    (source,) = graph.of(Input)
    quantized = graph.of(Quantize)
    arriving = formats(graph)[quantized[0] if quantized else source]
    assert arriving is not None
    return {
        "producer": f"unscan {producer_version()}",
        "input": {
            "name": source,
            "shape": list(input_shape(graph, layers)),
            "bits": arriving.bits if quantized else 0,
            "signed": arriving.signed,
            "fraction": arriving.fraction,
        },
        "layers": [
            {
                "name": each.name,
                "shape": list(each.shape),
                "gives": gives(graph, each),
                "remembers": each.back is not None or each.delay is not None,
            }
            for each in layers
        ],
    }


def gives(graph: Graph, made: Layer) -> str:
    """Return what is read of a layer: spikes, membranes (of an integrator), or sums (of a Linear)."""
    node = graph.nodes[made.name]
    return (
        "spikes" if isinstance(node, IntegerLIF) else "membranes" if isinstance(node, IntegerLI) else "sums"
    )


def input_shape(graph: Graph, layers: list[Layer]) -> tuple[int, ...]:
    """Return the shape that a file takes: (C, H, W) in front of a convolution, else (N,)."""
    first = layers[0].forward.node
    return graph.inputs(first)["x"].shape


def _insist(graph: Graph, name: str) -> None:
    """Raise Unsupported with the reason for which netx cannot say a node."""
    made = layer(graph, name)
    if made is None:
        return
    node = graph.nodes[name]
    if isinstance(node, IntegerLeaky):
        _insist_on_neuron(node)
    if isinstance(node, IntegerLIF):
        _insist_on_threshold(node)
    _insist_on_synapses(graph, made)


def _insist_on_neuron(node: IntegerLeaky) -> None:
    for what, got, wanted in (
        ("reset", getattr(node, "reset", "zero"), "zero"),
        ("phase", getattr(node, "phase", "now"), "now"),
        ("shift", node.shift, SHIFT),
        ("bits", node.bits, BITS),
        ("decay_bits", node.decay_bits, DECAY_BITS),
        ("wraps", node.wraps, True),
    ):
        if got != wanted:
            raise Unsupported(
                f"its {what} is {got}, and Lava's LIF has {wanted}; compile with reset zero and quantize with profile "
                f"loihi2, or {FOLDER}"
            )


def _insist_on_threshold(node: IntegerLIF) -> None:
    mantissa = node.threshold.astype(np.int64) / UNIT
    if np.any(mantissa != np.rint(mantissa)) or mantissa.max() >= THRESHOLD:
        raise Unsupported(
            f"its threshold lies from {node.threshold.min()} to {node.threshold.max()}, wanted multiples of {UNIT} "
            f"below {UNIT * THRESHOLD}; quantize with profile loihi2"
        )


def _insist_on_synapses(graph: Graph, made: Layer) -> None:
    """Raise Unsupported where a weight, bias or sum does not fit."""
    nodes = synapse_nodes(graph, [made])
    forward = nodes[made.forward.node]
    if isinstance(forward, Conv2d):
        insist_on_kernel(made.forward.node, forward.weight)
        assert isinstance(forward.padding, tuple)
        if forward.padding[:2] != forward.padding[2:]:
            raise Unsupported(
                f"the padding of {made.forward.node!r} is {forward.padding}, wanted as much on both sides"
            )
    else:
        insist_on_weights({name: node.weight for name, node in nodes.items()})
    bias = mantissas(graph, made)
    if bias is not None and (np.any(bias != np.rint(bias)) or bias.min() < -BIAS or bias.max() >= BIAS):
        raise Unsupported(
            f"its bias, with that of {made.forward.node!r}, lies from {UNIT * bias.min():g} to {UNIT * bias.max():g}, "
            f"wanted multiples of {UNIT} from {-UNIT * BIAS} below {UNIT * BIAS}; quantize with profile loihi2"
        )
    reach = _reach(graph, made)
    if reach > REACH:
        raise Unsupported(
            f"the sums of its synapses reach {reach}, and Lava brings no more than {REACH} back into 24 bits; make the "
            "weights or the input's numbers smaller"
        )
    linear = 0 if forward.bias is None else int(np.abs(forward.bias.astype(np.int64)).max())
    neuron = graph.nodes[made.name]
    if linear and isinstance(neuron, IntegerCubaLIF) and np.any(neuron.alpha):
        raise Unsupported(
            f"{made.forward.node!r} adds its bias to the current, which keeps it, and Lava adds biases to the "
            "membrane; move it to the neuron's bias"
        )
    if linear and UNIT * (reach + linear) >= 2 ** (BITS - 1):
        raise Unsupported(
            f"the sums of its synapses and the bias of {made.forward.node!r} reach {UNIT * (reach + linear)}, and Lava "
            f"wraps the sum before it adds the bias; make them smaller than {2 ** (BITS - 1)}"
        )


def _reach(graph: Graph, made: Layer) -> int:
    """Return the largest number, without sign, that a layer's synapses can add up to."""
    found = formats(graph)
    total = np.zeros(1, np.int64)
    for each in (made.forward, made.back):
        if each is not None:
            node = synapse_nodes(graph, [made])[each.node]
            arriving = found[graph.into(each.node)[0].source]
            assert arriving is not None
            total = (
                total
                + np.abs(node.weight.astype(np.int64)).reshape(len(node.weight), -1).sum(axis=1)
                * arriving.max
            )
    return int(total.max())


def mantissas(graph: Graph, made: Layer) -> Array | None:
    """Return the bias of a layer in the units of its synapses, in the shape of its neurons or broadcast to it."""
    forward = synapse_nodes(graph, [made])[made.forward.node]
    neuron = graph.nodes[made.name]
    own = neuron.bias if isinstance(neuron, IntegerLeaky) else None
    if own is None and forward.bias is None:
        return None
    parts: Array = np.zeros(made.shape) if own is None else np.broadcast_to(own / UNIT, made.shape)
    if forward.bias is None:
        return parts
    return parts + forward.bias.reshape(-1, *(1,) * (len(made.shape) - 1))


def _write_input(group: Any, graph: Graph, layers: list[Layer]) -> None:
    group["type"] = np.bytes_("input")
    group["shape"] = np.array(input_shape(graph, layers), np.int64)


def _write(group: Any, graph: Graph, made: Layer) -> None:
    """Write one layer; (C, H, W) is turned to Lava's (W, H, C) where it wants one number for each neuron."""
    forward = synapse_nodes(graph, [made])[made.forward.node]
    group["shape"] = np.array(made.shape, np.int64)
    group["weight"] = forward.weight.astype(np.int32)
    if isinstance(forward, Conv2d):
        group["type"] = np.bytes_("conv")
        group["stride"] = np.array(forward.stride, np.int64)
        group["padding"] = np.array(cast("tuple[int, ...]", forward.padding)[:2], np.int64)
        group["dilation"] = np.array(forward.dilation, np.int64)
        group["groups"] = np.int64(forward.groups)
    else:
        group["type"] = np.bytes_("dense" if made.back is None else "dense_rec")
    if made.back is not None:
        group["weight_rec"] = cast(Linear, graph.nodes[made.back.node]).weight.astype(np.int32)
    if made.delay is not None:
        group["delay"] = made.delay
    bias = mantissas(graph, made)
    if bias is not None:
        group["bias"] = np.broadcast_to(bias, made.shape).T.astype(np.int16)
    node = graph.nodes[made.name]
    if isinstance(node, IntegerLeaky):
        alpha, beta = cuba(node)
        group["neuron/type"] = np.bytes_("CUBA")
        group["neuron/iDecay"] = _each(2**DECAY_BITS - alpha.astype(np.int64), made)
        group["neuron/vDecay"] = _each(2**DECAY_BITS - beta.astype(np.int64), made)
        silent = np.array(THRESHOLD)
        mantissa = node.threshold.astype(np.int64) // UNIT if isinstance(node, IntegerLIF) else silent
        group["neuron/vThMant"] = _each(mantissa, made)


def _each(values: Array, made: Layer) -> Array:
    """Return one number, or one for each neuron of a layer in Lava's order."""
    return (
        values.reshape(())
        if values.size == 1
        else np.ascontiguousarray(np.broadcast_to(values, made.shape).T)
    )
