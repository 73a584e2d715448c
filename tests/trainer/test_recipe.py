import re
from pathlib import Path

import pytest

from unscan.compiler.errors import InvalidInput
from unscan.trainer.recipe import Recipe

ROOT = Path(__file__).parents[2]
SHIPPED = sorted([*ROOT.glob("trainer/recipes/*.yaml"), *ROOT.glob("examples/recipes/**/*.yaml")])
SMALL = """
task: {name: digits}
network:
  layers:
    - {width: 8, neuron: {kind: leaky}}
    - {width: 8, neuron: {kind: state_leaky, beta: 0.8, beta_to: 0.99}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InvalidInput) as raised:
        Recipe.read(written(folder, text))
    message = str(raised.value)
    assert "\n" not in message
    assert "recipe.yaml" in message
    return message


def test_recipe_read_and_written_again_is_equal(tmp_path):
    recipe = Recipe.read(written(tmp_path, SMALL + "optimiser: {lr: 1e-2}\nepochs: 3\n"))
    recipe.write(tmp_path / "copy.yaml")
    assert Recipe.read(tmp_path / "copy.yaml") == recipe
    assert recipe.optimiser.lr == 0.01
    assert [path.name for path in tmp_path.iterdir() if "draft" in path.name] == []


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_round_trips(path, tmp_path):
    recipe = Recipe.read(path)
    recipe.write(tmp_path / "copy.yaml")
    assert Recipe.read(tmp_path / "copy.yaml") == recipe


def test_there_are_shipped_recipes():
    names = {path.stem for path in SHIPPED}
    assert {"digits", "smnist_leaky", "smnist_spiking_ssm", "psmnist_spiking_ssm"} <= names


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (SMALL.replace("kind: leaky", "kind: leaky, reset: zeroo"),
         ["network.layers.0.neuron.reset", "'zeroo'", "'zero', 'subtract' or 'none'"]),
        (SMALL.replace("kind: leaky", "kind: leaky, rest: zero"),
         ["unknown key network.layers.0.neuron.rest", "allowed here: threshold", "beta", "did you mean reset?"]),
        (SMALL.replace("kind: state_leaky", "kind: state_leaky, reset: zero"),
         ["unknown key network.layers.1.neuron.reset", "allowed here: threshold"]),
        (SMALL.replace("kind: leaky", "kind: lif"), ["network.layers.0.neuron.kind", "'lif'", "'state_leaky'"]),
        (SMALL.replace("kind: leaky", "beta: 0.9"), ["network.layers.0.neuron.kind is missing", "'leaky'"]),
        (SMALL.replace("kind: leaky", "kind: leaky, beta: 1.5"),
         ["network.layers.0.neuron.beta", "1.5", "less than 1"]),
        (SMALL.replace("kind: leaky", "kind: leaky, surrogate: atn"),
         ["network.layers.0.neuron.surrogate", "'atn'", "atan"]),
        (SMALL.replace("{name: digits}", "{name: digit}"), ["task.name", "'digit'", "digits, smnist"]),
        (SMALL.replace("{name: digits}", "{name: digits, encoding: latency}"),
         ["task.steps_per_pixel is 1", "from 2"]),
        (SMALL + "epoch: 3\n", ["unknown key epoch", "did you mean epochs?"]),
        (SMALL + "epochs: 0\n", ["epochs is 0", "greater than or equal to 1"]),
        (SMALL + "precision: 16\n", ["precision is 16", "32, 64 or 'bf16'"]),
        (SMALL + "optimiser: {lr: .nan}\n", ["optimiser.lr is nan"]),
        (SMALL + "optimiser: {kind: adam, momentum: 0.9}\n", ["optimiser.momentum is 0.9", "sgd only"]),
        (SMALL + "early_stopping: {patience: 3}\n", ["early_stopping.metric", "validation above 0"]),
        (SMALL.replace("{name: digits}", "{name: digits, encoding: rate}") + "augmentation: {noise: 0.1}\n",
         ["augmentation.noise is 0.1", "rate", "encoding direct"]),
        (SMALL + "keep: best\n", ["keep is best", "keep: last"]),
        (SMALL.replace("width: 8, neuron: {kind: leaky}", "width: 8, norm: batch, neuron: {kind: leaky}")
         + "chunk_size: 4\n", ["chunk_size is 4", "norm none"]),
        (SMALL.replace("width: 8, neuron: {kind: state", "width: 9, residual: true, neuron: {kind: state"),
         ["network.layers.1 is residual with width 9", "width 8"]),
        ("task: {name: digits}\n", ["network is missing"]),
        ("task: {name: digits}\nnetwork: {layers: []}\n", ["network.layers", "at least 1 item"]),
        ("a: [\n", ["line 2", "not YAML"]),
        ("7\n", ["holds 7", "task, network"]),
    ],
)  # fmt: skip
def test_refusal_names_key_got_and_allowed(tmp_path, text, parts):
    message = refusal(tmp_path, text)
    assert [part for part in parts if part not in message] == [], message


def test_one_mistake_is_reported_as_one(tmp_path):
    assert "more)" not in refusal(tmp_path, SMALL.replace("kind: leaky", "kind: leaky, reset: zeroo"))
    assert "(and 1 more)" in refusal(tmp_path, SMALL + "epochs: 0\nprecision: 16\n")


def test_missing_file_and_folder_in_its_place(tmp_path):
    with pytest.raises(InvalidInput, match=re.escape(str(tmp_path / "no.yaml"))):
        Recipe.read(tmp_path / "no.yaml")
    with pytest.raises(InvalidInput, match="cannot be read"):
        Recipe.read(tmp_path)


def test_first_difference_names_key_and_both_values(tmp_path):
    recipe = Recipe.read(written(tmp_path, SMALL))
    assert recipe.first_difference(recipe) is None
    other = Recipe.read(written(tmp_path, SMALL.replace("beta: 0.8", "beta: 0.7")))
    assert recipe.first_difference(other) == "network.layers.1.neuron.beta is 0.8 against 0.7"
    wider = Recipe.read(written(tmp_path, SMALL + "    - {width: 8, neuron: {kind: leaky}}\n"))
    assert recipe.first_difference(wider) == "network.layers.2.kind is absent against dense"


def test_gain_may_be_written_as_a_number(tmp_path):
    recipe = Recipe.read(written(tmp_path, SMALL.replace("kind: leaky", "kind: leaky, gain: 1")))
    assert recipe.network.layers[0].neuron.gain == "1"
