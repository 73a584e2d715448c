"""Run a script in Lava's environment so that it ends: with its result, or with one clear error in seconds.

Lava waits for ever where an actor raised, died or waits for what nobody sends. So a script runs in a session of its
own, which is ended as a whole: when the script has finished, when one of its actors has failed, when its time is
over, or when the one who asked for it goes away.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from unscan.compiler.errors import UnscanError
from unscan.runtime.lava.environment import Environment, environment
from unscan.runtime.lava.sessions import end
from unscan.targets.lava import scripts

START = Path(scripts.__file__).with_name("start.py")
LOOK = 0.02
"""Seconds between two looks at a script."""
PATIENCE = 1.0
"""Seconds for a finished script to end by itself, and for a failed one to say more."""
SHOWN = 30
"""Lines of a traceback that an error shows."""


class LavaFailed(UnscanError):
    """A script in Lava's environment raised, died or did not end in time; the message holds its traceback."""


def run(script: Path, folder: Path, *, seconds: float, within: Environment | None = None) -> None:
    """Run a script in Lava's environment with a folder as its only argument, from and to which it reads and writes.

    Lava's imports are made to work before the script starts (`targets/lava/scripts/start.py`). What it prints goes to
    `FOLDER/stdout.txt` and `FOLDER/stderr.txt`. When this returns or raises, no process of the script runs and no
    shared memory of it is left.

    Args:
        script: a Python file of its own; it may import what lies beside it.
        folder: where it reads what it is to do and writes what came out.
        seconds: after which it is ended.
        within: the environment; that of `environment()` where None.

    Raises:
        MissingDependency: there is no environment, or it lacks Lava.
        LavaFailed: the script or one of Lava's actors raised, died or was still running when the time was over.
    """
    python = (within or environment()).interpreter()
    script, folder = script.absolute(), folder.absolute()
    for name in ("failure.txt", "finished"):
        (folder / name).unlink(missing_ok=True)
    with open(folder / "stdout.txt", "wb") as out, open(folder / "stderr.txt", "wb") as err:
        started = subprocess.Popen(
            [python, "-W", "ignore", START, script, folder],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            start_new_session=True,
            env={**_inherited(), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"},
        )
    try:
        _wait(started, folder, time.monotonic() + seconds)
    finally:
        end(started.pid)
        started.wait()
    if (folder / "finished").exists():
        return
    if (folder / "failure.txt").exists():
        raise LavaFailed(f"Lava failed. {_tail(folder / 'failure.txt')}")
    if started.returncode is not None and started.returncode != -15:
        raise LavaFailed(
            f"Lava's interpreter ended {_how(started.returncode)}. {_tail(folder / 'stderr.txt')}"
        )
    raise LavaFailed(
        f"Lava was still running after {seconds:g} seconds and was ended: the model takes longer than that, or one of "
        f"its processes waits for what is never sent. Give it more time, or fewer steps. {_tail(folder / 'stderr.txt')}"
    )


def _wait(started: subprocess.Popen[bytes], folder: Path, until: float) -> None:
    """Return when a script has ended, finished or failed, or when its time is over."""
    while started.poll() is None and time.monotonic() < until:
        if (folder / "finished").exists() or (folder / "failure.txt").exists():
            until = min(until, time.monotonic() + PATIENCE)
        time.sleep(LOOK)


def _inherited() -> dict[str, str]:
    """Return the environment variables without those that would bring other packages into Lava's interpreter."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "COV_"))}


def _how(code: int) -> str:
    return f"with exit code {code}" if code >= 0 else f"by signal {-code}"


def _tail(path: Path) -> str:
    lines = path.read_text(errors="replace").strip().splitlines()
    if not lines:
        return "It printed nothing."
    shown = lines if len(lines) <= SHOWN else [lines[0], "  ...", *lines[1 - SHOWN :]]
    return "It said:\n" + "\n".join(shown)


def try_out(within: Environment) -> str:
    """Run one neuron in an environment and return what it said. Raises LavaFailed where it did not run."""
    with tempfile.TemporaryDirectory(prefix="unscan-lava-") as folder:
        run(START.with_name("try_out.py"), Path(folder), seconds=60, within=within)
        return Path(folder, "said.txt").read_text()
