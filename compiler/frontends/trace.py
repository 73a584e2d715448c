"""Read a torch model: it is run on a small sample, and what it calls on what becomes a graph.

A model takes sequences (T, B, ...) and is made of modules that do too; or it loops over the steps, calling modules
that take one step and their state, and stacks what comes out; or it is handed one step, as an image, and loops over
that (`static`); or it is one step itself (`stepwise`). A loop is read as one step, once every step is seen to be wired
like the first and every state to come from the step before.

The model is run twice, on samples of different T, B and numbers, and must give the same graph: what depends on the
length, the batch or the numbers is no model of steps. Nothing is skipped but what does nothing at inference (Dropout,
Identity).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from unscan.compiler.errors import InvalidInput, UnscanError, Unsupported
from unscan.compiler.frontends.builder import Builder, Value
from unscan.compiler.frontends.modules import RULES, load_rules, rest, rule_class, typical
from unscan.compiler.frontends.recorder import Origin, Recorder, Watched, first_line, leaves
from unscan.compiler.frontends.walk import Walk
from unscan.compiler.ir import Array, Graph, Kind, Node
from unscan.compiler.nodes import Input
from unscan.compiler.spec import check

SAMPLES = ((2, 3), (3, 2))
"""T and B of the two runs."""


def trace(
    model: nn.Module,
    sample: torch.Tensor | Array,
    *,
    kind: Kind | str | None = None,
    stepwise: bool = False,
    static: bool = False,
    steps: int | None = None,
    output: int | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Graph:
    """Read a torch module into a graph: parallel where its modules take sequences, iterative where they step.

    Args:
        model: takes (T, B, ...) and returns (T, B, ...), or with `stepwise` (B, ...) and (B, ...), its states hidden
            in its modules. Numbers are read as they are used at inference; the model is left as it was.
        sample: an input (T, B, ...), or indices (T, B) or (T, B, 1), for the shape of a step; also where `stepwise`.
        kind: what the input carries, "spike" (0 or 1), "graded", "real" or "index"; None: spike where the sample is
            bool, index where it holds whole numbers of shape (T, B), else real.
        stepwise: whether the forward is one step, and is called once for each.
        static: whether the forward takes one step (B, ...) and makes a fixed number of steps of it, as of an image. The
            graph takes sequences all the same: of that many equal steps, to be the model.
        steps: how many the forward takes of a sequence, where it is a number of its own.
        output: which one is the output where the forward returns several; None: the first, if it is a tuple.
        meta: facts to keep with the graph. `stepwise`, `static`, `steps` and `output` are added to them where they
            were needed.

    Raises:
        Unsupported: a module or function that has no node, by name and line of the user's file; steps of a loop that
            differ.
        InvalidInput: a sample that is no (T, B, ...) sequence, a forward that depends on its input's values, or options
            that exclude each other.
        InvalidGraph: shapes that do not fit, or parameters that are not finite, by name.
    """
    shape, kind = _step_shape(sample, kind)
    load_rules(model)
    whole = as_container(model)
    run: nn.Module = Stepwise(whole) if stepwise else whole
    wide = typical(model).dtype == torch.float64 or any(p.dtype == torch.float64 for p in model.parameters())
    if stepwise + static + (steps is not None) > 1:
        raise InvalidInput(
            "A forward is one step, or repeats one, or takes a number of steps; say one of these."
        )
    options = {"stepwise": stepwise or None, "static": static or None, "steps": steps, "output": output}
    known: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    first: Graph | None = None
    for length, batch in SAMPLES:
        length = length if steps is None else steps
        to = _Comparing(first) if first else Builder(np.float64 if wide else np.float32)
        x = _sample(whole, (length, batch, *shape), kind, zero=first is None)
        x = x[0] if static else x
        with untouched(whole) as changed:
            rest(whole)
            recorder = Recorder(whole, is_leaf)
            watched = recorder.input(x)
            result = _recorded(run, recorder, watched)
            _refuse_kept(whole)
            called = {call.target for call in recorder.calls if call.is_module}
            hidden = {module for module in called if any(changed(part) for part in module.modules())}
        origin = _chosen(result, output, type(model).__name__)
        length = origin.shape[0] if static else length
        to.add("input", Input(shape or (1,), kind))
        walk = Walk(recorder, hidden, to, length, batch, shape, static=static)
        walk.output(origin)
        if isinstance(to, _Comparing):
            to.finish()
        else:
            first = to.graph(meta={**known, **(meta or {})})
    assert first is not None
    return check(first, where=f"The traced {type(model).__name__}")


def as_container(model: nn.Module) -> nn.Module:
    """Return a model whose modules have names: one that is a single layer is put into a Sequential, as "0"."""
    load_rules(model)
    return nn.Sequential(model) if is_leaf(model) else model


def is_leaf(module: nn.Module) -> bool:
    """Say whether a module is read as a whole, by its rule, and not by what its forward calls.

    A class of others that has a rule is, unless a subclass of it has a forward of its own; so are the modules of
    torch.nn and those neurons that have no rule, to be refused by name.
    """
    if rule_class(module) is not None:
        return True
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    package = type(module).__module__.partition(".")[0]
    if isinstance(module, containers):
        return False
    if type(module).__module__.startswith("torch.nn"):
        return True
    return package in RULES and not any(True for _ in module.children())


class Stepwise(nn.Module):
    """Call a model that is one step on every step of a sequence."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Any:
        """Map x (T, B, ...) to what the model gives, stacked."""
        given = [self.model(x[step]) for step in range(x.shape[0])]
        if isinstance(given[0], tuple | list):
            return tuple(
                torch.stack(parts) for parts in zip(*given, strict=True) if isinstance(parts[0], torch.Tensor)
            )
        return torch.stack(given)


def _step_shape(sample: torch.Tensor | Array, kind: Kind | str | None) -> tuple[tuple[int, ...], Kind]:
    shape = tuple(np.shape(sample))
    whole_numbers = str(sample.dtype).rpartition(".")[2].startswith(("int", "uint"))
    if kind is None:
        kind = Kind.REAL
        if str(sample.dtype).endswith("bool"):
            kind = Kind.SPIKE
        elif whole_numbers and len(shape) == 2:
            kind = Kind.INDEX
    kind = Kind(kind)
    if kind is Kind.INDEX:
        if shape[2:] not in ((), (1,)) or len(shape) < 2:
            raise InvalidInput(
                f"The sample of indices has shape {shape}, wanted (T, B): one whole number a step."
            )
        return (), kind
    if len(shape) < 3:
        raise InvalidInput(
            f"The sample has shape {shape}, wanted (T, B, ...): time first, then batch, then at least one axis of "
            "neurons; add the missing axes with [:, None] or [..., None]. Indices of an embedding are whole numbers, "
            "(T, B)."
        )
    return shape[2:], kind


def _sample(model: nn.Module, shape: tuple[int, ...], kind: Kind, *, zero: bool) -> torch.Tensor:
    """Return an input of a shape: zeros, or numbers that the kind allows; indices are 0, which every table has."""
    like = typical(model)
    if kind is Kind.INDEX:
        return torch.zeros(shape, dtype=torch.int64, device=like.device)
    numbers = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if kind is Kind.SPIKE:
        numbers = (numbers > 0).float()
    return (numbers * (0 if zero else 1)).to(like)


def _recorded(model: nn.Module, recorder: Recorder, x: Watched) -> Any:
    try:
        with recorder.recording():
            return model(x)
    except UnscanError:
        raise
    except Exception as fault:
        where = _users_line(fault)
        raise InvalidInput(
            f"The forward of {type(model).__name__} fails on a sample of shape {x.origin.shape}, (T, B, ...){where}: "
            f"{type(fault).__name__}: {first_line(fault)}. It is called with the input alone; other arguments of it "
            "need defaults, and states that a call before has left must be reset."
        ) from fault


def _users_line(fault: BaseException) -> str:
    trace, line = fault.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if "site-packages" not in file and file not in (__file__, Recorder.input.__code__.co_filename):
            line = f" (line {trace.tb_lineno} of {file.rpartition('/')[2]})"
        trace = trace.tb_next
    return line


def _chosen(result: Any, output: int | None, model: str) -> Origin:
    """Return the output among what a forward returned."""
    parts = list(result.values()) if isinstance(result, Mapping) else result
    remedy = "return it alone, or say which one it is with output=0, 1, ..."
    if isinstance(parts, tuple | list):
        if output is None and not isinstance(parts, tuple):
            raise Unsupported(
                f"The forward of {model} returns a {type(result).__name__}; torch.stack it, or {remedy}."
            )
        place = 0 if output is None else output
        if not -len(parts) <= place < len(parts):
            raise InvalidInput(f"The forward of {model} returns {len(parts)} things, and output is {output}.")
        parts = parts[place]
    elif output is not None:
        raise InvalidInput(f"The forward of {model} returns one thing, and output is {output}; leave it out.")
    if isinstance(parts, Watched):
        return parts.origin
    if isinstance(parts, tuple | list):
        raise Unsupported(
            f"The forward of {model} gives a {type(parts).__name__} as its output; torch.stack what a loop over the "
            f"steps collects, or {remedy}."
        )
    raise Unsupported(
        f"The forward of {model} returns {type(parts).__name__}, wanted a tensor that depends on the input; {remedy}."
    )


@contextmanager
def untouched(model: nn.Module) -> Iterator[Callable[[nn.Module], bool]]:
    """Put a model into evaluation, and leave it as it was: what its modules keep between calls is put back.

    What is given says of a module whether it keeps something else by now.
    """
    kept: dict[nn.Module, tuple[dict[str, Any], list[tuple[Any, Any]]]] = {}
    for module in model.modules():
        inner = [
            (value, value.copy()) for value in vars(module).values() if isinstance(value, dict | list | set)
        ]
        kept[module] = (dict(vars(module)), inner)
    training = {module: module.training for module in kept}
    model.eval()

    def changed(module: nn.Module) -> bool:
        attributes, inner = kept[module]
        pairs = [(vars(module), attributes), *(pair for pair in inner if isinstance(pair[0], dict))]
        return any(
            now.keys() != was.keys() or any(now[key] is not was[key] for key in now) for now, was in pairs
        )

    for module in kept:
        kept[module][0]["training"] = False
    try:
        yield changed
    finally:
        for module, (attributes, inner) in kept.items():
            vars(module).clear()
            vars(module).update(attributes, training=training[module])
            for value, before in inner:
                value.clear()
                value.extend(before) if isinstance(value, list) else value.update(before)


def _refuse_kept(model: nn.Module) -> None:
    """Refuse a module that is read by what it calls, and has kept a tensor of the run: a state by hand."""
    for name, module in model.named_modules():
        if is_leaf(module):
            continue
        for attribute, value in (*vars(module).items(), *module._buffers.items()):
            if any(
                isinstance(leaf, Watched) for leaf in leaves(value if isinstance(value, dict) else (value,))
            ):
                raise Unsupported(
                    f"The module {name or type(model).__name__!r} keeps a tensor in its attribute {attribute!r}, a "
                    "state that no node holds; use a neuron that has it, or return the tensor."
                )


class _Comparing(Builder):
    """A builder that must come to the nodes and edges of a graph; arrays are compared and let go."""

    def __init__(self, first: Graph) -> None:
        super().__init__(first.dtype)
        self.first = first

    def add(self, name: str, node: Node, *values: Value, **ports: Value) -> Value:
        """Add a node if it is one that the first run came to."""
        given = super().add(name, node, *values, **ports)
        same = self.first.nodes.get(given[0])
        if same is None or not _equal(same, node):
            raise self.differs(f"{type(node).__name__} {given[0]!r}")
        self.nodes[given[0]] = same
        return given

    def finish(self) -> None:
        """Raise Unsupported unless the first run came to the same edges."""
        for edge in {*self.edges} ^ {*self.first.edges}:
            raise self.differs(f"What feeds {edge.target!r}")

    def differs(self, what: str) -> Unsupported:
        """Return the error for something that the two runs do not agree on."""
        one, other = (f"{steps} steps and {batch} samples" for steps, batch in SAMPLES)
        return Unsupported(
            f"{what} comes out different for sequences of {one} and of {other}: the forward depends on the length, the "
            "batch or the numbers of its input, and a step must not."
        )


def _equal(first: Node, second: Node) -> bool:
    ours, theirs = dict(first.arrays()), dict(second.arrays())
    return (
        type(first) is type(second)
        and first.settings() == second.settings()
        and ours.keys() == theirs.keys()
        and all(_same_bits(ours[name], theirs[name]) for name in ours)
    )


def _same_bits(first: Array, second: Array) -> bool:
    bits = f"u{first.itemsize}"
    return first.dtype == second.dtype and np.array_equal(first.view(bits), second.view(bits))
