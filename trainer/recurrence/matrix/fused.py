"""The matrix memory at the speed of its arithmetic: the kernels of `kernels` under autograd.

Nothing as large as all states, (T, B, d, n), is kept or allocated, unless it is asked for: as the readout without
queries, or as membranes. Kept are the states at the borders of chunks of `kernels.CHUNK` steps. With one query
the kernels sum the readout themselves. With more, spikes go through a small buffer and a matrix product.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unscan.trainer.recurrence.fused import runs_fused
from unscan.trainer.recurrence.gpu import runs_on_gpu
from unscan.trainer.recurrence.lanes import fresh
from unscan.trainer.recurrence.matrix.chunked import memory_chunked
from unscan.trainer.recurrence.matrix.kernels import backward_kernel, forward_kernel
from unscan.trainer.recurrence.matrix.layout import Layout
from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.surrogate import surrogate_named


def _numbers(threshold: Tensor, firing: Firing) -> tuple[Any, Any]:
    """The threshold and the lowest membrane that fires, in the sequence's type."""
    value = threshold.detach().numpy()[()]
    return value, value if firing.fires == ">=" else np.nextafter(value, np.inf, dtype=value.dtype)


def _vectors(lay: Layout, v: Tensor, k: Tensor, alpha: Tensor, q: Tensor | None) -> tuple[Tensor, ...]:
    """What the kernels read at each step. q is theirs only where there is one query."""
    queries = lay.vectors(q, lay.columns) if q is not None and q.shape[-1] == 1 else v.new_empty(1, 1)
    return lay.vectors(v, lay.rows), lay.vectors(k, lay.columns), lay.vectors(alpha, lay.columns), queries


class _Memory(torch.autograd.Function):
    """The two kernels under autograd."""

    @staticmethod
    def forward(
        ctx: Any, v: Tensor, k: Tensor, alpha: Tensor, q: Tensor | None, S: Tensor, threshold: Tensor,
        firing: Firing, membrane: bool,
    ) -> tuple[Tensor, Tensor | None, Tensor]:  # fmt: skip
        lay = Layout(v.shape[0], v.shape[1], v.shape[2], k.shape[-1])
        steps, batch, d, n = lay.steps, lay.batch, lay.d, lay.n
        readout = q is not None and q.shape[-1] == 1
        wide = n if q is None else q.shape[-1]
        vectors, lowest = _vectors(lay, v, k, alpha, q), _numbers(threshold, firing)[1]
        borders = v.new_empty((lay.chunks + 1) * batch, lay.rows * lay.columns)
        borders[:batch] = lay.tiles(S)
        nothing = v.new_empty(1, 1)
        y = v.new_empty(lay.blocks * lay.flat, lay.rows) if readout else fresh(lay.flat, d * wide, v.dtype)
        m = fresh(lay.flat, d * n, v.dtype) if membrane else nothing
        straight = readout or (q is None and lay.whole)
        Z = nothing if straight else v.new_empty(lay.scratch)
        M = v.new_empty(lay.scratch) if membrane and not lay.whole else nothing
        kernel = forward_kernel(lay.width, readout, membrane)
        for part, beyond, now in lay.spans(readout and not membrane):
            spikes = y if readout else y[now] if straight else Z[: now.stop - now.start]
            walked = m[now] if lay.whole else M[: now.stop - now.start]
            lay.run(kernel, *vectors, lowest, batch, borders, spikes, walked, part, beyond)
            if not straight and q is None:
                y[now].view(-1, d, n).copy_(lay.states(spikes))
            elif not straight and q is not None:
                queries = q.detach().reshape(lay.flat, n, wide)[now]
                torch.bmm(lay.states(spikes), queries, out=y[now].view(-1, d, wide))
            if membrane and not lay.whole:
                m[now].view(-1, d, n).copy_(lay.states(walked))
        if readout:
            y = y.view(lay.blocks, lay.flat, lay.rows)[..., :d].sum(0) if lay.blocks > 1 else y[:, :d]
        ctx.save_for_backward(v, k, alpha, q, threshold, borders)
        ctx.firing = firing
        ctx.set_materialize_grads(False)
        last = lay.states(borders[-batch:]).contiguous().clone()
        return (
            y.reshape(steps, batch, d, wide),
            m.view(steps, batch, d, n) if membrane else None,
            last,
        )

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, dy: Tensor | None, dm: Tensor | None, dS: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        v, k, alpha, q, threshold, borders = ctx.saved_tensors
        firing: Firing = ctx.firing
        lay = Layout(v.shape[0], v.shape[1], v.shape[2], k.shape[-1])
        readout = q is not None and q.shape[-1] == 1
        gradient = None if dy is None else dy.reshape(lay.flat, lay.d, -1)
        queries = None if q is None else q.reshape(lay.flat, lay.n, -1)
        wide = queries is not None and not readout and gradient is not None
        learn = bool(ctx.needs_input_grad[5])

        back = v.new_zeros(lay.batch, lay.rows * lay.columns) if dS is None else lay.tiles(dS).clone()
        dv = v.new_empty(lay.blocks * lay.flat, lay.rows)
        dk, dalpha, dq = v.new_zeros(3, lay.flat, lay.columns).unbind(0)
        dtheta = torch.zeros(lay.batch * lay.blocks, dtype=torch.float64)
        dqueries = None if queries is None or readout else torch.zeros_like(queries)

        surrogate, width = surrogate_named(firing.surrogate, firing.width)
        curve = [borders.numpy().dtype.type(number) for number in surrogate.coefficients(width)]
        vectors, numbers = _vectors(lay, v, k, alpha, q), _numbers(threshold, firing)
        kernel = backward_kernel(lay.width, firing.surrogate, readout, wide, dm is not None, learn)
        for part, beyond, now in reversed(lay.spans(readout and dm is None)):
            if gradient is None:
                dZ = v.new_zeros((lay.flat, lay.rows) if readout else lay.scratch)
            elif readout:
                dZ = lay.vectors(gradient, lay.rows)
            else:
                dZ = lay.tiles(gradient[now] if queries is None else gradient[now] @ queries[now].mT)
            dM = v.new_zeros(1, 1) if dm is None else lay.tiles(dm.reshape(lay.flat, lay.d, lay.n)[now])
            lay.run(
                kernel, *vectors, *numbers, lay.batch, borders,
                dZ, dM, back, dv, dk, dalpha, dq, dtheta, *curve, part, beyond,
            )  # fmt: skip
            if dqueries is not None and gradient is not None:
                torch.bmm(lay.states(dZ).mT, gradient[now], out=dqueries[now])

        if lay.blocks > 1:
            dv = dv.view(lay.blocks, lay.flat, lay.rows).sum(0)
        if readout:
            dqueries = dq[:, : lay.n]
        return (
            dv[:, : lay.d].reshape(v.shape),
            dk[:, : lay.n].reshape(k.shape),
            dalpha[:, : lay.n].reshape(alpha.shape),
            None if dqueries is None or q is None else dqueries.reshape(q.shape),
            lay.states(back),
            dtheta.sum().to(v.dtype) if learn else None,
            None,
            None,
        )


def memory_fused(
    v: Tensor,
    k: Tensor,
    alpha: Tensor,
    q: Tensor | None,
    S: Tensor,
    threshold: Tensor,
    firing: Firing,
    *,
    membrane: bool = True,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Walk a sequence in compiled kernels: readouts, membranes if asked for, and the last state.

    Shapes and equations: `naive.memory_loop`, which this equals: spikes and states bit for bit, readouts and
    gradients up to the order of their sums. On a GPU the kernels of `recurrence.gpu` run where Triton is installed;
    what no kernel takes goes through `chunked.memory_chunked`.
    """
    if runs_on_gpu(v):
        from unscan.trainer.recurrence.gpu.memory import memory

        return memory(v, k, alpha, q, S, threshold, firing, membrane=membrane)
    if not runs_fused(v):
        return memory_chunked(v, k, alpha, q, S, threshold, firing, membrane=membrane)
    outputs: tuple[Tensor, Tensor | None, Tensor] = _Memory.apply(
        v, k, alpha, q, S, threshold, firing, membrane
    )  # type: ignore[no-untyped-call]
    return outputs
