"""Run a graph as its C form, compiled by the system's compiler into a library of this machine.

A loop over steps and samples is written next to the model, so that a sequence is one call. Libraries are kept in the
user's cache (XDG_CACHE_HOME, or ~/.cache), by what they were made from. Operations are not counted: `counts` is None.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from unscan.compiler.errors import InvalidInput, MissingDependency, Unsupported
from unscan.compiler.ir import Array, Dialect, Graph, Kind
from unscan.compiler.nodes import Input, Integer, Output
from unscan.compiler.spec import check
from unscan.runtime.executors.base import Execution, State, check_input, check_state
from unscan.targets.c import Model, build
from unscan.targets.c.files import Boundary
from unscan.targets.c.members import Kept
from unscan.targets.c.sizes import faults, find
from unscan.targets.c.values import indented

STRICT = ("-std=c11", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")
TYPES = {
    "uint8_t": np.uint8,
    "int8_t": np.int8,
    "int16_t": np.int16,
    "int32_t": np.int32,
    "int64_t": np.int64,
    "float": np.float32,
    "double": np.float64,
}


class C:
    """Run the C of a graph.

    Args:
        graph: an iterative graph.
        compiler: the command that compiles; that of the variable CC, or the system's, where None.
        flags: how it optimises; real numbers are rounded as written whatever they are.

    Raises:
        InvalidGraph: a node is not iterative.
        Unsupported: a node has no form in C.
        MissingDependency: there is no compiler.
    """

    def __init__(self, graph: Graph, *, compiler: str | None = None, flags: Sequence[str] = ("-O2",)) -> None:
        self.graph = check(graph, Dialect.ITERATIVE, where="The graph for C")
        command = find(compiler)
        if command is None:
            raise MissingDependency(
                f"The executor c compiles the model and found no {compiler or 'C compiler'}: install one "
                "(apt-get install gcc), or name it in the variable CC."
            )
        self._command = (command, *flags, *STRICT)
        (self._input,), (self._output,) = graph.of(Input), graph.of(Output)
        self._delivered = build(self.graph)
        self._dtype = np.dtype(np.float64) if graph.of(Integer) else graph.dtype
        self._libraries: dict[bool, _Library] = {}

    def run(self, x: Array, state: State | None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...); see `Executor.run`. Numbers come in the graph's format, whole ones in float64."""
        return self._run(self._checked(x), state, record)

    def step(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Run one step x (B, ...); see `Executor.step`."""
        ran = self._run(self._checked(x, steps=False)[None], state, False)
        return ran.outputs[0], ran.state

    def resident(self, batch: int, state: State | None = None) -> Resident:
        """Return a loop over single steps of a batch, whose state stays where C reads and writes it."""
        kept = check_state(self.graph, state, batch, np.float64)
        return Resident(self.graph, self._library(False), batch, kept, self._dtype)

    def _checked(self, x: Array, *, steps: bool = True) -> Array:
        """Return x if it fits the graph. Spikes in bytes are checked in a fraction of the time of their step."""
        x, wanted = np.asarray(x), self.graph.signals[self._input]
        fits = x.ndim == len(wanted.shape) + 1 + steps and x.shape[1 + steps :] == wanted.shape and x.size
        spikes = wanted.kind is Kind.SPIKE and (x.dtype == np.bool_ or x.dtype == np.uint8)
        return x if fits and spikes and x.max() <= 1 else check_input(self.graph, x, steps=steps)

    def _library(self, record: bool) -> _Library:
        if record not in self._libraries:
            model = build(self.graph, record=True) if record else self._delivered
            self._libraries[record] = _Library(model, self._command)
        return self._libraries[record]

    def _run(self, x: Array, state: State | None, record: bool) -> Execution:
        given = None if state is None else check_state(self.graph, state, x.shape[1], np.float64)
        library, dtype, lead = self._library(record), self._dtype, x.shape[:2]
        kept = {name: np.empty((lead[1], *shape)) for name, shape in self.graph.states.items()}
        recorded = [
            np.empty((*lead, *each.shape), np.bool_ if each.what == "spikes" else np.float64)
            for each in library.program.recorded
        ]
        y = library.call(x, given, kept, recorded)
        found: dict[str, dict[str, Array]] = {"spikes": {}, "membrane": {}}
        for each, values in zip(library.program.recorded, recorded, strict=True):
            found[each.what][each.node] = values
        return Execution(
            outputs=y.reshape(*lead, *self.graph.signals[self._output].shape).astype(dtype),
            spikes=found["spikes"],
            membranes={name: values.astype(dtype) for name, values in found["membrane"].items()},
            state={name: values.astype(dtype) for name, values in kept.items()},
            counts=None,
        )


class _Library:
    """A compiled model, and the loop over steps and samples beside it."""

    def __init__(self, model: Model, command: tuple[str, ...]) -> None:
        self.program = model.program
        self._boundary = Boundary(self.program)
        of = self._boundary.read if self.program.encoder is None else self.program.real
        self._read, self._written = TYPES[of], TYPES[self._boundary.written]
        library = ctypes.CDLL(str(compiled(model, looping(model, of), command)))
        library.unscan_size.restype = ctypes.c_size_t
        self.loop, self._size = library.unscan_run, library.unscan_size()
        self.loop.argtypes = [ctypes.c_int64] * 2 + [ctypes.c_void_p] * 6
        self.loop.restype = None

    def narrowed(self, x: Array) -> Array:
        """Return x as the model reads it. Raises InvalidInput where its numbers are beyond that format's range."""
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(x, self._read)
        if narrow.dtype.kind == "f" and not np.isfinite(narrow).all():
            reach = f"from {x.min():g} to {x.max():g}"
            raise InvalidInput(
                f"The input holds numbers beyond the range of {narrow.dtype}, {reach}; scale it."
            )
        return narrow

    def room(self) -> Array:
        """Return memory for the struct of one instance."""
        return np.empty(self._size // 8 + 1, np.float64)

    def written(self, shape: tuple[int, ...]) -> Array:
        """Return memory for the outputs of steps and samples."""
        return np.empty((*shape, self._boundary.outputs), self._written)

    def in_order(self, states: Mapping[str, Array]) -> Any:
        """Return the addresses of states, in the order in which C has them."""
        return addresses([states[each.key] for each in self.program.kept])

    def call(
        self,
        x: Array,
        given: Mapping[str, Array] | None,
        kept: Mapping[str, Array],
        recorded: Sequence[Array],
    ) -> Array:
        """Run x (T, B, ...) from the states given, write those that are kept, and return what comes out."""
        narrow, y, room = self.narrowed(x), self.written(x.shape[:2]), self.room()
        self.loop(
            *x.shape[:2],
            narrow.ctypes.data,
            y.ctypes.data,
            room.ctypes.data,
            None if given is None else self.in_order(given),
            self.in_order(kept),
            addresses(recorded),
        )
        return y


class Resident:
    """One step after another of a batch, from the states that are handed in, which are changed in place."""

    def __init__(
        self, graph: Graph, library: _Library, batch: int, kept: dict[str, Array], dtype: np.dtype[Any]
    ) -> None:
        self._library, self._kept, self._dtype = library, kept, dtype
        self._shape = (batch, *graph.signals[graph.of(Output)[0]].shape)
        self._y, self._room, states = library.written((batch,)), library.room(), library.in_order(kept)
        self._behind = (self._y.ctypes.data, self._room.ctypes.data, states, states, addresses(()))

    def step(self, x: Array) -> Array:
        """Run one step x (B, ...), which nobody checks but for its range: outputs (B, ...)."""
        narrow = self._library.narrowed(x)
        self._library.loop(1, len(x), narrow.ctypes.data, *self._behind)
        return self._y.reshape(self._shape).astype(self._dtype)

    @property
    def state(self) -> State:
        """A copy of the state after the last step."""
        return {name: values.astype(self._dtype) for name, values in self._kept.items()}


def addresses(arrays: Sequence[Array]) -> Any:
    """Return the addresses of arrays as C reads them."""
    return (ctypes.c_void_p * max(1, len(arrays)))(*(array.ctypes.data for array in arrays))


def looping(model: Model, of: str) -> str:
    """Return the C of the loop over steps and samples that runs a model whose input is of a type."""
    name, program, boundary = model.name, model.program, Boundary(model.program)
    load, save = [f"{place} = 1;" for place in program.resting], list[str]()
    for place, entries in program.candidates:
        load += [
            f"for (int32_t e = 0; e < {entries}; e++) {{",
            f"{place}[e / 32] |= (uint32_t)1 << (e % 32);",
            "}",
        ]
    types = {field.name: field.type for field in program.fields}
    for number, each in enumerate(program.kept):
        size = prod(each.shape)
        rows = f"for (int32_t i = 0; i < {size}; i++) {{"
        put = f"s->{each.field}[i] = ({types[each.field]})given[{number}][b * {size} + i];"
        load += [rows, put, "}"]
        save += [rows, f"kept[{number}][b * {size} + i] = (double)s->{each.field}[{place_of(each)}];", "}"]
    record = []
    for number, seen in enumerate(program.recorded):
        size = prod(seen.shape)
        kind = "uint8_t" if seen.what == "spikes" else "double"
        record += [
            f"for (int32_t i = 0; i < {size}; i++) {{",
            f"(({kind} *)recorded[{number}])[(t * samples + b) * {size} + i] = ({kind})s->{seen.field}[i];",
            "}",
        ]
    here = f"x + (t * samples + b) * {boundary.inputs}"
    encode = [] if program.encoder is None else [f"{name}_encode({here}, encoded);"]
    argument = here if program.encoder is None else "encoded"
    body = indented(
        [
            "for (int64_t b = 0; b < samples; b++) {",
            f"{name}_init(s);",
            "if (given) {",
            *load,
            "}",
            "for (int64_t t = 0; t < steps; t++) {",
            *encode,
            f"{name}_step(s, {argument}, y + (t * samples + b) * {boundary.outputs});",
            *record,
            "}",
            *save,
            "}",
        ]
    )
    encoded = "" if program.encoder is None else f"{boundary.read} encoded[{boundary.inputs}];\n"
    return f"""#include "{name}.c"

size_t unscan_size(void)
{{
    return sizeof({name}_state);
}}

void unscan_run(
    int64_t steps, int64_t samples, const {of} *x, {boundary.written} *y, {name}_state *s,
    const double *const *given, double *const *kept, void *const *recorded)
{{
(void)given;
(void)kept;
(void)recorded;
{encoded}{body}}}
"""


def place_of(each: Kept) -> str:
    """Return where number i of a state stands in its array: rows of a ring are counted from the newest."""
    if each.head is None:
        return "i"
    rows, width = each.shape[0], prod(each.shape[1:])
    return f"(s->{each.head} + i / {width}) % {rows} * {width} + i % {width}"


@lru_cache
def version(command: str) -> str:
    """Return what a compiler says of itself."""
    return subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout


def cache() -> Path:
    """Return the folder of compiled models: the user's, or one of this process where that cannot be written."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "unscan" / "c"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return private()
    return folder


@lru_cache
def private() -> Path:
    """Return a folder for the libraries of this process, where the user has no cache that can be written."""
    return Path(tempfile.mkdtemp(prefix="unscan-c-"))


def compiled(model: Model, loop: str, command: tuple[str, ...]) -> Path:
    """Return the library of a model and its loop, compiled where it is not there yet."""
    parts = (*command, version(command[0]), model.source, model.header, loop)
    library = cache() / f"{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        there = Path(folder)
        for name, text in (
            (f"{model.name}.c", model.source),
            (f"{model.name}.h", model.header),
            ("loop.c", loop),
        ):
            (there / name).write_text(text)
        done = subprocess.run(
            [*command, "-shared", "-fPIC", "loop.c", "-o", "it.so", "-lm"],
            cwd=there,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Unsupported(f"{shlex.join(command)} did not compile the model: {faults(done.stderr)}.")
        os.replace(there / "it.so", library)
    return library
