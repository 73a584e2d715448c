"""The quick part of what other frameworks run: small networks in norse."""

from tests.foreign.nir_running import PORTABLE, compared, run_all
from tests.targets.networks import drive, feed_forward, looped


def test_norse_fires_the_same_spikes(tmp_path):
    (place,) = (place for place in PORTABLE if place.label == "norse")
    graphs = {
        "loop": looped(3, layers=2, reset="subtract"),
        "zero": feed_forward(reset="zero", threshold=0.8137),
    }
    driven = {name: (graph, drive(graph, 63, 2)) for name, graph in graphs.items()}
    given = run_all(place, driven, tmp_path)
    outcomes = [compared(place, *driven[name], given[name]) for name in driven]
    assert [outcome.mismatches for outcome in outcomes] == [0, 0]
    assert [outcome.f1 for outcome in outcomes] == [1, 1]
