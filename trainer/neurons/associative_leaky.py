"""A neuron at every crossing of a matrix memory: generation 2, written by values along keys, read by queries."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import SpikingNeuron, answer, raised
from unscan.trainer.recurrence.delta.naive import keep_largest
from unscan.trainer.recurrence.fused import runs_fused
from unscan.trainer.recurrence.matrix.chunked import memory_chunked
from unscan.trainer.recurrence.matrix.fused import memory_fused
from unscan.trainer.recurrence.matrix.naive import memory_loop, memory_step
from unscan.trainer.recurrence.naive import Firing, check_choice

FORMS = ("auto", "fused", "chunked", "loop")


class AssociativeLeaky(SpikingNeuron):
    """Let each key column decay on its own, write a value along a key, and fire where the memory is at its threshold.

        v_t = W_v x_t (d)    k_t = W_k x_t (n)    alpha_t = sigmoid(W_a x_t) (n)    q_t = W_q x_t (n, r), if use_q
        S_t = S_{t-1} diag(alpha_t) + v_t k_t^T
        Z_t = H(S_t - theta)           y_t = Z_t q_t (d, r), or Z_t (d, n) without q

    with a bias in every projection. The threshold is one number, compared with S before q. There is no reset.

    in_dim: features of x. d_value, d_key: d and n. queries: r, d if not given. top_k: keep only the k largest
    |k_t| and the k largest |v_t|; of equals the first are kept, and gradients go to what is kept. fires, surrogate
    and its width: as in `Leaky`.
    form: how a sequence is computed. "fused", kernels in the machine's own memory; "chunked", plain torch on any
    device; "loop", step by step; "auto", fused where it can be, else chunked. All are equal up to rounding; a
    membrane within rounding of the threshold may fire in one and not in another.

    The projections to_v, to_k, to_alpha and to_q are named and shaped as in snnTorch's class, so its weights load.
    There r is d and a tie does not fire (fires=">").

    Source: papers/000 and 001 (generation 2). Raises `InvalidInput` for what does not fit.
    """

    def __init__(
        self,
        in_dim: int,
        d_value: int,
        d_key: int,
        use_q: bool = True,
        *,
        queries: int | None = None,
        threshold: float = 1.0,
        learn_threshold: bool = False,
        fires: str = ">=",
        surrogate: str = "atan",
        surrogate_width: float | None = None,
        top_k: int | None = None,
        form: str = "auto",
    ) -> None:
        sizes = {"in_dim": in_dim, "d_value": d_value, "d_key": d_key, "queries": queries, "top_k": top_k}
        for name, size in sizes.items():
            optional = size is None and name in ("queries", "top_k")
            if not optional and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
                raise InvalidInput(
                    f"AssociativeLeaky has {name}={size!r}, but it needs a whole number from 1 up."
                )
        if queries is not None and not use_q:
            raise InvalidInput(
                f"AssociativeLeaky has queries={queries} and use_q=False. Queries are the columns of q: leave them "
                f"out, or use q."
            )
        if top_k is not None and top_k > min(d_value, d_key):
            raise InvalidInput(
                f"AssociativeLeaky has top_k={top_k}, but values have {d_value} entries and keys {d_key}: keep from 1 "
                f"to {min(d_value, d_key)}, or leave top_k out to keep all."
            )
        check_choice("form", form, FORMS)
        self.queries = (d_value if queries is None else queries) if use_q else None
        super().__init__(d_value * (self.queries or d_key), 0.0, threshold, False, learn_threshold)
        del self.stored_beta
        if self.threshold.dim():
            raise InvalidInput(
                "AssociativeLeaky: threshold must be one number, since all of the memory shares it."
            )
        self.in_dim, self.d_value, self.d_key = in_dim, d_value, d_key
        self.how = Firing("none", "now", fires, "1", surrogate, surrogate_width)
        self.reset, self.phase, self.fires, self.gain = "none", "now", fires, "1"
        self.surrogate, self.surrogate_width, self.top_k, self.form = surrogate, surrogate_width, top_k, form
        self.to_v = nn.Linear(in_dim, d_value)
        self.to_k = nn.Linear(in_dim, d_key)
        self.to_alpha = nn.Linear(in_dim, d_key)
        self.to_q = nn.Linear(in_dim, d_key * self.queries) if self.queries else None

    def forward(
        self,
        x: Tensor,
        state: Tensor | None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor, ...]:
        """Run a sequence: x (T, B, in_dim), state (B, d, n) or None for zeros, to y (T, B, d r or d n), by rows.

        Membranes S_t (T, B, d, n) and last state (B, d, n) follow where asked for.
        """
        if x.dim() != 3 or x.shape[0] == 0:
            raise InvalidInput(
                f"{self._name}: the input has shape {tuple(x.shape)}, but a sequence is (T, B, {self.in_dim}), time "
                f"first, with at least one step. For a single step call .step(x)."
            )
        S = self._memory(x[0], state)
        v, k, alpha, q = self._projected(x)
        run: Callable[..., tuple[Tensor, Tensor | None, Tensor]] = self._run(v)
        extra: dict[str, Any] = {} if run is memory_loop else {"membrane": return_membrane}
        with torch.autocast(x.device.type, enabled=False):
            y, membrane, last = run(v, k, alpha, q, S.to(v.dtype), self._theta(v), self.how, **extra)
        return answer(y.flatten(2), membrane if return_membrane else None, last if return_state else None)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, in_dim), state (B, d, n) or None for zeros, to y (B, d r or d n) and S_t."""
        S = self._memory(x, state)
        v, k, alpha, q = self._projected(x)
        with torch.autocast(x.device.type, enabled=False):
            y, last = memory_step(v, k, alpha, q, S.to(v.dtype), self._theta(v), self.how)
        return y.flatten(1), last

    def _run(self, v: Tensor) -> Callable[..., tuple[Tensor, Tensor | None, Tensor]]:
        """Settle the form for values like v."""
        if self.form == "loop":
            return memory_loop
        if runs_fused(v) and self.form != "chunked":
            return memory_fused
        if self.form == "fused":
            raise InvalidInput(
                f"{self._name}: form is 'fused', but the input is {v.dtype} on {v.device}, and the kernels run on the "
                f"CPU only. Choose form='auto' or 'chunked'."
            )
        return memory_chunked

    def _theta(self, v: Tensor) -> Tensor:
        return self.threshold.to(v.dtype)

    def _memory(self, x: Tensor, state: Tensor | None) -> Tensor:
        """Check the input of one step and return the state to start from."""
        if x.dim() != 2 or x.shape[1] != self.in_dim or x.shape[0] == 0:
            raise InvalidInput(
                f"{self._name} takes {self.in_dim} features, but a step of its input has shape {tuple(x.shape)}: a "
                f"step is (B, {self.in_dim}), a sequence (T, B, {self.in_dim}), with at least one sample."
            )
        if not x.is_floating_point():
            raise InvalidInput(
                f"{self._name}: the input is {x.dtype}, but it must be floating point: x.float()."
            )
        weights = self.to_v.weight.dtype
        if x.dtype != weights and not torch.is_autocast_enabled(x.device.type):
            raise InvalidInput(
                f"{self._name}: the input is {x.dtype}, but the weights are {weights}. Convert one of them: "
                f"x.to({weights}), or layer.to({x.dtype})."
            )
        shape = (x.shape[0], self.d_value, self.d_key)
        if state is None:
            return x.new_zeros(shape)
        if state.shape != shape:
            raise InvalidInput(
                f"{self._name}: the state has shape {tuple(state.shape)}, but for {x.shape[0]} samples it is {shape}. "
                f"Hand in what the last call returned, or None to start from zeros."
            )
        return state

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """v (..., d), k and alpha (..., n), q (..., n, r) or None, from x (..., in_dim)."""
        if x.device.type == "cpu" and bool(x.isnan().any()):
            raise InvalidInput(
                f"{self._name}: the input has {int(x.isnan().sum())} NaN among {x.numel()} numbers. A memory that has "
                f"taken in one never fires again in that row: look for it in what comes before this layer."
            )
        for name, weights in self.named_parameters():
            if weights.device.type == "cpu" and bool(weights.isnan().any()):
                raise InvalidInput(
                    f"{self._name}: {name} has become NaN. Training diverged before this call: lower the learning "
                    f"rate, clip gradients, or go back to a checkpoint."
                )
        v, k = raised(self.to_v(x)), raised(self.to_k(x))
        if self.top_k is not None:
            v, k = keep_largest(v, self.top_k), keep_largest(k, self.top_k)
        alpha = torch.sigmoid(raised(self.to_alpha(x)))
        q = None if self.to_q is None else raised(self.to_q(x)).reshape(*x.shape[:-1], self.d_key, -1)
        return v, k, alpha, q

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return (
            f"{self.in_dim}, d_value={self.d_value}, d_key={self.d_key}, queries={self.queries}, "
            f"fires={self.fires!r}, top_k={self.top_k}, form={self.form!r}"
        )
