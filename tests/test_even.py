"""No more is taken from a photograph anywhere than noise of that brightness."""

import numpy as np
import pytest

from unperturb.infer.even import even
from unperturb.infer.restore import restore
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings


def grained(height: int = 200, width: int = 240, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a picture that gets brighter from left to right, and what it was with noise that grows with it."""
    generator = np.random.default_rng(seed)
    clean = np.broadcast_to(np.linspace(0.1, 0.9, width), (height, width)).astype(np.float32)
    noise = (0.01 + 0.1 * clean) * generator.standard_normal(clean.shape)
    return clean, (clean + noise).astype(np.float32)


def test_noise_that_depends_on_brightness_is_taken_as_a_whole():
    """Break: one strength for all."""
    clean, seen = grained()
    assert np.array_equal(even(seen, clean), clean)


def test_where_more_is_taken_than_elsewhere_it_is_limited():
    """Breaks: as it is; nothing is taken there."""
    clean, seen = grained()
    texture = np.zeros_like(clean)
    texture[80:144, 80:144] = 0.5 * np.random.default_rng(1).standard_normal((64, 64))
    answer = even(seen + texture, clean)
    inner = (slice(96, 128), slice(96, 128))
    taken = (seen + texture - answer)[inner].std()
    noise = (seen - clean)[inner].std()
    assert 1.2 * noise < taken < 2.4 * noise
    outer = (slice(None), slice(180, None))
    assert np.abs(answer - clean)[outer].max() < 1e-6


def test_a_frame_that_was_drawn_says_nothing():
    """Breaks: it counts, and all else is as noisy as before; a colour counts as variation."""
    clean, seen = (np.pad(each, 64, constant_values=0.5) for each in grained())
    assert np.array_equal(even(seen, clean), clean)
    clean, seen = (np.stack([each, np.where(each == 0.5, 0.1, each)], -1) for each in (clean, seen))
    assert np.array_equal(even(seen, clean, -1), clean)


def test_what_has_no_noise_says_that_there_is_none():
    """A patch of texture, and nothing is taken elsewhere. Break: places count from which something was taken alone."""
    clean, _ = grained()
    seen = clean + 0.02 * np.sin(np.arange(240, dtype=np.float32))
    answer = seen.copy()
    seen[80:144, 80:144] += 0.2 * np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)
    assert np.abs(even(seen, answer) - seen)[88:136, 88:136].std() < 0.01


def test_colours_are_taken_together_and_the_axis_is_told():
    """Break: means over another axis."""
    clean, seen = grained(75, 101)
    several, answer = np.stack([seen, clean, seen], 0), np.stack([clean, clean, clean], 0)
    several[1, 20:50, 20:50] += 0.5 * np.random.default_rng(2).standard_normal((30, 30)).astype(np.float32)
    first = even(several, answer, 0)
    last = even(np.moveaxis(several, 0, -1), np.moveaxis(answer, 0, -1), -1)
    assert np.array_equal(first, np.moveaxis(last, -1, 0))
    assert np.abs(first - answer)[:, 30:40, 30:40].mean(axis=(1, 2)).min() > 0.005


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (8, 8)])
def test_small_pictures_say_too_little(shape):
    clean = np.zeros(shape, np.float32)
    seen = clean + 0.1
    assert np.array_equal(even(seen, clean), clean)


def test_a_photograph_is_restored_so_and_nothing_else_is(monkeypatch):
    """Break: the network's answer alone."""
    monkeypatch.setattr("unperturb.infer.restore.even", lambda _seen, answer, _axis: np.full_like(answer, 7.0))
    _, seen = grained(24, 32)
    for spec, evened in (("camera:iso=100..800", True), ("gaussian:sigma=0..0.2", False)):
        settings = UNetSettings(channels=1, widths=(4, 8), blocks=1, given=True)
        denoiser = Denoiser(Card(settings, perturbation=spec)).requires_grad_(False)
        assert (restore(seen, denoiser) == 7).all() == evened
