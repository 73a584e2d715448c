from __future__ import annotations

import numpy as np
import pytest
import snntorch
import torch
from torch import nn

from tests.compiler.snntorch_models import (
    NEURONS,
    Named,
    Own,
    Restated,
    agrees,
    graph_of,
    in_double,
    inputs,
    memory_by_steps,
    results_of,
    same_spikes,
    stepped,
)
from tests.graphs import chain
from unscan.compiler.errors import Unsupported
from unscan.compiler.frontends.builder import Results
from unscan.compiler.frontends.trace import trace
from unscan.compiler.nodes import LI, LIF, CubaLIF, Input, LIConvolution, LIFConvolution, Output, Threshold
from unscan.compiler.passes.prune_dead import PruneDead
from unscan.runtime.executors.reference import Reference

RESETS = ("none", "subtract", "zero")
BETA = torch.tensor([0.3, 0.6, 0.85, 0.95])
ALPHA = torch.tensor([0.5, 0.7, 0.9, 0.97])
THETA = torch.tensor([0.5, 0.8, 1.0, 1.3])


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("reset", RESETS)
def test_leaky(reset, delayed):
    module = snntorch.Leaky(BETA, THETA, reset_mechanism=reset, reset_delay=delayed)
    graph = agrees(module)
    if reset == "subtract" and not delayed:
        assert not graph.of(LIF)
        return
    node = graph.nodes["neuron"]
    assert (node.reset, node.fires) == (reset, ">")
    assert node.phase == ("next" if reset == "subtract" else "now")


def test_a_reset_at_once_by_subtraction_is_not_that_of_a_lif():
    module = in_double(snntorch.Leaky(BETA, THETA, reset_delay=False))
    x = inputs()
    graph, to = graph_of(module)
    node = LIF(
        beta=BETA.numpy(), threshold=THETA.numpy(), reset="subtract", fires=">", trained_reset="subtract"
    )
    own = Reference(chain(input=Input((NEURONS,)), neuron=node, output=Output()))
    assert (own.run(x).spikes["neuron"] != Reference(graph).run(x).spikes["neuron"]).any()
    assert any("reset_delay=False" in note for note in to.notes)


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("reset", RESETS)
def test_leaky_spikes_of_a_factor(reset, delayed):
    module = snntorch.Leaky(0.8, reset_mechanism=reset, reset_delay=delayed, graded_spikes_factor=0.7)
    graph = agrees(module)
    assert graph.nodes["neuron.graded"].scale == pytest.approx(0.7)


def test_a_membrane_is_computed_once():
    graph, _ = graph_of(snntorch.Leaky(0.9, reset_mechanism="none"), position=1)
    assert graph.of(LI) == ["neuron.membrane"]
    assert not graph.of(LIF)
    assert not PruneDead().rewrite(graph).graph.of(Threshold)


def test_one_number_and_ready_made_shapes():
    shape = (2, 3, 3)
    module = snntorch.Leaky(torch.rand(1, 2, 1, 1), torch.full((1,), 0.9))
    agrees(module, shape)
    agrees(snntorch.Synaptic(0.9, 0.5, reset_mechanism="zero"), shape)


def test_hidden_states_return_spikes_alone():
    module = snntorch.Leaky(BETA, THETA, init_hidden=True)
    assert isinstance(results_of(module), tuple)
    agrees(module)
    module = snntorch.Leaky(BETA, THETA, init_hidden=True, output=True)
    assert isinstance(results_of(module), Results)
    agrees(module)


def test_beta_is_clamped():
    graph, to = graph_of(snntorch.Leaky(torch.tensor([-0.5, 0.5, 1.0, 1.5])))
    np.testing.assert_array_equal(graph.nodes["neuron"].beta, [0, 0.5, 1, 1])
    assert any("clamped" in note for note in to.notes)
    agrees(snntorch.Leaky(torch.tensor([-0.5, 0.5, 1.0, 1.5]), reset_mechanism="zero"), mean=0)


def test_a_surrogate_that_fires_at_a_tie():
    module = snntorch.Leaky(0.5, spike_grad=lambda x: (x >= 0).float())
    graph, _ = graph_of(module)
    assert graph.nodes["neuron"].fires == ">="
    x = np.full((3, 1, NEURONS), 1.0)
    same_spikes(Reference(graph).run(x).spikes["neuron"], stepped(module.double(), x)[0])


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("reset", RESETS)
def test_synaptic(reset, delayed):
    graph = agrees(snntorch.Synaptic(ALPHA, BETA, THETA, reset_mechanism=reset, reset_delay=delayed))
    assert bool(graph.of(CubaLIF)) == (reset != "subtract" or delayed)


@pytest.mark.parametrize("reset", RESETS)
def test_alpha(reset):
    agrees(snntorch.Alpha(ALPHA, BETA / 2, THETA / 4, reset_mechanism=reset))


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("all_to_all", [True, False])
def test_rleaky(reset, delayed, all_to_all):
    torch.manual_seed(3)
    settings = {"linear_features": NEURONS} if all_to_all else {"V": torch.randn(NEURONS)}
    module = snntorch.RLeaky(
        BETA, threshold=THETA, all_to_all=all_to_all, reset_mechanism=reset, reset_delay=delayed, **settings
    )
    assert agrees(module).recurrent


def test_rleaky_over_space_and_graded():
    torch.manual_seed(3)
    agrees(snntorch.RLeaky(0.8, conv2d_channels=2, kernel_size=3), (2, 4, 5))
    module = snntorch.RLeaky(0.8, V=-0.4, all_to_all=False, learn_recurrent=False)
    module.graded_spikes_factor = torch.tensor(1.5)
    agrees(module)


@pytest.mark.parametrize("delayed", [True, False])
@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("all_to_all", [True, False])
def test_rsynaptic(reset, delayed, all_to_all):
    torch.manual_seed(3)
    settings = {"linear_features": NEURONS} if all_to_all else {"V": -torch.rand(NEURONS)}
    module = snntorch.RSynaptic(
        ALPHA / 2,
        BETA,
        threshold=THETA,
        all_to_all=all_to_all,
        reset_mechanism=reset,
        reset_delay=delayed,
        **settings,
    )
    assert agrees(module).recurrent
    _, to = graph_of(module)
    assert any("has no effect" in note for note in to.notes) != delayed


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize(
    "settings", [{"beta": 0.9}, {"R": 5.0, "C": 0.8, "time_step": 0.5}, {"beta": 0.8, "C": 4.0}]
)
def test_lapicque(reset, settings):
    module = snntorch.Lapicque(reset_mechanism=reset, threshold=0.4, **settings)
    agrees(module)
    _, to = graph_of(module)
    assert any("not by its beta" in note for note in to.notes)


def test_delta_leaky():
    module = in_double(snntorch.DeltaLeaky(0.7, beta=0.8, init_hidden=True))
    x = inputs()
    with torch.no_grad():
        expected = np.stack([module(x_t)[0].numpy() for x_t in torch.from_numpy(x)])
    graph, _ = graph_of(module)
    same_spikes(Reference(graph).run(x).spikes["neuron"], expected)
    results = results_of(module)
    assert isinstance(results, Results)
    assert results.values[1] is None


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_leaky_parallel(dense, bias):
    torch.manual_seed(2)
    beta = None if dense else 0.6
    module = snntorch.LeakyParallel(3, NEURONS, beta, bias, threshold=0.4, weight_hh_enable=dense).double()
    x = inputs((3,), mean=1.0)
    graph, _ = graph_of(module, (3,))
    with torch.no_grad():
        expected, membrane = module(torch.from_numpy(x)).numpy(), module.rnn(torch.from_numpy(x))[0].numpy()
    run = Reference(graph).run(x)
    same_spikes(run.spikes["neuron"], expected)
    np.testing.assert_allclose(run.membranes["neuron"], membrane, rtol=0, atol=1e-9)


@pytest.mark.parametrize("cut", [None, 1, 7, 200])
@pytest.mark.parametrize("factor", [1.0, 0.6])
def test_state_leaky(cut, factor):
    module = in_double(
        snntorch.StateLeaky(BETA, NEURONS, THETA, kernel_truncation_steps=cut, graded_spikes_factor=factor)
    )
    x = inputs()
    with torch.no_grad():
        expected = [series.numpy() for series in module(torch.from_numpy(x))]
    for position, series in enumerate(expected):
        graph, to = graph_of(module, position=position)
        run = Reference(graph).run(x)
        same_spikes(run.spikes["neuron"], expected[0])
        np.testing.assert_allclose(run.outputs, series, rtol=0, atol=1e-9)
        np.testing.assert_allclose(run.membranes["neuron"], expected[1], rtol=0, atol=1e-9)
    assert graph_of(module)[0].of(LIFConvolution) == ["neuron"]
    assert any("exp(-1 / tau)" in note for note in to.notes)
    assert any("cut off after" in note for note in to.notes) == (cut is not None)


def test_state_leaky_without_spikes_and_linear_leaky():
    x = inputs()
    module = snntorch.StateLeaky(0.7, NEURONS, output=False).double()
    graph, _ = graph_of(module)
    assert graph.of(LIConvolution) == ["neuron"]
    np.testing.assert_allclose(
        Reference(graph).run(x).outputs, module(torch.from_numpy(x)).numpy(), atol=1e-9
    )
    module = snntorch.LinearLeaky(0.9, NEURONS, 6, threshold=0.4).double()
    graph, _ = graph_of(module)
    assert list(graph.nodes) == ["input", "neuron.linear", "neuron", "output"]
    with torch.no_grad():
        expected = module(torch.from_numpy(x))[0].numpy()
    same_spikes(Reference(graph).run(x).outputs, expected)


@pytest.mark.parametrize("reads", [True, False])
def test_associative_leaky(reads):
    torch.manual_seed(5)
    module = in_double(snntorch.AssociativeLeaky(NEURONS, 3, 5, 15, use_q_projection=reads))
    graph, to = graph_of(module)
    x = 3 * inputs()
    fired, outputs = memory_by_steps(module, x)
    run = Reference(graph).run(x)
    same_spikes(run.spikes["neuron"], fired)
    np.testing.assert_allclose(run.outputs, outputs, rtol=0, atol=1e-9)
    with torch.no_grad():
        short = module(torch.from_numpy(x[:4])).numpy()
    np.testing.assert_allclose(run.outputs[:4], short, rtol=0, atol=1e-9)
    assert any("running product" in note for note in to.notes)


def changed(**attributes: object) -> nn.Module:
    module = snntorch.Leaky(0.8)
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (changed(inhibition=True), "inhibition=True"),
        (changed(state_quant=torch.round), "state_quant"),
        (changed(reset_mechanism="zero"), "was built with reset_mechanism='subtract' and holds 'zero'"),
        (snntorch.Leaky(0.8, threshold=0.0), "its threshold is 0, and a node's is greater than 0"),
        (snntorch.Leaky(0.8, spike_grad=torch.sigmoid), "its spike_grad gives other numbers"),
        (Restated(0.8), "Restated writes fire anew"),
        (snntorch.Lapicque(beta=0.2), "a decay lies in \\[0, 1\\]"),
        (
            snntorch.RSynaptic(0.9, 0.8, all_to_all=False, reset_delay=False, init_hidden=True),
            "fails in snnTorch",
        ),
        (snntorch.DeltaLeaky(0.5, beta=1.2), "its beta is 1.2, which it does not clamp"),
        (snntorch.DeltaLeaky(0.0, beta=0.5), "its threshold is 0"),
        (snntorch.StateLeaky(1.5, 3), "its tau is -2"),
        (snntorch.SLSTM(3, 3), "a snntorch.SLSTM, which cannot be read: it is an LSTM"),
        (snntorch.SConv2dLSTM(3, 3, 3), "a snntorch.SConv2dLSTM, which cannot be read: it is an LSTM"),
    ],
)
def test_what_no_node_says_is_refused(module, reason):
    with pytest.raises(Unsupported, match=reason):
        graph_of(module)


def test_a_memory_without_spikes_or_with_many_factors_is_refused():
    module = snntorch.AssociativeLeaky(NEURONS, 3, 3, 9)
    module.graded_spikes_factor = torch.ones(9)
    with pytest.raises(Unsupported, match="differs between entries"):
        graph_of(module)
    module.output = False
    with pytest.raises(Unsupported, match="gives its membranes"):
        graph_of(module)


def test_a_subclass_that_changes_no_step_is_read():
    assert graph_of(Named())[0].of(LIF) == ["neuron"]


def test_steps_and_sequences_are_told_apart():
    for module, axes in ((snntorch.Leaky(0.8), "sequence"), (snntorch.StateLeaky(0.8, NEURONS), "step")):
        with pytest.raises(Unsupported, match="and it takes"):
            results_of(module, axes)


def test_a_network_whose_last_membranes_are_read():
    torch.manual_seed(1)
    model = Own().double()
    x = inputs()
    graph = trace(model, x[:2])
    assert isinstance(graph.nodes["lif1"], CubaLIF)
    assert isinstance(graph.nodes["lif2"], LIF)
    assert isinstance(graph.nodes["lif3"], Threshold)
    run = Reference(graph).run(x)
    with torch.no_grad():
        expected = model(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(run.outputs, expected, rtol=0, atol=1e-9)
    assert all(fired.any() for fired in run.spikes.values())
