"""Run every NIR file of a folder in norse, dt = 1e-4 s: NAME.nir and NAME.x.npy give NAME.y.npy, (T, B, ...)."""

import sys
import warnings
from pathlib import Path

import nir
import norse.torch
import numpy as np
import torch

warnings.simplefilter("ignore")
torch.set_num_threads(1)
for path in sorted(Path(sys.argv[1]).glob("*.nir")):
    network = norse.torch.from_nir(nir.read(path), dt=1e-4)
    state, outputs = None, []
    with torch.no_grad():
        for x_t in torch.from_numpy(np.load(path.with_suffix(".x.npy"))).float():
            y, state = network(x_t, state)
            outputs.append(y.numpy().copy())
    np.save(path.with_suffix(".y.npy"), np.stack(outputs))
