"""Batch normalisation of sequences."""

from torch import Tensor, nn


class SequenceBatchNorm(nn.Module):
    """Normalise each channel of x (T, B, C) over time and batch together.

        y = (x - mean) / sqrt(variance + eps) * weight + bias

    In training mean and variance are those of the T B values of the channel at hand; in evaluation they are the
    running ones, so that each step is an affine map of its own and the compiler can fold it into weights. The
    arrays are those of the BatchNorm1d inside, `norm`.
    """

    def __init__(self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(channels, eps=eps, momentum=momentum)

    def forward(self, x: Tensor) -> Tensor:
        """Map x (T, B, C), or one step (B, C), to the same shape."""
        normed: Tensor = self.norm(x.reshape(-1, x.shape[-1]))
        return normed.reshape(x.shape)
