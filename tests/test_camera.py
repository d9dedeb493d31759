"""A camera's noise: every stage has its inverse, and noise goes through all of them as a camera's does."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from unperturb.data.patches import LUMINANCE
from unperturb.errors import UsageError
from unperturb.infer.evaluate import perturb
from unperturb.infer.observe import observe
from unperturb.infer.places import surroundings
from unperturb.infer.restore import restore
from unperturb.infer.sample import sample
from unperturb.infer.tiled import Compute
from unperturb.model import camera as module
from unperturb.model import isp
from unperturb.model.camera import Camera, leaves_means
from unperturb.model.card import Card
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings
from unperturb.model.operators import coarse
from unperturb.model.spec import parse


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=seeded(seed))


def smooth(batch: int, side: int = 32, channels: int = 3) -> torch.Tensor:
    """Photographs without detail: waves of some grays and colours."""
    line = torch.linspace(0, 2, side)
    down, across = line[:, None], line[None, :]
    waves = [0.5 + 0.3 * torch.sin(down * (channel + 1) + across) for channel in range(channels)]
    return torch.stack(waves).expand(batch, -1, -1, -1).clone()


# --- The stages -------------------------------------------------------------------------------------------------------


def test_gamma_is_that_of_srgb_and_has_its_inverse():
    """The reference points are those of IEC 61966-2-1. Break: 2.2 in place of 2.4."""
    values = images(2, 3, 8, 8).double()
    torch.testing.assert_close(isp.with_gamma(isp.without_gamma(values)), values, atol=1e-9, rtol=0)
    known = torch.tensor([0.0, 0.0031308, 0.2140411, 1.0]).double()
    torch.testing.assert_close(isp.with_gamma(known), torch.tensor([0, 0.04045, 0.5, 1]).double(), atol=1e-5, rtol=0)
    assert (isp.with_gamma(torch.tensor([-1.0])) == 0).all()


def test_tone_is_an_s_and_has_its_inverse():
    """At full contrast it is 3x² − 2x³ (Brooks et al.); whatever the contrast, black, middle and white stay."""
    values, contrast = images(5, 3, 16, 16).double(), torch.tensor([0.0, 0.2, 0.5, 0.8, 0.9]).double()
    toned = isp.with_tone(values, contrast)
    torch.testing.assert_close(isp.without_tone(toned, contrast), values, atol=1e-9, rtol=0)
    ends = torch.tensor([0.0, 0.5, 1.0]).double().view(1, 1, 1, 3).expand(5, 1, 1, 3)
    torch.testing.assert_close(isp.with_tone(ends, contrast), ends)
    full = isp.with_tone(values[:1], torch.ones(1).double())
    torch.testing.assert_close(full, 3 * values[:1] ** 2 - 2 * values[:1] ** 3)


@pytest.mark.parametrize("corner", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_mosaic_holds_red_green_green_blue(corner):
    """Break: rows and columns of the corner exchanged (seen at the two greens' neighbours)."""
    colours = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    raw = isp.mosaic(colours, torch.tensor([corner]))[0, 0]
    bayer = np.tile([[1, 2], [2, 3]], (3, 3))[corner[0] : corner[0] + 4, corner[1] : corner[1] + 4]
    assert np.array_equal(raw.numpy(), bayer)


@pytest.mark.parametrize("corrected", [False, True])
def test_demosaicking_undoes_the_mosaic_of_what_is_even_or_rises_evenly(corrected):
    """Both methods are exact where every colour is a plane, and keep what the sensor saw.

    Breaks: red and blue exchanged at green; the kernel of rows used for columns.
    """
    corner = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]])
    which = torch.full((4,), corrected)
    row, column = torch.arange(12.0)[:, None], torch.arange(10.0)[None, :]
    # The same slope in all three: the second method takes what one colour does to be what the others do.
    plane = torch.stack([0.1 * channel + 0.02 * row + 0.03 * column for channel in range(3)]).expand(4, -1, -1, -1)
    inside = (..., slice(2, -2), slice(2, -2))
    found = isp.demosaic(isp.mosaic(plane, corner), corner, which)
    torch.testing.assert_close(found[inside], plane[inside], atol=1e-5, rtol=0)
    noise = images(4, 3, 12, 10)
    raw = isp.mosaic(noise, corner)
    assert torch.equal(isp.mosaic(isp.demosaic(raw, corner, which), corner), raw)


def test_developing_undoes_what_brings_a_photograph_to_the_sensor():
    """But for what demosaicking takes, of which an even photograph has none, and what the sensor's range cuts off."""
    settings = module._Darkroom.drawn(images(40, 3, 4, 4), seeded())
    even = (0.05 + 0.5 * images(40, 3, 1, 1)).expand(-1, -1, 12, 12)
    raw = settings.raw(even)
    kept = (raw.flatten(1).amax(1) < 1) & (raw.flatten(1).amin(1) > 0)
    assert kept.sum() > 15
    again = settings.developed(isp.mosaic(raw, settings.corner))
    torch.testing.assert_close(again[kept], even[kept], atol=1e-4, rtol=0)
    white = settings.developed(isp.mosaic(settings.raw(torch.ones(40, 3, 12, 12)), settings.corner))
    assert ((white - 1).abs() < 1e-3).flatten(1).all(1).sum() > 10


# --- Noise ------------------------------------------------------------------------------------------------------------


def test_raw_noise_is_shot_and_read_noise():
    """Variance rises with brightness by `SHOT` · iso. Break: the standard deviation where the variance belongs."""
    settings = module._Darkroom.drawn(torch.zeros(1, 3, 4, 4), seeded(3))
    slope = module.SHOT * 3200 * module.SPREAD ** (2 * float(settings.quality[0, 0]) - 1)
    found = []
    for seen in (0.0, 0.5):
        values = torch.full((1, 1, 512, 512), seen)
        noise = settings.sensor_noise(values, torch.tensor([3200.0]), seeded(4))
        assert abs(float(noise.mean())) < 1e-3
        found.append(float(noise.square().mean()))
    assert math.isclose(found[1] - found[0], 0.5 * slope, rel_tol=0.03)
    assert 0 < found[0] < 0.5 * slope


def test_noise_in_a_photograph_is_a_cameras():
    """It is stronger the faster the film, neighbours and colours have it in common, and it is no one level.

    Breaks: noise after demosaicking; noise of all three colours at every pixel.
    """
    clean = smooth(24)
    levels = [(Camera(iso)(clean, seeded(5)).values - clean).square().mean() for iso in (100, 400, 1600, 6400)]
    assert all(2 < float(high / low) < 6 for low, high in pairwise(levels))
    noise = Camera(1600, sharpening=0, smoothing=0)(clean, seeded(6)).values - clean
    assert 0.2 < common(noise[..., 1:], noise[..., :-1]) < 0.7
    assert 0.2 < common(noise[..., 1:, :], noise[..., :-1, :]) < 0.7
    assert common(noise[:, 0], noise[:, 1]) < -0.1  # what a colour matrix takes from one colour it gives another
    level = noise.square().flatten(1).mean(1).sqrt()
    assert level.max() > 2 * level.min()


def test_noise_reduction_and_sharpening_are_of_noise():
    """Smoothing is of its colour, softening of its luminance. Break: both of the luminance."""

    def parts(**settings: float) -> tuple[torch.Tensor, torch.Tensor]:
        off = {"sharpening": 0, "smoothing": 0, "softening": 0}
        noise = Camera(1600, **{**off, **settings})(smooth(16), seeded(7)).values - smooth(16)
        luminance = noise.mean(1, keepdim=True)
        return noise - luminance, luminance

    def powers(noise: tuple[torch.Tensor, torch.Tensor]) -> list[float]:
        return [float(part.square().mean()) for part in noise]

    plain, smoothed, softened, crisp = map(powers, settings := [
        parts(), parts(smoothing=2), parts(softening=1.5), parts(sharpening=1)
    ])  # fmt: skip
    assert smoothed[0] < 0.3 * plain[0]
    assert smoothed[1] == pytest.approx(plain[1], rel=0.05)
    assert softened[1] < 0.3 * plain[1]
    assert softened[0] == pytest.approx(plain[0], rel=0.05)
    assert min(crisp[0] / plain[0], crisp[1] / plain[1]) > 1.3
    for whole, soft in ((settings[0][0], settings[1][0]), (settings[0][1], settings[2][1])):
        assert common(soft[..., 1:], soft[..., :-1]) > common(whole[..., 1:], whole[..., :-1]) + 0.3


def test_noise_reduction_spares_detail_as_far_as_it_is_told():
    """Where a picture has stripes noise stays, in light and in colour; where it has none it goes.

    Breaks: what is detail taken for what is not; noise counted as detail; colour not spared; spared whatever is told.
    """
    clean = smooth(16, 64)
    clean[..., 32:] += 0.2 * (torch.arange(32) // 4 % 2 - 0.5)

    def kept(sparing: float) -> list[float]:
        """Return which share of its fine noise is left in the half without detail, and in that with it."""
        reduced, whole = (
            Camera(1600, sharpening=0, sparing=sparing, **blurs)(clean, seeded(10)).values - clean
            for blurs in ({"smoothing": 2, "softening": 1.5}, {"smoothing": 0, "softening": 0})
        )
        halves = (slice(4, 24), slice(40, 60))
        return [float(reduced[..., half].square().mean() / whole[..., half].square().mean()) for half in halves]

    everywhere, half, stopping = kept(0), kept(0.5), kept(1)
    assert everywhere[1] == pytest.approx(everywhere[0], abs=0.05)
    assert stopping[1] > 0.7
    assert stopping[0] < everywhere[0] + 0.1
    assert everywhere[1] < half[1] < stopping[1]


def test_a_picture_made_smaller_has_less_noise():
    clean = smooth(16)
    whole, half = ((Camera(1600, reduction=by)(clean, seeded(8)).values - clean).square().mean() for by in (1, 2))
    assert half < 0.7 * whole


def test_gray_photographs_have_the_luminance_of_the_noise():
    clean = smooth(16, channels=1)
    noise = Camera(1600)(clean, seeded(9)).values - clean
    colour = Camera(1600)(clean.expand(-1, 3, -1, -1), seeded(9)).values - clean
    luminance = sum(weight * colour[:, channel : channel + 1] for channel, weight in enumerate(LUMINANCE))
    torch.testing.assert_close(noise, luminance, atol=1e-5, rtol=0)


def test_what_a_camera_does_to_the_picture_is_not_noise():
    """Fine detail, which demosaicking spoils, comes back as it is where there is no noise."""
    clean = images(6, 3, 20, 20)
    assert torch.equal(Camera(0)(clean, seeded()).values, clean)


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (2, 1, 3, 40), (2, 3, 5, 2)], ids=str)
def test_small_pictures_have_noise_as_well(shape):
    clean = torch.full(shape, 0.4)
    noisy = Camera(3200, reduction=2)(clean, seeded()).values
    assert noisy.isfinite().all()
    assert not torch.equal(noisy, clean)


def test_it_is_written_as_one_spec():
    usual = "sharpening=0..1,smoothing=0..2,softening=0..0.7,sparing=0..1,reduction=1"
    text = f"camera:iso=100..6400,{usual} + jpeg:quality=70..98"
    assert str(parse("camera:iso=100..6400 + jpeg:quality=70..98")) == text
    noisy, mask, sigma = parse(text)(images(3, 3, 24, 24), seeded())
    assert noisy.shape == (3, 3, 24, 24)
    assert mask is None
    assert sigma is None


def test_what_is_no_photograph_is_refused():
    with pytest.raises(UsageError, match="camera needs 1 or 3 channels; got 2"):
        Camera(100)(images(1, 2, 8, 8), seeded())
    with pytest.raises(UsageError, match="finite"):
        Camera(100)(torch.full((1, 3, 8, 8), torch.nan), seeded())
    with pytest.raises(UsageError, match="reduction"):
        Camera(100, reduction=1000)


# --- What is coarse stays ---------------------------------------------------------------------------------------------


def test_what_is_coarse_is_what_a_wide_blur_leaves():
    """Break: half the blur among the squares."""
    for height, width in ((208, 160), (203, 157)):
        values = images(2, 3, height, width, seed=1)
        blurred = gaussian_filter(values.numpy(), (0, 0, 16, 16), mode="reflect")
        assert (coarse(values).numpy() - blurred)[..., :-24, :-24].std() < 0.2 * blurred.std()
        assert (coarse(values).numpy() - blurred).std() < 0.5 * blurred.std()
    for shape in ((1, 1, 3, 5), (2, 3, 33, 8), (1, 1, 1, 1)):
        torch.testing.assert_close(coarse(torch.full(shape, 0.3)), torch.full(shape, 0.3))


@pytest.mark.parametrize(
    ("spec", "answer"),
    [
        ("camera:iso=100", True),
        ("camera:iso=100 + jpeg:quality=60..90 + jpeg:quality=80 | camera:iso=0..800", True),
        ("camera:iso=100 | jpeg:quality=80", False),
        ("camera:iso=100 + jpeg:quality=5..90", False),
        ("camera:iso=100 + gaussian:sigma=0.1", False),
        ("gaussian:sigma=0.1", False),
    ],
)
def test_means_are_kept_where_a_camera_alone_made_the_noise(spec, answer):
    """Breaks: any part for all of them; files of any quality."""
    assert leaves_means(parse(spec)) is answer


@pytest.mark.parametrize("sides", [(24, 40), (75, 130)], ids=str)
def test_a_network_that_moves_colours_does_not_move_them(sides, monkeypatch):
    """Whatever it adds that is coarse is gone, from guess and draws, in tiles and whole; what is fine is its own.

    Breaks: taken from every tile by itself; of the draws not taken; the mean of the first image for all of a batch; not
    taken where a place is looked at alone.
    """
    network = UNetSettings(channels=3, widths=(4, 8), blocks=1, given=True)
    denoiser = Denoiser(Card(network, "camera:iso=0..800 + jpeg:quality=80..98"))
    down, across = torch.arange(160.0)[:, None], torch.arange(160.0)[None, :]
    fine = 0.1 * (-1) ** (down + across)

    def moved(x: torch.Tensor, sigma: object, given: object) -> torch.Tensor:  # noqa: ARG001
        height, width = x.shape[2:]
        return 0.5 * given.values + 0.2 + fine[:height, :width]

    monkeypatch.setattr(denoiser, "forward", moved)
    seen = images(2, 3, *sides, seed=2)
    answer = denoiser.given(seen)(torch.zeros_like(seen), denoiser.given(seen).blind)
    wanted = 0.5 * seen + 0.5 * coarse(seen) + fine[: sides[0], : sides[1]]
    torch.testing.assert_close(answer, wanted, atol=0.01, rtol=0)
    image = seen[0].permute(1, 2, 0).numpy()
    whole = restore(image, denoiser, channel_axis=-1)
    tiled = restore(image, denoiser, channel_axis=-1, compute=Compute(tile=16, halo=16))
    np.testing.assert_allclose(whole, answer[0].permute(1, 2, 0).numpy(), atol=1e-5)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    posterior = observe(image, denoiser, channel_axis=-1).posterior
    drawn = sample(posterior, 2, steps=3)
    assert abs(float((drawn - seen[:1]).mean())) < 0.005
    near, _ = surroundings(posterior, (slice(4, 12), slice(4, 12)), margin=8)
    assert abs(float((near.mean - seen[:1, :, :20, :20]).mean())) < 0.01


def test_photographs_keep_their_colours():
    """Of a clean one squares of 64 pixels keep their mean to half a grey level, of noisy ones to one.

    Of one look, in float32, so that no machine decides: 0.992 of the one level are used, in bfloat16 1.002, of four
    looks 1.043. Break: nothing kept (three and a half levels in the noisy one).
    """
    clean = (data.astronaut()[:256, 128:384] / 255).astype(np.float32)
    exact = Compute(precision="float32")
    for spec, least, most in (("jpeg:quality=95", 0, 0.5), ("camera:iso=3200 + jpeg:quality=90", 1, 1)):
        seen = perturb(clean, parse(spec), 0, "astronaut").values
        change = 255 * (restore(seen, load("photo"), channel_axis=-1, quality="fast", compute=exact) - seen)
        assert np.abs(change).mean() > least
        assert np.abs(change.reshape(4, 64, 4, 64, 3).mean((1, 3))).max() < most


def common(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the correlation of two noises of mean 0."""
    return float((one * other).mean() / (one.square().mean() * other.square().mean()).sqrt())
