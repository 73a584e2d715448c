"""Inputs as events: lists and files of (t, neuron) or (t, x, y, p), binned into steps of a stated length."""

from unscan.runtime.events.binning import Binned, Binning, Tally, binned, binning
from unscan.runtime.events.events import Events
from unscan.runtime.events.files import Recordings, chunks, read, read_all, write
from unscan.runtime.events.stepping import Step, Stepped

__all__ = [
    "Binned",
    "Binning",
    "Events",
    "Recordings",
    "Step",
    "Stepped",
    "Tally",
    "binned",
    "binning",
    "chunks",
    "read",
    "read_all",
    "write",
]
