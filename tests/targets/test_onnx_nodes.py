"""Every node as ONNX, in both forms, against the reference: outputs, spikes, membranes, states, operations."""

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.graphs import graphs, sequence
from tests.targets.every_node import CASES, memory, one
from tests.targets.networks import drive
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.ir import Dialect, Kind
from unscan.compiler.nodes import (
    NODES,
    Activation,
    AssociativeMemory,
    BatchNorm,
    Flatten,
    Input,
    Integer,
    LayerNorm,
    TopK,
)
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.onnx import OnnxScan, OnnxStep, from_file
from unscan.runtime.executors.reference import Reference
from unscan.targets.onnx import build, emit, refusals

executors = pytest.mark.parametrize("executor", [OnnxStep, OnnxScan])
cases = pytest.mark.parametrize("case", CASES)


def example(case: str, steps: int, dtype: Any = np.float64) -> tuple[Any, Any]:
    graph = CASES[case]().astype(dtype)
    if graph.nodes["in"].kind is Kind.INDEX:
        return graph, np.random.default_rng(2).integers(0, 6, (steps, 3, 1))
    return graph, drive(graph, steps).astype(dtype)


def agree(got: Execution, truth: Execution, tolerance: float) -> None:
    close = {"atol": tolerance, "rtol": tolerance}
    np.testing.assert_allclose(got.outputs, truth.outputs, **close)
    assert got.spikes.keys() == truth.spikes.keys()
    for name, spikes in truth.spikes.items():
        np.testing.assert_array_equal(got.spikes[name], spikes)
    assert got.membranes.keys() == truth.membranes.keys()
    for name, membrane in truth.membranes.items():
        np.testing.assert_allclose(got.membranes[name], membrane, **close)
    assert got.state.keys() == truth.state.keys()
    for name, state in truth.state.items():
        np.testing.assert_allclose(got.state[name], state, **close)
    assert got.counts.tallies == truth.counts.tallies
    assert got.counts.by_node == truth.counts.by_node


@given(graphs(), st.sampled_from([1, 2, 63, 100]), st.sampled_from([0.0, 0.3, 1.0]))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_graph_equals_the_reference(graph, steps, rate):
    assume(graph.dtype == np.float64)  # one without numbers runs in float32
    x = sequence(graph, steps, 2, rate=rate)
    truth = Reference(graph).run(x)
    for executor in (OnnxStep, OnnxScan):
        runner = executor(graph)
        agree(runner.run(x), truth, 1e-12)
        np.testing.assert_allclose(runner.run(x, record=False).outputs, truth.outputs, rtol=1e-12, atol=1e-12)


def test_every_node_has_a_case():
    made = {type(node) for make in CASES.values() for node in make().nodes.values()}
    real = {node for node in NODES.values() if not issubclass(node, Integer)}
    assert made >= {node for node in real if node.dialect is not Dialect.PARALLEL}


@executors
@cases
def test_float64_equals_the_reference(executor, case):
    graph, x = example(case, 63)
    assert refusals(graph) == {}
    truth = Reference(graph).run(x)
    assert case == "delta-silent" or all(spikes.any() for spikes in truth.spikes.values())
    agree(executor(graph).run(x), truth, 1e-12)


@cases
@pytest.mark.parametrize("steps", [1, 100])
def test_other_lengths_equal_the_reference(case, steps):
    graph, x = example(case, steps)
    agree(OnnxScan(graph).run(x), Reference(graph).run(x), 1e-12)


@executors
@cases
def test_float32_equals_the_reference(executor, case):
    graph, x = example(case, 63, np.float32)
    got, truth = executor(graph).run(x), Reference(graph).run(x)
    assert got.outputs.dtype == np.float32
    scale = max(1.0, np.abs(truth.outputs).max())
    np.testing.assert_allclose(got.outputs, truth.outputs, atol=1e-5 * scale)
    for name, spikes in truth.spikes.items():
        np.testing.assert_array_equal(got.spikes[name], spikes)


@executors
@cases
def test_a_sequence_cut_in_two_equals_one_run(executor, case):
    graph, x = example(case, 20)
    runner = executor(graph)
    whole, first = runner.run(x), runner.run(x[:7])
    second = runner.run(x[7:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    for name, value in whole.state.items():
        np.testing.assert_array_equal(second.state[name], value)
    assert (first.counts + second.counts).tallies == whole.counts.tallies


def test_accumulators_are_set_back_in_every_stored_memory():
    for case in CASES:
        if case.endswith("scalar"):
            graph, x = example(case, 63)
            assert Reference(graph).run(x).counts.tallies["memory"]["rescaled"] > 0


@executors
@pytest.mark.parametrize("width", [5, 64, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_of_equals_the_first_are_kept(executor, width, dtype):
    for count in {1, 2, width // 2, width}:
        graph = one(TopK(count), shape=(width,), dtype=dtype)
        x = np.random.default_rng(0).integers(-2, 3, (20, 2, width)).astype(dtype)
        np.testing.assert_array_equal(executor(graph).run(x).outputs, Reference(graph).run(x).outputs)


@executors
def test_a_gelu_in_float64_is_exact_far_out(executor):
    graph = one(Activation("gelu"), shape=(1,))
    x = np.linspace(-12, 12, 4001).reshape(-1, 1, 1)
    got, truth = executor(graph).run(x).outputs, Reference(graph).run(x).outputs
    np.testing.assert_allclose(got, truth, rtol=1e-14, atol=3e-14)  # 3e-15 of erf times |x| / 2
    np.testing.assert_array_equal(got[x < -9], 0)


@executors
def test_a_layer_norm_far_from_zero_keeps_its_digits(executor):
    graph = one(BatchNorm(*(np.full(6, v) for v in (1.0, 1e3, 0, 1))), LayerNorm(np.ones(6)))
    x = drive(graph, 20)
    np.testing.assert_allclose(executor(graph).run(x).outputs, Reference(graph).run(x).outputs, atol=1e-12)


def test_a_recorded_memory_is_a_matrix():
    model = build(memory(AssociativeMemory, queries=2), "scan", record=True)
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in model.graph.output
    }
    assert shapes["memory.spikes"] == shapes["memory.membrane"] == ["T", "B", 5, 7]
    assert shapes["memory.S.next"] == ["B", 5, 7]
    assert shapes["y"] == ["T", "B", 10]


@pytest.mark.parametrize("form", ["step", "scan"])
@cases
def test_what_is_written_is_valid(form, case):
    model = build(CASES[case](), form, record=True, values=True)
    onnx.checker.check_model(model, full_check=True)


def test_a_bound_that_float32_cannot_hold_is_refused():
    graph = memory(AssociativeMemory, decay="scalar", bound=1e-60)
    assert refusals(graph) == {}
    assert "bound 1e-60 is 0 in float32" in refusals(graph.astype(np.float32))["memory"]
    with pytest.raises(Unsupported, match="AssociativeMemory 'memory'"):
        build(graph.astype(np.float32))


def test_images_may_be_flattened():
    graph = one(Flatten(), shape=(2, 3))
    assert isinstance(graph.nodes["in"], Input)
    assert build(graph).graph.output[0].type.tensor_type.shape.dim[1].dim_value == 6


def test_a_file_refuses_an_index_without_a_row(tmp_path):
    graph, x = example("embedding", 5)
    emit(graph, tmp_path / "model.onnx", form="scan")
    file = from_file(tmp_path / "model.onnx")
    np.testing.assert_array_equal(file.run(x)[0]["y"], Reference(graph).run(x).outputs)
    for wrong in (-1, 6, 0.5):
        with pytest.raises(InvalidInput, match="whole numbers from 0 to 5"):
            file.run(x * 0.0 + wrong)
