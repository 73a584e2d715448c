"""Loops in NIR: a Delay is an edge back where NIR can say so, and else a register or a refusal."""

from itertools import pairwise

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.targets.networks import diagonal, drive, weight
from tests.targets.walking import walk
from unscan.compiler.ir import Edge, Graph, Kind
from unscan.compiler.nodes import (
    LI,
    LIF,
    AdaptiveLIF,
    CubaLIF,
    Delay,
    Input,
    Linear,
    Multiply,
    Output,
    Scale,
    Threshold,
)
from unscan.compiler.nodes.neurons import FIRES, GAINS, PHASES
from unscan.runtime.executors.reference import Reference
from unscan.targets.nir import encode, refusals


@st.composite
def looped_chains(draw):
    """Chains of what NIR can say, and some of their nodes fed by later ones through a Delay."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = 6

    def number(low, high):
        return np.asarray(rng.uniform(low, high))

    def neuron():
        settings = {"beta": number(0.1, 0.95), "threshold": number(0.2, 1.2)}
        return settings | {
            "fires": FIRES[rng.integers(2)],
            "gain": GAINS[rng.integers(2)],
            "trained_reset": "none",
        }

    makers = (
        lambda: LI(beta=number(0, 1)),
        lambda: Scale(rng.uniform(-1, 1.5, width)),
        lambda: Threshold(threshold=number(0.2, 1.2)),
        lambda: LIF(**neuron(), reset="zero"),
        lambda: LIF(**neuron(), reset="subtract", phase=PHASES[rng.integers(2)]),
        lambda: CubaLIF(**neuron(), alpha=number(0, 1), reset="zero"),
        lambda: CubaLIF(**neuron(), alpha=rng.uniform(0, 1, width), reset="subtract"),
        lambda: AdaptiveLIF(**neuron(), kappa=number(0.1, 1), rho=rng.uniform(0, 1, width), reset="subtract"),
        lambda: Delay(steps=rng.integers(1, 4, width), shape=(width,), kind=Kind.REAL),
        lambda: diagonal(width, 2, seed=int(rng.integers(99))),
    )
    nodes, edges = {"in": Input((width,))}, []
    for i, which in enumerate(draw(st.lists(st.integers(0, len(makers) - 1), min_size=1, max_size=4))):
        bias = rng.normal(size=width) * 0.2 if rng.random() < 0.5 else None
        nodes |= {f"w{i}": Linear(weight(rng, width, width, np.float64), bias), f"n{i}": makers[which]()}
    nodes["out"] = Output()
    edges = [Edge(a, b) for a, b in pairwise(nodes)]
    middle = list(nodes)[1:-1]
    for i in range(draw(st.integers(0, 2))):
        start, end = sorted(rng.integers(0, len(middle), 2))
        kind = Graph(nodes, edges).signals[middle[end]].kind
        bias = rng.normal(size=width) * 0.2 if rng.random() < 0.5 else None
        nodes |= {
            f"late{i}": Delay(steps=np.float64(rng.integers(1, 4)), shape=(width,), kind=kind),
            f"back{i}": Linear(weight(rng, width, width, np.float64, 0.4), bias),
        }
        ring = [(middle[end], f"late{i}"), (f"late{i}", f"back{i}"), (f"back{i}", middle[start])]
        edges += [Edge(*pair) for pair in ring]
    return Graph(nodes, edges)


@given(looped_chains())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_every_chain_with_ways_back_is_written_as_it_is(graph):
    assert refusals(graph) == {}
    x = drive(graph, 40, 1)
    got = walk(encode(graph), x[:, 0])
    np.testing.assert_allclose(got, Reference(graph).run(x).outputs[:, 0], rtol=1e-6, atol=1e-6)


def loop(edges, **nodes):
    delay = Delay(steps=np.asarray(1.0), shape=(4,), kind=Kind.REAL)
    eye = Linear(np.eye(4))
    made = {"in": Input((4,)), "a": eye, "b": eye, "late": delay, **nodes, "out": Output()}
    return Graph(made, [Edge(*ends.split()) for ends in edges])


def test_a_loop_that_nir_cannot_hold_is_refused():
    biased = {"b": Linear(np.eye(4), np.ones(4)), "c": Scale(np.float64(0.5))}
    deep = loop(["in a", "a out", "a late", "late b", "b c", "c a"], **biased)
    assert "bias of b" in refusals(deep)["late"]
    last = loop(["in a", "a out", "a late", "late c", "c b", "b a"], **biased)
    assert refusals(last) == {}
    split = loop(["in a", "a out", "a late", "late b", "late c", "b a", "c a"], c=Linear(np.eye(4)))
    assert "no single way" in refusals(split)["late"]
    alone = loop(["in b", "b out", "late b", "a late", "late a"])
    assert "late" in refusals(alone)
    past = loop(["in b", "a late", "late a", "a out"])
    assert "late" in refusals(past)
    bypassed = loop(["in a", "a b", "in b", "late a", "b late", "b out"])
    assert "adds" in refusals(bypassed)["b"]


def test_a_loop_through_a_node_of_several_ports_is_refused_for_the_node():
    graph = Graph(
        {
            "in": Input((4,)),
            "it": Multiply(),
            "late": Delay(steps=np.asarray(1.0), shape=(4,), kind=Kind.REAL),
            "out": Output(),
        },
        [Edge("in", "it", "a"), Edge("late", "it", "b"), Edge("it", "late"), Edge("it", "out")],
    )
    assert "no product of two signals" in refusals(graph)["it"]


def test_a_delay_off_the_loops_stays_a_register_beside_them():
    delay = Delay(steps=np.asarray(2.0), shape=(4,), kind=Kind.REAL)
    graph = loop(["in a", "a b", "b late", "late a", "b later", "later out"], later=delay)
    written = encode(graph)
    assert len([name for name in written.nodes if "register" in name]) == 1
