"""Measure every way to train one hard-reset neuron, forward and backward, by length: papers/003, table 1.

    unscan bench training [--quick] [--json FILE]

Methods: the step loop with the full gradient (BPTT) and without one through time (SLTT), over x.unbind(0), which
is the fair way to write it; the surrogate dynamic network (SDN), without a gradient through it; the convolution
by FFT without reset; reset annealing with one correction round; and the exact neuron in fused kernels, BPTT and
SLTT. tau = 0.125, threshold 1, currents N(0, 1). 64 sequences of one channel, the paper's setting, and 32 of 128
channels. One thread, in turns, medians; milliseconds, and times the fused exact neuron's with BPTT.
"""

import torch

from unscan.benchmarks.measuring import Pass, comparison, medians, options, screen, trained, write
from unscan.trainer import AnnealedLeaky, Leaky, StateLeaky, SurrogateLeaky

TAU = 0.125
LENGTHS = (1024, 2048, 4096, 8192)
LANES = ((64, 1), (32, 128))
OURS = "exact reset, fused"


def methods(steps: int, batch: int, channels: int) -> dict[str, Pass]:
    """Prepare a pass of each method on the same currents."""
    torch.manual_seed(0)
    x = torch.randn(steps, batch, channels, requires_grad=True)
    gradient = torch.randn(steps, batch, channels)
    annealed = AnnealedLeaky(channels, TAU, rounds=1)
    annealed.anneal(1.0)
    layers = {
        "step loop, BPTT": Leaky(channels, TAU, form="loop"),
        "step loop, SLTT": Leaky(channels, TAU, form="loop", backward="sltt"),
        "SDN": SurrogateLeaky(channels),
        "FFT, no reset": StateLeaky(channels, TAU, form="fft"),
        "annealed, 1 round": annealed,
        OURS: Leaky(channels, TAU),
        "exact reset, fused, SLTT": Leaky(channels, TAU, backward="sltt"),
    }
    return {name: trained(layer, [x], gradient) for name, layer in layers.items()}


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison and print it."""
    given = options(__doc__, quick="two short lengths, a few seconds").parse_args(arguments)
    console = screen()
    torch.set_num_threads(1)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for batch, channels in LANES[:1] if given.quick else LANES:
        found = results.setdefault(f"{batch * channels} lanes", {})
        for steps in (256, 512) if given.quick else LENGTHS:
            console.print(f"measuring (T, B, C) = ({steps}, {batch}, {channels}) ...", style="dim")
            found[f"L = {steps}"] = medians(methods(steps, batch, channels), 2 if given.quick else 10)
    for lanes, found in results.items():
        title = f"{lanes}, forward + backward, float32, one thread: ms (times ours)"
        console.print(comparison(title, found, OURS))
    write(given.json, milliseconds=results)


if __name__ == "__main__":
    main()
