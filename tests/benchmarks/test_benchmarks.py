"""Every benchmark runs: quickly, and to the end."""

import json
from importlib import import_module

import pytest

from unscan.benchmarks import BENCHMARKS
from unscan.benchmarks.measuring import medians, memory

OWN_DATA = sorted(BENCHMARKS.keys() - {"ablation", "sparsity"})


def test_every_benchmark_says_what_it_is():
    for name in BENCHMARKS:
        module = import_module(f"unscan.benchmarks.{name}")
        assert f"unscan bench {name}" in module.__doc__
        with pytest.raises(SystemExit) as stop:
            module.main(["--help"])
        assert stop.value.code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_DATA)
def test_every_benchmark_runs(name, tmp_path):
    more = ["--out", str(tmp_path / "runs")] if name == "recall" else []
    import_module(f"unscan.benchmarks.{name}").main(["--quick", "--json", str(tmp_path / "f.json"), *more])
    assert json.loads((tmp_path / "f.json").read_text())["torch"]


def test_medians_take_turns():
    turns = []
    found = medians({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 0.0)
    assert turns[:2] == ["a", "b"]
    assert "".join(turns[2:]).replace("a" * 25, "A").replace("b" * 25, "B") == "ABABAB"
    assert set(found) == {"a", "b"}


def test_memory_is_that_of_the_pass_and_not_of_its_inputs():
    prepared = import_module("unscan.benchmarks.memory").prepared
    lanes = 4 * 128
    small, large = (memory(prepared, "Leaky", steps) for steps in (2048, 8192))
    assert 2 * 4 * lanes * 6144 < large - small < 6 * 4 * lanes * 6144
