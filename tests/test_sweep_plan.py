"""What a sweep's file may say, and the points and keys that it is laid out as."""

from pathlib import Path

import pytest
import yaml

from tests.graphs import two_layers
from tests.test_tiny import RECIPE
from unscan.compiler.errors import InvalidInput
from unscan.sweep_plan import Options, plan, read_sweep

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(tmp_path):
    """A folder with a graph and a recipe."""
    two_layers().save(tmp_path / "model.unscan")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(RECIPE))
    return tmp_path


def laid_out(folder, document, **options):
    """Write a sweep, and return its points."""
    path = folder / "sweep.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return plan(read_sweep(path), folder=folder, runs=folder / "runs", **options)


def refused(folder, document):
    """Return what is said of a sweep that is refused."""
    with pytest.raises(InvalidInput) as caught:
        laid_out(folder, document)
    said = str(caught.value)
    assert "recipe : " not in said
    return said


def test_grids_are_products_and_points_stand_beside_them(folder):
    grid = {"reset": [None, "zero"], "quantize": [None, "int8", "loihi2"]}
    points = laid_out(folder, {"sources": ["model.unscan"], "grid": grid, "points": [{"threshold": 0.5}]})
    assert [point.settings for point in points] == [
        {"source": "model"} | asked
        for asked in (
            {}, {"quantize": "int8"}, {"quantize": "loihi2"},
            {"reset": "zero"}, {"reset": "zero", "quantize": "int8"}, {"reset": "zero", "quantize": "loihi2"},
            {"threshold": 0.5},
        )
    ]  # fmt: skip


def test_without_options_a_source_is_one_point(folder):
    (point,) = laid_out(folder, {"sources": [{"path": "model.unscan", "name": "mine"}], "samples": 7})
    assert point.options == Options()
    assert point.settings == {"source": "mine"}
    assert (point.samples, point.training_samples) == (7, 32)


def test_several_grids_keep_apart_what_does_not_go_together(folder):
    grids = [{"quantize": "int8"}, {"reset": ["zero"], "phase": ["now", "next"]}]
    points = laid_out(folder, {"sources": ["model.unscan"], "grid": grids})
    assert [point.options.asked for point in points] == [
        {"quantize": "int8"},
        {"reset": "zero", "phase": "now"},
        {"reset": "zero", "phase": "next"},
    ]


def test_what_is_asked_for_twice_is_one_point(folder):
    document = {
        "sources": ["model.unscan"] * 2,
        "grid": {"reset": ["zero", "zero"]},
        "points": [{"reset": "zero"}],
    }
    assert len(laid_out(folder, document)) == 1


def test_a_key_changes_with_what_defines_a_point_and_with_nothing_else(folder):
    document = {"sources": ["model.unscan"], "points": [{"reset": "zero"}]}

    def key(**changed):
        (point,) = laid_out(folder, document | changed)
        return point.key

    first = key()
    same = [
        key(sources=[{"path": "model.unscan", "name": "other"}]),
        key(training_samples=5),  # nothing is measured on them
        key(energy="horowitz-45nm-int8"),  # modelled from what is kept
        key(points=[{"reset": "zero", "calibrate": False, "top_k": None}]),
    ]
    assert set(same) == {first}
    others = [
        key(samples=3),
        key(points=[{"reset": "subtract"}]),
        key(points=[{"reset": "zero", "calibrate": True}]),
        key(points=[{"reset": "zero", "calibrate": True}], training_samples=5),
    ]
    two_layers(seed=1).save(folder / "model.unscan")
    assert len({first, key(), *others}) == 6


def test_settings_of_a_recipe_are_combined_and_each_is_a_run(folder):
    settings = {"epochs": [1, 2], "network.layers.0.neuron.beta": [0.8, 0.9], "optimiser.weight_decay": 0.1}
    document = {
        "sources": [{"recipe": "tiny.yaml", "settings": settings}],
        "grid": {"reset": ["zero", "none"]},
    }
    points = laid_out(folder, document)
    assert len(points) == 8
    assert len({point.source.path for point in points}) == 4
    assert {Path(point.source.path).parent for point in points} == {folder / "runs"}
    assert points[2].settings == {
        "source": "tiny",
        "epochs": 1,
        "network.layers.0.neuron.beta": 0.9,
        "optimiser.weight_decay": 0.1,
        "reset": "zero",
    }
    assert '"beta": 0.9' in points[2].source.recipe


def test_samples_of_the_command_line_come_first(folder):
    document = {"sources": ["model.unscan"], "samples": 100}
    assert laid_out(folder, document, samples=5)[0].samples == 5


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "sources is missing"),
        ({"sources": []}, "sources is a list"),
        ("- a", "holds a list; wanted keys and values, among sources, grid"),
        ("a: [", "is not YAML"),
        ({"sources": ["model.unscan"], "gird": {}}, "unknown key gird; allowed here: sources"),
        ({"sources": ["model.unscan"], "grid": {"resets": ["zero"]}}, "did you mean reset?"),
        ({"sources": ["model.unscan"], "grid": {"reset": ["hard"]}}, "grid.reset.0 is 'hard'; allowed: 'none'"),
        ({"sources": ["model.unscan"], "grid": {"reset": []}}, "grid.reset is a list"),
        ({"sources": ["model.unscan"], "grid": {"top_k": [0]}}, "top_k.0"),
        ({"sources": ["model.unscan"], "grid": {"top_k": ["q=4"]}}, "allowed: a count (4)"),
        ({"sources": ["model.unscan"], "points": [{"quantize": "int4"}]}, "points.0.quantize is 'int4'; allowed: "),
        ({"sources": ["model.unscan"], "points": [{"phase": "next"}]}, "points.0.phase is next without a reset"),
        ({"sources": ["model.unscan"], "grid": {"phase": ["next"]}}, "do not go together: phase is next without"),
        ({"sources": ["model.unscan"], "grid": {"soft_reset": ["node"]}}, "soft_reset is node without quantize"),
        ({"sources": ["model.unscan"], "samples": 0}, "samples is 0; allowed: greater than or equal to 1"),
        ({"sources": ["model.unscan"], "energy": "steam"}, "There is no energy table 'steam'; choose one of"),
        ({"sources": ["ghost.unscan"]}, "looked for beside the sweep's own file"),
        ({"sources": ["tiny.yaml"]}, "neither a run's folder nor a .unscan or .nir file"),
        ({"sources": ["."]}, "holds no trained run: it lacks recipe.yaml"),
        ({"sources": [{"path": "model.unscan", "recipe": "tiny.yaml"}]}, "allowed: one of the two"),
        ({"sources": [{"path": "model.unscan", "settings": {"epochs": [1]}}]}, "settings change a recipe"),
        ({"sources": ["ghost.py:Net"]}, "looked for beside the sweep's own file"),
        ({"sources": [{"recipe": "tiny.yaml", "read": {"shape": 9}}]}, "read says how a path is read"),
        ({"sources": [{"path": "model.unscan", "read": {"shape": 0}}]}, "read.shape is 0"),
        ({"sources": [{"path": "model.unscan", "event_dt": 1e-3}]}, "event_dt is of a file of events"),
        ({"sources": [{"path": "model.unscan", "labels": "tiny.yaml"}]}, "labels belong to an input"),
        ({"sources": [{"recipe": "tiny.yaml", "settings": {"epoch": [3]}}]}, "unknown key epoch; allowed here: task"),
        ({"sources": [{"recipe": "tiny.yaml", "settings": {"epochs": [0]}}]}, "tiny.yaml with epochs 0: epochs is 0"),
        (
            {"sources": [{"recipe": "tiny.yaml", "settings": {"network.layers.7.width": [3]}}]},
            "the setting network.layers.7.width is none of the recipe",
        ),
    ],
)  # fmt: skip
def test_what_a_sweep_may_not_say(folder, document, said):
    assert said in refused(folder, document)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InvalidInput, match="there is no sweep file"):
        read_sweep(tmp_path / "ghost.yaml")


def test_every_example_is_valid_and_every_key_documented():
    page = (ROOT / "docs" / "sweep.md").read_text()
    examples = list((ROOT / "examples" / "sweeps").glob("*.yaml"))
    assert examples
    for path in examples:
        sweep = read_sweep(path)
        recipes = sweep.model_copy(update={"sources": tuple(s for s in sweep.sources if s.recipe)})
        points = plan(recipes, folder=path.parent, runs=Path("runs"))
        assert bool(points) == bool(recipes.sources)
    for key in (*type(sweep).model_fields, *type(sweep.sources[0]).model_fields, *Options.model_fields):
        assert f"`{key}`" in page, f"docs/sweep.md lacks {key}"
