"""What is written, run by ONNX's own reference, which starts from the states in the file."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from tests.targets.every_node import CASES
from tests.targets.every_whole_node import WHOLE, drive
from unscan.runtime.executors.reference import Reference
from unscan.targets.onnx import build

STEPS = 12


def ran(model: onnx.ModelProto, x: Any) -> dict[str, Any]:
    """Run a model in either form from its own start: outputs (T, B, ...), last states."""
    runner = ReferenceEvaluator(model)
    names = [value.name for value in model.graph.output]
    x = x.astype(onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type))
    if model.graph.name == "scan":
        return dict(zip(names, runner.run(None, {"x": x}), strict=True))
    steps: list[dict[str, Any]] = []
    kept: dict[str, Any] = {}
    for x_t in x:
        steps.append(dict(zip(names, runner.run(None, {"x": x_t, **kept}), strict=True)))
        kept = {name.removesuffix(".next"): v for name, v in steps[-1].items() if name.endswith(".next")}
    return {
        name: last if name.endswith(".next") else np.stack([each[name] for each in steps])
        for name, last in steps[-1].items()
    }


@pytest.mark.parametrize("form", ["step", "scan"])
@pytest.mark.parametrize("case", WHOLE)
def test_whole_numbers_are_equal_bit_for_bit(form, case):
    graph = WHOLE[case]()
    x = drive(graph, STEPS)
    truth, got = Reference(graph).run(x), ran(build(graph, form, record=True, real=np.float64), x)
    np.testing.assert_array_equal(got["y"], truth.outputs)
    for name, spikes in truth.spikes.items():
        np.testing.assert_array_equal(got[f"{name}.spikes"], spikes)
    for name, membrane in truth.membranes.items():
        np.testing.assert_array_equal(got[f"{name}.membrane"], membrane)
    for name, state in truth.state.items():
        np.testing.assert_array_equal(got[f"{name}.next"], state)


@pytest.mark.parametrize("form", ["step", "scan"])
@pytest.mark.parametrize("case", CASES)
def test_real_numbers_are_equal(form, case):
    graph = CASES[case]()
    x = drive(graph, STEPS)
    truth, got = Reference(graph).run(x), ran(build(graph, form, record=True), x)
    close = {"rtol": 1e-12, "atol": 1e-12 * max(1.0, np.abs(truth.outputs).max())}
    np.testing.assert_allclose(got["y"], truth.outputs, **close)
    for name, spikes in truth.spikes.items():
        np.testing.assert_array_equal(got[f"{name}.spikes"], spikes)
    for name, state in truth.state.items():
        np.testing.assert_allclose(got[f"{name}.next"], state, **close)
