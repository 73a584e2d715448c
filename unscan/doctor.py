"""What this installation has, what it lacks, and the command that adds it."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

PARTS: tuple[tuple[str, str, str | None], ...] = (
    ("torch", "models and training", None),
    ("lightning", "training loop", None),
    ("numba", "fused kernels, event-driven simulation", None),
    ("numpy", "reference", None),
    ("safetensors", "graph files", None),
    ("nir", "NIR files", None),
    ("onnx", "ONNX files", None),
    ("onnxruntime", "running ONNX files", None),
    ("scikit-learn", "the digits task", None),
    ("datasets", "tasks from public hubs, when there is a network", "pip install 'unscan[hub]'"),
    ("triton", "kernels on a GPU", "pip install 'unscan[gpu]'"),
    ("matplotlib", "plots", "pip install 'unscan[plots]'"),
    ("h5py", "HDF5 files: events, netx", None),
    ("expelliarmus", "Prophesee's event files", "pip install 'unscan[events]'"),
    ("aedat", "AEDAT 4 event files", "pip install 'unscan[events]'"),
    ("hdf5plugin", "compressed HDF5 event files", "pip install 'unscan[events]'"),
    ("distributed", "sweeps over machines (dask)", "pip install 'unscan[dask]'"),
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what it is, what was found, whether it is well, and what mends it."""

    part: str
    found: str
    well: bool
    use: str
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at Python, packages, threads, the data folder and the kernels' cache."""
    findings = [
        Finding("python", platform.python_version(), sys.version_info >= (3, 11), platform.platform()),
    ]
    for package, use, extra in PARTS:
        try:
            findings.append(Finding(package, version(package), True, use))
        except PackageNotFoundError:
            remedy = extra or "pip install --force-reinstall unscan"
            findings.append(Finding(package, "missing", extra is not None, use, remedy))
    return [*findings, _lava(), _compiler(), _threads(), _device(), _data()]


def _lava() -> Finding:
    from unscan.runtime.lava.environment import environment

    found = environment()
    problem = found.problem()
    use = "Lava's simulation of Loihi 2, in an environment of its own"
    return Finding("lava", "missing" if problem else str(found.folder), True, use, "unscan lava install")


def _compiler() -> Finding:
    from unscan.targets.c.sizes import find

    found = find()
    return Finding(
        "C compiler", found or "missing", True, "running and measuring models in C", "apt-get install gcc"
    )


def _threads() -> Finding:
    import numba

    return Finding(
        "threads", f"{numba.get_num_threads()} of {os.cpu_count()} cores", True, "kernels and simulation"
    )


def _device() -> Finding:
    import torch

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return Finding("GPU", name, True, "exact neurons and matrix memories run there in Triton's kernels")


def _data() -> Finding:
    folder = os.environ.get("UNSCAN_DATA")
    if folder is None:
        return Finding(
            "UNSCAN_DATA", "not set", True, "folder of data files", "export UNSCAN_DATA=FOLDER, or --data-dir"
        )
    return Finding(
        "UNSCAN_DATA", folder, os.path.isdir(folder), "folder of data files", "name a folder that exists"
    )
