"""What compiles the C of a graph: a compiler that is missing, that fails, that has done it before."""

import numpy as np
import pytest

from tests.targets.networks import chain, drive
from unscan.compiler.errors import MissingDependency, Unsupported
from unscan.compiler.nodes import Input, Linear, Output, Scale
from unscan.runtime.executors import c
from unscan.runtime.executors.c import C


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_missing_compiler_is_named(monkeypatch):
    graph = chain({"in": Input((4,)), "s": Scale(np.float64(2)), "out": Output()})
    with pytest.raises(MissingDependency, match="found no no-such-compiler: install one"):
        C(graph, compiler="no-such-compiler")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(MissingDependency, match="found no C compiler"):
        C(graph)


def test_a_compiler_that_fails_is_quoted():
    graph = chain({"in": Input((4,)), "s": Scale(np.float64(2)), "out": Output()})
    with pytest.raises(Unsupported, match="did not compile the model: .*no-such-option"):
        C(graph, flags=("-fno-such-option",)).run(drive(graph, 1))


def test_a_library_is_compiled_once(monkeypatch):
    rng = np.random.default_rng(8)
    graph = chain({"in": Input((4,)), "w": Linear(rng.normal(size=(3, 4))), "out": Output()})
    x = drive(graph, 5)
    first = C(graph).run(x, record=False)

    def refuse(*_, **__):
        raise AssertionError("compiled again")

    monkeypatch.setattr(c.tempfile, "TemporaryDirectory", refuse)
    np.testing.assert_array_equal(C(graph).run(x, record=False).outputs, first.outputs)
