"""The random stream: its definition in plain integers, and that it looks like independent uniform numbers."""

import math

import pytest
import torch

from unscan.trainer.recurrence import stream
from unscan.trainer.recurrence.stream import uniform

WORD = 0xFFFFFFFF


def plain_mix(h):
    h ^= h >> 16
    h = 0x85EBCA6B * h & WORD
    h ^= h >> 13
    h = 0xC2B2AE35 * h & WORD
    return h ^ (h >> 16)


def plain(seed, t, lane):
    h = plain_mix(plain_mix(plain_mix(seed) + t & WORD) ^ plain_mix(lane + 2654435769 & WORD))
    return ((h >> 9) + 0.5) / 2**23


@pytest.mark.parametrize("seed", [0, 1, 12345, WORD])
@pytest.mark.parametrize("first", [0, 1000, WORD - 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_is_its_definition(seed, first, dtype):
    got = uniform(seed, torch.tensor(first), 6, 9, dtype)
    want = [[plain(seed, first + t & WORD, lane) for lane in range(9)] for t in range(6)]
    assert got.dtype == dtype
    assert got.tolist() == want


def test_mix_loses_nothing():
    words = torch.cat((torch.arange(1 << 16), torch.arange(1 << 16) << 16, WORD - torch.arange(1 << 16)))
    words = words.unique()
    mixed = stream.mix(words)
    assert mixed.min() >= 0
    assert mixed.max() <= WORD
    assert mixed.unique().numel() == words.numel()


def test_a_sequence_is_its_steps(monkeypatch):
    whole = uniform(3, torch.tensor(5), 100, 40, torch.float64)
    steps = [uniform(3, torch.tensor(5 + t), 1, 40, torch.float64) for t in range(100)]
    assert torch.equal(whole, torch.cat(steps))
    monkeypatch.setattr(stream, "_CELLS", 7)
    assert torch.equal(whole, uniform(3, torch.tensor(5), 100, 40, torch.float64))


def test_is_even():
    numbers = uniform(1, torch.tensor(0), 1024, 512, torch.float64)
    n, bins = numbers.numel(), 256
    assert numbers.min() > 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 5 / math.sqrt(12 * n)
    counts = torch.histc(numbers, bins, 0, 1)
    chi_squared = ((counts - n / bins) ** 2 / (n / bins)).sum().item()
    assert abs(chi_squared - (bins - 1)) < 5 * math.sqrt(2 * (bins - 1))


@pytest.mark.parametrize(("step", "lane"), [(0, 1), (1, 0), (1, 1), (2, 3), (0, 64), (64, 0)])
def test_neighbours_are_independent(step, lane):
    centred = uniform(1, torch.tensor(0), 1024, 512, torch.float64) - 0.5
    a, b = centred[step:, lane:], centred[: 1024 - step, : 512 - lane]
    assert abs((a * b).mean()) * 12 * math.sqrt(a.numel()) < 5


def test_seeds_are_independent():
    centred = [uniform(seed, torch.tensor(0), 512, 256, torch.float64) - 0.5 for seed in range(6)]
    for i in range(6):
        for j in range(i):
            assert abs((centred[i] * centred[j]).mean()) * 12 * math.sqrt(512 * 256) < 5
