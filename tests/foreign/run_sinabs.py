"""Run NIR files in sinabs, as `stepping` says, a step at a time: its layers keep their states in themselves."""

import sinabs
from stepping import run_folder

run_folder(lambda graph, x: sinabs.from_nir(graph, batch_size=x.shape[1], num_timesteps=1))
