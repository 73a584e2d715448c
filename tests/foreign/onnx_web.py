"""Make .envs/ort-web, where onnxruntime-web runs ONNX files in node, and run some there.

`python tests/foreign/onnx_web.py` makes it where it is missing or of another version. It needs node and npm.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
FOLDER = HERE.parent.parent / ".envs" / "ort-web"
PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SECONDS = 300
KINDS = {"bool": "bool", "float32": "float32", "float64": "float64", "int32": "int32", "int64": "int64"}
"""Number formats by numpy's name -> the runtime's."""


def ready() -> bool:
    """Say whether the environment is there, in this version."""
    about = FOLDER / "node_modules" / PACKAGE / "package.json"
    return (
        shutil.which("node") is not None
        and about.exists()
        and json.loads(about.read_text())["version"] == VERSION
    )


def make() -> None:
    """Install the runtime, without running scripts of its packages."""
    if shutil.which("npm") is None:
        sys.exit("onnxruntime-web needs node and npm; install nodejs and npm.")
    print("making .envs/ort-web", flush=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "package.json").write_text('{"private": true}\n')
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]
    subprocess.run([*command, f"{PACKAGE}@{VERSION}"], cwd=FOLDER, check=True, stdout=subprocess.DEVNULL)


def run(cases: Mapping[str, tuple[bytes, Any]], folder: Path) -> dict[str, dict[str, Any] | str]:
    """Run models on inputs, by name, and return name -> output -> array, or what the runtime said against it.

    A model in step form, which takes its states, is run on x (T, B, ...) step by step from zeros; its outputs are
    (T, B, ...) then, and its states the last ones.
    """
    listed = []
    for i, (name, (model, x)) in enumerate(cases.items()):
        (folder / f"{i}.onnx").write_bytes(model)
        (folder / f"{i}.x").write_bytes(np.ascontiguousarray(x).tobytes())
        listed.append({"name": name, "file": str(i), "type": KINDS[x.dtype.name], "shape": x.shape})
    (folder / "cases.json").write_text(json.dumps(listed))
    command = ["node", str(HERE / "onnx_web.mjs"), str(FOLDER), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"onnx_web.mjs failed:\n{done.stderr[-2000:]}")
    given: dict[str, dict[str, Any] | str] = {}
    for name, made in json.loads((folder / "made.json").read_text()).items():
        given[name] = (
            made
            if isinstance(made, str)
            else {
                output: np.frombuffer((folder / each["file"]).read_bytes(), each["type"]).reshape(
                    each["shape"]
                )
                for output, each in made.items()
            }
        )
    return given


if __name__ == "__main__" and not ready():
    make()
