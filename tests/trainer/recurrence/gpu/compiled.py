"""Compile every kernel for a GPU that need not be there, and print what the machine code is like, as JSON.

Run as `python -m tests.trainer.recurrence.gpu.compiled ARCHITECTURE NUMBER`, say `90 fp32`, without
TRITON_INTERPRET. Sizes that Triton takes as constants where they are 1 are left open.
"""

import json
import re
import subprocess
import sys
import tempfile

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from unscan.trainer.recurrence.gpu import lif, memory, memory_kernels

SIZES = {"steps", "lanes", "betas", "thetas", "batch", "d", "n", "queries"}
NEURON = {"reset": "zero", "later": True, "strict": True, "rest": True}
CURVE = {"curve": "cusp", "p": 0.1, "q": 0.3}
BOTH = {"has_ds": True, "has_dm": True, "has_du": True}


def compiled(kernel, held, number, architecture, warps, **constants):
    """Compile one kernel; `held` names the pointers to numbers of the membranes' type, the rest are the inputs'."""
    raised = "fp64" if number == "fp64" else "fp32"
    signature = {
        name: "constexpr" if name in constants else
        "i32" if name in SIZES else "i64" if name == "end" else
        f"*{raised if name in held.split() else number}"
        for name in kernel.arg_names
    }  # fmt: skip
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, (name, kind) in enumerate(signature.items())
        if kind.startswith("*") or name in ("lanes", "end", "d", "n")
    }
    source = ASTSource(
        kernel,
        signature,
        {(kernel.arg_names.index(name),): value for name, value in constants.items()},
        aligned,
    )
    options = {"num_warps": warps, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(made.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        usage = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    text = made.asm["ptx"]
    return {
        "kernel": kernel.fn.__name__,
        "contracted": len(re.findall(r"\bfma\.", text)),
        "flushed": text.count(".ftz"),
        "ahead": text.count("cp.async.c"),
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "spilled": int(re.search(r"STACK:(\d+)", usage)[1]),
    }


def main(architecture, number):
    """Compile with the block sizes that a neuron of few lanes and a memory of 64 rows and columns get."""
    itemsize = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}[number]
    block = lif._layout(1024, itemsize)[1]
    columns, rows, warps = memory._tile(64, 64, max(4, itemsize))
    small = {"chunk": memory._CHUNK, "rows": memory._SMALL, "columns": memory._SMALL}
    large = {"chunk": memory._CHUNK, "rows": rows, "columns": columns}
    known = {"curve": CURVE["curve"], "p": CURVE["p"], "q_": CURVE["q"]}
    held = "m start beta theta last dm du dstart dbeta dtheta"
    of_memory = "start border last theta membranes dmembranes entry dk dalpha dtheta local dlast dstart"

    def neuron(kernel, **constants):
        return compiled(
            kernel, held, number, architecture, block["num_warps"], block=block["block"], **constants
        )

    def tile(kernel, count, **constants):
        return compiled(kernel, of_memory, number, architecture, count, **constants)

    found = [
        neuron(lif._forward, keep=True, **NEURON),
        neuron(lif._backward, carry=True, learn=True, **NEURON, **CURVE, **BOTH),
        tile(memory_kernels.borders, 1, **small),
        tile(memory_kernels.chain, 1, has_dlast=True, **small),
        tile(memory_kernels.dquery, warps, strict=True, **large),
    ]
    for has_q in (True, False):
        found.append(tile(memory_kernels.read, warps, strict=True, has_q=has_q, keep=True, **large))
        for gradients in (True, False):
            walked = {"has_q": has_q, "has_dy": True, "has_dm": True, "gradients": gradients}
            found.append(tile(memory_kernels.adjoint, warps, **walked, **known, **large))
    print(json.dumps(found))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
