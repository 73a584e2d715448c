"""Sparse keys and values: only the largest entries are written."""

import torch
from torch import Tensor


def keep_largest(values: Tensor, count: int) -> Tensor:
    """Keep the `count` entries of largest magnitude in the last dimension, of equals the first; the rest are 0.

    values (..., C). Gradients go to what is kept.
    """
    order = values.detach().abs().sort(dim=-1, descending=True, stable=True).indices[..., :count]
    kept = torch.zeros_like(values, dtype=torch.bool).scatter(-1, order, True)
    return values.where(kept, 0)
