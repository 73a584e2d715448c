"""What the scripts that read modules of other frameworks share: they run where the framework is installed."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch

from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Builder, Results
from unscan.compiler.frontends.modules import load_rules, read
from unscan.compiler.frontends.trace import trace
from unscan.compiler.nodes import Input, Output
from unscan.compiler.spec import check
from unscan.compiler.storage import save

STEPS, BATCH = 100, 4
FOLDER = Path(sys.argv[1])


def graph_of(module, shape, axes):
    """Return the graph of one module, by its rule."""
    load_rules(module)
    to = Builder(np.float64)
    to.axes = axes
    y = read(module, to, "module", to.add("input", Input(shape)))
    if isinstance(y, Results):
        (y, *others) = y.values
        assert others == [None] * len(others)
    to.add("output", Output(), y)
    return check(to.graph(), where=type(module).__name__)


def keep_traced(name, model, x, y):
    """Write a case of a whole model, read by what it calls."""
    keep(name, trace(model, x[:1].numpy()), x, y)


def driving(shape, seed):
    """Return an input (T, B, ...) in float64 that makes neurons fire, and leaves none without a pause."""
    return (
        0.35 + 0.8 * torch.randn(STEPS, BATCH, *shape, generator=torch.Generator().manual_seed(seed)).double()
    )


def keep(name, graph, x, y):
    """Write a case: the graph that was read, its input, and what the framework makes of it."""
    save(graph, FOLDER / f"{name}.unscan")
    np.savez(FOLDER / f"{name}.npz", x=x.detach().numpy(), y=y.detach().numpy())


def keep_refusals(modules, shape, axes):
    """Write what is said of the modules that are refused."""
    said = {}
    for name, module in modules.items():
        try:
            graph_of(module, shape, axes)
            said[name] = None
        except Unsupported as fault:
            said[name] = str(fault)
    (FOLDER / "refusals.json").write_text(json.dumps(said))
