"""NIR, under a profile: the portable one gives the same spikes in several frameworks, others are for one of them.

NIR holds no time step, no reset but the one to a voltage, and fires on v > v_threshold. Frameworks differ in how
they read it, so the portable profile keeps to what they agree on. With dt = 1e-4 s, r = 1 and v_leak = v_reset = 0:

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

The profiles norse, snntorch and spikingjelly are the same encoding in the framework's own step, gain and inequality,
with what it alone can read; `nir_native`, `nir_sinabs`, `nir_rockpool` and `nir_spyx` have rules of their own. What a
file does otherwise than its graph is listed by `changes`.

The metadata holds our graph as JSON with what NIR cannot say, so that `read_nir` gives the same graph back, and the
profile with its list of changes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import nir

from unscan.compiler.errors import InvalidInput
from unscan.compiler.frontends.nir import ARRAYS, CHECKSUM, DOCUMENT, fingerprint
from unscan.compiler.ir import Graph
from unscan.compiler.spec import check
from unscan.compiler.storage import writing
from unscan.targets import nir_native, nir_neurons, nir_rockpool, nir_sinabs, nir_spyx, nir_stateless
from unscan.targets.base import Report, Target, collect, insist
from unscan.targets.nir_encoding import Encoding, emit_node
from unscan.targets.nir_profile import DT, Change, Profile

RULES = (nir_stateless, nir_neurons, nir_native, nir_sinabs, nir_rockpool, nir_spyx)
"""Where the rule of each node stands."""
PORTABLE = Profile(
    name="portable",
    proven=(
        "snnTorch 1.0.0",
        "norse 1.1.0 with dt = 1e-4",
        "SpikingJelly 2.0.0",
        "nirtorch 2.6 with a node map",
    ),
    summary="the same spikes in every one of them",
    emit=emit_node,
    fire=nir_neurons.compare,
)
PROFILES: dict[str, Profile] = {
    profile.name: profile
    for profile in (
        PORTABLE,
        Profile(
            name="nir",
            proven=("the equations of NIR, step by step",),
            summary="NIR's own primitives and meaning, nothing built from others",
            emit=nir_native.emit_native,
            fire=nir_neurons.compare,
            each=frozenset({"decay", "threshold"}),
            joins=True,
            ways_back=False,
            conv1d=True,
        ),
        Profile(
            name="norse",
            proven=("norse 1.1.0",),
            summary="norse's own dt of 1e-3 s, and neurons of their own decays and thresholds",
            emit=emit_node,
            fire=nir_neurons.compare,
            dt=1e-3,
            each=frozenset({"decay", "threshold"}),
        ),
        Profile(
            name="snntorch",
            proven=("snnTorch 1.0.0",),
            summary="neurons of their own decays, and signals that meet",
            emit=emit_node,
            fire=nir_neurons.compare,
            each=frozenset({"decay"}),
            unit_gain=True,
            joins=True,
        ),
        Profile(
            name="spikingjelly",
            proven=("SpikingJelly 2.0.0",),
            summary="ties fire as they do there, and signals meet",
            emit=emit_node,
            fire=nir_neurons.compare,
            fires=">=",
            unit_gain=True,
            joins=True,
            conv1d=True,
        ),
        Profile(
            name="sinabs",
            proven=("sinabs 3.1.3, a step at a time",),
            summary="exponential decays, tau in steps, thresholds subtracted",
            emit=nir_sinabs.emit_sinabs,
            fire=nir_sinabs.fire_once,
            dt=1.0,
            fires=">=",
            each=frozenset({"decay", "threshold"}),
            joins_wrongly="sinabs",
            linear=False,
            without=("v_reset",),
        ),
        Profile(
            name="rockpool",
            proven=("Rockpool 3.1.0",),
            summary="one chain of Linear and CubaLIF, thresholds subtracted as often as they fit",
            emit=nir_rockpool.emit_rockpool,
            fire=nir_rockpool.fire_once,
            dt=1e-3,
            fires=">=",
            each=frozenset({"decay", "threshold"}),
            joins_wrongly="Rockpool",
            sums=False,
        ),
        Profile(
            name="spyx",
            proven=("spyx 1.0.0 with dt = 1e-4",),
            summary="one chain of spyx's layers, which fire a step late",
            emit=nir_spyx.emit_spyx,
            fire=nir_neurons.compare,
            each=frozenset({"decay", "threshold"}),
            joins_wrongly="spyx",
            sums=False,
        ),
    )
}
"""Profile by name."""


def encode(graph: Graph, profile: str = "portable") -> nir.NIRGraph:
    """Return the NIR graph of an iterative graph; see the head of this file.

    Raises:
        Unsupported: a node cannot be said in the profile, with its name, the reason, and the pass that helps.
        InvalidInput: there is no such profile.
        InvalidGraph: the graph breaks an invariant of the IR.
    """
    to, refused = _walked(graph, profile)
    insist(graph, "nir" if profile == PORTABLE.name else f"nir, profile {profile},", refused)
    document, arrays = to.document()
    written = nir.NIRGraph(to.primitives, to.edges, metadata={DOCUMENT: document})
    if arrays:
        written.metadata[ARRAYS] = arrays
    written.metadata[CHECKSUM] = fingerprint(written)
    return written


def emit(graph: Graph, path: Path | str, **options: Any) -> None:
    """Write an iterative graph as a NIR file. Option: `profile`; see `encode`, also for what it raises."""
    written = encode(graph, **options)
    without = find_profile(options.get("profile", PORTABLE.name)).without
    with writing(path) as temporary:
        nir.write(temporary, written)
        if without:
            _leave_out(temporary, without)


def refusals(graph: Graph, **options: Any) -> dict[str, str]:
    """Return node -> reason for every node that the profile cannot say, in data-flow order."""
    return _walked(graph, options.get("profile", PORTABLE.name))[1]


def changes(graph: Graph, profile: str = "portable") -> tuple[Change, ...]:
    """Return what a file of the profile does otherwise than the graph, node by node; empty where nothing.

    The file's metadata holds the same list. Raises InvalidInput where there is no such profile.
    """
    return tuple(_walked(graph, profile)[0].changes)


def find_profile(name: str) -> Profile:
    """Return a profile by name. Raises InvalidInput listing what there is."""
    if name not in PROFILES:
        raise InvalidInput(f"There is no NIR profile {name!r}; the profiles are {', '.join(PROFILES)}.")
    return PROFILES[name]


def _walked(graph: Graph, profile: str) -> tuple[Encoding, dict[str, str]]:
    """Return the encoding of a graph, and the reasons of the nodes that are missing in it."""
    to = Encoding(check(graph), find_profile(profile))
    return to, collect(to.order, to.emit)


def _leave_out(path: Path, fields: tuple[str, ...]) -> None:
    """Remove fields of primitives from a file: a reader takes what it does not find for its default."""
    with h5py.File(path, "r+") as file:
        for primitive in file["node/nodes"].values():
            for field in fields:
                if field in primitive:
                    del primitive[field]


def report(graph: Graph, **options: Any) -> Report:
    """Return for whom the file of a profile is, and what it does otherwise than the graph."""
    profile = find_profile(options.get("profile", PORTABLE.name))
    found = changes(graph, profile.name)
    head = f"Profile {profile.name}: {profile.summary}; held against the reference in {', '.join(profile.proven)}."
    return Report(
        f"What the profile {profile.name} changes",
        ("node", "kind", "what"),
        tuple((change.node, change.kind, change.text) for change in found),
        (head,),
        numbers={
            "profile": profile.name,
            "proven": profile.proven,
            "changes": [vars(each) for each in found],
        },
    )


TARGET = Target(
    "nir",
    ".nir",
    f"one file for {', '.join(PORTABLE.proven)}; --profile for others",
    emit,
    refusals,
    options=("profile",),
    report=report,
)

__all__ = [
    "DT",
    "PROFILES",
    "TARGET",
    "Change",
    "Profile",
    "changes",
    "emit",
    "encode",
    "find_profile",
    "refusals",
]
