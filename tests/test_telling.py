"""The verdict in words: it says what was found, and nothing that was not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from unperturb.app.findings import Findings, Region, RegionMean
from unperturb.app.telling import told_page, verdict
from unperturb.data.recording import Recording
from unperturb.infer.density import of_draws
from unperturb.infer.interval import Calibration
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.places import Place
from unperturb.infer.residual import Residual
from unperturb.infer.uncertainty import Components

WHOLE = (slice(0, 8), slice(0, 8))


def place(*peaks: float, window=WHOLE) -> Place:
    """Return a place whose posterior has peaks at these values."""
    values = torch.cat([peak + 0.1 * keyed_normal([(0,)], (300,))[0] for peak in peaks])
    direction = torch.full((1, 1, 8, 8), 1 / 8)
    made = Components(direction, torch.tensor([1.0]), torch.tensor([0.0]), 1.0, 0.0)
    return Place(window, made, (of_draws(values),))


@pytest.fixture
def found() -> Findings:
    recording = Recording(np.full((8, 8), 100, np.uint8), "YX", "png")
    best = np.full((8, 8), 0.4, np.float32)
    calibration = Calibration("pixel", "central", "gray", 0.9, None, {0.1: 1.6}, n_images=30, data="photographs")
    return Findings(
        recording, recording.as_float(), best, [best, best + 0.1], np.full((8, 8), 0.02, np.float32),
        np.full((8, 8), 0.04, np.float32), 25.0, True, calibration, True, Residual(1.01, (0.01, -0.02), 10**6),
        [place(0.0)], place(0.0).components, WHOLE, None, None, {"model": "natural"},
    )  # fmt: skip


def test_one_answer_with_honest_intervals(found):
    told = " ".join(verdict(found))
    assert "25 grey levels (estimated)" in told
    assert "90 % of the true values lie within ± 10 grey levels" in told
    assert "30 images: photographs" in told
    assert "one most likely answer" in told
    assert "looks like the noise that was assumed" in told
    assert "Beware" not in told


def test_two_answers_are_told_and_shown(found):
    """Break: `is_open` asks for more than two modes."""
    alone = replace(found, places=[place(-1.0, 1.0)])
    assert "The answer is open" in " ".join(verdict(alone))
    assert "2 peaks" in told_page(alone, "a.png")
    assert "answer B" in told_page(alone, "a.png")
    among = replace(found, places=[place(0.0), place(-1.0, 1.0)])
    assert "open in 1 of the 2 most uncertain places" in " ".join(verdict(among))


def test_doubts_are_told(found):
    """Without calibration, beyond it, with noise that is not white or not as strong."""
    assert "not calibrated" in " ".join(verdict(replace(found, half=None, calibration=None)))
    assert "caution" in " ".join(verdict(replace(found, in_range=False)))
    assert "not white" in " ".join(verdict(replace(found, residual=Residual(1.0, (0.2, 0.0), 10**6))))
    assert "1.50 times" in " ".join(verdict(replace(found, residual=Residual(1.5, (0.0, 0.0), 10**6))))
    assert "cannot be told" in " ".join(verdict(replace(found, residual=None)))


def test_a_region_has_a_mean_with_its_interval(found):
    region = replace(found, region=Region(1, 2, 3, 4), region_mean=RegionMean((0.4,), (0.02,)))
    assert "1,2,3,4 is 102 ± 5.1 grey levels at 90 %" in " ".join(verdict(region))
    unknown = replace(region, region_mean=RegionMean((0.4,), None))
    assert "not calibrated for it" in " ".join(verdict(unknown))


def test_words_are_escaped(found):
    assert "<b>" not in told_page(found, "<b>.png").split("<body>")[1].split("verdict")[0]
