"""NIR, in the portable profile: one file that gives the same spikes in several frameworks.

NIR holds no time step, no reset but the one to a voltage, and fires on v > v_threshold. Frameworks differ in how
they read it, so the profile keeps to what they agree on. With dt = 1e-4 s, r = 1 and v_leak = v_reset = 0:

- A LIF with reset zero is a NIR LIF of tau = dt / (1 - beta), whose gain is 1 - beta: its threshold is
  theta (1 - beta) where our gain is 1, and theta where ours is 1 - beta. beta = 1 has tau = 2^40 dt, a leak below
  what float32 and float64 sums can hold. A CubaLIF with reset zero is a NIR CubaLIF of gains 1: r = tau_mem / dt and
  w_in = tau_syn / dt.
- Every other state h is a Linear(1) M with a Linear from it to itself: beta for membranes, alpha for currents, rho for
  adaptations, rotations for the modes of a state-space model, a shift for a delay line. A threshold behind it is a LIF
  of tau = dt (1 + 2e-6): it forgets all but 2e-6 of its last voltage.
- Reset subtract is a Linear from the threshold to M: -beta theta at phase now, -theta at phase next.
- A Delay that closes a loop is an edge back: what comes back is added a step late; see `nir_encoding`.
- A convolution, a pool or a number for each channel of an image is a Conv2d of one group. A Flatten counts its axes
  from the last, so that it means the same to NIR, which has no batch, as to frameworks that have one.
- A tie that fires (>=) is a threshold one float32 lower: the frameworks run in float32.

Names are `input < n... < output` in data-flow order, because readers run nodes in alphabetical order; an edge back
stands before the edge forward. One chain, and ways back: norse gives what it ran last, and drops what it does not know.

The metadata holds our graph as JSON with what NIR cannot say, so that `read_nir` gives the same graph back.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nir

from unscan.compiler.errors import InvalidInput
from unscan.compiler.frontends.nir import ARRAYS, CHECKSUM, DOCUMENT, fingerprint
from unscan.compiler.ir import Graph
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets import nir_neurons, nir_stateless
from unscan.targets.base import Target, collect, insist
from unscan.targets.nir_encoding import DT, Encoding

RULES = (nir_stateless, nir_neurons)
"""Where the rule of each node stands."""
PROFILES: dict[str, tuple[str, ...]] = {"portable": ("snnTorch 1.0.0", "norse 1.1.0 with dt = 1e-4")}
"""Profile -> the frameworks whose spikes our tests hold against the reference."""


def encode(graph: Graph, profile: str = "portable") -> nir.NIRGraph:
    """Return the NIR graph of an iterative graph; see the head of this file.

    Raises:
        Unsupported: a node cannot be said in NIR, with its name, the reason, and the pass that helps.
        InvalidInput: there is no such profile.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    _profile(profile)
    to = Encoding(check(graph))
    insist(graph, "nir", collect(to.order, to.emit))
    document, arrays = to.document()
    written = nir.NIRGraph(to.primitives, to.edges, metadata={DOCUMENT: document})
    if arrays:
        written.metadata[ARRAYS] = arrays
    written.metadata[CHECKSUM] = fingerprint(written)
    return written


def emit(graph: Graph, path: Path | str, **options: Any) -> None:
    """Write an iterative graph as a NIR file. Option: `profile`; see `encode`, also for what it raises."""
    written = encode(graph, **options)
    with writing(path) as temporary:
        nir.write(temporary, written)


def refusals(graph: Graph, **options: Any) -> dict[str, str]:
    """Return node -> reason for every node that the profile cannot say, in data-flow order."""
    _profile(options.get("profile", "portable"))
    to = Encoding(check(graph))
    return collect(to.order, to.emit)


def _profile(profile: str) -> None:
    if profile not in PROFILES:
        raise InvalidInput(f"There is no NIR profile {profile!r}; the profiles are {', '.join(PROFILES)}.")


TARGET = Target(
    "nir", ".nir", f"the portable profile, for {' and '.join(PROFILES['portable'])}", emit, refusals
)

__all__ = ["DT", "PROFILES", "TARGET", "emit", "encode", "refusals"]
