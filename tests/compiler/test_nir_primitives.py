"""Every NIR primitive, read from a file, against its equation."""

import nir
import numpy as np
import pytest

from tests.compiler.nir_files import DT, Euler, cuba, full, graph_of, inputs, lif, ours, write
from tests.targets.networks import weight
from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import (
    LI,
    AvgPool2d,
    BatchNorm,
    Conv1d,
    Conv2d,
    CubaLIF,
    Delay,
    Flatten,
    Reshape,
    Scale,
)
from unscan.runtime.executors.reference import Reference

RNG = np.random.default_rng(3)
VARIED = np.array([0.5, 0.7, 0.9])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.nir"


def linear(rows=3, columns=3, bias=False):
    drawn = weight(np.random.default_rng(rows), rows, columns, np.float64)
    return nir.Affine(drawn, np.linspace(0, 0.3, rows)) if bias else nir.Linear(drawn)


def positive():
    return nir.Linear(np.abs(linear().weight))


def pool(pool_class, kernel, stride, padding=(0, 0)):
    return pool_class(np.array(kernel), np.array(stride), np.array(padding))


def conv2d(
    out=4, channels=2, kernel=(3, 3), stride=1, padding=0, dilation=1, groups=1, bias=True, shape=None
):
    drawn = np.random.default_rng(out).normal(size=(out, channels // groups, *kernel))
    return nir.Conv2d(shape, drawn, stride, padding, dilation, groups, np.linspace(0, 1, out) * bias)


def conv1d(out=4, channels=2, kernel=3, stride=1, padding=0, dilation=1, groups=1, shape=9):
    drawn = np.random.default_rng(out).normal(size=(out, channels // groups, kernel))
    return nir.Conv1d(shape, drawn, stride, padding, dilation, groups, np.linspace(0, 1, out))


CHAINS = {
    "affine": [linear(bias=True)],
    "scale": [nir.Scale(VARIED)],
    "threshold": [linear(), nir.Threshold(np.array([0.1, 0.2, 0.3]))],
    "lif": [linear(), lif(tau=full(0.004), r=VARIED * 9, v_threshold=VARIED)],
    "lif-leak": [
        linear(),
        lif(tau=full(0.004), r=full(6), v_leak=-VARIED, v_reset=-VARIED, v_threshold=VARIED),
    ],
    "li": [nir.LI(tau=VARIED / 50, r=VARIED, v_leak=full(0))],
    "li-leak": [nir.LI(tau=VARIED / 50, r=full(1), v_leak=np.array([-1.0, 0.5, 0.0]))],
    "if": [positive(), nir.IF(r=VARIED / DT, v_threshold=full(0.4), v_reset=full(0))],
    "if-reset": [positive(), nir.IF(r=full(1 / DT), v_threshold=full(0.3), v_reset=-VARIED / 4)],
    "i": [nir.I(r=VARIED * 100)],
    "cubalif": [linear(), cuba(w_in=full(4), r=VARIED * 10)],
    "cubalif-ones": [linear(), cuba(w_in=full(3), tau_syn=VARIED / 100, v_threshold=full(0.3))],
    "cubalif-leak": [linear(), cuba(w_in=full(9), v_leak=VARIED / 9, v_reset=VARIED / 9)],
    "cubali": [nir.CubaLI(VARIED / 99, VARIED / 50, r=VARIED, v_leak=full(0.1), w_in=full(2))],
    "delay": [nir.Delay(np.array([1, 3, 2]) * DT)],
    "delay-some": [nir.Delay(np.array([0, 3, 1]) * DT)],
    "delay-none": [nir.Delay(full(0))],
    "all": [
        linear(bias=True),
        lif(r=full(10)),
        linear(),
        nir.Scale(VARIED),
        nir.LI(full(0.02), full(3), full(0)),
    ],
}


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("chain", CHAINS)
def test_a_chain_runs_as_its_equations_say(path, chain, steps):
    nodes = {f"p{i}": p for i, p in enumerate(CHAINS[chain])}
    x = inputs(steps)
    expected = Euler(graph_of(nodes)).run(x)
    graph = read_nir(write(path, *CHAINS[chain]), dt=DT, kind=Kind.SPIKE)
    np.testing.assert_allclose(ours(graph, x), expected, atol=1e-12)
    if steps == 100 and isinstance(CHAINS[chain][-1], nir.LIF | nir.IF | nir.CubaLIF | nir.Threshold):
        assert 0.02 < expected.mean() < 0.98


@pytest.mark.parametrize("chain", ["lif-leak", "cubalif", "cubali", "delay-some"])
def test_a_sequence_cut_in_two_equals_one_run(path, chain):
    executor = Reference(read_nir(write(path, *CHAINS[chain]), dt=DT))
    x = inputs(100)[:, None]
    first = executor.run(x[:37])
    cut = np.concatenate([first.outputs, executor.run(x[37:], first.state).outputs])
    np.testing.assert_array_equal(cut, executor.run(x).outputs)


IMAGES = {
    "conv": [conv2d()],
    "stride": [conv2d(stride=(2, 1), padding=(1, 2))],
    "dilation": [conv2d(dilation=2, padding=2)],
    "groups": [conv2d(groups=2)],
    "same": [conv2d(padding="same", kernel=(4, 3), dilation=(1, 2))],
    "valid": [conv2d(padding="valid", bias=False)],
    "shape": [conv2d(shape=(8, 9))],
    "sum-pool": [pool(nir.SumPool2d, (2, 2), (2, 2))],
    "avg-pool": [pool(nir.AvgPool2d, (3, 2), (2, 2), (1, 1))],
    "pools-one-number": [nir.AvgPool2d(2, 2, 0)],
    "lif-image": [
        conv2d(padding=1),
        lif(
            **{f: np.abs(RNG.normal(1, 0.2, (4, 8, 9))) for f in ("r", "v_threshold")},
            tau=np.full((4, 8, 9), 2e-3),
            v_leak=np.zeros((4, 8, 9)),
            v_reset=np.zeros((4, 8, 9)),
        ),
    ],
    "flatten": [nir.Flatten({"input": np.array([2, 8, 9])}, 0), linear(5, 144)],
    "flatten-some": [nir.Flatten({"input": np.array([2, 8, 9])}, 1)],
    "flatten-first": [nir.Flatten({"input": np.array([2, 8, 9])}, 0, 1)],
    "flatten-negative": [nir.Flatten({"input": np.array([2, 8, 9])}, -3, -2)],
}


def out_shape(nodes, shape):
    graph = graph_of(nodes, shape=shape)
    return Euler(graph).run(np.zeros((1, *shape)))[0].shape


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
@pytest.mark.parametrize("chain", IMAGES)
def test_layers_over_space(path, chain):
    shape = (2, 8, 9)
    nodes = {f"p{i}": p for i, p in enumerate(IMAGES[chain])}
    out = out_shape(nodes, shape)
    write(path, *[with_shape(p, shape) for p in IMAGES[chain]], shape=shape, out=out)
    graph = read_nir(path, dt=DT, kind=Kind.SPIKE)
    x = inputs(20, shape)
    expected = Euler(graph_of(nodes, shape=shape)).run(x)
    assert expected.any()
    np.testing.assert_allclose(ours(graph, x), expected, atol=1e-12)


def with_shape(primitive, shape):
    """Say the input_shape, without which a file cannot be written."""
    if isinstance(primitive, nir.Conv2d) and primitive.input_shape is None:
        primitive = conv_copy(primitive, shape[1:])
    return primitive


def conv_copy(p, shape):
    return nir.Conv2d(shape, p.weight, p.stride, p.padding, p.dilation, p.groups, p.bias)


@pytest.mark.parametrize(
    "layer",
    [
        conv1d(),
        conv1d(stride=2, padding=1),
        conv1d(dilation=2, padding="same"),
        conv1d(groups=2, padding="valid"),
    ],
    ids=["plain", "stride", "same", "groups"],
)
def test_convolutions_over_one_axis(path, layer):
    x = inputs(20, (2, 9))
    expected = Euler(graph_of({"p0": layer}, shape=(2, 9))).run(x)
    graph = read_nir(write(path, layer, shape=(2, 9), out=expected.shape[1:]))
    np.testing.assert_allclose(ours(graph, x), expected, atol=1e-12)
    assert isinstance(graph.nodes["p0"], Conv1d)


def test_what_becomes_of_each(path):
    found = read_nir(write(path, *CHAINS["cubalif-ones"]), dt=DT).nodes
    assert isinstance(found["p1"], CubaLIF)
    assert found["p1"].gain == "1-beta"
    assert isinstance(found["p1.gain"], Scale)
    assert isinstance(read_nir(write(path, *CHAINS["delay"]), dt=DT).nodes["p0"], Delay)
    assert "p0" not in read_nir(write(path, *CHAINS["delay-none"]), dt=DT).nodes
    found = read_nir(write(path, *CHAINS["cubali"]), dt=DT).nodes
    assert isinstance(found["p0.current"], LI)
    assert isinstance(found["p0"], LI)
    assert isinstance(found["p0.leak"], BatchNorm)
    image = {"shape": (2, 8, 9), "out": (2, 72)}
    assert read_nir(write(path, *IMAGES["flatten-some"], **image)).nodes["p0"].shape == (2, 72)
    graph = read_nir(write(path, *IMAGES["avg-pool"], shape=(2, 8, 9), out=(2, 4, 5)))
    assert isinstance(graph.nodes["p0"], AvgPool2d)
    layer = with_shape(IMAGES["valid"][0], (2, 8, 9))
    found = read_nir(write(path, layer, shape=(2, 8, 9), out=(4, 6, 7))).nodes["p0"]
    assert isinstance(found, Conv2d)
    assert found.bias is None
    assert {Flatten, Reshape}.isdisjoint(type(n) for n in graph.nodes.values())


def test_one_number_for_a_layer_need_not_be_of_its_shape(path):
    def scalar(value):
        return np.array([value])

    neuron = nir.LIF(scalar(0.004), scalar(6.0), scalar(0.0), scalar(0.5), scalar(0.0))
    graph = read_nir(write(path, linear(), neuron), dt=DT)
    same = read_nir(write(path, linear(), lif(tau=full(0.004), r=full(6))), dt=DT)
    x = inputs(50)
    np.testing.assert_array_equal(ours(graph, x), ours(same, x))


def test_a_reset_that_the_user_asks_for(path):
    neuron = lif(v_leak=full(0.1), v_reset=full(-1))
    for reset in ("zero", "subtract"):
        with pytest.raises(Unsupported, match="v_reset is -1 and its v_leak 0.1.*resets to where it rests"):
            read_nir(write(path, neuron), dt=DT, reset=reset)
    found = read_nir(path, dt=DT, reset="none").nodes["p0"]
    assert found.reset == "none"
    assert found.threshold == pytest.approx(0.4)
    found = read_nir(write(path, lif()), dt=DT, reset="subtract", phase="next").nodes["p0"]
    assert (found.reset, found.phase, found.trained_reset) == ("subtract", "next", "subtract")


REFUSED = {
    "v_reset": ([lif(v_reset=full(-1))], "LIF 'p0' .*v_reset is -1 and its v_leak 0"),
    "v_threshold": ([lif(v_threshold=full(0))], "LIF 'p0' .*v_threshold is 0"),
    "below-rest": ([lif(v_leak=full(0.6), v_reset=full(0.6))], "LIF 'p0' .*v_threshold is -0.1 above rest"),
    "threshold": ([nir.Threshold(full(-1))], "Threshold 'p0' .*threshold is -1"),
    "delay": ([nir.Delay(full(1.5 * DT))], "delay of 0.0015 s is 1.5 steps of dt = 0.001 s"),
    "delay-negative": ([nir.Delay(full(-DT))], "Delay 'p0' .*-1 steps"),
    "weight": ([nir.Linear(np.ones((2, 3, 3)))], r"Linear 'p0' .*shape \(2, 3, 3\)"),
    "same-stride": (
        [conv2d(padding="same", stride=2, shape=(8, 9))],
        r"padding is 'same', its stride \(2, 2\)",
    ),
    "conv-shape": ([conv2d(shape=(7, 7))], r"made for inputs of \(7, 7\), and gets \(8, 9\)"),
    "flatten-shape": ([nir.Flatten({"input": np.array([2, 2])}, 0)], r"made for inputs of \(2, 2\)"),
    "flatten-axes": ([nir.Flatten({"input": np.array([2, 8, 9])}, 0, 3)], "joins axes 0 to 3 of 3"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_node_can_say_is_refused_by_name(path, case):
    primitives, reason = REFUSED[case]
    over_space = isinstance(primitives[0], nir.Conv2d | nir.Flatten)
    write(path, *primitives, shape=(2, 8, 9) if over_space else (3,))
    with pytest.raises(Unsupported, match=reason):
        read_nir(path, dt=DT)


def test_shapes_that_do_not_fit_name_both_ends(path):
    with pytest.raises(InvalidGraph, match=r"Linear 'p1' of .* does not fit what feeds it, p0: got \(3,\)"):
        read_nir(write(path, linear(), linear(3, 4)))
    with pytest.raises(InvalidGraph, match=r"Output 'out' .*states the shape \(3,\), and gets \(5,\)"):
        read_nir(write(path, linear(5, 3)))
    with pytest.raises(InvalidInput, match="tau 0 s, and a time constant is greater than 0"):
        read_nir(write(path, lif(tau=full(0))), dt=DT)
