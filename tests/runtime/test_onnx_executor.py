from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from tests.integers import integer_network, spikes_for
from tests.targets.every_whole_node import WHOLE
from tests.targets.networks import chain, drive, feed_forward, lif, looped, zoo
from unscan.compiler.errors import DamagedFile, InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.ir import Edge, Graph
from unscan.compiler.nodes import AssociativeMemory, Input, LIFScan, Linear, Output, Scale
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.onnx import OnnxScan, OnnxStep, entering, from_file
from unscan.runtime.executors.reference import Reference
from unscan.targets.onnx import emit

EXECUTORS = [OnnxStep, OnnxScan]
executors = pytest.mark.parametrize("executor", EXECUTORS)


def agree(got: Execution, truth: Execution) -> None:
    np.testing.assert_allclose(got.outputs, truth.outputs, atol=1e-12, rtol=1e-12)
    assert got.spikes.keys() == truth.spikes.keys()
    assert got.membranes.keys() == truth.membranes.keys()
    for name, spikes in truth.spikes.items():
        assert spikes.any(), f"{name} is silent and proves nothing"
        np.testing.assert_array_equal(got.spikes[name], spikes)
    for name, membrane in truth.membranes.items():
        np.testing.assert_allclose(got.membranes[name], membrane, atol=1e-12, rtol=1e-12)
    assert got.state.keys() == truth.state.keys()
    for name, value in truth.state.items():
        np.testing.assert_allclose(got.state[name], value, atol=1e-12, rtol=1e-12)


@executors
@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_node_agrees_with_the_reference(executor, steps, batch):
    graph = zoo()
    x = drive(graph, steps, batch)
    if steps == 1:
        x = x * 20
        got, truth = executor(graph).run(x), Reference(graph).run(x)
        np.testing.assert_allclose(got.outputs, truth.outputs, atol=1e-12)
        for name, spikes in truth.spikes.items():
            np.testing.assert_array_equal(got.spikes[name], spikes)
    else:
        agree(executor(graph).run(x), Reference(graph).run(x))


@executors
@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("phase", ["now", "next"])
@pytest.mark.parametrize("fires", [">=", ">"])
@pytest.mark.parametrize("gain", ["1", "1-beta"])
def test_every_lif_agrees_with_the_reference(executor, reset, phase, fires, gain):
    graph = feed_forward(reset=reset, phase=phase, fires=fires, gain=gain, threshold=0.3)
    x = drive(graph, rate=0.5)
    agree(executor(graph).run(x), Reference(graph).run(x))


@executors
@pytest.mark.parametrize("fires", [">=", ">"])
def test_a_tie_fires_as_the_node_says(executor, fires):
    graph = chain({"in": Input((1,)), "l": lif(beta=0.5, threshold=1.0, fires=fires), "out": Output()})
    x = np.array([1.0, 0.5, 0.75, 2.0]).reshape(4, 1, 1)
    np.testing.assert_array_equal(executor(graph).run(x).spikes["l"], Reference(graph).run(x).spikes["l"])


@executors
def test_a_sequence_cut_in_two_equals_one_run(executor):
    graph = zoo()
    x, runner = drive(graph), executor(graph)
    whole, first = runner.run(x), runner.run(x[:37])
    second = runner.run(x[37:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    for name, value in whole.state.items():
        np.testing.assert_array_equal(second.state[name], value)
    assert (first.counts + second.counts).total == whole.counts.total


@executors
def test_steps_with_carried_state_equal_one_run(executor):
    graph = zoo()
    x, runner = drive(graph, 20), executor(graph)
    state, outputs = None, []
    for x_t in x:
        y, state = runner.step(x_t, state)
        outputs.append(y)
    whole = runner.run(x, record=False)
    np.testing.assert_array_equal(np.stack(outputs), whole.outputs)
    np.testing.assert_array_equal(state["lif0.u"], whole.state["lif0.u"])


@executors
def test_runs_leave_the_state_that_they_were_given_alone(executor):
    graph = zoo()
    runner = executor(graph)
    state = runner.run(drive(graph, 5)).state
    before = {name: value.copy() for name, value in state.items()}
    runner.run(drive(graph, 5), state)
    runner.step(drive(graph, 1)[0], state)
    for name, value in before.items():
        np.testing.assert_array_equal(state[name], value)


def test_resident_states_stay_between_steps():
    graph = zoo()
    x, runner = drive(graph, 20), OnnxStep(graph)
    loop = runner.resident(3)
    outputs = np.stack([loop.step(x_t).copy() for x_t in x])
    whole = runner.run(x, record=False)
    np.testing.assert_array_equal(outputs, whole.outputs)
    for name, value in loop.state.items():
        np.testing.assert_array_equal(value, whole.state[name])


def test_resident_states_of_whole_numbers_stay_between_steps():
    graph = integer_network(3)
    x, runner = spikes_for(graph, 20, 2), OnnxStep(graph)
    loop, truth = runner.resident(2), Reference(graph).run(x)
    outputs = np.stack([loop.step(x_t).copy() for x_t in x])
    np.testing.assert_array_equal(outputs, truth.outputs)
    for name, value in loop.state.items():
        assert value.dtype == np.int32
        np.testing.assert_array_equal(value, truth.state[name])


STARTING = {
    "float32": lambda: zoo(np.float32),
    "float64": zoo,
    "delayed": lambda: looped(3, reset="subtract", dtype=np.float64),
    "modes": WHOLE["spiking-ssm"],
    "memory": WHOLE["memory-subtract-2"],
    "spikes": lambda: integer_network(4),
}
starting = pytest.mark.parametrize("make", STARTING.values(), ids=STARTING)


def alone(path: Path) -> ort.InferenceSession:
    """A session as anyone opens it, but without warnings of inputs that may be left out."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(path, options)


@pytest.mark.parametrize("form", ["step", "scan"])
@starting
def test_x_alone_is_enough_for_any_batch_and_length(tmp_path: Path, form, make):
    graph = make()
    emit(graph, tmp_path / "model.onnx", form=form)
    of = alone(tmp_path / "model.onnx")
    (taken,) = of.get_inputs()
    assert taken.name == "x"
    assert {each.name for each in of.get_overridable_initializers()} == set(graph.states)
    names = [output.name for output in of.get_outputs()]
    for steps, batch in ((1, 1), (7, 5), (2, 2), (1, 3)):
        x = drive(graph, steps, batch)
        truth = Reference(graph).run(x)
        x = x.astype(entering(of)["x"])
        if form == "scan":
            made = dict(zip(names, of.run(names, {"x": x}), strict=True))
            np.testing.assert_allclose(made["y"], truth.outputs, rtol=1e-4, atol=1e-5)
        else:
            kept: dict[str, np.ndarray] = {}
            for x_t, y in zip(x, truth.outputs, strict=True):
                made = dict(zip(names, of.run(names, {"x": x_t, **kept}), strict=True))
                kept = {name: made[f"{name}.next"] for name in graph.states}
                np.testing.assert_allclose(made["y"], y, rtol=1e-4, atol=1e-5)
        for name, value in truth.state.items():
            assert made[f"{name}.next"].shape == value.shape
            np.testing.assert_allclose(made[f"{name}.next"], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["step", "scan"])
@starting
def test_some_states_may_be_fed_and_others_not(tmp_path: Path, form, make):
    graph = make()
    emit(graph, tmp_path / "model.onnx", form=form)
    of = alone(tmp_path / "model.onnx")
    x = drive(graph, 12, 3)
    first = OnnxScan(graph).run(x[:11], record=False).state
    given = {name: value for i, (name, value) in enumerate(first.items()) if i % 2}
    rest = {name: value for name, value in first.items() if name not in given}
    state = {**given, **{name: np.zeros_like(value) for name, value in rest.items()}}
    x_t = x[11:] if form == "scan" else x[11]
    got = of.run(["y"], {"x": x_t.astype(entering(of)["x"]), **given})[0]
    truth = OnnxStep(graph).step(x[11], state)[0]
    np.testing.assert_allclose(got.reshape(truth.shape), truth, rtol=1e-5)


@pytest.mark.parametrize("form", ["step", "scan"])
def test_a_file_whose_states_have_to_be_fed_starts_from_zeros(tmp_path: Path, form):
    graph = zoo()
    x = drive(graph, 5)
    emit(graph, tmp_path / "model.onnx", form=form, states="fed")
    file, truth, state = from_file(tmp_path / "model.onnx"), Reference(graph).run(x).outputs, None
    assert len(alone(tmp_path / "model.onnx").get_inputs()) == 1 + len(graph.states)
    for t, x_t in enumerate(x):
        given, state = file.run(x_t if form == "step" else x_t[None], state)
        np.testing.assert_allclose(given["y"].reshape(truth[t].shape), truth[t], atol=1e-12)


@executors
def test_operations_are_those_of_the_reference(executor):
    graph = zoo()
    x = drive(graph, 63)
    got, truth = executor(graph).run(x).counts, Reference(graph).run(x).counts
    assert got.by_node == truth.by_node
    assert got.total.acs > 0
    assert executor(graph).run(x, record=False).counts is None


@executors
def test_float32_differs_at_ties_only(executor):
    graph = feed_forward(dtype=np.float32, reset="subtract")
    x = drive(graph, 100)
    got, truth = executor(graph).run(x), Reference(graph).run(x)
    assert got.outputs.dtype == np.float32
    for name, spikes in truth.spikes.items():
        differ = got.spikes[name] != spikes
        distance = np.abs(truth.membranes[name] - graph.nodes[name].threshold)
        assert distance[differ].max(initial=0) < 1e-5
        assert differ.sum() <= 2


@executors
def test_gelu_is_exact_in_float32(executor):
    graph = zoo(np.float32, gelu=True)
    x = drive(graph, 10)
    np.testing.assert_allclose(executor(graph).run(x).outputs, Reference(graph).run(x).outputs, atol=2e-5)


@executors
def test_a_graph_without_state_runs(executor):
    graph = chain({"in": Input((4,)), "s": Scale(np.float64(2)), "out": Output()})
    x = drive(graph, 5)
    np.testing.assert_array_equal(executor(graph).run(x).outputs, 2 * x)


@executors
def test_a_parallel_graph_is_refused(executor):
    scan = LIFScan(beta=np.float64(0.9), threshold=np.float64(1))
    with pytest.raises(InvalidGraph, match="'l' is parallel, wanted iterative"):
        executor(chain({"in": Input((4,)), "l": scan, "out": Output()}))


@executors
def test_what_onnx_cannot_run_is_refused_by_name(executor):
    memory = AssociativeMemory(
        threshold=np.float32(1), trained_reset="none", decay="scalar", bound=1e-60, queries=None
    )
    nodes = {"in": Input((4,)), "m": memory, "out": Output()}
    ports = [Edge("in", "m", port) for port in memory.ports]
    graph = Graph(nodes, [*ports, Edge("m", "out")])
    with pytest.raises(Unsupported, match="AssociativeMemory 'm'.*bound"):
        executor(graph).run(drive(graph, 2))


@executors
def test_a_wrong_input_or_state_is_refused(executor):
    graph = zoo()
    with pytest.raises(InvalidInput, match="wanted \\(T, B, 2, 3\\)"):
        executor(graph).run(np.zeros((4, 2, 6)))
    with pytest.raises(InvalidInput, match="carried state"):
        executor(graph).run(drive(graph, 4), {"lif0.u": np.zeros((3, 10))})


@pytest.mark.parametrize("form", ["step", "scan"])
def test_an_exported_file_runs_without_its_graph(tmp_path: Path, form):
    graph = zoo()
    x = drive(graph, 30)
    path = tmp_path / "model.onnx"
    emit(graph, path, form=form, record=True)
    file, truth = from_file(path), Reference(graph).run(x)
    if form == "scan":
        given, state = file.run(x)
        np.testing.assert_array_equal(given["lif0.spikes"] > 0, truth.spikes["lif0"])
    else:
        state, steps = None, []
        for x_t in x:
            given, state = file.run(x_t, state)
            steps.append(given["y"])
        given["y"] = np.stack(steps)
    np.testing.assert_allclose(given["y"], truth.outputs, atol=1e-12)
    assert file.facts["digest"] == graph.digest
    assert file.facts["meta"] == {"decision": "mean"}
    with pytest.raises(InvalidInput, match="got x of shape"):
        file.run(x[0, 0])


def test_a_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "model.onnx"
    with pytest.raises(InvalidInput, match="no file"):
        from_file(path)
    emit(zoo(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedFile, match="not a complete ONNX model"):
        from_file(path)
    path.write_bytes(b"hello")
    with pytest.raises(DamagedFile, match="not a complete ONNX model"):
        from_file(path)


@executors
def test_edges_that_join_add_up(executor):
    eye = Linear(np.eye(3))
    graph = Graph(
        {"in": Input((3,)), "a": eye, "b": Scale(np.float64(3)), "out": Output()},
        [Edge("in", "a"), Edge("in", "b"), Edge("a", "out"), Edge("b", "out"), Edge("in", "out")],
    )
    x = drive(graph, 4)
    np.testing.assert_allclose(executor(graph).run(x).outputs, 5 * x, atol=1e-12)
