"""Wrong input to every command: exit code 2, one paragraph that names the thing, and nothing left behind."""

import json
import shutil

import nir
import numpy as np
import pytest
import yaml

from tests.test_cli import refused, trained, unscan  # noqa: F401 (a fixture)
from tests.test_tiny import RECIPE


def bad_recipe(folder, **changes):
    path = folder / "bad.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, **changes}))
    return path


WRONG = {
    "missing file": (lambda f: ("inspect", f / "ghost.unscan"), "ghost.unscan"),
    "missing run": (lambda f: ("compile", f / "ghost", "-o", f / "x.unscan"), "ghost"),
    "a folder without a run": (lambda f: ("compile", f, "-o", f / "x.unscan"), "recipe.yaml"),
    "truncated": (lambda f: ("inspect", cut(f)), "cut.unscan"),
    "flipped": (lambda f: ("inspect", flip(f)), "flip.unscan"),
    "newer format": (lambda f: ("inspect", newer(f)), "format version 99"),
    "truncated nir": (lambda f: ("inspect", cut_nir(f)), "cut.nir"),
    "unknown recipe key": (lambda f: ("train", bad_recipe(f, epoks=3), "--out", f / "x"), "epoks"),
    "bad recipe value": (lambda f: ("train", bad_recipe(f, epochs=-3), "--out", f / "x"), "epochs"),
    "unknown task": (lambda f: ("train", bad_recipe(f, task={"name": "mnst"}), "--out", f / "x"), "mnst"),
    "missing recipe": (lambda f: ("train", f / "ghost.yaml", "--out", f / "x"), "ghost.yaml"),
    "unknown target": (lambda f: ("check", f / "same.unscan", "--target", "loihi9"), "loihi9"),
    "unknown suffix": (lambda f: ("export", f / "same.unscan", "-o", f / "x.foo"), ".nir"),
    "parallel graph": (lambda f: ("export", f / "run", "-o", f / "x.onnx"), "unroll"),
    "unknown executor": (lambda f: ("simulate", f / "same.unscan", "--executor", "gpu"), "gpu"),
    "unknown energy": (lambda f: ("simulate", f / "same.unscan", "--samples", 2, "--energy", "free"), "free"),
    "wrong shape": (lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5, 2, 7))), "(T, B, 1)"),
    "nan input": (lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5, 2, 1), np.nan)), "finite"),
    "labels that do not fit": (
        lambda f: ("verify", f / "run", f / "same.unscan", "--input", array(f, (5, 2, 1)), "--labels",
                   array(f, (3,), name="y")), "one label",
    ),
    "labels of the wrong number": (
        lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5, 2, 1)), "--labels",
                   array(f, (3,), 1, name="y")), "one label",
    ),
    "labels that are no classes": (
        lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5, 2, 1)), "--labels",
                   array(f, (2,), 99, name="y")), "99",
    ),
    "labels between numbers": (
        lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5, 2, 1)), "--labels",
                   array(f, (2,), 0.5, name="y")), "whole number",
    ),
    "no step axis": (
        lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5,)), "--samples", 1), "(T, B, 1)",
    ),
    "text as input": (
        lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5, 2, 1), "a")), "real numbers",
    ),
    "complex input": (
        lambda f: ("simulate", f / "same.unscan", "--input", array(f, (5, 2, 1), 1j)), "complex128",
    ),
    "record of another kind": (
        lambda f: ("simulate", f / "same.unscan", "--samples", 2, "--output", f / "x.foo"), ".npz",
    ),
    "record into a folder": (
        lambda f: ("simulate", f / "same.unscan", "--samples", 2, "--output", f / "run"), "folder",
    ),
    "report into a folder": (lambda f: ("report", f / "same.unscan", "-o", f / "run"), "folder"),
    "json into no folder": (
        lambda f: ("simulate", f / "same.unscan", "--json", f / "no" / "x.json"), "does not exist",
    ),
    "run below a file": (lambda f: ("train", f / "tiny.yaml", "--out", f / "tiny.yaml" / "x"), "--out"),
    "labels alone": (lambda f: ("verify", f / "run", f / "same.unscan", "--labels", array(f, (3,))), "--input"),
    "no array": (lambda f: ("simulate", f / "same.unscan", "--input", f / "tiny.yaml"), "tiny.yaml"),
    "phase without reset": (lambda f: ("compile", f / "run", "-o", f / "x.unscan", "--phase", "next"), "--reset"),
    "threshold of nothing": (lambda f: ("compile", f / "run", "-o", f / "x.unscan", "--threshold", "0"), "greater"),
    "output of another kind": (lambda f: ("compile", f / "run", "-o", f / "x.nir"), ".unscan"),
    "form of another target": (lambda f: ("export", f / "same.unscan", "-o", f / "x.nir", "--form", "scan"), "onnx"),
    "no such folder": (lambda f: ("compile", f / "run", "-o", f / "no" / "x.unscan"), "does not exist"),
    "trained already": (lambda f: ("train", f / "tiny.yaml", "--out", f / "run"), "--resume"),
    "unknown pass": (lambda f: ("compile", f / "run", "-o", f / "x.unscan", "--passes", "fold"), "no pass 'fold'"),
    "pass without its option": (
        lambda f: ("compile", f / "run", "-o", f / "x.unscan", "--passes", "unroll,restore-reset"), "memory_reset",
    ),
    "option without its pass": (
        lambda f: ("compile", f / "run", "-o", f / "x.unscan", "--passes", "unroll", "--threshold", "1"),
        "fold-threshold",
    ),
    "bad top-k": (lambda f: ("compile", f / "run", "-o", f / "x.unscan", "--top-k", "x=3"), "k=4,v=0.5"),
    "weights of a run": (lambda f: ("compile", f / "run", "-o", f / "x.unscan", "--weights", f / "w.pt"), "FILE.py"),
    "bad shape": (lambda f: ("compile", f / "n.py:Net", "-o", f / "x.unscan", "--shape", "3y4"), "3x32x32"),
    "bad argument": (lambda f: ("compile", f / "n.py:Net", "-o", f / "x.unscan", "--arg", "3"), "name=value"),
    "missing class file": (lambda f: ("compile", f / "no.py:Net", "-o", f / "x.unscan", "--shape", "3"), "no.py"),
    "static run": (lambda f: ("compile", f / "run", "--static", "-o", f / "x.unscan"), "static=True"),
    "steps of a graph": (lambda f: ("inspect", f / "same.unscan", "--steps", 3), "steps=3"),
    "two forwards": (
        lambda f: ("compile", klass(f), "--shape", 3, "--static", "--stepwise", "-o", f / "x.unscan"),
        "say one of these",
    ),
    "no such dialect": (lambda f: ("inspect", foreign(f), "--nir-dialect", "brian"), "brian"),
    "no time step": (lambda f: ("inspect", foreign(f)), "--dt SECONDS"),
    "calibration without samples": (
        lambda f: ("compile", klass(f), "--shape", 3, "--calibrate", "-o", f / "x.unscan"),
        "--input FILE.npy",
    ),
    "layer that is no memory": (
        lambda f: ("compile", f / "run", "--top-k", "ghost:k=1", "-o", f / "x.unscan"),
        "ghost",
    ),
    "NaN weights": (lambda f: ("compile", spoiled(f), "-o", f / "x.unscan"), "layer1.linear"),
}  # fmt: skip


def cut(folder):
    path = folder / "cut.unscan"
    path.write_bytes((folder / "same.unscan").read_bytes()[:-100])
    return path


def flip(folder):
    path = folder / "flip.unscan"
    content = bytearray((folder / "same.unscan").read_bytes())
    content[-200] ^= 1
    path.write_bytes(content)
    return path


def newer(folder):
    path = folder / "newer.unscan"
    content = (folder / "same.unscan").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header["__metadata__"]["format"] = "99"
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    return path


def cut_nir(folder):
    unscan("export", folder / "same.unscan", "-o", folder / "whole.nir")
    path = folder / "cut.nir"
    path.write_bytes((folder / "whole.nir").read_bytes()[:1500])
    return path


def array(folder, shape, value=0.5, name="x"):
    np.save(folder / f"{name}.npy", np.full(shape, value))
    return folder / f"{name}.npy"


def klass(folder):
    (folder / "linear.py").write_text("from torch import nn\n\n\ndef net():\n    return nn.Linear(3, 2)\n")
    return f"{folder / 'linear.py'}:net"


def foreign(folder):
    ones = np.ones(3)
    lif = nir.LIF(tau=ones / 100, r=ones, v_leak=0 * ones, v_threshold=ones / 2, v_reset=0 * ones)
    nodes = {"input": nir.Input(np.array([3])), "lif": lif, "output": nir.Output(np.array([3]))}
    nir.write(folder / "foreign.nir", nir.NIRGraph(nodes, [("input", "lif"), ("lif", "output")]))
    return folder / "foreign.nir"


def spoiled(folder):
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = folder / "spoiled"
    shutil.copytree(folder / "run", path, dirs_exist_ok=True)
    with safe_open(path / "model.safetensors", framework="numpy") as file:
        header = file.metadata()
    weights = load_file(path / "model.safetensors")
    weights["layer1.linear.weight"][0, 0] = np.nan
    save_file(weights, path / "model.safetensors", header)
    return path


@pytest.mark.parametrize("case", WRONG)
def test_wrong_input_is_one_paragraph_that_names_the_thing_and_leaves_nothing(trained, case):  # noqa: F811
    command, named = WRONG[case]
    arguments = command(trained)
    before = {p.name for p in trained.iterdir()}
    assert named in refused(*arguments)
    assert {p.name for p in trained.iterdir()} == before
