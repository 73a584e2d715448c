"""Count a network's operations with SpikingJelly's counters: NETWORK.npz OUTPUT.json (see `counted_network`).

`SynOpCounter` and `MACCounter` listen to the operators that torch dispatches. The modules that hold weights are named
in what they find, so that the operators of neurons are told apart from them.
"""

import json
import sys

import torch
from counted_network import opened
from spikingjelly.activation_based.op_counter import DispatchCounterMode, MACCounter, SynOpCounter

given, result = sys.argv[1:]
network, x = opened(given)
synops, macs = SynOpCounter(), MACCounter()
with torch.no_grad(), DispatchCounterMode([synops, macs]):
    network(x)
with open(result, "w") as file:
    json.dump({"synops": synops.get_total(), "macs": macs.get_total()}, file)
