"""What noise is in recordings, told from them alone, beside what was put there."""

import json
import math

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage import data

from unperturb.app.diagnosing import advice_on, diagnose_files, specified
from unperturb.app.diagnosis_report import diagnosis_page
from unperturb.data.blocks import Blocks
from unperturb.data.coloured import common, matching
from unperturb.data.diagnosis import _reached, measure_noise
from unperturb.data.faults import find_faults
from unperturb.data.in_common import measure_in_common
from unperturb.data.noise import ATOMS, FREQUENCY, PATCH
from unperturb.errors import FileError, UsageError
from unperturb.model.coloured import Coloured
from unperturb.model.spec import parse


def scene(seed: int = 0, height: int = 200, width: int = 260) -> np.ndarray:
    """Return a picture with shades of all kinds, edges, and some texture: brightness from 0.05 to 0.95."""
    generator = np.random.default_rng([1, seed])
    shades = gaussian_filter(generator.standard_normal((height, width)), 25)
    shades = (shades - shades.min()) / (shades.max() - shades.min())
    steps = np.kron(generator.random((5, 5)), np.ones((height // 5, width // 5)))[:height, :width]
    texture = gaussian_filter(generator.standard_normal((height, width)), 1.5)
    rough = (gaussian_filter(generator.standard_normal((height, width)), 30) > 0) * 0.15 * texture
    return np.clip(0.05 + 0.9 * (0.6 * shades + 0.4 * steps) + rough, 0, 1)


SCENES = [scene(seed) for seed in range(6)]
LARGE = [scene(20 + seed, 400, 520) for seed in range(4)]


def noise(shape, seed: int, kind: str = "white") -> np.ndarray:
    """Noise of variance 1."""
    white = np.random.default_rng([2, seed]).standard_normal(shape)
    if kind == "white":
        return white
    if kind == "box":
        return 3 * uniform_filter(white, 3, mode="wrap")
    if kind == "pair":
        return (white + np.roll(white, 1, 1)) / math.sqrt(2)
    width = float(kind)
    point = np.zeros((41, 41))
    point[20, 20] = 1
    return gaussian_filter(white, width, mode="wrap") / np.sqrt(np.square(gaussian_filter(point, width)).sum())


def noisy(gain: float, read: float, kind: str = "white", scenes=SCENES) -> list[np.ndarray]:
    return [
        clean + np.sqrt(gain * clean + read**2) * noise(clean.shape, number, kind)
        for number, clean in enumerate(scenes)
    ]


# --- Strength and brightness ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gain", "read"), [(0.0, 0.05), (0.002, 0.02), (0.0005, 0.015), (0.01, 0.03)], ids=str)
def test_gain_and_read_noise_are_told(gain, read):
    """Within a tenth. Breaks: the line through standard deviations; groups of brightness that are too wide."""
    found = measure_noise(noisy(gain, read, scenes=LARGE))
    assert found.gain.value == pytest.approx(gain, rel=0.1, abs=4e-4 if gain == 0 else 0)
    assert found.read.value == pytest.approx(read, rel=0.1)
    expected = np.sqrt(np.mean([(gain * clean + read**2).mean() for clean in LARGE]))
    assert found.sigma.value == pytest.approx(expected, rel=0.06)
    assert found.depends == (gain > 0)
    assert not found.correlated
    assert found.reach == 0
    assert found.whiteness.value == pytest.approx(1, abs=0.1)


def test_intervals_hold_what_was_put_there():
    """Break: the standard error of a mean in place of the jackknife's."""
    held = 0
    for seed in range(4):
        found = measure_noise(noisy(0.002, 0.02, scenes=[scene(10 + seed)]))
        held += (found.gain.low < 0.002 < found.gain.high) + (found.read.low < 0.02 < found.read.high)
        assert found.gain.high - found.gain.low < 0.002
    assert held >= 6


@pytest.mark.parametrize("offset", [1000.0, -20.0])
def test_an_offset_is_not_told_and_does_no_harm(offset):
    """The line is the same, from another zero. Break: groups of brightness that begin at 0."""
    found = measure_noise([10 * plane + offset for plane in noisy(0.002, 0.02, scenes=LARGE)])
    assert found.gain.value == pytest.approx(0.02, rel=0.15)
    assert len(found.brightness) > 5
    assert found.gain.high - found.gain.low < 0.01


def test_of_one_brightness_nothing_is_known_of_the_gain():
    found = measure_noise([1000 + 1e-4 * noise((200, 260), 3)])
    assert not found.grows
    assert found.gain.low < 0 < found.gain.high


def test_noise_below_rounding_is_not_heard(tmp_path):
    ramp = np.add.outer(np.linspace(30, 200, 120), np.linspace(0, 30, 160)).round().astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    found = diagnose_files([tmp_path / "ramp.png"])
    assert not found.noise.heard
    assert found.advice[0] == "There is no more noise than values are rounded to."


def test_the_order_of_files_changes_nothing():
    """Break: the overlap of the patches of the last file stands for all."""
    planes = [noisy(0, 0.05)[0], noisy(0, 0.05)[1][:60, :60]]
    one, other = measure_noise(planes), measure_noise(planes[::-1])
    assert other.sigma.value == pytest.approx(one.sigma.value, rel=1e-3)


def test_what_is_in_common_and_grows_is_told_as_both():
    found = measure_noise(noisy(0.01, 0.01, "0.7", scenes=LARGE))
    assert found.correlated
    assert found.grows
    told = " ".join(advice_on(found, find_faults(SCENES[:1], 0.05), paired=False))
    assert "no spec says both" in told
    assert "A model trained with this spec will not" not in told


@pytest.mark.parametrize("scale", [1e-25, 1e25])
def test_scale_changes_nothing(scale):
    one = measure_noise(noisy(0.002, 0.02)[:2])
    scaled = measure_noise([scale * plane for plane in noisy(0.002, 0.02)[:2]])
    assert scaled.sigma.value == pytest.approx(scale * one.sigma.value, rel=1e-3)
    assert scaled.gain.value == pytest.approx(scale * one.gain.value, rel=1e-2)


# --- Neighbours -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["0.5", "0.7", "1.0", "box", "pair"])
def test_noise_that_neighbours_have_in_common_is_found(kind):
    """Breaks: the lowest frequencies as they are found, texture and all; the highest alone."""
    found = measure_noise(noisy(0.002, 0.03, kind))
    assert found.correlated
    assert found.whiteness.high < 0.7
    assert 1 <= found.reach <= 4
    expected = np.sqrt(np.mean([(0.002 * clean + 0.03**2).mean() for clean in SCENES]))
    assert found.sigma.value == pytest.approx(expected, rel=0.15)


@pytest.mark.parametrize("kind", ["0.7", "1.0", "box", "pair"])
def test_strength_of_noise_in_common_is_told(kind):
    """Gain and read noise. Breaks: patches measured where they are chosen; the lowest frequencies as they are found."""
    found = measure_noise(noisy(0.01, 0.04, kind, LARGE))
    assert found.gain.value == pytest.approx(0.01, rel=0.1)
    assert found.read.value == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize("left", [0.0, 1e-18], ids=["nothing", "rounding"])
def test_even_patches_say_nothing_of_noise_in_common(left):
    """A group of patches that were filled in, beside others. Break: taken for noise that scatters little."""
    generator = np.random.default_rng(3)
    energy = generator.chisquare(1, (4000, PATCH**2)).astype(np.float32)
    energy[:800] = left
    groups = np.split(np.arange(4000), 5)
    patches = Blocks(energy, np.repeat(np.linspace(0.1, 0.9, 5), 800), np.zeros(4000, np.intp), 1.0)
    found = measure_in_common(patches, groups, np.arange(5) > 0, np.ones(PATCH**2), (0.0, 1.0))
    assert len(found.brightness) == 4
    assert found.gain * 0.5 + found.intercept == pytest.approx(1, rel=0.1)


def test_even_and_odd_sums_of_frequencies_are_uncorrelated():
    """Of noise that is alike everywhere, whatever its spectrum, and turned like no axis."""
    generator = np.random.default_rng(0)
    spectrum = gaussian_filter(generator.random((32, 32)), 1, mode="wrap")
    apart = np.fft.ifft2(spectrum + np.roll(spectrum[::-1, ::-1], (1, 1), (0, 1))).real
    rows, columns = np.divmod(np.arange(PATCH**2), PATCH)
    covariance = apart[(rows[:, None] - rows) % 32, (columns[:, None] - columns) % 32]
    even = FREQUENCY % 2 == 0
    between = (ATOMS @ covariance @ ATOMS.T)[np.ix_(even, ~even)]
    assert np.abs(between).max() < 1e-12 * np.abs(covariance).max() * PATCH**2


def test_white_noise_is_called_white_on_single_pictures():
    called = [
        measure_noise(noisy(0.001, read, scenes=[clean])).correlated for clean in SCENES[:3] for read in (0.01, 0.04)
    ]
    assert not any(called)


def test_a_floor_is_reached_by_groups_that_agree():
    """Breaks: one group is enough; compression is taken for noise where it is white."""
    flat = np.ones(64)
    falling = np.where(np.add.outer(np.arange(8), np.arange(8)).ravel() >= 12, 0.1, 1.0)
    assert _reached([(flat, 1.0)] * 2 + [(flat, 9.0)] * 8)[1] is None
    assert _reached([(flat, 1.0)] * 3 + [(flat, 9.0)] * 8)[1] == pytest.approx(1)
    assert _reached([(falling, 3.0)] * 5)[1] == pytest.approx(0.1)
    assert _reached([(flat, 3.0)] * 5)[1] is None


@pytest.mark.parametrize(("exponent", "length"), [(1, 4), (2, 6), (4, 3)])
def test_a_spec_of_coloured_noise_is_found_by_its_autocorrelation(exponent, length):
    """That of a draw of the perturbation itself. Break: another power law in the one of both."""
    assert matching(common(exponent, length, 8)) == (exponent, length)
    even = torch.zeros(1, 1, 1500, 1500)
    field = Coloured(1.0, exponent, length)(even, torch.Generator().manual_seed(0)).values[0, 0]
    found = [float((field[:, : 1500 - lag] * field[:, lag:]).mean()) for lag in range(8)]
    np.testing.assert_allclose(found, common(exponent, length, 8), atol=0.02)


def test_second_shots_tell_what_texture_hides():
    """Break: the difference of two shots not divided by the root of two."""
    texture = [np.random.default_rng([3, n]).random((160, 200)) for n in range(3)]
    first, second = (
        [clean + np.sqrt(0.002 * clean + 4e-4) * noise(clean.shape, seed + n) for n, clean in enumerate(texture)]
        for seed in (0, 100)
    )
    alone, both = measure_noise(first), measure_noise(first, second)
    assert alone.sigma.value > 0.1
    assert both.sigma.value == pytest.approx(math.sqrt(0.0014), rel=0.05)
    assert not both.correlated


def framed(folder, planes) -> object:
    folder.mkdir()
    for number, plane in enumerate(planes):
        tifffile.imwrite(folder / f"{number}.tif", plane.astype(np.float32))
    return folder


def even(level: float, gain: float, read: float, offset: float, seed: int) -> np.ndarray:
    clean = np.full((200, 260), level)
    return offset + clean + np.sqrt(gain * clean + read**2) * noise(clean.shape, seed)


@pytest.mark.parametrize("paired", [False, True])
def test_dark_frames_tell_offset_and_read_noise_and_flat_ones_the_gain(tmp_path, paired):
    """Where a scene is all of one brightness the two say everything.

    Breaks: dark frames left with their offset; flat frames not looked at; an even frame compared with itself, unturned.
    """
    gain, read, offset = 0.01, 0.02, 0.125
    one = framed(tmp_path / "in", [even(0.5, gain, read, offset, 1)])
    options = {"again": [framed(tmp_path / "again", [even(0.5, gain, read, offset, 2)])]} if paired else {}
    dark = framed(tmp_path / "dark", [even(0.0, gain, read, offset, number) for number in (3, 4)])
    flat = framed(tmp_path / "flat", [even(0.8, gain, read, offset, 5)])
    assert "gaussian" in diagnose_files([one], **options).spec
    for frames in ({"dark": [dark]}, {"dark": [dark], "flat": [flat]}):
        found = diagnose_files([one], **options, **frames)
        assert found.offset == pytest.approx(offset, rel=0.01)
        assert found.noise.gain.value == pytest.approx(gain, rel=0.1)
        assert found.noise.read.value == pytest.approx(read, rel=0.1)
        told = parse(found.spec)
        assert (told.gain, told.read, told.offset) == pytest.approx((gain, read, offset), rel=0.1)
    assert found.as_dict()["offset"] == found.offset
    only = diagnose_files([one], **options, flat=[framed(tmp_path / "dim", [even(0.1, gain, read, offset, 6)])])
    assert only.noise.gain.value == pytest.approx(gain, rel=0.1)
    assert only.offset is None


def test_hot_pixels_of_dark_frames_say_nothing_and_pictures_alone_how_strong_noise_is(tmp_path):
    """Breaks: the mean of all pixels; their noise with hot pixels in it; sigma over dark frames as well."""
    gain, read, offset = 0.01, 0.02, 0.125
    one = framed(tmp_path / "in", [even(0.5, gain, read, offset, 1)])
    hot = even(0.0, gain, read, offset, 2)
    glow = np.random.default_rng(0).random(hot.shape)
    hot = np.where(glow < 1e-2, 0.3 + 60 * glow, hot)
    found = diagnose_files([one], dark=[framed(tmp_path / "dark", [hot])])
    assert found.offset == pytest.approx(offset, rel=3e-3)
    assert found.noise.read.value == pytest.approx(read, rel=0.1)
    assert found.noise.sigma.value == pytest.approx(math.sqrt(0.5 * gain + read**2), rel=0.05)


def test_dark_frames_that_cannot_be_meant_are_refused(tmp_path, run):
    """Breaks: an offset above what is in the pictures; an offset out of what is cut off."""
    one = framed(tmp_path / "in", [even(0.5, 0.01, 0.02, 0, 1)])
    dark = framed(tmp_path / "dark", [np.maximum(even(0.0, 0.01, 0.02, 0, 2), 0)])
    code, _, error = run("diagnose", one, "--dark", dark)
    assert (code, "cut off at black" in error) == (2, True)
    code, _, error = run("diagnose", one, "--dark", framed(tmp_path / "light", [even(0.7, 0.01, 0.02, 0, 2)]))
    assert (code, "brighter than most of the images" in error) == (2, True)
    code, out, _ = run("diagnose", one, "--dark", framed(tmp_path / "good", [even(0.0, 0.01, 0.02, 0.1, 2)]))
    assert (code, "offset     0.1" in out) == (0, True)


# --- Faults -----------------------------------------------------------------------------------------------------------


def test_a_picture_without_faults_has_none():
    found = find_faults(noisy(0, 0.03), 0.03, (0.0, 1.0))
    assert not found.compressed
    assert found.rows == found.columns == found.missing == 0
    assert found.faulty < 1e-4
    assert not find_faults(SCENES[:1], 0.01, (-1.0, 2.0)).clipped


def test_faults_are_found():
    """Breaks: rows taken for columns; the share of one end for both; an edge taken for a faulty pixel."""
    clean, generator = SCENES[0], np.random.default_rng(5)
    plane = clean + 0.02 * noise(clean.shape, 1)
    rows = plane + 0.01 * generator.standard_normal((plane.shape[0], 1))
    assert find_faults([rows], 0.02).rows == pytest.approx(0.01, rel=0.25)
    assert find_faults([rows], 0.02).columns == 0
    assert find_faults([rows.T], 0.02).columns == pytest.approx(0.01, rel=0.25)
    hot = np.where(generator.random(plane.shape) < 0.002, 2.0, plane)
    assert find_faults([hot], 0.02).faulty == pytest.approx(0.002, rel=0.5)
    clipped = find_faults([np.clip(plane, 0.3, 1)], 0.02, (0.3, 1.0))
    assert clipped.dark == pytest.approx((plane <= 0.3).mean())
    assert clipped.bright == pytest.approx((plane >= 1).mean())
    rough = generator.random(plane.shape)
    assert find_faults([rough], 0.02).faulty < 1e-3
    gaps = np.where(generator.random(plane.shape) < 0.1, np.nan, plane)
    assert find_faults([gaps], 0.02).missing == pytest.approx(np.isnan(gaps).mean())


def test_traces_of_jpeg_are_found(tmp_path):
    pixels = (255 * np.clip(SCENES[0] + 0.03 * noise(SCENES[0].shape, 3), 0, 1)).round().astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=50)
    assert find_faults([np.asarray(Image.open(tmp_path / "a.jpg")) / 255], 0.02).compressed
    assert not find_faults([pixels / 255], 0.02).compressed


# --- Files ------------------------------------------------------------------------------------------------------------


def saved(folder, planes) -> None:
    folder.mkdir()
    for number, plane in enumerate(planes):
        Image.fromarray((255 * np.clip(plane, 0, 1)).round().astype(np.uint8)).save(folder / f"{number}.png")


def test_the_spec_is_one_that_others_take(tmp_path):
    saved(tmp_path / "in", noisy(0.002, 0.02))
    found = diagnose_files([tmp_path / "in"])
    process = parse(found.spec)
    assert found.spec.startswith("poisson-gaussian:")
    assert process.gain == pytest.approx(found.noise.gain.value, rel=1e-3)
    assert found.noise.gain.low < 0.002 < found.noise.gain.high
    assert (found.files, found.looked_at, found.white) == (6, 6, 255.0)
    assert any("brightness" in sentence for sentence in found.advice)
    assert json.loads(json.dumps(found.as_dict()))["sigma"]["low"] < found.noise.sigma.value
    assert parse(specified(measure_noise(noisy(0, 0.04, "0.7")), found.faults)).name == "coloured"


def test_floats_keep_their_units_and_gaps_are_left_out(tmp_path):
    plane = 1000 * noisy(0, 0.03)[0].astype(np.float32)
    plane[20:30, 50:90] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", plane.astype(np.float32))
    found = diagnose_files([tmp_path / "a.tif"])
    assert found.noise.sigma.value == pytest.approx(30, rel=0.1)
    assert "erase:fraction=" in found.spec
    assert not found.faults.clipped


def test_every_finding_has_its_sentence():
    faults = find_faults([np.where(np.random.default_rng(0).random((64, 64)) < 0.1, np.nan, SCENES[0][:64, :64])], 0.02)
    told = " ".join(advice_on(measure_noise(noisy(0, 0.04, "0.7")), faults, paired=False))
    assert "Neighbours have noise in common" in told
    assert "missing" in told
    told = " ".join(advice_on(measure_noise(noisy(0.02, 0.01)), faults, paired=False))
    assert "grows with brightness" in told
    assert "--noise is for files where nothing is missing" in told
    assert "--noise with" not in told
    assert "`natural` fits" in " ".join(
        advice_on(measure_noise(noisy(0, 0.04)), find_faults(SCENES, 0.04), paired=False)
    )


def test_the_page_holds_both_plots(tmp_path):
    saved(tmp_path / "in", noisy(0.002, 0.02)[:2])
    page = diagnosis_page(diagnose_files([tmp_path / "in"]), "in")
    assert page.count("<svg") == 2
    assert "variance by brightness" in page


def test_what_cannot_be_diagnosed_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match="there are no images in"):
        diagnose_files([tmp_path / "empty"])
    saved(tmp_path / "in", SCENES[:2])
    saved(tmp_path / "again", SCENES[:1])
    with pytest.raises(UsageError, match="2 first shots and 1 second"):
        diagnose_files([tmp_path / "in"], [tmp_path / "again"])
    with pytest.raises(UsageError, match="of other sizes"):
        measure_noise(SCENES[:1], [SCENES[1][:50]])
    with pytest.raises(UsageError, match="too few pixels"):
        measure_noise([SCENES[0][:12, :12]])
    with pytest.raises(UsageError, match="too few pixels"):
        measure_noise([SCENES[0][:34, :34] + 0.02 * noise((34, 34), 1)])
    for even in (np.zeros((90, 90)), np.full((90, 90), 0.3)):
        with pytest.raises(UsageError, match="perfectly even"):
            measure_noise([even])
    with pytest.raises(UsageError, match="perfectly even"):
        measure_noise(SCENES[:1], SCENES[:1])
    with pytest.raises(UsageError, match="planes"):
        measure_noise([np.zeros((40, 40, 3))])
    Image.fromarray(SCENES[0] > 0.5).save(tmp_path / "bits.png")
    with pytest.raises(FileError, match="black and white alone"):
        diagnose_files([tmp_path / "bits.png"])
    tifffile.imwrite(tmp_path / "in" / "deep.tif", (65535 * SCENES[0]).astype(np.uint16))
    with pytest.raises(FileError, match="several types or bit depths"):
        diagnose_files([tmp_path / "in"])


def test_the_command_tells_writes_and_refuses(run, tmp_path):
    """Breaks: a page that is there is replaced; words beside the JSON."""
    saved(tmp_path / "in", noisy(0.002, 0.02)[:2])
    page = tmp_path / "new" / "noise.html"
    code, out, _ = run("diagnose", tmp_path / "in", "-o", page)
    assert (code, out.startswith("poisson-gaussian:gain=")) == (0, True)
    before = page.read_text()
    assert before.startswith("<!DOCTYPE html>")
    code, _, err = run("diagnose", tmp_path / "in", "-o", page)
    assert (code, "already" in err, page.read_text() == before) == (1, True, True)
    code, out, _ = run("diagnose", tmp_path / "in", "--json")
    assert {"spec", "sigma", "gain", "read", "correlated", "clipped"} <= json.loads(out).keys()
    assert run("diagnose", tmp_path / "none")[0] == 2


def test_what_compression_left_without_any_high_frequency_is_told_without_a_warning():
    """Break: a variance of nothing that is divided by."""
    clean = torch.from_numpy(data.coffee()[:400].astype(np.float32) / 255).permute(2, 0, 1)[None]
    seen = parse("camera:iso=1600 + jpeg:quality=90")(clean, torch.Generator().manual_seed(0)).values[0].numpy()
    found = measure_noise(list((255 * seen).round() / 255), [], step=1 / 255)
    assert math.isfinite(found.sigma.value)
    assert math.isfinite(found.gain.value)


def test_without_intervals_all_else_is_the_same():
    """Break: the first fold left out in place of none."""
    scene = data.camera()[:256, :256] / 255
    noise = np.random.default_rng(0).standard_normal(scene.shape) * np.sqrt(0.002 * scene + 0.01**2)
    sure, plain = (measure_noise([scene + noise], intervals=intervals) for intervals in (True, False))
    for name in ("sigma", "gain", "read", "intercept", "unevenness", "whiteness"):
        one, other = getattr(sure, name), getattr(plain, name)
        assert other.value == one.value
        assert np.isfinite([one.low, one.high]).all()
        assert other.high == np.inf
    assert (plain.heard, plain.correlated) == (sure.heard, sure.correlated) == (True, False)
    np.testing.assert_array_equal(plain.variance, sure.variance)
