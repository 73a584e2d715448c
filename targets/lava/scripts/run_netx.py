"""Run a netx file in Lava, many samples after each other in one run, and keep what every neuron did.

`python start.py run_netx.py FOLDER`, or `python run_netx.py FOLDER` by itself. FOLDER holds `job.json` (net: the file;
bits: of the input's numbers, 0 for spikes; layers: name, shape, gives and remembers of each; membranes: whether they
are wanted) and `x.npy` (T, S, N) or (T, S, C, H, W), whole numbers. For layer l, from 0, it writes, with I = S P + L
rows:

    spikes-l.npy    (I, *shape) bool      what it fired
    membrane-l.npy  (I, *shape) int32     v before the reset, where wanted or where the layer gives membranes
    current-l.npy   (I, *shape) int32     u, where the layer gives sums
    end-l.npy       (2, S, *shape) int32  u and v after the last step of each sample

`period.npy` says P: what step t of sample s led to stands in row s P + t + l + 1 of layer l, as each synapse costs
Lava one step. Samples are kept apart by `reset_interval`, which zeroes u and v at a sample's first step, one step later
in each layer. Where a layer also remembers something in its synapses (a recurrence, a delay), there are L silent steps
between two samples, and Lava is paused to zero that, too.

Spikes and states are read where Lava's LIF model resets its neurons, in its own process: reading them with sinks and
`Var.get` gives the same numbers and takes 15 to 30 microseconds for each.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

try:
    import start
except ModuleNotFoundError:  # run by the guard, which has prepared everything
    pass
else:
    start.prepare()

from lava.lib.dl.netx import hdf5
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.io.source import RingBuffer
from lava.proc.lif.models import AbstractPyLifModelFixed


class Watch:
    """What is kept of one layer; made where the network is built, filled where its neurons run."""

    def __init__(
        self, folder: Path, row: int, about: dict[str, Any], samples: int, steps: int, period: int, rows: int
    ) -> None:
        self.row, self.steps, self.period, self.samples = row, steps, period, samples
        shape = tuple(about["shape"])
        kept: dict[str, Any] = {"end": ((2, samples, *shape), np.int32)}
        if about["gives"] == "spikes":
            kept["spikes"] = ((rows, *shape), np.bool_)
        if about["gives"] == "membranes" or (about["gives"] == "spikes" and about["membranes"]):
            kept["membrane"] = ((rows, *shape), np.int32)
        if about["gives"] == "sums":
            kept["current"] = ((rows, *shape), np.int32)
        self.files = {what: folder / f"{what}-{row}.npy" for what in kept}
        for what, (size, dtype) in kept.items():
            np.lib.format.open_memmap(self.files[what], mode="w+", dtype=dtype, shape=size)
        self.kept: dict[str, Any] = {}

    def take(self, time_step: int, u: Any, before: Any, spikes: Any, v: Any) -> None:
        """Keep one step: current, membrane before the reset, spikes, membrane after it, all (W, H, C) or (N,)."""
        if not self.kept:
            self.kept = {what: np.load(path, mmap_mode="r+") for what, path in self.files.items()}
        for what, values in (("spikes", spikes), ("membrane", before), ("current", u)):
            if what in self.kept:
                self.kept[what][time_step - 1] = values.T
        sample, step = divmod(time_step - 2 - self.row, self.period)
        if step == self.steps - 1 and 0 <= sample < self.samples:
            self.kept["end"][:, sample] = u.T, v.T


def watch_neurons() -> None:
    """Show every step of Lava's integer LIF models to the watch among their parameters."""
    plain = AbstractPyLifModelFixed.reset_voltage

    def reset_voltage(model: Any, spike_vector: Any) -> None:
        before = model.v.copy()
        plain(model, spike_vector=spike_vector)
        model.proc_params["watch"].take(model.time_step, model.u, before, spike_vector, model.v)

    AbstractPyLifModelFixed.reset_voltage = reset_voltage


def pauses(layers: list[Any], samples: int, period: int) -> dict[int, list[Any]]:
    """Return step after which to pause -> states of synapses to zero then: just before their source's sample begins."""
    found: dict[int, list[Any]] = {}
    for sample in range(samples):
        for row, made in enumerate(layers):
            start = sample * period + row
            if hasattr(made.synapse, "delays"):
                found.setdefault(start, []).append(made.synapse.a_buff)
            if hasattr(made, "synapse_rec"):
                found.setdefault(start + 1, []).append(made.synapse_rec.a_buff)
    return found


def main(folder: Path) -> None:
    """Run the job of a folder."""
    job = json.loads((folder / "job.json").read_text())
    x = np.load(folder / "x.npy")
    steps, samples = x.shape[:2]
    depth = len(job["layers"])
    period = steps + (depth if any(each["remembers"] for each in job["layers"]) else 0)
    rows = samples * period + depth

    stream = np.zeros((rows, *x.shape[2:]), np.int32)
    for sample in range(samples):
        stream[sample * period :][:steps] = x[:, sample]
    net = hdf5.Network(
        net_config=job["net"], input_message_bits=job["bits"], reset_interval=period, reset_offset=1
    )
    source = RingBuffer(data=np.ascontiguousarray(stream.T))
    source.s_out.connect(net.inp)
    watch_neurons()
    for row, (made, about) in enumerate(zip(net.layers, job["layers"], strict=True)):
        about = {**about, "membranes": job["membranes"]}
        watch = Watch(folder, row, about, samples, steps, period, rows)
        made.neuron.proc_params.overwrite("watch", watch)
    np.save(folder / "period.npy", period)

    done = 0
    config = Loihi2SimCfg(select_tag="fixed_pt")
    try:
        for pause, states in (*sorted(pauses(net.layers, samples, period).items()), (rows, [])):
            if pause > done:
                net.run(condition=RunSteps(num_steps=pause - done), run_cfg=config)
                done = pause
            for state in states if done else ():
                state.set(np.zeros(state.shape, np.int32))
    finally:
        net.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
