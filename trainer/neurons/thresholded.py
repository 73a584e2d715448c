"""What neurons share that have a threshold but no membrane that leaks: no decay, and so no beta."""

from unscan.trainer.neurons.base import SpikingNeuron, Values
from unscan.trainer.recurrence.naive import Firing


class Thresholded(SpikingNeuron):
    """A layer of C neurons that fire where something is at its threshold: s = H(u - theta)."""

    def __init__(
        self,
        channels: int,
        threshold: Values,
        fires: str,
        learn_threshold: bool,
        surrogate: str,
        surrogate_width: float | None,
    ) -> None:
        super().__init__(channels, threshold, learn_threshold)
        self.how = Firing("none", "now", fires, "1", surrogate, surrogate_width)
        self.reset, self.phase, self.fires, self.gain = "none", "now", fires, "1"
        self.surrogate, self.surrogate_width = surrogate, surrogate_width
