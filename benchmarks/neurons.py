"""Measure a training pass of one neuron layer, forward and backward, against the ways it is usually done.

    python benchmarks/neurons.py [--quick] [--json FILE]

Methods: unscan's fused Leaky (exact hard reset), with fixed and with learnable beta and threshold; a fair eager
loop over x.unbind(0) with the same equations; snnTorch's Leaky and StateLeaky (direct convolution, no reset);
and, as the floor of any method, three copies of the input tensor that allocate their results, as a layer does.
All run on one thread in one process, one after the other in each round, and the table shows medians over rounds
and ratios to the fused Leaky of the same run. The copies are also shown with results that are already in memory.
Nothing about torch's or the system's memory is changed: what the fused layer gains by asking for large pages
(numpy's default for large arrays) is part of what is measured.
"""

import argparse
import gc
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unscan.trainer import Leaky
from unscan.trainer.recurrence.naive import Firing, lif_step

# (T, B, C). 64 sequences of one channel is the setting of 003, table 1; 64 channels of one sequence has as many
# lanes, and only snnTorch's StateLeaky, a convolution grouped by channels, tells them apart.
SHAPES = [(1024, 64, 1), (8192, 64, 1), (8192, 1, 64), (1024, 32, 128), (8192, 32, 128)]
QUICK = [(256, 64, 1), (1024, 64, 1)]
LOOP_LIMIT = 6_000_000  # lane-steps
STATE_LEAKY_LIMIT = 5_000_000_000  # steps x steps x lanes: a direct convolution is quadratic in time
RULE = (
    f"Left out for time and memory: loops beyond {LOOP_LIMIT:,} steps x lanes, "
    f"StateLeaky's direct convolution beyond {STATE_LEAKY_LIMIT:,} steps x steps x lanes."
)
Pass = Callable[[], Any]


def trained(layer: Callable[[Tensor], Tensor], x: Tensor, gradient: Tensor) -> Pass:
    """One forward and backward pass of a layer."""

    def one() -> None:
        x.grad = None
        layer(x).backward(gradient)

    return one


def eager(x: Tensor) -> Tensor:
    how, beta, threshold = Firing("zero"), torch.tensor(0.9), torch.tensor(1.0)
    u, spikes = torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        s, _, u = lif_step(x_t, u, beta, threshold, how)
        spikes.append(s)
    return torch.stack(spikes)


def snntorch_leaky(snntorch: Any) -> Callable[[Tensor], Tensor]:
    layer = snntorch.Leaky(beta=0.9, reset_mechanism="zero")

    def run(x: Tensor) -> Tensor:
        memory, spikes = layer.init_leaky(), []
        for x_t in x.unbind(0):
            s, memory = layer(x_t, memory)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def methods(shape: tuple[int, int, int], snntorch: Any) -> dict[str, Pass]:
    steps, batch, channels = shape
    torch.manual_seed(0)
    x = (torch.randn(shape) * 0.5).requires_grad_()
    gradient = torch.randn(shape)
    plain = x.detach()
    kept = [torch.zeros(shape) for _ in range(3)]
    chosen: dict[str, Pass] = {
        "unscan Leaky": trained(Leaky(channels), x, gradient),
        "unscan Leaky, learnable": trained(
            Leaky(channels, learn_beta=True, learn_threshold=True), x, gradient
        ),
        "three copies": lambda: [plain.clone() for _ in range(3)],
        "three copies, no new memory": lambda: [k.copy_(plain) for k in kept],
    }
    lanes = batch * channels
    if steps * lanes <= LOOP_LIMIT:
        chosen["eager loop over x.unbind(0)"] = trained(eager, x, gradient)
        if snntorch:
            chosen["snnTorch Leaky"] = trained(snntorch_leaky(snntorch), x, gradient)
    if snntorch and steps * steps * lanes <= STATE_LEAKY_LIMIT:
        layer = snntorch.StateLeaky(beta=torch.tensor(0.9), channels=channels)
        chosen["snnTorch StateLeaky"] = trained(lambda x: layer(x)[0], x, gradient)
    return chosen


def timed(run: Pass) -> float:
    """Time one pass: the median of 5 to 25 in a row, so that none pays for the caches of the method before it.

    One that takes longer than a fifth of a second is timed once.
    """
    taken: list[float] = []
    while not taken or (sum(taken) < 0.2 and len(taken) < 5) or (sum(taken) < 0.02 and len(taken) < 25):
        begin = time.perf_counter()
        result = run()
        taken.append(time.perf_counter() - begin)
        del result
    return statistics.median(taken)


def medians(chosen: dict[str, Pass], budget: float) -> dict[str, float]:
    """Time each method in turn, round after round: 3 rounds at least, 101 at most, within about `budget` seconds.

    A method that takes more than a tenth of the budget is timed in the first 3 rounds only.
    """
    times: dict[str, list[float]] = {name: [] for name in chosen}
    for run in chosen.values():
        run()
    gc.disable()
    start = time.perf_counter()
    for turn in range(101):
        for name, run in chosen.items():
            if turn >= 3 and times[name][0] > budget / 10:
                continue
            times[name].append(timed(run))
        gc.collect()
        if turn >= 2 and time.perf_counter() - start > budget:
            break
    gc.enable()
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(
        description="Compare the fused Leaky with other ways of training a neuron layer."
    )
    parser.add_argument("--quick", action="store_true", help="two small sizes, a few seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE as well")
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    torch.set_num_threads(1)
    try:
        import snntorch
    except ImportError:
        snntorch = None
        console.print(
            "snnTorch is not installed, so its rows are missing. To add them: "
            "[bold]pip install -c constraints.txt --no-deps snntorch==1.0.0[/bold]"
        )

    results: list[dict[str, Any]] = []
    shapes = QUICK if options.quick else SHAPES
    for shape in shapes:
        console.print(f"measuring {shape} ...", style="dim")
        found = medians(methods(shape, snntorch), 2 if options.quick else 15)
        results.append({"shape": shape, "milliseconds": found})

    table = Table(
        title=f"(T, B, C), forward + backward, float32, one thread, torch {torch.__version__}: ms (ratio to ours)"
    )
    table.add_column("method")
    for result in results:
        table.add_column(str(result["shape"]), justify="right")
    order = (
        "unscan Leaky", "unscan Leaky, learnable", "eager loop over x.unbind(0)", "snnTorch Leaky",
        "snnTorch StateLeaky", "three copies", "three copies, no new memory",
    )  # fmt: skip
    for name in order:
        cells = []
        for result in results:
            ms = result["milliseconds"].get(name)
            ratio = "" if ms is None else f"{ms / result['milliseconds']['unscan Leaky']:,.2f}"
            cells.append("-" if ms is None else f"{ms:,.3f}  ({ratio})")
        if any(cell != "-" for cell in cells):
            table.add_row(name, *cells)
    console.print(table)
    console.print(RULE)
    if options.json:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        options.json.write_text(json.dumps({**machine, "rule": RULE, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
