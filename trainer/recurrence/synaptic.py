"""The leaky neuron behind a leaky synapse: a scan for the synapse, then the fused kernel of the neuron."""

import torch
from torch import Tensor

from unscan.trainer.recurrence.fused import lif
from unscan.trainer.recurrence.naive import Firing, li_step, lif_step
from unscan.trainer.recurrence.scan import scan

State = tuple[Tensor, Tensor]


def synaptic_step(
    x: Tensor, state: State, alpha: Tensor, beta: Tensor, threshold: Tensor, how: Firing
) -> tuple[Tensor, Tensor, State]:
    """Advance a neuron with a synaptic current by one step: spikes, membrane before reset, state.

        i <- alpha i + x        then `naive.lif_step` with i as its input

    x, i and u (..., C); alpha, beta and threshold () or (C,). Where `gain` is "1-beta" the neuron takes in
    (1 - beta) i.
    """
    i, u = state
    i = li_step(x, i, alpha)
    s, m, u = lif_step(i, u, beta, threshold, how)
    return s, m, (i, u)


def synaptic_loop(
    x: Tensor, state: State, alpha: Tensor, beta: Tensor, threshold: Tensor, how: Firing
) -> tuple[Tensor, Tensor, State]:
    """Walk a sequence with `synaptic_step`: x (T, ..., C) -> spikes, membranes before reset, last state."""
    spikes, membranes = [], []
    for x_t in x.unbind(0):
        s, m, state = synaptic_step(x_t, state, alpha, beta, threshold, how)
        spikes.append(s)
        membranes.append(m)
    return torch.stack(spikes), torch.stack(membranes), state


def synaptic(
    x: Tensor,
    state: State | None,
    alpha: Tensor,
    beta: Tensor,
    threshold: Tensor,
    how: Firing,
    *,
    membrane: bool = True,
) -> tuple[Tensor, Tensor | None, State]:
    """Walk a sequence in two passes: spikes, membranes before reset if asked, last state.

    x (T, ..., C), state two of (..., C) or None for zeros. Equals `synaptic_loop` spike for spike; gradients differ
    from the loop's by rounding. What the kernels cannot take goes through the loops (see `fused.runs_fused`).
    """
    i, u = (None, None) if state is None else state
    currents = scan(x, i, alpha)
    spikes, kept, last = lif(currents, u, beta, threshold, how, membrane=membrane)
    assert last is not None
    return spikes, kept, (currents[-1], last)
