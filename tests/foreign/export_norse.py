"""Write networks of norse to a folder: NAME.nir by its own export, NAME.x.npy and NAME.y.npy (T, B, ...)."""

import sys
import warnings
from pathlib import Path

import nir
import norse.torch as norse
import numpy as np
import torch

STEPS, BATCH = 100, 8
FLAT, IMAGE = (20,), (2, 8, 8)
warnings.simplefilter("ignore")
torch.set_num_threads(1)


def linear(columns, rows, scale=4.0):
    """Return a Linear whose weights are large enough for its neurons to fire."""
    layer = torch.nn.Linear(columns, rows)
    layer.weight.data *= scale
    return layer


def full(*shape, **parameters):
    """Return parameters of the full shape: a file cannot hold its export of single numbers."""
    return {name: torch.full(shape, value) for name, value in parameters.items()}


def box(*shape, **parameters):
    """Return LIFBoxCell neurons."""
    return norse.LIFBoxCell(norse.LIFBoxParameters(**full(*shape, **parameters)))


def cell(size):
    """Return LIFCell neurons, which have a synaptic current."""
    parameters = full(size, tau_mem_inv=150.0, tau_syn_inv=250.0, v_th=0.5, v_leak=0.0)
    return norse.LIFCell(norse.LIFParameters(**parameters))


def feed_forward(neuron):
    """Return two layers, 20 -> 32 -> 10."""
    return norse.SequentialState(linear(20, 32), neuron(32), linear(32, 10), neuron(10))


def readout():
    """Return a layer of neurons, and leaky integrators behind it."""
    return norse.SequentialState(
        linear(20, 16),
        box(16, tau_mem_inv=300.0, v_th=0.4, v_leak=0.0),
        linear(16, 10),
        norse.LIBoxCell(norse.LIBoxParameters(**full(10, tau_mem_inv=100.0, v_leak=0.2))),
    )


def convolutional():
    """Return a convolution and its neurons."""
    layer = torch.nn.Conv2d(2, 4, 3, padding=1, stride=2)
    layer.weight.data *= 4
    return norse.SequentialState(layer, box(4, 4, 4, tau_mem_inv=200.0, v_th=0.5, v_leak=0.0))


NETWORKS = {
    "box": (lambda: feed_forward(lambda n: box(n, tau_mem_inv=200.0, v_th=0.3, v_leak=0.0)), FLAT),
    "box-seconds": (lambda: feed_forward(lambda n: box(n, tau_mem_inv=200.0, v_th=0.3, v_leak=0.0)), FLAT),
    "box-leak": (lambda: feed_forward(lambda n: box(n, tau_mem_inv=200.0, v_th=0.5, v_leak=0.1)), FLAT),
    "cell": (lambda: feed_forward(cell), FLAT),
    "iaf": (lambda: feed_forward(lambda n: norse.IAFCell(norse.IAFParameters(**full(n, v_th=1.5)))), FLAT),
    "readout": (readout, FLAT),
    "conv": (convolutional, IMAGE),
}

folder = Path(sys.argv[1])
for seed, (name, (make, shape)) in enumerate(NETWORKS.items()):
    torch.manual_seed(seed)
    network = make()
    x = (torch.rand(STEPS, BATCH, *shape) < 0.3).float()
    # A sample with a batch axis gives a file whose Input has one, too; of a convolution it gives none that can be read.
    graph = norse.to_nir(
        network, x[0, 0] if name == "conv" else x[0, :1], dt=1.0 if name == "box-seconds" else 1e-3
    )
    if name == "conv":
        graph.infer_types()
    state, y = None, []
    with torch.no_grad():
        for x_t in x:
            y_t, state = network(x_t, state)
            y.append(y_t.numpy().copy())
    nir.write(folder / f"{name}.nir", graph)
    np.save(folder / f"{name}.x.npy", x.numpy())
    np.save(folder / f"{name}.y.npy", np.stack(y))
