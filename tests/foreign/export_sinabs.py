"""Write networks of sinabs to a folder: NAME.nir by its own export, NAME.x.npy and NAME.y.npy (T, B, ...)."""

import sys
from pathlib import Path

import nir
import numpy as np
import sinabs
import sinabs.layers as sl
import torch
from sinabs.activation import MembraneReset, SingleSpike

STEPS, BATCH = 100, 8
FLAT, IMAGE = (20,), (2, 8, 8)
torch.set_num_threads(1)


def linear(columns, rows, scale=4.0):
    """Return a Linear whose weights are large enough for its neurons to fire."""
    layer = torch.nn.Linear(columns, rows)
    layer.weight.data *= scale
    return layer


def neurons(kind, *shape, theta=0.6, **options):
    """Return neurons that fire once a step."""
    return getattr(sl, kind)(
        spike_threshold=torch.full(shape, theta), spike_fn=SingleSpike, batch_size=BATCH, **options
    )


def lif(size, **options):
    """Return LIF neurons."""
    return neurons("LIFSqueeze", size, theta=0.25, tau_mem=torch.linspace(3.0, 12.0, size), **options)


def feed_forward(neuron):
    """Return two layers, 20 -> 32 -> 10."""
    return torch.nn.Sequential(linear(20, 32), neuron(32), linear(32, 10), neuron(10))


def readout():
    """Return a layer of neurons, and leaky integrators behind it."""
    leaky = sl.ExpLeakSqueeze(tau_mem=torch.full((10,), 20.0), norm_input=True, batch_size=BATCH)
    return torch.nn.Sequential(linear(20, 16), lif(16), linear(16, 10), leaky)


def convolutional():
    """Return a convolution, a pool and a Linear."""
    layer = torch.nn.Conv2d(2, 4, 3, padding=1, bias=False)
    layer.weight.data *= 2
    return torch.nn.Sequential(
        layer,
        neurons("IAFSqueeze", 4, 8, 8, theta=1.1),
        sl.SumPool2d(2),
        torch.nn.Flatten(),
        linear(64, 10, scale=2.0),
        neurons("IAFSqueeze", 10, theta=2.3),
    )


NETWORKS = {
    "lif": (lambda: feed_forward(lif), FLAT),
    "lif-reset": (lambda: feed_forward(lambda n: lif(n, reset_fn=MembraneReset())), FLAT),
    "iaf": (lambda: feed_forward(lambda n: neurons("IAFSqueeze", n, theta=2.1)), FLAT),
    "readout": (readout, FLAT),
    "conv": (convolutional, IMAGE),
}

folder = Path(sys.argv[1])
for seed, (name, (make, shape)) in enumerate(NETWORKS.items()):
    torch.manual_seed(seed)
    network = make()
    x = (torch.rand(STEPS, BATCH, *shape) < 0.3).float()
    with torch.no_grad():
        # Its layers take samples and steps on one axis, the steps of each sample together.
        y = network(x.transpose(0, 1).flatten(0, 1)).unflatten(0, (BATCH, STEPS)).transpose(0, 1)
        graph = sinabs.to_nir(network, x[0])
    if name == "conv":  # a convolution without an input_shape cannot be written
        graph.infer_types()
    nir.write(folder / f"{name}.nir", graph)
    np.save(folder / f"{name}.x.npy", x.numpy())
    np.save(folder / f"{name}.y.npy", y.numpy())
