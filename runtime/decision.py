"""From the outputs of a sequence to a decision, and how often it is right."""

from __future__ import annotations

import numpy as np

from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Array

DECISIONS = ("last", "mean")


def decide(outputs: Array, how: str) -> Array:
    """Return the class of each sample from outputs (T, B, classes): the largest at the last step, or of the mean.

    Raises:
        InvalidInput: `how` is neither last nor mean.
    """
    if how not in DECISIONS:
        raise InvalidInput(f"The decision over time is {how!r}; choose one of {', '.join(DECISIONS)}.")
    scores = outputs[-1] if how == "last" else outputs.mean(axis=0)
    return np.asarray(scores.argmax(axis=-1))


def accuracy(outputs: Array, labels: Array, how: str) -> float:
    """Return the share of samples that are decided right."""
    return float(np.mean(decide(outputs, how) == labels))
