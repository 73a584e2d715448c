"""What each profile writes, changes and refuses, without the frameworks; tests/foreign runs the files there."""

import json
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from tests.targets.every_node import CASES as EVERY
from tests.targets.every_whole_node import WHOLE
from tests.targets.networks import DEPLOYED, chain, cuba, drive, feed_forward, lif, looped, with_neuron
from tests.targets.walking import walk
from unscan.compiler.errors import DamagedFile, InvalidInput, Unsupported
from unscan.compiler.frontends.nir import read_nir
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LI,
    Conv2d,
    Delay,
    Flatten,
    Input,
    Linear,
    Output,
    Scale,
    Threshold,
)
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import PROFILES, Change, changes, emit, encode, find_profile, refusals

OWN = np.linspace(0.6137, 1.4137, 16)


def only(written, kind):
    (found,) = (primitive for primitive in written.nodes.values() if isinstance(primitive, kind))
    return found


def first(written, kind):
    return next(primitive for primitive in written.nodes.values() if isinstance(primitive, kind))


def said(graph, profile):
    """Return why a profile refuses a graph, in one line."""
    return " ".join(refusals(graph, profile=profile).values())


def kinds(graph, profile):
    return [change.kind for change in changes(graph, profile)]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("case", [*DEPLOYED, "soft", "free"])
def test_every_file_of_every_profile_gives_the_same_graph_back(tmp_path: Path, profile, case):
    made = {"soft": lambda: feed_forward(reset="subtract"), "free": lambda: feed_forward(reset="none")}
    graph = (made | DEPLOYED)[case]()
    if refusals(graph, profile=profile):
        with pytest.raises(Unsupported, match="cannot express"):
            emit(graph, tmp_path / "model.nir", profile=profile)
        assert not list(tmp_path.iterdir())
        return
    emit(graph, tmp_path / "model.nir", profile=profile)
    assert read_nir(tmp_path / "model.nir") == graph
    known = json.loads(nir.read(tmp_path / "model.nir").metadata["unscan"])
    assert known["profile"] == profile
    assert known["dt"] == find_profile(profile).dt
    assert [Change(*held) for held in known["changes"]] == list(changes(graph, profile))


def test_unknown_profiles_are_refused_by_everything():
    for ask in (
        lambda: changes(feed_forward(), "brian"),
        lambda: refusals(feed_forward(), profile="brian"),
        lambda: encode(feed_forward(), "brian"),
    ):
        with pytest.raises(InvalidInput, match="no NIR profile 'brian'"):
            ask()


def test_a_change_is_one_line():
    (change,) = changes(with_neuron(lif(threshold=OWN, reset="zero")), "portable")
    assert change.node == "it"
    assert change.kind == "scaled"
    assert str(change).startswith("it: its thresholds, 0.6137 to 1.4137, are 1, and")


@pytest.mark.parametrize("reset", ["none", "subtract", "zero"])
@pytest.mark.parametrize("fires", [">", ">="])
def test_thresholds_of_each_neuron_fire_alike_in_the_portable_profile(reset, fires):
    graph = with_neuron(lif(threshold=OWN, reset=reset, fires=fires), dtype=np.float64)
    x = drive(graph, 63, 1)
    truth = Reference(graph).run(x)
    assert truth.spikes["it"].any()
    np.testing.assert_allclose(walk(encode(graph), x[:, 0]), truth.outputs[:, 0], atol=1e-9)


def test_who_holds_decays_of_each_neuron():
    graph = with_neuron(lif(beta=np.linspace(0.5, 0.95, 16), reset="zero"))
    assert {profile for profile in PROFILES if not refusals(graph, profile=profile)} == {
        "nir",
        "norse",
        "snntorch",
    }
    assert "profiles norse, snntorch and nir" in said(graph, "spikingjelly")
    assert len(set(first(encode(graph, "norse"), nir.LIF).tau)) == 16
    again = with_neuron(cuba(beta=np.linspace(0.5, 0.95, 16)))
    assert len(set(only(encode(again, "snntorch"), nir.CubaLIF).tau_mem)) == 16


def test_norse_is_given_its_own_step():
    graph = with_neuron(lif(beta=0.75, threshold=2.0, reset="zero", fires=">"))
    written = first(encode(graph, "norse"), nir.LIF)
    np.testing.assert_allclose(written.tau, 1e-3 / 0.25)
    np.testing.assert_allclose(written.v_threshold, 0.5)


@pytest.mark.parametrize("profile", ["snntorch", "spikingjelly"])
def test_a_gain_of_one_is_a_resistance(profile):
    graph = with_neuron(lif(beta=0.75, threshold=2.0, reset="zero", fires=find_profile(profile).fires))
    written = first(encode(graph, profile), nir.LIF)
    np.testing.assert_allclose(written.r, 4.0)
    np.testing.assert_allclose(written.v_threshold, 2.0)


def test_spikingjelly_fires_on_a_tie_by_itself():
    for fires, wanted in ((">=", 1.5), (">", np.nextafter(np.float32(1.5), np.float32(2)))):
        graph = with_neuron(lif(threshold=1.5, reset="zero", fires=fires))
        assert set(first(encode(graph, "spikingjelly"), nir.LIF).v_threshold) == {float(wanted)}


def joined():
    nodes = {"in": Input((4,)), "a": Linear(np.eye(4)), "b": Linear(np.eye(4)), "it": lif(reset="zero")}
    edges = [("in", "a"), ("a", "b"), ("b", "it"), ("a", "it"), ("it", "out")]
    return Graph(nodes | {"out": Output()}, [Edge(*edge) for edge in edges])


def test_signals_meet_where_the_framework_adds_them():
    who = {profile for profile in PROFILES if not refusals(joined(), profile=profile)}
    assert who == {"nir", "snntorch", "spikingjelly"}
    assert "sinabs runs a branch that joins again wrongly" in said(joined(), "sinabs")
    written = encode(joined(), "snntorch")
    (meets,) = (name for name in written.nodes if name.endswith("sum"))
    assert len([edge for edge in written.edges if edge[1] == meets]) == 2


def test_one_signal_that_meets_itself_is_refused():
    nodes = {
        "in": Input((4,)),
        "flat": Flatten(),
        "w": Linear(np.eye(4)),
        "it": lif(reset="zero"),
        "out": Output(),
    }
    edges = [("in", "w"), ("w", "flat"), ("w", "it"), ("flat", "it"), ("it", "out")]
    graph = Graph(nodes, [Edge(*edge) for edge in edges])
    assert all(
        "which are one signal" in said(graph, profile) for profile in ("nir", "snntorch", "spikingjelly")
    )


def bounded(size):
    """Return spikes -> Linear of positive weights -> LIF, whose rows add up to a size."""
    return chain(
        {
            "in": Input((4,), kind=Kind.SPIKE),
            "w": Linear(np.full((2, 4), size / 4), np.full(2, 0.25)),
            "it": lif(beta=0.5, threshold=1.0, reset="subtract"),
            "out": Output(),
        }
    )


def test_weights_show_where_no_neuron_fires_twice_in_a_step():
    assert kinds(bounded(1.2), "rockpool") == []
    assert kinds(bounded(1.3), "rockpool") == ["several"]
    assert not [name for name in encode(bounded(1.2), "sinabs").nodes if name.endswith("whole")]
    assert [name for name in encode(bounded(1.3), "sinabs").nodes if name.endswith("whole")]
    assert kinds(bounded(1.3), "sinabs") == []


def test_a_file_for_sinabs_has_neither_linear_nor_v_reset(tmp_path: Path):
    graph = feed_forward(reset="subtract", readout=True)
    assert not any(isinstance(held, nir.Linear) for held in encode(graph, "sinabs").nodes.values())
    emit(graph, tmp_path / "model.nir", profile="sinabs")
    with h5py.File(tmp_path / "model.nir") as file:
        assert not [name for name, held in file["node/nodes"].items() if "v_reset" in held]
    written = only(encode(bounded(1.2), "sinabs"), nir.LIF)
    np.testing.assert_allclose(np.exp(-1 / written.tau), 0.5)
    assert set(written.v_threshold) == {1.0}


def test_layers_of_spyx_are_late_by_one_step_each():
    assert kinds(feed_forward(reset="subtract"), "spyx") == ["late"] * 3
    assert kinds(feed_forward(reset="subtract", phase="next"), "spyx") == ["late"] * 3
    assert kinds(feed_forward(reset="none"), "spyx") == []
    now, later = (encode(with_only(reset="subtract", phase=phase), "spyx") for phase in ("now", "next"))
    np.testing.assert_allclose(only(now, nir.CubaLIF).tau_syn, 1e-4)
    assert isinstance(only(later, nir.LIF), nir.LIF)
    free = encode(with_only(reset="none"), "spyx")
    assert [type(held).__name__ for held in free.nodes.values()] == ["Input", "LI", "Threshold", "Output"]


def with_only(**settings):
    return chain({"in": Input((4,)), "it": lif(**settings), "out": Output()})


def test_images_for_spyx_are_turned_back_where_they_are_flattened():
    graph = chain(
        {
            "in": Input((2, 3, 4)),
            "flat": Flatten(),
            "it": Threshold(threshold=np.asarray(0.5)),
            "out": Output(),
        }
    )
    assert kinds(graph, "spyx") == ["ordered"]
    turn = only(encode(graph, "spyx"), nir.Linear).weight
    image = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(turn @ np.moveaxis(image, 0, -1).reshape(-1), image.reshape(-1))


def own_spikes(steps=1, **settings):
    full = looped(steps, **{"reset": "subtract"} | settings)
    kept = {name: node for name, node in full.nodes.items() if name not in ("read", "last")}
    edges = [edge for edge in full.edges if {edge.source, edge.target} <= kept.keys()]
    return Graph(kept, [*edges, Edge("lif0", "out")])


def test_a_gain_reaches_what_comes_back_too():
    graph = own_spikes(gain="1-beta", phase="next")
    np.testing.assert_allclose(only(encode(graph, "spyx"), nir.LIF).v_threshold, 0.9137 / 0.2, rtol=1e-6)
    with pytest.raises(Unsupported, match="shuts its input out"):
        encode(with_only(beta=1.0, gain="1-beta", reset="subtract"), "spyx")


def test_a_loop_around_what_does_not_fire_is_refused_where_layers_run_one_by_one():
    late = Delay(steps=np.asarray(1.0), shape=(4,), kind=Kind.REAL)
    nodes = {
        "in": Input((4,)),
        "a": Linear(np.eye(4)),
        "late": late,
        "back": Linear(np.eye(4)),
        "out": Output(),
    }
    ring = [("in", "a"), ("a", "out"), ("a", "late"), ("late", "back"), ("back", "a")]
    graph = Graph(nodes, [Edge(*ends) for ends in ring])
    for profile in ("rockpool", "spyx"):
        assert "one loop alone: from a neuron with a reset" in said(graph, profile)
        assert "one loop alone" in said(own_spikes(reset="none"), profile)


def test_loops_where_layers_run_one_by_one():
    written = encode(own_spikes(), "rockpool")
    inner = only(written, nir.NIRGraph)
    assert {type(held) for held in inner.nodes.values()} == {nir.Input, nir.Output, nir.CubaLIF, nir.Linear}
    assert len(encode(own_spikes(phase="next"), "spyx").edges) == 5
    for profile in ("rockpool", "spyx"):
        assert "one loop alone" in said(own_spikes(bias=True), profile)
        assert "Delay" in said(own_spikes(2), profile)
        assert "one loop alone" in said(own_spikes(back=False), profile)


REASONS = {
    ("sinabs", "zero"): "run restore-reset with subtract, or with none",
    ("sinabs", "image-now"): "fails on a LIF over an image",
    ("rockpool", "zero"): "run restore-reset with subtract, phase now",
    ("spyx", "zero"): "run restore-reset with subtract",
    ("rockpool", "image"): "reads no convolution",
    ("rockpool", "adaptive-subtract"): "reads CubaLIF and LI alone",
    ("spyx", "adaptive-subtract"): "has none like it",
    ("spyx", "readout"): "end the model with neurons",
    ("spyx", "cuba-next"): "phase now",
    ("spyx", "image-now"): "fails on images",
    ("spyx", "dilated"): "drops its dilation",
    ("spyx", "delay"): "drops a Delay without a word",
    ("nir", "soft"): "restore-reset with zero",
    ("nir", "next"): "phase now",
    ("nir", "adaptive-subtract"): "NIR has no threshold that moves; the profile portable builds it",
    ("nir", "diagonal"): "NIR has no state-space model; the profile portable builds it",
}


@pytest.mark.parametrize(("profile", "case"), REASONS, ids=["-".join(case) for case in REASONS])
def test_what_a_framework_does_not_have_is_refused_with_the_reason(profile, case):
    conv, far = Conv2d(weight=np.ones((2, 2, 3, 3))), Conv2d(weight=np.ones((2, 2, 2, 2)), dilation=2)
    made = DEPLOYED | {
        "zero": lambda: feed_forward(reset="zero"),
        "soft": lambda: feed_forward(reset="subtract"),
        "next": lambda: feed_forward(reset="zero", phase="next"),
        "readout": lambda: feed_forward(reset="none", readout=True),
        "cuba-next": DEPLOYED["cuba-subtract-next"],
        "dilated": lambda: chain({"in": Input((2, 5, 5)), "it": far, "out": Output()}),
        "image": lambda: chain({"in": Input((2, 5, 5)), "conv": conv, "out": Output()}),
        "image-now": lambda: chain(
            {"in": Input((2, 5, 5)), "conv": conv, "it": lif(reset="subtract"), "out": Output()}
        ),
    }
    assert REASONS[profile, case] in said(made[case](), profile)


def test_whole_numbers_are_refused_with_the_remedy():
    for case, make in WHOLE.items():
        assert ("table" if case.startswith("embedding") else "before quantize") in said(make(), "portable"), (
            case
        )
    for profile in PROFILES:
        assert "before quantize" in said(WHOLE["linear-spikes"](), profile)


MEANT = {name: make for name, make in {**DEPLOYED, **EVERY}.items() if not refusals(make(), profile="nir")}


@pytest.mark.parametrize("case", MEANT)
def test_the_honest_profile_means_the_graph_by_nir_s_equations_alone(tmp_path: Path, case):
    graph = MEANT[case]()
    emit(graph, tmp_path / "model.nir", profile="nir")
    nir.read(tmp_path / "model.nir")  # its own check of shapes
    with h5py.File(tmp_path / "model.nir", "r+") as file:
        del file["node/metadata"]
    (name,) = graph.of(Input)
    read = read_nir(tmp_path / "model.nir", kind=graph.signals[name].kind, dt=1e-4)
    x = drive(graph, 63)
    got, truth = (Reference(it.astype(np.float64)).run(x).outputs for it in (read, graph))
    np.testing.assert_allclose(got, truth, atol=1e-6)


def test_the_honest_profile_writes_nir_s_own_primitives():
    assert len(MEANT) > 20
    nodes = {
        "in": Input((4,)),
        "scale": Scale(np.arange(4.0)),
        "late": Delay(steps=np.asarray(2.0), shape=(4,), kind=Kind.REAL),
        "li": LI(beta=np.asarray(0.5)),
        "i": LI(beta=np.asarray(1.0)),
        "if": lif(beta=1.0, reset="zero"),
        "free": lif(reset="none"),
        "cuba": cuba(),
        "loose": cuba(reset="none"),
        "out": Output(),
    }
    written = [type(held).__name__ for held in encode(chain(nodes), "nir").nodes.values()]
    neurons = ["LI", "I", "IF", "LI", "Threshold", "CubaLIF", "CubaLI", "Threshold"]
    assert written == ["Input", "Scale", "Delay", *neurons, "Output"]
    assert only(encode(chain(nodes), "nir"), nir.Delay).delay == pytest.approx(2e-4)


def test_a_number_that_was_altered_inside_a_subgraph_is_found(tmp_path):
    path = tmp_path / "loop.nir"
    emit(own_spikes(), path, profile="rockpool")
    read_nir(path)
    found: list[h5py.Dataset] = []
    with h5py.File(path, "r+") as file:
        file["node/nodes"].visititems(
            lambda name, item: (
                found.append(item) if name.count("/") > 2 and name.endswith("/weight") else None
            )
        )
        (weight,) = found
        weight[...] = weight[...] + 1e-3
    with pytest.raises(DamagedFile, match="altered"):
        read_nir(path)
