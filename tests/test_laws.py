"""The laws: what must be true of a correct implementation, whatever it looks like inside.

Tolerances are Monte-Carlo standard errors of the sample that was drawn. Each test names the break that was made on
purpose to see it fail.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import fmean

import pytest
import torch
from torch import Tensor

from unperturb.model.spec import PERTURBATIONS, parse


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


WORDS = [
    *(Word("gaussian:sigma=0.3", flat(x), mean=x, variance=0.09) for x in (-1.0, 0.5)),
    Word("gaussian:sigma=0.3", flat(0.5, 40), mean=0.5, variance=0.09),
    Word("gaussian:sigma=0.2..0.8", flat(0.5), mean=0.5, variance=(0.8**3 - 0.2**3) / (3 * 0.6)),
    *(Word("poisson:gain=0.1", flat(x), mean=x, variance=0.1 * x) for x in (0.05, 0.5, 5.0)),
    Word("poisson:gain=0.1", flat(-0.2), mean=0.0, variance=0.0),
    Word("poisson:gain=0.1..0.3", flat(0.5, 40), mean=0.5, variance=0.2 * 0.5),
    *(Word("poisson-gaussian:gain=0.1,read=0.2", flat(x), mean=x, variance=0.1 * x + 0.04) for x in (0.0, 0.5, 5.0)),
    *(Word("speckle:sigma=0.3", flat(x), mean=x, variance=(0.3 * x) ** 2) for x in (-1.0, 0.0, 0.5)),
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
    blurred_noise(1.5, 1, 40),
    blurred_noise(1.0, 1, 16, 16),
    Word("downsample:factor=4", white(1, 16), mean=0.0, variance=1 / 4, neighbours=(12 / 15) / 4),
    Word("downsample:factor=2", white(1, 8, 8), mean=0.0, variance=1 / 4, neighbours=(4 / 7) / 4),
    *(flat_jpeg("jpeg:quality=25", grey, range(25, 26)) for grey in (40, 101, 150)),
    flat_jpeg("jpeg:quality=10..40", 93, range(10, 41)),
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
    for perturbation in (parse(word.spec), awkward, awkward + parse("gaussian:sigma=1e-05") + awkward):
        assert parse(str(perturbation)) == perturbation
        assert str(parse(str(perturbation))) == str(perturbation)
    assert str(parse(word.spec)) == word.spec.replace("=1.0", "=1")
