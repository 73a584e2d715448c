"""Training, judging, fusing, storing and loading a surrogate dynamic network."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.trainer import sdn
from unscan.trainer.neurons.surrogate_network import SurrogateNetwork
from unscan.trainer.recurrence.naive import Firing, lif_loop
from unscan.trainer.sdn import (
    TrainingForm,
    draw,
    evaluate_sdn,
    fuse,
    load_sdn,
    read_figures,
    save_sdn,
    train_sdn,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def seasoned(seed=0, steps=30):
    """A training form whose norms have seen something."""
    form = TrainingForm(generator(seed))
    for step in range(steps):
        form(torch.randn(64, 4, generator=generator(step)))
    return form.eval()


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = SurrogateNetwork(0.125)
    network.load_state_dict(SurrogateNetwork(learn=True).state_dict())
    path = tmp_path / "sdn.safetensors"
    rows = evaluate_sdn(network, inputs=((0.0, 1.0),), count=2)
    save_sdn(path, network, command="unscan train-sdn --seed 5", seed=5, figures=rows)
    return path, network, rows


class Convolutions(nn.Module):
    """The layers of the paper's figure, one by one."""

    def __init__(self, form):
        super().__init__()
        self.encoder = nn.Conv1d(1, 8, 1, bias=False)
        self.temporal = nn.Conv1d(8, 8, 8, groups=8, padding=8)
        self.temporal_norm = form.temporal_norm
        self.mixing = nn.Conv1d(8, 8, 1)
        self.mixing_norm = form.mixing_norm
        self.readout = nn.Conv1d(8, 1, 1)
        with torch.no_grad():
            self.encoder.weight.copy_(form.encoder[:, None, None])
            for name in ("temporal", "mixing", "readout"):
                layer = getattr(self, name)
                layer.weight.copy_(getattr(form, name).view(layer.weight.shape))
                layer.bias.copy_(getattr(form, f"{name}_bias"))

    def forward(self, currents):
        x = self.temporal(self.encoder(currents.T[:, None]))[..., : len(currents)]
        x = functional.relu(self.temporal_norm(x))
        x = functional.relu(self.mixing_norm(self.mixing(x)) + x)
        return self.readout(x)[:, 0].T


@pytest.mark.parametrize("training", [False, True])
def test_the_training_form_is_the_papers_convolutions(training):
    form = seasoned().double().train(training)
    currents = torch.randn(100, 5, generator=generator(), dtype=torch.float64)
    got = form(currents)
    torch.testing.assert_close(
        got, Convolutions(form).double().train(training)(currents), rtol=1e-9, atol=1e-10
    )


def test_fused_equals_the_training_form():
    form, currents = seasoned(), torch.randn(1024, 64, generator=generator())
    fused = fuse(form, 0.125)
    assert sum(n.numel() for n in fused.numbers()) == 153
    want = form(currents)
    assert (fused(currents) - want).abs().max() < 1e-6
    assert (fused.membrane(currents) - currents - want).abs().max() < 2e-6  # one more rounding, of I + p
    torch.testing.assert_close(
        fused.double()(currents.double()), form.double()(currents.double()), rtol=0, atol=1e-6
    )


def test_examples_are_those_of_the_exact_neuron():
    drawn = draw(7, 0.2, generator(), mean=0.3, deviation=0.8, steps=100)
    numbers = torch.tensor(0.2), torch.tensor(1.0)
    spikes, _, _ = lif_loop(drawn.currents, torch.zeros(7), *numbers, Firing("zero"))
    assert torch.equal(drawn.spikes, spikes)
    assert drawn.leak[0].abs().sum() == 0
    for t in (1, 40, 99):
        _, _, before = lif_loop(drawn.currents[:t], torch.zeros(7), *numbers, Firing("zero"))
        assert torch.equal(drawn.leak[t], 0.2 * before)
    assert abs(drawn.currents.mean().item() - 0.3) < 0.1
    assert draw(1, 0.2, generator()).currents.shape == (1024, 1)


def test_training_learns_tells_how_far_it_is_and_repeats():
    told = []
    network = train_sdn(epochs=0.032, seed=3, progress=lambda *now: told.append(now))
    assert [(step, total) for step, total, _ in told] == [(100, 200), (200, 200)]
    (row,) = evaluate_sdn(network, inputs=((0.0, 1.0),), count=50)
    assert row.f1 > 0.93  # 0.13 of random numbers
    again = train_sdn(epochs=0.032, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(network.numbers(), again.numbers(), strict=True))
    assert network.tau == 0.125
    assert not list(network.parameters())


@pytest.mark.slow
def test_a_training_of_minutes_agrees():
    (row,) = evaluate_sdn(train_sdn(epochs=1.0), inputs=((0.0, 1.0),), count=1000)
    assert row.f1 > 0.99


def test_training_leaves_threads_and_the_global_generator_alone():
    torch.manual_seed(5)
    want, threads = torch.rand(1), torch.get_num_threads()
    torch.manual_seed(5)
    train_sdn(epochs=0.001)
    load_sdn()
    assert torch.equal(torch.rand(1), want)
    assert torch.get_num_threads() == threads


def test_the_figures_count():
    class Knowing(SurrogateNetwork):
        def membrane(self, currents, before=None):
            numbers = torch.tensor(0.125), torch.tensor(1.0)
            spikes, m, _ = lif_loop(currents, torch.zeros(currents.shape[1]), *numbers, Firing("zero"))
            if self.wrong:
                m[:512] = torch.where(spikes[:512] > 0, 0.0, m[:512])  # silent in the first half
            return m

    network = Knowing(0.125)
    network.wrong = False
    (row,) = evaluate_sdn(network, inputs=((0.0, 1.0),), count=20)
    assert (row.accuracy, row.precision, row.recall, row.f1) == (1, 1, 1, 1)
    assert row.error < 1e-6
    assert 0.13 < row.rate < 0.17
    assert row.positions == 20 * 1024
    network.wrong = True
    (row,) = evaluate_sdn(network, inputs=((0.0, 1.0),), count=20)
    assert row.precision == 1
    assert row.recall == pytest.approx(0.5, abs=0.02)
    assert row.f1 == pytest.approx(2 * row.recall / (1 + row.recall))
    assert row.accuracy == pytest.approx(1 - row.rate * (1 - row.recall))
    (silent,) = evaluate_sdn(network, inputs=((-5.0, 0.1),), count=2)
    assert silent.accuracy == 1
    assert silent.f1 != silent.f1


def test_the_shipped_network_and_its_figures():
    network = load_sdn()
    told, rows = read_figures()
    assert network.tau == 0.125 == float(told["tau"])
    assert told["command"].startswith("unscan train-sdn")
    shown = {(row.mean, row.deviation): row for row in rows}
    standard, stress = shown[0.0, 1.0], shown[0.88, 0.02]
    assert standard.f1 >= 0.999
    assert stress.f1 < standard.f1
    for row, tolerance in ((standard, 0.001), (stress, 0.02)):
        (again,) = evaluate_sdn(network, inputs=((row.mean, row.deviation),), count=500, seed=7)
        assert again.f1 == pytest.approx(row.f1, abs=tolerance)  # other currents: 20 times fewer spikes


def test_saved_and_loaded(saved):
    path, network, rows = saved
    again = load_sdn(path)
    assert all(torch.equal(a, b) for a, b in zip(network.numbers(), again.numbers(), strict=True))
    assert again.tau == 0.125
    assert not list(again.parameters())
    told = {"tau": "0.125", "command": "unscan train-sdn --seed 5", "seed": "5"}
    assert read_figures(path) == (told, rows)
    assert [p.name for p in path.parent.iterdir()] == ["sdn.safetensors"]


def rewrite(path, numbers=None, **changes):
    """Write the file again with other numbers or another header, and, unless told one, the checksum that fits."""
    old = load_file(path)
    with sdn.safe_open(path, framework="pt") as file:
        told = dict(file.metadata())
    told.pop("sha256")
    told |= changes
    told = {name: value for name, value in told.items() if value is not None}
    numbers = old if numbers is None else numbers
    told.setdefault("sha256", sdn._checksum(numbers, told))
    save_file(numbers, path, {k: v for k, v in told.items() if v})


def test_refuses_a_damaged_file(saved, tmp_path):
    path, _, _ = saved
    whole, numbers = path.read_bytes(), load_file(path)
    for content in (b"", b"not a file", whole[:-5], whole[:40]):
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match="not a whole safetensors file"):
            load_sdn(path)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedFile, match="was altered"):
        load_sdn(path)
    for changes, message in (
        ({"tau": None}, "header lacks tau"),
        ({"sha256": ""}, "header lacks sha256"),
        ({"format": "2"}, "format '2'.*upgrade"),
        ({"sha256": "0"}, "was altered"),
        ({"tau": "fast"}, "tau is 'fast'"),
        ({"tau": "1.5"}, "tau is '1.5'"),
        ({"figures": "{"}, "figures"),
        ({"figures": json.dumps([{"mean": 1}])}, "figures"),
        ({"numbers": {k: v for k, v in numbers.items() if k != "mixing"}}, "'mixing' is nothing"),
        ({"numbers": numbers | {"more": torch.zeros(1)}}, "'more' is"),
        ({"numbers": numbers | {"readout": torch.zeros(9)}}, r"'readout' is .*\(9,\).*should be .*\(8,\)"),
        ({"numbers": numbers | {"readout": torch.zeros(8).int()}}, "'readout' is .*int32"),
        ({"numbers": numbers | {"readout": torch.full((8,), torch.nan)}}, "'readout' holds NaN"),
    ):
        path.write_bytes(whole)
        rewrite(path, **changes)
        with pytest.raises(DamagedFile, match=message):
            load_sdn(path)
    path.write_bytes(whole)
    assert load_sdn(str(path)).tau == 0.125


def test_refuses_what_does_not_fit(tmp_path):
    with pytest.raises(InvalidInput, match="There is no surrogate network"):
        load_sdn(tmp_path / "none.safetensors")
    for tau in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="tau is"):
            train_sdn(tau)
    for epochs in (0, -1.0, float("inf"), float("nan")):
        with pytest.raises(InvalidInput, match="epochs is"):
            train_sdn(epochs=epochs)
    with pytest.raises(InvalidInput, match="no tau"):
        evaluate_sdn(SurrogateNetwork())
    with pytest.raises(InvalidInput, match="no tau"):
        save_sdn(tmp_path / "x", SurrogateNetwork(), command="", seed=0, figures=[])
    with pytest.raises(InvalidInput, match="Cannot write the surrogate network"):
        save_sdn(tmp_path / "no" / "x", SurrogateNetwork(0.1), command="", seed=0, figures=[])
    assert not list(tmp_path.iterdir())
