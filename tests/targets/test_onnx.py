import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.targets.networks import chain, feed_forward, lif, zoo
from unscan.compiler.errors import InvalidInput, Unsupported
from unscan.compiler.nodes import BatchNorm, Input, LIFConvolution, LIFScan, Output
from unscan.targets import TARGETS, find
from unscan.targets.onnx import OPSET, build, emit, refusals


def shapes(values):
    return {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in values
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_step_form_declares_its_boundary(dtype):
    model = build(zoo(dtype))
    onnx.checker.check_model(model, full_check=True)
    states = {"lif0.u": [10], "lif1.u": [10], "lif2.u": [10], "li.u": [4]}
    assert shapes(model.graph.input) == {
        "x": ["B", 2, 3],
        **{name: [f"{name}.B", *shape] for name, shape in states.items()},
    }
    initial = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    for name, shape in states.items():
        np.testing.assert_array_equal(initial[name], np.zeros((1, *shape), dtype))
    assert shapes(model.graph.output) == {
        "y": ["B", 4],
        **{f"{name}.next": ["B", *shape] for name, shape in states.items()},
    }
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))}
    inferred = {value.name for value in model.graph.value_info}
    assert {name for node in model.graph.node for name in node.output} <= inferred | set(
        shapes(model.graph.output)
    )


def test_the_scan_form_declares_its_boundary():
    model = build(zoo(), "scan", record=True)
    onnx.checker.check_model(model, full_check=True)
    outputs = shapes(model.graph.output)
    assert shapes(model.graph.input)["x"] == ["T", "B", 2, 3]
    assert outputs["y"] == ["T", "B", 4]
    assert outputs["lif0.u.next"] == ["B", 10]
    assert outputs["lif0.spikes"] == outputs["lif0.membrane"] == ["T", "B", 10]
    assert "li.membrane" in outputs
    assert "li.spikes" not in outputs
    outside = [node.op_type for node in model.graph.node]
    assert outside[-1] == "Scan"
    assert set(outside[:-1]) == {"Shape", "Concat", "Expand"}


@pytest.mark.parametrize("form", ["step", "scan"])
def test_states_may_have_to_be_fed(form):
    graph = zoo()
    model = build(graph, form, states="fed")
    assert {value.name for value in model.graph.input} == {"x", *graph.states}
    assert not {each.name for each in model.graph.initializer} & set(graph.states)
    assert shapes(model.graph.input)["lif0.u"] == ["B", 10]
    with pytest.raises(InvalidInput, match="no states 'kept'; they are optional or fed"):
        build(graph, form, states="kept")


def test_facts_travel_with_the_model():
    graph = feed_forward()
    model = build(graph, "scan")
    written = {entry.key: entry.value for entry in model.metadata_props}
    assert written["unscan.digest"] == graph.digest
    assert written["unscan.form"] == "scan"
    assert written["unscan.dtype"] == "float64"
    assert json.loads(written["unscan.opset"]) == OPSET == model.opset_import[0].version
    assert json.loads(written["unscan.meta"]) == {"task": "test", "decision": "sum"}
    assert json.loads(written["unscan.history"]) == ["traced", "unroll"]
    assert json.loads(written["unscan.input"]) == {
        "name": "in",
        "kind": "spike",
        "shape": [12],
        "dtype": "float64",
    }
    assert json.loads(written["unscan.output"]) == {
        "name": "out",
        "kind": "spike",
        "shape": [5],
        "dtype": "float64",
        "format": None,
    }
    assert json.loads(written["unscan.states"])["hidden.0.u"] == {
        "shape": [24],
        "dtype": "float64",
        "initial": 0,
    }
    assert model.producer_name == "unscan"


def test_names_may_be_those_of_the_boundary():
    graph = chain({"x": Input((3,)), "y": lif(), "x.u": lif(), "y@t": Output()})
    for form in ("step", "scan"):
        build(graph, form, record=True)


def test_emit_writes_the_file(tmp_path: Path):
    path = tmp_path / "model.onnx"
    emit(zoo(), path, form="scan", record=True)
    assert onnx.load(path).graph.name == "scan"
    assert list(tmp_path.iterdir()) == [path]


def parallel():
    return chain(
        {
            "in": Input((3,)),
            "a": LIFScan(beta=np.float64(0.9), threshold=np.float64(1)),
            "b": lif(),
            "c": LIFConvolution(beta=np.float64(0.9), threshold=np.float64(1), reset="none"),
            "out": Output(),
        }
    )


def test_parallel_nodes_are_refused_in_order_with_the_pass_that_helps(tmp_path: Path):
    found = refusals(parallel())
    assert list(found) == ["a", "c"]
    assert all("run unroll" in reason for reason in found.values())
    with pytest.raises(
        Unsupported, match=r"cannot express 2 of 5 nodes. LIFScan 'a', LIFConvolution 'c': .*unroll"
    ):
        emit(parallel(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_half_written(tmp_path: Path, monkeypatch):
    def fail(self, *_):
        raise OSError("disk full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(InvalidInput, match="disk full"):
        emit(zoo(), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_iterative_graph_is_not_refused():
    assert refusals(zoo()) == {}


def test_a_batch_norm_is_an_affine_map():
    norm = BatchNorm(*(np.full(2, v) for v in (2.0, 1.0, 0.5, 3.0)), epsilon=1.0)
    model = build(chain({"in": Input((2,)), "n": norm, "out": Output()}))
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add", "Identity"]


def test_an_unknown_form_is_refused():
    with pytest.raises(InvalidInput, match="no ONNX form 'loop'; the forms are step, scan"):
        build(zoo(), "loop")


def test_targets_are_found_by_name():
    for name in ("nir", "onnx"):
        assert find(name).name == name
        assert find(name).suffix == f".{name}"
    with pytest.raises(InvalidInput, match=f"no target 'flute'; the targets are {', '.join(TARGETS)}"):
        find("flute")
