"""Measure a training pass of the spiking delta rule (generation 3), forward and backward, against its step loop.

    unscan bench delta_rule [--quick] [--json FILE]

Methods: the fused kernels; the chunked form in plain torch; and a fair step loop, which takes its inputs apart
with unbind and keeps no more than autograd asks for. All get the same v, k, alpha, b, q and gradient of y, in
float32 on one thread, and give the gradients of all of them. Readouts: one query, y (T, B, d), and none,
where y is the spikes themselves, (T, B, d, n).

Medians of turns; memory is by how much one pass raises the peak of a process of its own, outputs and gradients
included.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from unscan.benchmarks.measuring import Pass, comparison, medians, memory, options, screen, trained, write
from unscan.trainer.recurrence.delta.chunked import delta_chunked
from unscan.trainer.recurrence.delta.fused import delta
from unscan.trainer.recurrence.delta.naive import delta_step, unit_keys
from unscan.trainer.recurrence.naive import Firing

Shape = tuple[int, int, int, int]
SHAPES: list[Shape] = [(1024, 2, 64, 64), (4096, 1, 64, 64), (4096, 2, 64, 64)]
QUICK: list[Shape] = [(128, 2, 64, 64)]
READOUTS = {"one query": 1, "no q": 0}
HOW = Firing("none")
OURS = "fused"


def rest(v: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    """The state at rest, and the threshold."""
    return torch.zeros(v.shape[1], v.shape[2], k.shape[2]), torch.tensor(0.3)


def looped(v: Tensor, k: Tensor, alpha: Tensor, b: Tensor, q: Tensor | None = None) -> Tensor:
    state, threshold = rest(v, k)
    queries = [None] * v.shape[0] if q is None else q.unbind(0)
    readouts = []
    steps = zip(v.unbind(0), k.unbind(0), alpha.unbind(0), b.unbind(0), queries, strict=True)
    for v_t, k_t, alpha_t, b_t, q_t in steps:
        y, state = delta_step(v_t, k_t, alpha_t, b_t, q_t, state, threshold, HOW)
        readouts.append(y)
    return torch.stack(readouts)


def walked(
    run: Callable[..., tuple[Tensor, Tensor | None, Tensor]],
    v: Tensor,
    k: Tensor,
    alpha: Tensor,
    b: Tensor,
    q: Tensor | None = None,
) -> Tensor:
    return run(v, k, alpha, b, q, *rest(v, k), HOW, membrane=False)[0]


METHODS: dict[str, Callable[..., Tensor]] = {
    OURS: partial(walked, delta),
    "chunked": partial(walked, delta_chunked),
    "step loop": looped,
}


def prepared(method: str, shape: Shape, readout: str) -> Pass:
    """Make random inputs, run a few steps of them, and return a pass over all."""
    steps, batch, d, n = shape
    queries = READOUTS[readout]
    torch.manual_seed(0)
    inputs = [
        torch.randn(steps, batch, d),
        unit_keys(torch.randn(steps, batch, n)),
        torch.sigmoid(torch.randn(steps, batch) + 3),
        torch.sigmoid(torch.randn(steps, batch)),
        *([torch.randn(steps, batch, n, queries)] if queries else []),
    ]
    gradient = torch.randn(steps, batch, d, queries or n)

    def over(length: int) -> Pass:
        leaves = [value[:length].detach().requires_grad_() for value in inputs]
        return trained(METHODS[method], leaves, gradient[:length])

    over(70)()
    return over(steps)


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison and print it."""
    given = options(__doc__, quick="one small size, a few seconds").parse_args(arguments)
    console = screen()
    torch.set_num_threads(1)
    times: dict[str, dict[str, float]] = {}
    sizes: dict[str, dict[str, float]] = {}
    for shape in QUICK if given.quick else SHAPES:
        for readout in READOUTS:
            case = f"{shape}, {readout}"
            console.print(f"measuring {case} ...", style="dim")
            times[case] = medians({m: prepared(m, shape, readout) for m in METHODS}, 2 if given.quick else 10)
            sizes[case] = {m: memory(prepared, m, shape, readout) / 1e6 for m in METHODS}
    title = "(T, B, d, n), forward + backward, float32, one thread"
    console.print(comparison(f"{title}: ms (times ours)", times, OURS))
    console.print(comparison(f"{title}: MB (times ours)", sizes, OURS))
    write(given.json, milliseconds=times, megabytes=sizes)


if __name__ == "__main__":
    main()
