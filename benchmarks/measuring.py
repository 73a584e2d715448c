"""How benchmarks measure: in turns, medians, ratios of one run; memory in a process of its own."""

import argparse
import gc
import json
import multiprocessing
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from unscan.compiler.errors import MissingDependency
from unscan.compiler.storage import writable

Pass = Callable[[], Any]


def options(description: str | None, *, quick: str) -> argparse.ArgumentParser:
    """Make a parser with what all benchmarks understand: --quick and --json."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=writable, metavar="FILE", help="write the numbers to FILE as well")
    return parser


def plotter(wanted: bool = True) -> Any:
    """Return matplotlib's pyplot, drawing to files, where a plot is wanted.

    Raises:
        MissingDependency: it is not installed.
    """
    if not wanted:
        return None
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingDependency(
            "A plot needs matplotlib: pip install 'unscan[plots]', or leave --plot out."
        ) from error
    mpl.use("Agg")
    from matplotlib import pyplot

    return pyplot


def screen() -> Console:
    """Return a console, wide where its output goes to a file."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def trained(layer: Callable[..., Tensor], inputs: Sequence[Tensor], gradient: Tensor) -> Pass:
    """One forward and backward pass of a layer."""

    def one() -> None:
        for tensor in inputs:
            tensor.grad = None
        layer(*inputs).backward(gradient)  # type: ignore[no-untyped-call]

    return one


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


def medians(chosen: Mapping[str, Pass], budget: float) -> dict[str, float]:
    """Time each method in turn, round after round: milliseconds, the median of 3 to 101 rounds.

    All rounds together take about `budget` seconds; a method that takes more than a tenth of it is timed in the
    first 3 rounds only.
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


def _status(key: str) -> int:
    """Read a size of this process, in bytes, from Linux."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1]) * 1024


def _grown(make: Callable[..., Pass], arguments: tuple[Any, ...], answer: Any) -> None:
    """Tell by how many bytes the process grows at its peak while a pass runs."""
    torch.set_num_threads(1)
    try:
        run = make(*arguments)
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
        before = _status("VmRSS")
        run()
        answer.send(_status("VmHWM") - before)
    except Exception as fault:
        answer.send(fault)


def memory(make: Callable[..., Pass], *arguments: Any) -> int:
    """Measure the peak memory of one pass in bytes, beyond its inputs, in a fresh process on Linux.

    `make(*arguments)` prepares the inputs and returns the pass; both must be importable from a module.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_grown, args=(make, arguments, theirs))
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise RuntimeError(f"the process that ran {make.__name__}{arguments} died (out of memory?)") from None
    finally:
        process.join()
    if isinstance(found, Exception):
        raise found
    return int(found)


def figure(value: float) -> str:
    """Show three digits, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def comparison(title: str, results: Mapping[str, Mapping[str, float]], reference: str) -> Table:
    """Tabulate results[column][method], each with its ratio to the reference method of the column."""
    made = Table(title=title)
    made.add_column("method")
    for column in results:
        made.add_column(column, justify="right")
    for name in dict.fromkeys(name for found in results.values() for name in found):
        cells = []
        for found in results.values():
            value, base = found.get(name), found.get(reference)
            ratio = f"  ({figure(value / base)})" if value is not None and base else ""
            cells.append("-" if value is None else figure(value) + ratio)
        made.add_row(name, *cells)
    return made


def write(path: Path | None, **content: Any) -> None:
    """Write a benchmark's numbers, and what they were measured on."""
    if path is not None:
        facts = {
            "machine": platform.machine(), "python": platform.python_version(), "torch": torch.__version__
        }  # fmt: skip
        path.write_text(json.dumps(facts | content, indent=1) + "\n")
