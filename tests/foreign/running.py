"""Run a script of this folder in the environment of another framework."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.foreign.environments import python, ready

HERE = Path(__file__).resolve().parent
SECONDS = 120


def run(environment: str, script: str, *arguments: Path) -> None:
    """Run a script; a missing environment or a failing script fails the test."""
    if not ready(environment):
        pytest.fail(
            f"The environment .envs/{environment} is missing or out of date; run `make foreign-envs`."
        )
    done = subprocess.run(
        [python(environment), HERE / script, *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "PYTHONHASHSEED": "0"},
        check=False,
    )
    if done.returncode:
        pytest.fail(f"{script} in .envs/{environment} failed:\n{done.stderr[-2000:]}")
