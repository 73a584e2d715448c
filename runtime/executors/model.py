"""Run the trained torch module itself, and listen to its neurons: the execution that every other must equal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array, Graph
from unscan.runtime.executors.base import INTEGRATING, SPIKING, Execution, check_input

if TYPE_CHECKING:
    from torch import nn


class Model:
    """The parallel form as trained, evaluated on whole sequences in the number format of its parameters.

    Args:
        module: the trained module.
        graph: its graph (as traced, or compiled from it), whose integrating nodes are named as its modules.

    Raises:
        InvalidInput: the graph has neurons that the module has not.
    """

    def __init__(self, module: nn.Module, graph: Graph) -> None:
        self.module, self.graph = module, graph
        modules = dict(module.named_modules())
        missing = [name for name in graph.of(*INTEGRATING) if name not in modules]
        if missing:
            raise InvalidInput(
                f"The model has no module named {', '.join(missing)}, which the graph has as neurons: the graph was "
                "compiled from another model. Compile this model again."
            )
        self._neurons = {modules[name]: name for name in graph.of(*INTEGRATING)}

    def run(self, x: Array, state: None = None, *, record: bool = True) -> Execution:
        """Run x (T, B, ...) from a zero state."""
        import torch

        if state is not None:
            raise InvalidInput(
                "The parallel form starts from a zero state; carry states with another executor."
            )
        dtype = next((p.dtype for p in self.module.parameters()), torch.float32)
        sequence = torch.as_tensor(np.ascontiguousarray(check_input(self.graph, x))).to(dtype)
        spikes: dict[str, Array] = {}
        membranes: dict[str, Array] = {}

        def listen(neuron: nn.Module, arguments: tuple[Any, ...], given: torch.Tensor) -> None:
            name = self._neurons[neuron]
            if isinstance(self.graph.nodes[name], SPIKING):
                membranes[name] = neuron.forward(*arguments, return_membrane=True)[1].numpy()
                spikes[name] = (given > 0).numpy()
            else:
                membranes[name] = given.numpy()

        hooks = [neuron.register_forward_hook(listen) for neuron in self._neurons if record]
        training = self.module.training
        try:
            self.module.eval()
            with torch.no_grad():
                outputs = self.module(sequence).numpy()
        finally:
            self.module.train(training)
            for hook in hooks:
                hook.remove()
        return Execution(outputs=outputs, spikes=spikes, membranes=membranes, state={}, counts=None)
