"""The noise that `estimate_sigma` finds is the noise that was put in, in any units, and none where there is none."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data, io

from unperturb.data.noise import estimate_sigma
from unperturb.errors import UsageError

# Photographs inside scikit-image's wheel. `grass` is the hard one: its blades are as fine as the pixels, everywhere.
GRAY = ["brick", "camera", "cell", "coins", "gravel", "moon", "page", "text"]
COLOUR = ["astronaut", "chelsea", "coffee"]
BSD68 = Path(__file__).parents[1] / ".." / "shared" / "data" / "test" / "bsd68"

Array = NDArray[Any]


def photograph(name: str) -> Array:
    return np.asarray(getattr(data, name)(), dtype=np.float64)


def noise(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def as_8bit(values: Array) -> Array:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("sigma", [5, 10, 25, 60])
@pytest.mark.parametrize("name", GRAY)
def test_known_noise_on_gray_photographs(name, sigma):
    clean = photograph(name)
    assert estimate_sigma(clean + sigma * noise(clean.shape)) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [5, 10, 25, 60])
@pytest.mark.parametrize("name", COLOUR)
def test_known_noise_on_colour_photographs(name, sigma):
    clean = photograph(name)
    assert estimate_sigma(clean + sigma * noise(clean.shape), channel_axis=-1) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [25, 60])
def test_texture_everywhere_hides_only_weak_noise(sigma):
    clean = photograph("grass")
    assert estimate_sigma(clean + sigma * noise(clean.shape)) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("sigma", [5, 10, 25])
@pytest.mark.parametrize("name", [*GRAY, *COLOUR])
def test_rounding_and_clipping_to_8_bits_hides_no_noise(name, sigma):
    clean = photograph(name)
    noisy = as_8bit(clean + sigma * noise(clean.shape))
    assert estimate_sigma(noisy, channel_axis=-1 if clean.ndim == 3 else None) == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("name", ["brick", "camera", "cell", "coins", "moon", "page", "text", *COLOUR])
def test_clean_photographs_get_next_to_nothing(name):
    clean = photograph(name)
    assert estimate_sigma(clean, channel_axis=-1 if clean.ndim == 3 else None) < 1.5


def test_noise_on_nothing_is_estimated_without_bias():
    # Sorting patches by one band must select nothing in the other: the mean over many draws is the truth.
    estimates = [estimate_sigma(noise((128, 128), seed)) for seed in range(50)]
    assert np.mean(estimates) == pytest.approx(1, abs=0.015)
    assert np.std(estimates) < 0.035


def test_texture_in_one_direction_at_a_time_is_no_noise():
    # A sum of one function a direction has no energy that is fast in both, however steep it is.
    y, x = np.mgrid[:128, :128]
    assert estimate_sigma(np.sin(2.0 * x) + np.where(y % 7 < 3, 5.0, 0.0) + 0.1 * x) == pytest.approx(0, abs=1e-12)


def test_graphics_are_clean():
    y, x = np.mgrid[:200, :256]
    disc = np.where((y - 100) ** 2 + (x - 120) ** 2 < 3000, 200.0, 30.0)
    assert estimate_sigma(disc) < 1e-9
    assert estimate_sigma((y // 16 + x // 16) % 2) < 1e-9
    assert estimate_sigma(photograph("horse")) < 1e-9


@settings(max_examples=40, deadline=None)
@given(scale=st.floats(1e-6, 1e6), sign=st.sampled_from([-1, 1]), shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_units_do_not_matter(scale, sign, shift, seed):
    y, x = np.mgrid[:40, :56]
    image = np.sin(x / 3) * np.cos(y / 5) + 0.1 * noise((40, 56), seed)
    expected = scale * estimate_sigma(image)
    assert estimate_sigma(sign * scale * (image + shift)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float16, np.float32, np.float64])
def test_every_real_type(dtype):
    image = (120 + 10 * noise((200, 200))).astype(dtype)
    assert estimate_sigma(image) == pytest.approx(10, rel=0.06)


def test_sixteen_bits_over_their_full_range():
    clean = photograph("camera") * 257
    noisy = np.clip(np.rint(clean + 2570 * noise(clean.shape)), 0, 65535).astype(np.uint16)
    assert estimate_sigma(noisy) == pytest.approx(2570, rel=0.1)


@pytest.mark.parametrize(("side", "spread"), [(8, 0.35), (16, 0.2), (32, 0.15), (64, 0.08)])
def test_tiny_images(side, spread):
    estimates = np.array([estimate_sigma(3 * noise((side, side), seed)) / 3 for seed in range(60)])
    assert np.mean(estimates) == pytest.approx(1, abs=0.12)
    assert np.std(estimates) < spread


@pytest.mark.parametrize("value", [0, 0.1, -7, 255])
def test_constant_images_have_no_noise(value):
    assert estimate_sigma(np.full((8, 8), value)) == 0
    assert estimate_sigma(np.full((50, 40, 3), value), channel_axis=-1) == 0


@pytest.mark.parametrize("fill", [0, 128, 255])
def test_constant_margins_do_not_count(fill):
    noisy = as_8bit(photograph("camera") + 15 * noise((512, 512)))
    assert estimate_sigma(np.pad(noisy, 60, constant_values=fill)) == pytest.approx(15, rel=0.1)


def test_saturated_regions_do_not_count():
    estimates = []
    for seed in range(12):
        noisy = as_8bit(128 + 15 * noise((256, 256), seed))
        noisy[40:160, 40:200] = 255
        noisy[200:, :100] = 0
        estimates.append(estimate_sigma(noisy))
    assert np.mean(estimates) == pytest.approx(15, rel=0.03)
    assert np.std(estimates) < 0.05 * 15


def test_channels():
    plane = 100 + 10 * noise((200, 200))
    empty = np.zeros_like(plane)
    gray_as_rgb = np.stack([plane] * 3)
    assert estimate_sigma(gray_as_rgb, channel_axis=0) == estimate_sigma(plane)
    assert estimate_sigma(np.stack([empty, plane, empty], axis=1), channel_axis=1) == estimate_sigma(plane)


def test_the_same_image_gives_the_same_answer_and_stays_as_it_is():
    image = noise((100, 120))
    before = image.copy()
    assert estimate_sigma(image) == estimate_sigma(image)
    np.testing.assert_array_equal(image, before)


def test_large_images_take_bounded_memory():
    image = np.tile(as_8bit(128 + 20 * noise((500, 600))), (8, 10))  # 24 megapixels
    tracemalloc.start()
    estimate = estimate_sigma(image)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert estimate == pytest.approx(20, rel=0.05)
    assert peak < 10 * image.size  # a float64 copy alone would be 8


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    image = noise((32, 32))
    image[5, 6] = bad
    with pytest.raises(UsageError, match="NaN or infinite"):
        estimate_sigma(image)


@pytest.mark.parametrize(
    ("image", "channel_axis", "message"),
    [
        (np.zeros((32, 32), complex), None, "real numbers"),
        (np.zeros((32, 32, 3)), None, "name the axis"),
        (np.zeros((32, 32)), -1, r"neither \(H, W\)"),
        (np.zeros((32, 32, 3)), 3, r"neither \(H, W\)"),
        (np.zeros((7, 32)), None, "7 × 32"),
        (np.zeros((0, 0)), None, "fewer than 8 × 8"),
    ],
)
def test_what_is_not_an_image_is_refused(image, channel_axis, message):
    with pytest.raises(UsageError, match=message):
        estimate_sigma(image, channel_axis)


@pytest.mark.skipif(not BSD68.is_dir(), reason="the BSD68 test images are not beside the repository")
@pytest.mark.parametrize("sigma", [5, 15, 25, 50, 60])
def test_nine_in_ten_of_bsd68(sigma):
    images = [np.asarray(io.imread(path), dtype=np.float64) for path in sorted(BSD68.glob("*.png"))[::7]]
    assert len(images) == 10
    errors = [abs(estimate_sigma(clean + sigma * noise(clean.shape, i)) / sigma - 1) for i, clean in enumerate(images)]
    assert np.mean(np.array(errors) < 0.1) >= 0.9
