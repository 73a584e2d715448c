"""The picture of a graph: every node and edge is there, loops and ports too."""

from xml.etree import ElementTree

import pytest

from tests.compiler.test_text import GRAPHS
from tests.graphs import two_layers
from unscan.runtime.report.drawing import draw

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", GRAPHS)
def test_every_node_edge_and_port_is_drawn_within_the_picture(name):
    graph = GRAPHS[name]
    picture = ElementTree.fromstring(draw(graph))
    boxes = picture.findall(f"{SVG}rect")
    assert len(boxes) == 1 + len(graph.nodes)
    arrows = [path for path in picture.findall(f"{SVG}path") if "marker-end" in path.attrib]
    assert len(arrows) == len(graph.edges)
    said = [text.text for text in picture.findall(f"{SVG}text")]
    for edge in graph.edges:
        if len(graph.nodes[edge.target].ports) > 1:
            assert edge.port in said
    width, height = (float(picture.attrib[side]) for side in ("width", "height"))
    for box in boxes[1:]:
        x, y, w, h = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert x >= 0
        assert y >= 0
        assert x + w <= width
        assert y + h <= height


def test_a_loop_runs_up_on_the_left():
    graph = GRAPHS["iterative"]
    picture = ElementTree.fromstring(draw(graph))
    left = min(float(box.attrib["x"]) for box in picture.findall(f"{SVG}rect")[1:])
    lanes = [
        float(path.attrib["d"].split("H")[1].split("V")[0])
        for path in picture.findall(f"{SVG}path")
        if "H" in path.attrib["d"] and "marker-end" in path.attrib
    ]
    assert sum(lane < left for lane in lanes) == 1
    assert "1 step later" in draw(graph)


def test_what_a_memory_is_stands_in_its_box():
    assert "4x4, reset none, decay scalar" in draw(GRAPHS["iterative"])
    assert "12, reset zero (now)" in draw(two_layers())
