"""What a network is made of, as a recipe says it: neurons, layers, readout; validated before anything is built."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from unscan.trainer.surrogate import SURROGATES

Positive = Annotated[int, Field(ge=1)]
Decay = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


def _known_curve(name: str) -> str:
    if name not in SURROGATES:
        raise ValueError(f"allowed: {', '.join(SURROGATES)}")
    return name


Curve = Annotated[str, AfterValidator(_known_curve)]


class Settings(BaseModel):
    """A group of settings: unknown keys are refused, and nothing changes once it is read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Threshold(Settings):
    """What everything that fires shares."""

    threshold: float = Field(default=1.0, gt=0)
    learn_threshold: bool = False
    fires: Literal[">=", ">"] = ">="
    surrogate: Curve = "atan"
    surrogate_width: float | None = Field(default=None, gt=0)


class Decaying(Settings):
    """What neurons with a membrane share.

    `beta_to` spreads the decays over the channels, from `beta` in the first to `beta_to` in the last, with
    1 - beta evenly spaced on a logarithmic scale; equal to `beta` it gives every channel its own, to be learned
    apart. Without it one beta serves the whole layer.
    """

    beta: Decay = 0.9
    beta_to: Decay | None = None
    learn_beta: bool = False


class _Gained(Decaying):
    gain: Literal["1", "1-beta"] = "1"

    @field_validator("gain", mode="before")
    @classmethod
    def _gain_as_text(cls, gain: Any) -> Any:
        return "1" if gain == 1 else gain


class LeakyNeuron(_Gained, Threshold):
    """The LIF neuron with its reset, trained exactly (`unscan.trainer.neurons.Leaky`)."""

    kind: Literal["leaky"] = "leaky"
    reset: Literal["zero", "subtract", "none"] = "zero"
    phase: Literal["now", "next"] = "now"
    backward: Literal["bptt", "sltt"] = "bptt"
    form: Literal["fused", "loop"] = "fused"


class StateLeakyNeuron(_Gained, Threshold):
    """The neuron without reset, parallel in time (`unscan.trainer.neurons.StateLeaky`)."""

    kind: Literal["state_leaky"]
    form: Literal["auto", "scan", "fft", "direct"] = "auto"


class AnnealedNeuron(_Gained, Threshold):
    """The neuron whose reset is let in by and by (`unscan.trainer.neurons.AnnealedLeaky`)."""

    kind: Literal["annealed_leaky"]
    end: float = Field(default=1.0, ge=0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warm_up: Share = 0.1
    rounds: Positive | None = 1
    learn_reset: bool = False


class SurrogateNeuron(Settings):
    """The neuron whose membrane a small network predicts (`unscan.trainer.neurons.SurrogateLeaky`).

    `network` is a file of `unscan train-sdn`, or "scratch" for one that learns with the task, by default the one that
    is shipped.
    """

    kind: Literal["surrogate_leaky"]
    network: str | None = None
    tau: Annotated[float, Field(ge=0, lt=1)] = 0.125
    threshold: float = Field(default=1.0, gt=0)
    learn_threshold: bool = False
    surrogate: Curve = "piecewise_quadratic"
    surrogate_width: float | None = Field(default=None, gt=0)


class SlidingNeuron(Threshold):
    """The sliding parallel spiking neuron (`unscan.trainer.neurons.SlidingPSN`)."""

    kind: Literal["sliding_psn"]
    order: Positive = 8
    beta: Decay = 0.5
    learn_weight: bool = True


class StochasticNeuron(Decaying):
    """The neuron that fires by chance (`unscan.trainer.neurons.StochasticLeaky`)."""

    kind: Literal["stochastic_leaky"]
    threshold: float = Field(default=1.0, gt=0)
    learn_threshold: bool = False
    fires: Literal[">=", ">"] = ">="
    width: float = Field(default=1.0, gt=0)
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


class SynapticNeuron(_Gained, Threshold):
    """The neuron with a leaky current in front (`unscan.trainer.neurons.Synaptic`)."""

    kind: Literal["synaptic"]
    alpha: Decay = 0.8
    learn_alpha: bool = False
    reset: Literal["zero", "subtract", "none"] = "zero"
    phase: Literal["now", "next"] = "now"


class AdaptiveNeuron(Decaying, Threshold):
    """The neuron whose threshold rises with its spikes (`unscan.trainer.neurons.AdaptiveLeaky`)."""

    kind: Literal["adaptive_leaky"]
    reset: Literal["subtract", "zero", "none"] = "subtract"
    kappa: float = Field(default=0.05, gt=0)
    rho: Decay = 0.97
    learn_kappa: bool = False
    learn_rho: bool = False


class BinaryNeuron(Threshold):
    """A threshold and nothing else (`unscan.trainer.neurons.BinaryThreshold`); in a state-space block, Binary S4D."""

    kind: Literal["binary"]


Neuron = Annotated[
    LeakyNeuron
    | StateLeakyNeuron
    | AnnealedNeuron
    | SurrogateNeuron
    | SlidingNeuron
    | StochasticNeuron
    | SynapticNeuron
    | AdaptiveNeuron
    | BinaryNeuron,
    Field(discriminator="kind"),
]


class Dense(Settings):
    """Linear, norm, neuron, dropout.

    `norm: batch` normalises each channel over time and batch before the neuron. `residual` adds the layer's
    input to its output and needs both equally wide. `start: clocks` is a starting point for a layer that sees
    one or few numbers at a time, `start: unit` scales its currents to unit deviation on the first batch (see
    `unscan.trainer.start`). `lr_scale` multiplies the learning rate of the layer's weights; 0 leaves them as they
    start.
    """

    kind: Literal["dense"] = "dense"
    width: Positive
    neuron: Neuron
    norm: Literal["none", "batch"] = "none"
    dropout: Share = 0.0
    residual: bool = False
    start: Literal["default", "clocks", "unit"] = "default"
    lr_scale: float = Field(default=1.0, ge=0)

    def width_after(self, before: int) -> int:
        """Give the width of the output for that of the input."""
        return self.width


class Linear(Settings):
    """A linear map of each step, and possibly a ReLU: an encoder in front, a map in between."""

    kind: Literal["linear"]
    width: Positive
    activation: Literal["none", "relu"] = "none"
    start: Literal["default", "unit"] = "default"

    def width_after(self, before: int) -> int:
        """Give the width of the output for that of the input."""
        return self.width


class StateSpace(Settings):
    """A block of papers/003 (`unscan.trainer.neurons.SpikingSSM`), as wide as its input.

    Norm, S4D with `states` states a channel, threshold, neuron, dropout, linear, GLU, dropout, residual.
    A `learned` threshold is one for each channel (VT in the paper), which scales what the neuron sees; a `fixed` one
    is 1 (VF).
    """

    kind: Literal["spiking_ssm"]
    states: Positive = 64
    neuron: Neuron = LeakyNeuron(beta=0.125, surrogate="piecewise_quadratic")
    threshold: Literal["fixed", "learned"] = "learned"
    norm: Literal["none", "batch", "layer"] = "layer"
    dropout: Share = 0.0
    dt_min: float = Field(default=0.001, gt=0)
    dt_max: float = Field(default=0.1, gt=0)
    form: Literal["auto", "fused", "fft", "loop"] = "auto"
    start: Literal["default"] = "default"

    @model_validator(mode="after")
    def _dt_in_order(self) -> Self:
        if self.dt_min > self.dt_max:
            raise ValueError(
                f"dt_min is {self.dt_min} with dt_max {self.dt_max}; allowed: dt_min up to dt_max"
            )
        return self

    def width_after(self, before: int) -> int:
        """Give the width of the output for that of the input."""
        return before


class Memory(Threshold):
    """A layer with a matrix of d_value x d_key as its state; `queries` columns are read from it at each step.

    With `use_q` false the spikes of the matrix are the output. `queries` is d_value by default. `norm` is taken of what
    it gives. Its decays start spread from `alpha` to `alpha_to`, if given; `start: unit` scales its state, on
    the first batch, to size 1 (see `unscan.trainer.start`).
    """

    d_value: Positive
    d_key: Positive
    use_q: bool = True
    queries: Positive | None = None
    top_k: Positive | None = None
    norm: Literal["none", "layer"] = "none"
    residual: bool = False
    alpha: Decay | None = None
    alpha_to: Decay | None = None
    start: Literal["default", "unit"] = "default"

    def width_after(self, before: int) -> int:
        """Give the width of the output for that of the input."""
        return self.d_value * ((self.queries or self.d_value) if self.use_q else self.d_key)


class AssociativeMemory(Memory):
    """Write and forget by column (`unscan.trainer.neurons.AssociativeLeaky`).

    `start: thermometer`, behind a linear layer without activation, lets it start as a thermometer of the recent past
    of that layer's inputs.
    """

    kind: Literal["associative_leaky"]
    start: Literal["default", "unit", "thermometer"] = "default"  # type: ignore[assignment]


class DeltaMemory(Memory):
    """Write over what stood there (`unscan.trainer.neurons.DeltaLeaky`)."""

    kind: Literal["delta_leaky"]


Layer = Annotated[Dense | Linear | StateSpace | AssociativeMemory | DeltaMemory, Field(discriminator="kind")]


class LeakyReadout(Settings):
    """Linear, then a leaky integrator u_t = beta u_{t-1} + x_t for each output."""

    kind: Literal["leaky_integrator"] = "leaky_integrator"
    beta: float = Field(default=0.99, gt=0, le=1)
    gain: Literal["1", "1-beta"] = "1"
    learn_beta: bool = False
    decision: Literal["last", "mean", "every"] = "last"


class LinearReadout(Settings):
    """Linear alone."""

    kind: Literal["linear"]
    decision: Literal["last", "mean", "every"] = "mean"


class SpikingReadout(Settings):
    """Linear, then a neuron for each output, whose rate over time decides."""

    kind: Literal["spiking"]
    neuron: Neuron = LeakyNeuron()
    decision: Literal["mean"] = "mean"


Readout = Annotated[LeakyReadout | LinearReadout | SpikingReadout, Field(discriminator="kind")]


class Network(Settings):
    """The layers from input to readout.

    The readout's `decision` takes a sequence's answer from its `last` step or from the `mean` over time (of a
    spiking readout: the rate), or takes one from `every` step, for tasks that ask for it.
    """

    layers: Annotated[tuple[Layer, ...], Field(min_length=1)]
    readout: Readout = LeakyReadout()

    @model_validator(mode="before")
    @classmethod
    def _usual_kinds(cls, given: Any) -> Any:
        """A layer is dense, and a readout a leaky integrator, unless it says otherwise."""
        if not isinstance(given, dict):
            return given
        given = dict(given)
        if isinstance(given.get("layers"), list | tuple):
            given["layers"] = [
                {"kind": "dense"} | layer if isinstance(layer, dict) else layer for layer in given["layers"]
            ]
        if isinstance(given.get("readout"), dict):
            given["readout"] = {"kind": "leaky_integrator"} | given["readout"]
        return given

    @model_validator(mode="after")
    def _residual_widths(self) -> Self:
        width = None
        for index, layer in enumerate(self.layers):
            before, width = width, layer.width_after(width or 0) or None
            if before and width and getattr(layer, "residual", False) and before != width:
                raise ValueError(
                    f"layers.{index} is residual with width {width} after width {before}; "
                    f"allowed: width {before}, or residual: false"
                )
        return self

    @model_validator(mode="after")
    def _thermometers_have_an_encoder(self) -> Self:
        for index, layer in enumerate(self.layers):
            before = self.layers[index - 1] if index else None
            if layer.start == "thermometer" and not (
                isinstance(before, Linear) and before.activation == "none"
            ):
                raise ValueError(
                    f"layers.{index}.start is thermometer, which reads the inputs of a linear layer without activation "
                    "in front; allowed: such a layer in front, or another start"
                )
        return self

    @property
    def has_batch_norm(self) -> bool:
        """Whether a layer takes statistics over the batch."""
        return any(getattr(layer, "norm", "none") == "batch" for layer in self.layers)


class Augmentation(Settings):
    """Vary the training sequences anew in each epoch.

    `shift` moves each sequence by up to so many steps earlier or later, zeros filling the gap; `noise` is the
    standard deviation of normal noise added to real inputs.
    """

    shift: Annotated[int, Field(ge=0)] = 0
    noise: float = Field(default=0.0, ge=0)
