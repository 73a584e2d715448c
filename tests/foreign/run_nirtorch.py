"""Run NIR files in nirtorch, as `stepping` says, with a node map of NIR's own equations: Euler, dt = 1e-4 s."""

import nir
import nirtorch
import torch
from stepping import run_folder

DT = 1e-4


class LIF(torch.nn.Module):
    """v <- v + dt / tau ((v_leak - v) + r x); a spike where v > v_threshold, and v <- v_reset there."""

    def __init__(self, node, tau):
        super().__init__()
        for name in ("r", "v_leak", "v_reset", "v_threshold"):
            self.register_buffer(name, torch.as_tensor(getattr(node, name)).float())
        self.register_buffer("share", torch.as_tensor(DT / tau).float())

    def forward(self, x, state=None):
        """Return the spikes of a step and the potential behind it."""
        v = torch.zeros_like(x) if state is None else state
        v = v + self.share * ((self.v_leak - v) + self.r * x)
        spikes = (v > self.v_threshold).float()
        return spikes, torch.where(v > self.v_threshold, self.v_reset.expand_as(v), v)


class CubaLIF(torch.nn.Module):
    """i <- i + dt / tau_syn (w_in x - i), and a `LIF` behind it."""

    def __init__(self, node):
        super().__init__()
        self.register_buffer("share", torch.as_tensor(DT / node.tau_syn).float())
        self.register_buffer("w_in", torch.as_tensor(node.w_in).float())
        self.lif = LIF(node, node.tau_mem)

    def forward(self, x, state=None):
        """Return the spikes of a step, and current and potential behind it."""
        i, v = (torch.zeros_like(x), None) if state is None else state
        i = i + self.share * (self.w_in * x - i)
        spikes, v = self.lif(i, v)
        return spikes, (i, v)


def affine(node):
    """Return a Linear with its bias, which the map of nirtorch leaves as it was drawn."""
    module = torch.nn.Linear(node.weight.shape[1], node.weight.shape[0])
    module.weight.data = torch.from_numpy(node.weight)
    module.bias.data = torch.from_numpy(node.bias)
    return module


def conv2d(node):
    """Return a Conv2d; that of nirtorch takes rows of the weight for its inputs."""
    size = tuple(node.weight.shape[2:])
    placed = {
        name: tuple(int(number) for number in getattr(node, name))
        for name in ("stride", "padding", "dilation")
    }
    module = torch.nn.Conv2d(node.weight.shape[1], node.weight.shape[0], size, **placed)
    module.weight.data, module.bias.data = torch.from_numpy(node.weight), torch.from_numpy(node.bias)
    return module


MAP = {
    nir.Affine: affine,
    nir.Conv2d: conv2d,
    nir.LIF: lambda node: LIF(node, node.tau),
    nir.CubaLIF: CubaLIF,
}
run_folder(lambda graph, x: nirtorch.nir_to_torch(graph, MAP))
