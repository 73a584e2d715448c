"""The matrix memory that erases what it overwrites: generation 3, a spiking gated delta rule."""

import torch
from torch import Tensor, nn

from unscan.trainer.neurons.base import raised
from unscan.trainer.neurons.matrix_memory import MatrixMemory
from unscan.trainer.recurrence.delta.chunked import delta_chunked
from unscan.trainer.recurrence.delta.fused import delta
from unscan.trainer.recurrence.delta.naive import delta_loop, delta_step, unit_keys


class DeltaLeaky(MatrixMemory):
    """Write a value along a key, erase what stood there, and fire where the memory is at its threshold.

        S_t = alpha_t S_{t-1} (I - b_t k_t k_t^T) + b_t v_t k_t^T
        k_t = W_k x_t / |W_k x_t|        alpha_t = sigmoid(w_a x_t)        b_t = sigmoid(w_b x_t)

    alpha_t, how much of the memory stays, and b_t, how much of what stands at the key is replaced, are one number
    each per step. The largest entries of a key are kept before it is scaled to length 1; a key shorter than 1e-12
    is 0: the step only decays. Values, queries, spikes, settings and what is raised: `MatrixMemory`.

    Source: papers/001 (generation 3).
    """

    fused = staticmethod(delta)
    chunked = staticmethod(delta_chunked)
    loop = staticmethod(delta_loop)
    one_step = staticmethod(delta_step)
    on_gpu = False

    def _gates(self) -> None:
        self.to_alpha = nn.Linear(self.in_dim, 1)
        self.to_beta = nn.Linear(self.in_dim, 1)

    def _written(self, k: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        alpha, beta = (torch.sigmoid(raised(gate(x)).squeeze(-1)) for gate in (self.to_alpha, self.to_beta))
        return unit_keys(k), alpha, beta
