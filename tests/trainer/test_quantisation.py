"""Training with the numbers of the deployed model: those that the compiler writes; gradients reach behind."""

import numpy as np
import pytest
import torch

import unscan
from unscan.compiler import profiles
from unscan.compiler.errors import InvalidInput
from unscan.compiler.passes import FoldNorm, Quantize, Unroll
from unscan.runtime.executors.reference import Reference
from unscan.runtime.judge import ranges
from unscan.trainer import whole_numbers
from unscan.trainer.network import build
from unscan.trainer.objective import Objective, gradients
from unscan.trainer.quantisation import Quantised
from unscan.trainer.settings import Network
from unscan.trainer.whole_numbers import WIDTHS, straight

NAMES = ("loihi2", "int8", "int16")
LAYERS = [
    {"width": 10, "neuron": {"kind": "leaky", "beta": 0.9, "learn_beta": True, "learn_threshold": True}},
    {"width": 9, "neuron": {"kind": "state_leaky", "beta": 0.7, "beta_to": 0.95}, "norm": "batch"},
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sign", [-1, 0, 1])
@pytest.mark.parametrize("seed", range(4))
def test_the_numbers_are_those_of_the_compiler(name, sign, seed):
    rng = np.random.default_rng(seed)
    rows, columns = int(rng.integers(1, 20)), int(rng.integers(1, 30))
    theirs, ours = profiles.profile(name), WIDTHS[name]
    weight = rng.normal(size=(rows, columns)) * np.exp2(rng.uniform(-6, 6, (rows, 1)))
    weight[rng.random(rows) < 0.1] = 0
    weight = weight if sign == 0 else sign * np.abs(weight)
    threshold, bias = np.exp2(rng.uniform(-3, 3, rows)), rng.normal(size=rows)
    ceiling = np.where(rng.random(rows) < 0.3, np.exp2(rng.uniform(0, 12, rows)), np.inf)
    decay, unit = rng.uniform(size=rows), 2.0 ** rng.integers(0, 9)
    w, t, b, c, d = (torch.from_numpy(values) for values in (weight, threshold, bias, ceiling, decay))

    assert ours.weight_limit(w) == theirs.weight_limit([weight])
    assert ours.step(w) == 1 + theirs.coarse([weight])
    given = {"threshold": threshold, "bias": bias, "unit": unit, "ceiling": ceiling}
    wanted = profiles.weight_scale(theirs, [weight], **given)
    scale = whole_numbers.weight_scale(ours, w, threshold=t, bias=b, unit=unit, ceiling=c)
    np.testing.assert_array_equal(scale, wanted)
    np.testing.assert_array_equal(
        whole_numbers.weight_scale(ours, w), profiles.weight_scale(theirs, [weight])
    )

    limit, coarse, K = theirs.weight_limit([weight]), theirs.coarse([weight]), wanted * unit
    np.testing.assert_array_equal(
        whole_numbers.weight_units(w, scale, step=ours.step(w), limit=limit),
        profiles.quantised_weight(theirs, weight, wanted, coarse=coarse, limit=limit),
    )
    np.testing.assert_array_equal(whole_numbers.decay_units(ours, d), profiles.quantised_decay(theirs, decay))
    np.testing.assert_array_equal(
        whole_numbers.bias_units(ours, b, torch.from_numpy(K)), profiles.quantised_bias(theirs, bias, K)
    )
    for fires in (">=", ">"):
        for whole in (False, True):
            np.testing.assert_array_equal(
                whole_numbers.threshold_units(ours, t, torch.from_numpy(K), fires, whole=whole),
                profiles.quantised_threshold(theirs, threshold, K, fires, whole=whole),
            )
    for size in (0.0, 0.3, 1.0, 200.0):
        assert whole_numbers.fraction(size, ours.signal_bits) == profiles.fraction(size, theirs.signal_bits)
        found = whole_numbers.input_fraction(ours, w, size, threshold=0.7, bias=b, ceiling=c)
        assert found == profiles.input_fraction(
            theirs, weight, size, threshold=0.7, bias=bias, ceiling=ceiling
        )


def compiled(model, profile, x, kind="real"):
    """The graph of whole numbers that the compiler makes of a model, with ranges measured on x."""
    graph = unscan.trace(model, x, kind=kind)
    for step in (Unroll(), FoldNorm(), Quantize(profile, ranges(x.double().numpy()))):
        graph = step.rewrite(graph).graph
    return graph


def written(graph, name):
    """The whole number that the compiler wrote for one of a model's numbers."""
    holder, _, leaf = name.rpartition(".")
    node = graph.nodes[holder]
    if leaf == "weight":
        return node.weight
    if leaf == "bias":
        target = graph.nodes.get(holder.replace("linear", "neuron")) or graph.nodes.get(
            holder.replace("linear", "integrator")
        )
        return node.bias if target is None else target.bias
    return node.beta if leaf == "stored_beta" else node.threshold + 1


FLAVOURS = {
    "norm": {},
    "spikes": {"real": False},
    "residual": {
        "layers": [{"width": 3, "neuron": {"kind": "leaky"}, "residual": True}, LAYERS[1]],
        "real": False,
    },
    "gain": {
        "layers": [
            {"width": 8, "neuron": {"kind": "leaky", "beta": 0.6, "gain": "1-beta", "fires": ">"}},
            {"width": 7, "neuron": {"kind": "state_leaky", "beta": 0.5, "gain": "1-beta"}},
        ]
    },
    "subtract": {
        "layers": [{"width": 8, "neuron": {"kind": "leaky", "reset": "subtract", "threshold": 0.37}}]
    },
    "no leak": {"layers": [{"width": 8, "neuron": {"kind": "leaky", "beta": 0.99999, "fires": ">"}}]},
    "linear": {"readout": {"kind": "linear"}},
    "spiking": {
        "readout": {"kind": "spiking", "neuron": {"kind": "leaky", "phase": "next", "threshold": 0.1}}
    },
    "integrator": {"readout": {"beta": 0.7, "gain": "1-beta"}},
}


@pytest.mark.parametrize("profile", NAMES)
@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_layer_has_the_whole_numbers_that_the_compiler_writes(profile, flavour):
    model, quantised, x = made(profile, **FLAVOURS[flavour])
    graph = compiled(model, profile, x, "real" if quantised.real else "spike")
    seen = quantised.choices()
    entry = graph.nodes.get("input.quantized")
    assert (entry is None) == ("input.scale" not in seen)
    if entry is not None:
        assert seen.pop("input.scale").units.item() == 2.0**entry.fraction
        bounds = [seen.pop(f"input.{name}").units.item() for name in ("low", "high")]
        assert bounds == [entry.format.min, entry.format.max]
    assert len(seen) >= 7
    for name, chosen in seen.items():
        ours = chosen.units.detach().numpy()
        theirs = np.broadcast_to(written(graph, name), ours.shape)
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@pytest.mark.parametrize("profile", NAMES)
def test_the_compiled_model_does_what_was_trained(profile):
    """They part by the truncation of membranes alone, and a neuron by chance so near its threshold."""
    model, quantised, x = made(profile)
    fired = {}
    frozen = quantised.frozen()
    for name, module in frozen.named_modules():
        if name.endswith("neuron"):
            module.register_forward_hook(lambda m, i, spikes, name=name: fired.update({name: spikes}))
    outputs = frozen(x).detach().numpy()
    graph = compiled(model, profile, x)
    run = Reference(graph).run(x.double().numpy())
    for name, spikes in fired.items():
        theirs, ours = run.spikes[name].astype(bool), spikes.numpy().astype(bool)
        f1 = 2 * (theirs & ours).sum() / (theirs.sum() + ours.sum())
        assert f1 > 0.98, name
    unit = graph.meta["quantised"]["output"]
    assert np.abs(run.outputs / unit - outputs).mean() < 0.1 * np.abs(outputs).mean()


def test_a_gradient_goes_through_rounding_and_stops_where_a_format_saturates():
    value = torch.tensor([0.3, 1.0, 7.4, 9.0, -20.0], requires_grad=True)
    units = torch.round(value.detach() * 2).clamp(-15, 15)
    held = straight(value, torch.tensor(2.0), units)
    assert held.tolist() == [0.5, 1.0, 7.5, 7.5, -7.5]
    (held * torch.arange(1.0, 6.0)).sum().backward()
    assert value.grad.tolist() == [1.0, 2.0, 3.0, 0.0, 0.0]


def made(profile, *, layers=LAYERS, readout=None, real=True, seed=0):
    """A model whose norms have seen something, and its fake-quantised form."""
    network = Network.model_validate({"layers": layers, "readout": readout or {"beta": 0.9}})
    torch.manual_seed(seed)
    model = build(network, 3, 2)
    x = torch.rand(40, 6, 3)
    x = x if real else (x > 0.5).float()
    for _ in range(20):
        model(x)
    quantised = Quantised(model.eval(), network, profile, real=real).eval()
    quantised.observe(x)
    return model, quantised, x


@pytest.mark.parametrize("profile", NAMES)
def test_it_runs_the_numbers_that_it_chose_and_leaves_the_model_as_it_is(profile):
    model, quantised, x = made(profile)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    outputs = quantised(x)
    frozen = quantised.frozen()
    assert torch.equal(frozen(x), outputs)
    assert not torch.equal(model(x), outputs)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for name, chosen in quantised.choices().items():
        assert torch.equal(chosen.units, torch.round(chosen.units)), name
        held = frozen.get_submodule(name.rpartition(".")[0]).state_dict()[name.rpartition(".")[2]]
        assert torch.equal(held, (chosen.units / chosen.scale).float()), name


def test_processes_agree_on_the_largest_number_of_all():
    _, alone, x = made("int8", layers=LAYERS[:1])
    others = [x[:, :2], -2 * x[:, 2:]]
    gone_by = []
    for mine in others:
        _, quantised, _ = made("int8", layers=LAYERS[:1])
        seen = []
        quantised.observe(mine, lambda numbers, seen=seen: seen.append(numbers.clone()) or numbers)
        gone_by.append(seen)
    together = iter(torch.maximum(*pair) for pair in zip(*gone_by, strict=True))
    alone.observe(x[:, :2], lambda _: next(together))
    assert alone.low.item() == -2 * x[:, 2:].max().item()
    assert alone.high.item() == x[:, :2].max().item()
    entry = alone.choices()["input.low"].units.item()
    assert entry < 0


def test_finer_numbers_are_nearer_to_the_model():
    errors = []
    for profile in ("int8", "int16"):
        model, quantised, x = made(profile)
        errors.append((quantised(x) - model(x)).abs().mean().item())
    assert errors[1] < errors[0] / 4


@pytest.mark.parametrize("profile", NAMES)
def test_every_parameter_learns_through_its_whole_number(profile):
    model, quantised, x = made(profile)
    quantised(x).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"kind": "linear", "width": 4}, r"network\.layers\.1 is linear"),
        ({"kind": "spiking_ssm", "states": 4}, r"network\.layers\.1 is spiking_ssm"),
        ({"width": 4, "neuron": {"kind": "adaptive_leaky"}}, r"network\.layers\.1\.neuron is adaptive_leaky"),
    ],
)
def test_what_is_not_imitated_is_refused_by_its_place(layer, said):
    with pytest.raises(InvalidInput, match=said):
        made("int8", layers=[LAYERS[0], layer])
    neuron = {"kind": "stochastic_leaky"}
    with pytest.raises(InvalidInput, match=r"network\.readout\.neuron is stochastic_leaky"):
        made("int8", layers=LAYERS[:1], readout={"kind": "spiking", "neuron": neuron})


def test_a_real_input_is_not_added_to_spikes():
    layers = [LAYERS[0] | {"width": 3, "residual": True}]
    with pytest.raises(InvalidInput, match="other units"):
        made("loihi2", layers=layers)
    _, quantised, x = made("loihi2", layers=layers, real=False)
    assert quantised(x).shape == (40, 6, 2)


def test_chunks_of_a_batch_give_the_same_gradients(tmp_path):
    layers = [LAYERS[0], LAYERS[1] | {"norm": "none"}]
    model, quantised, x = made("loihi2", layers=layers)
    y, found = torch.arange(6) % 2, []
    for chunk in (None, 4):
        model.zero_grad()
        gradients(quantised, x, y, Objective("class", "mean"), chunk)
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    for whole, chunked in zip(*found, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-4, atol=1e-5)
