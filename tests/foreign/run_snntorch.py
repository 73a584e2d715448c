"""Run NIR files in snnTorch, as `stepping` says."""

from snntorch.import_nir import import_from_nir
from stepping import run_folder

run_folder(lambda graph, x: import_from_nir(graph))
