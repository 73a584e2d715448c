"""Convolutions and pools on the event executor: events that spread over space, against the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.graphs import lif, sequence
from tests.integers import integer_network, neuron, spikes_for
from tests.runtime.test_event import assert_bits, assert_close, assert_same, assert_same_counts, chain
from tests.runtime.test_event_memory import joined
from unscan.compiler.ir import Array, Graph, Kind, Node
from unscan.compiler.nodes import Activation, Conv1d, Conv2d, MaxPool2d, SumPool2d, Threshold
from unscan.compiler.nodes.convolution import Convolution
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.event.geometry import Patches
from unscan.runtime.executors.reference import Reference

KINDS = [Kind.SPIKE, Kind.REAL]
EPSILON = float(np.finfo(np.float32).eps)


def convolution(
    rng: np.random.Generator,
    channels: tuple[int, int],
    kernel: tuple[int, ...],
    groups: int = 1,
    **settings: Any,
) -> Convolution:
    """Make a convolution of (in, out) channels, some of its weights 0."""
    weight = rng.standard_normal((channels[1], channels[0] // groups, *kernel))
    weight[rng.random(weight.shape) < 0.2] = 0
    bias = rng.standard_normal(channels[1]) if rng.random() < 0.5 else None
    kind = Conv1d if len(kernel) == 1 else Conv2d
    return kind(weight=weight, bias=bias, groups=groups, **settings)


def agree(graph: Graph, x: Array) -> None:
    """Assert that the executor gives what the reference gives, in one run, in two, and for each sample alone."""
    executor, wanted = EventDriven(graph, np.float64), Reference(graph).run(x)
    whole = executor.run(x)
    assert_same(whole, wanted)
    if len(x) > 1:
        cut = (len(x) + 2) // 3
        first = executor.run(x[:cut])
        assert_bits(joined(first, executor.run(x[cut:], first.state)), whole)
    for b in range(x.shape[1]):
        np.testing.assert_array_equal(executor.run(x[:, b : b + 1]).outputs[:, 0], whole.outputs[:, b])


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("channels", "groups"), [((2, 1), 1), ((3, 12), 1), ((4, 36), 2), ((5, 5), 5), ((3, 9), 3), ((4, 8), 2)]
)
def test_lengths_channels_and_groups(channels: tuple[int, int], groups: int, kind: Kind, steps: int) -> None:
    rng = np.random.default_rng([steps, groups])
    node = convolution(rng, channels, (3, 5), groups, padding=(1, 2))
    graph = chain(node, lif(threshold=1.5, reset="subtract"), shape=(channels[0], 7, 9), kind=kind)
    agree(graph, sequence(graph, steps, 2, rate=0.1))


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_shape(data: st.DataObject) -> None:
    """Strides, dilations that are no multiples of each other, paddings that differ, kernels wider than the image."""
    axes = data.draw(st.integers(1, 2), "axes")

    def drawn(low: int, high: int, many: int = axes) -> tuple[int, ...]:
        return tuple(data.draw(st.lists(st.integers(low, high), min_size=many, max_size=many)))

    kernel, stride, dilation, padding = drawn(1, 5), drawn(1, 4), drawn(1, 4), drawn(0, 4, 2 * axes)
    groups = data.draw(st.integers(1, 3), "groups")
    channels = groups * data.draw(st.integers(1, 2)), groups * data.draw(st.sampled_from([1, 3, 4, 7, 8, 17]))
    space = tuple(
        max(1, d * (k - 1) + 1 - before - behind) + data.draw(st.integers(0, 6))
        for d, k, before, behind in zip(dilation, kernel, padding[:axes], padding[axes:], strict=True)
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99), "seed"))
    node = convolution(rng, channels, kernel, groups, stride=stride, dilation=dilation, padding=padding)
    graph = chain(node, shape=(channels[0], *space), kind=data.draw(st.sampled_from(KINDS)))
    x = sequence(graph, 3, 1, rate=data.draw(st.sampled_from([0.05, 0.5, 1.0]), "rate"))
    wanted = Reference(graph).run(x)
    whole = EventDriven(graph, np.float64).run(x)
    assert_same(whole, wanted)
    single = EventDriven(graph, np.float32).run(x).outputs
    # Each weight, number and product is rounded once and each of n additions too, so an error is below (n + 3) eps
    # times the sum of the absolute products, that is of what the same events give through |W|.
    size = Conv1d if axes == 1 else Conv2d
    most = size(
        weight=abs(node.weight),
        bias=None if node.bias is None else abs(node.bias),
        groups=groups, stride=stride, dilation=dilation, padding=padding,
    )  # fmt: skip
    bound = Reference(chain(most, shape=(channels[0], *space))).run(abs(x.astype(float))).outputs
    terms = node.weight[0].size + 4
    assert (abs(single - wanted.outputs) <= terms * EPSILON * bound).all()


def test_whole_numbers_bit_for_bit() -> None:
    for seed in (2, 5, 8, 14):
        graph = integer_network(seed)
        assert graph.of(Conv2d)
        for steps in (1, 63, 100):
            x = spikes_for(graph, steps, 2)
            executor, wanted = EventDriven(graph), Reference(graph).run(x)
            whole = executor.run(x)
            assert_bits(whole, wanted)
            assert_same_counts(whole, wanted)
            if steps > 1:
                first = executor.run(x[:17])
                assert_bits(joined(first, executor.run(x[17:], first.state)), wanted)


@pytest.mark.parametrize(
    "settings",
    [
        {"stride": 2, "padding": 1},
        {"groups": 3, "padding": (0, 2, 1, 0)},
        {"dilation": (2, 3)},
        {"dilation": 2, "stride": 3},
    ],
)
def test_whole_numbers_through_every_setting(settings: Any) -> None:
    """Numbers near 2^46 whose sums stay below 2^53: float64 holds each of them, in whatever order they are added."""
    rng = np.random.default_rng(3)
    weight = rng.integers(-(2**30), 2**30, (6, 3 // settings.get("groups", 1), 3, 2))
    node = Conv2d(weight=weight.astype(np.float64), **settings)
    graph = chain(node, shape=(3, 9, 8))
    x = rng.integers(-(2**16), 2**16, (63, 2, 3, 9, 8)) * (rng.random((63, 2, 3, 9, 8)) < 0.3)
    x = x.astype(np.float64)
    np.testing.assert_array_equal(EventDriven(graph).run(x).outputs, Reference(graph).run(x).outputs)


def test_ties_of_whole_neurons_behind_a_strided_convolution() -> None:
    rng = np.random.default_rng(5)
    weight = rng.integers(-8, 16, (5, 2, 3, 3)).astype(np.int16)
    node = Conv2d(weight=weight, stride=(2, 1), padding=1)
    made = neuron(rng, (5, 4, 7), "any", False, fan_in=18)
    graph = chain(node, made, shape=(2, 7, 7), kind=Kind.SPIKE)
    x = sequence(graph, 100, 2, rate=0.3)
    assert_bits(EventDriven(graph).run(x), Reference(graph).run(x))


@pytest.mark.parametrize("steps", [1, 63, 100])
@pytest.mark.parametrize("node", [MaxPool2d, SumPool2d])
@pytest.mark.parametrize("settings", [{"stride": 2}, {"stride": (1, 3), "padding": 1}])
def test_pools_of_spikes(node: Any, settings: Any, steps: int) -> None:
    """Windows that overlap see an event more than once; a window that sees several has one largest."""
    made: list[Node] = [Threshold(threshold=np.array(0.4)), node(kernel=(2, 3), **settings)]
    graph = chain(*made, convolution(np.random.default_rng(0), (3, 4), (2, 2)), shape=(3, 8, 9))
    agree(graph, sequence(graph, steps, 2, rate=0.3))


def test_a_pool_of_numbers_that_are_all_negative() -> None:
    x = -np.random.default_rng(1).random((20, 2, 2, 6, 6)) * (np.arange(20) % 3 > 0).reshape(-1, 1, 1, 1, 1)
    agree(chain(MaxPool2d(kernel=2, stride=2), shape=(2, 6, 6)), x)


def test_steps_without_an_event_leave_the_bias() -> None:
    rng = np.random.default_rng(4)
    node = Conv2d(weight=rng.standard_normal((4, 2, 3, 3)), bias=rng.standard_normal(4))
    graph = chain(node, Activation("relu"), shape=(2, 6, 6), kind=Kind.SPIKE)
    x = sequence(graph, 30, 1, rate=0.05)
    x[::2] = 0
    agree(graph, x)
    quiet = EventDriven(graph).run(x).outputs[0, 0]
    assert node.bias is not None
    assert_close(quiet, np.broadcast_to(np.maximum(node.bias, 0)[:, None, None], quiet.shape))


def test_rows_of_weights_follow_the_places() -> None:
    """A point in the middle of the image adds each row of its kernel, mirrored, as one stretch."""
    weight = np.arange(2 * 1 * 3 * 3, dtype=np.float64).reshape(2, 1, 3, 3)
    made = Patches.of(Conv2d(weight=weight), (5, 5), (3, 3), 8)
    at, start, rows, lines = made.points.reshape(5, 5, 4)[2, 2]
    assert (rows, lines) == (3, 1)
    assert at == made.starts[0]
    row = made.weights[0, start : start + 6]
    np.testing.assert_array_equal(row, weight[:, 0, 2, ::-1].T.ravel())
