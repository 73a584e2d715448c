"""The demo's own network, trained on digits: counted by NeuroBench, and run from its NIR file by other frameworks."""

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import unscan
from tests.foreign.counted import counted
from tests.foreign.running import run
from unscan.cli import main
from unscan.runtime.executors.reference import Reference
from unscan.sources import read_samples
from unscan.targets.nir import DT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder that `unscan demo` makes, its graph, and the whole test set."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = CliRunner().invoke(main, ["demo", "--out", str(folder)])
    assert done.exit_code == 0, done.output
    graph = unscan.load(folder / "model.unscan")
    return folder, graph, read_samples(graph, inputs=None, labels=None, data_dir=None, limit=None)


def test_neurobench_counts_what_we_count(demo, tmp_path):
    _, graph, data = demo
    ours = unscan.simulate(graph.astype(np.float64), data.x, record=False).counts.total
    theirs = counted("neurobench", graph, data.x, tmp_path)
    assert ours.acs > 1_000_000
    assert theirs == {"Effective_ACs": ours.acs, "Effective_MACs": ours.macs, "Dense": ours.dense_macs}


@pytest.mark.parametrize(("framework", "options"), [("snntorch", ()), ("norse", (str(DT),))])
def test_other_frameworks_run_the_nir_file(demo, tmp_path, framework, options):
    folder, graph, data = demo
    shutil.copy(folder / "model.nir", tmp_path / "demo.nir")
    np.save(tmp_path / "demo.x.npy", data.x.astype(np.float32))
    run(framework, f"run_{framework}.py", tmp_path, *options)
    theirs, truth = np.load(tmp_path / "demo.y.npy"), Reference(graph).run(data.x, record=False).outputs
    apart = np.abs(theirs - truth).max(axis=(0, 2))
    assert (theirs[-1].argmax(-1) == truth[-1].argmax(-1)).all()
    assert np.mean(apart < 1e-4) >= 0.99  # a tie in float32 may send a sample another way
