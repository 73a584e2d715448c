"""Make the environments of other frameworks, one each under .envs/, from tests/foreign/requirements/*.txt.

`python tests/foreign/environments.py [NAME ...]` makes those that are missing or whose requirements changed.
Some frameworks cannot share one environment with unscan or with each other. A line `--no-deps NAME==VERSION` installs
a framework without what it asks for, where that would bring another torch or what no test needs.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parent.parent / ".envs"
ALONE = "--no-deps "
NAMES = sorted(path.stem for path in (HERE / "requirements").glob("*.txt"))


def python(name: str) -> Path:
    """Return the interpreter of an environment, made or not."""
    return ENVIRONMENTS / name / "bin" / "python"


def ready(name: str) -> bool:
    """Say whether an environment was made from the requirements as they are now."""
    made = ENVIRONMENTS / name / "installed"
    return python(name).exists() and made.exists() and made.read_text() == _requirements(name).read_text()


def make(name: str) -> None:
    """Make an environment: torch first, by its exact version, so that nothing after it brings another."""
    print(f"making .envs/{name}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", ENVIRONMENTS / name], check=True)
    pip = [python(name), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    lines = _requirements(name).read_text().splitlines()
    alone = [line.removeprefix(ALONE) for line in lines if line.startswith(ALONE)]
    together = [line for line in lines if not line.startswith(ALONE)]
    for torch in (line for line in together if line.startswith("torch==")):
        subprocess.run([*pip, torch], check=True)
    subprocess.run([*pip, *together], check=True)
    if alone:
        subprocess.run([*pip, "--no-deps", *alone], check=True)
    (ENVIRONMENTS / name / "installed").write_text(_requirements(name).read_text())


def _requirements(name: str) -> Path:
    return HERE / "requirements" / f"{name}.txt"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        if wanted not in NAMES:
            sys.exit(f"There is no environment {wanted!r}; there are {', '.join(NAMES)}.")
        if not ready(wanted):
            make(wanted)
