"""Make Lava importable without torch on any Python from 3.11 on, and its failures visible.

`python start.py SCRIPT FOLDER` runs a script so. A script that is run by itself calls `prepare()` before its first
import of Lava. Beside its standard error, a run leaves one of two files in FOLDER: `failure.txt` with the traceback
of the first exception, in whichever of Lava's actors it was raised, or `finished`.
"""

import dataclasses
import importlib
import multiprocessing
import os
import runpy
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOOK = 0.05
"""Seconds between two looks at the actors."""
ABSENT = ("lava.lib.dl.slayer", "lava.lib.dl.slayer.neuron", "lava.lib.dl.slayer.neuron.rf")
"""What of lava-dl needs torch, and is asked for only by resonate-and-fire layers and by training."""


def prepare() -> None:
    """Import what of Lava does not import by itself. Call it before any other import of Lava.

    Lava uses instances of dataclasses as defaults of dataclasses, which Python takes only of hashable ones: they get
    the hash of an object. `lava.lib.dl.netx` imports torch for layers that no file of ours has.
    """
    plain = dataclasses.dataclass

    def hashable(cls: Any = None, /, **options: Any) -> Any:
        def made(kind: type) -> type:
            result: type = plain(kind, **options)
            if result.__hash__ is None:
                result.__hash__ = object.__hash__
            return result

        return made if cls is None else made(cls)

    dataclasses.dataclass = hashable
    try:
        importlib.import_module("lava.magma.compiler.var_model")
    finally:
        dataclasses.dataclass = plain
    for name in ABSENT:
        sys.modules[name] = types.ModuleType(name)
    sys.modules[ABSENT[-1]].__dict__["neuron_params"] = None
    sequential = types.ModuleType("lava.lib.dl.netx.sequential_modules")
    sequential.__file__ = __file__
    sys.modules[sequential.__name__] = sequential


def report(folder: Path, text: str) -> None:
    """Write why a run failed, unless something failed before, and print it."""
    print(text, file=sys.stderr, flush=True)
    try:
        with open(folder / "failure.txt", "x") as file:
            file.write(text)
    except FileExistsError:
        pass


def watch_actors(folder: Path, parent: int) -> None:
    """Make every later actor of Lava report its exception, report one that ends in any other way, and end everything
    when the process `parent`, which started this one, is gone.
    """
    from lava.magma.runtime.message_infrastructure.multiprocessing import SystemProcess

    plain_start = SystemProcess.start
    started: dict[int, str] = {}
    runs = ""

    def run(actor: Any) -> None:
        try:
            multiprocessing.Process.run(actor)
        except BaseException:
            report(folder, f"In {runs}:\n{traceback.format_exc()}")
            raise

    def start(actor: Any) -> None:
        nonlocal runs
        runs = name_of(actor)
        plain_start(actor)
        started[actor.pid] = runs

    SystemProcess.run = run
    SystemProcess.start = start
    threading.Thread(target=_look, args=(folder, started, parent), daemon=True).start()


def name_of(actor: Any) -> str:
    """Return which of Lava's processes or services an actor runs."""
    builder = actor._kwargs.get("builder")
    model = getattr(builder, "py_proc_model", None) or getattr(builder, "rs_class", None)
    return f"an actor of Lava that runs {getattr(model, '__name__', type(builder).__name__)}"


def _look(folder: Path, started: dict[int, str], parent: int) -> None:
    """Report actors that ended other than by returning, and end everything once the parent is gone."""
    while True:
        time.sleep(LOOK)
        if os.getppid() != parent:
            os.killpg(0, signal.SIGTERM)
        for pid, runs in tuple(started.items()):
            if how := _ended(pid):
                report(folder, f"{runs[:1].upper()}{runs[1:]} ended {how}.")
                del started[pid]


def _ended(pid: int) -> str:
    """Say how a child ended other than by returning, empty where it did not; it stays to be waited for."""
    try:
        seen = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return ""
    if seen is None or not seen.si_status:
        return ""
    if seen.si_code == os.CLD_EXITED:
        return f"with exit code {seen.si_status}"
    return f"by signal {seen.si_status} ({signal.Signals(seen.si_status).name})"


def guarded(action: Callable[[], object], folder: Path) -> int:
    """Run an action and leave `finished`, or `failure.txt` with its traceback: the exit code."""
    try:
        action()
    except BaseException:
        report(folder, f"In the script:\n{traceback.format_exc()}")
        return 1
    (folder / "finished").touch()
    return 0


def main(script: str, folder: str) -> None:
    """Run a script as `__main__` with its folder as the only argument; do not wait for actors that it left."""
    parent = os.getppid()
    sys.path[0] = str(Path(script).parent)
    sys.argv = [script, folder]

    def run() -> None:
        prepare()
        watch_actors(Path(folder), parent)
        runpy.run_path(script, run_name="__main__")

    code = guarded(run, Path(folder))
    if code:
        time.sleep(10 * LOOK)  # an actor's own exception says more than that of who waited for it
        os._exit(code)


if __name__ == "__main__":
    main(*sys.argv[1:])
