"""Walk the record of a model's calls, and write what becomes of each: steps of a loop are folded into one."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import AXES, Axes, Builder, Results, Value
from unscan.compiler.frontends.functions import read_function
from unscan.compiler.frontends.modules import read, settle
from unscan.compiler.frontends.recorder import Call, Origin, Recorder, leaves, mapped
from unscan.compiler.frontends.shapes import reshaped
from unscan.compiler.frontends.site import Outcome, Read, Site, Unusable
from unscan.compiler.ir import Dialect
from unscan.compiler.nodes import Output

SHAPING = (nn.Flatten, nn.Unflatten)
"""Modules that only change the shape: they are read by the shapes that go in and come out."""


class Walk:
    """Read the calls that an output depends on.

    Args:
        recorder: the calls.
        hidden: the modules that keep something from call to call, which is then their state.
        to: what they are written to; it has the input, as its first node.
        steps, batch: T and B of the sample.
        shape: the neurons of the input, () for indices.
        static: whether the input is one step, the same at all. What is computed of it alone is so, too: a tensor of a
            step that has no time. The steps of the loop are then told by the calls of what keeps a state.
    """

    def __init__(
        self,
        recorder: Recorder,
        hidden: set[nn.Module],
        to: Builder,
        steps: int,
        batch: int,
        shape: tuple[int, ...],
        *,
        static: bool = False,
    ) -> None:
        self.recorder, self.hidden = recorder, hidden
        self.to, self.steps, self.batch = to, steps, batch
        self.reads: dict[tuple[Call, tuple[int | str, ...]], Read | Unusable] = {
            (recorder.calls[0], ()): Read(("input",), "step" if static else "sequence", shape)
        }
        self.static: list[Call] = []
        self.now: int | None = None
        self.loop: list[list[Call]] = [[] for _ in range(steps)]
        self.wanted: dict[Call, set[int]] = {}
        self.stepping: list[Call] = []

    def output(self, origin: Origin) -> None:
        """Write all that leads to a tensor, and then the output."""
        for call in self._needed(origin):
            self._call(call)
        found = self._at(origin)
        if isinstance(found, Unusable):
            raise Unsupported(f"The forward returns a tensor that cannot be its output: {found.reason}.")
        if found.axes == "step":
            raise Unsupported(
                "The forward returns one step of the sequence, and a graph gives an output at every step; collect all "
                "steps, return torch.stack of them, and decide outside of the model. A model that is one step itself "
                "is traced with stepwise=True."
            )
        if found.axes == "folded":
            raise Unsupported(
                "The forward returns time and batch folded into one axis; unfold them with .unflatten(0, (T, B))."
            )
        self.to.add("output", Output(), found.value)

    def _needed(self, origin: Origin) -> list[Call]:
        """Return the calls that a tensor depends on, in order, and note which results of each are used."""
        needed: set[Call] = set()
        pending = [origin.call]
        self.wanted[origin.call] = {_place(origin)}
        while pending:
            call = pending.pop()
            if call in needed:
                continue
            needed.add(call)
            for i, argument in enumerate((*call.args, *(call.kwargs or {}).values())):
                for leaf in _origins(argument):
                    pending.append(leaf.call)
                    if not (call.is_module and i):
                        self.wanted.setdefault(leaf.call, set()).add(_place(leaf))
        return [call for call in self.recorder.calls if call in needed and call.target is not None]

    def _at(self, origin: Origin) -> Read | Unusable:
        found = self.reads.get((origin.call, origin.path))
        if found is None:
            place = origin.path[0] if origin.path else 0
            return Unusable(
                f"result {place} of {origin.call.name!r} is a state, or has no place in a graph; use its first result"
            )
        return found

    def _call(self, call: Call) -> None:
        time = self._time(call)
        if time is not None:
            self.loop[time].append(call)
        if time:
            self._follow(call, time)
            return
        if time is None and self._repeats(call):
            return
        self.now = time
        outcome = self._module(call) if call.is_module else self._function(call)
        for path, found in _spread(outcome, ()):
            self.reads[call, path] = found

    def _time(self, call: Call) -> int | None:
        """Return the step that a call belongs to; None for one on whole sequences."""
        joins = call.name == "stack" and not call.is_module
        signals = call.args[:1] if call.is_module else (*call.args, *(call.kwargs or {}).values())
        found = [read for leaf in _origins(signals) if isinstance(read := self._at(leaf), Read)]
        times = {read.time for read in found if not is_static(read)}
        if found and not times and self._keeps(call):
            time = sum(earlier.target is call.target for step in self.loop for earlier in step)
            if time >= self.steps:
                raise Unsupported(
                    f"{call.name!r} is called at more steps than the forward returns, {self.steps} ({call.line})."
                )
            return time
        if joins or times <= {None}:
            return None
        if len(times) > 1:
            steps = sorted(-1 if time is None else time for time in times)
            between = "a whole sequence and one step" if -1 in steps else f"steps {steps[0]} and {steps[-1]}"
            raise Unsupported(
                f"{call.name!r} combines {between} ({call.line}): what a step takes from another must be the state of "
                "a module, handed to it at the next step."
            )
        return times.pop()

    def _keeps(self, call: Call) -> bool:
        """Say whether a call is of a module that keeps a state, or is handed one."""
        return call.is_module and (call.target in self.hidden or bool(call.args[1:] or call.kwargs))

    def _repeats(self, call: Call) -> bool:
        """Say whether a call does again what one before did with a static input, and read it as that."""
        signals = [self._at(leaf) for leaf in _origins((call.args, call.kwargs or {}))]
        if not signals or not all(isinstance(read, Read) and is_static(read) for read in signals):
            return False
        for earlier in self.static:
            same = (earlier.is_module, earlier.name, earlier.target) == (
                call.is_module,
                call.name,
                call.target,
            )
            if same and self._alike((earlier.args, earlier.kwargs), (call.args, call.kwargs), 0):
                self.reads |= {
                    (call, path): found for (owner, path), found in self.reads.items() if owner is earlier
                }
                return True
        self.static.append(call)
        return False

    def _function(self, call: Call) -> Outcome:
        name = call.name
        while name in self.recorder.names.values():
            name += ".function"
        args, kwargs = (
            mapped(lambda leaf: self._at(leaf) if isinstance(leaf, Origin) else leaf, given)
            for given in (call.args, dict(call.kwargs or {}))
        )
        return read_function(Site(call, self.to, self.steps, self.batch, name, args, kwargs))

    def _module(self, call: Call) -> Outcome:
        where = f"the module {call.name!r}"
        if not call.args or not isinstance(call.args[0], Origin):
            raise Unsupported(f"{_capital(where)} is not handed a signal first ({call.line}).")
        x = self._at(call.args[0])
        if isinstance(x, Unusable):
            raise Unsupported(f"{_capital(where)} is handed a tensor ({call.line}): {x.reason}.")
        self._start(call, where)
        if isinstance(call.target, SHAPING):
            return reshaped(Site(call, self.to, self.steps, self.batch, call.name, (x,), {}), x)
        settle(call.target)
        before = len(self.to.nodes)
        self.to.axes, self.to.expected = x.axes, ()
        self.to.wanted = frozenset(self.wanted.get(call, {0}))
        try:
            given = read(call.target, self.to, call.name, x.value)
            self._expect(before)
        except Unsupported as fault:
            raise Unsupported(f"{_capital(where)} is {fault} ({call.line}).") from None
        finally:
            self.to.axes = None
        self._once(call, where, before)
        return self._results(call, x, given)

    def _start(self, call: Call, where: str) -> None:
        """Refuse states and options that a module is handed where its sequence, or its first step, starts."""
        for argument in call.args[1:]:
            for leaf in leaves(argument):
                part = leaf is not argument and leaf == 0 if isinstance(leaf, int | float) else False
                state = isinstance(leaf, torch.Tensor) and not bool(leaf.any())
                if not (leaf is None or part or state):
                    what = f"{leaf!r}"
                    if isinstance(leaf, Origin | torch.Tensor):
                        what = "a state that is not zero"
                    raise Unsupported(
                        f"{_capital(where)} is called with more than its input, {what} ({call.line}): every state "
                        "starts at zero, and a loop hands back at each step what the module gave at the last. "
                        "Other options are no part of the deployed graph."
                    )

    def _expect(self, before: int) -> None:
        """Refuse parallel nodes that are handed steps, and step nodes that are handed sequences."""
        if self.to.expected:
            return
        dialects = {node.dialect for node in list(self.to.nodes.values())[before:]}
        if Dialect.PARALLEL in dialects:
            self.to.expects("sequence")
        elif Dialect.ITERATIVE in dialects:
            self.to.expects("step")

    def _once(self, call: Call, where: str, before: int) -> None:
        """Refuse a second call, within one step, of a module whose state is hidden in it."""
        if not any(node.dialect is Dialect.ITERATIVE for node in list(self.to.nodes.values())[before:]):
            return
        earlier = next((other for other in self.stepping if other.target is call.target), None)
        if earlier is not None and call.target in self.hidden:
            raise Unsupported(
                f"{_capital(where)} is called twice ({earlier.line}; {call.line}), and the second call "
                "goes on from the state of the first; make two modules of it."
            )
        self.stepping.append(call)

    def _results(self, call: Call, x: Read, given: Value | Results) -> Outcome:
        values = given.values if isinstance(given, Results) else (given,)
        if isinstance(call.result, Mapping):
            return Unusable(f"{call.name!r} returns a dict, which has no place in a graph")
        several = not isinstance(call.result, torch.Size)
        parts: list[Read | Unusable] = []
        for i, value in enumerate(values):
            shape = call.result if not several else call.result[i] if i < len(call.result) else None
            if value is None or not isinstance(shape, torch.Size):
                parts.append(Unusable(f"result {i} of {call.name!r} has no place in a graph"))
                continue
            lead = self._lead(x.axes)
            if shape[: len(lead)] != lead:
                raise Unsupported(
                    f"The module {call.name!r} makes {shape} of {AXES[x.axes]} with {lead} first ({call.line}): time "
                    "and batch must stay in front."
                )
            parts.append(Read(value, x.axes, tuple(shape[len(lead) :]), self.now))
        return tuple(parts) if several else parts[0]

    def _lead(self, axes: Axes) -> tuple[int, ...]:
        leads: dict[Axes, tuple[int, ...]] = {
            "sequence": (self.steps, self.batch),
            "folded": (self.steps * self.batch,),
            "step": (self.batch,),
        }
        return leads[axes]

    def _follow(self, call: Call, time: int) -> None:
        """Demand that a call of a later step is that of the first step, with states of the step before."""
        place = len(self.loop[time]) - 1
        first = self.loop[0][place] if place < len(self.loop[0]) else None
        if first is None or (first.is_module, first.name) != (call.is_module, call.name):
            wanted = "nothing more" if first is None else f"{first.name!r} ({first.line})"
            raise Unsupported(
                f"The steps of the loop differ: step {time} calls {call.name!r} ({call.line}) where step 0 calls "
                f"{wanted}. Write the loop so that every step does the same, and return torch.stack of all steps."
            )
        previous = self.loop[time - 1][place] if place < len(self.loop[time - 1]) else first
        if call.is_module:
            same = self._alike(first.args[:1], call.args[:1], time)
            self._states(call, previous, first)
        else:
            same = self._alike((first.args, first.kwargs), (call.args, call.kwargs), time)
        if not same:
            raise Unsupported(
                f"The steps of the loop differ: {call.name!r} takes something else at step {time} than at step 0 "
                f"({call.line}). What a step takes from the one before must be the state of a module."
            )
        for (owner, path), found in list(self.reads.items()):
            if owner is first:
                later = (
                    found if isinstance(found, Unusable) else Read(found.value, found.axes, found.shape, time)
                )
                self.reads[call, path] = later

    def _states(self, call: Call, previous: Call, first: Call) -> None:
        """Demand that every state that goes into a call is what the same call gave at the step before."""
        states = call.args[1:]
        given = [i for i, state in enumerate(states) if any(True for _ in _origins(state))]
        if not given:
            self._start(call, f"the module {call.name!r}")
        before = [i for i, state in enumerate(previous.args[1:]) if any(True for _ in _origins(state))]
        if given != before and previous is not first:
            raise Unsupported(
                f"The steps of the loop differ: the module {call.name!r} is not handed the same states at every step "
                f"({call.line})."
            )
        anew = call.target not in self.hidden or any(leaf is not None for leaf in leaves(states))
        if not given and first in self.stepping and anew:
            raise Unsupported(
                f"The module {call.name!r} starts anew at every step ({call.line}): it keeps no state itself, and is "
                "not handed the one that it gave at the step before."
            )
        count = 1 if isinstance(previous.result, torch.Size) else len(previous.result)
        shift = count - states_of(call.target, len(states))
        for i in given:
            place = i + shift
            for leaf in _origins(states[i]):
                if leaf.call is not previous or _place(leaf) != place:
                    got = f"result {_place(leaf)} of {leaf.call.name!r} ({leaf.call.line})"
                    raise Unsupported(
                        f"State {i} of the module {call.name!r} is {got}, wanted result {place} of the same module at "
                        f"the step before ({call.line})."
                    )

    def _alike(self, first: Any, other: Any, time: int) -> bool:
        ours, theirs = list(leaves(first)), list(leaves(other))
        if len(ours) != len(theirs):
            return False
        for a, b in zip(ours, theirs, strict=True):
            if isinstance(a, Origin) and isinstance(b, Origin):
                mine, his = self._at(a), self._at(b)
                if isinstance(mine, Read) and isinstance(his, Read):
                    if (mine.value, mine.axes, mine.shape) != (his.value, his.axes, his.shape):
                        return False
                    if his.time != (None if mine.time is None else time):
                        return False
                elif mine != his:
                    return False
            elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
                if a is not b and not (a.shape == b.shape and bool((a == b).all())):
                    return False
            elif type(a) is not type(b) or (a is not b and a != b):
                return False
        return True


def is_static(read: Read) -> bool:
    """Say whether a tensor is the same at every step."""
    return read.axes == "step" and read.time is None


def states_of(module: nn.Module | None, handed: int) -> int:
    """Return how many states a module's forward takes behind its input; as many as it is handed where that is open."""
    parameters = [] if module is None else list(inspect.signature(module.forward).parameters.values())[1:]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return handed
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _origins(value: Any) -> Iterator[Origin]:
    return (leaf for leaf in leaves(value) if isinstance(leaf, Origin))


def _place(origin: Origin) -> int:
    return origin.path[0] if origin.path and isinstance(origin.path[0], int) else 0


def _spread(
    outcome: Outcome, path: tuple[int | str, ...]
) -> Iterator[tuple[tuple[int | str, ...], Read | Unusable]]:
    if isinstance(outcome, tuple):
        for i, part in enumerate(outcome):
            yield from _spread(part, (*path, i))
    else:
        yield path, outcome


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
