"""The associative layer: its forms against its steps, what it keeps, what it refuses, and weights from snnTorch."""

import math
import os
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.trainer.neurons.shared import sequence, stepped
from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.associative_leaky import AssociativeLeaky

FORMS = ("auto", "fused", "chunked", "loop")
READOUTS = {"d queries": {}, "one query": {"queries": 1}, "no q": {"use_q": False}}


def layer(**settings):
    torch.manual_seed(1)
    return AssociativeLeaky(6, 5, 7, **{"threshold": 0.2, **settings}).double()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
@pytest.mark.parametrize("steps", [1, 63, 100])
def test_steps_are_the_sequence(form, readout, steps):
    made = layer(form=form, **readout)
    x = sequence(steps)
    y, membrane, state = made(x, return_membrane=True, return_state=True)
    want, last = stepped(made, x)
    assert y.shape == want.shape == (steps, 2, made.channels)
    assert membrane.shape == (steps, 2, 5, 7)
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)  # a spike more or less is a whole q
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(membrane[-1], last, rtol=1e-12, atol=1e-13)
    if steps > 17:
        assert 0.02 < (membrane >= 0.2).double().mean() < 0.9
        first, carried = made(x[:17], return_state=True)
        torch.testing.assert_close(torch.cat((first, made(x[17:], carried))), y, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", ["fused", "chunked"])
@pytest.mark.parametrize("readout", READOUTS.values(), ids=READOUTS)
@pytest.mark.parametrize("top_k", [None, 2])
def test_gradients_are_those_of_the_loop(form, readout, top_k):
    gradients = []
    for chosen in (form, "loop"):
        made = layer(form=chosen, learn_threshold=True, top_k=top_k, **readout)
        x, state = sequence(70).requires_grad_(), torch.full((2, 5, 7), 0.3).double().requires_grad_()
        y, membrane, last = made(x, state, return_membrane=True, return_state=True)
        (y.cos() * y).sum().add((membrane**2).mean()).add(last.sum()).backward()
        gradients.append([x.grad, state.grad, *(parameter.grad for parameter in made.parameters())])
    assert len(gradients[0]) == 2 + 7 + (2 if "use_q" not in readout else 0)
    for a, b in zip(*gradients, strict=True):
        assert b.any()
        assert (a - b).abs().max() <= 1e-10 * b.abs().max()


def test_outputs_are_row_by_row():
    made = layer(queries=3)
    x = sequence(4)
    y, membrane = made(x, return_membrane=True)
    q = made.to_q(x).view(4, 2, 7, 3)
    want = torch.einsum("tbij,tbjr->tbir", (membrane >= made.threshold).double(), q)
    torch.testing.assert_close(y.view(4, 2, 5, 3), want)
    bare, membrane = layer(use_q=False)(x, return_membrane=True)
    assert torch.equal(bare, (membrane >= made.threshold).double().flatten(2))


def test_returns_in_the_stated_order():
    made, x = layer(), sequence()
    assert isinstance(made(x), torch.Tensor)
    assert [o.shape for o in made(x, return_membrane=True)] == [(40, 2, 25), (40, 2, 5, 7)]
    assert [o.shape for o in made(x, return_state=True)] == [(40, 2, 25), (2, 5, 7)]
    assert made.channels == 25
    assert layer(queries=2).channels == 10
    assert layer(use_q=False).channels == 35


@pytest.mark.parametrize("form", FORMS)
def test_top_k_writes_the_largest_entries_only(form):
    made = layer(form=form, top_k=2, use_q=False)
    x = sequence(1)
    _, state = made(x, return_state=True)
    v, k = made.to_v(x[0]), made.to_k(x[0])
    for b in range(2):
        rows, columns = (value[b].abs().argsort(descending=True)[:2] for value in (v, k))
        want = torch.zeros(5, 7, dtype=torch.float64)
        for i in rows:
            for j in columns:
                want[i, j] = v[b, i] * k[b, j]
        torch.testing.assert_close(state[b], want, rtol=1e-13, atol=1e-15)


def test_of_equals_the_first_are_kept():
    made = AssociativeLeaky(1, 3, 3, use_q=False, top_k=2)
    with torch.no_grad():
        for projection in (made.to_v, made.to_k):
            projection.weight.zero_()
            projection.bias.copy_(torch.tensor([-1.0, 1.0, 1.0]))
    _, state = made(torch.zeros(1, 1, 1), return_state=True)
    assert state[0].tolist() == [[1, -1, 0], [-1, 1, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_a_float32_memory(dtype):
    made = layer().to(dtype)
    y, membrane, state = made(sequence(40, dtype=dtype), return_membrane=True, return_state=True)
    assert {y.dtype, membrane.dtype, state.dtype} == {torch.float32}
    again, _ = made.step(sequence(1, dtype=dtype)[0], state)
    assert again.dtype == torch.float32


def test_a_tie():
    for fires, fired in ((">=", 1), (">", 0)):
        made = AssociativeLeaky(1, 1, 1, use_q=False, fires=fires, threshold=0.5)
        with torch.no_grad():
            for projection, value in ((made.to_v, 0.5), (made.to_k, 1.0)):
                projection.weight.zero_()
                projection.bias.fill_(value)
        assert made(torch.zeros(1, 1, 1)).item() == fired


def test_learns():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(6, 16), AssociativeLeaky(16, 4, 4, queries=1, threshold=0.3), nn.Linear(4, 3)
    )
    x, want = sequence(25, 8, 6).float(), torch.randint(3, (8,))
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(x).mean(0), want)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_refuses_wrong_settings():
    for name, value in (("in_dim", 0), ("d_value", 2.0), ("d_key", True), ("queries", -1), ("top_k", 0)):
        with pytest.raises(InvalidInput, match=f"{name}={value!r}, but it needs a whole number"):
            AssociativeLeaky(**{"in_dim": 6, "d_value": 5, "d_key": 7, name: value})
    for settings, message in (
        ({"top_k": 6}, "top_k=6, but values have 5 entries and keys 7"),
        ({"queries": 2, "use_q": False}, "queries=2 and use_q=False"),
        ({"form": "quick"}, "Option form is 'quick'"),
        ({"fires": "="}, "Option fires is '='"),
        ({"surrogate": "bump"}, "no surrogate"),
        ({"threshold": 0.0}, "threshold is .* greater than 0"),
        ({"threshold": math.nan}, "threshold is .* greater than 0"),
        ({"threshold": [1.0] * 25}, "threshold must be one number"),
    ):
        with pytest.raises(InvalidInput, match=message):
            AssociativeLeaky(6, 5, 7, **settings)


def test_refuses_wrong_inputs():
    made = AssociativeLeaky(6, 5, 7)
    for x, message in (
        (torch.zeros(6), "time first"),
        (torch.zeros(2, 6), "time first"),
        (torch.zeros(0, 2, 6), "at least one step"),
        (torch.zeros(5, 2, 7), r"takes 6 features.*\(2, 7\)"),
        (torch.zeros(5, 0, 6), "at least one sample"),
        (torch.zeros(5, 2, 6, dtype=torch.int64), "floating point"),
        (torch.zeros(5, 2, 6, dtype=torch.float64), "float64, but the weights are torch.float32"),
        (torch.full((5, 2, 6), math.nan), "the input has 60 NaN among 60 numbers"),
    ):
        with pytest.raises(InvalidInput, match=message):
            made(x)
    with pytest.raises(InvalidInput, match=r"state has shape \(3, 5, 7\).*\(2, 5, 7\)"):
        made(torch.zeros(5, 2, 6), torch.zeros(3, 5, 7))
    with pytest.raises(InvalidInput, match="takes 6 features"):
        made.step(torch.zeros(2, 7))
    with pytest.raises(InvalidInput, match="form is 'fused', but the input is torch.float32 on meta"):
        AssociativeLeaky(6, 5, 7, form="fused").to("meta")(torch.zeros(5, 2, 6, device="meta"))


@pytest.mark.parametrize("name", ["to_alpha.weight", "to_q.bias", "stored_threshold"])
def test_a_number_that_became_nan_is_an_error(name):
    made = AssociativeLeaky(6, 5, 7, learn_threshold=True)
    with torch.no_grad():
        made.get_parameter(name).fill_(math.nan)
    with pytest.raises(InvalidInput, match="has become NaN"):
        made(torch.zeros(3, 2, 6))


def test_says_what_it_is():
    assert "6, d_value=5, d_key=7, queries=5, fires='>=', top_k=None, form='auto'" in repr(
        AssociativeLeaky(6, 5, 7)
    )


class Recall(nn.Module):
    """The network of the checkpoint: two associative layers with a linear one between."""

    def __init__(self, form):
        super().__init__()
        self.in_proj = nn.Linear(9, 256)
        self.gen2_1 = AssociativeLeaky(256, 16, 16, fires=">", form=form)
        self.mid = nn.Sequential(nn.Linear(256, 256), nn.ReLU())
        self.gen2_2 = AssociativeLeaky(256, 16, 16, fires=">", form=form)
        self.out_proj = nn.Linear(256, 8)

    def forward(self, x):
        return self.out_proj(self.gen2_2(self.mid(self.gen2_1(self.in_proj(x)))))


def recall_task(pairs, count):
    """Keys and values of 8 random bits, row by row; a marker; the key that is asked for. Its value is the answer."""
    generator = torch.Generator().manual_seed(pairs)
    items = torch.randint(2, (2 * pairs, count, 8), generator=generator).float()
    asked = torch.randint(pairs, (count,), generator=generator)
    x = torch.zeros(2 * pairs + 2, count, 9)
    x[: 2 * pairs, :, :8] = items
    x[2 * pairs, :, 8] = 1
    x[-1, :, :8] = items[2 * asked, torch.arange(count)]
    return x, items[2 * asked + 1, torch.arange(count)]


@pytest.fixture(scope="module")
def checkpoint():
    folder = os.environ.get("UNSCAN_DATA")
    path = Path(folder or ".") / "snntorch" / "associative_recall_gen2.pt"
    if not folder or not path.exists():
        pytest.skip("no snntorch/associative_recall_gen2.pt in UNSCAN_DATA")
    return torch.load(path, map_location="cpu", weights_only=True)


@pytest.mark.parametrize("form", FORMS[1:])
@pytest.mark.parametrize(("pairs", "known"), [(2, 0.976), (4, 0.919), (6, 0.867)])
def test_the_recall_network_of_snntorch(checkpoint, form, pairs, known):
    model = Recall(form)
    names = model.state_dict().keys()
    for layer_name in ("gen2_1", "gen2_2"):
        assert checkpoint[f"{layer_name}.threshold"] == model.get_submodule(layer_name).threshold
    carried = {name: value for name, value in checkpoint.items() if name in names}
    missing, unexpected = model.load_state_dict(carried, strict=False)
    assert sorted(missing) == ["gen2_1.stored_threshold", "gen2_2.stored_threshold"]
    assert not unexpected
    count = 2000
    x, want = recall_task(pairs, count)
    with torch.no_grad():
        correct = ((model(x)[-1] > 0) == (want > 0.5)).double().mean(1)
    # The known figure is a mean over as many sequences too; both are rounded or drawn within a standard error.
    error = correct.std().item() / math.sqrt(count) * math.sqrt(2)
    assert abs(correct.mean().item() - known) <= 3 * error + 0.0005
