"""Measure the memory of one training pass at T up to 16 384, neuron by neuron.

    unscan bench memory [--quick] [--json FILE]

Each pass runs in a process of its own; shown is by how many MB the process grows at its peak, beyond the inputs,
and how that grows from half the length: 2 is linear. Layers of C = 128 channels and B = 4 sequences; matrix
memories of d = n = 64 with one query a step, B = 2, whose (T, B, d, n) tensor would take 537 MB at T = 16 384.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from unscan.benchmarks.measuring import Pass, memory, options, screen, trained, write
from unscan.trainer import neurons

LENGTHS = (4096, 8192, 16384)
BATCH, CHANNELS = 4, 128
SIDE, INPUTS = 64, 32

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Leaky": lambda: neurons.Leaky(CHANNELS),
    "StateLeaky": lambda: neurons.StateLeaky(CHANNELS),
    "AnnealedLeaky, 1 round": lambda: neurons.AnnealedLeaky(CHANNELS, rounds=1),
    "SurrogateLeaky (SDN)": lambda: neurons.SurrogateLeaky(CHANNELS),
    "Synaptic": lambda: neurons.Synaptic(CHANNELS),
    "AdaptiveLeaky": lambda: neurons.AdaptiveLeaky(CHANNELS),
    "SlidingPSN": lambda: neurons.SlidingPSN(CHANNELS),
    "StochasticLeaky": lambda: neurons.StochasticLeaky(CHANNELS),
    "S4D, 64 states": lambda: neurons.S4D(CHANNELS, 64),
    "SpikingSSM, 64 states": lambda: neurons.SpikingSSM(CHANNELS, 64),
    "AssociativeLeaky, one query": lambda: neurons.AssociativeLeaky(INPUTS, SIDE, SIDE, queries=1),
    "DeltaLeaky, one query": lambda: neurons.DeltaLeaky(INPUTS, SIDE, SIDE, queries=1),
}
MATRIX = ("AssociativeLeaky", "DeltaLeaky")


def prepared(name: str, steps: int) -> Pass:
    """Make the inputs of a layer, compile its kernels on a short sequence, and return its training pass."""
    layer: Any = LAYERS[name]()
    batch, width = (2, INPUTS) if name.startswith(MATRIX) else (BATCH, CHANNELS)

    def one(length: int) -> Pass:
        x = torch.randn(length, batch, width, requires_grad=True)
        return trained(
            layer, [x], torch.ones_like(_without_graph(layer, x[:2])[:1]).expand(length, batch, -1)
        )

    one(256)()
    return one(steps)


def _without_graph(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = layer(x)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the measurement and print it."""
    given = options(__doc__, quick="short sequences").parse_args(arguments)
    console = screen()
    lengths = (256, 512) if given.quick else LENGTHS
    table = Table(title="Growth of the process in one training pass, MB (times half the length's)")
    table.add_column("layer")
    for steps in lengths:
        table.add_column(f"T = {steps}", justify="right")
    results: dict[str, list[float]] = {}
    for name in LAYERS:
        console.print(f"measuring {name} ...", style="dim")
        found = results[name] = [memory(prepared, name, steps) / 1e6 for steps in lengths]
        growth = [f"  ({b / a:.2f})" if a > 0 else "" for a, b in pairwise(found)]
        table.add_row(name, *(f"{mb:,.0f}{more}" for mb, more in zip(found, ["", *growth], strict=True)))
    console.print(table)
    write(given.json, lengths=lengths, megabytes=results)


if __name__ == "__main__":
    main()
