"""ONNX for the matrix memories: S (B, d, n) itself, or stored as M with the accumulators A of its decay."""

from __future__ import annotations

import numpy as np

from unscan.compiler.errors import Unsupported
from unscan.compiler.nodes import AssociativeMemory, DeltaMemory, StoredMemory
from unscan.targets.onnx_stateful import fires, reset, spiking
from unscan.targets.onnx_step import Step, emit_node, tally

SHORTEST = 1e-12
"""The length up to which a key counts as 0."""


@emit_node.register
def _(
    node: AssociativeMemory, step: Step, name: str, v: str, k: str, alpha: str, q: str | None = None
) -> str:
    column = step.widened(v, [2], name, "v_column")
    if node.decay == "dense":
        S = step.boundary(f"{name}.S")
        kept = step.add("Mul", [S, row(step, name, alpha, "alpha")], name, "decayed")
        written = step.add("Mul", [column, row(step, name, k, "k")], name, "written")
        return remember(node, step, name, step.add("Add", [kept, written], name, "S"), q)
    M, A = collected(node, step, name, alpha)
    scaled = step.add("Div", [k, A], name, "k_scaled")
    written = step.add("Mul", [column, row(step, name, scaled, "k")], name, "written")
    return remember(node, step, name, step.add("Add", [M, written], name, "M"), q, row(step, name, A, "A"))


@emit_node.register
def _(
    node: DeltaMemory, step: Step, name: str, v: str, k: str, alpha: str, beta: str, q: str | None = None
) -> str:
    k = unit(step, name, k)
    key, column = row(step, name, k, "k"), step.widened(k, [2], name, "k_column")
    if node.decay == "dense":
        wide = step.widened(alpha, [2], name, "alpha_wide")
        kept = step.add("Mul", [step.boundary(f"{name}.S"), wide], name, "decayed")
        held = step.reshaped(step.add("MatMul", [kept, column], name, "held_column"), (-1,), name, "held")
        change = step.add("Mul", [beta, step.add("Sub", [v, held], name, "missing")], name, "change")
        written = step.add("Mul", [step.widened(change, [2], name, "change_column"), key], name, "written")
        return remember(node, step, name, step.add("Add", [kept, written], name, "S"), q)
    M, A = collected(node, step, name, alpha)
    stood = step.reshaped(step.add("MatMul", [M, column], name, "stood_column"), (-1,), name, "stood")
    held = step.add("Mul", [A, stood], name, "held")
    change = step.add("Mul", [beta, step.add("Sub", [v, held], name, "missing")], name, "change")
    scaled = step.add("Div", [change, A], name, "change_scaled")
    written = step.add("Mul", [step.widened(scaled, [2], name, "change_column"), key], name, "written")
    return remember(node, step, name, step.add("Add", [M, written], name, "M"), q, row(step, name, A, "A"))


def collected(node: StoredMemory, step: Step, name: str, alpha: str) -> tuple[str, str]:
    """Write M and A after the decay of a step and return their names; what falls below the bound is set back."""
    if not step.dtype.type(node.bound):
        raise Unsupported(
            f"its bound {node.bound:g} is 0 in {step.dtype}, so that an accumulator could become 0"
        )
    before, one = step.boundary(f"{name}.A"), step.constant(1, name, "one")
    A = step.add("Mul", [before, alpha], name, "A_decayed")
    low = step.add("Less", [A, step.constant(node.bound, name, "bound")], name, "low")
    M = step.boundary(f"{name}.M")
    rescaled = step.add("Mul", [M, row(step, name, A, "A_decayed")], name, "rescaled")
    M = step.add("Where", [row(step, name, low, "low"), rescaled, M], name, "M_kept")
    A = step.add("Where", [low, one, A], name, "A_kept")
    step.keep(A, f"{name}.A")
    return M, A


def row(step: Step, name: str, x: str, label: str) -> str:
    """Write x (B, n) as rows (B, 1, n) and return its name."""
    return step.widened(x, [1], name, f"{label}_row")


def unit(step: Step, name: str, k: str) -> str:
    """Write keys (B, n) of length 1, 0 for those that are too short, and return their name."""
    squares = step.add("ReduceSumSquare", [k], name, "k_squares", axes=[1])
    length = step.add("Sqrt", [squares], name, "k_length")
    long = step.add("Greater", [length, step.constant(SHORTEST, name, "shortest")], name, "k_long")
    one = step.constant(1, name, "unit")
    scaled = step.add("Div", [k, step.add("Where", [long, length, one], name, "k_by")], name, "k_scaled")
    return step.add("Where", [long, scaled, step.constant(0, name, "none")], name, "k_unit")


def remember(
    node: StoredMemory, step: Step, name: str, stored: str, q: str | None, scale: str | None = None
) -> str:
    """Write what a memory that reached S = stored x scale keeps and gives; return the name of what it gives."""
    S = stored if scale is None else step.add("Mul", [stored, scale], name, "S")
    theta = step.constant(node.threshold, name, "threshold")
    fired = fires(node, step, name, S, "fired")
    spikes = spiking(step, name, S, fired)
    drop = theta if scale is None else step.add("Div", [theta, scale], name, "threshold_stored")
    step.keep(reset(node, step, name, stored, fired, drop), f"{name}.{'S' if scale is None else 'M'}")
    if node.queries is None:
        return step.add("Flatten", [spikes], name, "y", axis=1)
    columns = step.graph.inputs(name)["k"].shape[0]
    assert q is not None
    queries = step.reshaped(q, (columns, node.queries), name, "queries")
    return step.add("Flatten", [step.add("MatMul", [spikes, queries], name, "read")], name, "y", axis=1)


@tally.register
def _(node: StoredMemory, step: Step, name: str) -> dict[str, str]:
    ports, delta = step.ports[name], isinstance(node, DeltaMemory)
    columns = nonzeros(step, name, f"{name}/k_unit" if delta else ports["k"], "k")
    if delta:
        rows = step.constant(step.graph.inputs(name)["v"].shape[0], name, "v_rows")
    else:
        rows = nonzeros(step, name, ports["v"], "v")
    found = {"writes": step.add("Mul", [rows, columns], name, "writes")}
    if node.decay == "scalar":
        low = step.as_number(f"{name}/low", name, "low_number")
        used = step.add("Mul", [low, step.boundary(f"{name}.A")], name, "used")
        found["rescaled"] = nonzeros(step, name, used, "used")
    return found


def nonzeros(step: Step, name: str, x: str, label: str) -> str:
    """Write how many numbers of each row of x (B, n) are not zero and return its name."""
    here = step.cast(x, np.bool_, name, f"{label}_here")
    return step.summed(step.cast(here, step.type_of(x), name, f"{label}_ones"), [1], name, f"{label}_count")
