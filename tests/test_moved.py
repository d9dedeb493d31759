"""Pictures that do not begin at black are answered as if they did."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter
from skimage import data

from unperturb.errors import UsageError
from unperturb.infer.calibrate import trials
from unperturb.infer.condition import first_guess
from unperturb.infer.interval import Drawing, find_calibration, intervals, level_of
from unperturb.infer.moved import moved
from unperturb.infer.observe import observe
from unperturb.infer.restore import restore
from unperturb.infer.sample import sample
from unperturb.infer.tiled import Compute
from unperturb.model.card import Card
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.linear import likelihood_of
from unperturb.model.network import UNetSettings
from unperturb.model.spec import parse

SIGMA = 0.1
EXACT = Compute("cpu", "float32")


@pytest.fixture(scope="module")
def natural():
    return load("natural")


def picture(colour=False):
    """Return a part of a photograph, in [0, 1]."""
    return (data.chelsea()[60:156, 100:196] / 255)[..., slice(None) if colour else 1].astype(np.float32)


def noisy(clean, sigma=SIGMA):
    return clean + sigma * np.random.default_rng(0).standard_normal(clean.shape).astype(np.float32)


def psnr(one, other):
    return -10 * np.log10(np.mean(np.square(one - other)))


@pytest.mark.parametrize("colour", [False, True], ids=["gray", "colour"])
@pytest.mark.parametrize("by", [-0.5, -1, -30, 20])
def test_a_moved_picture_is_restored_as_well(natural, colour, by):
    """Breaks: nothing is moved; it is moved the other way, or not back."""
    clean, axis = picture(colour), -1 if colour else None
    there = restore(noisy(clean), natural, SIGMA, channel_axis=axis)
    moved_there = restore(noisy(clean) + np.float32(by), natural, SIGMA, channel_axis=axis)
    assert psnr(moved_there - by, clean) > psnr(there, clean) - 0.25


@pytest.mark.parametrize(
    ("model", "perturbation"),
    [("missing", None), ("natural", None), ("natural", "blur:sigma=1.2 + gaussian:sigma=0.1")],
)
def test_wherever_a_picture_is_moved_to_the_answer_is_the_same(model, perturbation):
    """Breaks: what is missing is looked at; the approximate ways are left out."""
    clean = picture()
    hidden = np.random.default_rng(1).random(clean.shape) < 0.3 if perturbation is None else None
    answers = []
    for by in (-2, -5):
        values = noisy(clean, 0.02) + np.float32(by)
        if hidden is not None:
            values[hidden] = 7.0 * by
        answers.append(
            restore(
                values,
                load(model),
                missing=hidden,
                perturbation=perturbation and parse(perturbation),
                compute=EXACT,
            )
            - by
        )
    np.testing.assert_allclose(answers[0], answers[1], atol=2e-3)
    assert psnr(answers[0], clean) > 22


@pytest.mark.parametrize(("size", "by"), [(1 / 256, 0), (4000, -1000), (80, 2000)])
@pytest.mark.parametrize("what", ["blur", "holes"])
def test_what_is_approximate_asks_for_no_units_either(natural, what, size, by):
    """Breaks: a walk begins at the noise that was trained, in any units; or about 0, wherever the picture lies."""
    clean = picture()
    if what == "blur":
        seen = gaussian_filter(clean, 1.2, mode="mirror") + noisy(np.zeros_like(clean), 0.02)
        spec = "blur:sigma=1.2 + gaussian:sigma={}"
        there, elsewhere = (
            restore(seen * scale + at, natural, perturbation=parse(spec.format(0.02 * scale)))
            for scale, at in ((1, 0), (np.float32(size), np.float32(by)))
        )
    else:
        hidden = np.random.default_rng(1).random(clean.shape) < 0.5
        there, elsewhere = (
            restore(np.where(hidden, 0, clean * scale + at).astype(np.float32), natural, missing=hidden)
            for scale, at in ((1, 0), (np.float32(size), np.float32(by)))
        )
    assert psnr((elsewhere - by) / size, clean) > psnr(there, clean) - 0.6


def test_a_first_guess_lies_where_the_picture_lies(natural):
    """Breaks: least squares that shrink it towards 0; the place is not told."""
    seen = torch.from_numpy(picture())[None, None]
    spec = parse("blur:sigma=1.2 + gaussian:sigma=0.5")
    there, elsewhere = (first_guess(likelihood_of(spec, seen + by, None), 0.5, by) - by for by in (0.0, -20.0))
    torch.testing.assert_close(there, elsewhere, atol=1e-3, rtol=0)
    start = observe(picture() - 20, natural, perturbation=spec).posterior.start
    assert float(start.mean()) == pytest.approx(picture().mean() - 20, abs=1.5)


def test_what_a_card_says_goes_with_the_units(natural):
    """Breaks: levels are looked up as they are; errors are not squares."""
    sigma = torch.tensor([0.02, 0.1, 0.3])
    larger = natural.with_card(scale=50.0)
    for channels in (1, 3):
        known = natural.expected_error(sigma, channels)
        torch.testing.assert_close(larger.expected_error(50 * sigma, channels), 2500 * known)
    torch.testing.assert_close(larger.inflation(50 * sigma), natural.inflation(sigma))
    assert len(set(natural.inflation(sigma).tolist())) == 3


def test_of_models_of_floats_it_is_known_where_their_images_began_and_no_more(natural):
    """Breaks: sizes, or what lies far above, for those as well. A hole in the ground may stand for nothing."""
    for ends in ([0.0, 20.0], [-9999.0, 1.0], [0.0, 0.01]):
        known = natural.with_card(ends=ends)
        assert moved(known, picture()[None], 0.0) is known
        assert moved(known, picture()[None] + 30, 0.0) is known


def test_channels_that_are_apart_are_not_moved_together(natural):
    """Break: one place for all. Where they have the same, they are moved there."""
    one, other = noisy(picture(), 0.05), picture().T - 1000
    assert moved(natural, np.stack([one, other]), 0.05) is natural
    assert moved(natural, np.stack([one - 3, other]), 0.05) is natural
    assert moved(natural, np.stack([one - 3, one - 3]), 0.05) is not natural
    assert moved(natural, np.stack([one - 3, one - 3, other]), 0.05) is not natural  # colour


@pytest.mark.parametrize("size", [1 / 256, 4000])
def test_pictures_of_any_size_have_a_place_of_their_own(natural, size):
    """Breaks: none is looked for; that of the noise."""
    values = noisy(picture()) * np.float32(size)
    found = moved(natural, values[None], SIGMA * size).card
    assert found.offset == 0
    assert 0.3 < found.scale / size < 1.7


def test_intervals_go_with_the_units(natural):
    """Breaks: looked up in the units of the values; in those of the network, where theirs alone are calibrated."""
    known = find_calibration(natural.card, "gray")
    found = {}
    for size in (np.float32(1 / 64), np.float32(4000)):
        posterior = observe(noisy(picture()) * size, natural, SIGMA * float(size), compute=EXACT).posterior
        low, high, calibrated = intervals(posterior, known.drawing.draw(posterior), known)
        assert calibrated
        found[size] = (high - low) / size
    widths = list(found.values())
    assert float(widths[0].mean()) == pytest.approx(float(widths[1].mean()), rel=0.1)
    own = replace(known, scales={4000 * SIGMA: 2.0})
    assert float(own.scale(level_of(posterior, own))) == 2


@pytest.mark.parametrize("model", ["natural", "missing"])
def test_draws_are_moved_as_well(model):
    """Breaks: as above."""
    clean = picture()
    hidden = np.random.default_rng(1).random(clean.shape) < 0.3 if model == "missing" else None
    found = []
    for by in (-2, -40):
        values = noisy(clean, 0 if model == "missing" else SIGMA) + np.float32(by)
        seen = observe(values, load(model), None if model == "missing" else SIGMA, missing=hidden, compute=EXACT)
        found.append(sample(seen.posterior, 1, steps=6, seed=0)[0, 0, 0].numpy() - by)
    np.testing.assert_allclose(found[0], found[1], atol=5e-3)
    assert psnr(found[0], clean) > 22


def test_pictures_that_may_begin_at_black_stay_where_they_are(natural):
    """Breaks: the noise is not counted in; ends that a few pixels decide; a white page is moved for its paper."""
    page = np.full((300, 300), 0.98, np.float32)
    page[100, 100:110] = 0.1
    pictures = [data.camera() / 255, data.chelsea()[..., 1] / 255, data.moon() / 255, data.page() / 255, page]
    for clean in pictures:
        for sigma in (0, 0.02, 0.1, 0.3):
            for told in (0.8 * sigma, sigma, 1.2 * sigma):
                values = noisy(clean.astype(np.float32), sigma)
                assert moved(natural, values[None], told) is natural
                assert moved(natural, values.clip(0, 1)[None], told) is natural


def test_only_networks_that_learned_pictures_are_asked_elsewhere(natural):
    """Breaks: the card is not asked; a camera's model is moved, whose noise depends on where black is."""
    values = noisy(picture())[None] - 3
    assert moved(natural, values, SIGMA) is not natural
    untrained = Denoiser(Card(UNetSettings(widths=(8,), blocks=1)))
    camera = load("photo")
    known = natural.with_card(ends=[-3.0, -2.0])
    for denoise in (untrained, camera, known, torch.add):
        assert moved(denoise, values, SIGMA) is denoise
    lower = moved(natural.with_card(ends=[-1.0, 0.0]), values, SIGMA)
    assert lower.card.offset == pytest.approx(moved(natural, values, SIGMA).card.offset + 1)


def test_hidden_values_do_not_move_a_picture(natural):
    """Break: all values are looked at."""
    values, hidden = picture()[None].copy(), np.zeros((96, 96), bool)
    hidden[:30] = True
    values[:, :30] = -50
    assert moved(natural, values, 0.0, hidden) is natural
    assert moved(natural, values, 0.0, np.ones((96, 96), bool)) is natural


def test_the_command_moves_files_of_any_type(run, tmp_path):
    """Break: nothing is moved."""
    clean = picture()
    heights = noisy(clean) * 80 + 2000
    signed = np.rint(noisy(clean) * 3000 - 1000).astype(np.int16)
    tifffile.imwrite(tmp_path / "heights.tif", heights.astype(np.float32))
    tifffile.imwrite(tmp_path / "signed.tif", signed)
    for name, scale, offset in (("heights", 80, 2000), ("signed", 3000, -1000)):
        code, _, err = run("restore", tmp_path / f"{name}.tif", "--sigma", SIGMA * scale)
        assert (code, err) == (0, "")
        found = (tifffile.imread(tmp_path / f"{name}_restored.tif").astype(float) - offset) / scale
        assert psnr(found, clean) > psnr(restore(noisy(clean), load("natural"), SIGMA), clean) - 0.25


def test_noise_is_told_of_beside_what_values_differ_by(run, tmp_path):
    """Breaks: beside all that sixteen bits can hold; beside a hot pixel; nothing is said of that."""
    values = 200 + 1500 * noisy(picture(), 0.03)
    values[5, 5] = 65535
    tifffile.imwrite(tmp_path / "a.tif", np.rint(values).clip(0, 65535).astype(np.uint16))
    tifffile.imwrite(tmp_path / "clean.tif", np.rint(200 + 1500 * picture()).astype(np.uint16))
    told = run("restore", tmp_path / "a.tif", "--model", "natural")[2]
    assert "next to no white noise" not in told
    assert "disturbs what is around it (1 here)" in told
    assert "next to no white noise" in run("restore", tmp_path / "clean.tif", "--model", "natural")[2]


def test_a_model_remembers_where_its_pictures_began(run, tmp_path):
    """Breaks: the card does not say it; that of whole numbers says it in their own units."""
    rng = np.random.default_rng(0)
    for number in range(4):
        tifffile.imwrite(tmp_path / f"{number}.tif", rng.normal(size=(40, 40)).astype(np.float32))
        tifffile.imwrite(tmp_path / f"w{number}.tiff", rng.integers(40, 255, (40, 40), dtype=np.uint8))
    tiny = ["--network", "tiny", "--steps", "1", "--patch-size", "16", "--held-out", "2", "--channels", "1"]
    for kind, learned in (("*.tif", pytest.approx((-3.1, 3.1), abs=0.3)), ("*.tiff", (0, 1))):
        model = tmp_path / f"{kind[2:]}.safetensors"
        files = sorted(tmp_path.glob(kind))
        code, _, err = run("fit", *files, *tiny, "--cache", tmp_path / "cache", "-o", model)
        assert code == 0, err
        assert load(model).card.learned == learned


def test_a_model_is_tuned_to_a_moved_recording_alike(run, tmp_path):
    """Break: it learns from values where they are."""
    known = []
    for by in (-2, -5):
        folder = tmp_path / str(by)
        folder.mkdir()
        tifffile.imwrite(folder / "a.tif", noisy(data.chelsea()[40:240, 100:196, 1] / np.float32(255)) + np.float32(by))
        options = ["--noise", "gaussian:sigma=0.1", "--objective", "recorrupted", "--from", "natural", "--steps", "1"]
        code, _, err = run("fit", "--noisy", folder / "a.tif", *options, "-o", folder / "m.safetensors")
        assert code == 0, err
        known.append([json.loads(line)["estimated"] for line in (folder / "m.log.jsonl").read_text().splitlines()])
    np.testing.assert_allclose(known[0], known[1], rtol=1e-3)


def signal_model(**card) -> Denoiser:
    """Return a model of signals that has learned nothing, but says that it has."""
    torch.manual_seed(0)
    return Denoiser(Card(UNetSettings(dims=1, widths=(4, 8), blocks=1), training={"steps": 1}, **card))


def wave(samples=512):
    """Return a noisy signal with a median of 0 and a standard deviation of 1."""
    values = np.sin(np.arange(samples) / 9) + 0.1 * np.random.default_rng(0).standard_normal(samples)
    return ((values - np.median(values)) / values.std()).astype(np.float32)


@pytest.mark.parametrize("told", [0.1, None], ids=["told", "estimated"])
def test_a_signal_is_asked_about_its_median(told):
    """As a file is. Breaks: images alone; the noise by the estimator of images; without its scale."""
    model, values = signal_model(errors={"signal": {"0.1": 1e-3}}), wave()
    there = restore(values, model, told, compute=EXACT)
    far = restore(100 + 8 * values, model, None if told is None else 8 * told, compute=EXACT)
    np.testing.assert_allclose((far - 100) / 8, there, atol=2e-4)


def test_a_piece_of_a_signal_that_was_placed_is_asked_as_it_is():
    """As a file is, whose channel it is a part of. Breaks: about its own median; of calibration alone."""
    model, piece = signal_model(), wave() + 2
    untrained = model.with_card(training={})
    placed = observe(piece, model, 0.1, compute=EXACT, placed=True).posterior.mean
    torch.testing.assert_close(placed, observe(piece, untrained, 0.1, compute=EXACT).posterior.mean, rtol=0, atol=0)
    drawing = Drawing(2, 2)
    found, expected = (
        next(trials([("a", piece)], each, [0.1], drawing=drawing, compute=EXACT)) for each in (model, untrained)
    )
    assert (found.error, found.error_of_draws) == (expected.error, expected.error_of_draws)


def test_channels_of_signals_each_have_their_own_noise():
    """Where it is estimated. Break: one level for all."""
    model, one = signal_model(), wave()
    pair = np.stack([one, 30 * one[::-1]])
    found = restore(pair, model, channel_axis=0, compute=EXACT)
    for channel, answer in zip(pair, found, strict=True):
        alone = restore(channel, model.with_card(training={}), compute=EXACT)
        np.testing.assert_allclose(answer, alone, rtol=1e-4, atol=1e-4)


def test_signals_without_a_place_in_common_are_refused():
    """Where they are elsewhere than what was learned. Breaks: left where they are; refused where they are near."""
    model = signal_model()
    pair = np.stack([wave(), 3 * wave()[::-1] + 0.5])
    each = [restore(channel, signal_model().with_card(training={}), 0.1, compute=EXACT) for channel in pair]
    np.testing.assert_allclose(restore(pair, model, 0.1, channel_axis=0, compute=EXACT), each, atol=1e-5)
    with pytest.raises(UsageError, match="one at a time"):
        restore(pair + 100, model, 0.1, channel_axis=0, compute=EXACT)
    twice = np.stack([wave(), wave()]) + 100  # as a recording in mono is in stereo
    alone = restore(twice[0], model, 0.1, compute=EXACT)
    np.testing.assert_allclose(restore(twice, model, 0.1, channel_axis=0, compute=EXACT), [alone, alone], atol=1e-5)
