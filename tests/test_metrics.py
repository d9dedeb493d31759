"""The field's numbers are those of scikit-image, and noise for evaluation depends on nothing but seed and name."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from unperturb.errors import UsageError
from unperturb.infer.evaluate import evaluate_image, perturb
from unperturb.infer.metrics import coverage, psnr, ranks, sharpness, ssim
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model.checkpoint import load
from unperturb.model.spec import parse

SIGMA = 25 / 255
GAUSSIAN = parse(f"gaussian:sigma={SIGMA}")
EXACTLY = Compute(device="cpu", precision="float32")


def camera(side: int = 96) -> np.ndarray:
    return (data.camera()[100 : 100 + side, 200 : 200 + side] / 255).astype(np.float32)


def astronaut(side: int = 64) -> np.ndarray:
    return (data.astronaut()[:side, 200 : 200 + side] / 255).astype(np.float32)


def noisy(clean: np.ndarray, seed: int = 0) -> np.ndarray:
    return (clean + SIGMA * np.random.default_rng(seed).standard_normal(clean.shape)).astype(np.float32)


# --- Metrics ----------------------------------------------------------------------------------------------------------


def test_psnr_is_its_formula():
    clean, estimate = camera(), noisy(camera())
    mean_square = np.mean((clean.astype(float) - estimate.astype(float)) ** 2)
    assert psnr(clean, estimate) == pytest.approx(-10 * math.log10(mean_square), abs=1e-9)
    assert psnr(clean, estimate) == pytest.approx(peak_signal_noise_ratio(clean, estimate, data_range=1), abs=1e-5)


def test_psnr_of_noise_of_25_grey_levels_is_20_17_db():
    """Breaks: the noisy image clipped; the data range taken from the values."""
    clean = camera(400)
    assert psnr(clean, noisy(clean)) == pytest.approx(20.17, abs=0.02)


def test_psnr_does_not_depend_on_the_units():
    clean, estimate = camera(), noisy(camera())
    assert psnr(255 * clean, 255 * estimate, data_range=255) == pytest.approx(psnr(clean, estimate), abs=1e-6)


@pytest.mark.parametrize("metric", [psnr, ssim, sharpness])
def test_what_is_of_other_shapes_is_not_compared(metric):
    """Break: what numpy says, or another broadcast."""
    with pytest.raises(UsageError, match="of one shape"):
        metric(np.zeros((16, 16)), np.zeros((1, 16)))


def test_psnr_of_the_same_is_infinite():
    assert psnr(camera(), camera()) == math.inf


def test_integers_do_not_wrap():
    low, high = np.zeros((16, 16), np.uint8), np.full((16, 16), 255, np.uint8)
    assert psnr(low, high, data_range=255) == psnr(high, low, data_range=255) == pytest.approx(0)


@pytest.mark.parametrize(("clean", "axis"), [(camera(), None), (astronaut(), -1), (astronaut().transpose(2, 0, 1), 0)])
def test_ssim_is_that_of_the_paper(clean, axis):
    """Wang et al. 2004, as scikit-image documents it: Gaussian weights, sigma 1.5, no sample covariance."""
    expected = structural_similarity(
        clean.astype(float), noisy(clean).astype(float), data_range=1, channel_axis=axis,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    )  # fmt: skip
    assert ssim(clean, noisy(clean), channel_axis=axis) == pytest.approx(expected, abs=1e-6)
    assert ssim(clean, clean, channel_axis=axis) == pytest.approx(1)


def test_ssim_of_colour_is_the_mean_over_channels():
    clean, estimate = astronaut(), noisy(astronaut())
    alone = [ssim(clean[..., channel], estimate[..., channel]) for channel in range(3)]
    assert ssim(clean, estimate, channel_axis=-1) == pytest.approx(np.mean(alone))


@pytest.mark.parametrize(("shape", "axis"), [((10, 40), None), ((40, 10), None), ((10, 40, 12), -1), ((3, 40, 10), 0)])
def test_ssim_of_less_than_a_window_is_nan(shape, axis):
    assert math.isnan(ssim(np.zeros(shape), np.zeros(shape), channel_axis=axis))


def test_sharpness_is_the_ratio_of_gradient_energies():
    """Along both axes, on an image that is written out. Breaks: one axis alone; differences not squared."""
    clean = np.array([[0.0, 1.0, 1.0], [0.0, 3.0, 1.0]])
    energy = (1 + 0 + 9 + 4) / 4 + (0 + 4 + 0) / 3
    estimate = clean.copy()
    estimate[1, 1] = 1.0
    assert sharpness(clean, estimate) == pytest.approx(((1 + 0 + 1 + 0) / 4 + 0) / energy)
    assert sharpness(clean, clean) == 1
    assert sharpness(clean, 3 * clean - 7) == pytest.approx(9)


def test_sharpness_of_noise_is_twice_its_variance_an_axis():
    """Independent neighbours differ by 2σ² in the mean square; averaged over 2 × 2, by an eighth of that."""
    clean = np.random.default_rng(0).standard_normal((400, 400))
    blurred = (clean[:-1, :-1] + clean[1:, :-1] + clean[:-1, 1:] + clean[1:, 1:]) / 4
    # variance 1/4, correlation of neighbours 1/2: a squared difference of 1/4, of 2 before
    assert sharpness(clean[1:, 1:], blurred) == pytest.approx(1 / 8, rel=0.01)


def test_channels_are_no_neighbours():
    """Break: differences also taken along the axis of channels."""
    clean = camera(32)
    colour = np.stack([clean, clean + 5, clean - 5], -1)
    flat = np.stack([camera(32) * 0.5] * 3, -1)
    for axis in (-1, 2):
        assert sharpness(colour, flat, channel_axis=axis) == pytest.approx(0.25, rel=1e-5)
    assert sharpness(colour.transpose(2, 0, 1), flat.transpose(2, 0, 1), channel_axis=0) == pytest.approx(
        0.25, rel=1e-5
    )


def test_nothing_is_sharp_beside_a_constant():
    flat = np.zeros((4, 4))
    assert math.isnan(sharpness(flat, flat))
    assert sharpness(flat, np.eye(4)) == math.inf


def test_coverage_counts_what_lies_within_the_ends_included():
    """Breaks: ends left out; the mean over intervals instead of values."""
    clean = np.array([[0.0, 1.0], [2.0, 3.0]])
    assert coverage(clean, clean, clean) == 1
    assert coverage(clean, np.array(0.5), np.array(2.0)) == 0.5
    assert coverage(clean, np.zeros((2, 2)), np.array([[0, 0.9], [2.1, 9]])) == 0.75
    assert coverage(np.array([np.nan, 1.0]), np.array(-9.0), np.array(9.0)) == 0.5
    assert math.isnan(coverage(np.zeros(0), np.zeros(0), np.zeros(0)))


def test_ranks_of_what_cannot_be_told_apart_are_uniform():
    """Break: the rank taken among the clean values, not among the draws."""
    values = np.random.default_rng(0).standard_normal((10, 20_000))
    found = ranks(values[0], values[1:])
    counts = np.bincount(found, minlength=10)
    assert counts.shape == (10,)
    assert stats.chisquare(counts).pvalue > 0.01
    assert ranks(np.array([0.5, 2.0]), np.array([[0.0, 0.0], [1.0, 1.0]])).tolist() == [1, 2]


# --- Evaluation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clean", [camera(), astronaut()], ids=["gray", "colour"])
def test_noise_comes_from_seed_and_name_alone(clean):
    before = clean.copy()
    first, missing, sigma, wanted = perturb(clean, GAUSSIAN, 0, "a.png")
    assert wanted is clean
    perturb(clean, GAUSSIAN, 0, "b.png")
    again = perturb(clean, GAUSSIAN, 0, "a.png").values
    assert missing is None
    assert sigma == pytest.approx(SIGMA)
    assert np.array_equal(first, again)
    assert np.array_equal(clean, before)
    assert first.shape == clean.shape
    for seed, name in ((1, "a.png"), (0, "b.png")):
        assert not np.array_equal(first, perturb(clean, GAUSSIAN, seed, name).values)
    residual = first - clean
    assert residual.std() == pytest.approx(SIGMA, rel=0.03)
    if clean.ndim == 3:
        assert abs(np.corrcoef(residual[..., 0].ravel(), residual[..., 1].ravel())[0, 1]) < 0.06


def test_what_is_to_be_found_in_what_was_compressed_has_colour_at_half_resolution_where_that_is_asked_for():
    """Of alternatives that goes by the one that is drawn. Breaks: without asking; of any alternative."""
    spec = parse("gaussian:sigma=0 + jpeg:quality=100 | gaussian:sigma=0")
    clean = astronaut()
    seen = [perturb(clean, spec, 0, str(number), half_colour=True) for number in range(20)]
    compressed = [bool((each.values != clean).any()) for each in seen]
    assert 4 < sum(compressed) < 16
    for each, was in zip(seen, compressed, strict=True):
        assert (np.abs(each.wanted - clean).max() > 0.02) == was
        assert np.sqrt(np.mean((each.wanted - each.values) ** 2)) < 0.01
    assert all(perturb(clean, spec, 0, str(number)).wanted is clean for number in range(4))


def test_the_perturbed_image_is_not_clipped():
    values = perturb(np.zeros((16, 16), np.float32), GAUSSIAN, 0, "a").values
    assert values.min() < 0


def test_a_level_that_is_not_stated_is_not_known():
    seen = perturb(camera(), parse("poisson:gain=0.01"), 0, "a")
    assert seen.sigma is None
    assert seen.missing is None
    assert seen.values.shape == (96, 96)


@pytest.mark.parametrize("clean", [camera(), astronaut()], ids=["gray", "colour"])
def test_erased_pixels_are_0_and_said_to_be_missing(clean):
    """Break: the mask as it comes, True where observed."""
    seen = perturb(clean, parse("erase:fraction=0.2"), 0, "a")
    assert seen.missing is not None
    assert seen.missing.shape == clean.shape[:2]
    assert seen.missing.mean() == pytest.approx(0.2, abs=0.03)
    assert (seen.values[seen.missing] == 0).all()
    assert np.array_equal(seen.values[~seen.missing], clean[~seen.missing])


def test_of_erased_pixels_there_is_a_score_of_their_own():
    """Break: the score over all pixels."""
    clean, spec, model = camera(), parse("erase:fraction=0.2"), load("natural")
    seen = perturb(clean, spec, 0, "a")
    score = evaluate_image(clean, model, spec, name="a", compute=EXACTLY)
    answer = restore(seen.values, model, missing=seen.missing, compute=EXACTLY).clip(0, 1)
    assert score.psnr_missing == pytest.approx(-10 * np.log10(np.square(answer - clean)[seen.missing].mean()), abs=1e-3)
    assert score.psnr == pytest.approx(psnr(clean, answer), abs=1e-3)


def test_doing_nothing_scores_what_was_given():
    """But for clipping, which the answer gets as it would in a file."""
    score = evaluate_image(camera(), lambda x, _: x, GAUSSIAN, name="a", compute=EXACTLY)
    values = perturb(camera(), GAUSSIAN, 0, "a").values
    assert score.psnr_perturbed == pytest.approx(psnr(camera(), values))
    assert score.ssim_perturbed == pytest.approx(ssim(camera(), values))
    assert score.psnr == pytest.approx(psnr(camera(), values.clip(0, 1)))
    assert score.ssim == pytest.approx(ssim(camera(), values.clip(0, 1)))


@pytest.mark.parametrize("clean", [camera(), astronaut()], ids=["gray", "colour"])
def test_knowing_the_answer_scores_best(clean):
    planes = torch.from_numpy(np.atleast_3d(clean).transpose(2, 0, 1).copy())[None]
    score = evaluate_image(clean, lambda _, sigma: planes + 0 * sigma, GAUSSIAN, name="a", compute=EXACTLY)
    assert score.psnr == math.inf
    assert score.ssim == pytest.approx(1)
    assert score.psnr_perturbed == pytest.approx(20.17, abs=0.3)


def test_the_level_is_told_or_kept_from_the_denoiser():
    levels = []

    def watch(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        levels.append(float(sigma))
        return x

    for blind in (False, True):
        evaluate_image(camera(), watch, GAUSSIAN, name="a", blind=blind, compute=EXACTLY)
    assert levels[0] == pytest.approx(SIGMA)
    assert levels[1] != levels[0]
    assert levels[1] == pytest.approx(SIGMA, rel=0.2)
