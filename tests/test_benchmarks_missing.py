"""The benchmark of missing pixels and other perturbations: its figures are what they say, its classics work."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # benchmarks/ is not installed

from benchmarks import digits
from benchmarks.images import Picture, shipped
from benchmarks.missing import CASES, Answer, row_of
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.infer.restore import restore
from unperturb.model.checkpoint import load
from unperturb.model.spec import parse

CROP = np.s_[100:196, 100:196]


def coffee(colour: bool) -> Picture:
    values = shipped("coffee").values[CROP]
    return Picture("coffee", "", values if colour else np.ascontiguousarray(values[..., 1]))


@pytest.mark.parametrize("colour", [False, True], ids=["gray", "colour"])
@pytest.mark.parametrize(("case", "name"), [(case, name) for case, (_, peers) in CASES.items() for name in peers])
def test_the_classical_answers_answer(case, name, colour):
    """Better than what is seen, and, of missing pixels, than their mean.

    Breaks: OpenCV's mask inverted; the blur of another width undone.
    """
    pytest.importorskip("cv2")
    spec, peers = CASES[case]
    picture = coffee(colour)
    seen = perturb(picture.values, parse(spec), 0, picture.name)
    answer = peers[name](seen)
    assert answer.shape == picture.values.shape
    if seen.missing is None:
        before, after = (np.square(values.clip(0, 1) - picture.values).mean() for values in (seen.values, answer))
    else:
        gap = picture.values[seen.missing] - picture.values[~seen.missing].mean(0)
        before, after = np.square(gap).mean(), np.square(answer - picture.values)[seen.missing].mean()
        assert np.abs(answer - picture.values)[~seen.missing].max() < 1 / 255
    assert after <= before if name == "the JPEG itself" else after < 0.9 * before


@pytest.mark.parametrize("case", ["blur", "downsample"])
def test_a_model_of_noise_is_better_than_the_classics_at_what_is_linear(case):
    """Break: errors on the walk to the best guess taken for those after noise (blur)."""
    pytest.importorskip("cv2")
    spec, classics = CASES[case]
    picture = coffee(colour=False)
    seen = perturb(picture.values, parse(spec), 0, picture.name)
    answer = restore(seen.values, load("natural"), perturbation=parse(spec))
    for peer in classics.values():
        assert psnr(picture.values, answer.clip(0, 1)) > psnr(picture.values, peer(seen).clip(0, 1)) + 2.0


def test_figures_are_what_they_say():
    """Of a signal of white noise whose posterior is known: its mean is 0, and its draws are noise like it.

    Breaks: draws compared with the mean, not with the truth; with the error of the best guess, not of the mean;
    observed pixels counted; gradients of pairs alone both of which are missing.
    """
    generator = np.random.default_rng(0)
    clean = generator.standard_normal((200, 200)).astype(np.float32) * 0.1
    seen = perturb(clean, parse("erase:fraction=0.5"), 0, "noise")
    assert seen.missing is not None
    filled = [
        np.where(seen.missing, 0.1 * generator.standard_normal(clean.shape), clean).astype(np.float32) for _ in range(4)
    ]
    best = np.where(seen.missing, 0, clean)
    polished = np.where(seen.missing, 0.5 * clean, clean)
    row = row_of("case", "method", [Picture("noise", "", clean)], [seen], [Answer(polished, 2.0, filled, best)])
    # Half of the values are below 0, and are cut off there.
    assert row.psnr == pytest.approx(20 - 10 * np.log10((1 + 1 / 4) / 2), abs=0.1)
    assert row.error_of_draw == pytest.approx(2, rel=0.03)
    assert row.difference_of_draws == pytest.approx(2, rel=0.03)
    assert row.sharpness_of_draw == pytest.approx(1, rel=0.03)
    # Of three pairs, two have one observed pixel, and one has none.
    assert row.sharpness == pytest.approx(2 / 3 * (1 + 1 / 4) / 2 + 1 / 3 * 1 / 4, rel=0.05)
    assert (row.coverage, row.promise) == (pytest.approx(0.6, abs=0.02), 0.6)
    assert row.seconds == pytest.approx(2 / 0.04)
    assert row.kept
    moved = Answer(best + 1e-6, 2.0, filled, best)
    assert not row_of("case", "method", [Picture("noise", "", clean)], [seen], [moved]).kept


def test_what_is_not_missing_is_judged_whole():
    """Break: figures of pixels that are missing alone, of which there are none."""
    torch.manual_seed(0)
    clean = coffee(colour=False).values
    seen = perturb(clean, parse("jpeg:quality=10"), 0, "coffee")
    row = row_of(
        "case",
        "method",
        [Picture("coffee", "", clean)],
        [seen],
        [Answer(clean + 0.01, 1.0, [clean, clean], clean + 0.02)],
    )
    assert row.psnr == pytest.approx(40, abs=0.1)
    assert (row.kept, row.sharpness, row.sharpness_of_draw) == (None, pytest.approx(1), pytest.approx(1))
    assert (row.error_of_draw, row.difference_of_draws, row.coverage) == (pytest.approx(0), pytest.approx(0), 1)


def test_what_is_left_of_a_digit_is_what_the_exact_answer_says():
    """The truth is away from the exact mean by the variance that it states, on average, and not nearer to 0 or further.

    Breaks: the variance within the components alone; a mean halfway to that of all digits.
    """
    pytest.importorskip("sklearn")
    world, generator = digits.world(), torch.Generator().manual_seed(0)
    clean = world.sample(1500, generator)
    mask = torch.rand(1500, 64, generator=generator) < 0.1
    answers = [digits.exact(world, image, seen) for image, seen in zip(clean, mask, strict=True)]
    means, errors = (torch.stack(part) for part in zip(*answers, strict=True))
    gaps = clean - means
    assert gaps[mask].abs().max() < 1e-6
    assert gaps.square().sum(1).mean() == pytest.approx(errors.mean().item(), rel=0.03)
    assert (gaps * means).sum(1).mean().abs() < 0.03 * errors.mean()
