"""What a weight, a decay, a threshold and a bias become in each profile: within its widths, and as near as they can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unscan.compiler.errors import InvalidInput
from unscan.compiler.fixed import Fixed
from unscan.compiler.profiles import (
    INT8,
    INT16,
    LOIHI2,
    PROFILES,
    fraction,
    input_fraction,
    profile,
    quantised_bias,
    quantised_decay,
    quantised_threshold,
    quantised_weight,
    weight_scale,
)

EACH = pytest.mark.parametrize("widths", PROFILES.values(), ids=PROFILES)


@EACH
@given(seed=st.integers(0, 1000), positive=st.booleans())
def test_weights_are_within_their_bits_and_half_a_step_from_what_they_were(widths, seed, positive):
    rng = np.random.default_rng(seed)
    matrices = [rng.normal(0, 10.0 ** rng.integers(-3, 4), (5, n)) for n in (7, 3)]
    if positive:
        matrices = [np.abs(matrix) for matrix in matrices]
    scale = weight_scale(widths, matrices)
    limit, coarse = widths.weight_limit(matrices), widths.coarse(matrices)
    for matrix in matrices:
        made = quantised_weight(widths, matrix, scale, coarse=coarse, limit=limit)
        off = np.abs(made - matrix * scale[:, None])
        assert np.all(off <= (1.0 if coarse else 0.5) + 1e-9)
        assert np.abs(made).max() <= limit
        assert np.all(made == np.rint(made))
        if coarse:
            assert np.all(made % 2 == 0)


def test_loihi2_keeps_the_weights_that_netx_keeps():
    mixed, positive, negative = np.array([[-3.0, 2.0]]), np.array([[3.0, 2.0]]), np.array([[-3.0, -2.0]])
    assert [LOIHI2.weight_limit([each]) for each in (mixed, positive, negative)] == [254, 255, 126]
    assert [LOIHI2.coarse([each]) for each in (mixed, positive, negative)] == [True, False, True]
    assert LOIHI2.weight_limit([positive, negative]) == 254


def test_one_scale_serves_all_matrices_of_a_row():
    forward, back = np.array([[1.0], [1.0]]), np.array([[0.5], [4.0]])
    assert weight_scale(INT8, [forward, back]).tolist() == [64.0, 16.0]
    assert weight_scale(INT8, [np.array([[1.0], [0.0]])]).tolist() == [64.0, 64.0]


def test_scales_of_loihi2_make_thresholds_whole():
    weight = np.random.default_rng(0).normal(0, 1, (6, 9))
    scale = weight_scale(LOIHI2, [weight], threshold=0.7)
    np.testing.assert_allclose(scale * 0.7, np.rint(scale * 0.7), atol=1e-9)
    loose = weight_scale(LOIHI2, [weight])
    assert np.all((scale <= loose) & (scale > loose - 1 / 0.7 - 1e-9))


@pytest.mark.parametrize(
    ("bounded", "by"),
    [({"bias": 100.0}, 4095 / 100), ({"threshold": 2000.0}, 131071 / 2000), ({"ceiling": 3.5}, 3.5)],
)
def test_threshold_bias_and_membranes_bound_a_scale(bounded, by):
    scale = weight_scale(LOIHI2, [np.ones((1, 1))], **bounded)
    assert by * 0.999 <= scale[0] <= by + 1e-9


@given(st.floats(0, 1), st.sampled_from(list(PROFILES.values())))
def test_decays_move_by_half_a_unit_at_most(decay, widths):
    made = float(quantised_decay(widths, np.asarray(decay)))
    assert 0 <= made <= 2**widths.decay_bits
    assert abs(made / 2**widths.decay_bits - decay) <= 0.5 / 2**widths.decay_bits


@given(st.integers(1, 10**6), st.integers(1, 4000), st.integers(-3, 3), st.sampled_from([">=", ">"]))
def test_thresholds_between_whole_numbers_are_exact(quarters, scale, apart, fires):
    theta = np.asarray(quarters / 4.0)
    level = quantised_threshold(INT16, theta, np.asarray(float(scale)), fires)
    u = np.floor(theta * scale) + apart
    assert bool(u > level) == bool(u >= theta * scale if fires == ">=" else u > theta * scale)


@pytest.mark.parametrize(("fires", "whole", "wanted"), [(">=", True, 9), (">", True, 10), (">=", False, 10)])
def test_thresholds_of_loihi2_are_multiples_of_its_unit(fires, whole, wanted):
    level = quantised_threshold(LOIHI2, np.asarray(1.0), np.asarray(640.0), fires, whole=whole)
    assert level == 64 * wanted


def test_biases_are_multiples_of_the_unit_within_their_bits():
    made = quantised_bias(LOIHI2, np.array([1.0, -0.51, 1e9]), np.asarray(640.0))
    assert made.tolist() == [640.0, -320.0, 4095 * 64]


@given(st.floats(1e-6, 1e6), st.integers(2, 16))
def test_a_fraction_leaves_room_and_no_more_than_a_factor_of_two(largest, bits):
    f = fraction(largest, bits)
    assert largest * 2.0**f <= Fixed(bits).max or f == -31
    assert largest * 2.0 ** (f + 1) > Fixed(bits).max or f == 31


def test_a_real_input_and_its_weights_share_the_room_of_a_neuron():
    weight = np.random.default_rng(0).uniform(-1, 1, (4, 3))
    free = input_fraction(LOIHI2, weight, 1.0, threshold=1.0)
    tight = input_fraction(LOIHI2, weight, 1.0, threshold=1.0, ceiling=1000.0)
    assert free > tight
    assert 2 <= tight <= 7


def test_an_unknown_profile_is_refused_with_those_that_there_are():
    with pytest.raises(InvalidInput, match="choose from loihi2, int8, int16"):
        profile("int4")
