"""Measure a training pass of S4D, forward and backward, in its three forms.

    python benchmarks/state_space.py [--quick] [--json FILE]

The kernels ("fused") against the causal convolution by fast Fourier transform ("fft", how S4D is usually trained)
and the step loop in complex torch ("loop", short sequences only: it is measured over the first steps and its time
multiplied to the whole length, which favours it, as its backward takes memory for each step). The skip D x is part
of each, and so is working out the coefficients from dt, A and C. All run on one thread in one process, one after
the other in each round; the table shows medians of the time that the thread was at work, and ratios to the kernels.
"""

import argparse
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

from unscan.trainer.neurons.s4d import S4D

SHAPES = [(784, 50, 128, 64), (1024, 16, 256, 64), (8192, 4, 64, 64)]  # (T, B, H, N)
QUICK = [(256, 4, 64, 16)]
LOOP_STEPS = 32
FORMS = ("fused", "fft", "loop")
Pass = Callable[[], tuple[float, float]]


def trained(form: str, shape: tuple[int, int, int, int]) -> Pass:
    """One pass of a layer: seconds forward and seconds backward, of the whole length."""
    steps, batch, channels, states = shape
    taken = min(steps, LOOP_STEPS) if form == "loop" else steps
    torch.manual_seed(0)
    layer = S4D(channels, states, form=form)
    x = torch.randn(taken, batch, channels, requires_grad=True)
    gradient = torch.randn(taken, batch, channels)

    def one() -> tuple[float, float]:
        x.grad = None
        layer.zero_grad()
        begin = time.thread_time()
        y = layer(x)
        middle = time.thread_time()
        y.backward(gradient)
        end = time.thread_time()
        return (middle - begin) * steps / taken, (end - middle) * steps / taken

    return one


def medians(passes: dict[str, Pass], rounds: int) -> dict[str, tuple[float, float]]:
    """Time each form in turn, round after round, after one pass that compiles and warms up; in milliseconds."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in passes}
    for run in passes.values():
        run()
    for _ in range(rounds):
        for name, run in passes.items():
            times[name].append(run())
    return {
        name: (statistics.median(f for f, _ in found) * 1e3, statistics.median(b for _, b in found) * 1e3)
        for name, found in times.items()
    }


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description="Compare the forms of S4D in training.")
    parser.add_argument("--quick", action="store_true", help="one small size, a few seconds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to FILE as well")
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    torch.set_num_threads(1)
    results: list[dict[str, Any]] = []
    table = Table(
        title=f"S4D, float32, one thread, torch {torch.__version__}: ms forward + backward (ratio of sums)"
    )
    table.add_column("(T, B, H, N)")
    for form in FORMS:
        table.add_column(form, justify="right")
    for shape in QUICK if options.quick else SHAPES:
        console.print(f"measuring {shape} ...", style="dim")
        found = medians({form: trained(form, shape) for form in FORMS}, 5 if options.quick else 7)
        results.append({"shape": shape, "milliseconds": found})
        ours = sum(found["fused"])
        table.add_row(
            str(shape),
            *(f"{found[f][0]:,.1f} + {found[f][1]:,.1f}  ({sum(found[f]) / ours:.1f})" for f in FORMS),
        )
    console.print(table)
    console.print(f"The loop ran {LOOP_STEPS} steps, multiplied to the whole length.")
    if options.json:
        machine = {
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
        }
        options.json.write_text(json.dumps({**machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
