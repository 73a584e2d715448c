"""The layer of the delta rule: forms, steps, states, top-k, shapes and errors."""

import math

import pytest
import torch
from torch import nn

from unscan.compiler.errors import InvalidInput
from unscan.trainer.neurons.delta_leaky import DeltaLeaky

FORMS = ["auto", "fused", "chunked", "loop"]
SETTINGS = pytest.mark.parametrize(
    "settings",
    [{}, {"use_q": False}, {"queries": 3, "top_k": 2}, {"queries": 1, "fires": ">", "threshold": 0.4}],
    ids=["q", "no q", "top-k", "one query"],
)


def layer(seed=0, **settings):
    torch.manual_seed(seed)
    made = DeltaLeaky(6, 5, 4, **{"threshold": 0.05, "learn_threshold": True, **settings}).double()
    with torch.no_grad():
        made.to_alpha.bias += 2.0
    return made


def sequence(steps=40, batch=2, features=6):
    torch.manual_seed(3)
    return torch.randn(steps, batch, features, dtype=torch.float64)


@SETTINGS
@pytest.mark.parametrize("form", FORMS)
def test_steps_are_the_sequence(form, settings):
    made, x = layer(form=form, **settings), sequence(100)
    y, membrane, state = made(x, return_membrane=True, return_state=True)
    stepped, last = [], None
    for x_t in x:
        y_t, last = made.step(x_t, last)
        stepped.append((y_t, last))
    want, states = (torch.stack(values) for values in zip(*stepped, strict=True))
    assert y.shape == want.shape == (100, 2, made.channels)
    torch.testing.assert_close(membrane, states, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(y, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(state, last, rtol=1e-12, atol=1e-13)
    first, carried = made(x[:37], return_state=True)
    torch.testing.assert_close(torch.cat((first, made(x[37:], carried))), y, rtol=1e-12, atol=1e-12)


@SETTINGS
@pytest.mark.parametrize("form", ["fused", "chunked"])
def test_gradients_are_those_of_the_loop(form, settings):
    found = []
    for made in (layer(form=form, **settings), layer(form="loop", **settings)):
        x, state = sequence(70).requires_grad_(), sequence(2, 5, 4)[:, :, :].clone().requires_grad_()
        y, membrane, last = made(x, state, return_membrane=True, return_state=True)
        torch.manual_seed(5)
        (y * torch.randn_like(y)).sum().add(membrane.square().mean()).add(last.sum()).backward()
        found.append({"x": x.grad, "state": state.grad, **{n: p.grad for n, p in made.named_parameters()}})
    for name, want in found[1].items():
        assert (found[0][name] - want).abs().max() <= 1e-10 * want.abs().max(), name


def test_the_equations():
    made, x = layer(queries=3), sequence(1)
    y, s = made.step(x[0])
    v, k = made.to_v(x[0]), made.to_k(x[0])
    k = k / k.norm(dim=-1, keepdim=True)
    _, again = made.step(x[0], s)
    alpha, b = (1 / (1 + (-gate(x[0])).exp())[..., None] for gate in (made.to_alpha, made.to_beta))
    torch.testing.assert_close(s, b * v[..., None] * k[:, None])
    erase = torch.eye(4) - b * k[..., None] * k[:, None]
    torch.testing.assert_close(again, alpha * s @ erase + b * v[..., None] * k[:, None])
    spikes = (s >= made.threshold).double()
    assert 0 < spikes.mean() < 1
    torch.testing.assert_close(y, (spikes @ made.to_q(x[0]).view(2, 4, 3)).reshape(2, 15))


def test_top_k_writes_to_k_rows_and_k_columns():
    made, x = layer(top_k=2), sequence(1)
    _, s = made.step(x[0])
    assert ((s != 0).any(2).sum(1) == 2).all()
    assert ((s != 0).any(1).sum(1) == 2).all()
    v, k = made.to_v(x[0]), made.to_k(x[0])
    top = k.abs() >= k.abs().sort(dim=1).values[:, 2:3]
    want = torch.sigmoid(made.to_beta(x[0])) * (k * top) / (k * top).norm(dim=1, keepdim=True)
    row = v.abs().argmax(1)
    torch.testing.assert_close(s[[0, 1], row], want * v[[0, 1], row][:, None])
    everything = layer(top_k=4)
    everything.load_state_dict(made.state_dict())
    assert not torch.equal(everything.step(x[0])[1], s)


@pytest.mark.parametrize("form", ["fused", "chunked", "loop"])
def test_a_key_of_zero_writes_nothing_and_gets_no_gradient(form):
    made = layer(form=form)
    with torch.no_grad():
        made.to_k.bias.zero_()
    x = sequence(20)
    x[7:9] = 0
    y, membrane = made(x, return_membrane=True)
    torch.testing.assert_close(membrane[8], torch.sigmoid(made.to_alpha.bias) * membrane[7])
    (y.sum() + membrane.square().sum()).backward()
    assert all(p.grad.isfinite().all() for p in made.parameters())


def test_float32_and_float64_are_the_same_model():
    made, x = DeltaLeaky(6, 5, 4), sequence()
    short, membrane = made(x.float(), return_membrane=True)
    long, want = made.double()(x.float().double(), return_membrane=True)
    assert (short.dtype, long.dtype) == (torch.float32, torch.float64)
    torch.testing.assert_close(membrane.double(), want, rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_rounds_the_projections_not_the_memory(form):
    made, x = DeltaLeaky(6, 5, 4, form=form), sequence().float()
    with torch.autocast("cpu", torch.bfloat16):
        y, membrane = made(x, return_membrane=True)
        _, state = made.step(x[0])
    assert y.dtype == membrane.dtype == state.dtype == torch.float32
    torch.testing.assert_close(membrane, made(x, return_membrane=True)[1], rtol=0, atol=0.1)
    torch.testing.assert_close(membrane[0], state)
    assert made.bfloat16()(x.bfloat16()).dtype == torch.float32


def test_returns_in_the_stated_order():
    made, x = layer(queries=3), sequence()
    assert isinstance(made(x), torch.Tensor)
    assert [o.shape for o in made(x, return_membrane=True)] == [(40, 2, 15), (40, 2, 5, 4)]
    assert [o.shape for o in made(x, return_state=True)] == [(40, 2, 15), (2, 5, 4)]
    assert (made.channels, made.d_value, made.d_key, made.queries) == (15, 5, 4, 3)
    assert (layer().channels, layer().queries) == (25, 5)
    assert (layer(use_q=False).channels, layer(use_q=False).queries, layer(use_q=False).to_q) == (
        20,
        None,
        None,
    )


def test_saves_what_it_is_made_of():
    made = layer()
    names = {f"to_{name}.{kind}" for name in ("v", "k", "alpha", "beta", "q") for kind in ("weight", "bias")}
    assert made.state_dict().keys() == {*names, "stored_threshold"}
    other = layer(1)
    other.load_state_dict(made.state_dict())
    assert torch.equal(other(sequence()), made(sequence()))


def test_learns_to_recall_what_a_key_was_last_written_with():
    torch.manual_seed(0)
    model = nn.Sequential(
        DeltaLeaky(8, 8, 8, queries=1, threshold=0.3, learn_threshold=True), nn.Linear(8, 4)
    )
    optimiser = torch.optim.Adam(model.parameters(), 0.03)
    losses = []
    for _ in range(200):
        keys, values = torch.randint(4, (6, 64)), torch.randint(4, (6, 64))
        written = torch.cat(
            (nn.functional.one_hot(keys, 4), nn.functional.one_hot(values, 4)), dim=-1
        ).float()
        asked = keys[0]
        place = (keys == asked) * torch.arange(1, 7)[:, None]
        want = values.gather(0, place.argmax(0)[None])[0]
        question = torch.cat((nn.functional.one_hot(asked, 4), torch.zeros(64, 4)), dim=-1)[None]
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(model(torch.cat((written, question)))[-1], want)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) / 10 < 0.6 * losses[0]


def test_refuses_wrong_inputs():
    made = DeltaLeaky(6, 5, 4)
    for x, message in (
        (torch.zeros(2, 6), "time first"),
        (torch.zeros(0, 2, 6), "at least one step"),
        (torch.zeros(5, 2, 7), r"takes 6 features.*\(2, 7\)"),
        (torch.zeros(5, 0, 6), "at least one sample"),
        (torch.zeros(5, 2, 6, dtype=torch.int64), "floating point"),
        (
            torch.zeros(5, 2, 6, dtype=torch.float64),
            "input is torch.float64, but the weights are torch.float32",
        ),
        (torch.full((5, 2, 6), math.nan), "60 NaN among 60"),
    ):
        with pytest.raises(InvalidInput, match=message):
            made(x)
    with pytest.raises(InvalidInput, match=r"state has shape \(3, 5, 4\).*\(2, 5, 4\)"):
        made(torch.zeros(5, 2, 6), torch.zeros(3, 5, 4))
    with pytest.raises(InvalidInput, match="features"):
        made.step(torch.zeros(2, 7))


def test_refuses_wrong_settings():
    for settings, message in (
        ({"in_dim": 0}, "in_dim=0"),
        ({"d_value": 2.0}, "d_value=2.0"),
        ({"d_key": True}, "d_key=True"),
        ({"queries": 0}, "queries=0"),
        ({"queries": 2, "use_q": False}, "use_q=False"),
        ({"top_k": 0}, "top_k=0"),
        ({"top_k": 5}, "from 1 to 4"),
        ({"threshold": 0.0}, "threshold is .* greater than 0"),
        ({"threshold": [1.0, 1.0]}, "threshold"),
        ({"threshold": [1.0] * 25}, "one number"),
        ({"fires": "="}, "fires"),
        ({"form": "scan"}, "Option form is 'scan'"),
        ({"surrogate": "bump"}, "no surrogate"),
    ):
        with pytest.raises(InvalidInput, match=message):
            DeltaLeaky(**{"in_dim": 6, "d_value": 5, "d_key": 4, **settings})


def test_numbers_that_became_nan_are_an_error():
    for name in ("to_k.weight", "to_beta.bias", "stored_threshold"):
        made = layer()
        with torch.no_grad():
            made.get_parameter(name).fill_(math.nan)
        with pytest.raises(InvalidInput, match="has become NaN"):
            made(sequence())


def test_fused_says_where_it_cannot_run():
    made = DeltaLeaky(6, 5, 4, form="fused").to("meta")
    with pytest.raises(InvalidInput, match="on meta, which no kernel here takes"):
        made(torch.zeros(3, 2, 6, device="meta"))
