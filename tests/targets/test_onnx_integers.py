"""Whole numbers as ONNX, in both forms, against the reference: bit for bit, tallies and final states too."""

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.integers import integer_network, memory_network, numbers_for, spikes_for, state_space_network
from tests.targets.every_whole_node import WHOLE, count, drive, firing, whole
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Dialect, Kind
from unscan.compiler.nodes import (
    NODES,
    Delay,
    Integer,
    IntegerCubaLIF,
    IntegerLI,
    IntegerLIF,
    Linear,
    MaxPool2d,
    Quantize,
    Shift,
)
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.onnx import OnnxScan, OnnxStep, from_file
from unscan.runtime.executors.reference import Reference
from unscan.targets.onnx import build, emit, refusals

executors = pytest.mark.parametrize("executor", [OnnxStep, OnnxScan])
cases = pytest.mark.parametrize("case", WHOLE)
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)


def same(got: Execution, truth: Execution) -> None:
    np.testing.assert_array_equal(got.outputs, truth.outputs)
    for mine, its in (
        (got.spikes, truth.spikes),
        (got.membranes, truth.membranes),
        (got.state, truth.state),
    ):
        assert mine.keys() == its.keys()
        for name, value in its.items():
            np.testing.assert_array_equal(mine[name], value)
    assert got.counts is not None
    assert truth.counts is not None
    assert got.counts.tallies == truth.counts.tallies
    assert got.counts.by_node == truth.counts.by_node


@pytest.mark.parametrize("flavour", ["any", "loihi2"])
@pytest.mark.parametrize("seed", range(20))
def test_forty_networks_equal_the_reference(seed, flavour):
    graph = integer_network(seed, flavour)
    x = spikes_for(graph, 200, 2, seed)
    truth = Reference(graph).run(x)
    same(OnnxScan(graph).run(x), truth)
    same(OnnxStep(graph).run(x), truth)


@pytest.mark.parametrize(
    ("executor", "steps"), [(OnnxScan, 1), (OnnxScan, 63), (OnnxScan, 100), (OnnxStep, 63)]
)
@cases
def test_every_node_equals_the_reference(executor, case, steps):
    graph = WHOLE[case]()
    assert refusals(graph) == {}
    x = drive(graph, steps)
    truth = Reference(graph).run(x)
    if steps == 100:
        for name, spikes in truth.spikes.items():
            assert 0 < spikes.mean() < 1, f"{name} proves nothing"
    same(executor(graph).run(x), truth)


def test_every_whole_node_has_a_case():
    made = {type(node) for make in WHOLE.values() for node in make().nodes.values()}
    assert made >= {node for node in NODES.values() if issubclass(node, Integer)}


def test_every_parallel_node_is_refused_and_every_other_has_a_rule():
    from unscan.targets.onnx_step import emit_node, emit_whole

    for node in NODES.values():
        rules = {emit_node.dispatch(node), emit_whole.dispatch(node)}
        general = {emit_node.dispatch(object), emit_whole.dispatch(object)}
        assert (rules <= general) is (node.dialect is Dialect.PARALLEL), node.__name__


@cases
def test_a_sequence_cut_in_two_equals_one_run(case):
    graph = WHOLE[case]()
    runner, x = OnnxScan(graph), drive(graph, 20)
    whole, first = runner.run(x), runner.run(x[:7])
    second = runner.run(x[7:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    for name, value in whole.state.items():
        np.testing.assert_array_equal(second.state[name], value)
    assert (first.counts + second.counts).tallies == whole.counts.tallies


def test_states_go_from_one_executor_to_another():
    for graph in (memory_network(1, reset="subtract"), state_space_network(2)):
        x = numbers_for(graph, 40, 2)
        truth = Reference(graph).run(x)
        half = Reference(graph).run(x[:20])
        there = OnnxScan(graph).run(x[20:], half.state)
        np.testing.assert_array_equal(there.outputs, truth.outputs[20:])
        back = Reference(graph).run(x[20:], OnnxStep(graph).run(x[:20]).state)
        np.testing.assert_array_equal(back.outputs, truth.outputs[20:])


@executors
def test_a_state_that_is_no_whole_number_is_refused(executor):
    graph = integer_network(0)
    x = spikes_for(graph, 3, 2)
    state = {name: value + 0.5 for name, value in Reference(graph).run(x).state.items()}
    with pytest.raises(InvalidInput, match="holds numbers that int32 does not"):
        executor(graph).run(x, state)


LARGE = st.integers(-(2**31) + 1, 2**31 - 1)


@given(
    st.lists(LARGE, min_size=6, max_size=6),
    st.lists(st.integers(-31, 31), min_size=6, max_size=6),
    st.integers(2, 32),
)
@settings(max_examples=30, deadline=None, derandomize=True)
def test_any_number_shifted_by_any_number(values, shifts, bits):
    made = Shift(shift=np.array(shifts, np.int8), bits=bits)
    graph = whole(made, bits=32, fraction=0)
    x = np.array(values, np.float64).reshape(1, 1, 6)
    exactly = [
        min(max((v + (1 << s >> 1)) >> s if s >= 0 else v << -s, -made.format.max), made.format.max)
        for v, s in zip(values, shifts, strict=True)
    ]
    np.testing.assert_array_equal(OnnxStep(graph).run(x).outputs.ravel(), exactly)


@pytest.mark.parametrize("form", ["step", "scan"])
def test_no_real_number_is_left_in_a_network_that_spikes_drive(form):
    model = build(integer_network(0), form, record=True)
    body = model.graph
    if form == "scan":
        (body,) = [each.g for each in model.graph.node[-1].attribute if each.name == "body"]
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    values += [*body.input, *body.output, *body.value_info]
    kinds = {value.type.tensor_type.elem_type for value in values}
    assert not kinds & set(FLOATS)
    assert not {each.data_type for each in model.graph.initializer} & set(FLOATS)
    assert {value.name: value.type.tensor_type.elem_type for value in model.graph.input}["x"] == (
        onnx.TensorProto.BOOL
    )
    for output in model.graph.output:
        assert output.type.tensor_type.elem_type == onnx.TensorProto.INT32, output.name


@pytest.mark.parametrize(("dtype", "largest"), [(np.int8, 127), (np.int16, 30000), (np.int32, 10**6)])
def test_weights_stand_as_narrow_as_they_are(dtype, largest):
    weight = count(largest, 3, 6, dtype=dtype)
    for form in ("step", "scan"):
        model = build(whole(Linear(weight), kind=Kind.SPIKE), form)
        held = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer]
        parts = [array for array in held if array.shape == (6, 3)]
        assert [part.dtype for part in parts] == ([np.int8] * 2 if dtype == np.int16 else [dtype])
        np.testing.assert_array_equal(
            sum(256**i * part.astype(int) for i, part in enumerate(parts)), weight.T
        )


@pytest.mark.parametrize(
    "weights", [[32767, -32768, 1], [-32768, -32768, -32768], [32512, 127, -129], [128, -128, 255]]
)
def test_weights_of_16_bits_in_two_parts(weights):
    graph = whole(Linear(np.array([weights], np.int16)), shape=(3,), kind=Kind.SPIKE)
    x = np.array(list(itertools.product([0, 1], repeat=3)), bool).reshape(8, 1, 3)
    np.testing.assert_array_equal(OnnxScan(graph).run(x).outputs[:, 0], x[:, 0] @ np.array([weights]).T)


def test_what_wraps_at_32_bits_has_a_current_of_64():
    graph = whole(firing(IntegerCubaLIF, bits=32, wraps=True, threshold=np.int32(9)))
    kinds = {value.name: value.type.tensor_type.elem_type for value in build(graph).graph.input}
    assert kinds["it1.i"] == onnx.TensorProto.INT64
    assert kinds["it1.u"] == onnx.TensorProto.INT32


def test_numbers_without_a_sign_may_have_32_bits():
    graph = whole(Quantize(bits=32, fraction=31, signed=False))
    x = np.array([[[0, 1, 1.999, 2, 3, 0.5]]])
    got = OnnxStep(graph).run(x).outputs
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, Reference(graph).run(x).outputs)
    pooled = whole(
        Quantize(bits=32, fraction=31, signed=False), MaxPool2d(kernel=2, stride=2), shape=(1, 4, 4)
    )
    assert "no maximum of whole numbers that reach 2^31" in refusals(pooled)["it2"]


@pytest.mark.parametrize("form", ["step", "scan"])
def test_a_file_says_what_it_takes_and_gives(tmp_path, form):
    graph = whole(
        Delay(steps=np.float32(2), shape=(6,), kind=Kind.REAL),
        IntegerLI(beta=np.int32(4000), fraction=4),
    )
    emit(graph, tmp_path / "model.onnx", form=form)
    file, x = from_file(tmp_path / "model.onnx"), drive(graph, 9).astype(np.float32)
    assert file.facts["input"]["dtype"] == "float32"
    assert file.facts["output"]["format"] == {"bits": 24, "fraction": 4, "signed": True}
    assert file.facts["states"]["it2.u"] == {"shape": [6], "dtype": "int32", "initial": 0}
    truth = Reference(graph).run(x).outputs
    state = None
    for t, x_t in enumerate(x):
        given, state = file.run(x_t if form == "step" else x_t[None], state)
        np.testing.assert_array_equal(given["y"].reshape(truth[t].shape), truth[t])
    assert given["y"].dtype == np.int32


def test_a_file_takes_spikes_as_such(tmp_path):
    graph = whole(IntegerLIF(beta=np.int32(9), threshold=np.int32(0), trained_reset="zero"), kind=Kind.SPIKE)
    emit(graph, tmp_path / "model.onnx", form="scan")
    file, x = from_file(tmp_path / "model.onnx"), drive(graph, 9)
    for spikes in (x, x.astype(np.float64), x.astype(np.int8)):
        np.testing.assert_array_equal(file.run(spikes)[0]["y"], Reference(graph).run(x).outputs)
    with pytest.raises(InvalidInput, match="takes spikes"):
        file.run(x * 2.0)
