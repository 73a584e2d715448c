"""The processes of one session and the shared memory that they hold, as Linux shows them under /proc.

Where there is no /proc, the session is ended as a process group.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

PROC = Path("/proc")
MEMORY = Path("/dev/shm")
TRACKER = b"multiprocessing.resource_tracker"


def members(session: int) -> list[int]:
    """Return the processes of a session that are not yet ended."""
    found = []
    for entry in PROC.iterdir() if PROC.is_dir() else ():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                state, _, _, own = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(own) == session and state not in "ZX":
                    found.append(int(entry.name))
    return found


def memory(pids: Iterable[int]) -> set[Path]:
    """Return the files of shared memory that processes have mapped."""
    found = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in (PROC / str(pid) / "maps").read_text().splitlines():
                name = line.partition("/dev/shm/")[2]
                if name and not name.endswith("(deleted)"):
                    found.add(MEMORY / name)
    return found


def end(session: int, patience: float = 2.0) -> None:
    """End every process of a session, politely and then not, and remove the shared memory that it leaves.

    The tracker of shared memory is asked last: it removes what the others leave once they are gone.
    """
    if not PROC.is_dir():
        _end_group(session, patience)
        return
    left = members(session)
    held = memory(left)
    _send(left, signal.SIGTERM)
    if not _gone(session, patience):
        others = [pid for pid in members(session) if TRACKER not in _command(pid)]
        _send(others, signal.SIGKILL)
        if not _gone(session, patience):
            _send(members(session), signal.SIGKILL)
            _gone(session, patience)
    for path in held:
        path.unlink(missing_ok=True)


def _end_group(group: int, patience: float) -> None:
    """End a process group where there is no /proc: everything in it, without a look at who is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
            time.sleep(patience)


def _send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _gone(session: int, patience: float) -> bool:
    until = time.monotonic() + patience
    while members(session):
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def _command(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes()
    return b""
