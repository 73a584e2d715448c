"""The Triton kernels of the matrix memory: a tile of S in registers, walked through one chunk of time.

A chunk is a few steps that start from a stored state, so that chunks can be walked beside each other. Forward is two
kernels: `borders` walks all of time, elementwise and with nothing to sum over, and stores S before each chunk;
`read` walks every chunk at once and sums over columns. Backward with D_t the gradient of S_t,

    D_t = g'(S_t - theta) dZ_t + dS_t + alpha_{t+1} D_{t+1}        dZ_t = dy_t q_t^T, or dy_t without q

is linear in what comes from beyond the chunk: `adjoint` walks every chunk at once as if that were zero, `chain` adds
it chunk by chunk, last to first, and `adjoint` walks them once more from the right start, for the gradients. The
only decays in it are products of alpha <= 1. Walking backward, S_t is computed again from the chunk's border for
every t, which needs no memory and no exchange between threads; chunks are short enough for that to be cheap.

v (T, B, d), k and alpha (T, B, n), q (T, B, n, r), states (B, d, n), borders (chunks, B, d, n), all contiguous. Tiles
are rows x columns of S. Where a kernel sums over columns a program holds all of them, and where over rows all rows,
but for `adjoint`, which leaves the sums over rows of each of its blocks for torch to add.
"""

import triton
import triton.language as tl

from unscan.trainer.recurrence.gpu.curves import fires, slope


@triton.jit
def _updated(
    S: tl.tensor, v: tl.tensor, k: tl.tensor, alpha: tl.tensor,
    at: tl.tensor, row: tl.tensor, column: tl.tensor, d: tl.tensor, n: tl.tensor,
) -> tl.tensor:  # fmt: skip
    """S diag(alpha_t) + v_t k_t^T, where `at` is t B + b; entries beyond d and n stay 0."""
    value = tl.load(v + at * d + row, row < d, 0.0).to(S.dtype)
    key = tl.load(k + at * n + column, column < n, 0.0).to(S.dtype)
    decay = tl.load(alpha + at * n + column, column < n, 0.0).to(S.dtype)
    return decay[None, :] * S + value[:, None] * key[None, :]


@triton.jit(do_not_specialize=["steps", "batch"])
def borders(
    v: tl.tensor, k: tl.tensor, alpha: tl.tensor, start: tl.tensor, border: tl.tensor, last: tl.tensor,
    steps: tl.tensor, batch: tl.tensor, d: tl.tensor, n: tl.tensor,
    chunk: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
) -> None:  # fmt: skip
    """Walk all of time for one tile: S before each chunk to border, S after the last step to last."""
    b = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * rows + tl.arange(0, rows)
    column = tl.program_id(2) * columns + tl.arange(0, columns)
    inside = (row < d)[:, None] & (column < n)[None, :]
    place = (b * d + row)[:, None] * n + column[None, :]
    S = tl.load(start + place, inside, 0.0)
    size = d * n * batch.to(tl.int64)
    ahead = border + place
    at = b
    for t in tl.range(0, steps, num_stages=4):
        first = t % chunk == 0
        tl.store(ahead, S, inside & first)
        ahead += tl.where(first, size, 0)
        S = _updated(S, v, k, alpha, at, row, column, d, n)
        at += batch
    tl.store(last + place, S, inside)


@triton.jit(do_not_specialize=["steps", "batch"])
def read(
    v: tl.tensor, k: tl.tensor, alpha: tl.tensor, q: tl.tensor, border: tl.tensor, theta: tl.tensor,
    y: tl.tensor, membranes: tl.tensor,
    steps: tl.tensor, batch: tl.tensor, d: tl.tensor, n: tl.tensor, queries: tl.tensor,
    strict: tl.constexpr, has_q: tl.constexpr, keep: tl.constexpr,
    chunk: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
) -> None:  # fmt: skip
    """Walk one chunk for a block of rows, all columns: y_t, and S_t to membranes where `keep` asks for it."""
    c, b = (tl.program_id(0) // batch).to(tl.int64), tl.program_id(0) % batch
    row = tl.program_id(1) * rows + tl.arange(0, rows)
    column = tl.arange(0, columns)
    inside = (row < d)[:, None] & (column < n)[None, :]
    S = tl.load(border + (((c * batch + b) * d + row)[:, None] * n + column[None, :]), inside, 0.0)
    th = tl.load(theta)
    at = c * chunk * batch + b
    for _ in range(tl.minimum(chunk, steps - c * chunk)):
        S = _updated(S, v, k, alpha, at, row, column, d, n)
        fired = fires(S, th, strict)
        place = (at * d + row)[:, None] * n + column[None, :]
        if has_q:
            for i in range(queries):
                query = tl.load(q + (at * n + column) * queries + i, column < n, 0.0).to(S.dtype)
                total = tl.sum(tl.where(fired, query[None, :], 0.0), 1)
                tl.store(y + (at * d + row) * queries + i, total.to(y.dtype.element_ty), row < d)
        else:
            tl.store(y + place, tl.where(fired, 1.0, 0.0).to(y.dtype.element_ty), inside)
        if keep:
            tl.store(membranes + place, S, inside)
        at += batch


@triton.jit(do_not_specialize=["steps", "batch"])
def adjoint(
    v: tl.tensor, k: tl.tensor, alpha: tl.tensor, q: tl.tensor, border: tl.tensor, theta: tl.tensor,
    dy: tl.tensor, dmembranes: tl.tensor, entry: tl.tensor,
    dv: tl.tensor, dk: tl.tensor, dalpha: tl.tensor, dtheta: tl.tensor,
    steps: tl.tensor, batch: tl.tensor, d: tl.tensor, n: tl.tensor, queries: tl.tensor,
    has_q: tl.constexpr, has_dy: tl.constexpr, has_dm: tl.constexpr, gradients: tl.constexpr,
    curve: tl.constexpr, p: tl.constexpr, q_: tl.constexpr,
    chunk: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
) -> None:  # fmt: skip
    """Walk one chunk backward for a block of rows, all columns.

    Without `gradients`: from nothing, and alpha D at the chunk's first step to entry. With: from entry, and

        dv_i = sum_j D_ij k_j    dk_j = sum_i D_ij v_i    dalpha_j = sum_i D_ij S_ij(t-1)    dtheta = -sum g' dZ

    dk and dalpha (row blocks, T, B, n) and dtheta (programs) in parts.
    """
    c, b = (tl.program_id(0) // batch).to(tl.int64), tl.program_id(0) % batch
    row = tl.program_id(1) * rows + tl.arange(0, rows)
    column = tl.arange(0, columns)
    inside = (row < d)[:, None] & (column < n)[None, :]
    place = ((c * batch + b) * d + row)[:, None] * n + column[None, :]
    before = tl.load(border + place, inside, 0.0)  # the chunk
    th = tl.load(theta)
    D = tl.load(entry + place, inside, 0.0) if gradients else tl.zeros_like(before)
    ways = tl.zeros_like(before)
    begin = c * chunk * batch + b
    count = tl.minimum(chunk, steps - c * chunk)
    part = tl.program_id(1) * (steps * batch.to(tl.int64) * n)
    at = begin + (count - 1) * batch
    for back in range(count):
        S, early = before, begin
        for _ in range(count - 1 - back):
            S = _updated(S, v, k, alpha, early, row, column, d, n)
            early += batch
        now = _updated(S, v, k, alpha, at, row, column, d, n)
        spot = (at * d + row)[:, None] * n + column[None, :]
        if has_dy:
            if has_q:
                dZ = tl.zeros_like(before)
                for i in range(queries):
                    query = tl.load(q + (at * n + column) * queries + i, column < n, 0.0).to(S.dtype)
                    dread = tl.load(dy + (at * d + row) * queries + i, row < d, 0.0).to(S.dtype)
                    dZ += dread[:, None] * query[None, :]
            else:
                dZ = tl.load(dy + spot, inside, 0.0).to(S.dtype)
            way = dZ * slope(now - th, curve, p, q_)
            D += way
            ways += way
        if has_dm:
            D += tl.load(dmembranes + spot, inside, 0.0)
        decay = tl.load(alpha + at * n + column, column < n, 0.0).to(S.dtype)
        if gradients:
            value = tl.load(v + at * d + row, row < d, 0.0).to(S.dtype)
            key = tl.load(k + at * n + column, column < n, 0.0).to(S.dtype)
            tl.store(dv + at * d + row, tl.sum(D * key[None, :], 1).to(dv.dtype.element_ty), row < d)
            tl.store(dk + part + at * n + column, tl.sum(D * value[:, None], 0), column < n)
            tl.store(dalpha + part + at * n + column, tl.sum(D * S, 0), column < n)
        D = decay[None, :] * D
        at -= batch
    if gradients:
        program = tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)
        tl.store(dtheta + program, -tl.sum(tl.sum(ways, 1), 0))
    else:
        tl.store(entry + place, D, inside)


@triton.jit(do_not_specialize=["steps", "batch"])
def chain(
    alpha: tl.tensor, local: tl.tensor, dlast: tl.tensor, entry: tl.tensor, dstart: tl.tensor,
    steps: tl.tensor, batch: tl.tensor, d: tl.tensor, n: tl.tensor,
    has_dlast: tl.constexpr, chunk: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
) -> None:  # fmt: skip
    """Hand the gradient of S from chunk to chunk, last to first, for one tile: E <- local + (product of alpha) E.

    What a chunk starts from goes to entry, what is left before the first one to dstart.
    """
    b = tl.program_id(0).to(tl.int64)
    row = tl.program_id(1) * rows + tl.arange(0, rows)
    column = tl.program_id(2) * columns + tl.arange(0, columns)
    inside = (row < d)[:, None] & (column < n)[None, :]
    place = (b * d + row)[:, None] * n + column[None, :]
    size = d * n * batch.to(tl.int64)
    E = tl.load(dlast + place, inside & has_dlast, 0.0)
    chunks = tl.cdiv(steps, chunk)
    for back in range(chunks):
        c = chunks - 1 - back
        tl.store(entry + c * size + place, E, inside)
        decay = tl.full([columns], 1.0, E.dtype)
        for t in range(c * chunk, tl.minimum(steps, c * chunk + chunk)):
            at = b + t * batch.to(tl.int64)
            decay *= tl.load(alpha + at * n + column, column < n, 0.0).to(E.dtype)
        E = tl.load(local + c * size + place, inside, 0.0) + decay[None, :] * E
    tl.store(dstart + place, E, inside)


@triton.jit(do_not_specialize=["steps", "batch"])
def dquery(
    v: tl.tensor, k: tl.tensor, alpha: tl.tensor, border: tl.tensor, theta: tl.tensor,
    dy: tl.tensor, dq: tl.tensor,
    steps: tl.tensor, batch: tl.tensor, d: tl.tensor, n: tl.tensor, queries: tl.tensor,
    strict: tl.constexpr, chunk: tl.constexpr, rows: tl.constexpr, columns: tl.constexpr,
) -> None:  # fmt: skip
    """Walk one chunk for a block of columns, all rows: dq_jr = sum_i dy_ir Z_ij."""
    c, b = (tl.program_id(0) // batch).to(tl.int64), tl.program_id(0) % batch
    row = tl.arange(0, rows)
    column = tl.program_id(1) * columns + tl.arange(0, columns)
    inside = (row < d)[:, None] & (column < n)[None, :]
    S = tl.load(border + (((c * batch + b) * d + row)[:, None] * n + column[None, :]), inside, 0.0)
    th = tl.load(theta)
    at = c * chunk * batch + b
    for _ in range(tl.minimum(chunk, steps - c * chunk)):
        S = _updated(S, v, k, alpha, at, row, column, d, n)
        fired = fires(S, th, strict)
        for i in range(queries):
            dread = tl.load(dy + (at * d + row) * queries + i, row < d, 0.0).to(S.dtype)
            total = tl.sum(tl.where(fired, dread[:, None], 0.0), 0)
            tl.store(dq + (at * n + column) * queries + i, total.to(dq.dtype.element_ty), column < n)
        at += batch
