"""The graph as a picture: SVG, data flow from top to bottom, one row for each distance from the input.

What skips a row runs between the rows to the right, down there, and back between rows; what comes back in a loop runs
up on the left.
"""

from __future__ import annotations

from html import escape

from unscan.compiler.ir import Edge, Graph, Kind, Node
from unscan.compiler.nodes import (
    Convolution,
    Delay,
    Diagonal,
    Embedding,
    Input,
    IntegerLeaky,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    Leaky,
    Linear,
    Memory,
    Output,
    Spiking,
    StoredMemory,
    Threshold,
)

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN, LEGEND, LANE = 240, 58, 36, 46, 24, 34, 26
FILL = {
    "neuron": "#fde8cd",
    "synapse": "#dbe9f6",
    "filter": "#e0f0dc",
    "boundary": "#e7e7e7",
    "other": "#f4f4f4",
}
DASH = {Kind.SPIKE: "2 4", Kind.GRADED: "8 4", Kind.REAL: "", Kind.INDEX: "1 6"}


def draw(graph: Graph, arrow: str = "arrow") -> str:
    """Return the graph as SVG: boxes are nodes, lines are edges, dotted for spikes and solid for real numbers.

    Classes stand beside the colours, so that a page can choose others; `arrow` is the id of its arrow's head, which has
    to be another for each drawing in one page.
    """
    rank = {name: i for i, name in enumerate(graph.order)}
    backs = [edge for edge in graph.edges if rank[edge.source] >= rank[edge.target]]
    depth: dict[str, int] = {}
    for name in graph.order:
        before = [depth[edge.source] for edge in graph.into(name) if edge not in backs]
        depth[name] = 1 + max(before, default=-1)
    rows: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in graph.order:
        rows[depth[name]].append(name)
    columns = max(map(len, rows))
    skips = [e for e in graph.edges if depth[e.target] - depth[e.source] > 1 and e not in backs]
    left_lane, lane = LANE * len(backs), LANE * len(skips)
    width = 2 * MARGIN + columns * WIDTH + (columns - 1) * GAP_X + lane + left_lane
    height = 2 * MARGIN + len(rows) * HEIGHT + (len(rows) - 1) * GAP_Y + LEGEND
    place: dict[str, tuple[float, float]] = {}
    for row, names in enumerate(rows):
        span = len(names) * WIDTH + (len(names) - 1) * GAP_X
        left = left_lane + (width - lane - left_lane - span) / 2
        for column, name in enumerate(names):
            place[name] = (left + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    parts = [
        f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(' to '.join(graph.order))}</title>",
        f'<defs><marker id="{arrow}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
        'orient="auto"><path class="head" d="M0 0L8 4L0 8z" fill="#444"/></marker></defs>',
        f'<rect class="ground" width="{width:g}" height="{height:g}" fill="white"/>',
    ]
    labels: list[str] = []
    for edge in graph.edges:
        kind = graph.signals[edge.source].kind
        (x0, y0), (x1, y1) = place[edge.source], place[edge.target]
        share = entry(graph, edge)
        side_y = y1 + HEIGHT * share
        if edge in skips:
            lane_x = width - MARGIN - LANE * skips.index(edge) - 8
            below, above = y0 + HEIGHT + 6 + apart(skips, edge), y1 - 12 - apart(skips, edge)
            enter_x = x1 + WIDTH * share
            path = (
                f"M{x0 + WIDTH / 2:g} {y0 + HEIGHT:g}V{below:g}H{lane_x:g}V{above:g}H{enter_x:g}V{y1 - 2:g}"
            )
            port = (enter_x, y1 + 10)
        elif edge in backs:
            lane_x = MARGIN + LANE * backs.index(edge) + 8
            path = f"M{x0:g} {y0 + HEIGHT / 2:g}H{lane_x:g}V{side_y:g}H{x1 - 2:g}"
            port = (x1 - 24, side_y - 3)
        else:
            path = f"M{x0 + WIDTH / 2:g} {y0 + HEIGHT:g}L{x1 + WIDTH * share:g} {y1 - 2:g}"
            port = (x1 + WIDTH * share, y1 + 10)
        parts.append(
            f'<path class="edge" d="{path}" fill="none" stroke="#444" stroke-width="1.6" stroke-linecap="round" '
            f'stroke-dasharray="{DASH[kind]}" marker-end="url(#{arrow})"/>'
        )
        if len(graph.nodes[edge.target].ports) > 1:
            labels.append(
                f'<text x="{port[0]:g}" y="{port[1]:g}" text-anchor="middle" font-size="10">{escape(edge.port)}</text>'
            )
    for name, (x, y) in place.items():
        node = graph.nodes[name]
        title, detail = label(graph, name)
        parts += [
            f'<rect class="node {family(node)}" x="{x:g}" y="{y:g}" width="{WIDTH}" height="{HEIGHT}" rx="7" '
            f'fill="{FILL[family(node)]}" stroke="#444"/>',
            f'<text x="{x + WIDTH / 2:g}" y="{y + 24:g}" text-anchor="middle" font-size="14" '
            f'font-weight="bold">{escape(title)}</text>',
            f'<text x="{x + WIDTH / 2:g}" y="{y + 44:g}" text-anchor="middle" font-size="12">{escape(detail)}</text>',
        ]
    parts += labels
    parts += legend(graph, MARGIN, height - MARGIN + 4)
    return "\n".join([*parts, "</svg>\n"])


def apart(skips: list[Edge], edge: Edge) -> int:
    """Return how far from the others an edge runs between two rows."""
    return 5 * (skips.index(edge) % 5)


def entry(graph: Graph, edge: Edge) -> float:
    """Return where along the side of a node's box an edge enters it: each port has its own place."""
    ports = graph.nodes[edge.target].ports
    return (ports.index(edge.port) + 1) / (len(ports) + 1)


def family(node: Node) -> str:
    """Return which colour a node has."""
    if isinstance(node, Leaky | Threshold | Memory | IntegerLeaky | IntegerMemory):
        return "neuron"
    if isinstance(node, Linear | Convolution | Embedding):
        return "synapse"
    if isinstance(node, Diagonal | Delay | IntegerSSM):
        return "filter"
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
    elif isinstance(node, Spiking | IntegerLIF):
        detail = f"{shape}, reset {node.reset} ({node.phase})"
    elif isinstance(node, Leaky | IntegerLeaky):
        detail = f"{shape}, no spikes"
    elif isinstance(node, Memory | IntegerMemory):
        detail = f"{'x'.join(map(str, node.membrane(graph.inputs(name))))}, reset {node.reset}"
        if isinstance(node, StoredMemory):
            detail += f", decay {node.decay}"
    elif isinstance(node, Delay):
        detail = f"{shape}, {node.longest} {'step' if node.longest == 1 else 'steps'} later"
    elif isinstance(node, Diagonal):
        detail = f"{shape}, {node.a.shape[1]} modes each"
    return f"{short} · {type(node).__name__}", detail


def legend(graph: Graph, x: float, y: float) -> list[str]:
    """Return a line for each kind of signal that the graph has."""
    parts, kinds = [], sorted({graph.signals[edge.source].kind for edge in graph.edges})
    for i, kind in enumerate(kinds):
        left = x + 74 * i
        parts += [
            f'<path class="edge" d="M{left:g} {y - 4:g}h22" stroke="#444" stroke-width="1.6" stroke-linecap="round" '
            f'stroke-dasharray="{DASH[kind]}"/>',
            f'<text x="{left + 28:g}" y="{y:g}" font-size="12">{kind}</text>',
        ]
    return parts
