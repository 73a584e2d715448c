"""Lava's own Python environment: where it stands, whether it is whole, and how it is made.

Lava asks for an old Python, old numpy and 5 GB of torch, and installs a package named `tests`: so it never enters the
environment that unscan runs in. Seven packages without what they declare, about 0.4 GB, run everything that unscan
writes for it (`targets/lava/scripts/start.py` does the rest).
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import unscan
from unscan.compiler.errors import InvalidInput, MissingDependency

VARIABLE = "UNSCAN_LAVA_ENV"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
COMMAND = "unscan lava install"


@dataclass(frozen=True)
class Environment:
    """A virtual environment for Lava, made or not."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def made(self) -> Path:
        """What stands in it once it is whole: a copy of the requirements that it was made from."""
        return self.folder / "unscan-requirements.txt"

    def problem(self) -> str:
        """Say what it lacks; empty where it has the requirements of this version of unscan."""
        if not self.python.exists():
            return f"there is no environment in {self.folder}"
        if not self.made.exists():
            return f"the environment in {self.folder} was not made by `{COMMAND}`"
        if self.made.read_text() != REQUIREMENTS.read_text():
            return f"the environment in {self.folder} was made for another version of unscan"
        return ""

    def interpreter(self) -> Path:
        """Return its interpreter. Raises MissingDependency naming the command that makes or mends it."""
        if problem := self.problem():
            raise MissingDependency(
                f"Lava runs in a Python environment of its own, and {problem}. Make it with `{COMMAND}` (about "
                f"0.4 GB), or name another with {VARIABLE}."
            )
        return self.python


def environment() -> Environment:
    """Return the environment that `UNSCAN_LAVA_ENV` names, else that of a checkout, else one in the user's cache."""
    if named := os.environ.get(VARIABLE):
        return Environment(Path(named).expanduser().absolute())
    root = Path(unscan.__file__).resolve().parent.parent
    if (root / "pyproject.toml").exists():
        return Environment(root / ".lava-venv")
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Environment(Path(cache) / "unscan" / "lava-venv")


def install(into: Environment) -> None:
    """Make an environment, or mend one, with pip. Takes about half a minute where the packages are near.

    Raises:
        InvalidInput: the folder holds something else, or pip failed; its last lines are in the message.
    """
    if into.folder.exists() and not (into.folder / "pyvenv.cfg").exists() and any(into.folder.iterdir()):
        raise InvalidInput(
            f"{into.folder} is no Python environment and not empty; name an empty folder with {VARIABLE}."
        )
    into.made.unlink(missing_ok=True)
    _run([sys.executable, "-m", "venv", "--clear", str(into.folder)])
    pip = [str(into.python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    _run([*pip, "--ignore-requires-python", "--no-deps", "-r", str(REQUIREMENTS)])
    into.made.write_text(REQUIREMENTS.read_text())


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidInput(
            f"`{' '.join(command)}` failed, so the environment for Lava was not made: "
            f"{' '.join(done.stderr.split()[-80:]) or done.stdout[-500:]}"
        )
