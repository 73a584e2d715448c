"""The matrix memory in plain torch, chunk by chunk, on any device and in any floating type.

Within a chunk of c steps all states come from one matrix product for each key column j:

    S_ij(t) = D_j(t, 0) alpha_j(0) S_ij(before) + sum over s <= t of D_j(t, s) k_j(s) v_i(s)
    D_j(t, s) = the product of alpha_j over s + 1 ... t, 0 where s > t

D is built from products alone (`decays`): no logarithm and no division, so a decay may be 0, 1, or so small
that its products underflow, and each entry has the few roundings of a product of numbers up to 1. The state is
carried from chunk to chunk in float64 where the device has it, because a decay that stays the same is rounded the
same way in every chunk, and such errors add up. When gradients are wanted, a chunk keeps its inputs and is run again
backward, so that training holds the states of one chunk, not of the sequence.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from unscan.trainer.recurrence.naive import Firing

CHUNK = 32


def decays(alpha: Tensor) -> Tensor:
    """D(t, s), the product of alpha over s + 1 ... t, 0 where s > t: alpha (..., c) -> (..., c, c).

    Blocks of 1, 2, 4, ... steps along the diagonal are joined in pairs: from a step in the first half to one in
    the second, the decay is that to the end of the first times that from there.
    """
    steps = alpha.shape[-1]
    size = 1 << (steps - 1).bit_length()
    alpha = functional.pad(alpha, (0, size - steps))
    blocks = torch.ones_like(alpha)[..., None, None]
    while (width := blocks.shape[-1]) < size:
        first, second = blocks[..., 0::2, :, :], blocks[..., 1::2, :, :]
        entering = alpha[..., width :: 2 * width]
        below = second[..., :, :1] * entering[..., None, None] * first[..., -1:, :]
        upper = functional.pad(first, (0, width))
        blocks = torch.cat((upper, torch.cat((below, second), -1)), -2)
    return blocks[..., 0, :steps, :steps]


def _chunk(
    v: Tensor, k: Tensor, alpha: Tensor, q: Tensor | None, S: Tensor, threshold: Tensor, firing: Firing
) -> tuple[Tensor, Tensor, Tensor]:
    """Readouts, membranes and the last state of one chunk; S comes and goes in its own, wider type."""
    D = decays(alpha.permute(1, 2, 0).to(S.dtype))
    kept = D[..., 0] * alpha[0].unsqueeze(-1)
    D, before = D.to(v.dtype), S.transpose(1, 2)
    written = (D * k.permute(1, 2, 0).unsqueeze(-2)) @ v.transpose(0, 1).unsqueeze(1)  # (B, n, c, d)
    membranes = written + kept.to(v.dtype).unsqueeze(-1) * before.to(v.dtype).unsqueeze(2)
    last = written[:, :, -1] + kept[..., -1:] * before
    membranes = membranes.permute(2, 0, 3, 1)
    Z = firing.fire(membranes, threshold)
    return Z if q is None else Z @ q, membranes, last.transpose(1, 2)


def memory_chunked(
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
    """Walk a sequence in chunks of `CHUNK` steps: readouts, membranes if asked for, and the last state.

    Shapes and equations: `naive.memory_loop`, which this equals up to rounding; a membrane within rounding of the
    threshold may fire in one and not in the other.
    """
    learns = torch.is_grad_enabled() and any(
        value is not None and value.requires_grad for value in (v, k, alpha, q, S, threshold)
    )
    readouts, membranes = [], []
    S = S.to(v.dtype if v.device.type == "mps" else torch.float64)
    for begin in range(0, v.shape[0], CHUNK):
        part = slice(begin, begin + CHUNK)
        inputs = (v[part], k[part], alpha[part], None if q is None else q[part], S, threshold, firing)
        if learns:
            y, walked, S = checkpoint(_chunk, *inputs, use_reentrant=False, preserve_rng_state=False)
        else:
            y, walked, S = _chunk(*inputs)
        readouts.append(y)
        if membrane:
            membranes.append(walked)
    return torch.cat(readouts), torch.cat(membranes) if membrane else None, S.to(v.dtype)
