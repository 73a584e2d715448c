"""Write networks of snnTorch to a folder: NAME.nir by its own export, NAME.x.npy and NAME.y.npy (T, B, ...)."""

import contextlib
import io
import sys
from pathlib import Path

import nir
import numpy as np
import snntorch
import torch
from snntorch.export_nir import export_to_nir

STEPS, BATCH = 100, 8
torch.set_num_threads(1)


def settings(shape, theta=0.7, **decays):
    """Return parameters of the full shape: its export fails on single numbers with nir 1.0.8."""
    return {name: torch.full(shape, value) for name, value in ({"threshold": theta} | decays).items()} | {
        "init_hidden": True
    }


def leaky(*shape, beta=0.9, theta=0.7, **options):
    """Return Leaky neurons that keep their state."""
    return snntorch.Leaky(**settings(shape, theta, beta=beta), **options)


def synaptic(*shape, **options):
    """Return Synaptic neurons that keep their state."""
    return snntorch.Synaptic(**settings(shape, alpha=0.7, beta=0.85), **options)


def linear(columns, rows, scale=3.0):
    """Return a Linear whose weights are large enough for its neurons to fire."""
    layer = torch.nn.Linear(columns, rows)
    layer.weight.data *= scale
    return layer


def feed_forward(neuron, **options):
    """Return two layers, 20 -> 32 -> 10."""
    return torch.nn.Sequential(linear(20, 32), neuron(32, **options), linear(32, 10), neuron(10, **options))


def recurrent(neuron, *, theta=0.7, beta=0.8, **options):
    """Return a layer of 16 whose spikes come back, and one behind it."""
    again = getattr(snntorch, neuron)(**settings((16,), theta, beta=beta), **options)
    return torch.nn.Sequential(linear(20, 16), again, linear(16, 10), leaky(10, **common(options)))


def common(options):
    """Return what a Leaky takes of the options of a recurrent neuron."""
    return {name: value for name, value in options.items() if name == "reset_mechanism"}


def convolutional():
    """Return a convolution, a pool and a Linear."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(2, 4, 3, padding=1, stride=2, bias=False),
        leaky(4, 4, 4, theta=0.3),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        linear(16, 10),
        leaky(10),
    )


FLAT, IMAGE = (20,), (2, 8, 8)
ALPHA = torch.full((16,), 0.6)
NETWORKS = {
    "leaky": (lambda: feed_forward(leaky), FLAT),
    # A threshold that no membrane passes twice: above that, reset_delay=False resets once more at the next step.
    "leaky-now": (
        lambda: torch.nn.Sequential(linear(20, 32, 2.0), leaky(32, theta=2.0, beta=0.7, reset_delay=False)),
        FLAT,
    ),
    "leaky-zero": (lambda: feed_forward(leaky, reset_mechanism="zero"), FLAT),
    "leaky-none": (lambda: feed_forward(leaky, reset_mechanism="none", beta=0.5), FLAT),
    "synaptic": (lambda: feed_forward(synaptic), FLAT),
    "synaptic-zero": (lambda: feed_forward(synaptic, reset_mechanism="zero"), FLAT),
    "synaptic-zero-now": (
        lambda: feed_forward(synaptic, reset_mechanism="zero", reset_delay=False),
        FLAT,
    ),
    "conv": (convolutional, IMAGE),
    "rleaky": (lambda: recurrent("RLeaky", linear_features=16), FLAT),
    "rleaky-zero": (lambda: recurrent("RLeaky", linear_features=16, reset_mechanism="zero"), FLAT),
    "rleaky-one-to-one": (
        lambda: recurrent("RLeaky", all_to_all=False, V=torch.linspace(-0.6, 0.4, 16)),
        FLAT,
    ),
    "rsynaptic": (lambda: recurrent("RSynaptic", alpha=ALPHA, linear_features=16), FLAT),
}

folder = Path(sys.argv[1])
for seed, (name, (make, shape)) in enumerate(NETWORKS.items()):
    torch.manual_seed(seed)
    network = make()
    x = (torch.rand(STEPS, BATCH, *shape) < 0.3).float()
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        graph = export_to_nir(network, x[0, :1], ignore_dims=[0])
        for module in network.modules():
            if hasattr(module, "reset_mem"):
                module.reset_mem()
        y = torch.stack([network(x_t) for x_t in x])
    nir.write(folder / f"{name}.nir", graph)
    np.save(folder / f"{name}.x.npy", x.numpy())
    np.save(folder / f"{name}.y.npy", y.numpy())
