"""Build and train spiking state-space models in the form that sees a whole sequence at once."""

from unscan.trainer.neurons import Leaky, LeakyIntegrator, LinearLeaky, StateLeaky

__all__ = ["Leaky", "LeakyIntegrator", "LinearLeaky", "StateLeaky"]
