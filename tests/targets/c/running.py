"""Models in C run as programs of their own: compiled by any compiler, run by any command."""

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unscan.compiler.ir import Array, Graph
from unscan.targets.c import build
from unscan.targets.c.files import Boundary

STRICT = ("-std=c11", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
STREAMS = """
    for (int t = 0; t < STEPS; t++) {
        for (int b = 0; b < STREAMS; b++) {
            RUN
            for (int i = 0; i < OUTPUTS; i++) {
                printf("FORMAT\\n", (TYPE)out[i]);
            }
        }
    }
"""


def program(graph: Graph, x: Array) -> dict[str, str]:
    """Return the files of a program that runs x (T, B, ...) through B instances side by side and prints the outputs."""
    model = build(graph)
    boundary, encoder = Boundary(model.program), model.program.encoder
    of = boundary.read if encoder is None else model.program.real
    flat = x.reshape(*x.shape[:2], -1)
    numbers = flat.astype(np.int64 if of.startswith(("u", "i")) else np.float64).ravel().tolist()
    run = "model_step(&state[b], input + (t * STREAMS + b) * INPUTS, out);"
    if encoder is not None:
        run = (
            "model_encode(input + (t * STREAMS + b) * INPUTS, encoded); model_step(&state[b], encoded, out);"
        )
    whole = boundary.written not in ("float", "double")
    body = (
        STREAMS.replace("RUN", run)
        .replace("OUTPUTS", str(boundary.outputs))
        .replace("INPUTS", str(boundary.inputs))
    )
    body = body.replace("STEPS", str(flat.shape[0])).replace("STREAMS", str(flat.shape[1]))
    body = body.replace("FORMAT", "%ld" if whole else "%a").replace("TYPE", "long" if whole else "double")
    encoded = f"static {boundary.read} encoded[{boundary.inputs}];" if encoder is not None else ""
    main = f"""#include "model.h"
#include <stdio.h>
static const {of} input[{flat.size}] = {{{",".join(map(repr, numbers))}}};
static model_state state[{flat.shape[1]}];
static {boundary.written} out[{boundary.outputs}];
static char room[65536];
{encoded}
int main(void)
{{
    setvbuf(stdout, room, _IOFBF, sizeof(room));
    printf("%lu\\n", (unsigned long)sizeof(model_state));
    for (int b = 0; b < {flat.shape[1]}; b++) {{
        model_init(&state[b]);
    }}
{body}
    return 0;
}}
"""
    return {"model.c": model.source, "model.h": model.header, "main.c": main}


def run_program(
    files: dict[str, str], folder: Path, compiler: Sequence[str], run: Sequence[str] = (), flags: Any = STRICT
) -> tuple[list[str], str]:
    """Compile and run a program; return the lines that it prints, and what it says on standard error."""
    for name, text in files.items():
        (folder / name).write_text(text)
    made = subprocess.run(
        [*compiler, *flags, "main.c", "model.c", "-o", "it", "-lm"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    done = subprocess.run([*run, "./it"], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr


def outputs(graph: Graph, x: Array, lines: list[str]) -> Array:
    """Return what a program printed as outputs (T, B, ...)."""
    numbers = [float.fromhex(line) if "x" in line else float(line) for line in lines[1:]]
    return np.array(numbers).reshape(*x.shape[:2], -1)
