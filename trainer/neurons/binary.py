"""The threshold alone: what makes a state-space model's real outputs binary, with no membrane of its own."""

from torch import Tensor

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import Values, raised
from unscan.trainer.neurons.thresholded import Thresholded


class BinaryThreshold(Thresholded):
    """Fire where the input is at the threshold.

        s_t = H(x_t - theta)

    There is no membrane, no reset and no state: the parallel form is the step, applied everywhere. Behind an S4D
    layer this is Binary S4D. channels: C. threshold > 0: one number, or C of them; all else as in `Leaky`.

    Source: papers/003, related work and Table 1 (Stan and Rhodes 2023). Raises `InvalidInput` for an option, number or
    shape that does not fit, and for a state that is not None.
    """

    def __init__(
        self,
        channels: int,
        threshold: Values = 1.0,
        *,
        fires: str = ">=",
        learn_threshold: bool = False,
        surrogate: str = "atan",
        surrogate_width: float | None = None,
    ) -> None:
        super().__init__(channels, threshold, fires, learn_threshold, surrogate, surrogate_width)

    def _without_state(self, state: object) -> None:
        if state is not None:
            raise InvalidInput(
                f"{self._name} has no state, but a {type(state).__name__} was handed in as one. Hand in None."
            )

    def forward(
        self,
        x: Tensor,
        state: None = None,
        *,
        return_membrane: bool = False,
        return_state: bool = False,
    ) -> Tensor | tuple[Tensor | None, ...]:
        """Run a sequence: x (T, B, C), or any (T, ..., C), to spikes of the same shape.

        Returned after the spikes where asked for: what was compared with the threshold, x itself; the state, None.
        """
        self._without_state(state)
        x = raised(x)
        self._sequence(x, None)
        spikes = self.how.fire(x, self.threshold.to(x.dtype))
        extra = (x,) if return_membrane else ()
        last = (None,) if return_state else ()
        return (spikes, *extra, *last) if extra or last else spikes

    def step(self, x: Tensor, state: None = None) -> tuple[Tensor, None]:
        """Take one step: x (B, C) to spikes (B, C) and the next state, None."""
        self._without_state(state)
        self._given(x, None)
        return self.how.fire(x, self.threshold.to(x.dtype)), None

    def extra_repr(self) -> str:
        """Show the settings in a model's printout."""
        return f"{self.channels}, fires={self.fires!r}"
