"""Measure a training pass of one neuron layer, forward and backward, against the ways it is usually done.

    unscan bench neurons [--quick] [--json FILE]

Methods: unscan's fused Leaky (exact hard reset), with fixed and with learnable beta and threshold; a fair eager
loop over x.unbind(0) with the same equations; snnTorch's Leaky and StateLeaky (direct convolution, no reset);
and, as the floor of any method, three copies of the input tensor that allocate their results, as a layer does.
All run on one thread in one process, one after the other in each round, and the table shows medians over rounds
and ratios to the fused Leaky of the same run. The copies are also shown with results that are already in memory.
Nothing about torch's or the system's memory is changed: what the fused layer gains by asking for large pages
(numpy's default for large arrays) is part of what is measured.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unscan.benchmarks.measuring import Pass, comparison, medians, options, screen, trained, write
from unscan.trainer import Leaky
from unscan.trainer.recurrence.naive import Firing, lif_step

# (T, B, C). 64 sequences of one channel is the setting of 003, table 1; 64 channels of one sequence has as many
# lanes, and only snnTorch's StateLeaky, a convolution grouped by channels, tells them apart.
SHAPES = [(1024, 64, 1), (8192, 64, 1), (8192, 1, 64), (1024, 32, 128), (8192, 32, 128)]
QUICK = [(256, 64, 1), (1024, 64, 1)]
LOOP_LIMIT = 6_000_000  # lane-steps
STATE_LEAKY_LIMIT = 5_000_000_000  # steps x steps x lanes: a direct convolution is quadratic in time
RULE = (
    f"Left out for time and memory: loops beyond {LOOP_LIMIT:,} steps x lanes, "
    f"StateLeaky's direct convolution beyond {STATE_LEAKY_LIMIT:,} steps x steps x lanes."
)


def eager(x: Tensor) -> Tensor:
    how, beta, threshold = Firing("zero"), torch.tensor(0.9), torch.tensor(1.0)
    u, spikes = torch.zeros_like(x[0]), []
    for x_t in x.unbind(0):
        s, _, u = lif_step(x_t, u, beta, threshold, how)
        spikes.append(s)
    return torch.stack(spikes)


def snntorch_leaky(snntorch: Any) -> Callable[[Tensor], Tensor]:
    layer = snntorch.Leaky(beta=0.9, reset_mechanism="zero")

    def run(x: Tensor) -> Tensor:
        memory, spikes = layer.init_leaky(), []
        for x_t in x.unbind(0):
            s, memory = layer(x_t, memory)
            spikes.append(s)
        return torch.stack(spikes)

    return run


def methods(shape: tuple[int, int, int], snntorch: Any) -> dict[str, Pass]:
    steps, batch, channels = shape
    torch.manual_seed(0)
    x = (torch.randn(shape) * 0.5).requires_grad_()
    gradient = torch.randn(shape)
    plain = x.detach()
    kept = [torch.zeros(shape) for _ in range(3)]
    chosen: dict[str, Pass] = {
        "unscan Leaky": trained(Leaky(channels), [x], gradient),
        "unscan Leaky, learnable": trained(
            Leaky(channels, learn_beta=True, learn_threshold=True), [x], gradient
        ),
        "three copies": lambda: [plain.clone() for _ in range(3)],
        "three copies, no new memory": lambda: [k.copy_(plain) for k in kept],
    }
    lanes = batch * channels
    if steps * lanes <= LOOP_LIMIT:
        chosen["eager loop over x.unbind(0)"] = trained(eager, [x], gradient)
        if snntorch:
            chosen["snnTorch Leaky"] = trained(snntorch_leaky(snntorch), [x], gradient)
    if snntorch and steps * steps * lanes <= STATE_LEAKY_LIMIT:
        layer = snntorch.StateLeaky(beta=torch.tensor(0.9), channels=channels)
        chosen["snnTorch StateLeaky"] = trained(lambda x: layer(x)[0], [x], gradient)
    return chosen


def main(arguments: list[str] | None = None) -> None:
    """Run the comparison and print it."""
    given = options(__doc__, quick="two small sizes, a few seconds").parse_args(arguments)
    console = screen()
    torch.set_num_threads(1)
    try:
        import snntorch
    except ImportError:
        snntorch = None
        console.print(
            "snnTorch is not installed, so its rows are missing. To add them: "
            "[bold]pip install -c constraints.txt --no-deps snntorch==1.0.0[/bold]"
        )
    results: dict[str, dict[str, float]] = {}
    for shape in QUICK if given.quick else SHAPES:
        console.print(f"measuring {shape} ...", style="dim")
        results[str(shape)] = medians(methods(shape, snntorch), 2 if given.quick else 15)
    title = "(T, B, C), forward + backward, float32, one thread: ms (times ours)"
    console.print(comparison(title, results, "unscan Leaky"))
    console.print(RULE)
    write(given.json, rule=RULE, milliseconds=results)


if __name__ == "__main__":
    main()
