"""A walk through a NIR graph by its own equations."""

from typing import Any

import nir
import numpy as np
import torch

from unscan.targets.nir import DT


def walk(written: nir.NIRGraph, x: Any) -> Any:
    """Run a NIR graph as NIR's equations say, Euler with dt, in float64, in alphabetical order."""
    order = sorted(written.nodes)
    before = {name: np.zeros(written.nodes[name].output_type["output"]) for name in order}
    voltages = {name: np.zeros_like(value) for name, value in before.items()}
    currents = {name: np.zeros_like(value) for name, value in before.items()}
    outputs = []
    for x_t in x:
        now = {}
        for name in order:
            node = written.nodes[name]
            fed = sum(
                (now[a] if a in now else before[a] for a, b in written.edges if b == name), np.zeros(())
            )
            if isinstance(node, nir.Input):
                now[name] = x_t
            elif isinstance(node, nir.Linear | nir.Affine):
                now[name] = node.weight.astype(np.float64) @ fed + getattr(node, "bias", 0)
            elif isinstance(node, nir.Conv2d):
                image, kernel, bias = (
                    torch.from_numpy(a.astype(np.float64)) for a in (fed, node.weight, node.bias)
                )
                settings = {"stride": node.stride, "padding": node.padding, "dilation": node.dilation}
                now[name] = torch.conv2d(image, kernel, bias, **settings).numpy()
            elif isinstance(node, nir.Flatten):
                now[name] = fed.reshape(node.output_type["output"])
            elif isinstance(node, nir.LIF | nir.CubaLIF):
                tau = node.tau if isinstance(node, nir.LIF) else node.tau_mem
                if isinstance(node, nir.CubaLIF):
                    i = currents[name]
                    fed = currents[name] = i + DT / node.tau_syn * (node.w_in * fed - i)
                v = voltages[name] + DT / tau * (node.r * fed - voltages[name])
                now[name] = (v > node.v_threshold).astype(np.float64)
                voltages[name] = np.where(v > node.v_threshold, 0, v)
            else:
                now[name] = fed
        before = now
        outputs.append(now["output"])
    return np.stack(outputs)
