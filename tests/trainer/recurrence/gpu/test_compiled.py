"""What the interpreter cannot show: the kernels compile for real GPUs, which need not be there for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

ROOT = Path(__file__).parents[4]


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "number"), [(80, "fp32"), (90, "fp32"), (90, "fp64"), (90, "bf16")])
def test_kernels_compile_without_contraction_or_spills(architecture, number, tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.trainer.recurrence.gpu.compiled", str(architecture), number],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == 11
    for kernel in found:
        assert kernel["contracted"] == kernel["flushed"] == 0, (
            kernel
        )  # each product and sum rounded once, as torch's
        assert kernel["spilled"] <= 8, (
            kernel
        )  # bytes on the stack: one address at most, and no part of a state
    ahead = {kernel["kernel"]: kernel["ahead"] for kernel in found}
    assert ahead["_forward"] > 0
    assert ahead["_backward"] > 0
