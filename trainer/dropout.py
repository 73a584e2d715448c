"""Dropout of sequences."""

import torch
from torch import Tensor, nn


class SequenceDropout(nn.Module):
    """Drop channels of x (T, B, C) for the whole sequence: in training, with probability p for each sample and channel.

        y = x mask / (1 - p)        mask (B, C), each 0 with probability p, else 1

    A mask that changed at every step would be noise that a layer with memory averages out, and T times as many
    numbers to draw. In evaluation y = x.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Map x (T, B, C), or one step (B, C), to the same shape."""
        if not self.training or self.p == 0:
            return x
        mask = torch.empty(x.shape[-2:], dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * mask.div_(1 - self.p)

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"p={self.p}"
