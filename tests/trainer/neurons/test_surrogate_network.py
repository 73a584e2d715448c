"""The surrogate dynamic network in its inference form, and the neuron that trains on it."""

import math

import pytest
import torch
from torch import nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer import LeakyIntegrator
from unscan.trainer.neurons import surrogate_network
from unscan.trainer.neurons.surrogate_network import SHAPES, WINDOW, SurrogateLeaky, SurrogateNetwork
from unscan.trainer.recurrence import lanes
from unscan.trainer.surrogate import surrogate_gradient


def network(tau=None, seed=0, **options):
    torch.manual_seed(seed)
    net = SurrogateNetwork(tau, **options)
    net.load_state_dict(SurrogateNetwork(learn=True).state_dict())
    return net


def sequence(steps=40, *shape, dtype=torch.float64):
    torch.manual_seed(3)
    return torch.randn(steps, *(shape or (2, 6)), dtype=torch.float64).to(dtype)


def stepped(layer, x, state=None):
    outputs = []
    for x_t in x:
        y, state = layer.step(x_t, state)
        outputs.append(y)
    return torch.stack(outputs), state


def predicted_one_by_one(net, x, before):
    """The equation, one step at a time."""
    w1, b1, w2, b2, w3, b3 = (n.to(x.dtype) for n in net.numbers())
    known, outputs = torch.cat((before, x)), []
    for t in range(len(x)):
        seen = torch.movedim(known[t : t + WINDOW], 0, -1)
        h = torch.relu(seen @ w1.T + b1)
        outputs.append(torch.relu(h @ w2.T + b2 + h) @ w3 + b3[0])
    return torch.stack(outputs)


def test_has_153_numbers():
    assert sum(math.prod(shape) for shape in SHAPES.values()) == 153
    assert sum(n.numel() for n in network(learn=True).parameters()) == 153
    assert list(network().parameters()) == []


@pytest.mark.parametrize("steps", [1, 7, 8, 9, 63, 100, 1024])
@pytest.mark.parametrize("shape", [(2, 6), (75,), (2, 100)])
def test_the_kernel_and_torch_are_the_equation(steps, shape):
    net = network()
    x, before = sequence(steps, *shape), sequence(WINDOW + 1, *shape)[1:]
    want = predicted_one_by_one(net, x, before)
    torch.testing.assert_close(net(x, before), want, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.membrane(x, before), x + want, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(net.membrane(x), x + net(x, torch.zeros_like(before)), rtol=1e-12, atol=1e-13)
    narrow = net.membrane(x.float(), before.float())
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow.double(), x + want, rtol=1e-5, atol=2e-6)


@pytest.mark.slow
def test_a_long_sequence():
    net, x = network(), sequence(16384, 2, 40)
    want = predicted_one_by_one(net, x, torch.zeros(WINDOW, 2, 40).double())
    torch.testing.assert_close(net.membrane(x), x + want, rtol=1e-12, atol=1e-13)


def test_sees_the_eight_steps_before_and_no_other():
    net = network()
    x = sequence(30, 70)
    for run in (net, lambda x: net.membrane(x) - x):
        base = run(x)
        nudged = x.clone()
        nudged[10] += 1.0
        changed = ((run(nudged) - base).abs() > 1e-12).any(1).nonzero().flatten().tolist()
        assert changed == list(range(11, 19))


def test_no_step_reads_what_nobody_wrote(monkeypatch):
    want = network().membrane(sequence(50, 75))
    monkeypatch.setattr(surrogate_network, "fresh", lambda t, n, d: torch.full((t, n), torch.nan, dtype=d))
    assert torch.equal(network().membrane(sequence(50, 75)), want)


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr(lanes, "_THREADS_FROM", 1)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        want = network().membrane(sequence(50, 250))
        torch.set_num_threads(3)
        assert torch.equal(network().membrane(sequence(50, 250)), want)
    finally:
        torch.set_num_threads(before)


def test_other_types_go_through_torch():
    net = network()
    x = sequence(20, dtype=torch.bfloat16).requires_grad_()
    membrane = net.membrane(x)
    assert torch.equal(membrane, x + net(x))
    membrane.sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


@pytest.mark.parametrize("threshold", [1.0, 0.4])
@pytest.mark.parametrize("cut", [1, 5, 40, 99])
@pytest.mark.parametrize("scratch", [False, True])
def test_a_sequence_in_two_parts_is_one_run(threshold, cut, scratch):
    torch.manual_seed(1)
    layer = SurrogateLeaky(6, threshold=threshold, network="scratch" if scratch else network(0.125))
    x = sequence(100)
    spikes, membrane, last = layer(x, return_membrane=True, return_state=True)
    assert 10 < spikes.sum() < 1190
    first, m1, state = layer(x[:cut], return_membrane=True, return_state=True)
    second, m2, state = layer(x[cut:], state, return_membrane=True, return_state=True)
    assert torch.equal(torch.cat((first, second)), spikes)
    torch.testing.assert_close(torch.cat((m1, m2)), membrane, rtol=1e-13, atol=1e-13)
    assert torch.equal(state, last)
    assert torch.equal(last, x[-WINDOW:])


def test_the_state_of_a_short_sequence_has_zeros_before_it():
    layer = SurrogateLeaky(6, network=network(0.125))
    x = sequence(3)
    _, state = layer(x, return_state=True)
    assert torch.equal(state, torch.cat((torch.zeros(5, 2, 6), x)))


def test_float32_differs_from_float64_at_ties_alone():
    layer = SurrogateLeaky(40)
    x = sequence(1024, 2, 40, dtype=torch.float32)
    s64, m64 = layer(x.double(), return_membrane=True)
    s32, m32 = layer(x, return_membrane=True)
    assert s64.sum() > 1000
    rounding = (m32 - m64).abs().max()
    assert rounding < 3e-6  # sums of 73 products, the largest about 10
    assert ((m64 - 1).abs()[s32 != s64] <= rounding).all()


@pytest.mark.parametrize("learn_threshold", [False, True])
def test_gradients_are_those_of_the_formula_with_the_network_constant(learn_threshold):
    layer = SurrogateLeaky(
        6, threshold=[0.6] * 6, learn_threshold=learn_threshold, network=network(0.125)
    ).double()
    x = sequence(100).requires_grad_()
    weights = sequence(101)[1:]
    spikes = layer(x)
    (spikes * weights).sum().backward()
    theta = layer.threshold.detach()
    current = x.detach() / theta
    membrane = current + layer.network(current)
    assert torch.equal(spikes, (membrane >= 1).double())
    slope = weights * surrogate_gradient(membrane - 1, "piecewise_quadratic", 1.0)
    torch.testing.assert_close(x.grad, slope / theta, rtol=1e-10, atol=1e-12)
    if learn_threshold:  # papers/003, supplement, equation 24
        want = -(slope * x.detach() / theta**2).sum((0, 1))
        torch.testing.assert_close(layer.stored_threshold.grad, want, rtol=1e-10, atol=1e-12)
    assert all(n.grad is None for n in layer.network.numbers())


def test_the_membrane_is_in_the_units_of_the_input():
    layer = SurrogateLeaky(6, threshold=0.4, network=network(0.125)).double()
    x = sequence(50)
    spikes, membrane = layer(x, return_membrane=True)
    theta = layer.threshold
    torch.testing.assert_close(membrane, x + theta * layer.network(x / theta))
    assert torch.equal(spikes, (membrane >= theta).double())


def test_scaled_inputs_and_threshold_fire_the_same():
    layer, scaled = SurrogateLeaky(6), SurrogateLeaky(6, threshold=4.0)
    x = sequence(200)
    assert torch.equal(layer(x), scaled(4 * x))  # a power of two: no rounding
    assert torch.equal(layer.deployed()(x), scaled.deployed()(4 * x))


def test_the_steps_are_the_exact_neuron():
    layer = SurrogateLeaky(6, threshold=0.7, learn_threshold=True)
    exact = layer.deployed()
    assert (exact.reset, exact.phase, exact.fires, exact.gain) == ("zero", "now", ">=", "1")
    assert (exact.beta.item(), exact.threshold.item()) == (0.125, layer.threshold.item())
    x = sequence(100)
    spikes, last = stepped(layer, x)
    want, u = exact(x, return_state=True)
    assert spikes.sum() > 50
    assert torch.equal(spikes, want)
    assert torch.equal(last, u)
    assert layer.double().deployed().beta.dtype == torch.float64


def test_the_shipped_network_agrees_with_the_exact_neuron():
    layer = SurrogateLeaky(64)
    x = sequence(1024, 4, 64, dtype=torch.float32)
    ours, exact = layer(x), layer.deployed()(x)
    f1 = 2 * (ours * exact).sum() / (ours.sum() + exact.sum())
    assert f1 > 0.998
    near = 0.88 + 0.02 * x
    ours, exact = layer(near), layer.deployed()(near)
    assert (
        0 < 2 * (ours * exact).sum() / (ours.sum() + exact.sum()) < 0.99
    )  # which is why the figures show it


def test_from_scratch_the_network_learns_and_its_steps_are_itself():
    torch.manual_seed(0)
    layer = SurrogateLeaky(6, network="scratch", threshold=0.5)
    x = sequence(60)
    spikes, state = layer(x, return_state=True)
    assert 10 < spikes.sum() < 600
    want, last = stepped(layer, x)
    assert torch.equal(spikes, want)
    assert torch.equal(state, last)
    layer(x.requires_grad_()).sum().backward()
    assert all(n.grad.abs().sum() > 0 for n in layer.network.numbers())
    with pytest.raises(InvalidInput, match="stands for no leaky neuron"):
        layer.deployed()


@pytest.mark.parametrize("scratch", [False, True])
def test_stands_in_a_sequential_and_learns(scratch):
    torch.manual_seed(0)
    options = {"network": "scratch"} if scratch else {}
    neuron = SurrogateLeaky(20, learn_threshold=True, **options)
    model = nn.Sequential(nn.Linear(6, 20), neuron, nn.Linear(20, 3), LeakyIntegrator(3))
    x, want = sequence(25, 8, 6).float(), torch.randint(3, (8,))
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    frozen = [n.detach().clone() for n in neuron.network.numbers()]
    losses = []
    for _ in range(40):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x)[-1], want)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    stayed = all(torch.equal(a, b) for a, b in zip(neuron.network.numbers(), frozen, strict=True))
    assert stayed is not scratch


def test_is_saved_with_its_network():
    layer = SurrogateLeaky(6, network=network(0.125))
    again = SurrogateLeaky(6)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(sequence()), layer(sequence()))


def test_half_precision_inputs_are_taken_as_float32():
    layer = SurrogateLeaky(6, network=network(0.125))
    x = sequence().bfloat16()
    spikes, membrane = layer(x, return_membrane=True)
    assert membrane.dtype == torch.float32
    assert torch.equal(spikes, layer(x.float()))


def test_refuses_what_does_not_fit():
    with pytest.raises(InvalidInput, match=r"tau is 0.2, but this .* tau = 0.125.*train-sdn --tau 0.2"):
        SurrogateLeaky(6, tau=0.2)
    with pytest.raises(InvalidInput, match="trained for tau = None"):
        SurrogateLeaky(6, network=network())
    with pytest.raises(InvalidInput, match=r"no surrogate network nowhere.safetensors"):
        SurrogateLeaky(6, network="nowhere.safetensors")
    for tau in (-0.1, 1.5, math.nan, True, [0.1] * 6):
        with pytest.raises(InvalidInput, match="tau is"):
            SurrogateLeaky(6, tau=tau)
    with pytest.raises(InvalidInput, match="threshold is 0"):
        SurrogateLeaky(6, threshold=0.0)
    layer = SurrogateLeaky(6, network=network(0.125))
    with pytest.raises(InvalidInput, match=r"the last 8 inputs, \(8, 2, 6\)"):
        layer(sequence(), torch.zeros(2, 6))
    with pytest.raises(InvalidInput, match=r"state has shape \(8, 2, 6\)"):
        layer.step(sequence()[0], torch.zeros(8, 2, 6))
    for x, message in ((torch.zeros(5, 2, 7), "6 channels"), (torch.zeros(0, 2, 6), "no steps")):
        with pytest.raises(InvalidInput, match=message):
            layer(x)
