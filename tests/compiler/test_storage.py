import json

import numpy as np
import pytest
from hypothesis import given, settings
from safetensors.numpy import load_file, save_file

from tests.graphs import chain, graphs, linear, two_layers
from unscan.compiler.errors import DamagedFile, InvalidGraph, InvalidInput
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Input, Output
from unscan.compiler.storage import FORMAT, load, save, writing


@settings(deadline=None, max_examples=40)
@given(graph=graphs())
def test_every_graph_comes_back_the_same(graph, tmp_path_factory):
    path = tmp_path_factory.mktemp("graph") / "g.unscan"
    marked = graph.annotate(history=["made by hand"], meta={"task": {"name": "digits"}, "chance": 0.1})
    save(marked, path)
    back = load(path)
    assert back == graph
    assert back.order == graph.order
    assert back.history == ("made by hand",)
    assert dict(back.meta) == dict(marked.meta)


def test_a_graph_without_arrays_and_with_spikes(tmp_path):
    graph = chain(input=Input((2, 3), Kind.SPIKE), output=Output())
    graph.save(tmp_path / "g.unscan")
    assert load(tmp_path / "g.unscan") == graph


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "model.unscan"
    save(two_layers(dtype=np.float32), path)
    return path


def test_every_flipped_bit_is_seen(stored):
    whole = stored.read_bytes()
    for place in range(0, len(whole), 3):
        changed = bytearray(whole)
        changed[place] ^= 1 << (place % 8)
        stored.write_bytes(changed)
        with pytest.raises((DamagedFile, InvalidGraph)):
            load(stored)


def test_every_truncation_is_seen(stored):
    whole = stored.read_bytes()
    for length in range(0, len(whole), 11):
        stored.write_bytes(whole[:length])
        with pytest.raises(DamagedFile):
            load(stored)


def rewrite(path, **changes):
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = file.metadata()
    save_file(load_file(path), path, {**header, **changes})


def test_a_newer_format_says_what_to_do(stored):
    rewrite(stored, format=str(FORMAT + 1))
    with pytest.raises(DamagedFile, match=f"format version {FORMAT + 1}.*upgrade unscan"):
        load(stored)


def test_a_changed_setting_is_seen(stored):
    from safetensors import safe_open

    with safe_open(stored, framework="numpy") as file:
        text = file.metadata()["graph"]
    document = json.loads(text)
    document["nodes"][2][2]["reset"] = "subtract"
    rewrite(stored, graph=json.dumps(document))
    with pytest.raises(DamagedFile, match="altered"):
        load(stored)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InvalidInput, match=r"no file .*ghost\.unscan"):
        load(tmp_path / "ghost.unscan")
    (tmp_path / "text.unscan").write_text("hello")
    with pytest.raises(DamagedFile, match=r"text\.unscan"):
        load(tmp_path / "text.unscan")
    save_file({"a": np.ones(3)}, tmp_path / "plain.unscan")
    with pytest.raises(DamagedFile, match="without an unscan graph"):
        load(tmp_path / "plain.unscan")


def test_a_bad_graph_is_not_written_and_nothing_is_left(tmp_path):
    graph = chain(input=Input((1,)), fc=linear(np.random.default_rng(0), 2, 2), output=Output())
    with pytest.raises(InvalidGraph):
        save(graph, tmp_path / "bad.unscan")
    assert list(tmp_path.iterdir()) == []


def test_writing_keeps_the_old_file_when_it_fails(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with writing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_into_no_folder_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="does not exist"), writing(tmp_path / "no" / "file"):
        pass
