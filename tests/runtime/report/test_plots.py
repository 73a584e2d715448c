"""Plots: every number lands where it belongs, and what is not a number leaves a gap."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unscan.runtime.report.plots import Bar, Line, apart, bars, lines, raster, runs, ticks


def numbers(path):
    """The places that a path joins."""
    return [tuple(map(float, at)) for at in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path)]


@given(
    st.floats(-1e9, 1e9),
    st.floats(1e-6, 1e9),
    st.integers(2, 10),
)
def test_ticks_are_round_and_about_as_many_as_wanted(low, size, wanted):
    high = low + max(size, abs(low) * 1e-6)
    step = apart(low, high, wanted)
    assert f"{step:.0e}"[0] in "125"
    found = ticks(low, high, step)
    assert wanted / 2.7 - 1 <= len(found) <= wanted / 0.75 + 1
    assert all(low - 1e-6 * step <= value <= high + 1e-6 * step for value in found)


def test_lines_lie_within_the_axes_and_a_gap_stays_a_gap():
    drawn = lines(
        [Line("one", [0, 1, 2, 3], [5.0, float("nan"), 7.0, 6.0])], "what <is> shown", axes=("step", "value")
    )
    picture = ElementTree.fromstring(drawn)
    assert picture.attrib["aria-label"] == "what <is> shown"
    assert picture.attrib["role"] == "img"
    (line,) = [p for p in picture.iter("path") if "line" in p.attrib["class"] and "L" in p.attrib["d"]]
    assert line.attrib["d"].count("M") == 2
    at = numbers(line.attrib["d"])
    assert len(at) == 3
    assert at[1][1] < at[2][1] < at[0][1]  # 7 is above 6, which is above 5
    width, height = float(picture.attrib["width"]), float(picture.attrib["height"])
    assert all(0 <= x <= width and 0 <= y <= height for x, y in at)
    assert len(list(picture.iter("circle"))) == 3


@pytest.mark.parametrize("y", [[0.0], [3.0], [3.0, 3.0], [-1e-9, 1e-9], [1e12, -1e12]])
def test_lines_take_any_numbers(y):
    drawn = ElementTree.fromstring(lines([Line("a", range(len(y)), y)], "x", axes=("x", "y")))
    assert "nan" not in ElementTree.tostring(drawn, "unicode")
    assert "inf" not in ElementTree.tostring(drawn, "unicode")


def test_bars_are_as_long_as_their_numbers():
    picture = ElementTree.fromstring(
        bars(
            [Bar("a", [(1, 2.0), (2, 1.0)], "3"), Bar("b", [(1, 1.5)], "1.5"), Bar("c", [(1, 0.0)], "0")], "x"
        )
    )
    long = [float(rect.attrib["width"]) for rect in picture.iter("rect")]
    assert long[0] / long[1] == pytest.approx(2, rel=0.01)
    assert (long[0] + long[1]) / long[2] == pytest.approx(2, rel=0.01)
    assert len(long) == 3
    assert ElementTree.fromstring(bars([Bar("a", [(1, 0.0)], "0")], "nothing")).tag == "svg"


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_runs_hold_every_spike_once(steps, neurons, seed):
    spikes = np.random.default_rng(seed).random((steps, neurons)) < 0.5
    again = np.zeros_like(spikes)
    for row, start, long in runs(spikes):
        assert not again[start : start + long, row].any()
        assert start == 0 or not spikes[start - 1, row]
        again[start : start + long, row] = True
    np.testing.assert_array_equal(again, spikes)


def test_a_raster_draws_a_mark_for_each_run():
    spikes = np.zeros((6, 3), bool)
    spikes[[0, 1, 4], 2] = True
    picture = ElementTree.fromstring(
        raster([(0, spikes)], "x", neurons=[0, 7, 9], meaning=[(0, "both")], first=100)
    )
    (marks,) = [g.find("path").attrib["d"] for g in picture.iter("g")]
    assert marks == "M0 2.5h2M4 2.5h1"
    said = [text.text for text in picture.iter("text")]
    assert {"0", "7", "9", "100", "105"} <= set(said)
