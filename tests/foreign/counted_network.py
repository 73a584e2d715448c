"""A network in torch whose weights stand in Linear and Conv2d modules, as counters of other frameworks want it.

The archive holds `nodes`, JSON of {"name", "kind", "from": [names], ...} in the order in which they run, the arrays
that they name, and x (T, B, ...). Everything runs in float64, so that the spikes are those of the reference.
"""

import json

import numpy as np
import torch

NEURONS = ("lif", "li")


class Network(torch.nn.Module):
    """Nodes that run step after step, with membranes and delays carried over the steps."""

    def __init__(self, archive: np.lib.npyio.NpzFile) -> None:
        super().__init__()
        self.nodes = json.loads(str(archive["nodes"]))
        self.weights = torch.nn.ModuleDict()
        for node in self.nodes:
            if node["kind"] in ("linear", "conv"):
                self.weights[node["name"]] = weights_of(node, archive)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Run (B, T, ...) and return the last output."""
        kept: dict[str, torch.Tensor] = {}
        made: dict[str, torch.Tensor] = {}
        for x in batch.unbind(1):
            made = {}
            for node in self.nodes:
                made[node["name"]] = self.step(node, made, kept, x)
            for node in self.nodes:
                if node["kind"] == "delay":
                    kept[node["name"]] = sum(made[name] for name in node["from"])
        return made[self.nodes[-1]["name"]]

    def step(self, node: dict, made: dict, kept: dict, x: torch.Tensor) -> torch.Tensor:
        """Return what a node sends."""
        name, kind = node["name"], node["kind"]
        if kind == "input":
            return x
        if kind == "delay":
            return kept.get(name, torch.zeros(len(x), node["width"], dtype=torch.float64))
        value = sum(made[source] for source in node["from"][1:]) + made[node["from"][0]]
        if name in self.weights:
            return self.weights[name](value)
        if kind == "pool":
            return torch.nn.functional.avg_pool2d(value, node["kernel"], node["stride"]) * node["times"]
        if kind in NEURONS:
            return self.neuron(node, value, kept)
        return value.flatten(1) if kind == "flatten" else value

    def neuron(self, node: dict, current: torch.Tensor, kept: dict) -> torch.Tensor:
        """Return the spikes or the membranes of one layer of neurons."""
        u = node["beta"] * kept.get(node["name"], torch.zeros_like(current)) + current
        if node["kind"] == "li":
            kept[node["name"]] = u
            return u
        spikes = (u >= node["threshold"]).double()
        kept[node["name"]] = (
            u - node["threshold"] * spikes if node["reset"] == "subtract" else u * (1 - spikes)
        )
        return spikes


def weights_of(node: dict, archive: np.lib.npyio.NpzFile) -> torch.nn.Module:
    """Return a Linear or a Conv2d with its weights."""
    weight = torch.from_numpy(archive[node["weight"]]).double()
    if node["kind"] == "linear":
        made = torch.nn.Linear(weight.shape[1], weight.shape[0], bias="bias" in node)
    else:
        ins, kernel = weight.shape[1] * node["groups"], tuple(weight.shape[2:])
        settings = {key: node[key] for key in ("stride", "padding", "dilation", "groups")}
        made = torch.nn.Conv2d(ins, len(weight), kernel, bias="bias" in node, **settings)
    made = made.double()
    made.weight.data = weight
    if "bias" in node:
        made.bias.data = torch.from_numpy(archive[node["bias"]]).double()
    return made


def opened(path: str) -> tuple[Network, torch.Tensor]:
    """Return the network of an archive and its input as (B, T, ...)."""
    archive = np.load(path)
    torch.set_num_threads(1)
    return Network(archive).eval(), torch.from_numpy(archive["x"]).double().transpose(0, 1)
