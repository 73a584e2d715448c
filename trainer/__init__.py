"""Build and train spiking state-space models in the form that sees a whole sequence at once."""

from unscan.trainer.neurons import *  # noqa: F403 the neurons are what the trainer is for
from unscan.trainer.neurons import __all__ as __all__
