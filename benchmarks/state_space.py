"""Measure a training pass of S4D, forward and backward, in its three forms.

    unscan bench state_space [--quick] [--json FILE]

The kernels ("fused") against the causal convolution by fast Fourier transform ("fft", how S4D is usually trained)
and the step loop in complex torch ("loop", over the first 32 steps only; its time is multiplied to the whole
length, which favours it, as its backward takes memory for each step). The skip D x is part of each, and so is
working out the coefficients from dt, A and C. float32, one thread, in turns, medians, and times the kernels'.
"""

import torch

from unscan.benchmarks.measuring import Pass, comparison, medians, options, screen, trained, write
from unscan.trainer import S4D

Shape = tuple[int, int, int, int]
SHAPES: list[Shape] = [(784, 50, 128, 64), (1024, 16, 256, 64), (8192, 4, 64, 64)]  # (T, B, H, N)
QUICK: list[Shape] = [(256, 4, 64, 16)]
LOOP_STEPS = 32


def method(form: str, shape: Shape) -> Pass:
    """Prepare a pass of one form."""
    steps, batch, channels, states = shape
    torch.manual_seed(0)
    x = torch.randn(steps, batch, channels, requires_grad=True)
    return trained(S4D(channels, states, form=form), [x], torch.randn(steps, batch, channels))


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison and print it."""
    given = options(__doc__, quick="one small size, a few seconds").parse_args(arguments)
    console = screen()
    torch.set_num_threads(1)
    results: dict[str, dict[str, float]] = {}
    for shape in QUICK if given.quick else SHAPES:
        console.print(f"measuring {shape} ...", style="dim")
        passes = {form: method(form, shape) for form in ("fused", "fft")}
        passes["loop"] = method("loop", (LOOP_STEPS, *shape[1:]))
        found = results[str(shape)] = medians(passes, 2 if given.quick else 10)
        found["loop"] *= shape[0] / LOOP_STEPS
    console.print(comparison("(T, B, H, N), forward + backward: ms (times ours)", results, "fused"))
    write(given.json, milliseconds=results)


if __name__ == "__main__":
    main()
