"""The table that a graph is costed with where nobody names one."""

import numpy as np
import pytest

from tests.graphs import chain, lif, sequence, two_layers
from unscan.compiler.errors import InvalidInput
from unscan.compiler.ir import Kind
from unscan.compiler.nodes import Input, Linear, Output
from unscan.compiler.passes import Quantize
from unscan.compiler.pipeline import run
from unscan.runtime.energy import Energy, break_even, table_for
from unscan.runtime.energy_choice import weight_bits
from unscan.runtime.executors.event import EventDriven
from unscan.runtime.judge import ranges

REAL = two_layers(kind=Kind.SPIKE)
X = sequence(REAL, 20, 2)


@pytest.mark.parametrize(
    ("profile", "table"),
    [("int8", "int8"), ("loihi2", "int8"), ("int16", "int32")],
)
def test_whole_numbers_have_the_table_of_their_weights(profile, table):
    whole = run(REAL, [Quantize(profile, ranges(X))])
    chosen = table_for(whole)
    assert chosen.table.name == f"horowitz-45nm-{table}"
    assert "whole numbers" in str(chosen)
    counts = EventDriven(whole).run(X, record=False).counts
    assert Energy.of(counts) == Energy.of(counts, chosen.table) != Energy.of(counts, "horowitz-45nm-float32")
    assert break_even(counts) == break_even(counts, chosen.table)


def test_what_the_narrow_table_leaves_out_is_told():
    whole = run(REAL, [Quantize("loihi2", ranges(X))])
    assert "states and signals, which have up to 24" in table_for(whole).why
    narrow = chain(input=Input((2,), Kind.SPIKE), fc=Linear(np.ones((3, 2), np.int8)), output=Output())
    assert table_for(narrow).why == "the graph computes with whole numbers, and every weight fits in 8 bits"


def test_states_decide_where_there_are_no_weights():
    graph = chain(input=Input((3,), Kind.SPIKE), n=lif(0.5, 1.0), output=Output())
    whole = run(graph, [Quantize("int8", ranges(sequence(graph, 20, 2)))])
    chosen = table_for(whole)
    assert chosen.table.name == "horowitz-45nm-int32"
    assert "a state needs up to 32 bits" in chosen.why


def test_real_numbers_and_what_was_asked_for():
    assert table_for(REAL).table.name == "horowitz-45nm-float32"
    assert table_for(REAL, "loihi-1").why == "it was asked for"
    whole = run(REAL, [Quantize("int8", ranges(X))])
    assert "though the graph computes with whole numbers" in table_for(whole, "horowitz-45nm-float16").why
    assert table_for(whole, "horowitz-45nm-int32").why == "it was asked for"
    with pytest.raises(InvalidInput, match="no energy table 'ghost'"):
        table_for(whole, "ghost")


@pytest.mark.parametrize(
    ("weights", "bits"),
    [
        ([0, 0], 1),
        ([0, 1], 1),
        ([-1, 1], 2),
        ([127, -128], 8),
        ([128, -1], 9),
        ([255, 0], 8),
        ([256, -254], 9),
        ([254, -256], 8),
        ([-256, 256], 2),
        ([32767, -32768], 16),
        ([-(2**31), 2**31 - 1], 32),
    ],
)
def test_the_bits_that_weights_need(weights, bits):
    assert weight_bits(np.array(weights)) == bits
