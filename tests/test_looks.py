"""Several looks at an image are looks at it turned and mirrored: as many as are cheap, and only where that may be."""

import numpy as np
import pytest
import torch

from unperturb.data.noise import estimate_sigma
from unperturb.infer import looks as module
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.network import UNetSettings
from unperturb.model.perturbation import Gaussian

pytestmark = pytest.mark.usefixtures("one_thread")

EXACTLY = Compute(device="cpu", precision="float32")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Let images of 16 × 12 be small."""
    monkeypatch.setattr(module, "ENOUGH", 4 * 16 * 12)


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(channels: int = 1, dims: int = 2, *, trained: bool = True, given: bool = False, spec: str = "") -> Denoiser:
    """Build a network that does more to its input than an untrained one."""
    settings = UNetSettings(dims=dims, channels=channels, widths=(4, 8), blocks=1, given=given)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(Card(settings, spec, training={"steps": 1} if trained else {}))
    with torch.no_grad():
        denoiser.network.tail.weight.mul_(30)
    return denoiser.requires_grad_(False)


def turned(array: np.ndarray, turn: int) -> np.ndarray:
    array = np.rot90(array, turn % 4)
    return array[:, ::-1] if turn >= 4 else array


def turned_back(array: np.ndarray, turn: int) -> np.ndarray:
    return np.rot90(array[:, ::-1] if turn >= 4 else array, -(turn % 4))


def calls(y: np.ndarray, denoise: Denoise, sigma: float | None = None, **options: object) -> int:
    """Return how many calls an answer takes, by what is told of progress."""
    told = []
    restore(y, denoise, sigma, compute=EXACTLY, progress=lambda _, total: told.append(total), **options)
    return told[-1]


@pytest.mark.parametrize(("shape", "turns"), [((16, 12), (0, 2, 4, 6)), ((24, 16), (0, 2)), ((32, 13), (0,))])
@pytest.mark.parametrize("level", [0.3, None])
@pytest.mark.parametrize("given", [False, True])
def test_small_images_are_looked_at_as_often_as_is_cheap(shape, turns, level, given):
    """Breaks: always four looks; one that is turned by a quarter; each look with a level of its own."""
    y, denoiser = values(*shape), model(given=given)
    sigma = estimate_sigma(y) if level is None and not given else level
    looks = [restore(turned(y, turn), denoiser, sigma, quality="fast", compute=EXACTLY) for turn in turns]
    back = [turned_back(look, turn) for look, turn in zip(looks, turns, strict=True)]
    answer = restore(y, denoiser, level, compute=EXACTLY)
    np.testing.assert_allclose(answer, np.mean(back, 0), rtol=1e-4, atol=1e-5)
    assert (np.abs(answer - back[0]).max() > 0.01) == (len(turns) > 1)


def test_what_may_change_when_it_is_turned_is_looked_at_once():
    """Breaks: any function, any network, or any number of dimensions is turned."""
    y, seen = values(16, 12), []

    def denoise(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return x

    restore(y, denoise, 0.3, compute=EXACTLY)
    assert len(seen) == 1
    for denoiser, given in ((model(trained=False), y), (model(dims=1), y[0]), (model(dims=3), values(8, 8, 8))):
        assert calls(given, denoiser, 0.3) == 1


def test_what_takes_many_calls_is_looked_at_once():
    """Missing values, by a model of noise alone, do; a stated Gaussian does not. Break: both do."""
    y, denoiser, hole = values(16, 12), model(spec="gaussian:sigma=0..1"), np.zeros((16, 12), bool)
    hole[3, 4] = True
    assert calls(y, denoiser, perturbation=Gaussian(0.3)) == 4
    assert calls(y, denoiser, perturbation=Gaussian(0.3), quality="fast") == 1
    assert calls(y, denoiser, missing=hole) == calls(y, denoiser, missing=hole, quality="fast")


def test_channels_that_are_looked_at_one_by_one_count_each():
    """Break: pixels of space are counted, whoever sees them."""
    assert calls(values(16, 12, 2), model(1), 0.3, channel_axis=-1) == 2 * 2
    assert calls(values(16, 12, 3), model(3), 0.3, channel_axis=-1) == 4


@pytest.mark.parametrize("quality", ["auto", "best"])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_blocks_of_a_jpeg_begin_at_the_top_left_in_every_look(quality, axis, monkeypatch):
    """Break: an image is turned as it is, which cost 0.5 dB at sides of 260."""
    monkeypatch.setattr(module, "ENOUGH", 1 << 19)
    denoiser, seen = model(given=True, spec="jpeg:quality=50 | gaussian:sigma=0.1"), []
    given = Denoiser.given
    monkeypatch.setattr(Denoiser, "given", lambda self, y, *rest: seen.append(y[0, 0].numpy()) or given(self, y, *rest))
    y = values(21, 33)
    image = y if axis is None else np.expand_dims(y, axis)
    looks = [restore(image, denoiser, channel_axis=axis, quality=each, compute=EXACTLY) for each in (quality, "fast")]
    assert looks[0].shape == looks[1].shape == image.shape
    turns = (0, 2, 4, 6) if quality == "auto" else range(8)
    for turn, look in zip((*turns, 0), seen, strict=True):
        whole = turned_back(look, turn)
        assert whole.shape == ((32, 48) if turn else (21, 33))
        np.testing.assert_array_equal(whole[:21, :33], y)
    assert (model().block, model(spec="no spec").block, model(spec="gaussian:sigma=0.1").block) == (1, 1, 1)


def test_large_values_do_not_overflow():
    """Break: looks are added up first."""
    y = np.abs(values(16, 12)) * np.float32(1e38)
    np.testing.assert_allclose(restore(y, lambda x, _: x, 1e36, quality="best", compute=EXACTLY), y, rtol=1e-6)
