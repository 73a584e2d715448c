"""Every module that has a rule: the reference of its graph is the module itself, in float64."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from tests.graphs import sequence
from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.modules import read, rule_class, supported
from unscan.compiler.frontends.trace import as_container, trace
from unscan.compiler.ir import Edge, Kind
from unscan.compiler.nodes import (
    GLU,
    AssociativeScan,
    Delay,
    DeltaScan,
    DiagonalConvolution,
    LIFAnnealed,
    LIFSurrogate,
    Linear,
    Threshold,
    TopK,
)
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.trainer.dropout import SequenceDropout
from unscan.trainer.neurons import (
    S4D,
    AdaptiveLeaky,
    AnnealedLeaky,
    AssociativeLeaky,
    BinaryThreshold,
    DeltaLeaky,
    Leaky,
    LeakyIntegrator,
    LinearLeaky,
    SlidingPSN,
    SpikingSSM,
    StateLeaky,
    SurrogateLeaky,
    Synaptic,
)
from unscan.trainer.norm import SequenceBatchNorm

RAMP = torch.linspace(0.5, 0.9, 6).tolist()
OURS = {
    "leaky": Leaky(6, RAMP, RAMP, "subtract", phase="next", fires=">", gain="1-beta"),
    "state leaky": StateLeaky(6, RAMP, 0.4, gain="1-beta"),
    "linear leaky": LinearLeaky(6, 6, 0.8, 0.3),
    "leaky integrator": LeakyIntegrator(6, RAMP, gain="1-beta"),
    "synaptic": Synaptic(6, 0.6, RAMP, 0.8, "subtract", phase="next"),
    "adaptive": AdaptiveLeaky(6, RAMP, 0.5, "zero", kappa=RAMP, rho=0.8),
    "annealed": AnnealedLeaky(6, RAMP, 0.5, rounds=2, schedule="constant", warm_up=0.0, end=0.7),
    "annealed to the end": AnnealedLeaky(6, 0.7, 0.5, rounds=None, learn_reset=True, end=1.0),
    "surrogate": SurrogateLeaky(6, threshold=RAMP),
    "surrogate from scratch": SurrogateLeaky(6, network="scratch", threshold=0.6),
    "binary": BinaryThreshold(6, RAMP, fires=">"),
    "sliding": SlidingPSN(6, 4, RAMP, 0.7),
    "sliding, one order for all": SlidingPSN(6, 3, 0.6, 0.7),
    "associative": AssociativeLeaky(6, 3, 2, threshold=0.05),
    "associative without queries": AssociativeLeaky(6, 3, 2, use_q=False, threshold=0.05, fires=">"),
    "associative, the largest alone": AssociativeLeaky(6, 3, 4, queries=2, threshold=0.05, top_k=2),
    "delta": DeltaLeaky(6, 3, 2, threshold=0.05),
    "delta, the largest alone": DeltaLeaky(6, 3, 4, use_q=False, threshold=0.05, top_k=1),
    "s4d": S4D(6, 4),
    "spiking ssm": SpikingSSM(6, 4, threshold="learned", norm="batch", dt_min=0.1, dt_max=0.5),
    "spiking ssm of state leaky": SpikingSSM(6, 4, neuron=StateLeaky(6, 0.8, 0.1), norm="layer", dropout=0.2),
    "batch norm": SequenceBatchNorm(6),
    "dropout": SequenceDropout(0.5),
}
TORCH = {
    "linear": nn.Linear(6, 3, bias=False),
    "layer norm": nn.LayerNorm(6),
    "layer norm without numbers": nn.LayerNorm(6, elementwise_affine=False),
    "layer norm without a bias": nn.LayerNorm(6, bias=False),
    "rms norm": nn.RMSNorm(6),
    "rms norm with epsilon": nn.RMSNorm(6, eps=1e-3, elementwise_affine=False),
    "glu": nn.GLU(),
    "identity": nn.Identity(),
    "dropouts": nn.Sequential(nn.Dropout(), nn.AlphaDropout()),
    "activations": nn.Sequential(
        nn.ReLU(), nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6), nn.Tanh(), nn.SiLU()
    ),
    "gelu": nn.GELU(),
    "gelu by tanh": nn.GELU("tanh"),
    "elu": nn.ELU(),
    "softplus": nn.Softplus(),
    "relu6": nn.ReLU6(),
    "hardtanh": nn.Hardtanh(),
    "hardsigmoid": nn.Hardsigmoid(),
    "in place": nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Linear(6, 2)),
    "unflatten and flatten": nn.Sequential(nn.Unflatten(-1, (2, 3)), nn.Flatten(2), nn.Linear(6, 2)),
}


def random_(model: nn.Module) -> nn.Module:
    """Give every number of a model that a constructor leaves at 0 or 1 another value."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.LayerNorm | nn.RMSNorm | nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (*module.parameters(), *module.buffers()):
                if tensor.is_floating_point():
                    tensor.data = 0.5 + torch.rand(tensor.shape, generator=generator)
        if isinstance(module, SpikingSSM) and module.ln_vth is not None:
            module.ln_vth.data = torch.rand(module.channels, generator=generator) - 1.5
    return model


def agrees(model: nn.Module, shape: tuple[int, ...], steps: int = 63) -> None:
    """The reference of the graph gives the outputs, spikes and membranes of the module itself."""
    torch.manual_seed(1)
    model = random_(model).double().train()
    graph = trace(model, np.zeros((1, 1, *shape)))
    assert model.training
    x = sequence(graph, steps, 3) * 2
    expected, got = Model(model, graph).run(x), Reference(graph).run(x)
    np.testing.assert_allclose(got.outputs, expected.outputs, rtol=0, atol=1e-9)
    assert Model(model, graph).unheard == ()
    assert got.spikes.keys() == expected.spikes.keys()
    for name, spikes in got.spikes.items():
        assert spikes.any(), f"{name} is silent"
        np.testing.assert_array_equal(spikes, expected.spikes[name])
    for name, membrane in expected.membranes.items():
        np.testing.assert_allclose(got.membranes[name], membrane, rtol=0, atol=1e-9)
    shown = {name for name in got.membranes if not name.endswith("pool")}
    assert shown == expected.membranes.keys()


@pytest.mark.parametrize("name", OURS)
def test_our_layers(name):
    torch.manual_seed(0)
    agrees(nn.Sequential(nn.Linear(6, 6), OURS[name]), (6,))


@pytest.mark.parametrize("name", TORCH)
def test_modules_of_torch(name):
    agrees(nn.Sequential(nn.Linear(6, 6), TORCH[name]), (6,))


@pytest.mark.parametrize("name", ["leaky", "associative", "spiking ssm", "sliding"])
def test_other_lengths(name):
    agrees(nn.Sequential(nn.Linear(6, 6), OURS[name]), (6,), 100)
    model = nn.Sequential(nn.Linear(6, 6), OURS[name]).double()
    graph = trace(model, np.zeros((1, 1, 6)))
    x = sequence(graph, 1, 3)
    np.testing.assert_allclose(
        Reference(graph).run(x).outputs, Model(model, graph).run(x).outputs, rtol=0, atol=1e-9
    )


class Images(nn.Module):
    """How people run convolutions on sequences: time and batch folded into one axis, and unfolded behind."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(2, 4, 3, stride=2, padding=1, dilation=1, groups=2), norm
        self.same, self.pool = nn.Conv2d(4, 4, (2, 3), padding="same", bias=False), nn.AvgPool2d(2, 1, 1)
        self.neuron, self.out = Leaky(4 * 4 * 5, 0.8, 0.3), nn.Linear(80, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, batch = x.shape[:2]
        y = self.pool(self.same(self.norm(self.conv(x.flatten(0, 1)))))
        return self.out(self.neuron(y.unflatten(0, (steps, batch)).flatten(2)))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
def test_convolutions_of_images():
    agrees(Images(nn.BatchNorm2d(4)), (2, 6, 8), 20)
    graph = trace(Images(nn.Identity()), np.zeros((1, 1, 2, 6, 8), np.float32))
    assert graph.signals["conv"].shape == (4, 3, 4)
    assert graph.signals["pool"].shape == (4, 4, 5)


class Pooled(nn.Module):
    """Spikes, of which each window of an image passes on one where there is any."""

    def __init__(self) -> None:
        super().__init__()
        self.neuron, self.pool = Leaky(30, 0.8, 0.6), nn.MaxPool2d((2, 3), stride=2, padding=(0, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spikes = self.neuron(x).flatten(0, 1).unflatten(-1, (1, 5, 6))
        return self.pool(spikes).unflatten(0, x.shape[:2])


class Tutorial(nn.Module):
    """A convolution whose largest numbers drive the neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.pool, self.neuron = (
            nn.Conv2d(1, 3, 2),
            nn.MaxPool2d(2, padding=1),
            Leaky(27, 0.8, 0.6),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = self.pool(self.conv(x.flatten(0, 1)))
        return self.neuron(pooled.unflatten(0, x.shape[:2]).flatten(2))


def test_the_maximum_of_numbers_is_a_node():
    agrees(Tutorial(), (1, 5, 5), 20)


def test_the_maximum_of_spikes_is_a_sum_and_a_threshold():
    agrees(Pooled(), (30,), 20)


class Series(nn.Module):
    """A convolution along an axis of neurons, of channels that lie behind each other in the input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.neuron = (
            nn.Conv1d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            Leaky(15, 0.8, 0.3),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.conv(x.view(x.shape[0] * x.shape[1], 2, 5))
        return self.neuron(self.norm(maps.unsqueeze(-1)).view(*x.shape[:2], 15))


def test_a_convolution_over_one_axis_of_neurons():
    agrees(Series(), (10,))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.neuron, self.out = nn.Embedding(7, 6), Leaky(6, 0.8, 0.5), nn.Linear(6, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.neuron(self.embedding(x)))


def test_an_embedding_reads_indices():
    model = Words().double()
    graph = trace(model, np.zeros((1, 1), np.int64))
    assert graph.signals["input"].kind is Kind.INDEX
    x = np.random.default_rng(0).integers(0, 7, (30, 2, 1))
    expected, got = Model(model, graph).run(x), Reference(graph).run(x)
    np.testing.assert_allclose(got.outputs, expected.outputs, atol=1e-12)
    assert got.spikes["neuron"].any()
    with torch.no_grad():
        np.testing.assert_array_equal(expected.outputs, model(torch.from_numpy(x[..., 0])).numpy())


def test_the_parts_of_a_memory_are_named_as_its_modules():
    graph = trace(nn.Sequential(DeltaLeaky(6, 3, 4, top_k=2)), np.zeros((1, 1, 6), np.float32))
    assert graph.of(Linear) == ["0.to_v", "0.to_k", "0.to_alpha", "0.to_beta", "0.to_q"]
    assert graph.of(TopK) == ["0.to_v.top_k", "0.to_k.top_k"]
    assert Edge("0.to_beta.sigmoid", "0", "beta") in graph.edges
    assert graph.nodes["0"].queries == 3
    assert graph.of(DeltaScan) == ["0"]


def test_the_parts_of_a_block_are_named_as_its_modules():
    model = nn.Sequential(nn.Identity(), SpikingSSM(6, 4, threshold="learned", norm="batch"))
    model[1].ln_vth.data.fill_(np.log(2.0))
    graph = trace(model, np.zeros((1, 1, 6), np.float32))
    assert list(graph.nodes) == ["input", "1.norm", "1.ssm", "1.neuron", "1.mix", "1.glu", "output"]
    assert {edge.source for edge in graph.into("output")} == {"input", "1.glu"}
    assert graph.of(GLU) == ["1.glu"]
    (filters,) = (graph.nodes[name] for name in graph.of(DiagonalConvolution))
    a, c, d = model[1].ssm.coefficients(torch.float32)
    np.testing.assert_allclose(filters.c, torch.view_as_real(c).detach().numpy() / 2, rtol=1e-5)
    np.testing.assert_allclose(filters.d, d.detach().numpy() / 2, rtol=1e-6)
    np.testing.assert_allclose(filters.a, torch.view_as_real(a).detach().numpy())
    assert {array.dtype for _, array in filters.arrays()} == {np.dtype(np.float32)}


def test_neurons_keep_their_settings():
    node = trace(OURS["annealed"].float(), np.zeros((1, 1, 6), np.float32)).nodes["0"]
    assert isinstance(node, LIFAnnealed)
    assert (node.rounds, float(node.strength)) == (2, pytest.approx(0.7))
    for name, exact in (("surrogate", True), ("surrogate from scratch", False)):
        node = trace(OURS[name].float(), np.zeros((1, 1, 6), np.float32)).nodes["0"]
        assert isinstance(node, LIFSurrogate)
        assert node.exact is exact
    node = trace(OURS["associative without queries"].float(), np.zeros((1, 1, 6), np.float32)).nodes["0"]
    assert isinstance(node, AssociativeScan)
    assert (node.fires, node.reset, node.queries) == (">", "none", None)


def test_a_sliding_neuron_is_delays_and_a_threshold():
    graph = trace(SlidingPSN(6, 3), np.zeros((1, 1, 6), bool))
    assert [int(graph.nodes[name].longest) for name in graph.of(Delay)] == [1, 2]
    assert graph.signals["0.delay1"].kind is Kind.SPIKE
    assert graph.of(Threshold) == ["0"]
    assert len(graph.into("0")) == 3


class OwnLinear(nn.Linear):
    """A subclass with a forward of its own is read by what that calls."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(super().forward(x)) * 2


def test_a_subclass_with_its_own_forward_is_read_by_what_it_calls():
    assert rule_class(OwnLinear(6, 3)) is None
    agrees(nn.Sequential(OwnLinear(6, 3)), (6,))
    assert rule_class(type("Named", (nn.Linear,), {})(6, 3)) is nn.Linear


REFUSED = {
    "elu": (nn.ELU(2.0), "alpha=2.0, and the node has 1"),
    "softplus": (nn.Softplus(beta=2.0), "beta=2.0"),
    "hardtanh": (nn.Hardtanh(0, 1), "min_val=0"),
    "glu": (nn.GLU(0), r"nn.GLU\(0\).*last axis"),
    "softmax": (nn.Softmax(-1), "leave it out, as it changes no order"),
    "lstm": (nn.LSTM(6, 6), "LSTM.*do not fire"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_node_says_why(name):
    layer, message = REFUSED[name]
    with pytest.raises(Unsupported, match=message):
        trace(nn.Sequential(nn.Linear(6, 6), layer), np.zeros((1, 1, 6), np.float32))


class Folded(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


FOLDED = {
    "padding": (nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect"), "padded by 'reflect'"),
    "statistics": (nn.BatchNorm2d(1, track_running_stats=False), "without running statistics"),
    "ceil": (nn.AvgPool2d(2, ceil_mode=True), "ceil_mode"),
    "maximum": (nn.MaxPool2d(2, ceil_mode=True), "MaxPool2d with ceil_mode"),
    "count": (nn.AvgPool2d(2, padding=1, count_include_pad=False), "padding out of the count"),
}


@pytest.mark.parametrize("name", FOLDED)
def test_settings_of_convolutions_that_have_no_node(name):
    layer, message = FOLDED[name]
    with pytest.raises(Unsupported, match=message):
        trace(Folded(layer), np.zeros((1, 1, 1, 4, 4), np.float32))


def test_a_neuron_on_a_folded_sequence_is_refused():
    with pytest.raises(
        Unsupported, match="handed a sequence with time and batch folded.*takes a whole sequence"
    ):
        trace(Folded(Leaky(6)), np.zeros((1, 1, 6), np.float32))


def test_a_convolution_of_an_unfolded_sequence_says_how_to_fold():
    with pytest.raises(Exception, match=r"Conv2d '0' does not fit.*x.flatten\(0, 1\)"):
        trace(nn.Sequential(nn.Conv2d(1, 1, 1)), np.zeros((1, 1, 1, 4, 4), np.float32))


def test_every_rule_is_named():
    as_container(nn.Sequential(Leaky(2)))
    assert {"Linear", "Leaky", "SpikingSSM", "Conv2d", "Embedding"} <= set(supported())
    assert "object" not in supported()
    assert read.dispatch(nn.Linear) is not read.dispatch(object)


def test_pruned_weights_are_read_as_they_are_used():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), Leaky(6, 0.8, 0.3))
    prune.random_unstructured(model[0], "weight", 0.5)
    model[0].weight_orig.data *= 2
    graph = trace(model.double(), np.zeros((1, 1, 6)))
    wanted = (model[0].weight_orig * model[0].weight_mask).detach().numpy()
    np.testing.assert_array_equal(graph.nodes["0"].weight, wanted)
    assert (wanted == 0).mean() == 0.5


def test_weights_that_torch_computes_are_read():
    torch.manual_seed(0)
    model = nn.Sequential(parametrizations.weight_norm(nn.Linear(6, 6)), Leaky(6, 0.8, 0.3))
    agrees(model, (6,))


def test_hooks_of_others_are_refused():
    model = nn.Sequential(nn.Linear(6, 6))
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    with pytest.raises(Unsupported, match="'0' has a forward hook.*remove it"):
        trace(model, np.zeros((1, 1, 6), np.float32))
