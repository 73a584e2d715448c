"""What the documents and examples say, run."""

import os
import re
import runpy
import sys
from pathlib import Path

from click.testing import CliRunner

from unscan.cli import main

ROOT = Path(__file__).resolve().parent.parent


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("True 1.0")
    assert (tmp_path / "model.onnx").exists()


def test_every_command_of_the_readme_exists():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"^unscan ([a-z]+)", text, flags=re.MULTILINE))
    assert {"demo", "train", "compile", "verify", "simulate", "export", "check", "doctor"} <= named
    assert named <= set(main.commands)
    for path in re.findall(r"examples/recipes/\w+\.yaml", text):
        assert (ROOT / path).is_file()


def test_every_link_of_the_documents_leads_somewhere():
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"


def said(example: str, monkeypatch, capsys, *arguments: str) -> str:
    """Run an example and return what it printed."""
    path = str(ROOT / "examples" / example)
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    runpy.run_path(path, run_name="__main__")
    return capsys.readouterr().out


def test_every_example_is_run_by_a_test():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == {
        "own_module.py",
        "associative_recall.py",
        "sensor.py",  # by tests/runtime/test_sensor.py
        "run_onnx.py",  # by tests/targets/test_onnx_example.py
    }


def test_a_module_of_ones_own(monkeypatch, capsys):
    printed = said("own_module.py", monkeypatch, capsys)
    assert "the same spikes everywhere: True" in printed
    found = re.findall(r"accuracy (\d+\.\d)%", printed)
    assert len(set(found)) == 1
    assert float(found[0]) > 85


EXACT = {2: 0.976, 3: 0.947, 4: 0.919, 5: 0.899, 6: 0.867}
"""Bit accuracies of the checkpoint run as the recurrence, step by step in float32, by pairs; measured apart."""


def test_a_network_of_snntorch_from_its_file(monkeypatch, capsys):
    folder = os.environ.get("UNSCAN_DATA")
    known = ["--weights", f"{folder}/snntorch/associative_recall_gen2.pt"] if folder else ["--samples", "20"]
    printed = said("associative_recall.py", monkeypatch, capsys, *known)
    found = {int(n): float(right) for n, right in re.findall(r"(\d) pairs: bit accuracy (\d\.\d+)", printed)}
    assert found.keys() == EXACT.keys()
    if folder:
        assert all(abs(found[pairs] - right) <= 0.005 for pairs, right in EXACT.items())


def test_every_recipe_is_valid_and_every_key_documented():
    from unscan.trainer.recipe import Recipe

    page = (ROOT / "docs" / "recipes.md").read_text()
    for path in [
        *(ROOT / "examples" / "recipes").glob("**/*.yaml"),
        ROOT / "trainer" / "recipes" / "digits.yaml",
    ]:
        Recipe.read(path)
    for model in (
        Recipe,
        *(f.annotation for f in Recipe.model_fields.values() if hasattr(f.annotation, "model_fields")),
    ):
        for key in model.model_fields:
            assert key in page, f"docs/recipes.md lacks {key}"


def test_the_table_of_nodes_is_what_the_interpreters_say():
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]()
    assert page == (ROOT / "docs" / "nodes.md").read_text(), "run python docs/generate.py"


def test_help_has_a_line_for_every_command():
    said = CliRunner().invoke(main, ["--help"]).output
    for name in main.commands:
        assert re.search(rf"^  {name} +\w", said, flags=re.MULTILINE), name
