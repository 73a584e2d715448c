"""Run one of Lava's integer neurons for ten steps and print its membrane and the versions of what ran it."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path

from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.lif.process import LIF

if __name__ == "__main__":
    neuron = LIF(shape=(1,), du=4095, dv=0, vth=1000, bias_mant=1, bias_exp=6)
    neuron.run(condition=RunSteps(num_steps=10), run_cfg=Loihi2SimCfg(select_tag="fixed_pt"))
    membrane = int(neuron.v.get()[0])
    neuron.stop()
    packages = ", ".join(f"{name} {version(name)}" for name in ("lava-nc", "lava-dl", "numpy"))
    Path(sys.argv[1], "said.txt").write_text(
        f"a neuron ran ten steps to a membrane of {membrane} (640 wanted) with {packages}, Python "
        f"{platform.python_version()}"
    )
