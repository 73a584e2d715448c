"""The page: everything in it is measured, escaped, labelled and linked, whatever the graph is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.compiler.test_text import GRAPHS
from tests.graphs import sequence, two_layers
from tests.runtime.report.pages import check
from unscan.compiler.errors import InvalidInput
from unscan.compiler.frontends.trace import trace
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.passes import Quantize
from unscan.compiler.pipeline import run
from unscan.runtime.energy import Energy, break_even
from unscan.runtime.judge import compile_on, ranges
from unscan.runtime.report.blocks import Cell, Code, Figure, Page, Section, Table, Text
from unscan.runtime.report.evidence import gather
from unscan.runtime.report.page import report
from unscan.runtime.report.words import affordable, count, joules, score, share
from unscan.trainer import AssociativeLeaky

GRAPH = two_layers(kind=Kind.SPIKE).annotate(meta={"decision": "mean"})
X = sequence(GRAPH, 40, 6)
LABELS = np.arange(6) % 2


def test_every_block_is_written_and_escaped():
    table = Table(
        "a <caption>",
        ["row", "number", "word"],
        [["<b>", "1", "x & y"], ["c", Cell("2", "good"), ""]],
        ["word"],
    )
    blocks = [
        Text("1 < 2"),
        table,
        Figure('<svg role="img" aria-label="it"></svg>', "under it"),
        Code("a\nb"),
        Code("c", "More"),
    ]
    page = check(
        Page(
            "A & B", "sub", [("what", "3 <")], [Section("Same", blocks), Section("Same", [], [Section("!")])]
        ).html()
    )
    assert page.headings == [(1, "A & B"), (2, "Contents"), (2, "Same"), (2, "Same"), (3, "!")]
    assert page.tables() == {
        "a <caption>": [["row", "number", "word"], ["<b>", "1", "x & y"], ["c", "2", ""]]
    }
    ids = [e.attributes["id"] for e in page.root.all("h2") + page.root.all("h3")]
    assert ids == ["contents", "same", "same-2", "section"]
    assert page.root.all("details")[0].all("summary")[0].text == "More"
    assert page.root.all("figcaption")[0].text == "under it"
    (cell,) = [e for e in page.root.all("td") if e.text == "2"]
    assert cell.attributes["class"] == "number good"


def test_the_figures_of_a_page_are_those_that_were_measured():
    other = compile_on(two_layers(kind=Kind.SPIKE), reset="none").annotate(meta={"decision": "mean"})
    found = [
        gather(name, graph, X, ["reference", "event"], model=GRAPH, labels=LABELS)
        for name, graph in (("same", GRAPH), ("other", other))
    ]
    page = check(report("R", found, on="six samples", commands=["unscan report x"]))
    assert "Measured on six samples, 40 steps each. The figures here are of same." in page.root.text
    tables = page.tables()
    rows = {row[0]: row for row in tables["Accuracy on both sides, and the gap between them"]}
    assert set(rows) == {"execution", "model", "same, every executor", "other, every executor"}
    for each, who in zip(found, ("same", "other"), strict=True):
        assert rows[f"{who}, every executor"][1] == f"{each.right['event']} of 6"
    matrices = [
        table for e in page.root.all("table")
        if (table := e).all("caption")[0].text.startswith("F1 of spikes")
    ]  # fmt: skip
    assert len(matrices) == 2
    cells = [cell.text for cell in matrices[1].all("tbody")[0].all("tr")[0].all("td")]
    total = found[1].between("model", "event").total
    assert cells[0] == "–"
    assert cells[2].split("\n")[:2] == [score(total.f1), count(total.mismatches)]
    row = tables["The deployed graphs side by side, per sample; energy by horowitz-45nm-float32"][2]
    assert row[0] == "other"
    spent = Energy.of(found[1].counts)
    assert row[-2:] == [joules(spent.total / 6), joules(spent.dense_total / 6)]
    assert "unscan report x" in page.root.text


@pytest.mark.parametrize(
    "name", ["iterative", "image", "words", "whole-memory", "whole-filter", "whole-spikes"]
)
def test_any_graph_has_a_report(name):
    graph = GRAPHS[name]
    found = gather(name, graph, sequence(graph, 12, 2), ["reference", "event"])
    page = check(report(name, [found], on="numbers"))
    assert (3, "Agreement") in page.headings
    assert "There are no labels" in page.root.text


def test_what_top_k_and_calibration_did_is_told():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 6), AssociativeLeaky(in_dim=6, d_value=5, d_key=4, threshold=0.1), nn.Linear(25, 3)
    )
    x = np.random.default_rng(0).normal(0, 2, (30, 4, 4)).astype(np.float32)
    traced = trace(model, x[:1, :1])
    graph = compile_on(traced, top_k="k=2,v=3")
    found = gather("sparse", graph, x, ["event"], model=model, traced=traced)
    page = check(report("R", [found], on="numbers", traces=["1:2,3"]))
    assert (3, "Top-k") in page.headings
    (head, row) = page.tables()["Entries of the matrix memories that one step writes"]
    assert head == ["memory", "entries", "written", "share"]
    assert row == ["1", "20", "6", "30.00 %"]
    assert "1, neuron (2, 3), sample 0: asked for" in page.root.text


def test_whole_numbers_have_a_section():
    graph = run(GRAPH, [Quantize("loihi2", ranges(X))])
    page = check(report("R", [gather("w", graph, X, ["event"], model=GRAPH, labels=LABELS)], on="numbers"))
    assert (3, "Quantisation") in page.headings
    rows = page.tables()["What rounding did to each layer: the model, then whole numbers"]
    assert [row[0] for row in rows] == ["layer", "lif1", "lif2"]
    assert "Energy per sample, horowitz-45nm-int8" in page.tables()
    assert "every weight fits in 8 bits" in page.root.text
    alone = check(report("R", [gather("w", graph, X, ["event"])], on="numbers"))
    assert "what rounding cost is not measured" in alone.root.text


def test_each_graph_is_costed_with_the_table_of_its_numbers():
    whole = run(GRAPH, [Quantize("int16", ranges(X))])
    found = [gather(name, graph, X, ["event"]) for name, graph in (("real", GRAPH), ("whole", whole))]
    tables = check(report("R", found, on="numbers")).tables()
    rows = tables["The deployed graphs side by side, per sample; energy by the table of each"]
    assert [row[-1] for row in rows] == ["table", "horowitz-45nm-float32", "horowitz-45nm-int32"]
    asked = check(report("R", found, on="numbers", energy="horowitz-45nm-float16")).tables()
    assert "The deployed graphs side by side, per sample; energy by horowitz-45nm-float16" in asked


def test_the_break_even_rate_stands_beside_the_energy():
    found = gather("g", GRAPH, X, ["event"])
    page = check(report("R", [found], on="numbers"))
    rows = page.tables()["Break-even by layer: its events and weights alone, against its dense products"]
    nodes, whole = break_even(found.counts)
    assert [row[0] for row in rows[1:]] == [*nodes, "in all, with updates"]
    assert rows[-1][1:] == [share(whole.rate), affordable(whole.memory), affordable(whole.compute)]
    labels = [e.attributes.get("aria-label", "") for e in page.root.all("svg")]
    assert any(label.startswith("Break-even rates: inputs that are not 0") for label in labels)


def test_a_long_run_is_drawn_in_part_and_says_so():
    x = sequence(GRAPH, 1000, 1, rate=0.5)
    html = report("R", [gather("g", GRAPH, x, ["reference", "event"])], on="numbers")
    page = check(html)
    assert "of 1000" in page.root.text
    assert len(html) < 300_000


def test_a_layer_that_never_fires_is_told():
    quiet = Graph(
        {n: (node if n != "lif1" else lifted(node)) for n, node in GRAPH.nodes.items()},
        [Edge(*edge) for edge in GRAPH.edges],
    )
    page = check(report("R", [gather("g", quiet, X, ["reference", "event"])], on="numbers"))
    assert "fired no spike on a side" in page.root.text


def lifted(node):
    """The neuron with a threshold that nothing reaches."""
    return replace(node, threshold=np.full_like(node.threshold, 1e6))


def test_an_unknown_table_or_neuron_is_refused():
    found = [gather("g", GRAPH, X, ["event"])]
    with pytest.raises(InvalidInput, match="no energy table 'ghost'"):
        report("R", found, on="x", energy="ghost")
    with pytest.raises(InvalidInput, match="write NODE:NEURON"):
        report("R", found, on="x", traces=["lif1"])
