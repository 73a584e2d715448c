"""The tables of docs/onnx.md are what the rules write."""

from pathlib import Path

import numpy as np
import onnx

from tests.targets.every_node import CASES
from tests.targets.every_whole_node import WHOLE
from unscan.compiler.ir import Dialect, Graph
from unscan.compiler.nodes import NODES
from unscan.targets.onnx import build
from unscan.targets.onnx_operators import Written, page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "onnx.md"
START = "## Operators\n\n"


def graphs() -> list[Graph]:
    real = [make() for make in CASES.values()]
    return [*(graph.astype(np.float32) for graph in real), *real, *(make() for make in WHOLE.values())]


def current() -> str:
    """Return docs/onnx.md with the tables as they are now."""
    return PAGE.read_text(encoding="utf-8").partition(START)[0] + START + page(graphs())


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == current(), "run python -m tests.targets.test_onnx_operators"


def test_every_node_of_the_iterative_form_is_in_the_table():
    written = Written(graphs())
    assert written.by_node.keys() == {
        name for name, node in NODES.items() if node.dialect is not Dialect.PARALLEL
    }


def test_no_file_has_an_operator_that_is_not_in_the_table():
    known = Written(graphs()).by_operator.keys()
    for make in (*CASES.values(), *WHOLE.values()):
        model = build(make(), "scan", record=True)
        (body,) = [each.g for each in model.graph.node[-1].attribute if each.name == "body"]
        used = {node.op_type for node in (*model.graph.node[:-1], *body.node)}
        assert model.graph.node[-1].op_type == "Scan"
        assert used <= known
        assert {each.domain for each in model.opset_import} == {onnx.defs.ONNX_DOMAIN}


if __name__ == "__main__":
    PAGE.write_text(current(), encoding="utf-8")
