"""examples/run_onnx.py runs what is exported, without this package."""

import ast
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.integers import state_space_network
from tests.targets.every_whole_node import WHOLE, drive
from tests.targets.networks import zoo
from unscan.runtime.executors.reference import Reference
from unscan.targets.onnx import emit

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "run_onnx.py"
GRAPHS = {
    "float32": lambda: zoo(np.float32),
    "float64": zoo,
    "whole": state_space_network,
    "spikes": WHOLE["loop"],
    "index": WHOLE["embedding"],
}


@pytest.mark.parametrize("form", ["step", "scan"])
@pytest.mark.parametrize("make", GRAPHS.values(), ids=GRAPHS)
def test_the_example_runs_an_exported_file(tmp_path, monkeypatch, capsys, form, make):
    graph = make()
    x = drive(graph, 30, 2).astype(np.float32)
    emit(graph, tmp_path / "model.onnx", form=form)
    np.save(tmp_path / "x.npy", x)
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path / "model.onnx"), str(tmp_path / "x.npy")])
    made = runpy.run_path(str(EXAMPLE), run_name="__main__")
    np.testing.assert_allclose(made["y"], Reference(graph).run(x).outputs, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr(sys, "argv", sys.argv[:2])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.count(f"{form}: x ") == 2


def test_it_imports_onnxruntime_and_numpy_alone():
    tree = ast.parse(EXAMPLE.read_text(encoding="utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {"json", "sys", "numpy", "onnxruntime"}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
