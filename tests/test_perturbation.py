"""Perturbations beyond law 1: operators against their references, composition, masks, levels, and the spec language."""

import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from unperturb.errors import SpecError, UsageError
from unperturb.model.camera import Camera
from unperturb.model.coloured import Coloured
from unperturb.model.erasure import Block, Erase, Line, Scratch
from unperturb.model.level import Limits, Range
from unperturb.model.optics import Blur, Downsample, Jpeg
from unperturb.model.perturbation import (
    Choice,
    Composition,
    Gaussian,
    Impulse,
    Poisson,
    PoissonGaussian,
    Speckle,
    limits_of,
)
from unperturb.model.spec import PERTURBATIONS, parse

ONE_OF_EACH = [
    Gaussian(Range(0, 0.5)),
    Poisson(0.01),
    PoissonGaussian(Range(0.01, 0.1), 0.02),
    Speckle(0.2),
    Coloured(Range(0, 0.5), Range(0, 3), Range(3, 20)),
    Impulse(Range(0, 0.3)),
    Erase(0.5),
    Block(size=Range(2, 12), count=Range(1, 3)),
    Line(width=Range(1, 3), count=Range(1, 3)),
    Scratch(length=Range(2, 9), width=Range(1, 3), count=Range(1, 3)),
    Blur(Range(0, 1.5)),
    Downsample(Range(1, 30)),
    Jpeg(Range(0, 100)),
    Camera(Range(0, 6400), sharpening=0.5, smoothing=Range(0, 1), reduction=Range(1, 2)),
]
ERASURES = Erase | Block | Line | Scratch
SHAPES = [(3, 9), (3, 2, 9), (3, 3, 8, 11), (3, 1, 5, 6, 7), (0, 1, 8, 8)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def means_something(perturbation, shape):
    least, most = perturbation.space
    return least <= len(shape) - 2 <= most


# --- the contract, for every perturbation -----------------------------------------------------------------------------


def test_one_of_each_is_here():
    assert {type(perturbation) for perturbation in ONE_OF_EACH} == set(PERTURBATIONS.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("perturbation", ONE_OF_EACH, ids=str)
def test_shape_type_mask_and_sigma(perturbation, dtype):
    for shape in (shape for shape in SHAPES if means_something(perturbation, shape)):
        values, mask, sigma = perturbation(torch.rand(shape, generator=seeded()).to(dtype), seeded())
        assert values.shape == shape
        assert values.dtype == dtype
        assert values.isfinite().all()
        if mask is not None:
            assert mask.dtype == torch.bool
            assert mask.shape == (shape if len(shape) == 2 else (shape[0], 1, *shape[2:]))
            assert (values.masked_select(~mask.expand(shape)) == 0).all()
        assert (sigma is not None) == isinstance(perturbation, Gaussian | ERASURES)
        assert not isinstance(perturbation, ERASURES) or not sigma.any()


@pytest.mark.parametrize("perturbation", ONE_OF_EACH, ids=str)
def test_shapes_and_types_without_a_meaning_are_refused_by_name(perturbation):
    for shape in [(9,), (1, 1, 2, 2, 2, 2), *(shape for shape in SHAPES if not means_something(perturbation, shape))]:
        with pytest.raises(UsageError, match=f"^{perturbation.name} needs"):
            perturbation(torch.rand(shape), seeded())
    with pytest.raises(UsageError, match=f"^{perturbation.name} needs floating-point"):
        perturbation(torch.ones(1, 1, 8, 8, dtype=torch.uint8), seeded())


@pytest.mark.parametrize("perturbation", ONE_OF_EACH, ids=str)
def test_fields_can_be_introspected(perturbation):
    limits = limits_of(type(perturbation))
    assert list(limits) == list(vars(perturbation))
    assert all(isinstance(limit, Limits) for limit in limits.values())


@pytest.mark.parametrize("perturbation", ONE_OF_EACH, ids=str)
def test_an_item_does_not_depend_on_its_batch(perturbation):
    """What the other items hold changes nothing."""
    clean = torch.rand(4, 3, 8, 11, generator=seeded())
    other = torch.cat([clean[:1], torch.rand(3, 3, 8, 11, generator=seeded(1))])
    if not isinstance(perturbation, Poisson | PoissonGaussian):  # a Poisson draw takes as many numbers as it counts
        assert torch.equal(perturbation(clean, seeded()).values[0], perturbation(other, seeded()).values[0])


def test_coloured_noise_has_the_covariance_of_its_power():
    """Exponent 2: σ² exp(−2π t / length). Breaks: the power's exponent not halved; a grid whose ends meet."""
    noise = Coloured(0.5, 2, 32)(torch.zeros(20000, 1, 64), seeded()).values[:, 0].double()
    for lag in (0, 4, 8, 16, 63):
        found = (noise[:, : 64 - lag] * noise[:, lag:]).mean(1)
        # Waves that are too short for pixels are left out of the process itself: 4 % of its variance.
        assert float(found.mean()) == pytest.approx(0.25 * math.exp(-2 * math.pi * lag / 32), abs=0.25 * 0.05)


# --- levels -----------------------------------------------------------------------------------------------------------


def test_a_range_is_drawn_for_every_item():
    values, _, sigma = Gaussian(Range(0.1, 0.9))(torch.zeros(50, 1, 40, 40), seeded())
    assert sigma.min() < 0.3
    assert sigma.max() > 0.7
    standard_error = sigma / math.sqrt(2 * 1600)
    assert ((values.flatten(1).std(1) - sigma).abs() <= 4 * standard_error).all()


def test_whole_ranges_hold_both_ends_equally():
    clean = torch.arange(6.0).repeat(1000, 1, 1)
    values = Downsample(Range(1, 3))(clean, seeded()).values
    for factor in (1, 2, 3):
        share = (values == Downsample(factor)(clean[:1], seeded()).values).all(-1).double().mean()
        assert abs(float(share) - 1 / 3) <= 4 * math.sqrt(2 / 9 / 1000)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: Gaussian(-0.1), "gaussian: sigma: a number of at least 0 is needed; got -0.1"),
        (lambda: Gaussian(math.nan), "got nan"),
        (lambda: Gaussian(10**400), "a number of at least 0"),
        (lambda: Gaussian(Range(0, math.inf)), "got inf"),
        (lambda: Gaussian("a lot"), "got 'a lot'"),
        (lambda: Range(0.5, 0.1), "got 0.5..0.1"),
        (lambda: Range(math.nan, 1), "a range goes from low to high"),
        (lambda: Erase(Range(0, 1.5)), "a number from 0 to 1"),
        (lambda: Poisson(0), "a number above 0"),
        (lambda: Block(size=2.5, count=1), "a whole number from 1"),
        (lambda: Jpeg(101), "a whole number from 0 to 100"),
        (lambda: Composition((Gaussian(1),)), "at least two"),
    ],
)
def test_levels_outside_their_limits_are_refused(make, complaint):
    with pytest.raises(UsageError, match=complaint):
        make()


# --- what each of them does -------------------------------------------------------------------------------------------


def test_impulses_are_zero_or_one_and_hit_channels_apart():
    clean = torch.full((1, 2, 200, 200), 0.5)
    hit = Impulse(0.5)(clean, seeded()).values[0]
    assert set(hit.unique().tolist()) == {0.0, 0.5, 1.0}
    both = (hit != 0.5).all(0).double().mean()
    assert abs(float(both) - 0.25) <= 4 * math.sqrt(0.25 * 0.75 / 200**2)


@pytest.mark.parametrize(
    "perturbation", [Erase(0.5), Block(4, 2), Line(2, 2), Scratch(6, 2, 2), Erase(0.5) | Line(1, 2)], ids=str
)
def test_erasure_hides_whole_pixels_and_leaks_nothing(perturbation):
    clean = torch.rand(4, 3, 9, 9, generator=seeded())
    values, mask, _ = perturbation(clean, seeded())
    observed = mask.expand_as(clean)
    assert torch.equal(values[observed], clean[observed])
    assert torch.equal(perturbation(clean.masked_fill(~observed, math.nan), seeded()).values, values)


def test_half_precision_counts_in_single():
    """Neither the gain, 1e-8, nor the counts, 5e7, exist in half precision."""
    values = Poisson(1e-8)(torch.full((4, 1, 8, 8), 0.5, dtype=torch.float16), seeded()).values
    assert torch.allclose(values.float(), torch.tensor(0.5), atol=1e-3)


def test_all_and_nothing_can_be_erased():
    clean = torch.rand(2, 30, generator=seeded())
    assert torch.equal(Erase(0)(clean, seeded()).values, clean)
    assert not Erase(1)(clean, seeded()).mask.any()


def test_blocks_are_boxes_of_their_size_cut_off_at_the_image():
    _, mask, _ = Block(size=4, count=1)(torch.zeros(500, 1, 10, 12), seeded())
    sides = set()
    for hole in ~mask[:, 0]:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert hole.sum() == len(rows) * len(columns)
        for places, length in ((rows, 10), (columns, 12)):
            assert int(places[-1] - places[0]) + 1 == len(places) <= 4
            assert len(places) == 4 or places[0] == 0 or places[-1] == length - 1
            sides.add(len(places))
    assert sides == {1, 2, 3, 4}


def test_every_pixel_is_erased_with_the_same_chance():
    _, mask, _ = Block(size=3, count=1)(torch.zeros(20000, 1, 6), seeded())
    chance = 3 / 8
    worst = ((~mask).double().mean((0, 1)) - chance).abs().max()
    assert worst <= 4 * math.sqrt(chance * (1 - chance) / 20000)


@pytest.mark.parametrize("shape", [(40,), (7, 12), (5, 6, 9)])
@pytest.mark.parametrize("sigma", [0.0, 0.4, 1.5, 6.0])
def test_blur_is_the_reference_gaussian_filter(shape, sigma):
    clean = torch.rand(2, 2, *shape, dtype=torch.float64, generator=seeded())
    expected = gaussian_filter(clean.numpy(), sigma, mode="reflect", axes=range(2, clean.ndim))
    np.testing.assert_allclose(Blur(sigma)(clean, seeded()).values, expected, atol=1e-12)


def test_a_blur_drawn_from_a_range_is_the_blur_of_that_sigma():
    """The kernel's support is that of the range's upper end, but its weights end where they would for its own sigma."""
    clean = torch.rand(1, 1, 50, dtype=torch.float64, generator=seeded())
    sigma = 6.0 * torch.rand(1, dtype=torch.float64, generator=seeded(7)).item()
    drawn = Blur(Range(0, 6))(clean, seeded(7)).values
    assert torch.allclose(drawn, Blur(sigma)(clean, seeded()).values, atol=1e-15)


@pytest.mark.parametrize("shape", [(13,), (8, 11), (4, 5, 6)])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 50])
def test_downsample_replaces_each_block_by_its_mean(shape, factor):
    clean = torch.rand(1, 2, *shape, dtype=torch.float64, generator=seeded())
    expected = clean.numpy().copy()
    for corner in np.ndindex(*(math.ceil(length / factor) for length in shape)):
        block = (..., *(slice(place * factor, (place + 1) * factor) for place in corner))
        expected[block] = expected[block].mean(axis=tuple(range(2, clean.ndim)), keepdims=True)
    values = Downsample(factor)(clean, seeded()).values
    np.testing.assert_allclose(values, expected, atol=1e-12)
    np.testing.assert_allclose(Downsample(factor)(values, seeded()).values, values, atol=1e-12)  # a projection


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_the_encoder_makes(channels):
    clean = torch.rand(1, channels, 20, 27, generator=seeded()) * 1.4 - 0.2
    pixels = np.round(np.clip(clean[0].permute(1, 2, 0).numpy(), 0, 1) * 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "JPEG", quality=30, subsampling=2)
    expected = np.asarray(Image.open(file)).reshape(pixels.shape).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(Jpeg(30)(clean, seeded()).values[0], expected, atol=1e-7)


def test_jpeg_errors_fall_with_quality():
    clean = torch.rand(1, 1, 32, 32, generator=seeded())
    errors = [(Jpeg(quality)(clean, seeded()).values - clean).square().mean() for quality in (0, 10, 50, 90, 100)]
    assert errors == sorted(errors, reverse=True)


def test_jpeg_refuses_what_it_cannot_encode():
    with pytest.raises(UsageError, match="1 or 3 channels; got 2"):
        Jpeg(30)(torch.rand(1, 2, 8, 8), seeded())
    with pytest.raises(UsageError, match="finite"):
        Jpeg(30)(torch.full((1, 1, 8, 8), math.nan), seeded())


# --- composition ------------------------------------------------------------------------------------------------------

G, E = Gaussian(0.3), Erase(0.5)


def test_parts_act_from_left_to_right_on_one_generator():
    clean = torch.rand(2, 1, 8, 8, generator=seeded())
    generator = seeded(1)
    expected = Blur(1)(Speckle(0.2)(clean, generator).values, generator).values
    assert torch.equal((Speckle(0.2) + Blur(1))(clean, seeded(1)).values, expected)


def test_composition_is_associative():
    assert (G + E) + Blur(1) == G + (E + Blur(1)) == Composition((G, E, Blur(1)))


@pytest.mark.parametrize(
    ("perturbation", "sigma"),
    [
        (G + Gaussian(0.4), 0.5),
        (G + E, 0.3),
        (E + G, 0.3),
        (G + Block(2, 1) + Gaussian(0.4) + E, 0.5),
        (E + Block(2, 1), 0.0),
        (E + Block(2, 1) | E, 0.0),
        (Blur(1) | Jpeg(50), None),
        (Blur(1) + G, None),
        (G + Jpeg(50), None),
        (Poisson(0.1) + G + E, None),
        (G + Impulse(0.1), None),
    ],
    ids=str,
)
def test_sigma_is_known_where_the_whole_is_gaussian(perturbation, sigma):
    known = perturbation(torch.rand(3, 1, 8, 8, generator=seeded()), seeded()).sigma
    if sigma is None:
        assert known is None
    else:
        assert torch.allclose(known, torch.full((3,), sigma))


def test_sigmas_add_in_quadrature_item_by_item():
    values, _, sigma = (Gaussian(Range(0, 0.5)) + Gaussian(Range(0, 0.5)))(torch.zeros(20, 1, 50, 50), seeded())
    assert ((values.flatten(1).std(1) - sigma).abs() <= 4 * sigma / math.sqrt(2 * 2500)).all()
    assert (G + G)(torch.zeros(2, 3, dtype=torch.float16), seeded()).sigma.dtype == torch.float16


@pytest.mark.parametrize("later", [G, Poisson(0.1), PoissonGaussian(0.1, 0.1), Speckle(0.5), Impulse(0.9), E], ids=str)
def test_what_is_erased_stays_erased_and_zero(later):
    clean = torch.rand(3, 2, 8, 8, generator=seeded())
    before = E(clean, seeded(1)).mask
    values, mask, _ = (E + later)(clean, seeded(1))
    assert not (mask & ~before).any()
    assert (values.masked_select(~mask) == 0).all()


@pytest.mark.parametrize("mixing", [Blur(1), Downsample(2), Jpeg(50)], ids=str)
def test_a_mask_ends_where_pixels_are_mixed(mixing):
    clean = torch.rand(2, 1, 8, 8, generator=seeded())
    assert (E + mixing)(clean, seeded()).mask is None
    assert (E + mixing + E)(clean, seeded()).mask is not None
    assert (mixing + E)(clean, seeded()).mask is not None
    assert (mixing + G).mixes
    assert not (G + E).mixes


def test_a_choice_is_drawn_for_every_item():
    """Break: one choice for the whole batch."""
    clean = torch.rand(900, 1, 8, 8, generator=seeded())
    _, mask, sigma = (Erase(1) | Blur(1) | G)(clean, seeded())
    assert sigma is None
    erased = (~mask).flatten(1)
    assert torch.equal(erased.any(1), erased.all(1))  # whole items: those that drew the erasure
    assert abs(float(erased.all(1).double().mean()) - 1 / 3) <= 4 * math.sqrt(2 / 9 / 900)


def test_choices_hold_compositions_and_not_the_other_way_round():
    flat = Choice((E, G, Blur(1)))
    assert flat == E | G | Blur(1)
    assert flat == Choice((E | G, Blur(1)))
    assert str(E | G + Blur(1)) == "erase:fraction=0.5 | gaussian:sigma=0.3 + blur:sigma=1"
    assert (E | Blur(1)).mixes
    with pytest.raises(UsageError, match="a choice is between whole compositions"):
        (E | G) + Blur(1)


def test_strokes_are_as_wide_and_as_long_as_they_are_said_to_be():
    """In all directions: the farthest two pixels of a whole stroke are about its length and width apart."""
    _, mask, _ = Scratch(length=12, width=3, count=1)(torch.zeros(400, 1, 60, 60), seeded())
    for hole in ~mask[:, 0]:
        rows, columns = hole.nonzero().T
        if len(rows) and rows.min() > 0 and columns.min() > 0 and rows.max() < 59 and columns.max() < 59:
            points = torch.stack([rows, columns], 1).double()
            assert abs(float(torch.cdist(points, points).max()) - 15) < 2.5
            assert abs(len(rows) - (12 * 3 + math.pi * 9 / 4)) < 8


def test_masks_are_joined():
    clean = torch.ones(2000, 10)
    mask = (E + E)(clean, seeded()).mask
    assert abs(float(mask.double().mean()) - 0.25) <= 4 * math.sqrt(0.25 * 0.75 / 20000)


# --- specs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "perturbation"),
    [
        ("gaussian:sigma=0.1", Gaussian(0.1)),
        ("gaussian:sigma=0..0.5", Gaussian(Range(0, 0.5))),
        ("gaussian:sigma=.5...75", Gaussian(Range(0.5, 0.75))),
        ("gaussian:sigma=1e-3..+1E+1", Gaussian(Range(0.001, 10))),
        ("\tgaussian :\n sigma = 0 .. 0.5+erase:fraction=0.5  ", Gaussian(Range(0, 0.5)) + Erase(0.5)),
        ("block:count=1..3,size=8..24", Block(size=Range(8, 24), count=Range(1, 3))),
        ("poisson-gaussian:gain=0.01,read=0", PoissonGaussian(0.01, 0)),
        ("poisson-gaussian:gain=0.01,read=0,offset=-.5", PoissonGaussian(0.01, 0, -0.5)),
    ],
)
def test_specs_that_can_be_read(text, perturbation):
    assert parse(text) == perturbation


def test_specs_are_written_in_one_form():
    assert str(PoissonGaussian(0.01, 0.0)) == "poisson-gaussian:gain=0.01,read=0"
    assert str(PoissonGaussian(0.01, 0.0, 0.1)) == "poisson-gaussian:gain=0.01,read=0,offset=0.1"
    written = str(parse("block:count=01.0..3,size=8+gaussian:sigma=0.50..1e0+jpeg:quality=5"))
    assert written == "block:size=8,count=1..3 + gaussian:sigma=0.5..1 + jpeg:quality=5"


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "expected one of gaussian, poisson"),
        ("gausian:sigma=1", 1, "did you mean 'gaussian'?"),
        ("Gaussian:sigma=1", 1, "did you mean 'gaussian'?"),
        ("poisson_gaussian:gain=1,read=1", 1, "did you mean 'poisson-gaussian'?"),
        ("zzz:sigma=1", 1, "expected one of gaussian"),
        ("erase:fraction=0.5 + gaussain:sigma=1", 22, "did you mean 'gaussian'?"),
        ("gaussian", 9, "gaussian needs sigma: expected ':sigma=…', found the end"),
        ("gaussian + erase:fraction=1", 10, "gaussian needs sigma: expected ':sigma=…', found '+'"),
        ("gaussian sigma=1", 10, "expected ':sigma=…', found 'sigma'"),
        ("gaussian:", 10, "expected sigma (a field of gaussian), found the end"),
        ("gaussian:sgima=1", 10, "did you mean 'sigma'?"),
        ("gaussian:sigma", 15, "expected '='"),
        ("gaussian:sigma=", 16, "expected a number of at least 0 for sigma"),
        ("gaussian:sigma=lots", 16, "found 'lots'"),
        ("gaussian:sigma=nan", 16, "expected a number of at least 0 for sigma, or a range such as 1..2, found 'nan'"),
        ("gaussian:sigma=inf", 16, "found 'inf'"),
        ("gaussian:sigma=1e999", 16, "got inf"),
        ("gaussian:sigma=-1", 16, "a number of at least 0 is needed; got -1"),
        ("gaussian:sigma=0.5..0.1", 16, "a range goes from low to high; got 0.5..0.1"),
        ("gaussian:sigma=0.5..", 21, "found the end"),
        ("gaussian:sigma=1.", 17, "found '.'"),
        ("gaussian:sigma=1, sigma=2", 19, "sigma is given twice"),
        ("gaussian:sigma=1,", 18, "expected sigma"),
        ("gaussian:sigma=1 +", 19, "expected one of gaussian"),
        ("gaussian:sigma=1 erase:fraction=1", 18, "'+' or '|' and another perturbation, or the end, found 'erase'"),
        ("erase:fraction=1.5", 16, "a number from 0 to 1 is needed; got 1.5"),
        ("poisson:gain=0..1", 14, "a number above 0"),
        ("block:size=3", 13, "block needs count: expected ',count=…'"),
        ("block", 6, "block needs size and count"),
        ("block:size=0,count=1", 12, "a whole number from 1 to 1000000 is needed; got 0"),
        ("block:size=2.5,count=1", 12, "a whole number"),
        ("jpeg:quality=50..101", 14, "a whole number from 0 to 100 is needed; got 101"),
    ],
)
def test_specs_that_cannot_be_read_say_where_and_what_was_expected(text, column, expected):
    with pytest.raises(SpecError) as caught:
        parse(text)
    assert str(caught.value).startswith(f"perturbation {text!r}, column {column}: ")
    assert expected in str(caught.value)


def levels(limits):
    if limits.whole:
        number = st.integers(int(limits.low), int(limits.high))
    else:
        number = st.floats(limits.low, limits.high, exclude_min=limits.above, allow_nan=False, allow_infinity=False)
    return number | st.tuples(number, number).map(sorted).map(lambda ends: Range(*ends))


processes = st.sampled_from(list(PERTURBATIONS.values())).flatmap(
    lambda kind: st.builds(kind, **{key: levels(limits) for key, limits in limits_of(kind).items()})
)
perturbations = processes | st.lists(processes, min_size=2, max_size=4).map(lambda parts: Composition(tuple(parts)))


@settings(deadline=None)
@given(perturbations)
def test_every_perturbation_survives_its_spec(perturbation):
    text = str(perturbation)
    again = parse(text)
    assert again == perturbation
    assert str(again) == text
    assert parse(text.replace(" ", "").replace("..", " .. ").replace("=", "\n=\t")) == perturbation


WORDS = [
    "gaussian",
    "block",
    "sigma",
    "size",
    ":",
    "=",
    ",",
    "+",
    "..",
    "0.5",
    "-",
    "1e9",
    "9" * 400,
    "ß",
    " ",
    "\0",
    "²",
]


@settings(deadline=None, max_examples=200)
@given(st.text() | st.lists(st.sampled_from(WORDS), max_size=12).map("".join))
def test_nothing_but_a_spec_error_comes_out_of_garbage(text):
    try:
        perturbation = parse(text)
    except SpecError as error:
        assert "column" in str(error)
    else:
        assert parse(str(perturbation)) == perturbation
