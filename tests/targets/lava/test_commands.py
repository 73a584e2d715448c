"""`unscan lava`: making the environment, and looking at it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.targets.lava.needed import needs_lava
from unscan.lava import lava
from unscan.runtime.lava.environment import VARIABLE


def test_doctor_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "none"))
    said = CliRunner().invoke(lava, ["doctor"])
    assert said.exit_code == 1
    assert "there is no environment in" in " ".join(said.output.split())
    assert "unscan lava install" in " ".join(said.output.split())


@needs_lava
def test_doctor_runs_a_neuron() -> None:
    said = CliRunner().invoke(lava, ["doctor"])
    assert said.exit_code == 0
    assert "a membrane of 640 (640 wanted)" in " ".join(said.output.split())


@needs_lava
def test_install_leaves_a_whole_environment_alone() -> None:
    said = CliRunner().invoke(lava, ["install"])
    assert said.exit_code == 0
    assert "nothing to do" in said.output


@pytest.mark.slow
def test_install_makes_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "made"))
    assert CliRunner().invoke(lava, ["install"]).exit_code == 0
    said = CliRunner().invoke(lava, ["doctor"])
    assert said.exit_code == 0
