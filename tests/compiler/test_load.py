"""A class in a user's file, and its weights: what is loaded, and what each mistake says."""

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.graphs import sequence
from unscan.compiler.errors import DamagedFile, InvalidInput
from unscan.compiler.frontends.load import load_graph, load_model
from unscan.compiler.ir import Kind
from unscan.runtime.executors.model import Model
from unscan.runtime.executors.reference import Reference
from unscan.sources import is_source, read_graph, read_model

FILE = '''
"""A user's file."""
import torch
from torch import nn
from unscan.trainer import Leaky
import beside

class Net(nn.Module):
    def __init__(self, hidden: int, classes: int = 2):
        super().__init__()
        self.fc1, self.neuron = nn.Linear(4, hidden), Leaky(hidden, beta=beside.BETA)
        self.out = nn.Linear(hidden, classes)

    def forward(self, x):
        return self.out(self.neuron(self.fc1(x)))

class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(5, 3)

    def forward(self, x):
        return self.rows(x)

class Fails(nn.Module):
    def __init__(self):
        raise ValueError("no such dataset")

def small():
    return Net(3)

number = 3
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "beside.py").write_text("BETA = 0.7\n")
    path = tmp_path / "my_model.py"
    path.write_text(FILE)
    yield path
    sys.modules.pop("beside", None)


def test_a_class_and_its_weights_become_a_model(file, tmp_path):
    torch.manual_seed(0)
    source, weights = f"{file}:Net", tmp_path / "w.pt"
    trained = load_model(source, arguments={"hidden": 5})
    torch.save(trained.state_dict(), weights)
    torch.manual_seed(1)
    model = load_model(source, weights, {"hidden": 5})
    assert not model.training
    assert type(model) is not type(trained)
    for name, value in model.state_dict().items():
        assert torch.equal(value, trained.state_dict()[name])
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    graph = load_graph(source, shape=(4,), weights=weights, arguments={"hidden": 5}, kind="spike")
    assert graph.history == ("read my_model.py:Net with w.pt",)
    assert graph.signals["input"].kind is Kind.SPIKE
    x = sequence(graph, 30, 2, rate=0.5)
    np.testing.assert_allclose(Reference(graph).run(x).outputs, Model(model, graph).run(x).outputs, atol=1e-5)
    assert float(graph.nodes["neuron"].beta) == pytest.approx(0.7)
    assert not list(tmp_path.glob("__pycache__/my_model*"))


def test_the_command_line_reads_the_same(file):
    torch.manual_seed(0)
    path = Path(f"{file}:small")
    assert is_source(path)
    assert not is_source(Path("run/folder"))
    graph = read_graph(path, shape=(4,))
    assert graph.history == ("read my_model.py:small, its weights as built with seed 0",)
    assert graph.signals["input"].kind is Kind.REAL
    assert read_model(path).fc1.out_features == 3
    assert read_graph(Path(f"{file}:Words"), kind="index").signals["input"].kind is Kind.INDEX
    with pytest.raises(InvalidInput, match=r"--shape 9"):
        read_graph(path)
    with pytest.raises(InvalidInput, match=r"Got dt=0.1, which .*small does not take"):
        read_graph(path, shape=(4,), dt=0.1)
    with pytest.raises(InvalidInput, match=r"Got shape=\(4,\), which model.unscan does not take"):
        read_graph(Path("model.unscan"), shape=(4,))
    with pytest.raises(InvalidInput, match="Got weights or arguments"):
        read_model(Path("run"), weights=Path("w.pt"))


def test_weights_of_other_kinds(file, tmp_path):
    source, arguments = f"{file}:Net", {"hidden": 5}
    state = load_model(source, arguments=arguments).state_dict()
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    torch.save({"epoch": 3, "model_state_dict": state}, tmp_path / "nested.pt")
    torch.save({name: value.half() for name, value in state.items()}, tmp_path / "half.pt")
    torch.save({name: value.double() for name, value in state.items()}, tmp_path / "wide.pt")
    for name in ("w.safetensors", "nested.pt"):
        assert torch.equal(load_model(source, tmp_path / name, arguments).fc1.weight, state["fc1.weight"])
    half = load_model(source, tmp_path / "half.pt", arguments).fc1.weight
    assert half.dtype == torch.float32
    assert torch.equal(half, state["fc1.weight"].half().float())
    assert load_model(source, tmp_path / "wide.pt", arguments).fc1.weight.dtype == torch.float64


class Run:
    """A pickle that runs code as it is read."""

    def __reduce__(self):
        return exec, ("raise SystemExit('the code of a weights file was run')",)


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def state_of(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(shape) for name, shape in shapes.items()}


def test_weights_that_do_not_fit_are_listed(file, tmp_path):
    arguments = {"hidden": 5}
    state = load_model(f"{file}:Net", arguments=arguments).state_dict()
    del state["out.bias"]
    state |= {"out.weight": torch.zeros(3, 5), "head.weight": torch.zeros(1)}
    message = (
        r"do not fit Net: out.bias is missing; head.weight is not a name of the model; "
        r"out.weight has shape \(3, 5\), wanted \(2, 5\).*--arg name=value"
    )
    with pytest.raises(InvalidInput, match=message):
        load_model(f"{file}:Net", saved(tmp_path / "w.pt", state), arguments)


@pytest.mark.parametrize(
    "name", ["missing", "code", "bare code", "cut", "text", "list", "numbers", "cut safetensors"]
)
def test_weights_that_are_none(name, file, tmp_path):
    path = tmp_path / ("w.safetensors" if "safetensors" in name else "w.pt")
    message, error = {
        "missing": ("There is no weights file", InvalidInput),
        "code": ("something else than tensors.*never run", DamagedFile),
        "bare code": ("something else than tensors.*never run", DamagedFile),
        "cut": ("not a complete weights file|damaged", DamagedFile),
        "text": ("damaged|not a complete weights file", DamagedFile),
        "list": ("holds a list, and no state dict", InvalidInput),
        "numbers": ("holds a dict of epoch, and no state dict", InvalidInput),
        "cut safetensors": ("not a complete weights file", DamagedFile),
    }[name]
    if name == "code":
        saved(path, {"w": Run()})
    elif name == "bare code":
        path.write_bytes(pickle.dumps({"w": Run()}))
    elif name == "cut":
        saved(path, state_of(w=(64, 64)))
        path.write_bytes(path.read_bytes()[:2000])
    elif name == "text":
        path.write_text("no weights")
    elif name == "list":
        saved(path, [1, 2])
    elif name == "numbers":
        saved(path, {"epoch": 3})
    elif name == "cut safetensors":
        safetensors.torch.save_file(state_of(w=(64, 64)), path)
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(error, match=message):
        load_model(f"{file}:small", path)


SOURCES = {
    "my_model.py": "name a class in a Python file as FILE.py:NAME",
    "no_file.py:Net": "There is no file .*no_file.py",
    "my_model.py:Ned": "defines no Ned; its models are Net, Words, Fails",
    "my_model.py:number": "number in .* is a int, wanted a class",
    "my_model.py:Net": r"built with no arguments, and takes hidden: .*missing a required argument: 'hidden'.*--arg",
    "my_model.py:Fails": r"Fails\(\) in .* fails \(line 27\): ValueError: no such dataset",
    "my_model.py:len": "defines no len",
}


@pytest.mark.parametrize("source", SOURCES)
def test_sources_that_are_none(source, file):
    with pytest.raises(InvalidInput, match=SOURCES[source]):
        load_model(file.parent / source)


FILES = {
    "import no_such_module": r"fails as it is run \(line 1\): ModuleNotFoundError",
    "x = 1\n(": r"fails as it is run \(line 2\): SyntaxError",
    "import sys\nsys.exit(3)": r"fails as it is run \(line 2\): SystemExit: 3.*__main__",
    "def net():\n    return 3": "defines no Net; it defines no nn.Module",
    "Net = lambda: 3": "Net in .* gives a int, wanted an nn.Module",
}


@pytest.mark.parametrize("content", FILES)
def test_files_that_fail(content, tmp_path):
    (tmp_path / "own.py").write_text(content)
    with pytest.raises(InvalidInput, match=FILES[content]):
        load_model(tmp_path / "own.py:Net")


def test_the_recall_network_is_read_from_its_file(tmp_path):
    source = Path(__file__).parents[2] / "examples" / "associative_recall.py:RecallNet"
    torch.manual_seed(0)
    model = read_model(source, arguments={"width": 16})
    graph = read_graph(
        source, weights=saved(tmp_path / "w.pt", model.state_dict()), shape=(9,), kind="spike",
        arguments={"width": 16},
    )  # fmt: skip
    assert {"in_proj", "gen2_1", "mid.0", "mid.1", "gen2_2", "out_proj"} <= set(graph.nodes)
    assert {name.partition(".")[0] for name in model.state_dict()} == {
        "in_proj", "gen2_1", "mid", "gen2_2", "out_proj",
    }  # fmt: skip
    draw = sys.modules[type(model).__module__].sequences
    x, bits = draw(3, 5, seed=1)
    assert x.shape == (8, 5, 9)
    assert ((x == 0) | (x == 1)).all()
    assert x[6].tolist() == [[0.0] * 8 + [1.0]] * 5
    for sample in range(5):
        asked = [i for i in range(3) if (x[2 * i, sample, :8] == x[7, sample, :8]).all()]
        assert any((x[2 * i + 1, sample, :8] == bits[sample]).all() for i in asked)
    assert Reference(graph).run(x).outputs.shape == (8, 5, 8)


def test_weights_as_built_are_the_same_each_time(tmp_path):
    path = tmp_path / "net.py"
    path.write_text("from torch import nn\n\n\ndef net():\n    return nn.Linear(3, 2)\n")
    state = torch.get_rng_state()
    first, second = (load_model(f"{path}:net").weight for _ in range(2))
    assert first.tolist() == second.tolist()
    assert torch.equal(torch.get_rng_state(), state)
