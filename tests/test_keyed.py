"""Noise that depends on where it goes: the same at any extent and in any company, and otherwise white."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from unperturb.infer.keyed import keyed_normal

SHAPES = [(5,), (2, 300), (3, 20, 30), (1, 6, 10, 12)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_value_depends_on_its_key_and_coordinates_alone(shape):
    """Break: places numbered in the order of the array, so that the extent counts."""
    larger = tuple(2 * length + 1 for length in shape)
    small = keyed_normal([(7, 1)], shape)[0]
    large = keyed_normal([(3, 0), (7, 1), (7, 2)], larger)[1]
    assert torch.equal(small, large[tuple(slice(length) for length in shape)])


def test_a_long_field_is_the_same_in_one_piece_and_in_many(monkeypatch):
    whole = keyed_normal([(1, 2), (1, 3)], (3, 50, 70))
    monkeypatch.setattr("unperturb.infer.keyed._CHUNK", 999)
    assert torch.equal(whole, keyed_normal([(1, 2), (1, 3)], (3, 50, 70)))


@pytest.mark.parametrize("keys", [[(seed, 0) for seed in range(40)], [(0, item) for item in range(40)], [(-5, 2**70)]])
def test_values_are_standard_normal(keys):
    """Kolmogorov and Smirnov's test on 400,000 values, and their moments within 4 standard errors.

    Break: radius and angle of the same bits.
    """
    values = keyed_normal(keys, (1, 100, 400_000 // 100 // len(keys)), dtype=torch.float64).numpy().ravel()
    n = len(values)
    assert stats.kstest(values, "norm").pvalue > 1e-3
    for power, stated, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert abs(np.mean(values**power) - stated) < 4 * math.sqrt(variance / n)


def test_neighbours_keys_and_channels_are_independent():
    """Covariances of fields that differ in one coordinate or one part of the key are within 4 standard errors of 0.

    Break: all parts of the key but the first ignored.
    """
    base = keyed_normal([(0, 0, 0)], (2, 300, 300))[0]
    others = [keyed_normal([key], (2, 300, 300))[0] for key in ((1, 0, 0), (0, 1, 0), (0, 0, 1))]
    pairs = [(base, other) for other in others]
    pairs += [(base[:, 1:], base[:, :-1]), (base[..., 1:], base[..., :-1]), (base[0], base[1])]
    pairs += [(one**2 - 1, two**2 - 1) for one, two in pairs]
    for one, two in pairs:
        product = (one * two).double()
        assert abs(float(product.mean())) < 4 * float(product.std()) / math.sqrt(product.numel())
