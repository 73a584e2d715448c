"""How much flash and memory a model in C takes, and whether that fits a budget."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unscan.compiler.errors import InvalidInput, MissingDependency, Unsupported
from unscan.targets.c.files import ordered
from unscan.targets.c.members import STATE, WORK
from unscan.targets.c.program import Program
from unscan.targets.c.values import BYTES

LARGEST = 5
FLAGS = ("-std=c11", "-Os", "-ffp-contract=off", "-fno-asynchronous-unwind-tables", "-fno-pic")


@dataclass(frozen=True)
class Sizes:
    """What a model takes, in bytes.

    Attributes:
        weights: tables of constants, in flash.
        state: what is kept between steps, and `work`, what a step alone needs; together, padded, they are the struct of
            `ram` bytes, one for each instance.
        code: machine code; None where it was not measured.
        compiler: what it was measured with.
        constants, members: node -> bytes of its tables, and of its part of the struct.
    """

    weights: int
    state: int
    work: int
    ram: int
    constants: Mapping[str, int]
    members: Mapping[str, int]
    code: int | None = None
    compiler: str | None = None

    @property
    def flash(self) -> int:
        """Tables and code; without the code where it was not measured."""
        return self.weights + (self.code or 0)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as JSON."""
        return {
            "flash": self.flash,
            "weights": self.weights,
            "code": self.code,
            "compiler": self.compiler,
            "ram": self.ram,
            "state": self.state,
            "work": self.work,
            "constants": dict(self.constants),
            "members": dict(self.members),
        }


def sizes_of(program: Program) -> Sizes:
    """Return what a program takes; its code is not measured."""
    constants: dict[str, int] = {}
    members: dict[str, int] = {}
    roles = {STATE: 0, WORK: 0}
    for table in program.constants:
        constants[table.node] = constants.get(table.node, 0) + table.bytes
    at, widest = 0, 1
    for field in ordered(program.fields):
        align = BYTES[field.type]
        widest = max(widest, align)
        at = -(-at // align) * align + field.bytes
        if field.role in roles:
            roles[field.role] += field.bytes
            key = field.node if field.role == STATE else WORK
            members[key] = members.get(key, 0) + field.bytes
    ram = max(-(-at // widest) * widest, 1)
    return Sizes(sum(constants.values()), roles[STATE], roles[WORK], ram, constants, members)


def lines_of(sizes: Sizes) -> str:
    """Return the lines of a comment that say what a model takes."""
    return (
        f" * Flash: {sizes.weights:,} bytes of weights, and the code. Memory: {sizes.ram:,} bytes for each instance,\n"
        f" * of which {sizes.state:,} are kept between steps."
    )


def find(compiler: str | None = None) -> str | None:
    """Return the command of a C compiler, with its flags: the one given, that of the variable CC, or the system's.

    None where it is not installed.
    """
    for command in (compiler,) if compiler else (os.environ.get("CC"), "cc", "gcc", "clang"):
        name, *flags = shlex.split(command or "") or [""]
        if path := shutil.which(name):
            return shlex.join([path, *flags])
    return None


def measured(source: str, header: str, name: str, sizes: Sizes, compiler: str | None) -> Sizes:
    """Return the sizes with those of the code, measured where there is a compiler and its `size`.

    Raises Unsupported where the compiler does not take the model.
    """
    found = find(compiler)
    if found is None:
        return sizes
    path, *flags = shlex.split(found)
    prefix = re.sub(r"(gcc|cc|clang)(-[\d.]+)?$", "", Path(path).name)
    size = shutil.which(f"{prefix}size") or shutil.which("size")
    if size is None:
        return sizes
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"{name}.c").write_text(source)
        (Path(folder) / f"{name}.h").write_text(header)
        command = [path, *flags, *FLAGS, "-c", f"{name}.c", "-o", "it.o"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unsupported(f"{found} did not compile the model: {faults(done.stderr)}.")
        text = subprocess.run(
            [size, "-A", "it.o"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout
    code = sum(int(each) for each in re.findall(r"^\.text\S*\s+(\d+)", text, re.MULTILINE))
    return replace(sizes, code=code, compiler=shlex.join([Path(path).name, *flags]))


def faults(said: str) -> str:
    """Return the first errors among what a compiler says."""
    lines = said.splitlines()
    return "; ".join(([line for line in lines if "error" in line] or lines)[:3])


def parsed(size: int | str) -> int:
    """Return a size in bytes: a number, or text such as 256K, 64 KiB or 1M (of 1024). Raises InvalidInput."""
    found = re.fullmatch(r"\s*(\d+)\s*(?:([KM])(?:i?B)?|B)?\s*", str(size), re.IGNORECASE)
    if not found:
        raise InvalidInput(f"Got the size {size!r}, wanted a number of bytes, such as 65536, 64K or 1M.")
    return int(found[1]) * {"": 1, "K": 2**10, "M": 2**20}[(found[2] or "").upper()]


def excess(sizes: Sizes, flash: int | str | None, ram: int | str | None) -> list[str]:
    """Return a clause for each budget that a model passes, naming by how much, and its largest parts.

    Raises:
        InvalidInput: a budget is not a size.
        MissingDependency: there is a budget of flash, and the code was not measured.
    """
    clauses = []
    if flash is not None:
        room = parsed(flash)
        if sizes.code is None:
            raise MissingDependency(
                "A budget of flash counts the code, which is measured by compiling it, and there is no C compiler with "
                "its tool `size`: install gcc and binutils (apt-get install gcc) or what --compiler names, or leave "
                "--flash out."
            )
        if sizes.flash > room:
            clauses.append(
                f"{sizes.flash:,} bytes of flash ({sizes.weights:,} of weights, {sizes.code:,} of code by "
                f"{sizes.compiler}), {sizes.flash - room:,} more than the {room:,} that are given; the largest: "
                f"{most(sizes.constants)}"
            )
    if ram is not None and sizes.ram > (room := parsed(ram)):
        clauses.append(
            f"{sizes.ram:,} bytes of memory ({sizes.state:,} kept between steps), {sizes.ram - room:,} more than the "
            f"{room:,} that are given; the largest: {most(sizes.members)}"
        )
    return clauses


def rows(sizes: Sizes, order: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the bytes of flash and of memory part by part, the nodes in an order, and all of them."""
    parts = [name for name in (*order, WORK) if name in sizes.constants or name in sizes.members]
    table = [(name, sizes.constants.get(name, 0), sizes.members.get(name, 0)) for name in parts]
    table += [] if sizes.code is None else [(f"code ({sizes.compiler})", sizes.code, 0)]
    padding = sizes.ram - sizes.state - sizes.work
    table += [("padding", 0, padding)] if padding else []
    table += [("all", sizes.flash, sizes.ram)]
    return tuple((name, f"{flash:,}", f"{ram:,}") for name, flash, ram in table)


def most(parts: Mapping[str, int]) -> str:
    """Name the largest parts."""
    largest = sorted(parts.items(), key=lambda part: -part[1])[:LARGEST]
    return ", ".join(f"{name} {size:,}" for name, size in largest)
