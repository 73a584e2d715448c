"""Random networks of whole numbers, in every runtime: each spike and each final state is the same."""

from __future__ import annotations

import numpy as np
import pytest

from tests.integers import (
    Flavour,
    integer_network,
    memory_network,
    numbers_for,
    spikes_for,
    state_space_network,
)
from unscan.compiler.ir import Array, Graph
from unscan.runtime.executors import executor
from unscan.runtime.executors.base import Execution
from unscan.runtime.executors.reference import Reference

STEPS = 200
NETWORKS: list[tuple[int, Flavour]] = [(seed, flavour) for seed in range(20) for flavour in ("loihi2", "any")]
QUICK = ("event", "onnx", "onnx-scan", "c")


def insist_on_equal(got: Execution, truth: Execution, name: str) -> None:
    """Hold every spike, output and final state of an execution against the reference's."""
    np.testing.assert_array_equal(got.outputs, truth.outputs, err_msg=f"outputs of {name}")
    assert set(got.spikes) == set(truth.spikes)
    for node, spikes in truth.spikes.items():
        np.testing.assert_array_equal(got.spikes[node], spikes, err_msg=f"spikes of {node} in {name}")
    assert set(got.state) == set(truth.state)
    for state, values in truth.state.items():
        np.testing.assert_array_equal(got.state[state], values, err_msg=f"{state} in {name}")


def compared(graph: Graph, x: Array, runtimes: tuple[str, ...]) -> Execution:
    truth = Reference(graph).run(x)
    for name in runtimes:
        insist_on_equal(executor(name, graph).run(x), truth, name)
    return truth


@pytest.mark.parametrize(("seed", "flavour"), NETWORKS[:12])
def test_spiking_networks_are_the_same_everywhere(seed: int, flavour: Flavour):
    graph = integer_network(seed, flavour)
    compared(graph, spikes_for(graph, STEPS, 2, seed), QUICK)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "flavour"), NETWORKS)
def test_spiking_networks_are_the_same_everywhere_and_in_lava(seed: int, flavour: Flavour):
    graph = integer_network(seed, flavour)
    compared(graph, spikes_for(graph, STEPS, 2, seed), (*QUICK, "lava"))


def test_most_of_the_networks_fire_and_some_overflow():
    silent = saturated = layers = 0
    for seed, flavour in NETWORKS:
        graph = integer_network(seed, flavour)
        run = Reference(graph).run(spikes_for(graph, STEPS, 2, seed))
        assert run.counts is not None
        layers += len(run.spikes)
        silent += sum(not spikes.any() for spikes in run.spikes.values())
        saturated += any(tally.get("saturated", 0) for tally in run.counts.tallies.values())
    assert silent < layers / 8
    assert saturated > len(NETWORKS) / 8


OTHERS = {
    "memory": memory_network(),
    "memory, reset subtract, rows of queries": memory_network(1, reset="subtract", queries=2),
    "memory, reset zero, no queries, nothing dropped": memory_network(
        2, reset="zero", queries=None, top_k=None
    ),
    "filters": state_space_network(),
}


@pytest.mark.parametrize("name", OTHERS)
def test_memories_and_filters_are_the_same_everywhere(name: str):
    compared(OTHERS[name], numbers_for(OTHERS[name], 100, 2), QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_memories_and_filters_are_the_same_in_lava(name: str):
    compared(OTHERS[name], numbers_for(OTHERS[name], STEPS, 2), ("lava",))
