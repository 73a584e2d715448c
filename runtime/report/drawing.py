"""The graph as a picture: SVG, data flow from top to bottom, one row for each distance from the input."""

from __future__ import annotations

from html import escape

from unscan.compiler.ir import Graph, Kind, Node
from unscan.compiler.nodes import Input, Linear, Output
from unscan.compiler.nodes.neurons import Leaky, Spiking

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, LEGEND = 240, 58, 36, 46, 24, 34
FILL = {"neuron": "#fde8cd", "synapse": "#dbe9f6", "boundary": "#e7e7e7", "other": "#f4f4f4"}
DASH = {Kind.SPIKE: "2 4", Kind.GRADED: "8 4", Kind.REAL: ""}


def draw(graph: Graph) -> str:
    """Return the graph as SVG: boxes are nodes, lines are edges, dotted for spikes and solid for real numbers."""
    depth: dict[str, int] = {}
    for name in graph.order:
        depth[name] = 1 + max((depth[edge.source] for edge in graph.into(name)), default=-1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in graph.order:
        rows[depth[name]].append(name)
    columns = max(map(len, rows))
    skips = [e for e in graph.edges if depth[e.target] - depth[e.source] > 1]
    lane = 26 * len(skips)
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP_X + lane
    height = 2 * MARGIN + len(rows) * HEIGHT + (len(rows) - 1) * GAP_Y + LEGEND
    place: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(rows):
        span = len(names) * WIDTH + (len(names) - 1) * GAP_X
        left = (width - lane - span) / 2
        for column, name in enumerate(names):
            place[name] = (left + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(' to '.join(graph.order))}</title>",
        '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>',
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
    ]
    for edge in graph.edges:
        kind = graph.signals[edge.source].kind
        (x0, y0), (x1, y1) = place[edge.source], place[edge.target]
        if edge in skips:
            side = width - MARGIN - 26 * skips.index(edge) - 8
            path = f"M{x0 + WIDTH:g} {y0 + HEIGHT / 2:g}H{side:g}V{y1 + HEIGHT / 2:g}H{x1 + WIDTH + 2:g}"
        else:
            path = f"M{x0 + WIDTH / 2:g} {y0 + HEIGHT:g}L{x1 + WIDTH / 2:g} {y1 - 2:g}"
        parts.append(
            f'<path d="{path}" fill="none" stroke="#444" stroke-width="1.6" stroke-linecap="round" '
            f'stroke-dasharray="{DASH[kind]}" marker-end="url(#arrow)"/>'
        )
    for name, (x, y) in place.items():
        node = graph.nodes[name]
        title, detail = label(graph, name)
        parts += [
            f'<rect x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7" fill="{FILL[family(node)]}" '
            'stroke="#444"/>',
            f'<text x="{x + WIDTH / 2:g}" y="{y + 24:g}" text-anchor="middle" font-size="14" '
            f'font-weight="bold">{escape(title)}</text>',
            f'<text x="{x + WIDTH / 2:g}" y="{y + 44:g}" text-anchor="middle" font-size="12">{escape(detail)}</text>',
        ]
    parts += legend(graph, MARGIN, height - MARGIN + 4)
    return "\n".join([*parts, "</svg>\n"])


def family(node: Node) -> str:
    """Return which colour a node has."""
    if isinstance(node, Leaky):
        return "neuron"
    if isinstance(node, Linear):
        return "synapse"
    return "boundary" if isinstance(node, Input | Output) else "other"


def label(graph: Graph, name: str) -> tuple[str, str]:
    """Return the two lines in a node's box, short enough for it."""
    node = graph.nodes[name]
    room = 26 - len(type(node).__name__)
    short = name if len(name) <= room else f"…{name[1 - room :]}"
    shape = "x".join(map(str, graph.signals[name].shape))
    detail = shape
    if isinstance(node, Linear):
        detail = f"{node.weight.shape[1]} → {node.weight.shape[0]}"
    elif isinstance(node, Spiking):
        detail = f"{shape}, reset {node.reset} ({node.phase})"
    elif isinstance(node, Leaky):
        detail = f"{shape}, no spikes"
    return f"{short} · {type(node).__name__}", detail


def legend(graph: Graph, x: float, y: float) -> list[str]:
    """Return a line for each kind of signal that the graph has."""
    parts, kinds = [], sorted({graph.signals[edge.source].kind for edge in graph.edges})
    for i, kind in enumerate(kinds):
        left = x + 74 * i
        parts += [
            f'<path d="M{left:g} {y - 4:g}h22" stroke="#444" stroke-width="1.6" stroke-linecap="round" '
            f'stroke-dasharray="{DASH[kind]}"/>',
            f'<text x="{left + 28:g}" y="{y:g}" font-size="12">{kind}</text>',
        ]
    return parts
