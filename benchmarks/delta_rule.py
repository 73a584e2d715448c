"""Measure a training pass of the spiking delta rule (generation 3), forward and backward, against the step loop.

    python benchmarks/delta_rule.py [--quick] [--json FILE]

Methods: the fused kernels; the chunked form in plain torch; and a fair step loop, which takes its inputs apart
with unbind and keeps no more than autograd asks for. All get the same v, k, alpha, beta, q and gradient of y, in
float32 on one thread, and give the gradients of all of them. Readouts: one query, y (T, B, d), and none,
where y is the spikes themselves, (T, B, d, n).

Times are of the processor, user and system, on which other programs have less of a hold than on the clock:
medians over rounds in which each method has its turn, or one round where a pass takes over 2 s. Memory is by how
much one pass, after a pass over a few steps, raises the peak of the resident size of a process of its own, outputs
and gradients included.
"""

import argparse
import gc
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unscan.trainer.recurrence.delta.chunked import delta_chunked
from unscan.trainer.recurrence.delta.fused import delta
from unscan.trainer.recurrence.delta.naive import delta_step, unit_keys
from unscan.trainer.recurrence.naive import Firing

SHAPES = [(1024, 2, 64, 64), (4096, 1, 64, 64), (4096, 2, 64, 64)]
QUICK = [(128, 2, 64, 64)]
HOW = Firing("none")
ROUNDS = 3
LONG = 2.0  # seconds; what takes longer is timed in the first round only


def loop(
    v: Tensor, k: Tensor, alpha: Tensor, beta: Tensor, q: Tensor | None, state: Tensor, threshold: Tensor
) -> Tensor:
    queries = [None] * v.shape[0] if q is None else q.unbind(0)
    readouts = []
    for *inputs, q_t in zip(v.unbind(0), k.unbind(0), alpha.unbind(0), beta.unbind(0), queries, strict=True):
        y, state = delta_step(*inputs, q_t, state, threshold, HOW)
        readouts.append(y)
    return torch.stack(readouts)


METHODS: dict[str, Callable[..., Tensor]] = {
    "fused": lambda *inputs: delta(*inputs, HOW, membrane=False)[0],
    "chunked": lambda *inputs: delta_chunked(*inputs, HOW, membrane=False)[0],
    "loop": loop,
}


def trained(method: str, shape: tuple[int, ...], queries: int) -> Callable[[], None]:
    """One forward and backward pass over random inputs."""
    steps, batch, d, n = shape
    torch.manual_seed(0)
    inputs = [
        torch.randn(steps, batch, d),
        unit_keys(torch.randn(steps, batch, n)),
        torch.sigmoid(torch.randn(steps, batch) + 3),
        torch.sigmoid(torch.randn(steps, batch)),
        torch.randn(steps, batch, n, queries) if queries else None,
    ]
    learned = [value.requires_grad_() for value in inputs if value is not None]
    rest = torch.zeros(batch, d, n), torch.tensor(0.3)
    gradient = torch.randn(steps, batch, d, queries or n)

    def one() -> None:
        for value in learned:
            value.grad = None
        METHODS[method](*inputs, *rest).backward(gradient)

    return one


def timed(run: Callable[[], None]) -> float:
    """Time one pass: the median of up to 7 in a row, one only if it takes long."""
    taken: list[float] = []
    while not taken or (sum(taken) < 0.3 and len(taken) < 7):
        begin = time.process_time()
        run()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def milliseconds(shape: tuple[int, ...], queries: int) -> dict[str, float]:
    passes = {method: trained(method, shape, queries) for method in METHODS}
    for method in METHODS:
        trained(method, (70, *shape[1:]), queries)()
    times: dict[str, list[float]] = {method: [] for method in METHODS}
    gc.disable()
    for _ in range(ROUNDS):
        for method, run in passes.items():
            if not times[method] or times[method][0] < LONG:
                times[method].append(timed(run))
                gc.collect()
    gc.enable()
    return {method: statistics.median(values) * 1e3 for method, values in times.items()}


def resident(field: str) -> float:
    """Megabytes of this process: VmRSS, now, or VmHWM, at its peak (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def peak(method: str, shape: tuple[int, ...], queries: int) -> float | None:
    """Measure the memory of one pass in a process of its own; None where the system does not tell."""
    if not Path("/proc/self/status").exists():
        return None
    asked = [method, *map(str, shape), str(queries)]
    found = subprocess.run(
        [sys.executable, __file__, "--memory", *asked], capture_output=True, text=True, check=True
    )
    return float(found.stdout)


def report_memory(asked: list[str]) -> None:
    method, *numbers = asked
    *shape, queries = map(int, numbers)
    trained(method, (70, *shape[1:]), queries)()
    run = trained(method, tuple(shape), queries)
    Path("/proc/self/clear_refs").write_text("5")  # start the peak anew
    before = resident("VmRSS")
    run()
    print(resident("VmHWM") - before)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(
        description="Compare the forms of the spiking delta rule with its step loop."
    )
    parser.add_argument("--quick", action="store_true", help="one small size, a few seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE as well")
    parser.add_argument("--memory", nargs=6, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        report_memory(options.memory)
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)

    table = Table(
        title=f"Spiking delta rule, forward + backward, float32, one thread, torch {torch.__version__}: "
        f"processor ms, how many times as fast as the loop, MB"
    )
    table.add_column("(T, B, d, n), readout")
    for method in METHODS:
        table.add_column(method, justify="right")
    results: list[dict[str, Any]] = []
    for shape in QUICK if options.quick else SHAPES:
        for queries in (1, 0):
            console.print(f"measuring {shape} with {queries} queries ...", style="dim")
            times = milliseconds(shape, queries)
            memory = {method: peak(method, shape, queries) for method in METHODS}
            results.append({"shape": shape, "queries": queries, "milliseconds": times, "megabytes": memory})
            cells = [
                f"{times[m]:,.1f}  ({times['loop'] / times[m]:,.1f})  "
                + ("-" if memory[m] is None else f"{memory[m]:,.0f} MB")
                for m in METHODS
            ]
            console.print(*cells, sep="   ", style="dim")
            table.add_row(f"{shape}, {'one query' if queries else 'no q'}", *cells)
    console.print(table)
    if options.json:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        options.json.write_text(json.dumps({**machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
