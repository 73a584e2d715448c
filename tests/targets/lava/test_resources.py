"""What a graph needs of a chip: counted by hand on small ones, and what does not fit is named with its size."""

import itertools
import json
from dataclasses import fields, replace

import numpy as np

from tests.integers import memory_network, state_space_network
from tests.targets.lava import networks
from tests.targets.lava.networks import lif, line, loop, weights
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Input, Linear
from unscan.targets.lava.resources import HEADER, LOIHI2, Chip, resources, rows


def wide(*widths: int) -> Graph:
    """Layers of so many neurons, all to all."""
    nodes = [("input", Input((widths[0],), Kind.SPIKE))]
    for row, (before, width) in enumerate(itertools.pairwise(widths)):
        nodes += [(f"fc{row}", Linear(np.ones((width, before), np.int8))), (f"n{row}", lif())]  # type: ignore[list-item]
    return line(*nodes)


def test_a_dense_network() -> None:
    found = resources(networks.dense())
    first, second = found.populations
    assert (first.name, first.neurons, first.axons_in, first.cores) == ("first", 5, 6, 1)
    assert first.synapses == np.count_nonzero(weights(5, 6))
    assert first.synaptic_bytes == 30
    assert (first.state_bytes, second.state_bytes) == (5 * 4, 4 * 2 * 4)
    assert second.fan_in == np.count_nonzero(weights(4, 5), axis=1).max()
    assert found.cores == 2
    assert not found.problems


def test_a_recurrence_counts() -> None:
    graph = loop(networks.dense(), "second", weights(4, 4, seed=1))
    second = resources(graph).populations[1]
    assert second.synaptic_bytes == 4 * 5 + 4 * 4
    assert second.axons_in == 5 + 4


def test_a_sparse_matrix_is_stored_with_indices() -> None:
    matrix = np.zeros((100, 100), np.int8)
    matrix[0, :10] = 1
    graph = line(("input", Input((100,), Kind.SPIKE)), ("fc", Linear(matrix)), ("neuron", lif()))
    (found,) = resources(graph).populations
    assert (found.synapses, found.fan_in, found.synaptic_bytes) == (10, 10, 10 * 3)


def test_a_convolution_shares_its_kernel() -> None:
    first = resources(networks.convolution()).populations[0]
    assert first.neurons == 4 * 4 * 6
    assert first.synaptic_bytes == 4 * 3 * 2
    assert first.synapses == np.count_nonzero(weights(4, 1, 3, 2)) * 24
    assert first.fan_in <= 6


def test_delays_take_bits() -> None:
    first = resources(networks.delays()).populations[0]
    assert first.synaptic_bytes == int(np.ceil(5 * 6 * 14 / 8))


def test_a_readout_is_a_population() -> None:
    assert [each.name for each in resources(networks.readout()).populations] == ["first", "fc2"]


def test_memories_and_filters_count_their_states() -> None:
    memory = resources(memory_network()).populations[0]
    assert (memory.neurons, memory.state_bytes) == (30, 120)
    assert resources(state_space_network()).populations[0].state_bytes == 4 * 3 * 2 * 4


def test_cores_follow_from_memory() -> None:
    found = resources(wide(784, 512, 512))
    assert [(each.cores, each.limit) for each in found.populations] == [(3, "memory"), (2, "memory")]
    per_neuron = 784 + 4
    assert found.populations[0].cores == -(-512 // (LOIHI2.memory // per_neuron))


def test_cores_follow_from_neurons_and_axons() -> None:
    tight = replace(LOIHI2, neurons=10)
    assert [each.limit for each in resources(wide(6, 25, 30), tight).populations] == ["neurons", "neurons"]
    narrow = replace(LOIHI2, axons_out=30, neurons=10)
    first, second = resources(wide(6, 25, 30), narrow).populations
    assert (second.cores, first.limit, first.cores, first.axons_out) == (3, "neurons", 3, 30)


def test_what_does_not_fit_is_named_with_its_size() -> None:
    tiny = Chip("tiny", cores=3, neurons=8, memory=100, axons_in=16, axons_out=8)
    found = resources(wide(20, 4, 120), tiny)
    text = " ".join(found.problems)
    assert "n0: 20 numbers reach it, and 16 may reach a core: 4 too many." in found.problems
    assert "n0: each neuron reaches 15 cores, and a core sends to 8: 7 too many." in found.problems
    assert (
        f"It fills {found.cores} cores and tiny has 3: {found.cores - 3} too many, most of them for n1 (15"
        in text
    )
    heavy = resources(wide(200, 4), tiny)
    assert any(
        "one neuron takes 204 bytes, and a core has 100: 104 too many" in each for each in heavy.problems
    )


def test_the_table_and_the_json() -> None:
    found = resources(networks.dense())
    table = list(rows(found))
    assert all(len(row) == len(HEADER) for row in table)
    assert table[-1][:2] == ("all", "9")
    assert json.loads(json.dumps(found.to_json()))["cores"] == 2


def test_every_limit_has_a_source() -> None:
    assert set(LOIHI2.sources) == {each.name for each in fields(Chip)} - {"name", "sources"}
