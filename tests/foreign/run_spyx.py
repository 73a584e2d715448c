"""Run NIR files in spyx, as `stepping` says, dt = 1e-4 s; images are turned to the order that spyx runs them in."""

import jax.numpy as jnp
import numpy as np
from spyx.nir import from_nir
from stepping import each_file


def outputs_of(graph, x):
    """Return the outputs, channels last turned back to channels first."""
    turned = np.moveaxis(x, 2, -1) if x.ndim > 3 else x
    _, y = from_nir(graph, jnp.asarray(turned), dt=1e-4)
    y = np.asarray(y)
    return np.moveaxis(y, -1, 2) if y.ndim > 3 else y


each_file(outputs_of)
