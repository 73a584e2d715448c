"""Neurons: each with the form that trains, over a whole sequence, and the form that is deployed, step by step."""

from unscan.trainer.neurons.leaky import Leaky
from unscan.trainer.neurons.leaky_integrator import LeakyIntegrator
from unscan.trainer.neurons.linear_leaky import LinearLeaky
from unscan.trainer.neurons.state_leaky import StateLeaky

__all__ = ["Leaky", "LeakyIntegrator", "LinearLeaky", "StateLeaky"]
