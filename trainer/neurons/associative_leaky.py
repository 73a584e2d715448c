"""A neuron at every crossing of a matrix memory: generation 2, written by values along keys, read by queries."""

import torch
from torch import Tensor, nn

from unscan.trainer.neurons.base import raised
from unscan.trainer.neurons.matrix_memory import MatrixMemory
from unscan.trainer.recurrence.matrix.chunked import memory_chunked
from unscan.trainer.recurrence.matrix.fused import memory_fused
from unscan.trainer.recurrence.matrix.naive import memory_loop, memory_step


class AssociativeLeaky(MatrixMemory):
    """Let each key column decay on its own, write a value along a key, and fire where the memory is at its threshold.

        S_t = S_{t-1} diag(alpha_t) + v_t k_t^T        alpha_t = sigmoid(W_a x_t) (n)

    Values, keys, queries, spikes, settings and what is raised: `MatrixMemory`. The projections to_v, to_k, to_alpha
    and to_q are named and shaped as in snnTorch's class, so its weights load; there r is d and a tie does not fire
    (fires=">").

    Source: papers/000 and 001 (generation 2).
    """

    fused = staticmethod(memory_fused)
    chunked = staticmethod(memory_chunked)
    loop = staticmethod(memory_loop)
    one_step = staticmethod(memory_step)
    on_gpu = True

    def _gates(self) -> None:
        self.to_alpha = nn.Linear(self.in_dim, self.d_key)

    def _written(self, k: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        return k, torch.sigmoid(raised(self.to_alpha(x)))
