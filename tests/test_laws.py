"""The laws: what must be true of a correct implementation, whatever it looks like inside.

Tolerances are Monte-Carlo standard errors of the sample that was drawn. Each test names the break that was made on
purpose to see it fail.
"""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor

from unperturb.data.decoded import Preparation, open_patches
from unperturb.infer.restore import restore
from unperturb.infer.tiled import HALO, Compute
from unperturb.model.card import Card
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import PRESETS, NetworkSettings, UNetSettings, VectorNetSettings
from unperturb.model.spec import PERTURBATIONS, parse
from unperturb.train.fit import fit
from unperturb.train.run import Habits, RunFiles, train_model
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState


def assert_within_4_se(per_item: Tensor, stated: float) -> None:
    """Compare the mean over independent items with what is stated."""
    per_item = per_item.double()
    error = float(per_item.mean()) - stated
    standard_error = float(per_item.std()) / math.sqrt(len(per_item))
    rounding = 1e-6
    assert abs(error) <= 4 * standard_error + rounding, (
        f"{error:+.2e} is {abs(error) / (standard_error or 1e-12):.1f} SE"
    )


# --- Law 1: perturbations keep their word -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Word:
    """What a perturbation states about its components: their moments, and the covariance of neighbours.

    Neighbours are next to each other along the last axis. Within `margin` of a border nothing is stated.
    """

    spec: str
    clean: Callable[[torch.Generator], Tensor]
    mean: float
    variance: float
    neighbours: float = 0.0
    erased: float = 0.0
    margin: int = 0

    def __str__(self) -> str:
        return self.spec


ITEMS = 1000


def flat(value: float, *shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda _: torch.full((ITEMS, *(shape or (1, 8, 8))), value)


def white(*shape: int) -> Callable[[torch.Generator], Tensor]:
    return lambda generator: torch.randn((ITEMS, *shape), generator=generator)


def whole_block(spec: str, x: float, length: int, sizes: range, counts: range) -> Word:
    """Boxes in a square image: of a box's ``length + size - 1`` places on an axis, `size` hold a given pixel.

    And ``size + 1`` of them hold one of two neighbours.
    """
    cases = list(product(sizes, counts))
    one = fmean((1 - (s / (length + s - 1)) ** 2) ** n for s, n in cases)
    both = fmean((1 - (s + 1) * s / (length + s - 1) ** 2) ** n for s, n in cases)
    return Word(
        spec,
        flat(x, 2, length, length),
        mean=one * x,
        variance=x**2 * one * (1 - one),
        neighbours=x**2 * (both - one**2),
        erased=1 - one,
    )


def whole_line(spec: str, x: float, length: int, widths: range, counts: range) -> Word:
    """Lines in a square image; one across the last axis holds one of two neighbours on it ``width + 1`` ways."""
    cases = list(product(widths, counts))
    one = fmean((1 - w / (length + w - 1)) ** n for w, n in cases)
    both = fmean((1 - (w + 0.5) / (length + w - 1)) ** n for w, n in cases)
    return Word(
        spec,
        flat(x, 2, length, length),
        mean=one * x,
        variance=x**2 * one * (1 - one),
        neighbours=x**2 * (both - one**2),
        erased=1 - one,
    )


def whole_scratch(x: float, side: int, length: float, width: float, count: int) -> Word:
    """Strokes in a square image; a stroke and itself one pixel further overlap by an integral over all directions."""
    reach = (side + length + width) ** 2
    area = length * width + math.pi * width**2 / 4
    across = np.linspace(-width, width, 2001)

    def half(at: np.ndarray) -> np.ndarray:
        inside = np.abs(at) < width / 2
        return np.where(inside, length / 2 + np.sqrt(np.clip(width**2 / 4 - at**2, 0, None)), 0.0)

    overlaps = []
    for angle in np.linspace(0, math.pi, 181)[:-1]:
        here, there = half(across), half(across - math.sin(angle))
        shift = math.cos(angle)
        shared = np.minimum(here, there + shift) - np.maximum(-here, -there + shift)
        overlaps.append(np.where((here > 0) & (there > 0), shared.clip(0), 0).sum() * (across[1] - across[0]))
    one = (1 - area / reach) ** count
    both = (1 - (2 * area - fmean(overlaps)) / reach) ** count
    return Word(
        f"scratch:length={length:g},width={width:g},count={count}",
        flat(x, 1, side, side),
        mean=one * x,
        variance=x**2 * one * (1 - one),
        neighbours=x**2 * (both - one**2),
        erased=1 - one,
    )


def blurred_noise(sigma: float, *shape: int) -> Word:
    """White noise through a Gaussian: the autocorrelation is a Gaussian, sqrt(2) times as wide, far from any border."""
    variance = (1 / (2 * sigma * math.sqrt(math.pi))) ** (len(shape) - 1)
    return Word(
        f"blur:sigma={sigma}",
        white(*shape),
        mean=0.0,
        variance=variance,
        neighbours=variance * math.exp(-1 / (4 * sigma**2)),
        margin=math.ceil(4 * sigma) + 1,
    )


def flat_jpeg(spec: str, grey: int, qualities: range) -> Word:
    """Flat blocks: nothing but the DC coefficient, 8 (grey - 128), rounded to its quantiser (ITU-T T.81, table K.1)."""
    levels = []
    for quality in qualities:
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        step = min(max((16 * scale + 50) // 100, 1), 255)
        quantised = math.copysign(math.floor(abs(8 * (grey - 128)) / step + 0.5), grey - 128)
        levels.append(math.floor(128 + quantised * step / 8 + 0.5) / 255)
    mean = fmean(levels)
    variance = fmean((level - mean) ** 2 for level in levels)
    return Word(spec, flat(grey / 255, 1, 8, 8), mean=mean, variance=variance, neighbours=variance)


def ornstein_uhlenbeck(spec, sigma, length, side):
    """Noise whose power falls with the square of the frequency: its neighbours by summing that power."""
    grid = side + 2 * length
    frequencies = [min(k, grid - k) / grid for k in range(grid)]
    power = [1 / (f * f + 1 / length**2) for f in frequencies]
    waves = zip(power, frequencies, strict=True)
    common = math.fsum(p * math.cos(2 * math.pi * f) for p, f in waves) / math.fsum(power)
    # That of the process itself, but for waves that are too short for pixels.
    assert abs(common - math.exp(-2 * math.pi / length)) < 0.03
    return Word(spec, flat(0.5, 1, side), mean=0.5, variance=sigma**2, neighbours=sigma**2 * common)


WORDS = [
    *(Word("gaussian:sigma=0.3", flat(x), mean=x, variance=0.09) for x in (-1.0, 0.5)),
    Word("gaussian:sigma=0.3", flat(0.5, 40), mean=0.5, variance=0.09),
    Word("gaussian:sigma=0.2..0.8", flat(0.5), mean=0.5, variance=(0.8**3 - 0.2**3) / (3 * 0.6)),
    *(Word("poisson:gain=0.1", flat(x), mean=x, variance=0.1 * x) for x in (0.05, 0.5, 5.0)),
    Word("poisson:gain=0.1", flat(-0.2), mean=0.0, variance=0.0),
    Word("poisson:gain=0.1..0.3", flat(0.5, 40), mean=0.5, variance=0.2 * 0.5),
    *(Word("poisson-gaussian:gain=0.1,read=0.2", flat(x), mean=x, variance=0.1 * x + 0.04) for x in (0.0, 0.5, 5.0)),
    *(
        Word(
            "poisson-gaussian:gain=0.1,read=0.2,offset=1", flat(x), mean=max(x, 1), variance=0.1 * max(x - 1, 0) + 0.04
        )
        for x in (0.5, 1.0, 6.0)
    ),
    *(Word("speckle:sigma=0.3", flat(x), mean=x, variance=(0.3 * x) ** 2) for x in (-1.0, 0.0, 0.5)),
    ornstein_uhlenbeck("coloured:sigma=0.3,exponent=2,length=50", 0.3, 50, 40),
    Word("coloured:sigma=0.3,exponent=0,length=4", flat(0.5, 1, 8, 8), mean=0.5, variance=0.09),
    *(
        Word("impulse:fraction=0.2", flat(x), mean=0.8 * x + 0.1, variance=0.16 * x * (x - 1) + 0.09)
        for x in (0.1, 0.5)
    ),
    *(
        Word("erase:fraction=0.3", flat(x, *shape), mean=0.7 * x, variance=0.21 * x**2, erased=0.3)
        for x, shape in ((0.5, (40,)), (-1.0, (3, 8, 8)), (0.5, (2, 20)), (0.5, (1, 4, 4, 4)))
    ),
    whole_block("block:size=3,count=2", 0.5, 8, range(3, 4), range(2, 3)),
    whole_block("block:size=2..9,count=1..3", -1.0, 8, range(2, 10), range(1, 4)),
    whole_line("line:width=2,count=2", 0.5, 8, range(2, 3), range(2, 3)),
    whole_line("line:width=1..3,count=1..4", -1.0, 8, range(1, 4), range(1, 5)),
    whole_scratch(0.5, 16, 8, 3, 2),
    whole_scratch(-1.0, 16, 0, 5, 3),
    blurred_noise(1.5, 1, 40),
    blurred_noise(1.0, 1, 16, 16),
    Word("downsample:factor=4", white(1, 16), mean=0.0, variance=1 / 4, neighbours=(12 / 15) / 4),
    Word("downsample:factor=2", white(1, 8, 8), mean=0.0, variance=1 / 4, neighbours=(4 / 7) / 4),
    Word(
        "camera:iso=0,sharpening=0..1,smoothing=0..2,softening=0..0.7,sparing=0..1,reduction=1",
        flat(0.5, 3, 8, 8),
        mean=0.5,
        variance=0.0,
    ),  # what it does at others: tests/test_camera.py
    *(flat_jpeg("jpeg:quality=25", grey, range(25, 26)) for grey in (40, 101, 150)),
    flat_jpeg("jpeg:quality=10..40", 93, range(10, 41)),
    Word("erase:fraction=0.2 | erase:fraction=0.6", flat(0.5), mean=0.3, variance=0.06, neighbours=0.01, erased=0.4),
]
"""One row a perturbation and case. A new perturbation is a new row."""


def test_every_perturbation_has_given_its_word():
    """Break: a process was added to `PERTURBATIONS` without a row here."""
    assert {word.spec.partition(":")[0] for word in WORDS} == set(PERTURBATIONS)


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_perturbations_keep_their_word(word):
    """Mean, variance, neighbours' covariance and erased fraction are those stated.

    Breaks: Gaussian noise 3 % too strong; the level drawn once a batch; shot noise without its gain; no read noise;
    speckle that adds; salt twice as likely as pepper; erasure row by row; the mask inverted; boxes kept inside
    the image; one box too few; a kernel of the wrong width; blocks one pixel too long; a JPEG quality off by five.
    """
    generator = torch.Generator().manual_seed(1)
    values, mask, _ = parse(word.spec)(word.clean(generator), generator)
    if word.margin:
        for axis in range(2, values.ndim):
            values = values.narrow(axis, word.margin, values.shape[axis] - 2 * word.margin)
    residual = (values.double() - word.mean).flatten(1, -2) if values.ndim > 2 else values.double()[:, None] - word.mean
    assert_within_4_se(residual.mean((1, 2)), 0.0)
    assert_within_4_se(residual.square().mean((1, 2)), word.variance)
    assert_within_4_se((residual[..., 1:] * residual[..., :-1]).mean((1, 2)), word.neighbours)
    erased = torch.zeros(ITEMS) if mask is None else (~mask).double().flatten(1).mean(1)
    assert_within_4_se(erased, word.erased)


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_perturbations_are_functions_of_clean_and_generator(word):
    """The same generator state gives the same output, another state another one, and the input comes back unmodified.

    Breaks: noise drawn without the generator; noise added in place.
    """
    perturbation = parse(word.spec)
    clean = word.clean(torch.Generator().manual_seed(1))[:32]
    before = clean.clone()
    first, again, other = (perturbation(clean, torch.Generator().manual_seed(seed)) for seed in (2, 2, 3))
    for one, two in zip(first, again, strict=True):
        assert (one is None and two is None) or torch.equal(one, two)
    assert torch.equal(clean, before)
    assert first.values.shape == clean.shape
    deterministic = word.variance == 0 or (perturbation.mixes and ".." not in word.spec)
    assert torch.equal(first.values, other.values) == deterministic


@pytest.mark.parametrize("word", WORDS, ids=str)
def test_specs_read_and_written_give_themselves(word):
    """Break: numbers written with four digits ("%.4g") instead of all."""
    awkward = parse(word.spec.replace("0.3", "0.30000000000000004"))
    more = parse("gaussian:sigma=1e-05")
    longer = awkward | more + more if "|" in word.spec else awkward + more + awkward | more
    for perturbation in (parse(word.spec), awkward, longer):
        assert parse(str(perturbation)) == perturbation
        assert str(parse(str(perturbation))) == str(perturbation)
    assert str(parse(word.spec)) == word.spec.replace("=1.0", "=1")


# --- Law 12: loss identities ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.05, 0.5])
def test_a_second_noisy_copy_teaches_what_the_clean_one_would(sigma):
    """For any fixed f, E‖f(y₁) − y₂‖² − E‖f(y₁) − x‖² = σ² a component: the same f is best for both.

    Breaks: the same noise in both copies; the noise of the second half as strong as that of the first.
    """
    generator = torch.Generator().manual_seed(3)
    noise = parse(f"gaussian:sigma={sigma}")
    clean = torch.rand(2000, 1, 8, 8, generator=generator)
    first, second = (noise(clean, generator).values for _ in range(2))
    with torch.no_grad():
        answer = Denoiser(Card(UNetSettings(widths=(4,), blocks=1)))(first, sigma) - 0.1
    gap = (answer - second).square() - (answer - clean).square()
    assert_within_4_se(gap.double().flatten(1).mean(1), sigma**2)


# --- Law 11: homogeneity ----------------------------------------------------------------------------------------------

SMALL = [
    UNetSettings(dims=dims, channels=channels, widths=(4, 8), blocks=1, shuffle=2 if dims < 3 else 1)
    for dims, channels in product((1, 2, 3), (1, 3))
]
UNETS = [*(size for size in PRESETS.values() if isinstance(size, UNetSettings)), *SMALL]
"""One row a network without biases. A new one is a new row; presets come by themselves."""


def name_of(size: NetworkSettings) -> str:
    if isinstance(size, VectorNetSettings):
        return f"vector-{size.width}"
    return f"{size.dims}d-{size.channels}c-{'x'.join(map(str, size.widths))}-{size.blocks}"


def untrained(size: UNetSettings) -> Denoiser:
    """Build a denoiser that takes about as much for noise as there is: it is not near the identity."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(Card(size)).requires_grad_(False)
    x = noise(1, size.channels, *(32, 32, 16)[: size.dims])
    removed = x - denoiser(x, 0.5)
    denoiser.network.tail.weight.mul_(0.7 * float(x.norm() / removed.norm()))
    return denoiser


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", UNETS, ids=name_of)
def test_scaling_values_and_level_scales_the_answer(size):
    """The level being a number, and a map.

    Breaks: a bias of 0.01 in the last convolution; SiLU instead of ReLU; the level not handed to the network but its
    logarithm.
    """
    denoiser = untrained(size)
    y = noise(2, size.channels, *(19, 16, 6)[: size.dims])
    for sigma in (torch.tensor(0.5), noise(2, 1, *y.shape[2:], seed=2).abs()):
        answer = denoiser(y, sigma)
        for alpha in (0.1, 0.5, 2, 10):
            scaled = denoiser(alpha * y, alpha * sigma)
            assert (scaled - alpha * answer).norm() <= 1e-5 * (alpha * answer).norm()


# --- Law 16: tiles ----------------------------------------------------------------------------------------------------

SPACES = {1: (203,), 2: (67, 50), 3: (21, 17, 26)}
TILES = [(dims, size) for dims, sizes in {1: (1, 7, 64, 500), 2: (1, 16, 30, 66), 3: (7, 16)}.items() for size in sizes]


def in_tiles(size: int | None, halo: int | None) -> Compute:
    return Compute(device="cpu", precision="float32", tile=size, halo=halo)


@pytest.mark.parametrize("level", ["number", "map"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dims", "size"), TILES)
def test_tiled_is_whole_once_the_halo_covers_the_receptive_field(dims, size, channels, level):
    """At sizes of image and tile that are no multiples of anything.

    Breaks: a halo half as wide; tiles that begin off the network's grid; `crop` one pixel off; the map cut by `inner`.
    """
    (settings,) = (small for small in SMALL if (small.dims, small.channels) == (dims, channels))
    denoiser, shape = untrained(settings), SPACES[dims]
    y = noise(channels, *shape).numpy()
    sigma = 0.5 if level == "number" else noise(*shape, seed=2).abs().numpy()
    whole, tiled = (
        restore(y, denoiser, sigma, channel_axis=0, compute=in_tiles(tile, settings.radius)) for tile in (1000, size)
    )
    assert np.abs(tiled - whole).max() <= 1e-5 * max(1, np.abs(whole).max())


def test_the_default_halo_of_the_bundled_model_shows_no_seam():
    """In tiles of 256 pixels, many a seam, the largest error of any pixel is under a tenth of an 8-bit grey level.

    Break: a default halo of 32 pixels, half of what it is (0.6 grey levels).
    """
    clean = np.pad(data.camera() / 255, ((0, 88), (0, 188)), mode="reflect").astype(np.float32)
    y = clean + 25 / 255 * noise(*clean.shape).numpy()
    natural = load("natural")
    whole, tiled = (
        restore(y, natural, 25 / 255, compute=in_tiles(tile, halo)) for tile, halo in ((1000, None), (256, HALO))
    )
    assert np.abs(whole - y).max() > 1 / 255, "the model does something"
    assert np.abs(tiled - whole).max() <= 0.1 / 255


# --- Law 17: resuming -------------------------------------------------------------------------------------------------

TRAINED = [
    UNetSettings(channels=3, widths=(4, 8), blocks=1),
    UNetSettings(dims=1, widths=(4, 8), blocks=1),
    UNetSettings(dims=3, widths=(4,), blocks=1),
    UNetSettings(widths=(48,), blocks=1),  # wide enough for the fast convolution
    VectorNetSettings(3, 16, 2),
]
STEPS = 6


def settings_for(size: NetworkSettings) -> FitSettings:
    return FitSettings("gaussian:sigma=0..0.5", size, steps=STEPS, batch=5, share=2, rate=3e-3, warmup=2, patch_size=16)


def draw_for(size: NetworkSettings) -> Callable[[np.random.Generator, int], np.ndarray]:
    """Draw smooth random signals; a colour network gets gray ones as well."""

    def draw(generator: np.random.Generator, item: int) -> np.ndarray:
        if isinstance(size, VectorNetSettings):
            return generator.standard_normal(size.features).astype(np.float32).cumsum()
        channels = size.channels if item % 2 else 1
        return generator.standard_normal((channels, *(8,) * size.dims)).cumsum(-1, np.float32)

    return draw


def everything(state: FitState, path: Path) -> dict[str, bytes]:
    """Return all of a state as it is stored: weights, their average, the optimizer's moments; not the seconds."""
    state.save(path)
    tensors, header = stored(path)
    return tensors | {"step": bytes([json.loads(header["state"])["step"]])}


def stored(path: Path) -> tuple[dict[str, bytes], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(str(path), framework="np") as file:
        return {key: file.get_tensor(key).tobytes() for key in file.keys()}, dict(file.metadata())  # noqa: SIM118


def advance(state: FitState, size: NetworkSettings, threads: int, stop: int = STEPS) -> None:
    for progress in fit(state, draw_for(size), precision="float32", threads=threads):
        if progress.step == stop:
            break


@pytest.mark.parametrize("size", TRAINED, ids=name_of)
def test_stopped_at_any_step_and_resumed_is_not_stopped(size, tmp_path):
    """Bit for bit: weights, average, optimizer; on one thread, on two, and on one after two.

    Breaks: the optimizer's second moments not stored; its count of steps not restored; the average begun anew;
    randomness drawn from one stream for the whole run; gradients summed in the order in which threads end.
    """
    settings, path = settings_for(size), tmp_path / "state.safetensors"
    state = FitState.start(settings)
    advance(state, size, threads=1)
    expected = everything(state, path)
    for stop, before, after in [(stop, 1 + stop % 2, 2 - stop % 2) for stop in range(1, STEPS)] + [
        (3, 1, 1),
        (3, 2, 2),
    ]:
        state = FitState.start(settings)
        advance(state, size, before, stop)
        state.save(path)
        state = FitState.resume(path, settings)
        assert state.step == stop
        advance(state, size, after)
        assert everything(state, path) == expected


def test_stopped_at_every_step_and_resumed_is_not_stopped(tmp_path):
    """A run that never takes two steps in one go."""
    size, path = TRAINED[0], tmp_path / "state.safetensors"
    settings = settings_for(size)
    state = FitState.start(settings)
    advance(state, size, threads=2)
    expected = everything(state, tmp_path / "expected.safetensors")
    FitState.start(settings).save(path)
    for stop in range(1, STEPS + 1):
        state = FitState.resume(path, settings)
        advance(state, size, threads=1, stop=stop)
        state.save(path)
    assert everything(state, path) == expected


def pictures(folder: Path) -> Path:
    """Make six small images."""
    folder.mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("checkpoint", [0.0, 1000.0], ids=["every step", "none yet"])
@pytest.mark.parametrize("stop", [1, 4, STEPS])
def test_a_run_with_its_files_is_resumed_as_if_it_had_not_stopped(stop, checkpoint, tmp_path):
    """Model, state and log. Break: the log not cut back to the checkpoint."""
    settings = settings_for(TRAINED[0])
    patches = open_patches([pictures(tmp_path / "images")], tmp_path / "cache", Preparation(held_out=3))
    habits = Habits(checkpoint=checkpoint, validate=2, precision="float32", threads=2)
    once, twice = (RunFiles(tmp_path / name) for name in ("once.safetensors", "twice.safetensors"))
    for _ in train_model(settings, patches, once, habits):
        pass
    for report in train_model(settings, patches, twice, habits):
        if report.progress.step == stop:
            break
    assert not twice.model.exists()
    for _ in train_model(settings, patches, twice, replace(habits, threads=1), resume=True):
        pass
    assert stored(twice.model)[0] == stored(once.model)[0]
    assert stored(twice.state)[0] == stored(once.state)[0]
    assert logged(twice) == logged(once)


def logged(files: RunFiles) -> list[tuple[int, float, dict[str, float]]]:
    """Return what does not depend on the clock."""
    lines = [json.loads(line) for line in files.log.read_text().splitlines()]
    return [(line["step"], line["loss"], line["psnr"]) for line in lines]


@pytest.mark.parametrize("number", [1, 3, STEPS + 1], ids=["first checkpoint", "third checkpoint", "model"])
def test_stopped_half_way_through_a_file_and_resumed_is_not_stopped(number, tmp_path, monkeypatch):
    """Break: files written under their own name, not beside it first."""
    settings = settings_for(TRAINED[0])
    patches = open_patches([pictures(tmp_path / "images")], tmp_path / "cache", Preparation(held_out=3))
    habits = Habits(checkpoint=0, precision="float32", threads=1)
    once, twice = (RunFiles(tmp_path / name) for name in ("once.safetensors", "twice.safetensors"))
    for _ in train_model(settings, patches, once, habits):
        pass
    left = number

    def write_half(path: Path, content: bytes, write: Callable[[Path, bytes], int] = Path.write_bytes) -> int:
        nonlocal left
        left -= 1
        if left:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            for _ in train_model(settings, patches, twice, habits):
                pass
    assert not twice.model.exists()
    for _ in train_model(settings, patches, twice, habits, resume=True):
        pass
    assert stored(twice.model)[0] == stored(once.model)[0]


KILLS = int(os.environ.get("UNPERTURB_KILLS", "2"))
"""How often a run is killed; more make the test below stronger, and longer."""

KILLED_STEPS = 200


def command(images: Path, output: Path, *more: str) -> list[str]:
    options = {
        "--network": "tiny", "--steps": KILLED_STEPS, "--batch": 2, "--share": 1, "--patch-size": 16, "--held-out": 3,
        "--validate": 7, "--checkpoint": 0, "--threads": 1, "--precision": "float32", "--device": "cpu",
        "--cache": images.parent / "cache", "-o": output,
    }  # fmt: skip
    given = [str(part) for option in options.items() for part in option]
    return [sys.executable, "-m", "unperturb", "fit", str(images), *given, *more]


def test_killed_at_any_moment_and_resumed_is_not_killed(tmp_path):
    """By `kill -9`, a random moment after the first checkpoint: no half-written file, and the same model at the end.

    Break: the run taken up without the optimizer's moments.
    """
    images = pictures(tmp_path / "images")
    subprocess.run(command(images, tmp_path / "whole.safetensors"), check=True, capture_output=True)
    expected, _ = stored(tmp_path / "whole.safetensors")
    moments = np.random.default_rng(17).uniform(0, 0.4, KILLS)
    for number, moment in enumerate(moments):
        files = RunFiles(tmp_path / f"killed{number}.safetensors")
        process = subprocess.Popen(command(images, files.model), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not files.state.exists():
            assert process.poll() is None, "the run ended before its first checkpoint"
            time.sleep(0.01)
        time.sleep(moment)
        process.kill()
        assert process.wait() != 0
        assert not files.model.exists()
        assert 0 < json.loads(stored(files.state)[1]["state"])["step"] < KILLED_STEPS
        subprocess.run(command(images, files.model, "--resume"), check=True, capture_output=True)
        assert stored(files.model)[0] == expected
