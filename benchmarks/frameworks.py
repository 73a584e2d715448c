"""One network in the frameworks of others: `python frameworks.py NAME NETWORK.npz`, in the environment that has NAME.

The archive holds x (T, B, inputs), beta, the weights w0, w1, ... (outputs, inputs) and the thresholds of the layers;
every layer is one of leaky neurons with a hard reset at once. Each line read from stdin asks for one number: `count`
for the spikes of all layers, `time SECONDS` for the milliseconds of a call. Between two lines nothing runs, so that
whoever asks several of these processes in turn measures them interleaved.

This file stands on torch, numpy and one framework, not on unscan.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

Sent = Callable[[], Iterator[tuple[Tensor, ...]]]
"""What runs a network: the spikes of every layer, step by step, or of all steps at once where it goes by layers."""
Step = Callable[[Tensor, list[Any]], tuple[Tensor, ...]]
"""One step: input and states, which it replaces, to the spikes of every layer."""


def timed(call: Callable[[], object], at_least: float) -> float:
    """Return the milliseconds of one call, the mean of as many as fill `at_least` seconds, after as many untimed.

    Those before wake a core that has waited while another process was timed.
    """
    taken, calls = 0.0, 0
    for _ in range(2):
        start, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - start < at_least:
            call()
            calls += 1
        taken = time.perf_counter() - start
    return taken / calls * 1e3


def stepped(step: Step, layers: int, x: Tensor) -> Sent:
    """Run a step over x."""

    def sent() -> Iterator[tuple[Tensor, ...]]:
        state: list[Any] = [None] * layers
        for x_t in x:
            yield step(x_t, state)

    return sent


def torch_loop(weights: list[Tensor], thetas: list[float], beta: float, x: Tensor) -> Sent:
    """Run the equations themselves, step by step."""

    def step(spikes: Tensor, state: list[Any]) -> tuple[Tensor, ...]:
        sent = []
        for i, (weight, theta) in enumerate(zip(weights, thetas, strict=True)):
            current = linear(spikes, weight)
            membrane = current if state[i] is None else beta * state[i] + current
            spikes = (membrane > theta).to(membrane.dtype)
            state[i] = membrane * (1 - spikes)
            sent.append(spikes)
        return tuple(sent)

    return stepped(step, len(weights), x)


def snntorch(weights: list[Tensor], thetas: list[float], beta: float, x: Tensor) -> Sent:
    """Run snnTorch's Leaky, step by step."""
    import snntorch as snn

    cells = [snn.Leaky(beta, threshold=theta, reset_mechanism="zero", reset_delay=False) for theta in thetas]

    def step(spikes: Tensor, state: list[Any]) -> tuple[Tensor, ...]:
        sent = []
        for i, cell in enumerate(cells):
            membrane = cell.init_leaky() if state[i] is None else state[i]
            spikes, state[i] = cell(linear(spikes, weights[i]), membrane)
            sent.append(spikes)
        return tuple(sent)

    return stepped(step, len(weights), x)


def norse(weights: list[Tensor], thetas: list[float], beta: float, x: Tensor) -> Sent:
    """Run norse's LIFBoxCell, step by step; it has no unit input gain, so weights are divided by 1 - beta."""
    from norse.torch import LIFBoxCell, LIFBoxParameters

    rate = torch.tensor((1 - beta) / 1e-3)
    cells = [LIFBoxCell(p=LIFBoxParameters(tau_mem_inv=rate, v_th=torch.tensor(theta))) for theta in thetas]
    scaled = [weight / (1 - beta) for weight in weights]

    def step(spikes: Tensor, state: list[Any]) -> tuple[Tensor, ...]:
        sent = []
        for i, cell in enumerate(cells):
            spikes, state[i] = cell(linear(spikes, scaled[i]), state[i])
            sent.append(spikes)
        return tuple(sent)

    return stepped(step, len(weights), x)


def sinabs(weights: list[Tensor], thetas: list[float], beta: float, x: Tensor) -> Sent:
    """Run sinabs' LIF, which takes all steps (B, T, C) of a layer; it fires at a tie."""
    from sinabs.activation import MembraneReset, SingleSpike
    from sinabs.layers import LIF

    neurons = [
        LIF(
            tau_mem=-1 / np.log(beta),
            spike_threshold=torch.tensor(theta),
            spike_fn=SingleSpike,
            reset_fn=MembraneReset(),
            norm_input=False,
        )
        for theta in thetas
    ]
    turned = x.transpose(0, 1).contiguous()

    def sent() -> Iterator[tuple[Tensor, ...]]:
        for neuron in neurons:
            neuron.reset_states()
        yield layered(weights, neurons, turned)

    return sent


def spikingjelly(weights: list[Tensor], thetas: list[float], beta: float, x: Tensor) -> Sent:
    """Run SpikingJelly's LIFNode, which takes all steps (T, B, C) of a layer; it fires at a tie."""
    from spikingjelly.activation_based.functional import reset_net
    from spikingjelly.activation_based.neuron import LIFNode

    neurons = [
        LIFNode(tau=1 / (1 - beta), decay_input=False, v_threshold=theta, v_reset=0.0, step_mode="m").eval()
        for theta in thetas
    ]

    def sent() -> Iterator[tuple[Tensor, ...]]:
        for neuron in neurons:
            reset_net(neuron)
        yield layered(weights, neurons, x)

    return sent


def layered(weights: list[Tensor], neurons: list[Any], spikes: Tensor) -> tuple[Tensor, ...]:
    """Run layer after layer, each over all steps."""
    sent = []
    for weight, neuron in zip(weights, neurons, strict=True):
        spikes = neuron(linear(spikes, weight))
        sent.append(spikes)
    return tuple(sent)


FRAMEWORKS = {
    "torch": torch_loop,
    "snntorch": snntorch,
    "norse": norse,
    "sinabs": sinabs,
    "spikingjelly": spikingjelly,
}


def opened(name: str, path: str) -> Sent:
    """Build the network of an archive in one framework."""
    archive = np.load(path)
    weights = [torch.from_numpy(archive[f"w{i}"]) for i in range(len(archive["thresholds"]))]
    thetas = [float(theta) for theta in archive["thresholds"]]
    return FRAMEWORKS[name](weights, thetas, float(archive["beta"]), torch.from_numpy(archive["x"]))


@torch.inference_mode()
def answer(sent: Sent, asked: str, *more: str) -> float:
    """Return the number that a line asks for."""
    if asked == "count":
        return sum(int(spikes.sum()) for layers in sent() for spikes in layers)
    return timed(lambda: [layers[-1] for layers in sent()], float(more[0]))


def main() -> None:
    """Answer line by line, and print nothing else."""
    torch.set_num_threads(1)
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):
        sent = opened(*sys.argv[1:])
        for line in sys.stdin:
            print(answer(sent, *line.split()), file=answers, flush=True)


if __name__ == "__main__":
    main()
