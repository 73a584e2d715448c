"""A snnTorch network as its users write it, compiled and run event by event: associative recall.

    python examples/associative_recall.py --weights associative_recall_gen2.pt

compiles this very file with the weights of a checkpoint, and prints how many bits come back right for N = 2 to 6
pairs; without one the weights are random, and bits come right by chance. The command line does the first part alone:

    unscan compile examples/associative_recall.py:RecallNet --weights associative_recall_gen2.pt --shape 9 \
        --kind spike -o recall.unscan
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import snntorch
import torch
from torch import Tensor, nn

BITS = 8


class RecallNet(nn.Module):
    """Two associative memories of 16 x 16 neurons, with linear layers before, between and behind them."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.in_proj = nn.Linear(BITS + 1, width)
        self.gen2_1 = snntorch.AssociativeLeaky.from_num_spiking_neurons(width, width)
        self.mid = nn.Sequential(nn.Linear(width, width), nn.ReLU())
        self.gen2_2 = snntorch.AssociativeLeaky.from_num_spiking_neurons(width, width)
        self.out_proj = nn.Linear(width, BITS)

    def forward(self, x: Tensor) -> Tensor:
        """Map sequences (T, B, 9) to the probability of each bit, (T, B, 8)."""
        hidden = self.mid(self.gen2_1(self.in_proj(x)))
        return torch.sigmoid(self.out_proj(self.gen2_2(hidden)))


def sequences(pairs: int, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw sequences x (2 N + 2, count, 9) and the bits (count, 8) that are asked for.

    Rows 2i and 2i + 1 hold key i and its value, random bits in columns 0 to 7; row 2N is a 1 in column 8 alone; row
    2N + 1 holds one of the keys, and its value is asked for at that last row.
    """
    draws = np.random.default_rng(seed)
    vectors = draws.integers(0, 2, (2 * pairs, count, BITS))
    asked, samples = draws.integers(0, pairs, count), np.arange(count)
    x = np.zeros((2 * pairs + 2, count, BITS + 1), np.float32)
    x[: 2 * pairs, :, :BITS] = vectors
    x[-2, :, BITS] = 1
    x[-1, :, :BITS] = vectors[2 * asked, samples]
    return x, vectors[2 * asked + 1, samples]


def main() -> None:
    import unscan
    from unscan.runtime.quantisation import decoded
    from unscan.sources import read_graph

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--weights", type=Path, help="the checkpoint, a state dict; without it nothing is known"
    )
    parser.add_argument("--samples", type=int, default=2000, help="sequences for each number of pairs")
    parser.add_argument("--inputs", type=Path, help="write the sequences of 6 pairs here, for unscan verify")
    parser.add_argument("--quantize", help="compute in whole numbers: loihi2, int8 or int16")
    options = parser.parse_args()

    source = Path(f"{__file__}:RecallNet")
    read = read_graph(source, weights=options.weights, shape=(BITS + 1,), kind="spike")
    measured = sequences(6, 64, seed=0)[0] if options.quantize else None
    graph = unscan.compile(read, quantize=options.quantize, samples=measured)
    print("\n".join(graph.history))
    for pairs in range(2, 7):
        x, bits = sequences(pairs, options.samples, seed=pairs)
        if options.inputs and pairs == 6:
            np.save(options.inputs, x)
        run = unscan.simulate(graph, x)
        right = np.mean((decoded(graph, run.outputs[-1]) > 0.5) == bits)
        acs = "" if run.counts is None else f", {run.counts.total.acs:,} ACs"
        print(f"{pairs} pairs: bit accuracy {right:.3f}{acs}")


if __name__ == "__main__":
    main()
