"""Neurons: each with the form that trains, over a whole sequence, and the form that is deployed, step by step."""

from unscan.trainer.neurons.adaptive import AdaptiveLeaky
from unscan.trainer.neurons.annealed_leaky import AnnealedLeaky
from unscan.trainer.neurons.associative_leaky import AssociativeLeaky
from unscan.trainer.neurons.binary import BinaryThreshold
from unscan.trainer.neurons.delta_leaky import DeltaLeaky
from unscan.trainer.neurons.leaky import Leaky
from unscan.trainer.neurons.leaky_integrator import LeakyIntegrator
from unscan.trainer.neurons.linear_leaky import LinearLeaky
from unscan.trainer.neurons.s4d import S4D
from unscan.trainer.neurons.sliding_psn import SlidingPSN
from unscan.trainer.neurons.spiking_ssm import SpikingSSM
from unscan.trainer.neurons.state_leaky import StateLeaky
from unscan.trainer.neurons.stochastic import StochasticLeaky
from unscan.trainer.neurons.surrogate_network import SurrogateLeaky
from unscan.trainer.neurons.synaptic import Synaptic

__all__ = [
    "S4D",
    "AdaptiveLeaky",
    "AnnealedLeaky",
    "AssociativeLeaky",
    "BinaryThreshold",
    "DeltaLeaky",
    "Leaky",
    "LeakyIntegrator",
    "LinearLeaky",
    "SlidingPSN",
    "SpikingSSM",
    "StateLeaky",
    "StochasticLeaky",
    "SurrogateLeaky",
    "Synaptic",
]
