"""Around one call of the denoiser nothing is lost: not the shape, not the level, not a channel, not the input."""

import math

import numpy as np
import pytest
import torch
from skimage import data

from unperturb.data.noise import estimate_sigma
from unperturb.errors import ModelError, UsageError
from unperturb.infer.observe import observe
from unperturb.infer.restore import restore
from unperturb.infer.sample import sample
from unperturb.infer.tiled import Compute
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings, VectorNetSettings

pytestmark = pytest.mark.usefixtures("one_thread")

EXACTLY = Compute(device="cpu", precision="float32")


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def model(channels: int = 1, dims: int = 2) -> Denoiser:
    """Build a network that does more to its input than an untrained one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(Card(UNetSettings(dims=dims, channels=channels, widths=(4, 8), blocks=1)))
    with torch.no_grad():
        denoiser.network.tail.weight.mul_(30)
    return denoiser.requires_grad_(False)


def identity(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return x


def shrink(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Exact posterior mean where the clean values are white, Gaussian, of unit variance."""
    return x / (1 + sigma**2)


# --- Any denoise, any array -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "axis"), [((7,), None), ((7, 5), None), ((7, 5, 3), -1), ((3, 7, 5), 0), ((4, 6, 5), None)]
)
def test_any_function_of_values_and_level_will_do(shape, axis):
    y = values(*shape)
    for tile in (None, 4):
        compute = Compute(device="cpu", precision="float32", tile=tile)
        np.testing.assert_array_equal(restore(y, identity, 0.5, channel_axis=axis, compute=compute), y)
        answer = restore(y, shrink, 0.5, channel_axis=axis, compute=compute)
        np.testing.assert_allclose(answer, y / 1.25, rtol=1e-6)


def test_the_exact_mean_has_the_error_that_theory_says():
    clean, sigma = values(300, 300), 0.7
    answer = restore(clean + sigma * values(300, 300, seed=1), shrink, sigma)
    assert np.mean((answer - clean) ** 2) == pytest.approx(sigma**2 / (1 + sigma**2), rel=4 * math.sqrt(2 / 90_000))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float16, np.float64, bool])
def test_any_real_type_in_any_units(dtype):
    y = np.random.default_rng(0).integers(0, 2 if dtype is bool else 200, (9, 8)).astype(dtype)
    answer = restore(y, identity, 3)
    assert answer.dtype == np.float32
    np.testing.assert_array_equal(answer, y.astype(np.float32))


@pytest.mark.parametrize(
    ("given", "axis"),
    [
        (values(17, 13), None),
        (values(3, 17, 13), 0),
        (values(3, 17, 13).T, -1),
        (values(17, 13, 3)[::-1, ::2], -1),
        (np.asfortranarray(values(17, 13, 3)), -1),
    ],
    ids=["gray", "planes", "turned", "strided", "fortran"],
)
def test_input_of_any_layout_comes_back_unmodified(given, axis):
    """Even where the denoiser works in place. Break: the tensor shares the array's memory."""
    before = given.copy()
    level = np.full(before.shape if axis is None else np.delete(before.shape, axis), 0.1, np.float32)
    given.flags.writeable = level.flags.writeable = False

    def spoil(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        sigma.zero_()
        return x.add_(1)

    for quality in ("fast", "best"):
        answer = restore(given, spoil, level, channel_axis=axis, quality=quality)
        np.testing.assert_allclose(answer, before + 1, rtol=1e-5, atol=1e-6)
        answer[...] = 0
        np.testing.assert_array_equal(given, before)
        assert (level == np.float32(0.1)).all()


@pytest.mark.parametrize(("dims", "shape"), [(1, (37,)), (2, (1, 1)), (2, (21, 34)), (3, (5, 6, 7))])
def test_a_denoiser_gives_what_one_call_of_it_gives(dims, shape):
    y, denoiser = values(*shape), model(dims=dims)
    expected = denoiser(torch.from_numpy(y)[None, None], 0.3)[0, 0].numpy()
    np.testing.assert_allclose(restore(y, denoiser, 0.3, compute=EXACTLY), expected, rtol=1e-5, atol=1e-5)


def test_half_the_precision_is_close():
    y, denoiser = values(32, 32), model()
    exact = restore(y, denoiser, 0.3, compute=EXACTLY)
    rough = restore(y, denoiser, 0.3, compute=Compute(device="cpu", precision="bfloat16"))
    assert rough.dtype == np.float32
    assert 0 < np.linalg.norm(rough - exact) < 0.05 * np.linalg.norm(y - exact)


# --- The level --------------------------------------------------------------------------------------------------------


def test_a_map_that_is_constant_is_a_number():
    y, denoiser = values(20, 23), model()
    for quality in ("fast", "best"):
        for tile in (None, 8):
            compute = Compute(device="cpu", precision="float32", tile=tile)
            one, other = (
                restore(y, denoiser, level, quality=quality, compute=compute) for level in (0.3, np.full((20, 23), 0.3))
            )
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("quality", ["fast", "best"])
@pytest.mark.parametrize("tile", [None, 5])
@pytest.mark.parametrize(("shape", "axis"), [((20, 23), None), ((20, 23, 3), -1), ((3, 20, 23), 0)])
def test_a_map_is_used_where_it_says(shape, axis, tile, quality):
    """Breaks: the map not turned with the image; the map not cut with the tile."""
    y = values(*shape)
    level = np.abs(values(20, 23, seed=1)).astype(np.float64)
    compute = Compute(device="cpu", precision="float32", tile=tile, halo=3)
    answer = restore(y, shrink, level, channel_axis=axis, quality=quality, compute=compute)
    np.testing.assert_allclose(answer, y / (1 + (level[..., None] if axis == -1 else level) ** 2), rtol=1e-5)


@pytest.mark.parametrize("axis", [None, -1])
def test_where_nobody_knows_the_level_it_is_estimated(axis):
    clean = data.camera()[:96, :96] if axis is None else data.astronaut()[:96, :96]
    y = clean + 20 * values(*clean.shape)
    told = []

    def listen(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        told.append(float(sigma))
        return x

    restore(y, listen, channel_axis=axis)
    assert told == [pytest.approx(estimate_sigma(y, axis))]
    assert told[0] == pytest.approx(20, rel=0.2)


def test_no_noise_is_a_level():
    np.testing.assert_array_equal(restore(values(8, 8), shrink, 0), values(8, 8))


# --- Channels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("network", "channels"), [(1, 3), (1, 2), (3, 2), (3, 4), (3, 1)])
def test_channels_that_the_denoiser_does_not_take_together_are_restored_one_by_one(network, channels):
    y, denoiser = values(16, 12, channels), model(network)
    alone = [restore(y[..., index], denoiser, 0.3, compute=EXACTLY) for index in range(channels)]
    np.testing.assert_allclose(
        restore(y, denoiser, 0.3, channel_axis=-1, compute=EXACTLY), np.stack(alone, -1), rtol=1e-5
    )


def test_colour_is_restored_together():
    y, denoiser = values(16, 12, 3), model(3)
    alone = [restore(y[..., index], denoiser, 0.3, compute=EXACTLY) for index in range(3)]
    assert np.abs(restore(y, denoiser, 0.3, channel_axis=-1, compute=EXACTLY) - np.stack(alone, -1)).max() > 0.01


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_gray_stored_as_colour_is_gray(quality):
    """Break: `same` always False: the denoiser takes one noise for three."""
    y, denoiser = values(16, 12), model(3)
    gray = restore(y, denoiser, 0.3, quality=quality, compute=EXACTLY)
    for axis in (-1, 0):
        answer = restore(np.stack([y] * 3, axis), denoiser, 0.3, channel_axis=axis, quality=quality, compute=EXACTLY)
        np.testing.assert_array_equal(answer, np.stack([gray] * 3, axis))
        answer[...] = 0  # may be written to, and has a memory of its own for each channel


# --- Quality ----------------------------------------------------------------------------------------------------------


def turned(array: np.ndarray, turn: int) -> np.ndarray:
    array = np.rot90(array, turn % 4)
    return array[:, ::-1] if turn >= 4 else array


@pytest.mark.parametrize("channels", [1, 3])
def test_best_turns_with_the_image(channels):
    """Breaks: four turns only; turned back the wrong way round."""
    y, denoiser = values(16, 12, channels), model(channels)
    level = np.abs(values(16, 12, seed=1)) + 0.1

    def answer(turn: int, quality: str) -> np.ndarray:
        sigma = turned(level, turn).copy()
        return restore(turned(y, turn), denoiser, sigma, channel_axis=-1, quality=quality, compute=EXACTLY)

    best, fast = answer(0, "best"), answer(0, "fast")
    for turn in range(1, 8):
        np.testing.assert_allclose(answer(turn, "best"), turned(best, turn), rtol=1e-4, atol=1e-5)
        assert np.abs(answer(turn, "fast") - turned(fast, turn)).max() > 0.01


def test_best_is_the_mean_over_the_eight_turns():
    y, denoiser = values(16, 12), model()
    total = np.zeros_like(y)
    for turn in range(8):
        answer = restore(turned(y, turn), denoiser, 0.3, compute=EXACTLY)
        total += np.rot90(answer[:, ::-1] if turn >= 4 else answer, -(turn % 4))
    np.testing.assert_allclose(
        restore(y, denoiser, 0.3, quality="best", compute=EXACTLY), total / 8, rtol=1e-4, atol=1e-5
    )


# --- Tiles and threads ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_progress_counts_all_tiles(quality):
    told = []
    compute = Compute(device="cpu", precision="float32", tile=8)
    restore(
        values(20, 12, 2), model(), 0.3, channel_axis=-1, quality=quality, compute=compute,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    total = 3 * 2 * 2 * (8 if quality == "best" else 1)
    assert told == [(done, total) for done in range(1, total + 1)]


def test_threads_change_nothing_and_are_given_back():
    before = torch.get_num_threads()
    y, denoiser = values(40, 40), model()
    one, two = (
        restore(y, denoiser, 0.3, compute=Compute(device="cpu", precision="float32", tile=8, threads=n)) for n in (1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert torch.get_num_threads() == before


def test_an_error_in_one_tile_is_raised():
    def fail(*_: torch.Tensor) -> torch.Tensor:
        raise ModelError("no")

    before = torch.get_num_threads()
    with pytest.raises(ModelError, match="no"):
        restore(values(40, 40), fail, 0.3, compute=Compute(device="cpu", precision="float32", tile=8))
    assert torch.get_num_threads() == before


# --- What cannot be restored ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad):
    y = values(8, 8)
    y[3, 4] = bad
    with pytest.raises(UsageError, match="NaN or infinite"):
        restore(y, identity, 0.1)


@pytest.mark.parametrize("shape", [(0,), (0, 8), (8, 0), (8, 8, 0)])
def test_nothing_is_refused(shape):
    with pytest.raises(UsageError, match="empty"):
        restore(np.zeros(shape), identity, 0.1)


@pytest.mark.parametrize("sigma", [-0.1, math.nan, math.inf])
def test_impossible_levels_are_refused(sigma):
    with pytest.raises(UsageError, match="sigma"):
        restore(values(8, 8), identity, sigma)
    level = np.full((8, 8), 0.1)
    level[2, 3] = sigma
    with pytest.raises(UsageError, match="sigma"):
        restore(values(8, 8), identity, level)


@pytest.mark.parametrize("shape", [(8,), (8, 9), (9, 8), (1, 8, 8), (8, 8, 3)])
def test_maps_of_another_shape_are_refused(shape):
    with pytest.raises(UsageError, match="map of sigma has the shape of the space"):
        restore(values(8, 8, 3), identity, np.full(shape, 0.1), channel_axis=-1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"quality": "good"}, "quality is auto, fast or best"),
        ({"compute": Compute(device="tpu")}, "device is"),
        ({"compute": Compute(precision="float8")}, "precision is"),
        ({"compute": Compute(tile=0)}, "tiles need"),
        ({"compute": Compute(halo=-1)}, "tiles need"),
    ],
    ids=str,
)
def test_options_that_there_are_not_are_refused(options, text):
    with pytest.raises(UsageError, match=text):
        restore(values(8, 8), identity, 0.1, **options)


@pytest.mark.parametrize(
    ("arguments", "options", "text"),
    [
        ((np.array(1.0), identity, 0.1), {}, "an axis of space at least"),
        ((np.array(["a"]), identity, 0.1), {}, "real numbers"),
        ((np.ones((8, 8), complex), identity, 0.1), {}, "real numbers"),
        ((np.ones((8, 8)), identity, 0.1), {"channel_axis": 5}, "one of the axes"),
        ((np.ones((8, 8)), identity, 0.1), {"channel_axis": 1.0}, "one of the axes"),
        ((np.ones((8, 8)), identity, "auto"), {}, "sigma is a number"),
        ((np.ones((8, 8)), identity, [[0.1]]), {}, "map of sigma has the shape"),
        ((np.ones((8, 8)), "natural", 0.1), {}, "what denoises is a model"),
        ((np.ones((8, 8)), identity, 0.1), {"missing": [[False] * 7] * 8}, "what is missing is told by"),
    ],
    ids=range(9),
)
@pytest.mark.parametrize("quality", ["fast", "best"])
def test_arguments_of_another_kind_are_refused(arguments, options, text, quality):
    """In one sentence. Breaks: what numpy, or Python, says; told by one of the two qualities alone."""
    with pytest.raises(UsageError, match=text):
        restore(*arguments, quality=quality, **options)


def test_lists_and_single_numbers_of_numpy_are_as_good_as_others():
    """Breaks: a list of what is missing; an array without axes as a map."""
    seen = values(8, 8)
    expected = restore(seen, model(), 0.1, compute=EXACTLY)
    for level in (np.float32(0.1), np.array(0.1), torch.tensor(0.1)):
        np.testing.assert_allclose(restore(seen, model(), level, compute=EXACTLY), expected, atol=1e-6)
    missing, known = seen > 0, model().with_card(perturbation="gaussian:sigma=0..0.25")
    np.testing.assert_array_equal(
        restore(seen, known, 0.1, missing=missing.tolist(), compute=EXACTLY),
        restore(seen, known, 0.1, missing=missing, compute=EXACTLY),
    )


@pytest.mark.parametrize("quality", ["fast", "best"])
def test_what_has_no_noise_comes_back(quality):
    """Whatever a network says, in draws as well. Breaks: it is asked; of the mean alone; a map that is 0 somewhere."""
    seen = values(8, 8)
    np.testing.assert_allclose(restore(seen, model(), 0.0, quality=quality, compute=EXACTLY), seen, rtol=1e-6)
    drawn = sample(observe(seen, model(), 0.0, compute=EXACTLY).posterior, 2, steps=3)
    np.testing.assert_allclose(drawn[1, 0, 0], seen, rtol=1e-5)
    level = np.zeros((8, 8))
    level[0, 0] = 1
    assert np.abs(restore(seen, model(), level, compute=EXACTLY) - seen).max() > 1e-3


@pytest.mark.parametrize("shape", [(8,), (8, 8, 8)])
def test_best_is_for_images(shape):
    with pytest.raises(UsageError, match="quality best turns and mirrors images"):
        restore(values(*shape), identity, 0.1, quality="best")


def test_values_that_the_model_does_not_take_are_refused():
    with pytest.raises(ModelError, match=r"2-dimensional signals; got values of shape \(3000,\)"):  # not of a tile
        restore(values(3000), model(), 0.1)
    with pytest.raises(ModelError, match="vectors"):
        restore(values(8, 8), Denoiser(Card(VectorNetSettings())), 0.1)


def test_what_is_masked_is_not_taken_for_values():
    """Break: an array without its mask."""
    masked = np.ma.masked_greater(values(8, 8), 0.5)
    with pytest.raises(UsageError, match="its mask as missing"):
        restore(masked, identity, 0.1)
    whole = np.ma.masked_array(values(8, 8))
    assert np.array_equal(restore(whole, identity, 0.1), restore(values(8, 8), identity, 0.1))


def test_an_axis_of_one_turns_as_others_do():
    """Break: numpy finds what goes backwards along it in order, and torch does not."""
    for shape in ((48, 1), (1, 48)):
        assert np.isfinite(restore(values(*shape), identity, 0.1, quality="best")).all()


def test_a_level_that_is_none_is_refused_by_conditional_models_as_well():
    """Break: it is not looked at."""
    settings = UNetSettings(channels=1, widths=(4, 8), blocks=1, given=True)
    denoiser = Denoiser(Card(settings, perturbation="erase:fraction=0.5")).requires_grad_(False)
    missing = values(16, 16) > 0
    for level in (float("nan"), -3.0):
        with pytest.raises(UsageError, match="sigma is a finite number"):
            restore(values(16, 16), denoiser, level, missing=missing)
