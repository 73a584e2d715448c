"""Count a network's operations with NeuroBench's own harness: NETWORK.npz OUTPUT.json.

The archive holds `layers`, JSON of {"kind": "linear" | "lif" | "li", ...}, the arrays that they name, and x (T, B, n).
Everything runs in float64, so that the spikes are those of the reference.
"""

import contextlib
import io
import json
import sys
import warnings

import numpy as np
import torch

warnings.simplefilter("ignore")
torch.set_num_threads(1)
with contextlib.redirect_stdout(io.StringIO()):
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

given, result = sys.argv[1:]
archive = np.load(given)
layers = json.loads(str(archive["layers"]))
x = torch.from_numpy(archive["x"]).double()


class Network(torch.nn.Module):
    """Linear layers and, between them, membranes carried over the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.linears = torch.nn.ModuleDict()
        for i, layer in enumerate(layers):
            if layer["kind"] == "linear":
                weight = torch.from_numpy(archive[layer["weight"]]).double()
                linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in layer).double()
                linear.weight.data = weight
                if "bias" in layer:
                    linear.bias.data = torch.from_numpy(archive[layer["bias"]]).double()
                self.linears[str(i)] = linear

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Run (B, T, n) and return the last output."""
        membranes: dict[int, torch.Tensor] = {}
        for value in batch.unbind(1):
            for i, layer in enumerate(layers):
                if layer["kind"] == "linear":
                    value = self.linears[str(i)](value)
                    continue
                u = layer["beta"] * membranes.get(i, torch.zeros_like(value)) + value
                value = u
                if layer["kind"] == "lif":
                    value = (u >= layer["threshold"]).double()
                    u = u - layer["threshold"] * value if layer["reset"] == "subtract" else u * (1 - value)
                membranes[i] = u
        return value


labels = torch.zeros(x.shape[1], dtype=torch.long)
loader = [(x.transpose(0, 1), labels)]


class Loader(list):
    """What the harness reads of a data loader."""

    dataset = range(x.shape[1])


with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
    benchmark = Benchmark(TorchModel(Network()), Loader(loader), [], [], [[], [SynapticOperations]])
    found = benchmark.run(quiet=True)["SynapticOperations"]
with open(result, "w") as file:
    json.dump({key: value * x.shape[1] for key, value in found.items()}, file)
