"""ONNX files in onnxruntime-web, compiled to WebAssembly and run in node: the spikes of the reference."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tests.foreign import onnx_web
from tests.integers import integer_network
from tests.targets.every_node import CASES
from tests.targets.every_whole_node import WHOLE
from tests.targets.networks import drive
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Input
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.reference import Reference
from unscan.targets.onnx import build

pytestmark = pytest.mark.slow
STEPS, SAMPLES = 30, 2


def given(graph: Graph) -> Any:
    (name,) = graph.of(Input)
    if graph.signals[name].kind is Kind.INDEX:
        return np.random.default_rng(2).integers(0, 6, (STEPS, SAMPLES, 1))
    return drive(graph, STEPS, SAMPLES).astype(np.float32)


def agree(made: dict[str, Any] | str, truth: Execution, tolerance: float) -> list[str]:
    """Return what differs."""
    if isinstance(made, str):
        return [made]
    near = {"rtol": tolerance, "atol": tolerance * max(1.0, np.abs(truth.outputs).max())}
    wanted = {"y": truth.outputs} | {f"{name}.next": value for name, value in truth.state.items()}
    wanted |= {f"{name}.membrane": value for name, value in truth.membranes.items()}
    wrong = [name for name, value in wanted.items() if not np.allclose(made[name], value, **near)]
    fired = {f"{name}.spikes": value for name, value in truth.spikes.items()}
    return wrong + [name for name, value in fired.items() if not np.array_equal(made[name], value)]


@pytest.mark.parametrize("form", ["step", "scan"])
@pytest.mark.parametrize(
    ("graphs", "dtype", "tolerance"),
    [(CASES, np.float32, 1e-5), (CASES, np.float64, 1e-12), (WHOLE, np.float64, 0.0)],
    ids=["float32", "float64", "whole"],
)
def test_every_node_runs_in_the_browser_s_runtime(
    tmp_path: Path, form: Any, graphs: dict[str, Callable[[], Graph]], dtype: Any, tolerance: float
) -> None:
    if not onnx_web.ready():
        pytest.fail("The environment .envs/ort-web is missing; run `python tests/foreign/onnx_web.py`.")
    cases, truths = {}, {}
    if graphs is WHOLE:
        graphs = graphs | {f"network-{seed}": lambda seed=seed: integer_network(seed) for seed in range(10)}
    for name, make in graphs.items():
        graph = make().astype(dtype)
        x = given(graph)
        truths[name] = Reference(graph).run(x)
        # Its interface feeds no input that may be left out: what is run step by step must take its states.
        model = build(graph, form, record=True, states="fed" if form == "step" else "optional")
        taken = model.graph.input[0].type.tensor_type.elem_type
        cases[name] = (model.SerializeToString(), x.astype(onnx.helper.tensor_dtype_to_np_dtype(taken)))
    made = onnx_web.run(cases, tmp_path)
    # Real numbers before whole ones are float32 in a file, and float64 in the reference.
    near = {name: 1e-5 if name.startswith("mixed") else tolerance for name in truths}
    wrong = {name: agree(made[name], truth, near[name]) for name, truth in truths.items()}
    assert {name: faults for name, faults in wrong.items() if faults} == {}
