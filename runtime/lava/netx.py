"""Run a netx file in Lava under guard, and read what every layer did, by sample and step."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.fixed import Fixed
from unscan.compiler.ir import Array
from unscan.runtime.lava import guard
from unscan.targets.lava import scripts
from unscan.targets.lava.netx import BITS, UNIT

SCRIPT = Path(scripts.__file__).with_name("run_netx.py")
BEGIN, EACH = 60.0, 0.02
"""Seconds that a run may take by default: to begin, and for each step of each layer or node."""


@dataclass(frozen=True)
class Ran:
    """One run of a netx file; arrays are read when they are asked for, while its folder stands.

    Attributes:
        folder: where `run_netx.py` left it.
        names: of the layers, in order.
        steps: T.
        samples: B.
    """

    folder: Path
    names: tuple[str, ...]
    steps: int
    samples: int

    def spikes(self, name: str) -> Array:
        """Return what a layer of neurons fired, (T, B, ...) bool."""
        return self._aligned("spikes", name)

    def membranes(self, name: str) -> Array:
        """Return the membranes of a layer of neurons or integrators before the reset, (T, B, ...) int32."""
        return self._aligned("membrane", name)

    def sums(self, name: str) -> Array:
        """Return what a layer without neurons gave at each step, (T, B, ...) int64.

        Lava keeps 64 times its sum over time as a current, which wraps at 24 bits.
        """
        steps = np.diff(self._aligned("current", name).astype(np.int64), axis=0, prepend=0)
        around = 2**BITS
        held: Array = ((steps + around // 2) % around - around // 2) // UNIT
        return held

    def ends(self, name: str) -> tuple[Array, Array]:
        """Return u and v of a layer after the last step of each sample, (B, ...) int32."""
        u, v = np.load(self.folder / f"end-{self.names.index(name)}.npy")
        return u, v

    def _aligned(self, what: str, name: str) -> Array:
        """Return one layer's rows as (T, B, ...): each synapse on the way to it took a step."""
        row = self.names.index(name)
        given = np.load(self.folder / f"{what}-{row}.npy", mmap_mode="r")[row + 1 :]
        starts = int(np.load(self.folder / "period.npy")) * np.arange(self.samples)
        return np.asarray(given[np.arange(self.steps)[:, None] + starts])


@contextmanager
def running(
    net: Path, described: Mapping[str, Any], x: Array, *, membranes: bool, seconds: float
) -> Iterator[Ran]:
    """Run a netx file on whole numbers x (T, B, ...) and yield what came out, which is gone afterwards.

    Args:
        net: the file.
        described: what `unscan.targets.lava.netx.described` says of it, which also stands in it.
        x: the input, in the shape of the file's input.
        membranes: whether to keep them.
        seconds: after which the run is ended.

    Raises:
        LavaFailed: see `guard.run`.
        MissingDependency: there is no environment for Lava.
    """
    with tempfile.TemporaryDirectory(prefix="unscan-lava-") as made:
        folder = Path(made)
        np.save(folder / "x.npy", x.astype(np.int32))
        job = {"net": str(net.absolute()), "bits": described["input"]["bits"], "membranes": membranes}
        (folder / "job.json").write_text(json.dumps({**job, "layers": described["layers"]}))
        guard.run(SCRIPT, folder, seconds=seconds)
        yield Ran(folder, tuple(each["name"] for each in described["layers"]), *x.shape[:2])


class NetxFile:
    """An exported netx file, run without its graph.

    Attributes:
        facts: what the exporter wrote beside the layers (input, layers, digest, history, meta).
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._path, self.facts = path, facts

    def run(self, x: Array, *, seconds: float | None = None) -> dict[str, Array]:
        """Run x (T, B, ...): spikes, or whole numbers in units of 2^-fraction, as `facts["input"]` says.

        Returns:
            layer -> (T, B, ...): bool spikes of neurons; of a last layer without, its membranes or sums.

        Raises:
            InvalidInput: x has another shape, or numbers that the file's input does not hold.
            LavaFailed: see `guard.run`.
        """
        x = np.asarray(x)
        about = self.facts["input"]
        wanted = tuple(about["shape"])
        if x.ndim != 2 + len(wanted) or x.shape[2:] != wanted or 0 in x.shape:
            shape = ", ".join(map(str, wanted))
            raise InvalidInput(
                f"The netx file {self._path} got x of shape {x.shape}, wanted (T, B, {shape})."
            )
        held = Fixed(about["bits"] or 1, signed=about["signed"])
        if not held.allowed(x):
            raise InvalidInput(
                f"The netx file {self._path} takes whole numbers from {held.min} to {held.max} and got others, from "
                f"{x.min():g} to {x.max():g}; quantise the data first, with fraction {about['fraction']}."
            )
        layers = self.facts["layers"]
        limit = BEGIN + EACH * len(layers) * x.shape[0] * x.shape[1] if seconds is None else seconds
        with running(self._path, self.facts, x, membranes=False, seconds=limit) as ran:
            return {each["name"]: getattr(ran, each["gives"])(each["name"]) for each in layers}


def from_file(path: Path | str) -> NetxFile:
    """Open a netx file that `unscan export --target lava` wrote.

    Raises:
        InvalidInput: there is no such file.
        DamagedFile: it is not HDF5, or not a file of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}; `unscan export --target lava` writes one.")
    try:
        with h5py.File(path) as file:
            facts = json.loads(file["unscan"][()])
            whole = all(f"layer/{row}/type" in file for row in range(len(facts["layers"]) + 1))
    except (OSError, KeyError, ValueError, TypeError) as fault:
        raise DamagedFile(
            f"{path} is not a netx file that unscan wrote ({fault}): it is truncated, altered, or something else. "
            "Export it again."
        ) from None
    if not whole:
        raise DamagedFile(
            f"{path} lacks some of the {len(facts['layers'])} layers that it names. Export it again."
        )
    return NetxFile(path, facts)
