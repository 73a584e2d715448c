"""Read modules of norse by their rules: NAME.unscan and NAME.npz with x and norse's own y, in float64."""

import warnings

import norse.torch as norse
import torch
from modules_saving import driving, graph_of, keep, keep_refusals, keep_traced
from norse.torch.functional.reset import reset_subtract

warnings.simplefilter("ignore")
torch.set_num_threads(1)
torch.manual_seed(0)
SIZE = 12


def doubles(**numbers):
    """Return parameters as tensors in float64, those that are pairs as ranges over the neurons."""
    return {
        name: torch.linspace(*number, SIZE).double()
        if isinstance(number, tuple)
        else torch.tensor(number).double()
        for name, number in numbers.items()
    }


def lif(**numbers):
    """Return LIF parameters."""
    return norse.LIFParameters(
        **doubles(**({"tau_syn_inv": 400.0, "tau_mem_inv": 300.0, "v_th": 0.3} | numbers))
    )


def box(**numbers):
    """Return LIFBox parameters."""
    return norse.LIFBoxParameters(**doubles(**({"tau_mem_inv": 400.0, "v_th": 0.35} | numbers)))


def subtracting(**numbers):
    """Return LIFBox parameters with a reset by the threshold."""
    return box(**numbers)._replace(reset_method=reset_subtract)


def lsnn(**numbers):
    """Return LSNN parameters."""
    given = {"tau_syn_inv": 400.0, "tau_mem_inv": 300.0, "tau_adapt_inv": 60.0, "v_th": 0.2, "beta": 0.15}
    return norse.LSNNParameters(**doubles(**(given | numbers)))


def refractory(rho_reset, **numbers):
    """Return LIFRefrac parameters."""
    return norse.LIFRefracParameters(lif(**numbers), torch.tensor(rho_reset))


LEAKS = {
    "zero": {},
    "leak": {"v_leak": 0.1, "v_reset": 0.1},
    "apart": {"v_leak": 0.1, "v_reset": -0.2},
    "above": {"v_leak": -0.2, "v_reset": 0.15},
}
RANGES = {"tau_mem_inv": (100.0, 900.0), "v_th": (0.2, 0.5), "v_leak": (-0.1, 0.1), "v_reset": (-0.2, 0.0)}
CELLS = {
    **{f"lif-{name}": (lambda leak=leak: norse.LIFCell(lif(**leak))) for name, leak in LEAKS.items()},
    "lif-ranges": lambda: norse.LIFCell(lif(**RANGES, tau_syn_inv=(100.0, 1000.0))),
    "lif-dt": lambda: norse.LIFCell(lif(), dt=0.002),
    "lif-float32": lambda: norse.LIFCell(
        norse.LIFParameters(v_th=torch.as_tensor(0.2), v_leak=torch.as_tensor(0.1))
    ),
    **{
        f"lif-{m}": (lambda m=m: norse.LIFCell(lif()._replace(method=m)))
        for m in ("heaviside", "tanh", "circ")
    },
    **{f"box-{name}": (lambda leak=leak: norse.LIFBoxCell(box(**leak))) for name, leak in LEAKS.items()},
    "box-subtract": lambda: norse.LIFBoxCell(subtracting()),
    "box-subtract-leak": lambda: norse.LIFBoxCell(subtracting(v_leak=0.15)),
    "box-ranges": lambda: norse.LIFBoxCell(box(**RANGES)),
    "iaf": lambda: norse.IAFCell(norse.IAFParameters(**doubles(v_th=1.5, v_reset=0.0))),
    "iaf-low": lambda: norse.IAFCell(norse.IAFParameters(**doubles(v_th=1.5, v_reset=(-0.5, 0.5)))),
    "lsnn": lambda: norse.LSNNCell(lsnn()),
    "lsnn-apart": lambda: norse.LSNNCell(lsnn(v_leak=0.1, v_reset=-0.1)),
    "lsnn-adjoint": lambda: norse.LSNNCell(lsnn(), adjoint=True),
    "refractory": lambda: norse.LIFRefracCell(refractory(3.0)),
    "refractory-apart": lambda: norse.LIFRefracCell(refractory(2.0, **LEAKS["apart"])),
    "refractory-fraction": lambda: norse.LIFRefracCell(refractory(1.3, **LEAKS["above"])),
    "refractory-never": lambda: norse.LIFRefracCell(refractory(0.0)),
    "li": lambda: norse.LICell(norse.LIParameters(**doubles(tau_syn_inv=400.0, tau_mem_inv=(50.0, 300.0)))),
    "li-leak": lambda: norse.LICell(norse.LIParameters(**doubles(v_leak=0.3))),
    "li-box": lambda: norse.LIBoxCell(norse.LIBoxParameters(**doubles(tau_mem_inv=200.0, v_leak=-0.2))),
    "li-linear": lambda: norse.LILinearCell(SIZE, 5, norse.LIParameters(**doubles(v_leak=0.1))),
    "lif-recurrent": lambda: norse.LIFRecurrentCell(SIZE, 10, lif()),
    "lif-recurrent-self": lambda: norse.LIFRecurrentCell(
        SIZE, 10, lif(v_leak=0.1, v_reset=-0.1), autapses=True
    ),
    "lsnn-recurrent": lambda: norse.LSNNRecurrentCell(SIZE, 10, lsnn()),
    "refractory-recurrent": lambda: norse.LIFRefracRecurrentCell(SIZE, 10, refractory(2.0)),
}
SEQUENCES = {
    "lif": lambda: norse.LIF(lif(v_leak=0.1, v_reset=-0.1)),
    "lsnn": lambda: norse.LSNN(lsnn()),
    "iaf": lambda: norse.IAF(norse.IAFParameters(**doubles(v_th=1.2, v_reset=0.2))),
    "li": lambda: norse.LI(norse.LIParameters(**doubles(v_leak=0.3))),
    "lif-recurrent": lambda: norse.LIFRecurrent(SIZE, 10, lif()),
    "lsnn-recurrent": lambda: norse.LSNNRecurrent(SIZE, 10, lsnn()),
    "refractory-recurrent": lambda: norse.LIFRefracRecurrent(SIZE, 10, refractory(2.0)),
}

with torch.no_grad():
    for seed, (name, make) in enumerate(CELLS.items()):
        module = make().double()
        x, state, y = driving((SIZE,), seed), None, []
        for x_t in x:
            y_t, state = module(x_t, state)
            y.append(y_t)
        keep(f"{name}.cell", graph_of(module, (SIZE,), "step"), x, torch.stack(y))
    for seed, (name, make) in enumerate(SEQUENCES.items()):
        module = make().double()
        x = driving((SIZE,), seed)
        y, _ = module(x)
        keep(f"{name}.sequence", graph_of(module, (SIZE,), "sequence"), x, y)


def linear(columns, rows):
    """Return a Linear whose weights are large enough for neurons to fire."""
    layer = torch.nn.Linear(columns, rows)
    layer.weight.data *= 3
    return layer


def network():
    """Return a network with a recurrent layer."""
    torch.manual_seed(1)
    return norse.SequentialState(
        linear(SIZE, 10), norse.LIFCell(lif(v_leak=0.05)), linear(10, 6), norse.LIFRecurrentCell(6, 6, lif())
    )


class Loop(torch.nn.Module):
    """A user's own loop over the steps."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        state, y = None, []
        for x_t in x:
            y_t, state = self.network(x_t, state)
            y.append(y_t)
        return torch.stack(y)


def read_out():
    """Return a network whose output is a membrane."""
    return norse.SequentialState(
        *network(), linear(6, 3), norse.LICell(norse.LIParameters(**doubles(tau_mem_inv=50.0, v_leak=0.1)))
    )


NETWORKS = {
    "loop": Loop(network()),
    "lifted": norse.Lift(network()),
    "sequences": norse.SequentialState(
        linear(SIZE, 8), norse.LIF(lif(v_leak=0.05)), linear(8, 6), norse.LIFRecurrent(6, 6, lif())
    ),
    "fed-back": Loop(norse.RecurrentSequential(linear(SIZE, SIZE), norse.LIFCell(lif()))),
    "read-out": Loop(read_out()),
}
with torch.no_grad():
    for seed, (name, model) in enumerate(NETWORKS.items()):
        model.double()
        x = driving((SIZE,), seed)
        y = model(x)
        keep_traced(f"{name}.network", model, x, y[0] if isinstance(y, tuple) else y)


class Started(norse.LIFCell):
    """A user's own neuron."""

    def initial_state(self, input_tensor):
        return norse.LIFFeedForwardState(v=torch.ones_like(input_tensor), i=torch.zeros_like(input_tensor))


refused = {
    "exponential": norse.LIFExCell(),
    "adex": norse.LIFAdExRecurrentCell(SIZE, SIZE),
    "izhikevich": norse.IzhikevichCell(norse.tonic_spiking),
    "coba": norse.CobaLIFCell(SIZE, SIZE),
    "compartments": norse.LIFMCRecurrentCell(SIZE, SIZE),
    "adjoint": norse.LIFCell(norse.LIFParameters(method="adjoint")),
    "too-fast": norse.LIFCell(lif(tau_mem_inv=1200.0)),
    "current-too-fast": norse.LIFCell(lif(tau_syn_inv=1200.0)),
    "fires-on": norse.LIFBoxCell(box(v_reset=0.5)),
    "own-reset": norse.LIFBoxCell(box()._replace(reset_method=lambda z, v, low, th: v - z)),
    "own": Started(),
    "no-adaptation": norse.LSNNCell(lsnn(beta=0.0)),
    "mixed-rests": norse.LIFRefracCell(norse.LIFRefracParameters(lif(), torch.tensor([1.0, 2.0]))),
    "sequence": norse.LIF(),
    "several": norse.RecurrentSequential(norse.LIFCell(lif()), norse.LIFCell(lif()), output_modules=[0, 1]),
    "not-spikes": norse.RecurrentSequential(torch.nn.Linear(SIZE, SIZE)),
    "nested": norse.RecurrentSequential(network()),
}
keep_refusals(refused, (SIZE,), "step")
