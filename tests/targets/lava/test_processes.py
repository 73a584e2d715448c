"""What processes compute in int64, without Lava, against the reference's formats and steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integers import sigmoid_table
from unscan.compiler.fixed import Fixed
from unscan.compiler.nodes import (
    Activation,
    Conv1d,
    Conv2d,
    Embedding,
    IntegerGLU,
    Linear,
    Lookup,
    MaxPool2d,
    Node,
    Reshape,
    Scale,
    Shift,
    SumPool2d,
    TopK,
)
from unscan.runtime.executors import integer_steps
from unscan.runtime.executors.steps import step
from unscan.targets.lava.processes import arithmetic
from unscan.targets.lava.processes.operators import OPERATORS, place

WHOLE = st.integers(-(2**31), 2**31)
BITS = st.integers(2, 32)


def whole(value: int) -> Any:
    return np.array([value], np.int64)


def real(value: int) -> Any:
    return np.array([value], np.float64)


@given(st.integers(0, 2**15), WHOLE, st.integers(1, 15))
def test_fades_as_the_reference_does(decay: int, x: int, bits: int):
    assert arithmetic.fade(whole(decay), whole(x), bits) == integer_steps.fade(real(decay), real(x), bits)


@given(WHOLE, BITS, st.booleans())
def test_saturates_and_wraps_as_formats_do(x: int, bits: int, signed: bool):
    assert arithmetic.saturated(whole(x), bits, signed) == Fixed(bits, signed=signed).saturated(real(x))
    assert arithmetic.wrapped(whole(x), bits) == Fixed(bits).wrapped(real(x))


@given(WHOLE, st.integers(-31, 31), BITS)
def test_shifts_as_the_reference_does(x: int, shift: int, bits: int):
    got = arithmetic.saturated(arithmetic.shifted(whole(x), shift), bits)
    assert got == Fixed(bits).saturated(integer_steps.shifted(real(x), shift))


@given(WHOLE, st.integers(-31, 31))
def test_looks_up_as_the_reference_does(x: int, shift: int):
    table = sigmoid_table(4096)
    got = arithmetic.looked_up(whole(x), table, shift)
    assert got == integer_steps.looked_up(table, real(x), shift)


def numbers(shape: tuple[int, ...], largest: int = 127, seed: int = 0) -> Any:
    made = np.random.default_rng(seed).integers(-largest, largest + 1, shape)
    return np.where(np.random.default_rng(seed + 1).random(shape) < 0.3, 0, made).astype(np.int32)


def convolved(node: Conv1d | Conv2d) -> dict[str, Any]:
    return {
        name: getattr(node, name) for name in ("weight", "bias", "stride", "padding", "dilation", "groups")
    }


IMAGE, LINE = numbers((4, 7, 6)), numbers((6,), 2**20)
GROUPED = Conv2d(
    weight=numbers((6, 2, 2, 3)), bias=numbers((6,)), stride=(2, 1), padding=(1, 0, 2, 3), groups=2
)
DILATED = Conv2d(weight=numbers((5, 4, 2, 2)), dilation=(3, 2))
ALONG = Conv1d(weight=numbers((3, 4, 5)), padding=2, stride=3)
SUM = SumPool2d(kernel=(2, 3), stride=2, padding=(0, 1))
MAX = MaxPool2d(kernel=3, stride=2, padding=1)
TABLE = sigmoid_table(256)
CASES: dict[str, tuple[Node, Any, str, dict[str, Any]]] = {
    "linear": (Linear(numbers((3, 6))), LINE, "linear", {"weight": numbers((3, 6)), "bias": None}),
    "linear with a bias": (
        Linear(numbers((3, 6)), numbers((3,))), LINE, "linear", {"weight": numbers((3, 6)), "bias": numbers((3,))}
    ),
    "groups and uneven padding": (GROUPED, IMAGE, "convolution", convolved(GROUPED)),
    "dilation": (DILATED, IMAGE, "convolution", convolved(DILATED)),
    "one axis": (ALONG, IMAGE[:, 0], "convolution", convolved(ALONG)),
    "sums": (SUM, IMAGE, "sum_pool", {"kernel": SUM.kernel, "stride": SUM.stride, "padding": SUM.padding}),
    "maxima": (MAX, IMAGE, "max_pool", {"kernel": MAX.kernel, "stride": MAX.stride, "padding": MAX.padding}),
    "maxima below zero": (
        MAX, -abs(IMAGE) - 1, "max_pool", {"kernel": MAX.kernel, "stride": MAX.stride, "padding": MAX.padding}
    ),
    "a row": (Embedding(numbers((5, 3))), np.array([4]), "embedding", {"weight": numbers((5, 3))}),
    "scale": (Scale(numbers((4, 1, 1))), IMAGE, "scale", {"scale": numbers((4, 1, 1))}),
    "shifts both ways": (
        Shift(shift=np.arange(-3, 3), bits=8), LINE, "shift", {"shift": np.arange(-3, 3), "bits": 8, "signed": True}
    ),
    "no sign": (
        Shift(shift=np.int32(9), bits=8, signed=False), LINE, "shift", {"shift": 9, "bits": 8, "signed": False}
    ),
    "lookup": (Lookup(table=TABLE, shift=13), LINE, "lookup", {"table": TABLE, "shift": 13}),
    "glu": (
        IntegerGLU(table=TABLE, index_shift=13, shift=9, bits=16),
        LINE,
        "glu",
        {"table": TABLE, "index_shift": 13, "shift": 9, "bits": 16},
    ),
    "relu": (Activation("relu"), IMAGE, "relu", {}),
    "of equals the first": (TopK(2), np.array([3, -5, 5, 3, 5, 0]), "top_k", {"count": 2}),
    "reshape": (Reshape((2, 3)), LINE, "reshape", {"shape": (2, 3)}),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_operator_is_what_the_reference_says(case: str):
    node, x, function, parameters = CASES[case]
    held = {
        key: value.astype(np.int64) if isinstance(value, np.ndarray) else value
        for key, value in parameters.items()
    }
    got = OPERATORS[function](x.astype(np.int64), **held)
    wanted = step(node, {}, x=x[None].astype(np.float64)).value[0]
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, wanted)
    assert np.any(wanted)


def test_every_operator_is_tried():
    assert {function for _, _, function, _ in CASES.values()} | {"place"} == OPERATORS.keys()


def test_the_parts_of_a_concatenation_add_up_to_it():
    a, b = numbers((2, 3)), numbers((2, 4), seed=5)
    whole = place(a, axis=1, before=0, behind=4) + place(b, axis=1, before=3, behind=0)
    np.testing.assert_array_equal(whole, np.concatenate([a, b], axis=1))
