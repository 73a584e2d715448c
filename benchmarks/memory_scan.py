"""Measure a matrix memory over a sequence, forward alone and with backward, against snnTorch's scan.

    unscan bench memory_scan [--quick] [--json FILE]

Methods: the fused kernels; the chunked form in plain torch; a fair step loop over unbound inputs; and snnTorch
1.0.0's AssociativeLeaky, its own forward with its projections replaced by the same v, k, logits of alpha. All
start from those logits and give the gradients of v, k, logits and q.

Readouts: "no q", y = Z, (T, B, d, n), written by every method; and "one query", y = Z q, (T, B, d), for which
snnTorch's Z goes through a product with q, since its class reads with d queries or none. snnTorch's scan is timed
as it is, though it leaves the recurrence within a hundred steps (it divides by a running product).

float32, one thread, methods in turns, medians. Memory is by how much a pass forward and backward raises the peak
of a process of its own beyond the inputs: outputs and gradients included.
"""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unscan.benchmarks.measuring import Pass, comparison, medians, memory, options, screen, trained, write
from unscan.trainer.recurrence.matrix.chunked import memory_chunked
from unscan.trainer.recurrence.matrix.fused import memory_fused
from unscan.trainer.recurrence.matrix.naive import memory_step
from unscan.trainer.recurrence.naive import Firing

Shape = tuple[int, int, int, int]
SHAPES: list[Shape] = [(1024, 2, 64, 64), (8192, 2, 16, 16), (8192, 2, 64, 64)]
QUICK: list[Shape] = [(256, 2, 16, 16), (256, 2, 64, 64)]
LOOP_LIMIT = 10_000_000  # steps x lanes
READOUTS = ("no q", "one query")
WAYS = ("forward", "forward + backward")
HOW = Firing("none", fires=">")
OURS = "fused"


def scanned(
    form: Callable[..., Any], v: Tensor, k: Tensor, logits: Tensor, q: Tensor | None = None
) -> Tensor:
    """Run one of our forms from a state of zeros."""
    start = v.new_zeros(*v.shape[1:], k.shape[-1])
    y: Tensor = form(v, k, torch.sigmoid(logits), q, start, v.new_tensor(1.0), HOW, membrane=False)[0]
    return y


def looped(v: Tensor, k: Tensor, logits: Tensor, q: Tensor | None = None) -> Tensor:
    """Step through the sequence, keeping no more than the readouts."""
    S, threshold, readouts = v.new_zeros(*v.shape[1:], k.shape[-1]), v.new_tensor(1.0), []
    queries = [None] * len(v) if q is None else q.unbind(0)
    steps = zip(v.unbind(0), k.unbind(0), torch.sigmoid(logits).unbind(0), queries, strict=True)
    for v_t, k_t, alpha_t, q_t in steps:
        y, S = memory_step(v_t, k_t, alpha_t, q_t, S, threshold, HOW)
        readouts.append(y)
    return torch.stack(readouts)


class Given(nn.Module):
    """Stand in for a projection: hand out what it would have made of x."""

    value: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Ignore x."""
        return self.value


def snntorch_scan() -> Callable[..., Tensor]:
    """Wrap snnTorch's class so that it gets v, k and logits instead of x."""
    from snntorch import AssociativeLeaky

    def run(v: Tensor, k: Tensor, logits: Tensor, q: Tensor | None = None) -> Tensor:
        d, n = v.shape[-1], k.shape[-1]
        layer = AssociativeLeaky(1, d, n, d * n, use_q_projection=False)
        for name, value in (("to_v", v), ("to_k", k), ("to_alpha", logits)):
            stand_in = Given()
            stand_in.value = value
            setattr(layer, name, stand_in)
        Z: Tensor = layer(v[..., :1]).unflatten(-1, (d, n))
        return Z if q is None else Z @ q

    return run


def available() -> dict[str, Callable[..., Tensor]]:
    """List the methods that can run here."""
    found: dict[str, Callable[..., Tensor]] = {
        OURS: partial(scanned, memory_fused),
        "chunked": partial(scanned, memory_chunked),
        "step loop": looped,
    }
    with suppress(ImportError):
        found["snnTorch"] = snntorch_scan()
    return found


def inputs_of(shape: Shape, readout: str) -> list[Tensor]:
    """Draw v, k, logits of alpha, and q where there is one query."""
    steps, batch, d, n = shape
    torch.manual_seed(0)
    sizes: list[tuple[int, ...]] = [(d,), (n,), (n,), *([(n, 1)] if readout == "one query" else [])]
    return [torch.randn(steps, batch, *size, requires_grad=True) for size in sizes]


def passing(method: Callable[..., Tensor], way: str, inputs: list[Tensor], gradient: Tensor) -> Pass:
    """Return one pass of a method."""
    if way == "forward":
        return torch.no_grad()(partial(method, *inputs))
    return trained(method, inputs, gradient)


def methods(shape: Shape, readout: str, way: str) -> dict[str, Pass]:
    """Prepare the passes of all methods on the same inputs."""
    steps, batch, d, n = shape
    inputs = inputs_of(shape, readout)
    gradient = torch.randn(steps, batch, d, n if readout == "no q" else 1)
    return {
        name: passing(method, way, inputs, gradient)
        for name, method in available().items()
        if name != "step loop" or steps * batch * d * n <= LOOP_LIMIT
    }


def prepared(name: str, shape: Shape, readout: str) -> Pass:
    """Compile on a short sequence, then prepare the pass whose memory is measured."""
    methods((70, *shape[1:]), readout, WAYS[1])[name]()
    return methods(shape, readout, WAYS[1])[name]


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison and print it."""
    given = options(__doc__, quick="two small sizes, a few seconds").parse_args(arguments)
    console = screen()
    torch.set_num_threads(1)
    if "snnTorch" not in available():
        console.print(
            "snnTorch is not installed, so its rows are missing. To add them: "
            "[bold]pip install -c constraints.txt --no-deps snntorch==1.0.0[/bold]"
        )
    results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    for readout in READOUTS:
        for way in WAYS:
            found = results.setdefault(f"{readout}, {way}", {"ms": {}, "MB": {}})
            for shape in QUICK if given.quick else SHAPES:
                console.print(f"measuring {shape}, {readout}, {way} ...", style="dim")
                passes = methods(shape, readout, way)
                found["ms"][str(shape)] = medians(passes, 1 if given.quick else 5)
                if way == WAYS[1]:
                    found["MB"][str(shape)] = {
                        name: memory(prepared, name, shape, readout) / 1e6 for name in passes
                    }
    for title, found in results.items():
        for unit, columns in found.items():
            if columns:
                console.print(comparison(f"(T, B, d, n), {title}: {unit} (times ours)", columns, OURS))
    console.print(f"Step loops beyond {LOOP_LIMIT:,} steps x lanes are left out for time.")
    write(given.json, results=results)


if __name__ == "__main__":
    main()
