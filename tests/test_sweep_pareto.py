"""Pareto fronts against their definition, and the picture of them."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unscan.sweep_pareto import COLOURS, Axis, Dot, Panel, draw, front, fronts

PLAIN = "{:.3g}".format
COST = Panel("cost", Axis("joules", PLAIN), Axis("accuracy", PLAIN))
RATE = Panel("rate", Axis("spikes", PLAIN), Axis("accuracy", PLAIN))
SVG = "{http://www.w3.org/2000/svg}"
few = st.integers(0, 4).map(float)


@settings(deadline=None)
@given(st.lists(st.tuples(few, few), max_size=12))
def test_the_front_is_what_no_other_beats(places):
    def beats(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    wanted = {i for i, here in enumerate(places) if not any(beats(other, here) for other in places)}
    found = front(places)
    assert set(found) == wanted
    assert len(found) == len(wanted)
    assert [places[i][0] for i in found] == sorted(places[i][0] for i in found)


def test_a_panel_has_the_dots_that_know_their_place():
    dots = [
        Dot(1, "a", "", {"cost": (1.0, 0.5), "rate": (0.1, 0.5)}),
        Dot(2, "a", "", {"cost": (2.0, 0.4)}),
        Dot(3, "b", "", {"cost": (3.0, 0.9), "rate": (0.2, 0.4)}),
    ]
    assert fronts([COST, RATE], dots) == {"cost": [1, 3], "rate": [1]}


def drawn(dots, panels=(COST,), caption=""):
    """Draw, and return the root of the picture."""
    return ET.fromstring(draw("A <title>", panels, dots, caption))


def test_the_picture_shows_every_dot_once_in_each_panel_and_fills_the_front():
    dots = [
        Dot(1, "a", "reset zero & more", {"cost": (1e-9, 0.5), "rate": (0.1, 0.5)}),
        Dot(2, "b", "", {"cost": (2e-6, 0.4), "rate": (0.3, 0.4)}),
        Dot(3, "b", "", {"cost": (3e-6, 0.9)}),
    ]
    root = drawn(dots, [COST, RATE], "A caption.")
    titles = [each.text for each in root.iter(f"{SVG}title")]
    assert titles[0] == "A <title>"
    assert sorted(told.partition(":")[0] for told in titles[1:]) == ["1", "1", "2", "2", "3"]
    assert "1: reset zero & more; joules 1e-09, accuracy 0.5" in titles
    panels = [each for each in root if each.get("transform") in ("translate(0 36)", "translate(400 36)")]
    marks = [group.find(f"{SVG}path") for group in panels[0] if group.find(f"{SVG}title") is not None]
    assert sum(mark.get("fill") == "white" for mark in marks) == 1
    texts = [each.text for each in root.iter(f"{SVG}text")]
    assert "joules, logarithmic" in texts
    assert "spikes" in texts
    assert " ".join(texts).endswith("better in one. A caption.")
    assert root.find(f"{SVG}desc").text == "front of cost: 1, 3; front of rate: 1"


@pytest.mark.parametrize("places", [[(1.0, 0.5)], [(0.0, 0.0)], [(2.0, 1.0)] * 5, [(0.0, 0.1), (5.0, 0.2)]])
def test_few_or_equal_dots_are_drawn_inside_their_panel(places):
    text = draw("t", [COST], [Dot(i, "a", "", {"cost": place}) for i, place in enumerate(places, 1)], "")
    assert "nan" not in text
    assert "inf" not in text
    for u, v in re.findall(r'<g transform="translate\((\S+) (\S+)\)"><title>', text):
        assert 66 <= float(u) <= 378
        assert 12 <= float(v) <= 270


def test_more_groups_than_colours_and_no_dot_at_all():
    groups = len(COLOURS) + 3
    root = drawn([Dot(i, f"g{i}", "", {"cost": (float(i), float(i))}) for i in range(groups)])
    assert {f"g{i}" for i in range(groups)} <= {each.text for each in root.iter(f"{SVG}text")}
    assert drawn([], ()).find(f"{SVG}title").text == "A <title>"
