"""Modules of SpikingJelly and norse, read by their rules where they are installed, fire here as they fire there."""

import json

import numpy as np
import pytest

from tests.foreign.running import run
from unscan.compiler.storage import load
from unscan.runtime.executors.reference import Reference

pytestmark = pytest.mark.slow

REFUSED = {
    "spikingjelly": {
        "psn": "a spikingjelly.PSN, which cannot be read: its weights mix all steps of a sequence, later ones too",
        "masked": "its weights differ from step to step of a sequence of T steps",
        "gated": "its conduct differs from step to step",
        "qif": "driven by its own square",
        "eif": "driven by its own exponential",
        "izhikevich": "driven by its own square",
        "ilif": "fires several spikes in one step",
        "liaf": "what leaves it is a function of its membrane",
        "ternary": "it fires spikes of -1 too",
        "clif": "its reset grows with a sigmoid",
        "readout": "give the decision over time to the graph",
        "pool": "MaxPool2d with ceil_mode",
        "no-rule": "a spikingjelly.DSRIFNode, which cannot be read: no rule knows it; supported are IFNode, LIFNode",
        "soft-surrogate": "its surrogate_function, Sigmoid, gives other numbers than 0 below the threshold",
        "fires-on": "its threshold, 0.5, is not above 0.6, so that it fires on without an input",
        "klif-low": "its membrane starts from, or is reset to, another value than 0",
        "one-step": "handed a whole sequence, (T, B, ...), and it takes one step",
        "own": "Doubled writes single_step_functional_forward anew",
        "flatten": "it joins axes 0 to -1",
        "own-function": "its element_wise_function is none that has a name",
        "not-a-rule": "in it stands a Sequential, which has no rule of its own",
        "not-spikes": "what comes back to it are real numbers",
        "batch-channels": "told by its channel_dim that the batch is its channels",
    },
    "norse": {
        "exponential": "a norse.LIFExCell, which cannot be read: its membrane is driven by its own exponential",
        "adex": "driven by its own exponential",
        "izhikevich": "driven by its own square",
        "coba": "its conductances change its decay",
        "compartments": "no neuron here has compartments",
        "adjoint": "its method is 'adjoint'",
        "too-fast": "its membrane is multiplied by -0.2 at each step",
        "current-too-fast": "its current is multiplied by -0.2 at each step",
        "fires-on": "its threshold, 0.35, is not above 0.5",
        "own-reset": "its reset_method is none of norse's own",
        "own": "Started writes initial_state anew",
        "no-adaptation": "are to be greater than 0",
        "mixed-rests": "its rho_reset, 1 to 2, differs between neurons",
        "sequence": "handed one step, (B, ...), and it takes a whole sequence",
        "several": "with several output_modules it returns several signals",
        "not-spikes": "what comes back to it are real numbers",
        "nested": "in it stands a SequentialState",
    },
}
WITHOUT_SPIKES: dict[str, set[str]] = {
    "spikingjelly": {"conv1d", "conv2d", "delay", "dropout", "filter", "filter-learned", "flatten", "norm1d"}
    | {"norm2d", "pool", "tdbn"},
    "norse": {"li", "li-box", "li-leak", "li-linear", "read-out"},
}


@pytest.fixture(scope="module", params=["spikingjelly", "norse"])
def read(request, tmp_path_factory):
    """The name of a framework, and the folder of what was read there."""
    folder = tmp_path_factory.mktemp(request.param)
    run(request.param, f"modules_{request.param}.py", folder)
    return request.param, folder


def test_every_module_fires_as_it_does_in_its_framework(read):
    framework, folder = read
    cases = sorted(folder.glob("*.unscan"))
    silent, wrong = set(WITHOUT_SPIKES[framework]), []
    for path in cases:
        case = np.load(path.with_suffix(".npz"))
        x, y = case["x"], case["y"]
        outputs = Reference(load(path)).run(x).outputs
        assert len(x) == 100, path
        if path.stem.rpartition(".")[0] in WITHOUT_SPIKES[framework]:
            silent.discard(path.stem.rpartition(".")[0])
            np.testing.assert_allclose(outputs, y, rtol=0, atol=1e-12, err_msg=path.stem)
            continue
        assert 0.02 < y.mean() < 0.98, path
        both = np.sum((outputs == 1) & (y == 1))
        if 2 * both / (outputs.sum() + y.sum()) != 1:
            wrong.append(path.stem)
    assert not wrong
    assert not silent
    assert len(cases) > 40


def test_what_has_no_node_is_refused_with_the_reason(read):
    framework, folder = read
    said = json.loads((folder / "refusals.json").read_text())
    assert set(said) == set(REFUSED[framework])
    for name, reason in REFUSED[framework].items():
        assert reason in str(said[name]), name
