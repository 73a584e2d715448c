"""What Lava makes of weights: the same arithmetic here and there, and refusals where it would change them."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.targets.lava.needed import needs_lava
from unscan.compiler.errors import Unsupported
from unscan.runtime.lava import guard
from unscan.targets.lava.weights import as_synapses, insist_on_kernel, insist_on_weights

SCRIPT = """
import json, sys
from pathlib import Path
import numpy as np
from lava.lib.dl.netx.utils import optimize_weight_bits
from lava.utils.weightutils import clip_weights, determine_sign_mode, truncate_weights

def synapses(matrices):
    joined, bits, exponent, _ = optimize_weight_bits(np.hstack(matrices))
    found = []
    for part in np.split(joined, np.cumsum([m.shape[1] for m in matrices])[:-1], axis=1):
        mode = determine_sign_mode(part)
        part = truncate_weights(clip_weights(part, mode, num_bits=8), mode, bits)
        part = np.left_shift(part, exponent) if exponent > 0 else np.right_shift(part, -exponent)
        found.append(part.tolist())
    return found

folder = Path(sys.argv[1])
cases = json.loads((folder / "cases.json").read_text())
(folder / "found.json").write_text(json.dumps([synapses([np.array(m) for m in case]) for case in cases]))
"""


def cases() -> list[list[np.ndarray]]:
    """Matrices at the borders of what survives, alone and beside a recurrent one."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(1500):
        most = int(rng.choice([1, 2, 3, 7, 127, 128, 129, 200, 254, 255, 256, 257, 300]))
        low, high = [(-most, most), (0, most), (-most, 0), (-most, -1), (-most, 1), (-3, most)][
            rng.integers(6)
        ]
        matrices = [rng.integers(low, high + 1, (3, 4)) * int(rng.choice([1, 1, 2, 4]))]
        if rng.random() < 0.5:
            theta = int(rng.integers(1, 300))
            matrices.append(
                [-theta * np.eye(3, dtype=int), rng.integers(-theta, theta + 1, (3, 3))][rng.integers(2)]
            )
        if any(matrix.any() for matrix in matrices):
            found.append(matrices)
    return found


@needs_lava
def test_the_same_numbers_as_in_lava(tmp_path: Path) -> None:
    made = cases()
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "cases.json").write_text(json.dumps([[m.tolist() for m in case] for case in made]))
    guard.run(tmp_path / "script.py", tmp_path, seconds=60)
    found = json.loads((tmp_path / "found.json").read_text())
    survived = 0
    for case, there in zip(made, found, strict=True):
        here = as_synapses(case)
        assert [part.tolist() for part in here] == there
        survived += all(np.array_equal(a, b) for a, b in zip(case, here, strict=True))
    assert 0 < survived < len(made)


@pytest.mark.parametrize(
    ("weight", "becomes"),
    [
        ([[256, 1]], [[0, 0]]),
        ([[-128, -1]], [[-127, -1]]),
        ([[-129, 0]], [[0, 0]]),
        ([[300, -2]], [[254, -2]]),
    ],
)
def test_what_lava_changes_is_refused(weight: list[list[int]], becomes: list[list[int]]) -> None:
    assert as_synapses([np.array(weight)])[0].tolist() == becomes
    with pytest.raises(
        Unsupported, match=rf"'fc' without a word: {weight[0][0]} at \(0, 0\) would become {becomes[0][0]}"
    ):
        insist_on_weights({"fc": np.array(weight)})


@pytest.mark.parametrize("weight", [[[255, 0]], [[254, -256]], [[-7, -5]], [[1, -1]]])
def test_what_survives_is_taken(weight: list[list[int]]) -> None:
    insist_on_weights({"fc": np.array(weight)})


def test_a_recurrence_shares_the_exponent() -> None:
    loop = -153 * np.eye(2, dtype=np.int64)
    insist_on_weights({"fc": np.array([[2, -2], [2, 4]]), "rec": 2 * loop // 3})
    with pytest.raises(Unsupported, match="'rec' without a word: -153"):
        insist_on_weights({"fc": np.array([[3, -3], [1, 1]]), "rec": loop})


def test_weights_of_zero_are_refused() -> None:
    with pytest.raises(Unsupported, match="all of its weights are 0"):
        insist_on_weights({"fc": np.zeros((2, 2), np.int64)})


def test_a_kernel_has_to_fit() -> None:
    insist_on_kernel("conv", np.array([-256, 254]))
    insist_on_kernel("conv", np.array([0, 255]))
    for kernel in ([-257, 0], [-1, 255], [0, 256]):
        with pytest.raises(Unsupported, match="the weights of 'conv'"):
            insist_on_kernel("conv", np.array(kernel))
