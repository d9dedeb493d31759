"""Frames that follow each other: which they are, and whether something changed between them."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, shift
from skimage import data

from unperturb.data.frames import STILL, changed, frame_pairs
from unperturb.data.recording import Recording

SCENES = {"camera": data.camera() / 255.0, "cell": data.cell()[:320, :330] / 255.0, "coins": data.coins() / 255.0}


@pytest.mark.parametrize(
    ("axes", "shape", "pairs"),
    [
        ("YX", (2, 2), []),
        ("CYX", (3, 2, 2), []),
        ("TYX", (3, 2, 2), [((0,), (1,)), ((1,), (2,))]),
        ("ZYX", (2, 2, 2), [((0,), (1,))]),
        ("TCYX", (2, 2, 2, 2), [((0, 0), (1, 0)), ((0, 1), (1, 1))]),
        ("ZTYX", (1, 2, 2, 2), [((0, 0), (0, 1))]),
        ("TYXC", (2, 2, 2, 3), [((0,), (1,))]),
    ],
)
def test_frames_follow_each_other_in_time_before_depth_and_in_one_channel(axes, shape, pairs):
    """Break: the first axis whatever it is; the last frame with the first."""
    assert list(frame_pairs(Recording(np.zeros(shape, np.float32), axes))) == pairs


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("noise", ["white", "counted", "shared"])
def test_noise_is_no_change(scene, noise, seed=0):
    """Whatever its strength is where, and whether or not neighbours have it in common."""
    generator = np.random.default_rng(seed)
    clean = SCENES[scene]

    def shot():
        if noise == "counted":
            return generator.poisson(clean / 0.02) * 0.02
        white = generator.normal(0, 0.1, clean.shape)
        return clean + (gaussian_filter(white, 0.8) if noise == "shared" else white)

    assert abs(changed(shot(), shot())) < 0.01


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("pixels", [0.25, 0.5])
@pytest.mark.parametrize("sigma", [0.02, 0.05])
def test_of_what_moved_a_third_is_found_at_least(scene, pixels, sigma):
    """Break: gradients of one direction alone; the noise of the difference for that of a frame."""
    generator = np.random.default_rng(1)
    clean = SCENES[scene]
    moved = shift(clean, (pixels, pixels / 2), order=3, mode="nearest")
    truth = np.square(clean - moved).mean() / sigma**2
    found = changed(*(plane + generator.normal(0, sigma, clean.shape) for plane in (clean, moved)))
    if truth < 1:
        assert truth / 3 - 0.003 < found < 1.1 * truth + 0.003
    else:
        assert found > 10 * STILL


@pytest.mark.parametrize("scene", SCENES)
def test_what_got_darker_has_changed(scene):
    """Break: the means of blocks not looked at."""
    generator = np.random.default_rng(2)
    clean = SCENES[scene]
    found = changed(*(plane + generator.normal(0, 0.03, clean.shape) for plane in (clean, 0.97 * clean)))
    assert found == pytest.approx(np.square(0.03 * clean).mean() / 0.03**2, rel=0.3)


def test_what_shifts_explain_by_chance_is_taken_off():
    """Break: not taken off, or never below nothing: 0.007 and 0.003 of such small frames."""
    generator = np.random.default_rng(4)
    clean = SCENES["camera"][100:124, 100:124]
    found = [changed(*(clean + generator.normal(0, 0.2, (2, 24, 24)))) for _ in range(400)]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20
    assert np.std(found) < 0.02


def test_frames_without_noise_and_small_ones_are_told_of():
    flat = np.full((200, 40), 0.5)
    assert changed(flat, flat) == 0
    assert changed(flat, flat + 0.1) > 1e6
    generator = np.random.default_rng(3)
    assert abs(changed(*(flat[:20, :20] + generator.normal(0, 0.1, (2, 20, 20))))) < 0.1
