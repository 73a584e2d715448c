"""Run the trained torch module itself, and listen to its neurons: the execution that every other must equal."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph, Kind
from unscan.compiler.nodes import SPIKING, Input, Memory, Threshold
from unscan.runtime.executors.base import Execution, check_input

if TYPE_CHECKING:
    import torch
    from torch import nn

Calls = list[tuple[Array, Array | None]]
"""What each call of a module gave: its first result, and its membranes where it shows them."""


class Model:
    """The form as trained, evaluated on whole sequences in the number format of its parameters.

    A model whose forward is one step is called step by step. Hidden states start at rest, and are left as they were.
    Our own layers show their membranes, and those of snnTorch what they compare with their threshold; of a layer of
    others the spikes alone are heard, where they are what it returns.

    Args:
        module: the trained module.
        graph: its graph (as traced, or compiled from it), whose neurons are named as its modules.

    Attributes:
        unheard: the nodes with membranes of which nothing can be heard; an execution leaves them out.

    Raises:
        InvalidInput: the graph has neurons that the module has not.
    """

    def __init__(self, module: nn.Module, graph: Graph) -> None:
        from unscan.compiler.frontends.trace import as_container

        self.module, self.graph = as_container(module), graph
        modules = dict(self.module.named_modules())
        self._heard: dict[str, tuple[nn.Module, int]] = {}
        unheard, missing = [], []
        for name in graph.membranes():
            found, call = _module_of(name, modules)
            if found is not None and (shows(found) or fires(found) or _returns_spikes(graph, name)):
                self._heard[name] = found, call
            elif found is not None or _within(name, modules) or isinstance(graph.nodes[name], Threshold):
                unheard.append(name)
            else:
                missing.append(name)
        if missing:
            raise InvalidInput(
                f"The model has no module named {', '.join(missing)}, which the graph has as neurons: the graph was "
                "compiled from another model. Compile this model again."
            )
        self.unheard = tuple(unheard)

    def run(self, x: Array, state: None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...) from a zero state."""
        import torch

        from unscan.compiler.frontends.modules import rest
        from unscan.compiler.frontends.trace import untouched

        if state is not None:
            raise InvalidInput(
                "The parallel form starts from a zero state; carry states with another executor."
            )
        sequence = self._sequence(x)
        calls: dict[nn.Module, Calls] = {module: [] for module, _ in self._heard.values()} if record else {}
        with untouched(self.module), torch.no_grad(), ExitStack() as listened:
            rest(self.module)
            for module in self.module.modules():
                listened.enter_context(widening(module))
            for module, gave in calls.items():
                listened.enter_context(listening(module, gave))
            outputs = self._outputs(sequence)
        spikes: dict[str, Array] = {}
        membranes: dict[str, Array] = {}
        for name, (module, number) in self._heard.items() if record else ():
            self._hear(name, calls[module], number, sequence.shape[:2], spikes, membranes)
        return Execution(outputs=outputs, spikes=spikes, membranes=membranes, state={}, counts=None)

    def _sequence(self, x: Array) -> torch.Tensor:
        import torch

        from unscan.compiler.frontends.modules import typical

        x = np.array(check_input(self.graph, x))
        like = typical(self.module)
        (entry,) = self.graph.of(Input)
        if self.graph.signals[entry].kind is Kind.INDEX:
            return torch.as_tensor(x[..., 0].astype(np.int64), device=like.device)
        return torch.as_tensor(x).to(like)

    def _outputs(self, sequence: torch.Tensor) -> Array:
        import torch

        from unscan.compiler.frontends.trace import Stepwise

        run = Stepwise(self.module) if self.graph.meta.get("stepwise") else self.module
        given = run(self._step(sequence) if self.graph.meta.get("static") else sequence)
        if not isinstance(given, torch.Tensor):
            parts = list(given.values()) if isinstance(given, dict) else given
            given = parts[self.graph.meta.get("output", 0)]
        if len(given) != len(sequence):
            raise InvalidInput(
                f"The model makes {len(given)} steps by itself, and the input has {len(sequence)}; give one of "
                f"{len(given)} steps."
            )
        return _numbers(given)

    def _step(self, sequence: torch.Tensor) -> torch.Tensor:
        """Return the one step that a sequence repeats."""
        if not bool((sequence == sequence[0]).all()):
            raise InvalidInput(
                "The model takes one step and repeats it by itself, and the steps of the input differ; repeat one "
                "along time, as numpy.repeat(x[None], steps, axis=0) does."
            )
        return sequence[0]

    def _hear(
        self,
        name: str,
        gave: Calls,
        number: int,
        sequence: tuple[int, ...],
        spikes: dict[str, Array],
        membranes: dict[str, Array],
    ) -> None:
        """Keep what a module gave for a node, if it is in the node's shape; else the node is unheard."""
        node, shape = self.graph.nodes[name], self.graph.membranes()[name]
        wanted = (*sequence, *shape)
        found = self._found(name, gave, number, wanted)
        if found is None:
            self.unheard = (*self.unheard, *({name} - {*self.unheard}))
            return
        result, membrane = found
        if membrane is not None:
            membranes[name] = membrane.reshape(wanted)
        if isinstance(node, Memory) and membrane is not None:
            level = node.threshold.astype(membrane.dtype)
            spikes[name] = membranes[name] >= level if node.fires == ">=" else membranes[name] > level
        elif isinstance(node, SPIKING):
            spikes[name] = result.reshape(wanted) > 0

    def _found(
        self, name: str, gave: Calls, number: int, wanted: tuple[int, ...]
    ) -> tuple[Array, Array | None] | None:
        """Return what the calls of a module gave for a node, over the sequence; None where it is in no shape of it."""

        def telling(call: tuple[Array, Array | None]) -> Array | None:
            result, membrane = call
            if membrane is not None:
                return membrane
            return result if _returns_spikes(self.graph, name) else None

        size = int(np.prod(wanted))
        shown = [telling(call) for call in gave]
        if number < len(gave) and (told := shown[number]) is not None and told.size == size:
            return gave[number]
        steps = [told for told in shown if told is not None]
        if (
            number
            or len(gave) != wanted[0]
            or [told.size * wanted[0] for told in steps] != [size] * wanted[0]
        ):
            return None
        membranes = [membrane for _, membrane in gave if membrane is not None]
        return np.stack([result for result, _ in gave]), np.stack(membranes) if membranes else None


def shows(module: nn.Module) -> bool:
    """Say whether a layer is one of ours, which shows its membranes: when asked for them, or as what it returns."""
    return _of(module, "unscan") and (
        getattr(module, "gives_membrane", False)
        or "return_membrane" in inspect.signature(module.forward).parameters
    )


def fires(module: nn.Module) -> bool:
    """Say whether a layer is one of snnTorch, which compares membranes with its threshold in a method of that name."""
    return _of(module, "snntorch") and hasattr(module, "fire")


def _of(module: nn.Module, package: str) -> bool:
    return any(kind.__module__.partition(".")[0] == package for kind in type(module).__mro__)


@contextmanager
def listening(module: nn.Module, gave: Calls) -> Iterator[None]:
    """Note what every call of a module gives, while the context lasts."""
    import torch

    forward: Callable[..., Any] = module.forward
    asked = shows(module) and "return_membrane" in inspect.signature(forward).parameters
    compared: list[Array] = []
    fire: Any = getattr(module, "fire", None)

    def firing(membrane: torch.Tensor) -> Any:
        compared.append(_numbers(membrane))
        return fire(membrane)

    def listened(*args: Any, **kwargs: Any) -> Any:
        if not asked:
            compared.clear()
            result = forward(*args, **kwargs)
            first = _numbers(result if isinstance(result, torch.Tensor) else result[0])
            membranes = [first] if shows(module) else compared
            gave.append((first, membranes[0].copy() if len(membranes) == 1 else None))
            return result
        wanted = kwargs.pop("return_membrane", False)
        first, membrane, *others = forward(*args, return_membrane=True, **kwargs)
        gave.append((_numbers(first), _numbers(membrane)))
        answer = (first, *((membrane,) if wanted else ()), *others)
        return answer if len(answer) > 1 else first

    changed: Any = module
    changed.forward = listened
    if fires(module):
        changed.fire = firing
    try:
        yield
    finally:
        del changed.forward
        if fires(module):
            del changed.fire


@contextmanager
def widening(module: nn.Module) -> Iterator[None]:
    """Hand a layer its input in the format of its weights: many frameworks give spikes in float32 whatever they got."""
    from unscan.compiler.frontends.recorder import mapped, widened

    if not any(True for _ in module.parameters(recurse=False)):
        yield
        return
    handle = module.register_forward_pre_hook(lambda layer, args: mapped(widened(layer), args))
    try:
        yield
    finally:
        handle.remove()


def _module_of(name: str, modules: dict[str, nn.Module]) -> tuple[nn.Module | None, int]:
    """Return the module that a node is named after, and which of its calls: `neuron_2` is the second of `neuron`."""
    if name in modules:
        return modules[name], 0
    again = re.fullmatch(r"(.+)_(\d+)", name)
    if again and again[1] in modules:
        return modules[again[1]], int(again[2]) - 1
    return None, 0


def _within(name: str, modules: dict[str, nn.Module]) -> bool:
    parts = name.split(".")
    return any(".".join(parts[:count]) in modules for count in range(1, len(parts)))


def _returns_spikes(graph: Graph, name: str) -> bool:
    node = graph.nodes[name]
    return isinstance(node, SPIKING) and not (isinstance(node, Memory) and node.queries is not None)


def _numbers(tensor: torch.Tensor) -> Array:
    return tensor.detach().cpu().numpy()
