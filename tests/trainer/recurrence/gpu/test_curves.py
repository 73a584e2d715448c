"""The surrogate curves inside Triton kernels against those that the loops use."""

import pytest
import torch

from unscan.trainer.recurrence.naive import Firing
from unscan.trainer.surrogate import SURROGATES, surrogate_gradient

pytest.importorskip("triton", reason="Triton is not installed")

import triton
import triton.language as tl

from unscan.trainer.recurrence.gpu.curves import curve_of, slope


@triton.jit
def evaluate(x, y, size, curve: tl.constexpr, p: tl.constexpr, q: tl.constexpr, block: tl.constexpr):
    place = tl.arange(0, block)
    tl.store(y + place, slope(tl.load(x + place, place < size, 0.0), curve, p, q), place < size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [None, 0.3, 7.0])
@pytest.mark.parametrize("name", SURROGATES)
def test_equals_the_surrogate(device, name, width, dtype):
    settled = SURROGATES[name].width if width is None else width
    edges = torch.tensor([0.0, settled, settled / 2, -settled, 1e3, 1e-30], dtype=dtype)
    x = torch.cat((edges, torch.linspace(-3, 3, 101, dtype=dtype))).to(device)
    y = torch.full_like(x, torch.nan)
    evaluate[(1,)](
        x, y, x.numel(), **curve_of(Firing(surrogate=name, width=width)), block=128, enable_fp_fusion=False
    )
    want = surrogate_gradient(x, name, width)
    # On a GPU Triton's float32 division is within 2 units in the last place; everything else rounds alike.
    rounding = 4 * torch.finfo(dtype).eps if device.type == "cuda" and dtype == torch.float32 else 0
    assert want.max() > 0
    assert ((y - want).abs() <= rounding * want).all()
