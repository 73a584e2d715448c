"""What a command line names: the inputs of a drawn task are spikes, and answers at its steps are no labels."""

import numpy as np
import pytest

import unscan
from unscan.compiler.ir import Kind
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
