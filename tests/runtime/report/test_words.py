"""Numbers as they are written."""

import numpy as np
import pytest

from unscan.runtime.report.words import affordable, count, interval, joules, points, score, share, shortened


def test_energies_have_units():
    assert [joules(v) for v in (1.265, 65.4e-3, 5.879e-6, 2e-9, 3e-12, 0.0)] == [
        "1.265 J",
        "65.4 mJ",
        "5.879 uJ",
        "2 nJ",
        "3 pJ",
        "0 pJ",
    ]


def test_only_an_exact_score_reads_one():
    assert score(1.0) == "1"
    assert score(1 - 1e-9) == "0.999999"
    assert score(float("nan")) == "silent"


def test_counts_shares_and_gaps():
    assert [count(v) for v in (0, 33.9, 1234, 921114, 2.195e6, 5e9, 3e12)] == [
        "0",
        "33.9",
        "1,234",
        "921,114",
        "2.195 M",
        "5 G",
        "3 T",
    ]
    assert share(0.1234) == "12.34 %"
    assert share(float("nan")) == share(float("inf")) == "–"
    assert [affordable(rate) for rate in (0.0, 0.12, 1.0, 1.5, float("inf"))] == [
        "always dearer",
        "12.00 %",
        "100.00 %",
        "always cheaper",
        "always cheaper",
    ]
    assert points(-0.0625) == "-6.25"
    assert shortened("layer1.neuron", 8) == "….neuron"
    assert len(shortened("layer1.neuron", 8)) == 8
    assert shortened("short", 8) == "short"


@pytest.mark.parametrize(("right", "samples"), [(0, 10), (10, 10), (31, 32), (500, 1000)])
def test_the_interval_is_where_the_share_is_no_surprise(right, samples):
    """Wilson's bounds solve (p - q)^2 = z^2 q (1 - q) / n for q."""
    p = right / samples
    for q in interval(right, samples):
        assert (p - q) ** 2 == pytest.approx(1.959964**2 * q * (1 - q) / samples, abs=1e-12)
    low, high = interval(right, samples)
    assert 0 <= low <= p <= high <= 1
    assert np.isfinite([low, high]).all()
