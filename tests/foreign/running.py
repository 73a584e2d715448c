"""Run a script of this folder in the environment of another framework."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.foreign.environments import python, ready

HERE = Path(__file__).resolve().parent
SECONDS = 300


def interpreter(framework: str) -> Path | None:
    """Return what runs a framework: its own environment, or this one where it is installed here; None without both."""
    if ready(framework):
        return python(framework)
    return Path(sys.executable) if find_spec(framework) else None


def run(environment: str, script: str, *arguments: Path | str) -> None:
    """Run a script; a missing environment or a failing script fails the test."""
    with_it = interpreter(environment)
    if with_it is None:
        pytest.fail(
            f"The environment .envs/{environment} is missing or out of date; run `make foreign-envs`."
        )
    done = subprocess.run(
        [with_it, HERE / script, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONHASHSEED": "0"},
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{script} in .envs/{environment} failed:\n{done.stderr[-2000:]}")
