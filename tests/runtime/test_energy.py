import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

from tests.graphs import chain, graphs, lif, sequence, two_layers
from tests.whole_graphs import whole_graphs
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Graph, Kind
from unscan.compiler.nodes import Conv2d, Input, Linear, Output, RMSNorm
from unscan.runtime.costs import Operations
from unscan.runtime.counts import updating
from unscan.runtime.energy import TABLES, Energy, Table, break_even, find, table_for
from unscan.runtime.energy_tables import KINDS
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.executors.reference import Reference

FREE = Table("free neurons", add=1.0, multiply=3.0, memory=0.0, updates=dict.fromkeys(KINDS, 0.0))


def test_the_energy_example_of_the_spiking_ssm_paper():
    """002: 275.2 G MAC need 1.265 J; 72.66 G AC need 65.40 mJ."""
    dense = Energy.of(Operations(macs=275_200_000_000))
    sparse = Energy.of(Operations(acs=72_660_000_000))
    assert round(dense.synaptic, 3) == 1.266  # 4.6 pJ x 275.2 G; the paper prints it cut off, as 1.265
    assert f"{sparse.synaptic * 1e3:.2f}" == "65.39"
    assert abs(dense.synaptic - 1.265) < 1e-3
    assert abs(sparse.synaptic - 65.40e-3) < 1e-5


def test_energy_is_counts_times_the_table():
    done = Operations(
        acs=10,
        macs=3,
        dense_macs=100,
        updates={"decay": 4, "compare": 5},
        weight_reads=13,
        state_reads=3,
        state_writes=4,
        neurons=6,
    )
    cost = TABLES["horowitz-45nm-int8"]
    energy = Energy.of(done, cost.name)
    assert energy.synaptic == pytest.approx((10 * cost.add + 3 * (cost.add + cost.multiply)) * 1e-12)
    assert energy.updates == pytest.approx((4 * cost.multiply + 5 * cost.add) * 1e-12)
    assert energy.memory == pytest.approx(20 * cost.memory * 1e-12)
    assert energy.dense == pytest.approx(100 * (cost.add + cost.multiply) * 1e-12)
    assert energy.dense_total == pytest.approx(energy.dense + 100 * cost.memory * 1e-12)
    assert energy.compute == pytest.approx(energy.synaptic + energy.updates)
    assert energy.total == pytest.approx(energy.compute + energy.memory)
    own = Energy.of(done, Table("own", 1.0, 2.0, 10.0, write=20.0, neuron=5.0))
    assert own.memory == pytest.approx((16 * 10 + 4 * 20) * 1e-12)
    assert own.updates == pytest.approx((4 * 2 + 5 * 1 + 6 * 5) * 1e-12)


def test_an_unknown_table_lists_those_there_are():
    with pytest.raises(InvalidInput, match="horowitz-45nm-float32"):
        Energy.of(Operations(), "unobtainium")


def test_what_was_never_published_is_not_made_up():
    with pytest.raises(InvalidInput, match="No energy per operation of Loihi 2"):
        find("loihi-2")


def test_every_table_names_its_source():
    for table in TABLES.values():
        assert table.source
        assert table.note


def test_the_first_loihi_prices_synaptic_operations_and_neurons():
    graph = chain(input=Input((3,), Kind.SPIKE), fc=Linear(np.eye(3)), n=lif(0.5, 0.1), output=Output())
    counts = EventDriven(graph).run(np.ones((4, 2, 3)), record=False).counts
    energy = Energy.of(counts, "loihi-1")
    assert energy.synaptic == pytest.approx(24 * 23.6e-12)
    assert energy.updates == pytest.approx(24 * 81e-12)
    assert (energy.memory, energy.dense_memory) == (0, 0)
    assert energy.dense == pytest.approx(72 * 23.6e-12)


def test_an_update_without_a_price_is_refused():
    graph = chain(input=Input((3,)), norm=RMSNorm(np.ones(3), 1e-5), output=Output())
    counts = EventDriven(graph).run(np.ones((4, 2, 3)), record=False).counts
    with pytest.raises(InvalidInput, match=r"'loihi-1' has no price for .* this graph makes: norm \(norm\)"):
        Energy.of(counts, "loihi-1")
    with pytest.raises(InvalidInput, match="'loihi-1' has no price for updates of kind 'norm'"):
        Energy.of(counts.total, "loihi-1")


def test_a_table_that_leaves_kinds_out_is_refused_before_the_run(tmp_path):
    path = tmp_path / "e.yaml"
    path.write_text("add: 0.1\nmultiply: 0.4\nmemory: 1\nupdates: {decay: 0.4}\n")
    graph = two_layers("zero")
    with pytest.raises(InvalidInput, match="has no price") as caught:
        table_for(graph, str(path))
    for kind in ("integrate", "compare", "reset"):
        assert f"{kind} (" in str(caught.value)
    assert "decay (" not in str(caught.value)
    path.write_text(
        "add: 0.1\nmultiply: 0.4\nmemory: 1\nupdates: {decay: 1, integrate: 1, compare: 1, reset: 1, bias: 1}\n"
    )
    assert table_for(graph, str(path)).table.name == str(path)
    with pytest.raises(InvalidInput, match=r"has no price .*: norm \(norm\)"):
        table_for(chain(input=Input((3,)), norm=RMSNorm(np.ones(3), 1e-5), output=Output()), str(path))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(graphs() | whole_graphs())
def test_kinds_that_were_counted_are_among_those_that_are_foreseen(graph):
    counts = Reference(graph).run(sequence(graph, 20, 2)).counts
    assert {kind for kind, n in counts.total.updates.items() if n} <= set(updating(graph))


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "add: 1\nmultiply: 2.5\nmemory: 0\nwrite: 3\nneuron: 4\nupdates: {decay: 7}\nsource: me\n"
    )
    table = find(str(path))
    assert (table.name, table.mac, table.store, table.neuron, table.source) == (str(path), 3.5, 3, 4, "me")
    energy = Energy.of(Operations(acs=10, macs=2, updates={"decay": 1}), str(path))
    assert energy.table == str(path)
    assert energy.compute == pytest.approx(24e-12)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("add: 1\nmultiply: 2\n", "no field 'memory'"),
        ("add: 1\nmultiply: 2\nmemory: 0\nname: x\n", "field 'name', which no table has"),
        ("add: -1\nmultiply: 2\nmemory: 0\n", "add is -1, wanted a number"),
        ("add: true\nmultiply: 2\nmemory: 0\n", "add is True"),
        ("add: .inf\nmultiply: 2\nmemory: 0\n", "add is inf"),
        ("add: 1 pJ\nmultiply: 2\nmemory: 0\n", "add is '1 pJ'"),
        ("add: 1\nmultiply: 2\nmemory: 0\nupdates: 4\n", "updates is 4"),
        ("add: 1\nmultiply: 2\nmemory: 0\nupdates: {dacay: 4}\n", "updates names 'dacay'"),
        ("add: 1\nmultiply: 2\nmemory: 0\nupdates: {decay: x}\n", "the update 'decay' is 'x'"),
        ("add: 1\nmultiply: 2\nmemory: 0\nsource: 4\n", "source is 4, wanted text"),
        ("- add\n", "wanted fields"),
        ("", "it is empty"),
        ("add: [1\n", "is no YAML"),
    ],
)
def test_a_table_that_does_not_fit_says_what_is_wrong(tmp_path, text, told):
    path = tmp_path / "mine.yml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=told) as caught:
        find(str(path))
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_table_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="There is no energy table") as caught:
        find(str(tmp_path / "none.yaml"))
    assert "Errno" not in str(caught.value)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(InvalidInput, match="cannot be read: Is a directory; name a file"):
        find(str(tmp_path / "folder.yaml"))
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidInput, match="no text in UTF-8"):
        find(str(tmp_path / "bytes.yaml"))


def fed(graph: Graph, rate: float, steps: int = 100):
    """Return an input whose every neuron fires at exactly so many of the steps."""
    shape = graph.signals["input"].shape
    x = np.zeros((steps, 1, *shape))
    for i, neuron in enumerate(np.ndindex(*shape)):
        x[((np.arange(round(rate * steps)) + i) % steps, 0, *neuron)] = 1
    return x


def test_at_the_break_even_rate_a_layer_costs_what_dense_costs():
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(8, 10)) * (
        np.arange(10) < 5
    )  # half of the weights are 0: twice the rate is affordable
    graph = chain(input=Input((10,), Kind.SPIKE), fc=Linear(weight), output=Output())
    costly = Table("costly events", add=4.0, multiply=0.0, memory=1.0)
    nodes, network = break_even(EventDriven(graph).run(fed(graph, 0.2)).counts, costly)
    assert nodes["fc"].rate == pytest.approx(0.2)
    assert nodes["fc"].compute == nodes["fc"].memory == pytest.approx(2.0)
    assert (network.rate, network.compute, network.memory) == pytest.approx((0.2, 2.0, 2.0))
    nodes, _ = break_even(EventDriven(graph).run(fed(graph, 0.2)).counts)
    assert nodes["fc"].compute == pytest.approx(2 * 4.6 / 0.9)
    assert nodes["fc"].memory == pytest.approx(2 * 9.6 / 5.9)


@pytest.mark.parametrize("table", [Table("a", 1.0, 0.2, 0.0), Table("b", 1.0, 0.5, 2.0), FREE])
def test_a_network_at_its_break_even_rate_costs_what_dense_costs(table):
    graph = chain(
        input=Input((2, 6, 6), Kind.SPIKE),
        conv=Conv2d(weight=np.ones((30, 2, 3, 3)), bias=np.ones(30)),
        n=lif(0.5, 1e9),
        output=Output(),
    )
    counts = EventDriven(graph).run(fed(graph, 0.5)).counts
    _, network = break_even(counts, table)
    factor = network.memory / network.rate
    energy = Energy.of(counts, table)
    grown = (factor - 1) * counts.total.acs * (table.add + table.memory) * 1e-12
    assert energy.total + grown == pytest.approx(energy.dense_total)
    grown = (network.compute / network.rate - 1) * counts.total.acs * table.add * 1e-12
    assert energy.compute + grown == pytest.approx(energy.dense)


def test_break_even_of_silence_and_of_numbers():
    graph = chain(input=Input((6,), Kind.SPIKE), fc=Linear(np.ones((4, 6))), n=lif(0.5, 1.0), output=Output())
    nodes, network = break_even(EventDriven(graph).run(np.zeros((5, 2, 6)), record=False).counts)
    assert nodes["fc"].rate == 0
    assert nodes["fc"].compute == pytest.approx(4.6 / 0.9)
    assert network.to_json() == {"rate": 0.0, "compute": None, "memory": None}
    graph = two_layers()
    nodes, _ = break_even(EventDriven(graph).run(sequence(graph, 5, 2), record=False).counts)
    assert nodes["fc1"].compute == nodes["fc1"].memory == 1
