"""Every function that has a rule: the reference of its graph is the forward itself, in float64."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.graphs import sequence
from unscan.compiler.errors import InvalidGraph, InvalidInput, Unsupported
from unscan.compiler.frontends.trace import trace
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import GLU, Activation, BatchNorm, Concatenate, Linear, Multiply, Scale, Threshold
from unscan.runtime.executors.reference import Reference


class Net(nn.Module):
    """A model whose forward is given."""

    def __init__(self, function: Callable[[Any, Tensor], Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function, self.fc, self.wide = function, nn.Linear(6, 6), nn.Linear(6, 12)
        self.gain = nn.Parameter(torch.rand(6) + 0.5)
        self.register_buffer("shift", torch.rand(6) + 0.5)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def halves(net: Net, x: Tensor) -> Tensor:
    a, b = net.wide(x).chunk(2, dim=-1)
    return torch.sigmoid(b) * a


def shapes(net: Net, x: Tensor) -> Tensor:
    steps, batch, _ = x.shape
    images = x.view(steps, batch, 2, -1)
    return net.fc(images.reshape(x.size(0), x.size(1), -1)) + x.unsqueeze(2).squeeze(2) * len(x[0].shape)


def folded(net: Net, x: Tensor) -> Tensor:
    return net.fc(x.flatten(0, 1)).unflatten(0, (x.shape[0], x.shape[1]))


def pooled(net: Net, x: Tensor) -> Tensor:
    images = net.wide(x).flatten(0, 1).unflatten(-1, (2, 2, 3))
    y = functional.max_pool2d(images, (1, 2), 1) + functional.avg_pool2d(images, (1, 2), stride=1)
    return y.flatten(1).unflatten(0, x.shape[:2])


def augmented(net: Net, x: Tensor) -> Tensor:
    y = net.fc(x)
    y += x
    y *= 2
    return y.sub_(net.shift).relu_()


def from_zeros(net: Net, x: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    for layer in (net.fc, net.fc):
        y = y + layer(x)
    return y


ACCEPTED: dict[str, Callable[[Any, Tensor], Any]] = {
    "a bias": lambda net, x: net.fc(x) + net.shift,
    "a bias before": lambda net, x: net.shift + x,
    "a bias of one axis more": lambda net, x: x + net.shift[None, None],
    "numbers": lambda net, x: 1 - x / 3 + 2,
    "a constant minus a signal": lambda net, x: net.shift - x,
    "signals": lambda net, x: net.fc(x) - x + x - 0.5 * (-x),
    "torch's names": lambda net, x: torch.mul(torch.add(net.fc(x), x), torch.sub(x, 1)) + torch.neg(x),
    "a scale": lambda net, x: x * net.gain,
    "a scale before": lambda net, x: net.gain * x,
    "a scale made of weights": lambda net, x: x * torch.exp(-net.gain),
    "a quotient": lambda net, x: x / net.gain,
    "a product of signals": lambda net, x: net.fc(x) * torch.sigmoid(x),
    "concatenation": lambda net, x: torch.cat([x, net.fc(x)], dim=-1),
    "concatenation along the second axis": lambda net, x: torch.cat(
        [x.unflatten(2, (3, 2)), net.fc(x).unflatten(2, (3, 2))], 3
    ),
    "glu": lambda net, x: functional.glu(net.wide(x), dim=-1),
    "a glu by hand": halves,
    "pools": pooled,
    "shapes": shapes,
    "folded": folded,
    "in place": augmented,
    "from zeros": from_zeros,
    "a sum by Python": lambda net, x: sum([x, net.fc(x)]),
    "a product with a matrix": lambda net, x: x @ net.fc.weight.T,
    "linear": lambda net, x: functional.linear(x, net.fc.weight, net.shift),
    "activations": lambda net, x: (
        functional.relu(x) + x.sigmoid() + torch.tanh(x) + functional.silu(x) + functional.gelu(x)
        + functional.gelu(x, approximate="tanh") + functional.elu(x) + functional.softplus(x)
        + functional.relu6(x) + functional.hardtanh(x) + functional.hardsigmoid(x) + functional.relu(x, inplace=True)
    ),
    "a threshold": lambda net, x: (x > 0.5).to(x.dtype) * net.gain + (net.fc(x) >= net.shift),
    "dropout of training": lambda net, x: functional.dropout(x, 0.5, net.training),
    "nothing": lambda net, x: x.permute(0, 1, 2).contiguous().clone().transpose(1, 1),
    "a loop over steps": lambda net, x: torch.stack([net.fc(x[step]) for step in range(x.shape[0])]),
    "an iteration over steps": lambda net, x: torch.stack([torch.relu(net.fc(part)) for part in x], dim=0),
    "steps taken apart": lambda net, x: torch.stack([net.fc(part) + part for part in x.unbind(0)]),
    "steps by index": lambda net, x: torch.stack([net.fc(x[t, :, :]) * x[t, ...] for t in range(len(x))]),
}  # fmt: skip


@pytest.mark.parametrize("name", ACCEPTED)
def test_functions_that_have_nodes(name):
    net = Net(ACCEPTED[name]).double().eval()
    graph = trace(net, np.zeros((1, 1, 6)))
    x = sequence(graph, 9, 4) * 2
    with torch.no_grad():
        expected = net(torch.from_numpy(x.copy())).numpy()
    np.testing.assert_allclose(Reference(graph).run(x).outputs, expected, rtol=0, atol=1e-12)


def node_of(name: str) -> Any:
    graph = trace(Net(ACCEPTED[name]), np.zeros((1, 1, 6), np.float32))
    return [type(graph.nodes[key]) for key in graph.order][1:-1]


def test_which_nodes_they_become():
    assert node_of("a glu by hand") == [Linear, GLU]
    assert node_of("a bias") == [Linear, BatchNorm]
    assert node_of("a scale made of weights") == [Scale]
    assert node_of("a product of signals") == [Linear, Activation, Multiply]
    assert node_of("concatenation") == [Linear, Concatenate]
    assert node_of("a threshold") == [Threshold, Scale, Linear, Threshold]
    assert node_of("folded") == node_of("a loop over steps") == [Linear]
    assert node_of("nothing") == node_of("dropout of training") == []


def test_names_of_functions_leave_those_of_modules_alone():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.relu = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(torch.relu(x))

    graph = trace(Named(), np.zeros((1, 1, 6), np.float32))
    assert isinstance(graph.nodes["relu"], Linear)
    assert isinstance(graph.nodes["relu.function"], Activation)


def shared(net: Net, x: Tensor) -> Tensor:
    y = net.fc(x)
    z = y.view(y.shape)
    y += 1
    return y + z


def written(net: Net, x: Tensor) -> Tensor:
    y = net.fc(x)
    y[0] = 0
    return y


def narrowed(net: Net, x: Tensor) -> Tensor:
    return net.fc(x.float().double())


REFUSED: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "mean over time": (lambda net, x: net.fc(x).mean(0), "uses mean .*decide outside"),
    "sum over neurons": (lambda net, x: net.fc(x).sum(-1, keepdim=True), "uses sum .*has no node"),
    "where": (lambda net, x: torch.where(x > 0.5, x, net.gain), r"uses where \(line \d+ of test_trace_functions.py"),
    "flip": (lambda net, x: torch.flip(x, [0]), "uses flip .*mixes the steps"),
    "cumsum": (lambda net, x: x.cumsum(0), "uses cumsum .*mixes the steps"),
    "order of axes": (lambda net, x: net.fc(x.permute(1, 0, 2)), "uses permute .*changes the order of the axes"),
    "transposed": (lambda net, x: net.fc(x.transpose(0, 1)), "uses transpose .*changes the order"),
    "a part": (lambda net, x: net.fc(x)[..., :3], "uses getitem .*a part of a signal"),
    "one half": (lambda net, x: net.wide(x).chunk(2, -1)[0], "a half of a signal"),
    "dropout at inference": (lambda net, x: functional.dropout(x), "uses dropout .*training=self.training"),
    "random": (lambda net, x: x + torch.randn_like(x), "uses randn_like .*random numbers"),
    "written in part": (written, "writes into a part of a tensor"),
    "memory shared": (shared, "writes in place into a tensor that shares its memory"),
    "an inverse": (lambda net, x: 1 / x, "divides by a signal"),
    "a threshold below": (lambda net, x: (x > -1).float(), "not greater than 0"),
    "signals compared": (lambda net, x: (x > net.fc(x)).float(), "compares signals"),
    "half precision": (lambda net, x: net.fc(x.half().float()), "uses half"),
    "to half precision": (lambda net, x: net.fc(x.to(torch.float16).float()), "rounds to torch.float16"),
    "narrowed": (narrowed, "rounds to float32, and the model computes in float64"),
    "a larger constant": (
        lambda net, x: x.unflatten(2, (6, 1)) * net.gain, "different shapes|not be larger than the neurons",
    ),
    "broadcast signals": (lambda net, x: net.fc(x) * x[..., None][..., 0, :], "part of a signal"),
    "alpha": (lambda net, x: torch.add(net.fc(x), x, alpha=2), "has an alpha"),
    "elu": (lambda net, x: functional.elu(x, 0.5), "alpha is 0.5, and the node has 1"),
    "no axis of neurons": (lambda net, x: x[..., None].flatten(2)[:, :, None].sum(-1), "uses sum"),
    "time in the middle": (lambda net, x: torch.stack([net.fc(part) for part in x], 1), "time behind other axes"),
    "time backwards": (lambda net, x: torch.stack([net.fc(part) for part in x][::-1]), "a tensor of every step"),
    "a convolution by hand": (
        lambda net, x: functional.conv1d(x.flatten(0, 1)[:, None], net.gain[None, None]), "use the module of torch.nn",
    ),
    "weights of the input": (lambda net, x: functional.linear(x, x[0]), "combines|weights depend"),
    "joined in time": (lambda net, x: torch.cat([x, x], 0), "along time or batch"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_functions_that_have_none_name_the_line(name):
    function, message = REFUSED[name]
    with pytest.raises(Unsupported, match=message):
        trace(Net(function).double() if name == "narrowed" else Net(function), torch.zeros(2, 1, 6).double())


VALUES: dict[str, Callable[[Any, Tensor], Any]] = {
    "item": lambda net, x: x * x.sum().item(),
    "if": lambda net, x: x if (x > 0).any() else net.fc(x),
    "float": lambda net, x: x * float(x.max()),
}


@pytest.mark.parametrize("name", VALUES)
def test_a_forward_that_depends_on_values_is_refused(name):
    with pytest.raises(InvalidInput, match="depends on the values of its input"):
        trace(Net(VALUES[name]), torch.zeros(2, 1, 6))


def test_a_forward_that_fails_says_where():
    with pytest.raises(
        InvalidInput, match=r"forward of Net fails.*test_trace_functions.py.*ZeroDivisionError"
    ):
        trace(Net(lambda net, x: x * (1 / 0)), torch.zeros(2, 1, 6))
    with pytest.raises(InvalidGraph, match=r"add fails on the shapes at hand \(line"):
        trace(Net(lambda net, x: x + net.wide(x)), torch.zeros(2, 1, 6))


def test_a_threshold_by_hand_sends_spikes():
    graph = trace(Net(lambda net, x: net.fc((x > 0.5).float())), torch.zeros(2, 1, 6))
    assert graph.signals["gt"].kind is Kind.SPIKE


def test_the_model_is_left_as_it_was():
    net = Net(ACCEPTED["dropout of training"]).train()
    net.fc.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    trace(net, torch.zeros(2, 1, 6))
    assert (net.training, net.fc.training, net.wide.training) == (True, False, True)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert type(nn.Module.__call__).__name__ == "function"
    assert net.fc(torch.zeros(1, 6)).requires_grad


class Spike(torch.autograd.Function):
    """A surrogate gradient as users write them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0.5).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def test_a_surrogate_of_ones_own_is_read_by_its_forward():
    net = Net(lambda net, x: Spike.apply(net.fc(x))).double()
    graph = trace(net, np.zeros((1, 1, 6)))
    assert [type(graph.nodes[name]) for name in graph.order[1:-1]] == [Linear, Threshold]
    x = sequence(graph, 9, 2) * 2
    with torch.no_grad():
        np.testing.assert_array_equal(Reference(graph).run(x).outputs, net(torch.from_numpy(x)).numpy())


def test_numbers_that_come_by_another_way_are_no_constants():
    def hidden(net: Net, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunctionSubclass():
            secret = x.as_subclass(torch.Tensor).exp()
        return net.fc(x) + secret

    with pytest.raises(
        Unsupported, match="same at every step|depends on the length, the batch or the numbers"
    ):
        trace(Net(hidden), np.zeros((1, 1, 6), np.float32))
