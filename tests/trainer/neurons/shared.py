"""What is asked of every neuron layer, whatever its equations."""

import pytest
import torch

from unscan.compiler.errors import InvalidInput


def sequence(steps=40, *shape, dtype=torch.float64):
    torch.manual_seed(3)
    return torch.randn(steps, *(shape or (2, 6)), dtype=torch.float64).to(dtype)


def tensors(state):
    """The parts of a state: one tensor, a pair of them, or none."""
    return [] if state is None else [state] if isinstance(state, torch.Tensor) else list(state)


def stepped(layer, x, state=None):
    """Walk with `layer.step`: all spikes, and the last state."""
    spikes = []
    for x_t in x:
        s, state = layer.step(x_t, state)
        spikes.append(s)
    return torch.stack(spikes), state


def same_states(got, want):
    return all(torch.equal(a, b) for a, b in zip(tensors(got), tensors(want), strict=True))


def assert_steps_are_the_sequence(layer, x):
    """Spikes, last state, and a sequence in two parts, bit for bit; and each output in its stated place."""
    spikes, membrane, state = layer(x, return_membrane=True, return_state=True)
    want, last = stepped(layer, x)
    assert torch.equal(spikes, want)
    assert same_states(state, last)
    assert membrane.shape == spikes.shape == x.shape
    assert torch.equal(layer(x), spikes)
    assert all(
        torch.equal(a, b) for a, b in zip(layer(x, return_membrane=True), (spikes, membrane), strict=True)
    )
    for cut in (1, len(x) // 3):
        if 0 < cut < len(x):
            first, carried = layer(x[:cut], return_state=True)
            second, end = layer(x[cut:], carried, return_state=True)
            assert torch.equal(torch.cat((first, second)), spikes)
            assert same_states(end, state)
    return spikes


def assert_gradients_are_those_of_the_steps(layer, x, tolerance):
    """Gradients of the input and of all parameters: the sequence against the steps under autograd."""
    torch.manual_seed(5)
    weight = torch.randn_like(x)
    gradients = []
    for run in (layer, lambda x: stepped(layer, x)[0]):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        (run(leaf) * weight).sum().backward()
        gradients.append([leaf.grad, *(p.grad.clone() for p in layer.parameters())])
    for a, b in zip(*gradients, strict=True):
        assert b.any()
        assert (a - b).abs().max() <= tolerance * b.abs().max()


def assert_refuses_wrong_shapes(make):
    layer = make(6)
    for x, message in (
        (torch.zeros(6), "time first"),
        (torch.zeros(0, 2, 6), "no steps"),
        (torch.zeros(5, 2, 7), r"6 channels, but its input ends in \(7,\)"),
        (torch.zeros(5, 0, 6), "empty"),
        (torch.zeros(5, 2, 6, dtype=torch.int64), "floating point"),
    ):
        with pytest.raises(InvalidInput, match=message):
            layer(x)
    with pytest.raises(InvalidInput, match="channels"):
        layer.step(torch.zeros(2, 7))
    for channels in (0, -1, 2.0, True):
        with pytest.raises(InvalidInput, match="channels"):
            make(channels)


def assert_learns(layer):
    """A layer between two linear ones fits random labels."""
    torch.manual_seed(0)
    x, want = sequence(25, 8, 6, dtype=torch.float32), torch.randint(3, (8,))
    model = torch.nn.Sequential(torch.nn.Linear(6, layer.channels), layer, torch.nn.Linear(layer.channels, 3))
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x).mean(0), want)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]
