"""Read modules of SpikingJelly by their rules: NAME.unscan and NAME.npz with x and SpikingJelly's own y."""

import torch
from modules_saving import driving, graph_of, keep, keep_refusals, keep_traced
from spikingjelly.activation_based import functional, layer, neuron, surrogate

torch.set_num_threads(1)
torch.manual_seed(0)
FLAT, IMAGE = (12,), (3, 6, 6)


def with_numbers(module, **numbers):
    """Return a module with some of its parameters set."""
    for name, number in numbers.items():
        getattr(module, name).data.fill_(number)
    return module


def with_start(module, value):
    """Return a neuron whose membrane starts from a value of its own."""
    module.set_reset_value("v", value)
    return module


def normed(norm):
    """Return a batch norm with statistics and weights."""
    for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
        tensor.uniform_(0.5, 1.5)
    return norm


class Doubled(neuron.LIFNode):
    """A user's own neuron."""

    def single_step_functional_forward(self, inputs, states, **kwargs):
        return super().single_step_functional_forward((2 * inputs[0],), states, **kwargs)


class Loop(torch.nn.Module):
    """A user's own loop over the steps."""

    def __init__(self, *modules):
        super().__init__()
        self.modules_in_order = torch.nn.Sequential(*modules)

    def forward(self, x):
        return torch.stack([self.modules_in_order(x[t]) for t in range(x.shape[0])])


def network(mode):
    """Return a convolutional network whose neurons fire."""
    torch.manual_seed(1)
    return (
        layer.Conv2d(3, 4, 3, padding=1, bias=False, step_mode=mode),
        normed(layer.BatchNorm2d(4, step_mode=mode)),
        neuron.IFNode(1.5, step_mode=mode),
        layer.MaxPool2d(2, step_mode=mode),
        layer.Flatten(step_mode=mode),
        layer.Dropout(0.3, step_mode=mode),
        layer.Linear(36, 12, step_mode=mode),
        neuron.LIFNode(2.0, False, 0.2, -0.1, step_mode=mode),
    )


RESETS = {"soft": None, "zero": 0.0, "low": -0.3, "high": 0.4}
NEURONS = {
    **{f"if-{n}": (lambda m, r=r: neuron.IFNode(1.3, r, step_mode=m)) for n, r in RESETS.items()},
    **{
        f"lif-{n}-{'in' if d else 'by'}": (
            lambda m, r=r, d=d: neuron.LIFNode(1.7 if d else 3.0, d, 0.6 if d else 1.1, r, step_mode=m)
        )
        for n, r in RESETS.items()
        for d in (True, False)
    },
    **{
        f"plif-{n}-{'in' if d else 'by'}": (
            lambda m, r=r, d=d: neuron.ParametricLIFNode(1.5 if d else 2.7, d, 0.7, r, step_mode=m)
        )
        for n, r in RESETS.items()
        for d in (True, False)
    },
    "simple-if": lambda m: neuron.SimpleIFNode(1.2, 0.3, step_mode=m),
    "simple-if-soft": lambda m: neuron.SimpleIFNode(1.2, None, step_mode=m),
    "simple-lif": lambda m: neuron.SimpleLIFNode(2.0, True, 0.5, 0.2, step_mode=m),
    "simple-lif-by": lambda m: neuron.SimpleLIFNode(2.5, False, 0.9, -0.4, step_mode=m),
    "half": lambda m: neuron.HalfThresholdIFNode(1.4, step_mode=m),
    "started": lambda m: with_start(neuron.LIFNode(2.0, False, 1.0, 0.1, step_mode=m), 0.8),
    "started-soft": lambda m: with_start(neuron.LIFNode(4.0, True, 0.5, None, step_mode=m), -2.0),
    "aware": lambda m: neuron.ActivationAwareIFNode(
        torch.linspace(0.8, 1.9, 12), torch.linspace(-0.3, 0.5, 12), step_mode=m
    ),
    "aware-hard": lambda m: neuron.ActivationAwareIFNode(
        torch.tensor(1.5), torch.linspace(-0.3, 0.5, 12), v_reset=0.2, step_mode=m
    ),
    **{
        f"klif-{n}-{'scaled' if s else 'plain'}-{'in' if d else 'by'}": (
            lambda m, r=r, s=s, d=d: with_numbers(neuron.KLIFNode(s, 1.8, d, 0.8, r, step_mode=m), k=1.4)
        )
        for n, r in (("soft", None), ("zero", 0.0))
        for s in (True, False)
        for d in (True, False)
    },
    "raf": lambda m: neuron.RAFNode(-0.1, 0.6, 1.0, 0.9, 0.0, step_mode=m),
    "raf-soft": lambda m: neuron.RAFNode(-0.2, 0.4, 0.5, 0.5, None, step_mode=m),
    "sliding": lambda m: neuron.SlidingPSN(5, step_mode=m),
    "sliding-random": lambda m: with_numbers(neuron.SlidingPSN(3, False, step_mode=m), bias=-0.2),
    "sliding-excited": lambda m: with_numbers(neuron.SlidingPSN(3, False, step_mode=m), bias=0.2),
    "atan": lambda m: neuron.LIFNode(2.0, surrogate_function=surrogate.ATan(), v_threshold=0.5, step_mode=m),
    "filter": lambda m: layer.SynapseFilter(3.0, step_mode=m),
    "filter-learned": lambda m: layer.SynapseFilter(1.6, True, step_mode=m),
    "delay": lambda m: layer.Delay(4, step_mode=m),
    "dropout": lambda m: layer.Dropout(0.5, step_mode=m),
}
ONE_STEP = {
    "cuba": lambda m: neuron.CUBALIFNode(0.5, 0.75, 1.0),
    "cuba-low": lambda m: neuron.CUBALIFNode(0.6, 0.5, 1.2, -0.2),
    "cuba-soft": lambda m: neuron.CUBALIFNode(0.5, 0.75, 2.0, None),
    "ottt": lambda m: neuron.OTTTLIFNode(2.0, v_threshold=0.9),
    "sltt": lambda m: neuron.SLTTLIFNode(2.0, v_threshold=0.5),
}
LAYERS = {
    "conv2d": lambda m: layer.Conv2d(3, 4, 3, 2, 1, step_mode=m),
    "pool": lambda m: layer.AvgPool2d(2, step_mode=m),
    "norm2d": lambda m: normed(layer.BatchNorm2d(3, step_mode=m)),
    "flatten": lambda m: layer.Flatten(step_mode=m),
    "aware-image": lambda m: neuron.ActivationAwareIFNode(
        torch.linspace(0.8, 1.9, 3), torch.linspace(-0.3, 0.5, 3), channel_dim=1, step_mode=m
    ),
}
ROWS = {
    "conv1d": lambda m: layer.Conv1d(3, 4, 3, padding=1, step_mode=m),
}
WHOLE = {"tdbn": lambda m: normed(layer.ThresholdDependentBatchNorm1d(1.0, 0.5, 12))}
NORMS = {"norm1d": lambda m: normed(layer.BatchNorm1d(12, step_mode=m))}

CASES = [
    *((NEURONS, FLAT, "sm"), (ONE_STEP, FLAT, "s"), (LAYERS, IMAGE, "sm")),
    *((ROWS, (3, 8), "sm"), (NORMS, FLAT, "sm"), (WHOLE, FLAT, "m")),
]
with torch.no_grad():
    for modules, shape, modes in CASES:
        for seed, (name, make) in enumerate(modules.items()):
            for mode in modes:
                module = make(mode).double().eval()
                x = driving(shape, seed)
                graph = graph_of(module, shape, "step" if mode == "s" else "sequence")
                functional.reset_net(module)
                y = torch.stack([module(x_t) for x_t in x]) if mode == "s" else module(x)
                keep(f"{name}.{mode}", graph, x, y)

NETWORKS = {
    "sequence": torch.nn.Sequential(*network("m")),
    "loop": Loop(*network("s")),
    "multi-step": layer.MultiStepContainer(*network("s")),
    "step-mode": layer.StepModeContainer(True, "m", *network("s")),
    "folded": torch.nn.Sequential(
        layer.SeqToANNContainer(*network("s")[:2]),
        neuron.ParametricLIFNode(1.5, v_threshold=0.6, step_mode="m"),
    ),
    "recurrent": torch.nn.Sequential(
        layer.Flatten(step_mode="m"),
        layer.LinearRecurrentContainer(neuron.LIFNode(2.0, v_threshold=0.1), 108, 108, step_mode="m"),
        layer.ElementWiseRecurrentContainer(neuron.LIFNode(2.0, v_threshold=0.6), torch.add, step_mode="m"),
    ),
}
with torch.no_grad():
    for seed, (name, model) in enumerate(NETWORKS.items()):
        model.double().eval()
        x = driving(IMAGE, seed)
        functional.reset_net(model)
        keep_traced(f"{name}.network", model, x, model(x))

refused = {
    "psn": neuron.PSN(100),
    "masked": neuron.MaskedPSN(3, 100, step_mode="m"),
    "gated": neuron.GatedLIFNode(100),
    "qif": neuron.QIFNode(step_mode="m"),
    "eif": neuron.EIFNode(step_mode="m"),
    "izhikevich": neuron.IzhikevichNode(step_mode="m"),
    "ilif": neuron.ILIFNode(step_mode="m"),
    "liaf": neuron.LIAFNode(torch.relu, False, step_mode="m"),
    "ternary": neuron.TernaryIFNode(step_mode="m"),
    "clif": neuron.ComplementaryLIFNode(step_mode="m"),
    "readout": neuron.NonSpikingLIFNode(),
    "pool": layer.MaxPool2d(2, ceil_mode=True, step_mode="m"),
    "no-rule": neuron.DSRIFNode(),
    "soft-surrogate": neuron.LIFNode(surrogate_function=surrogate.Sigmoid(spiking=False), step_mode="m"),
    "fires-on": neuron.LIFNode(v_threshold=0.5, v_reset=0.6, step_mode="m"),
    "klif-low": neuron.KLIFNode(v_reset=-0.3, step_mode="m"),
    "one-step": neuron.LIFNode(),
    "own": Doubled(step_mode="m"),
    "flatten": layer.Flatten(0, step_mode="m"),
    "own-function": layer.ElementWiseRecurrentContainer(neuron.IFNode(), lambda x, y: x - y, step_mode="m"),
    "not-a-rule": layer.ElementWiseRecurrentContainer(torch.nn.Sequential(), torch.add, step_mode="m"),
    "not-spikes": layer.ElementWiseRecurrentContainer(torch.nn.Linear(12, 12), torch.add, step_mode="m"),
    "batch-channels": neuron.ActivationAwareIFNode(torch.ones(4), channel_dim=0, step_mode="m"),
}
keep_refusals(refused, FLAT, "sequence")
