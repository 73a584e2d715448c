"""The folder of a sweep's results: made before the work, and held by one process at a time."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not on Windows, where nothing keeps a second sweep out
    fcntl = None  # type: ignore[assignment]

from unscan.compiler.errors import InvalidInput

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Make a folder and hold it for this process; a folder in which nothing was written is removed at the end.

    The lock is the system's on the open file, which goes with its process however that ends; the file alone locks
    nothing.

    Raises:
        InvalidInput: the folder cannot be made or written to, or another process holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(folder / LOCK)
    except BlockingIOError:
        raise InvalidInput(
            f"Another sweep runs in {folder}{_who(folder / LOCK)}; wait for its end, or name another folder with --out."
        ) from None
    except OSError as fault:
        reason = "it is a file" if folder.is_file() else str(fault.strerror)
        raise InvalidInput(
            f"The results' folder {folder} cannot be used: {reason}. Name one with --out that you may write to."
        ) from None
    try:
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        os.close(file)
        with suppress(OSError):
            folder.rmdir()


def _locked(path: Path) -> int:
    """Open and lock a file, and write into it who does; one that its last holder took away meanwhile is made again."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), path.stat()):
                    os.ftruncate(file, 0)
                    os.write(file, f"{os.getpid()} {platform.node()}\n".encode())
                    return file
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _who(path: Path) -> str:
    """Say which process holds a lock, where its file tells."""
    try:
        number, _, machine = path.read_text(encoding="utf-8").strip().partition(" ")
    except (OSError, UnicodeDecodeError):
        return ""
    return f" (process {number} on {machine})" if machine else ""
