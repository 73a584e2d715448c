"""What a command line names: the inputs of a drawn task are spikes, and answers at its steps are no labels."""

import numpy as np
import pytest

import unscan
from tests.graphs import chain
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Embedding, Input, Output
from unscan.sources import read_run, read_samples, traced
from unscan.trainer.fit import fit
from unscan.trainer.recipe import Recipe
from unscan.trainer.tasks import load

TASKS = {
    "copy": ({"length": [1, 3], "train": 20, "test": 10}, "every"),
    "listops": ({"min_length": 3, "max_length": 20, "train": 20, "test": 10}, "last"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_drawn_task_is_read_and_run_as_spikes(tmp_path, name):
    settings, decision = TASKS[name]
    content = {
        "task": {"name": name, "settings": settings},
        "network": {
            "layers": [{"width": 12, "neuron": {"kind": "leaky", "beta": 0.9, "reset": "zero"}}],
            "readout": {"decision": decision},
        },
        "epochs": 1,
        "precision": 64,
    }
    fit(Recipe.parse(content, source="test"), tmp_path, quiet=True)
    run = read_run(tmp_path)
    assert run.kind == "spike"
    deployed = unscan.compile(traced(run))
    assert deployed.nodes["input"].kind is Kind.SPIKE

    task = load(name, settings=settings)
    data = read_samples(deployed, inputs=None, labels=None, data_dir=None, limit=8)
    assert data.x.dtype == np.float32
    np.testing.assert_array_equal(data.x, task.test.x[:8].transpose(0, 1))
    if decision == "every":
        assert data.labels is None
    else:
        np.testing.assert_array_equal(data.labels, task.test.y[:8])
    found = unscan.verify(run.model, deployed, data.x, ["event"], labels=data.labels, precisions=[64])
    assert found.holds
    assert found.comparisons[0].agreement.total.spikes_a > 0
    trained_on = read_samples(deployed, inputs=None, labels=None, data_dir=None, limit=8, training=True)
    np.testing.assert_array_equal(trained_on.x, task.train.x[:8].transpose(0, 1))


def test_indices_may_stand_in_an_array_of_steps_and_samples(tmp_path):
    graph = chain(word=Input((1,), Kind.INDEX), embed=Embedding(np.eye(5)), output=Output())
    words = np.random.default_rng(0).integers(0, 5, (7, 3))
    np.save(tmp_path / "x.npy", words)
    data = read_samples(graph, inputs=tmp_path / "x.npy", labels=None, data_dir=None, limit=None)
    assert (unscan.simulate(graph, data.x).outputs.argmax(-1) == words).all()
