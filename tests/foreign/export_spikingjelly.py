"""Write networks of SpikingJelly to a folder: NAME.nir by its own export, NAME.x.npy and NAME.y.npy (T, B, ...)."""

import sys
from pathlib import Path

import numpy as np
import torch
from spikingjelly.activation_based import functional, layer, neuron
from spikingjelly.activation_based.nir_exchange import export_to_nir

STEPS, BATCH = 100, 8
FLAT, LINE, IMAGE = (20,), (2, 12), (2, 8, 8)
torch.set_num_threads(1)


def large(module, scale=4.0):
    """Return a layer whose weights are large enough for the neurons behind it to fire."""
    module.weight.data *= scale
    return module


def feed_forward(make):
    """Return two layers, 20 -> 32 -> 10."""
    return torch.nn.Sequential(large(layer.Linear(20, 32)), make(), large(layer.Linear(32, 10)), make())


def convolutional():
    """Return a convolution, a pool and a Linear."""
    return torch.nn.Sequential(
        large(layer.Conv2d(2, 4, 3, padding=1, bias=False), 6.0),
        neuron.LIFNode(tau=2.0, v_threshold=0.6),
        layer.AvgPool2d(2),
        layer.Flatten(),
        large(layer.Linear(64, 10), 8.0),
        neuron.LIFNode(tau=3.0, v_threshold=0.5),
    )


def line():
    """Return a convolution over one axis."""
    return torch.nn.Sequential(
        large(layer.Conv1d(2, 4, 3, padding="same", dilation=2)), neuron.IFNode(v_threshold=1.5)
    )


NETWORKS = {
    "lif": (lambda: feed_forward(lambda: neuron.LIFNode(tau=3.0, v_threshold=0.5)), FLAT),
    "lif-gain": (lambda: feed_forward(lambda: neuron.LIFNode(tau=3.0, decay_input=False)), FLAT),
    "lif-rest": (lambda: feed_forward(lambda: neuron.LIFNode(tau=2.5, v_threshold=0.4, v_reset=-0.1)), FLAT),
    "plif": (lambda: feed_forward(lambda: neuron.ParametricLIFNode(init_tau=2.5, v_threshold=0.5)), FLAT),
    "if": (lambda: feed_forward(lambda: neuron.IFNode(v_threshold=1.3)), FLAT),
    "if-rest": (lambda: feed_forward(lambda: neuron.IFNode(v_threshold=1.3, v_reset=-0.4)), FLAT),
    "cuba": (
        lambda: feed_forward(lambda: neuron.CUBALIFNode(c_decay=0.4, v_decay=0.7, v_threshold=1.1)),
        FLAT,
    ),
    "conv": (convolutional, IMAGE),
    "conv1d": (line, LINE),
}

folder = Path(sys.argv[1])
for seed, (name, (make, shape)) in enumerate(NETWORKS.items()):
    torch.manual_seed(seed)
    network = make()
    x = (torch.rand(STEPS, BATCH, *shape) < 0.3).float()
    export_to_nir(network, x[0, :1], save_path=folder / f"{name}.nir")
    functional.reset_net(network)
    with torch.no_grad():
        y = torch.stack([network(x_t) for x_t in x])
    np.save(folder / f"{name}.x.npy", x.numpy())
    np.save(folder / f"{name}.y.npy", y.numpy())
