import pytest
import torch
from torch import nn

from unscan.trainer import AnnealedLeaky, Leaky, LeakyIntegrator, SpikingSSM, StateLeaky, SurrogateLeaky
from unscan.trainer.measure import as_deployed, evaluate, measure_gap
from unscan.trainer.objective import Objective
from unscan.trainer.tasks import Part

OBJECTIVE = Objective("class", "mean")


@pytest.fixture
def part():
    torch.manual_seed(0)
    return Part(torch.randn(50, 40, 3) * 2, torch.randint(0, 4, (50,)))


def network(neuron):
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 32), neuron, nn.Linear(32, 4), LeakyIntegrator(4)).double()


def test_an_exact_model_is_deployed_as_it_is(part):
    found = measure_gap(network(Leaky(32, 0.8)), part, OBJECTIVE, batch_size=7)
    assert found.gap == 0
    assert found.f1 == 1
    assert found.trained == found.deployed
    assert found.trained.spike_rates["1"] > 0.01


def test_the_gap_is_that_of_running_both_models_apart(part):
    model = network(StateLeaky(32, 0.8))
    exact = network(Leaky(32, 0.8, reset="subtract"))
    found = measure_gap(model, part, OBJECTIVE, reset="subtract")
    assert found.deployed.loss == pytest.approx(evaluate(exact, part, OBJECTIVE).loss, rel=1e-12)
    assert found.gap == found.deployed.accuracy - found.trained.accuracy
    x = part.x.transpose(0, 1).double()
    a, b = model[:2](x), exact[:2](x)
    assert found.f1 == pytest.approx(2 * (a * b).sum().item() / (a.sum() + b.sum()).item(), rel=1e-12)
    assert 0.1 < found.f1 < 0.99
    assert measure_gap(model, part, OBJECTIVE).f1 == 1


def test_approximations_are_exchanged_for_the_exact_neuron_wherever_they_stand():
    annealed = AnnealedLeaky(6, 0.7, 1.5)
    model = nn.Sequential(
        SpikingSSM(6, 4, neuron=SurrogateLeaky(6)), nn.ModuleList([annealed, StateLeaky(6, 0.6)])
    )
    twin = as_deployed(model)
    assert isinstance(twin[0].neuron, Leaky)
    assert (twin[0].neuron.reset, twin[0].neuron.beta.item()) == ("zero", 0.125)
    assert (twin[1][0].reset, twin[1][0].threshold.item()) == ("subtract", 1.5)
    assert isinstance(twin[1][1], StateLeaky)
    assert as_deployed(model, "zero")[1][1].reset == "zero"
    assert isinstance(model[0].neuron, SurrogateLeaky)
    assert isinstance(as_deployed(annealed), Leaky)


def test_the_mode_of_the_model_is_left_as_it_was(part):
    model = network(Leaky(32)).train()
    evaluate(model, part, OBJECTIVE)
    assert model.training
    assert not model[1]._forward_hooks
