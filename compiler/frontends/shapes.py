"""Functions that change shapes into nodes: axes of neurons in other shapes, steps taken apart and stacked again."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from unscan.compiler.frontends.builder import Axes
from unscan.compiler.frontends.site import Half, Outcome, Read, Site
from unscan.compiler.nodes import Concatenate, Flatten, Reshape


def _reshape(site: Site) -> Read:
    return reshaped(site, site.read())


def reshaped(site: Site, x: Read) -> Read:
    """Return x in the shape that came out, if that leaves time and batch alone, or folds or unfolds them."""
    shape = tuple(site.call.result)
    options: dict[Axes, tuple[Axes, ...]] = {
        "sequence": ("sequence", "folded"),
        "folded": ("folded", "sequence"),
        "step": ("step",),
    }
    for axes in options[x.axes]:
        lead = site.lead(axes)
        own = shape[len(lead) :]
        if shape[: len(lead)] == lead and math.prod(own) == math.prod(x.shape):
            if own == x.shape:
                return replace(x, axes=axes)
            if not own:
                raise site.refused("it leaves no axis of neurons; keep one, of size 1")
            node = Flatten() if len(own) == 1 else Reshape(own)
            return replace(x, axes=axes, shape=own, value=site.to.add(site.name, node, x.value))
    raise site.refused(
        f"it makes {shape} of {(*site.lead(x.axes), *x.shape)}, which joins time or batch with the neurons; leave the "
        "axes (T, B) alone, as nn.Flatten(2) does, or fold both into one with x.flatten(0, 1)"
    )


def _permute(site: Site) -> Read:
    x = site.read()
    count = len(site.lead(x.axes)) + len(x.shape)
    given = list(site.args[1:]) or list(site.kwargs.values())
    if len(given) == 1 and isinstance(given[0], tuple | list):
        given = list(given[0])
    if site.call.name == "permute" and [int(d) % count for d in given] == list(range(count)):
        return x
    if site.call.name in ("transpose", "movedim", "swapaxes") and len(given) == 2 and given[0] == given[1]:
        return x
    raise site.refused(
        "it changes the order of the axes; sequences are (T, B, ...) throughout, and what runs over time is a neuron "
        "or a state-space layer"
    )


def _concatenate(site: Site) -> Read:
    parts = site.argument(0, "tensors")
    reads = [site.usable(part) for part in parts]
    lead = len(site.lead(reads[0].axes))
    dims = lead + len(reads[0].shape)
    axis = site.argument(1, "dim", site.kwargs.get("axis", 0)) % dims - lead
    if axis < 0 or len({(r.axes, r.time) for r in reads}) > 1:
        raise site.refused("it joins tensors along time or batch; join them along an axis of neurons")
    if len(reads) == 1:
        return reads[0]
    return site.gives(reads[0], Concatenate(len(reads), axis), *(r.value for r in reads))


def _stack(site: Site) -> Read:
    parts = [site.usable(part) for part in site.argument(0, "tensors")]
    if [part.time for part in parts] != list(range(site.steps)):
        raise site.refused(
            "only what a loop over the steps has collected can be stacked, a tensor of every step"
        )
    if site.argument(1, "dim", 0) not in (0, -len(parts[0].shape) - 2):
        raise site.refused(
            "it puts time behind other axes; stack along dim 0, so that sequences are (T, B, ...)"
        )
    if len({part.value for part in parts}) > 1:
        raise site.refused("it stacks different tensors at different steps")
    return Read(parts[0].value, "sequence", parts[0].shape)


def _step(site: Site, x: Read, index: Any) -> Read:
    if not isinstance(index, int) or isinstance(index, bool) or x.axes != "sequence":
        raise site.refused("it takes a part of a signal, which has no node")
    return Read(x.value, "step", x.shape, index % site.steps)


def _item(site: Site) -> Outcome:
    x, index = site.read(0, "self"), site.argument(1, "index")
    index = list(index) if isinstance(index, tuple) else [index]
    everything = (slice(None), Ellipsis)
    if index and isinstance(index[0], int) and all(part in everything for part in index[1:]):
        return _step(site, x, index[0])
    if all(part is None or part in everything for part in index):
        return reshaped(site, x)
    raise site.refused("it takes a part of a signal, which has no node")


def _select(site: Site) -> Read:
    x = site.read()
    if site.argument(1, "dim") != 0:
        raise site.refused("it takes a part of a signal, which has no node")
    return _step(site, x, site.argument(2, "index"))


def _unbind(site: Site) -> Outcome:
    x = site.read()
    if site.argument(1, "dim", 0) != 0:
        raise site.refused("it takes a signal apart, which has no node; take a sequence apart by steps")
    return tuple(_step(site, x, t) for t in range(len(site.call.result)))


def _chunk(site: Site) -> Outcome:
    x = site.read()
    parts = site.call.result
    lead = len(site.lead(x.axes))
    dims = lead + len(x.shape)
    dim = site.argument(2, "dim", 0)
    if dim % dims != dims - 1 or len(parts) != 2 or parts[0] != parts[1]:
        raise site.refused(
            "it takes a signal apart, which has no node but for the halves of a GLU, chunk(2, -1)"
        )
    reason = "a half of a signal has a node only as the GLU a * sigmoid(b) of both"
    return Half(reason, x), Half(reason, x, second=True)


SHAPES: dict[str, Callable[[Site], Outcome]] = {
    **dict.fromkeys(
        ["reshape", "view", "flatten", "unflatten", "squeeze", "unsqueeze", "reshape_as", "view_as", "ravel"],
        _reshape,
    ),
    **dict.fromkeys(
        ["permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t", "T", "mT"], _permute
    ),
    **dict.fromkeys(("cat", "concat", "concatenate"), _concatenate),
    "stack": _stack,
    "getitem": _item,
    "select": _select,
    "unbind": _unbind,
    **dict.fromkeys(("chunk", "split", "tensor_split"), _chunk),
}
"""Rules by the name of a function or method, without underscores."""
