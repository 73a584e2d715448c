"""A module of one's own, trained in plain torch, deployed and run by onnxruntime alone.

The task: which of two spike trains carries more spikes in its second half? Run as `python examples/own_module.py`.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnxruntime
import torch
from torch import Tensor, nn

import unscan
from unscan.trainer import Leaky, LeakyIntegrator


class Compare(nn.Module):
    """Two layers of spiking neurons, with a residual add, and a leaky readout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, 2)
        self.neuron1 = Leaky(32, beta=0.9, reset="subtract")
        self.neuron2 = Leaky(32, beta=0.95, reset="zero", learn_beta=True)
        self.readout = LeakyIntegrator(2, beta=0.98)

    def forward(self, x: Tensor) -> Tensor:
        """Map spikes (T, B, 2) to scores at each step (T, B, 2)."""
        hidden = self.neuron1(self.first(x))
        scores: Tensor = self.readout(self.out(hidden + self.neuron2(self.second(hidden))))
        return scores


def samples(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return spike trains (T, B, 2) and which of the two was denser in the second half (B,)."""
    rates = 0.1 + 0.3 * torch.rand(2, count, 2, generator=generator)
    x = torch.rand(60, count, 2, generator=generator) < rates.repeat_interleave(30, dim=0)
    return x, x[30:].sum(0).argmax(-1)


def main() -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = Compare()
    optimiser = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(150):
        x, y = samples(128, generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x.float())[-1], y).backward()
        optimiser.step()

    x, y = samples(500, generator)
    graph = unscan.compile(unscan.trace(model, x), threshold=1.0)
    found = unscan.verify(model, graph, x.numpy(), labels=y.numpy(), decision="last")
    print(f"accuracy {found.comparisons[0].accuracy[1]:.1%}, the same spikes everywhere: {found.holds}")
    run = unscan.simulate(graph, x.numpy())
    print(f"ACs {run.counts.total.acs:,}, energy {run.energy.synaptic:.3g} J, dense {run.energy.dense:.3g} J")

    with TemporaryDirectory() as folder:
        path = Path(folder) / "compare.onnx"
        unscan.export(graph, path, target="onnx", form="scan")
        quiet = onnxruntime.SessionOptions()
        quiet.log_severity_level = 3  # it warns of every state, as its input may be left out
        session = onnxruntime.InferenceSession(path, quiet)
        outputs = session.run(["y"], {"x": x.numpy().astype(np.float32)})[0]
    print(f"onnxruntime alone, accuracy {np.mean(outputs[-1].argmax(-1) == y.numpy()):.1%}")


if __name__ == "__main__":
    main()
