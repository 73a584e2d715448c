"""What neurons share that carry two numbers per lane from step to step."""

from torch import Tensor

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.base import SpikingLeaky

State = tuple[Tensor, Tensor]


class PairedNeuron(SpikingLeaky):
    """A layer of neurons whose state is a pair of tensors, each in the shape of one step."""

    def _pair(self, lanes: Tensor, state: State | None) -> State | None:
        """Check an input of one step (..., C) and the pair handed in with it, in the input's type; None stays None."""
        self._given(lanes, None)
        if state is None:
            return None
        if not isinstance(state, tuple | list) or len(state) != 2:
            raise InvalidInput(
                f"{self._name}: the state is a {type(state).__name__}, but it must be two tensors. Hand in what the "
                f"last call returned, or None to start from zeros."
            )
        return self._state(lanes, state[0]), self._state(lanes, state[1])

    def _pair_or_zeros(self, lanes: Tensor, state: State | None) -> State:
        given = self._pair(lanes, state)
        return (lanes.new_zeros(lanes.shape), lanes.new_zeros(lanes.shape)) if given is None else given


def pair_answer(
    spikes: Tensor, membrane: Tensor | None, state: State | None
) -> Tensor | tuple[Tensor | State, ...]:
    """Return the spikes alone, or with what else was asked for, in this order."""
    extra = tuple(value for value in (membrane, state) if value is not None)
    return (spikes, *extra) if extra else spikes
