"""Run every NIR file of a folder, step by step: NAME.nir and NAME.x.npy (T, B, ...) give NAME.y.npy (T, B, ...).

It stands on numpy and nir, and on torch where a network does, as each framework has its own environment. What fails
is written to failures.json, by name, and the rest runs on.
"""

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import nir
import numpy as np


def run_folder(load):
    """Run every file of the folder that the first argument names.

    `load` makes of a graph and the input, (T, B, ...), a function from a step's input and the state before it, None at
    first, to a step's output and the state behind it.
    """
    import torch

    torch.set_num_threads(1)
    each_file(lambda graph, x: walk(load(graph, x), x))


def walk(network, x):
    """Return the outputs of a network of torch over the steps of x."""
    import torch

    state, outputs = None, []
    with torch.no_grad():
        for x_t in torch.from_numpy(x):
            y, state = network(x_t, state)
            outputs.append(y.numpy().copy())
    return np.stack(outputs)


def each_file(outputs_of):
    """Write what a function of a graph and its input gives, for every file of the folder."""
    warnings.simplefilter("ignore")
    folder, failures = Path(sys.argv[1]), {}
    for path in sorted(folder.glob("*.nir")):
        x = np.load(path.with_suffix(".x.npy")).astype(np.float32)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                y = outputs_of(nir.read(path), x)
        except Exception as failure:
            failures[path.stem] = f"{type(failure).__name__}: {failure}"[:500]
            continue
        np.save(path.with_suffix(".y.npy"), y)
    (folder / "failures.json").write_text(json.dumps(failures))
