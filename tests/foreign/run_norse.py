"""Run NIR files in norse, as `stepping` says; the second argument is dt in seconds, where it is not norse's own."""

import sys

import norse.torch
from stepping import run_folder

OPTIONS = {"dt": float(sys.argv[2])} if len(sys.argv) > 2 else {}
run_folder(lambda graph, x: norse.torch.from_nir(graph, **OPTIONS))
