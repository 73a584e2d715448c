"""The reference steps of whole numbers against loops over Python's own integers, one number at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.integers import memory_network, numbers_for, sigmoid_table
from unscan.compiler.fixed import Fixed
from unscan.compiler.nodes import (
    IntegerCubaLIF,
    IntegerGLU,
    IntegerLI,
    IntegerLIF,
    IntegerMemory,
    IntegerSSM,
    Lookup,
    Quantize,
    Shift,
)
from unscan.compiler.nodes.neurons import PHASES, RESETS
from unscan.runtime.executors.integer_steps import fade, shifted
from unscan.runtime.executors.reference import Reference
from unscan.runtime.executors.steps import step

WHOLE = st.integers(-(2**24), 2**24)


def faded(decay: int, x: int, bits: int) -> int:
    product = decay * x
    return abs(product) // 2**bits * (1 if product >= 0 else -1)


def wrapped(x: int, bits: int) -> int:
    """In (-2^(bits - 1), 2^(bits - 1)]."""
    half = 2 ** (bits - 1)
    return -((half - x) % (2 * half) - half)


def saturated(x: int, bits: int) -> int:
    top = 2 ** (bits - 1) - 1
    return max(-top, min(top, x))


@given(st.integers(0, 2**15), WHOLE, st.integers(1, 15))
def test_decays_truncate_towards_zero(decay: int, x: int, bits: int):
    assert fade(np.array(float(decay)), np.array(float(x)), bits) == faded(decay, x, bits)


@given(WHOLE, st.integers(-8, 20))
def test_shifts_round_to_the_nearest_and_ties_upwards(x: int, shift: int):
    wanted = (x + (1 << (shift - 1))) >> shift if shift > 0 else x << -shift
    assert shifted(np.array(float(x)), shift) == wanted


def one(value: Any) -> int:
    return int(np.asarray(value).reshape(()))


@pytest.mark.parametrize("wraps", [False, True])
@pytest.mark.parametrize("bits", [14, 24])
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("reset", RESETS)
def test_a_neuron_is_the_loop_over_integers(reset: Any, phase: Any, bits: int, wraps: bool):
    rng = np.random.default_rng(3)
    theta = 3000
    node = IntegerCubaLIF(
        alpha=np.int32(3000), beta=np.int32(4000), bias=np.int32(-40), threshold=np.int32(theta), bits=bits,
        shift=6, wraps=wraps, reset=reset, phase=phase, trained_reset=reset,
    )  # fmt: skip
    state = {"i": np.zeros((1, 1)), "u": np.zeros((1, 1))}
    i = u = spikes = lost = told = 0
    scale = 40 if bits == 14 else 40000
    for x in rng.normal(0, 1, 400) * scale:
        drive = round(x)
        got = step(node, state, x=np.array([[float(drive)]]))
        state = dict(got.state)
        told += got.tallies["saturated"]
        wide = faded(3000, i, 12) + drive * 64
        i = wrapped(wide, bits) if wraps else saturated(wide, bits)
        last = u > theta
        reached = (
            faded(4000, u, 12) + i - 40 - (theta if phase == "next" and reset == "subtract" and last else 0)
        )
        held = saturated(reached, bits)
        lost += (i != wide) + (held != reached)
        if phase == "now":
            fired, membrane = held > theta, held
            u = {"none": held, "subtract": held - theta * fired, "zero": held * (not fired)}[reset]
        else:
            u = membrane = 0 if reset == "zero" and last else held
            fired = u > theta
        spikes += fired
        assert (one(got.value), one(got.membrane)) == (fired, membrane)
        assert (one(state["i"]), one(state["u"])) == (i, u)
    assert 0 < spikes < 400
    assert told == lost > 0


def test_loihi_2_is_the_equation_that_lava_was_measured_to_run():
    rng = np.random.default_rng(0)
    du, dv, bias, vth = 400, 300, 20, 150
    node = IntegerCubaLIF(
        alpha=np.int32(4096 - (du + 1)), beta=np.int32(4096 - dv), bias=np.int32(bias << 6),
        threshold=np.int32(vth << 6), shift=6, wraps=True, trained_reset="zero",
    )  # fmt: skip
    state = {"i": np.zeros((1, 1)), "u": np.zeros((1, 1))}
    u = v = fired = 0
    for _ in range(300):
        a = int(rng.integers(-100, 110))
        got = step(node, state, x=np.array([[float(a)]]))
        state = dict(got.state)
        u = faded(4096 - (du + 1), u, 12) + (a << 6)
        v = faded(4096 - dv, v, 12) + u + (bias << 6)
        s = v > (vth << 6)
        v = 0 if s else v
        fired += s
        assert (one(got.value), one(state["i"]), one(state["u"])) == (s, u, v)
    assert fired > 10


def test_an_integrator_gives_its_membrane():
    node = IntegerLI(beta=np.int32(2048), bits=12, shift=3)
    state = {"u": np.zeros((1, 1))}
    u, clipped = 0, 0
    for x in (10, -300, 4, 0, 250, 250, -1):
        got = step(node, state, x=np.array([[float(x)]]))
        state = dict(got.state)
        reached = faded(2048, u, 12) + saturated(8 * x, 12)
        u = saturated(reached, 12)
        clipped += (u != reached) + (saturated(8 * x, 12) != 8 * x)
        assert one(got.value) == one(state["u"]) == u
    assert clipped > 0


def test_a_neuron_without_its_current_is_driven_at_once():
    cuba = IntegerCubaLIF(
        alpha=np.int32(0), beta=np.int32(4000), threshold=np.int32(900), trained_reset="zero", shift=6, wraps=True
    )  # fmt: skip
    plain = IntegerLIF(
        beta=np.int32(4000), threshold=np.int32(900), trained_reset="zero", shift=6, wraps=True
    )
    rng = np.random.default_rng(0)
    a, b = {"i": np.zeros((1, 9)), "u": np.zeros((1, 9))}, {"u": np.zeros((1, 9))}
    for _ in range(50):
        x = rng.integers(-5, 9, (1, 9)).astype(float)
        left, right = step(cuba, a, x=x), step(plain, b, x=x)
        a, b = dict(left.state), dict(right.state)
        np.testing.assert_array_equal(left.value, right.value)
        np.testing.assert_array_equal(a["u"], b["u"])


def test_real_numbers_are_quantised_and_what_is_beyond_is_told():
    got = step(Quantize(bits=4, fraction=1), {}, x=np.array([[0.25, 0.3, 0.75, -9.0, 3.5, 3.6, 4.0]]))
    np.testing.assert_array_equal(got.value, [[0, 1, 2, -7, 7, 7, 7]])
    assert got.tallies == {"saturated": 2}


def test_units_change_channel_by_channel():
    got = step(Shift(shift=np.array([1, 0, -2]), bits=6), {}, x=np.array([[5.0, 31, 9], [-5, -32, -7]]))
    np.testing.assert_array_equal(got.value, [[3, 31, 31], [-2, -31, -28]])
    assert got.tallies["saturated"].tolist() == [1, 1]


def test_a_table_is_read_at_the_nearest_place_and_ends_beyond_its_ends():
    node = Lookup(table=np.arange(8) * 10, shift=1)
    got = step(node, {}, x=np.array([[-100.0, -8, -7, -1, 0, 1, 5, 6, 100]]))
    np.testing.assert_array_equal(got.value, [[0, 0, 10, 40, 40, 50, 70, 70, 70]])


def test_a_gate_multiplies_by_its_table():
    node = IntegerGLU(table=sigmoid_table(256), index_shift=0, shift=8, bits=6)
    got = step(node, {}, x=np.array([[20.0, -20, 90, 127, -128, 127]]))
    a, b = [20, -20, 90], [127, -128, 127]
    wanted = [saturated((x * one(node.table[y + 128]) + 128) >> 8, 6) for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(got.value, [wanted])
    assert got.tallies == {"saturated": 1}


def test_a_filter_is_the_loop_over_integers():
    rng = np.random.default_rng(1)
    a, c = rng.integers(-11000, 11000, (2, 3, 2)), rng.integers(-3000, 3000, (2, 3, 2))
    d = rng.integers(-3000, 3000, 2)
    node = IntegerSSM(a=a, c=c, d=d, shift=4, bits=16, out_shift=10, out_bits=14)
    state, h = {"h": np.zeros((1, 2, 3, 2))}, np.zeros((2, 3, 2), int).tolist()
    told = lost = 0
    for _ in range(200):
        x = rng.integers(-400, 400, 2)
        got = step(node, state, x=x[None].astype(float))
        state = dict(got.state)
        told += got.tallies["saturated"]
        for n in range(2):
            total = int(d[n]) * int(x[n]) * 16
            for m in range(3):
                (ar, ai), (cr, ci), (hr, hi) = map(int, a[n, m]), map(int, c[n, m]), h[n][m]
                wide = (faded(1, ar * hr - ai * hi, 14) + int(x[n]) * 16, faded(1, ar * hi + ai * hr, 14))
                h[n][m] = [saturated(part, 16) for part in wide]
                lost += sum(x != y for x, y in zip(wide, h[n][m], strict=True))
                total += cr * h[n][m][0] - ci * h[n][m][1]
            y = (total + (1 << 9)) >> 10
            lost += saturated(y, 14) != y
            assert int(got.value[0, n]) == saturated(y, 14)
        np.testing.assert_array_equal(state["h"][0], h)
    assert told == lost > 0


@pytest.mark.parametrize("reset", RESETS)
def test_a_memory_is_the_loop_over_integers(reset: Any):
    rng = np.random.default_rng(2)
    node = IntegerMemory(
        threshold=np.int32(900), queries=2, reset=reset, trained_reset="none", shift=1, bits=12
    )
    state, S = {"S": np.zeros((1, 3, 4))}, np.zeros((3, 4), int).tolist()
    fired = told = lost = 0
    for _ in range(150):
        v, k = (rng.integers(-30, 31, n) * (rng.random(n) < 0.6) for n in (3, 4))
        alpha, q = rng.integers(3600, 4096, 4), rng.integers(-9, 9, 8)
        ports = {"v": v, "k": k, "alpha": alpha, "q": q}
        got = step(node, state, **{port: x[None].astype(float) for port, x in ports.items()})
        state = dict(got.state)
        told += got.tallies["saturated"]
        read = [[0, 0] for _ in range(3)]
        for i in range(3):
            for j in range(4):
                wide = faded(int(alpha[j]), S[i][j], 12) + int(v[i]) * int(k[j]) * 2
                s = saturated(wide, 12)
                lost += s != wide
                if s > 900:
                    fired += 1
                    read[i] = [read[i][r] + int(q[2 * j + r]) for r in range(2)]
                    s = {"none": s, "subtract": s - 900, "zero": 0}[reset]
                S[i][j] = s
        np.testing.assert_array_equal(got.value[0], np.ravel(read))
        np.testing.assert_array_equal(state["S"][0], S)
    assert fired > 5
    assert told == lost
    assert lost > 0 or reset != "none"


def test_a_sequence_cut_in_two_is_one_run():
    graph = memory_network(3, reset="subtract")
    x, runner = numbers_for(graph, 60, 2), Reference(graph)
    whole = runner.run(x)
    first = runner.run(x[:25])
    second = runner.run(x[25:], first.state)
    np.testing.assert_array_equal(np.concatenate([first.outputs, second.outputs]), whole.outputs)
    np.testing.assert_array_equal(second.state["memory.S"], whole.state["memory.S"])
    assert whole.counts is not None
    assert whole.counts.total.updates["write"] > 0


def test_formats_of_the_states_hold_what_was_reached():
    graph = memory_network(4)
    run = Reference(graph).run(numbers_for(graph, 200, 4))
    assert Fixed(24).allowed(run.state["memory.S"])
