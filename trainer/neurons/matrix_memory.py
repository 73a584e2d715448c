"""What matrix memories share: sizes, projections, forms, and checks of what is handed in."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import SpikingNeuron, answer, raised
from unscan.trainer.recurrence.fused import runs_fused
from unscan.trainer.recurrence.gpu import runs_on_gpu
from unscan.trainer.recurrence.naive import Firing, check_choice
from unscan.trainer.recurrence.top_k import keep_largest

FORMS = ("auto", "fused", "chunked", "loop")
Run = Callable[..., tuple[Tensor, Tensor | None, Tensor]]


class MatrixMemory(SpikingNeuron):
    """A layer whose state is a matrix S (B, d, n), with a neuron at every entry.

        Z_t = H(S_t - theta)           y_t = Z_t q_t (d, r), or Z_t (d, n) without q

    with v_t = W_v x_t (d), k_t = W_k x_t (n) and, if use_q, q_t = W_q x_t (n, r), each with a bias. The threshold is
    one number, compared with S before q. There is no reset. A kind of memory says how S_t comes of S_{t-1}.

    in_dim: features of x. d_value, d_key: d and n. queries: r, d if not given. top_k: keep only the k largest
    |k_t| and the k largest |v_t|; of equals the first are kept, and gradients go to what is kept. fires, surrogate
    and its width: as in `Leaky`.
    form: how a sequence is computed. "fused", kernels in the machine's own memory or, where there are any, on a GPU;
    "chunked", plain torch on any device; "loop", step by step; "auto", fused where it can be, else chunked. All are
    equal up to rounding; a membrane within rounding of the threshold may fire in one and not in another.
    """

    fused: ClassVar[Run]
    chunked: ClassVar[Run]
    loop: ClassVar[Run]
    one_step: ClassVar[Callable[..., tuple[Tensor, Tensor]]]
    on_gpu: ClassVar[bool]

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
                    f"{self._name} has {name}={size!r}, but it needs a whole number from 1 up."
                )
        if queries is not None and not use_q:
            raise InvalidInput(
                f"{self._name} has queries={queries} and use_q=False. Queries are the columns of q: leave them "
                f"out, or use q."
            )
        if top_k is not None and top_k > min(d_value, d_key):
            raise InvalidInput(
                f"{self._name} has top_k={top_k}, but values have {d_value} entries and keys {d_key}: keep from 1 "
                f"to {min(d_value, d_key)}, or leave top_k out to keep all."
            )
        check_choice("form", form, FORMS)
        self.queries = (d_value if queries is None else queries) if use_q else None
        super().__init__(d_value * (self.queries or d_key), threshold, learn_threshold)
        if self.threshold.dim():
            raise InvalidInput(
                f"{self._name}: threshold must be one number, since all of the memory shares it."
            )
        self.in_dim, self.d_value, self.d_key = in_dim, d_value, d_key
        self.how = Firing("none", "now", fires, "1", surrogate, surrogate_width)
        self.reset, self.phase, self.fires, self.gain = "none", "now", fires, "1"
        self.surrogate, self.surrogate_width, self.top_k, self.form = surrogate, surrogate_width, top_k, form
        self.to_v = nn.Linear(in_dim, d_value)
        self.to_k = nn.Linear(in_dim, d_key)
        self._gates()
        self.to_q = nn.Linear(in_dim, d_key * self.queries) if self.queries else None

    @abstractmethod
    def _gates(self) -> None:
        """Make the projections that are the kind's own."""

    @abstractmethod
    def _written(self, k: Tensor, x: Tensor) -> tuple[Tensor, ...]:
        """What a step takes between v and q: the key as it is written along, and the gates for inputs x."""

    @property
    def gives_spikes(self) -> bool:
        """Whether the output is spikes: not where queries read them."""
        return self.to_q is None

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
        start = self._memory(x[0], state)
        projected = self._projected(x)
        v, run = projected[0], self._run(projected[0])
        extra: dict[str, Any] = {} if self.form == "loop" else {"membrane": return_membrane}
        with torch.autocast(x.device.type, enabled=False):
            y, membrane, last = run(
                *projected, start.to(v.dtype), self.threshold.to(v.dtype), self.how, **extra
            )
        return answer(y.flatten(2), membrane if return_membrane else None, last if return_state else None)

    def step(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Advance by one step: x (B, in_dim), state (B, d, n) or None for zeros, to y (B, d r or d n) and S_t."""
        start = self._memory(x, state)
        projected = self._projected(x)
        v = projected[0]
        with torch.autocast(x.device.type, enabled=False):
            y, last = type(self).one_step(*projected, start.to(v.dtype), self.threshold.to(v.dtype), self.how)
        return y.flatten(1), last

    def _run(self, v: Tensor) -> Run:
        """Settle the form for values like v."""
        kind = type(self)
        if self.form == "loop":
            return kind.loop
        if self.form != "chunked" and (runs_fused(v) or (kind.on_gpu and runs_on_gpu(v))):
            return kind.fused
        if self.form == "fused":
            raise InvalidInput(
                f"{self._name}: form is 'fused', but the input is {v.dtype} on {v.device}, which no kernel here takes. "
                f"Choose form='auto' or 'chunked'."
            )
        return kind.chunked

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

    def _projected(self, x: Tensor) -> tuple[Any, ...]:
        """v (..., d), k (..., n), the kind's gates, and q (..., n, r) or None, from x (..., in_dim)."""
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
        q = None if self.to_q is None else raised(self.to_q(x)).reshape(*x.shape[:-1], self.d_key, -1)
        return v, *self._written(k, x), q

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return (
            f"{self.in_dim}, d_value={self.d_value}, d_key={self.d_key}, queries={self.queries}, "
            f"fires={self.fires!r}, top_k={self.top_k}, form={self.form!r}"
        )
