"""Run the model of this folder in Lava: integers on a CPU, bit for bit what the model says.

    python run.py --input x.npy --output y.npz [--record] [--seconds 600]

x.npy holds (T, ...), one sample, or (T, B, ...), B samples, time first. y.npz will hold `outputs` (T, B, ...), the last
states `state/NODE.STATE` (B, ...), and with --record `spikes/NODE` and `membranes/NODE` (T, B, ...) of all neurons.

All samples run after each other in one run of Lava, each from zeros. It runs in processes of its own, watched by this
script: Lava itself would wait for ever where one of them fails. Where the model takes real numbers, they are quantised
here, on the host. `python start.py run.py FOLDER` is the run itself: job.npz in FOLDER (x, record) becomes result.npz.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
LOOK = 0.05
"""Seconds between two looks at a run."""


def host_rows(x: Any, about: Any) -> Any:
    """Return what a source sends for x (T, B, ...): rows (B T, ...) of whole numbers, quantised where asked."""
    rows = x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
    if about["quantize"] is None:
        whole = np.rint(rows)
        limit = about["limit"]
        if not np.array_equal(whole, rows) or rows.min() < 0 or (limit is not None and rows.max() > limit):
            span = "from 0 up" if limit is None else f"from 0 to {limit}"
            raise ValueError(
                f"The model takes whole numbers {span}; x has others, from {rows.min()} to {rows.max()}."
            )
        return whole.astype(np.int32)
    low, high, fraction = (about["quantize"][name] for name in ("min", "max", "fraction"))
    return np.clip(np.rint(rows.astype(np.float64) * 2.0**fraction), low, high).astype(np.int64)


def built(graph: Any, folder: Path, x: Any, record: bool) -> dict[str, Any]:
    """Return a process for each node, connected."""
    nodes = import_module("processes.nodes")
    arrays: dict[str, dict[str, Any]] = {name: {} for name in graph["nodes"]}
    with np.load(HERE / "weights.npz") as weights:
        for key in weights.files:
            number, _, field = key.partition("/")
            arrays[list(graph["nodes"])[int(number)]][field] = weights[key].astype(np.int64)
    made = {}
    for number, (name, about) in enumerate(graph["nodes"].items()):
        kind = about["process"]
        held, settings = arrays[name], about["settings"]
        if kind == "Source":
            settings = {"rows": str(folder / f"rows-{number}.npy")}
            np.save(settings["rows"], host_rows(x, about["settings"]))
        elif kind == "Operator":
            for key, array in held.items():
                position, _, field = key.partition(".")
                settings["functions"][int(position)]["parameters"][field] = array
            held = {}
        file = str(folder / f"kept-{number}.npz") if about["tells"] else None
        run = nodes.Run(x.shape[0], x.shape[1], file, record or kind == "Sink")
        process = getattr(import_module(about["module"]), kind)
        shapes = {port: tuple(shape) for port, shape in about["inputs"].items()}
        states = {state: tuple(shape) for state, shape in about["states"].items()}
        made[name] = process(nodes.About(shapes, tuple(about["shape"]), settings, held, states, run))
    for source, target, port in graph["edges"]:
        made[source].y.connect(getattr(made[target], port))
    return made


def run(folder: Path) -> None:
    """Run job.npz of a folder in Lava and write its result.npz."""
    from lava.magma.core.run_conditions import RunSteps
    from lava.magma.core.run_configs import Loihi2SimCfg

    graph = json.loads((HERE / "graph.json").read_text())
    with np.load(folder / "job.npz") as job:
        x, record = job["x"], bool(job["record"])
    made = built(graph, folder, x, record)
    first = next(iter(made.values()))
    first.run(
        condition=RunSteps(num_steps=x.shape[0] * x.shape[1]), run_cfg=Loihi2SimCfg(select_tag="fixed_pt")
    )
    first.stop()
    np.savez(folder / "result.npz", **told(graph, folder))


def told(graph: Any, folder: Path) -> dict[str, Any]:
    """Return what the processes kept: outputs, spikes, membranes and last states, by node."""
    result = {}
    for number, (name, about) in enumerate(graph["nodes"].items()):
        if not about["tells"]:
            continue
        with np.load(folder / f"kept-{number}.npz") as kept:
            for key in kept.files:
                what, _, state = key.partition("/")
                if what == "outputs":
                    result[what] = kept[key]
                elif what == "state" and state in about["tells"]:
                    result[f"state/{name}.{state}"] = kept[key]
                elif what in about["tells"]:
                    result[f"{what}/{name}"] = kept[key]
    return result


def main() -> int:
    """Run a file of samples, watched; return the exit code."""
    parser = argparse.ArgumentParser(
        description=str(__doc__).partition("\n\n")[0], epilog="Lava's own environment: see README.txt."
    )
    parser.add_argument(
        "--input", type=Path, required=True, help="x.npy: (T, ...) or (T, B, ...), time first"
    )
    parser.add_argument("--output", type=Path, required=True, help="where y.npz is written")
    parser.add_argument("--record", action="store_true", help="keep spikes and membranes of every step")
    parser.add_argument("--seconds", type=float, default=600.0, help="end a run that takes longer (600)")
    given = parser.parse_args()
    shape = tuple(json.loads((HERE / "graph.json").read_text())["input"])
    x = np.load(given.input)
    if x.shape[1:] == shape:
        x = x[:, None]
    if x.shape[2:] != shape or x.size == 0 or not np.all(np.isfinite(x)):
        parser.error(f"x has the shape {x.shape}, wanted (T, {str(shape)[1:-1]}) or (T, B, ...), all finite")
    with tempfile.TemporaryDirectory(prefix="lava-run-") as made:
        folder = Path(made)
        np.savez(folder / "job.npz", x=x, record=given.record)
        if fault := watched(folder, given.seconds):
            print(fault, file=sys.stderr)
            return 1
        shutil.move(folder / "result.npz", given.output)
    return 0


def watched(folder: Path, seconds: float) -> str:
    """Run a folder's job in a session of its own and end it as a whole; return what went wrong, or nothing."""
    until = time.monotonic() + seconds
    command = [sys.executable, str(HERE / "start.py"), str(HERE / "run.py"), str(folder)]
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    finished, failed = folder / "finished", folder / "failure.txt"
    try:
        while started.poll() is None and time.monotonic() < until and not finished.exists():
            if failed.exists():
                until = min(until, time.monotonic() + 1)
            time.sleep(LOOK)
        if finished.exists():
            return ""
        if failed.exists():
            return "Lava failed; its traceback stands above."
        return f"Lava did not finish within {seconds:g} seconds, or was ended."
    finally:
        end(started, patience=5 if finished.exists() else 0)


def end(started: subprocess.Popen[bytes], patience: float) -> None:
    """Wait for a process to end by itself; then end what is left of its session, politely and then not."""
    for number in (None, signal.SIGTERM, signal.SIGKILL):
        until = time.monotonic() + (patience if number is None else 2)
        try:
            if number is not None:
                os.killpg(started.pid, number)
            while time.monotonic() < until:
                started.poll()
                os.killpg(started.pid, 0)
                time.sleep(LOOK)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    if len(sys.argv) == 2 and not sys.argv[1].startswith("-"):
        run(Path(sys.argv[1]))
    else:
        sys.exit(main())
