"""NIR files as others write them, and their equations stepped by hand: what the reader is held against."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import nir
import numpy as np
import torch
from torch.nn import functional

from unscan.compiler.ir import Graph
from unscan.runtime.executors.reference import Reference

DT = 1e-3


def full(value, n=3):
    return np.full(n, value, np.float64)


def lif(**changed):
    return nir.LIF(
        **{"tau": full(0.01), "r": full(1), "v_leak": full(0), "v_threshold": full(0.5), "v_reset": full(0)}
        | changed
    )


def cuba(**changed):
    return nir.CubaLIF(
        **{
            "tau_syn": full(0.004),
            "tau_mem": full(0.01),
            "r": full(1),
            "v_leak": full(0),
            "v_threshold": full(0.5),
            "v_reset": full(0),
            "w_in": full(1),
        }
        | changed
    )


def graph_of(nodes: dict[str, Any], edges=None, *, shape=(3,), out=(3,)) -> nir.NIRGraph:
    """Return a graph of nodes between an Input `in` and an Output `out`; a chain where there are no edges."""
    every = {"in": nir.Input(np.array(shape)), **nodes, "out": nir.Output(np.array(out))}
    return nir.NIRGraph(every, edges or list(pairwise(every)), type_check=False)


def write(path: Path, *primitives: Any, edges=None, shape=(3,), out=(3,)) -> Path:
    """Write primitives p0, p1, ... as a file."""
    nodes = {f"p{i}": primitive for i, primitive in enumerate(primitives)}
    nir.write(path, graph_of(nodes, edges, shape=shape, out=out))
    return path


def inputs(steps: int, shape=(3,), *, rate=0.4, seed=0):
    return (np.random.default_rng(seed).random((steps, *shape)) < rate).astype(float)


def ours(graph: Graph, x):
    """Return the outputs of one sample in the reference."""
    return Reference(graph).run(x[:, None]).outputs[:, 0]


class Euler:
    """A flat NIR graph, one step after another: each node in the order in which it is listed.

    Edges of `back` carry what their source gave one step before, 0 at first.
    """

    def __init__(self, graph: nir.NIRGraph, dt: float = DT, back=()) -> None:
        self.graph, self.dt, self.back = graph, dt, set(back)
        self.state: dict[Any, Any] = {}

    def run(self, x):
        last: dict[str, Any] = {}
        outputs = []
        for x_t in x:
            now: dict[str, Any] = {}
            for name, primitive in self.graph.nodes.items():
                if isinstance(primitive, nir.Input):
                    now[name] = x_t
                    continue
                arriving = 0
                for source, target in self.graph.edges:
                    if target == name:
                        late = (source, target) in self.back
                        arriving = arriving + (last.get(source, 0) if late else now[source])
                now[name] = (
                    arriving if isinstance(primitive, nir.Output) else self.step(name, primitive, arriving)
                )
            last = now
            outputs.append(now["out"])
        return np.stack(outputs)

    def step(self, name, p, x):
        dt = self.dt
        if isinstance(p, nir.Linear | nir.Affine):
            return p.weight @ (x + np.zeros(p.weight.shape[1])) + getattr(p, "bias", 0)
        if isinstance(p, nir.Scale):
            return p.scale * x
        if isinstance(p, nir.Threshold):
            return (x > p.threshold).astype(float)
        if isinstance(p, nir.Conv1d | nir.Conv2d):
            convolve = functional.conv1d if isinstance(p, nir.Conv1d) else functional.conv2d
            settings = {
                key: getattr(p, key) if isinstance(getattr(p, key), str) else plain(getattr(p, key))
                for key in ("stride", "padding", "dilation", "groups")
            }
            made = convolve(torch.tensor(x)[None], torch.tensor(p.weight), torch.tensor(p.bias), **settings)
            return made[0].numpy()
        if isinstance(p, nir.AvgPool2d | nir.SumPool2d):
            kernel, stride, padding = (plain(v) for v in (p.kernel_size, p.stride, p.padding))
            mean = functional.avg_pool2d(torch.tensor(x)[None], kernel, stride, padding)[0].numpy()
            return mean * (1 if isinstance(p, nir.AvgPool2d) else np.prod(np.broadcast_to(kernel, 2)))
        if isinstance(p, nir.Flatten):
            return torch.tensor(x).flatten(int(p.start_dim), int(p.end_dim)).numpy()
        if isinstance(p, nir.Delay):
            line = self.state.setdefault(name, [])
            line.append(x + np.zeros(len(p.delay)))
            ago = np.round(p.delay / dt).astype(int)
            return np.array([line[-1 - n][i] if n < len(line) else 0.0 for i, n in enumerate(ago)])
        if isinstance(p, nir.CubaLI | nir.CubaLIF):
            i = self.state.get((name, "i"), 0.0)
            x = self.state[name, "i"] = i + dt / p.tau_syn * (p.w_in * x - i)
        rest = getattr(p, "v_leak", getattr(p, "v_reset", 0.0))
        tau = getattr(p, "tau", getattr(p, "tau_mem", None))
        v = self.state.get(name, rest)
        v = v + (dt * p.r * x if tau is None else dt / tau * (rest - v + p.r * x))
        if not hasattr(p, "v_threshold"):
            self.state[name] = v
            return v
        fired = v > p.v_threshold
        self.state[name] = np.where(fired, p.v_reset, v)
        return fired.astype(float)


def plain(value):
    """Return whole numbers as torch takes them."""
    found = np.asarray(value)
    return int(found) if found.ndim == 0 else tuple(int(v) for v in found)
