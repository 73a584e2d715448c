"""The exact recurrences on a GPU: Triton kernels with the meaning of the step loops in `naive`.

Nothing here is imported, and Triton neither, before a tensor arrives for which `runs_on_gpu` is true.
"""

from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@cache
def _triton_is_installed() -> bool:
    """Look for Triton without importing it."""
    return find_spec("triton") is not None


def runs_on_gpu(x: Tensor) -> bool:
    """Tell whether `gpu.lif` and `gpu.memory` can take a tensor: floating, on a CUDA device, Triton installed."""
    return x.is_cuda and x.dtype in DTYPES and _triton_is_installed()
