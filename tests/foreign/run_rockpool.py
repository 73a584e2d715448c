"""Run NIR files in Rockpool, as `stepping` says, all steps at once: its layers take whole sequences."""

import torch
from rockpool.nn.modules.torch.nir import from_nir
from stepping import each_file


def outputs_of(graph, x):
    """Return the outputs; its signals are (B, T, N)."""
    network = from_nir(graph)
    with torch.no_grad():
        y, _ = network(torch.from_numpy(x).transpose(0, 1))
    return y.transpose(0, 1).numpy()


torch.set_num_threads(1)
each_file(outputs_of)
