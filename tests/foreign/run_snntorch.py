"""Run every NIR file of a folder in snnTorch: NAME.nir and NAME.x.npy (T, B, ...) give NAME.y.npy (T, B, ...)."""

import contextlib
import io
import sys
from pathlib import Path

import nir
import numpy as np
import torch
from snntorch.import_nir import import_from_nir

torch.set_num_threads(1)
for path in sorted(Path(sys.argv[1]).glob("*.nir")):
    with contextlib.redirect_stdout(io.StringIO()):
        network = import_from_nir(nir.read(path))
    state, outputs = None, []
    with torch.no_grad():
        for x_t in torch.from_numpy(np.load(path.with_suffix(".x.npy"))).float():
            y, state = network(x_t, state)
            outputs.append(y.numpy().copy())
    np.save(path.with_suffix(".y.npy"), np.stack(outputs))
