"""Count a network's operations with NeuroBench's own harness: NETWORK.npz OUTPUT.json (see `counted_network`)."""

import contextlib
import io
import json
import sys
import warnings

import torch

warnings.simplefilter("ignore")
with contextlib.redirect_stdout(io.StringIO()):
    from counted_network import opened
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

given, result = sys.argv[1:]
network, x = opened(given)


class Loader(list):
    """What the harness reads of a data loader."""

    dataset = range(len(x))


with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
    loader = Loader([(x, torch.zeros(len(x), dtype=torch.long))])
    benchmark = Benchmark(TorchModel(network), loader, [], [], [[], [SynapticOperations]])
    found = benchmark.run(quiet=True)["SynapticOperations"]
with open(result, "w") as file:
    json.dump({key: value * len(x) for key, value in found.items()}, file)
