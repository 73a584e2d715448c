import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unscan.compiler.errors import InvalidInput
from unscan.runtime import distances as module
from unscan.runtime.distances import Distances, distance, distances
from unscan.runtime.executors.base import Execution


def van_rossum_by_hand(a: list[int], b: list[int], tau: float) -> float:
    """D^2 = 1/2 sum over pairs of spikes of e^(-|t_i - t_j| / tau), those of A against B taken off."""
    marked = [(t, 1.0) for t in a] + [(t, -1.0) for t in b]
    total = sum(p * q * math.exp(-abs(s - t) / tau) for s, p in marked for t, q in marked)
    return math.sqrt(max(total, 0.0) / 2)


def isi_by_hand(a: list[int], b: list[int], steps: int) -> float:
    """The intervals under way in the middle of each step, one step after the other."""
    total = 0.0
    for t in range(steps):
        now = t + 0.5
        sizes = []
        for train in (a, b):
            last = max([s for s in train if s < now], default=0)
            following = min([s for s in train if s > now], default=steps)
            sizes.append(following - last)
        total += 1 - min(sizes) / max(sizes)
    return total / steps


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 2, 63, 100]), st.sampled_from([0.5, 3.0, 10.0, 200.0]))
def test_distances_are_those_of_a_written_out_loop(seed, steps, tau):
    rng = np.random.default_rng(seed)
    rate = rng.choice([0.0, 0.05, 0.3, 1.0])
    a = rng.random((steps, 2, 3)) < rate
    b = a ^ (rng.random(a.shape) < rng.choice([0.0, 0.05, 0.5]))
    found = distance(a, b, tau)
    trains = [
        (np.flatnonzero(a[:, i, j]).tolist(), np.flatnonzero(b[:, i, j]).tolist())
        for i in range(2)
        for j in range(3)
    ]
    rossum = [van_rossum_by_hand(*pair, tau) for pair in trains]
    apart = [isi_by_hand(*pair, steps) for pair in trains]
    counts = [abs(len(left) - len(right)) for left, right in trains]
    assert found.trains == 6
    assert found.van_rossum == pytest.approx((sum(rossum), max(rossum)), abs=1e-6)
    assert found.isi == pytest.approx((sum(apart), max(apart)), abs=1e-12)
    assert found.count == (sum(counts), max(counts))


@pytest.mark.parametrize("tau", [1.0, 10.0])
def test_the_van_rossum_distance_has_its_known_values(tau):
    empty = np.zeros((50, 1, 1), bool)
    one, later = empty.copy(), empty.copy()
    one[20] = later[23] = True
    assert distance(one, empty, tau).van_rossum[0] ** 2 == pytest.approx(0.5)
    assert distance(one, later, tau).van_rossum[0] ** 2 == pytest.approx(1 - math.exp(-3 / tau))
    assert distance(one, one, tau).van_rossum == (0.0, 0.0)


def test_the_isi_distance_has_its_known_values():
    a, b = np.zeros((100, 1, 1), bool), np.zeros((100, 1, 1), bool)
    a[::10], b[::5] = True, True
    assert distance(a, b).isi[0] == pytest.approx(0.5)
    assert distance(a, np.zeros_like(a)).isi[0] == pytest.approx(1 - 10 / 100)


def test_the_rate_correlation_is_pearsons():
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 40, 4, 7)) < rng.random(7)
    wanted = np.corrcoef(a.sum(axis=(0, 1)), b.sum(axis=(0, 1)))[0, 1]
    assert distance(a, b).rate_correlation == pytest.approx(wanted)
    assert math.isnan(distance(a, np.ones_like(a)).rate_correlation)


def recorded(seed: int) -> Execution:
    rng = np.random.default_rng(seed)
    spikes = {"a": rng.random((30, 5, 4)) < 0.2, "b": rng.random((30, 5, 2, 3)) < 0.4}
    return Execution(np.zeros((30, 5, 1)), spikes, {}, {}, None)


def test_parts_join_to_the_whole(monkeypatch):
    a, b = recorded(0), recorded(1)

    def cut(run: Execution, samples: slice) -> Execution:
        return Execution(
            run.outputs[:, samples], {k: v[:, samples] for k, v in run.spikes.items()}, {}, {}, None
        )

    whole = distances(a, b, ["a", "b"], 4.0)
    parts = [distances(cut(a, part), cut(b, part), ["a", "b"], 4.0) for part in (slice(0, 2), slice(2, 5))]
    joined = (parts[0] + parts[1]).to_json()
    monkeypatch.setattr(module, "NUMBERS", 30 * 3)
    for other in (joined, distances(a, b, ["a", "b"], 4.0).to_json()):
        assert set(other["layers"]) == {"a", "b"}
        for name in ("a", "b"):
            assert other["layers"][name] == pytest.approx(whole.layers[name].to_json())
        assert other["total"] == pytest.approx(whole.total.to_json())
    assert whole.total.trains == 5 * (4 + 6)
    assert json.loads(json.dumps(joined, allow_nan=False))["tau"] == 4.0


def test_nothing_has_no_total_and_no_time_constant_is_below_zero():
    assert Distances({}).total is None
    assert Distances({}).to_json()["total"] is None
    for tau in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidInput, match="above 0 steps"):
            distances(recorded(0), recorded(1), ["a"], tau)
