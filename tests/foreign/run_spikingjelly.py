"""Run NIR files in SpikingJelly, as `stepping` says."""

from spikingjelly.activation_based.nir_exchange import import_from_nir
from stepping import run_folder

run_folder(lambda graph, x: import_from_nir(graph))
