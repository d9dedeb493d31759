"""Missing components: what a conditional network is shown of them, what comes back, and how good it is (law 15).

The files that people mark them in are in `test_missing_files`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor
from torch._subclasses import FakeTensorMode
from toy import toy_mixture, toy_points

from unperturb.errors import ModelError, UsageError
from unperturb.infer.posterior import blind_posterior
from unperturb.infer.sample import sample
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.card import Card
from unperturb.model.denoiser import Conditioned, Denoiser
from unperturb.model.exact import GaussianMixture
from unperturb.model.filling import filled
from unperturb.model.given import BLIND, ELSEWHERE, ERRORS, ROUGH, Given, show
from unperturb.model.network import NetworkSettings, UNetSettings, VectorNetSettings
from unperturb.model.spec import parse
from unperturb.train.fit import fit
from unperturb.train.settings import FitSettings
from unperturb.train.showing import joined, shown_task
from unperturb.train.state import FitState

SPACES = [(17,), (13, 10), (1, 9), (7, 5, 6)]
"""Of signals with 1 to 3 axes, no size of which is a power of two."""

HIDDEN = [float("nan"), float("inf"), -3e30]
"""What may stand where nothing was observed."""


@pytest.fixture(autouse=True)
def one_thread():
    """Arrays as small as these gain nothing from threads, which wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def observed(*shape: int, share: float = 0.5, seed: int = 1) -> Tensor:
    """Draw a mask."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def is_one_sentence(error: pytest.ExceptionInfo) -> bool:
    words = str(error.value)
    return "\n" not in words and ". " not in words


# --- What the network is shown ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_constant_is_filled_in_as_it_is(space):
    """Break: means over all pixels, the erased ones being 0, not over the observed ones."""
    mask = observed(3, 1, *space, share=0.3)
    mask[..., 0] = True  # of something at least
    values = torch.tensor([0.7, -2.0]).view(1, 2, *(1,) * len(space)).expand(3, 2, *space)
    torch.testing.assert_close(filled(values.masked_fill(~mask, 0), mask), values, rtol=1e-5, atol=0)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_what_was_observed_stays_and_from_nothing_comes_nothing(space):
    """Breaks: the answer interpolated everywhere; 0/0 where nothing was observed."""
    values, mask = normal(3, 2, *space), observed(3, 1, *space, share=0.3)
    mask[1] = False
    answer = filled(values.masked_fill(~mask, 0), mask)
    assert torch.equal(answer.masked_fill(~mask, 0), values.masked_fill(~mask, 0))
    assert torch.equal(answer[1], torch.zeros_like(answer[1]))
    assert answer.isfinite().all()


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_what_is_shown_of_an_item_is_its_own_affair(space):
    """Beside an item of which nothing is erased, and one of which nothing is left.

    Break: a coarse pixel counts as observed where it is in any item.
    """
    values, mask = normal(4, 2, *space), observed(4, 1, *space, share=0.3)
    mask[1], mask[2] = False, True
    together = show(values, mask)
    for item in range(4):
        alone = show(values[[item]], mask[[item]])
        for name in ("values", "mask", "scale", "error"):
            torch.testing.assert_close(getattr(together, name)[[item]], getattr(alone, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.5, 1.0])
@pytest.mark.parametrize("space", SPACES, ids=str)
def test_what_is_shown_scales_with_the_observation(space, share):
    """Breaks: the scale always 1; the least and largest error not in units of it."""
    values, mask = normal(2, 3, *space), observed(2, 1, *space, share=share)
    seen = show(values, mask)
    for alpha in (0.1, 0.5, 2, 10):
        scaled = show(alpha * values, mask)
        for name in ("values", "scale", "error"):
            torch.testing.assert_close(getattr(scaled, name), alpha * getattr(seen, name), rtol=1e-5, atol=1e-6 * alpha)
        assert torch.equal(scaled.mask, seen.mask)


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("shape", [(3, 5), *((3, 2, *space) for space in SPACES)], ids=str)
def test_what_stands_under_the_mask_is_not_looked_at(shape, hidden):
    """Break: values times mask."""
    mask = observed(3, *((5,) if len(shape) == 2 else (1, *shape[2:])))
    values = normal(*shape)
    seen, other = show(values, mask), show(values.masked_fill(~mask, hidden), mask)
    for name in ("values", "mask", "scale", "error"):
        assert torch.equal(getattr(seen, name), getattr(other, name))


def test_one_mask_may_serve_a_batch():
    """Break: the mask of a batch of one not repeated."""
    values, mask = normal(3, 2, 9, 8), observed(1, 1, 9, 8)
    one, each = show(values, mask), show(values, mask.repeat(3, 1, 1, 1))
    assert all(torch.equal(getattr(one, name), getattr(each, name)) for name in ("values", "mask", "scale", "error"))


@pytest.mark.parametrize(
    "mask",
    [
        torch.ones(2, 1, 6, 6),
        torch.ones(2, 3, 6, 6).bool(),
        torch.ones(2, 1, 6, 5).bool(),
        torch.ones(3, 1, 6, 6).bool(),
    ],
    ids=["floats", "channels", "size", "batch"],
)
def test_a_mask_that_does_not_fit_is_refused(mask):
    """Break: only the number of dimensions compared."""
    with pytest.raises(UsageError, match="mask") as error:
        show(normal(2, 3, 6, 6), mask)
    assert is_one_sentence(error)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("shape", [(2, 4), (2, 1, 5, 5)], ids=str)
def test_observed_values_that_are_not_finite_are_refused(shape, bad):
    """Break: no check."""
    values, mask = normal(*shape), torch.ones(shape, dtype=torch.bool)
    values[0, 0] = bad
    for each in (mask, None):
        with pytest.raises(UsageError, match="NaN or infinite") as error:
            show(values, each)
        assert is_one_sentence(error)


@pytest.mark.parametrize("share", [0.9, 0.7, 0.4])
@pytest.mark.parametrize("width", [1.5, 2.5])
def test_the_error_of_a_filling_is_known_about_to_a_factor(width, share):
    """On smooth random fields: about the true error, or more, as taking more away makes holes wider.

    Breaks: the error over all that was observed, not over what was taken away; nothing moved.
    """
    white = np.random.default_rng(3).standard_normal((4, 1, 64, 64))
    field = torch.from_numpy(gaussian_filter(white, (0, 0, width, width), mode="wrap")).float()
    clean = 2 + field / field.std()
    mask = observed(4, 1, 64, 64, share=share)
    seen = show(clean, mask)
    gap = (seen.values - clean).masked_fill(mask, 0).square().flatten(1).sum(1)
    true = (gap / (~mask).flatten(1).sum(1)).sqrt()
    low, high = (limit * seen.scale for limit in ERRORS)
    told = seen.error[:, 0, 0, 0]
    assert torch.equal(seen.error, told.view(4, 1, 1, 1).expand_as(clean))
    assert ((told >= low) & (told <= high)).all()
    assert (told >= (0.8 * true).clamp(low, high)).all()
    assert (told <= (3.5 * true).clamp(low, high)).all()


def test_noise_is_the_error_of_what_was_observed_where_it_is_known():
    """Break: the noise everywhere; or nowhere."""
    values, mask, sigma = normal(2, 3, 16, 16), observed(2, 1, 16, 16), torch.tensor([0.1, 0.3])
    told, plain = show(values, mask, sigma).error, show(values, mask).error
    assert torch.equal(told, torch.where(mask, sigma.view(2, 1, 1, 1), plain))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.05, 0.2])
def test_where_nothing_is_erased_the_flattest_places_tell_how_strong_noise_is(axes, sigma):
    """Texture and clipped places say nothing of it. Breaks: the mean over all places; clipped places looked at."""
    shape = {1: (4000,), 2: (96, 90), 3: (28, 28, 100)}[axes]
    clean = 1 + 0.3 * torch.sign(normal(2, 1, *shape))  # texture
    clean[..., shape[-1] // 4 :] = 1.2
    seen = clean + sigma * normal(2, 1, *shape)
    seen[..., shape[-1] // 2 :] = 2.0  # clipped
    found = show(seen).error
    told = found.flatten(1)[:, 0]
    assert torch.equal(found, told.view(2, *(1,) * (axes + 1)).expand(2, 1, *shape))
    assert ((told > 0.15 * sigma) & (told < 1.1 * sigma)).all()
    torch.testing.assert_close(show(3 * seen).error, 3 * found)


def test_roughness_has_an_end_to_both_sides():
    flat = torch.ones(1, 1, 64, 64)
    low, high = (limit * show(flat).scale for limit in ROUGH)
    assert (show(flat).error == low).all()
    rough = 1 + 100 * normal(1, 1, 64, 64).sign()
    assert (show(rough).error <= ROUGH[1] * show(rough).scale).all()
    assert low < high


def test_where_nothing_tells_the_error_is_what_is_usual_elsewhere():
    """Break: 0, and with it an answer that is y."""
    seen = show(normal(2, 1, 8, 8), torch.ones(2, 1, 8, 8, dtype=torch.bool))
    torch.testing.assert_close(seen.error, (ELSEWHERE * seen.scale).view(2, 1, 1, 1).expand(2, 1, 8, 8))


# --- A model bound to an observation ----------------------------------------------------------------------------------

UNETS = [
    UNetSettings(dims=1, widths=(4, 8), blocks=1, given=True),
    UNetSettings(dims=2, widths=(4, 8), blocks=1, given=True),
    UNetSettings(dims=2, channels=3, widths=(4, 8), blocks=1, given=True),
    UNetSettings(dims=3, widths=(4,), blocks=1, shuffle=1, given=True),
]
VECTOR = VectorNetSettings(5, 16, 2, given=True)
NETWORKS: list[NetworkSettings] = [*UNETS, VECTOR]
"""One row a kind of conditional network; a new one is a new row."""

ERRORS_OF_CARD = {"gray": {"0.05": 1e-3, "0.5": 1e-2, "inf": 0.05}, "colour": {"0.05": 1e-3, "0.5": 1e-2, "inf": 0.05}}


def name_of(size: NetworkSettings) -> str:
    return "vector" if isinstance(size, VectorNetSettings) else f"{size.dims}d-{size.channels}c"


def untrained(size: NetworkSettings, **card: object) -> Denoiser:
    """Build a denoiser whose answer depends on everything that it is shown."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(Card(size, errors=ERRORS_OF_CARD, **card)).requires_grad_(False)
    if isinstance(size, UNetSettings):
        denoiser.network.tail.weight.mul_(20)
    return denoiser


class Case(NamedTuple):
    """A batch of observations, their mask, and noisy signals."""

    y: Tensor
    mask: Tensor
    x: Tensor


def case_for(size: NetworkSettings, batch: int = 2) -> Case:
    if isinstance(size, VectorNetSettings):
        shape, one = (batch, size.features), (batch, size.features)
    else:
        space = {1: (21,), 2: (13, 10), 3: (5, 6, 4)}[size.dims]
        shape, one = (batch, size.channels, *space), (batch, 1, *space)
    return Case(normal(*shape), observed(*one), normal(*shape, seed=2))


def at_observed(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0)


all_networks = pytest.mark.parametrize("size", NETWORKS, ids=name_of)


@all_networks
def test_hidden_values_change_no_answer(size):
    """Not at any noise of x, not the best guess, not a draw. Break: values times mask."""
    denoiser, case = untrained(size), case_for(size)

    def answers(y: Tensor) -> list[Tensor]:
        bound = denoiser.given(y, case.mask, 0.0)
        posterior = blind_posterior(bound)
        return [bound(case.x, 0.3), posterior.mean, sample(posterior, 1, steps=2)]

    expected = answers(case.y)
    assert all(answer.isfinite().all() for answer in expected)
    for hidden in HIDDEN:
        for one, other in zip(expected, answers(case.y.masked_fill(~case.mask, hidden)), strict=True):
            assert torch.equal(one, other)


@all_networks
def test_what_was_observed_without_noise_comes_back_bit_for_bit(size):
    """In the best guess and in draws of any method, several draws of several items.

    Breaks: the answer of the network taken everywhere; the error on the card taken for that of what is known.
    """
    denoiser, case = untrained(size, offset=0.1, scale=1.7), case_for(size)
    posterior = blind_posterior(denoiser.given(case.y, case.mask, 0.0))
    kept = at_observed(case.y, case.mask)
    assert torch.equal(at_observed(posterior.mean, case.mask), kept)
    assert (posterior.mean != case.y).any()
    for method in ("corrected", "ancestral", "ancestral-plain"):
        draws = sample(posterior, 3, steps=3, method=method)
        assert all(torch.equal(at_observed(draw, case.mask), kept) for draw in draws)
        assert (draws[0] != draws[1]).any()


@all_networks
def test_noise_in_what_was_observed_is_taken_away(size):
    """Where noise is stated, for all items or one of them, or nothing is said. Break: everything observed kept."""
    denoiser, case = untrained(size), case_for(size)
    kept = at_observed(case.y, case.mask)
    for sigma in (None, 0.1):
        answer = blind_posterior(denoiser.given(case.y, case.mask, sigma)).mean
        assert (at_observed(answer, case.mask) != kept).any()
    answer = blind_posterior(denoiser.given(case.y, case.mask, torch.tensor([0.0, 0.1]))).mean
    same = at_observed(answer, case.mask) == kept
    assert same[0].all()
    assert not same[1].all()


@all_networks
def test_noise_that_hides_everything_is_not_looked_at(size):
    """At that level and above x may be anything; below it matters. Break: x handed on as it is."""
    denoiser, case = untrained(size), case_for(size)
    bound = denoiser.given(case.y, case.mask)
    for factor in (1.0, 3.0):
        level = factor * bound.blind
        assert torch.equal(bound(case.x, level), bound(torch.full_like(case.x, torch.nan), level))
    assert (bound(case.x, bound.blind / 2) != bound(-case.x, bound.blind / 2)).any()


@all_networks
def test_a_batch_of_several_times_the_observations_takes_them_in_turn(size):
    """Break: each observation several times in a row."""
    denoiser, case = untrained(size), case_for(size)
    bound = denoiser.given(case.y, case.mask, 0.0)
    other = normal(*case.x.shape, seed=5)
    for level in (torch.tensor(0.3), bound.blind.repeat(2)):
        parts = [bound(x, level[: len(x)] if level.ndim else level) for x in (case.x, other)]
        torch.testing.assert_close(bound(torch.cat([case.x, other]), level), torch.cat(parts), rtol=1e-5, atol=1e-5)


def test_what_is_known_on_a_gpu_tells_of_levels_that_are_not_there(monkeypatch):
    """Seen by tensors that stand for those of a GPU, where there is none."""
    denoiser = untrained(NETWORKS[0])
    monkeypatch.setattr(denoiser, "expected_error", lambda sigma, channels: sigma**2)  # noqa: ARG005
    with FakeTensorMode():
        there = torch.ones(2, 1, 4, 4, device="cuda")
        bound = Conditioned(denoiser, Given(there, there, torch.ones(2, device="cuda"), there), there)
        for level in (torch.ones(()), torch.ones(4, 1, 4, 4)):
            assert bound.expected_error(level, 1).device.type == "cpu"


@all_networks
def test_units_are_a_change_of_observation_and_signal_alike(size):
    """Breaks: the observation not taken to the values of the network; the level that hides everything neither."""
    plain, other = untrained(size), untrained(size, offset=100.0, scale=50.0)
    case = case_for(size)
    one, two = plain.given(case.y, case.mask), other.given(100 + 50 * case.y, case.mask)
    torch.testing.assert_close(two.blind, 50 * one.blind, rtol=1e-3, atol=0)
    for level in (0.3, one.blind):
        answer = two(100 + 50 * case.x, 50 * level)
        torch.testing.assert_close(answer, 100 + 50 * one(case.x, level), rtol=1e-3, atol=2e-2)


@pytest.mark.parametrize("size", UNETS, ids=name_of)
def test_scaling_signal_observation_and_level_scales_the_answer(size):
    """Law 11. Breaks: the scale always 1; the error of the filling always the same; mask not in units of it."""
    denoiser, case = untrained(size), case_for(size)
    for mask in (case.mask, None):
        bound = denoiser.given(case.y, mask)
        for sigma in (0.3, bound.blind):
            answer = bound(case.x, sigma)
            for alpha in (0.1, 0.5, 2, 10):
                scaled = denoiser.given(alpha * case.y, mask)(alpha * case.x, alpha * sigma)
                assert (scaled - alpha * answer).norm() <= 1e-5 * (alpha * answer).norm()


@all_networks
def test_a_model_is_shown_what_it_was_made_for_and_nothing_else(size):
    """Breaks: what is given left unused; a network that needs it called without."""
    conditional, plain = untrained(size), untrained(replace(size, given=False))
    case = case_for(size)
    with pytest.raises(ModelError, match="noise alone") as error:
        plain.given(case.y, case.mask)
    assert is_one_sentence(error)
    with pytest.raises(ModelError, match="noise alone") as error:
        plain(case.x, 0.3, conditional.given(case.y, case.mask).seen)
    assert is_one_sentence(error)
    with pytest.raises(ModelError, match="from an observation") as error:
        conditional(case.x, 0.3)
    assert is_one_sentence(error)


@pytest.mark.parametrize("sigma", [0.0, 0.1])
@pytest.mark.parametrize("size", UNETS, ids=name_of)
def test_a_second_look_is_shown_the_first_answer_where_pixels_are_erased(size, sigma):
    """Breaks: the answer shown everywhere; its error said to be half that of the filling; looked at once."""
    y, mask, _ = case_for(size)
    bound = untrained(size, offset=0.5, scale=2.0).given(y, mask, sigma)
    first = bound(torch.zeros_like(y), bound.blind)
    again = bound.refined(first).seen
    torch.testing.assert_close(again.values, torch.where(mask, bound.seen.values, (first - 0.5) / 2))
    torch.testing.assert_close(again.error, bound.seen.error)
    assert torch.equal(again.mask, bound.seen.mask)
    posterior = blind_posterior(bound, Compute(precision="float32"))
    second = bound.refined(first)(torch.zeros_like(y), bound.blind)
    torch.testing.assert_close(posterior.mean, second)
    assert (second - first).abs().max() > 1e-3


@pytest.mark.parametrize("size", [UNETS[1], VECTOR], ids=name_of)
def test_what_is_no_image_or_has_nothing_erased_is_looked_at_once(size):
    """Break: always twice."""
    y, mask, _ = case_for(size)
    assert untrained(size).given(y, mask, 0.0).is_worth_a_second_look == (size is not VECTOR)
    assert not untrained(size).given(y).is_worth_a_second_look


def test_items_that_are_looked_at_again_see_their_own_first_answer():
    """Breaks: the numbers of items not shifted as tasks are joined; gradients through the first look."""
    perturb, model = parse("erase:fraction=0.5"), untrained(UNETS[1]).requires_grad_()
    generator = torch.Generator().manual_seed(3)
    images = [normal(1, 1, 12, 12, seed=item) for item in range(12)]
    tasks = [shown_task(image, perturb(image, generator), generator) for image in images]
    task, count = joined(tasks), sum(len(each.again) for each in tasks)
    assert 3 < count < 12
    assert all((item in task.again) == bool(each.again) for item, each in enumerate(tasks))
    assert all(item in task.again for item in range(12) if task.sigma[item] < 0.9 * BLIND * task.given.scale[item])
    seen = task.seen_by(model)
    assert not seen.values.requires_grad
    for item in range(12):
        alone = task.given.rows([item])
        if item in task.again:
            alone = alone.refined(model(torch.zeros(1, 1, 12, 12), BLIND * alone.scale, alone))
        torch.testing.assert_close(seen.values[[item]], alone.values)
        torch.testing.assert_close(seen.error[[item]], alone.error)


@pytest.mark.parametrize("mask", [True, False], ids=["missing", "all"])
@pytest.mark.parametrize(
    ("size", "space", "tile"), [(UNETS[0], (203,), 7), (UNETS[1], (67, 50), 16), (UNETS[2], (50, 67), 30)]
)
def test_tiled_is_whole_once_the_halo_covers_the_receptive_field(size, space, tile, mask):
    """Law 16, for the mean at two levels, and for a draw.

    Breaks: a halo half as wide; of every tile the first item's observation; the window of another tile; what is known
    not cut.
    """
    denoiser = untrained(size)
    y = normal(2, size.channels, *space)
    bound = denoiser.given(y, observed(2, 1, *space) if mask else None, 0.0)
    x = normal(*y.shape, seed=2)
    whole, tiled = (Compute(device="cpu", precision="float32", tile=each, halo=size.radius) for each in (10_000, tile))
    for level in (torch.tensor(0.3), bound.blind):
        answers = [Tiled(bound, compute)(x, level) for compute in (whole, tiled)]
        assert (answers[0] - answers[1]).abs().max() <= 1e-5 * answers[0].abs().max().clamp(min=1)
    draws = [sample(blind_posterior(bound, compute), 1, steps=3, seed=4) for compute in (whole, tiled)]
    assert (draws[0] - draws[1]).abs().max() <= 1e-4 * draws[0].abs().max().clamp(min=1)


# --- Law 15 -----------------------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What is to be known of hidden components: their mean, and the trace of their covariance, exactly."""

    mean: Tensor
    error: Tensor


def oracle(mixture: GaussianMixture, x: Tensor, mask: Tensor) -> Answer:
    """Return E[x | its observed components], ``(batch, feature)``, and the variance that is left, ``(batch,)``."""
    mean, error = x.double().clone(), torch.zeros(len(x), dtype=torch.float64)
    for pattern in mask.unique(dim=0):
        rows = (mask == pattern).all(1)
        seen, hidden = pattern.nonzero()[:, 0], (~pattern).nonzero()[:, 0]
        gap = x[rows][:, None, seen].double() - mixture.means[:, seen]
        cross = mixture.covariances[:, hidden][:, :, seen]
        within = mixture.covariances[:, seen][:, :, seen]
        gain = torch.linalg.solve(within, cross.transpose(1, 2)).transpose(1, 2)
        centres = mixture.means[:, hidden] + torch.einsum("kho,nko->nkh", gain, gap)
        solved = torch.linalg.solve(within, gap[..., None])[..., 0]
        fit_of = -0.5 * (gap * solved).sum(-1) - 0.5 * torch.logdet(within) if len(seen) else gap.sum(-1)
        weight = torch.softmax(mixture.weights.log() + fit_of, 1)
        centre = torch.einsum("nk,nkh->nh", weight, centres)
        left = mixture.covariances[:, hidden][:, :, hidden] - gain @ cross.transpose(1, 2)
        spread = left.diagonal(dim1=1, dim2=2).sum(1) + (centres - centre[:, None]).square().sum(-1)
        mean[rows.nonzero(), hidden] = centre
        error[rows] = (weight * spread).sum(1)
    return Answer(mean, error)


FEATURES = 6
PLACES = torch.arange(FEATURES, dtype=torch.float64)
GAUSSIAN = GaussianMixture(
    torch.ones(1, dtype=torch.float64),
    torch.linspace(-0.5, 0.5, FEATURES, dtype=torch.float64)[None],
    (0.85 ** (PLACES[:, None] - PLACES).abs())[None],
)
"""Six features, each of which tells of its neighbours."""


def gaussian_points(generator: np.random.Generator, _: int) -> np.ndarray:
    root = np.linalg.cholesky(GAUSSIAN.covariances[0].numpy())
    return (GAUSSIAN.means.numpy() + generator.standard_normal((256, FEATURES)) @ root.T).astype(np.float32)


def trained(features: int, spec: str, draw: Callable[[np.random.Generator, int], np.ndarray], **options) -> Denoiser:
    """Train a small conditional network for vectors."""
    torch.set_num_threads(1)
    settings = FitSettings(
        spec,
        VectorNetSettings(features, 64, 2),
        batch=4,
        share=4,
        rate=4e-3,
        warmup=50,
        decay=0.7,
        average=0.99,
        **options,
    )
    state = FitState.start(settings)
    for _ in fit(state, draw, precision="float32", threads=1):
        pass
    return state.averaged


class Trial(NamedTuple):
    """Vectors of which something was erased, and the model bound to what is left."""

    clean: Tensor
    mask: Tensor
    exact: Answer
    bound: Conditioned


def trial(denoiser: Denoiser, mixture: GaussianMixture, spec: str, n: int) -> Trial:
    generator = torch.Generator().manual_seed(11)
    clean = mixture.sample(n, generator).float()
    y, mask, sigma = parse(spec)(clean, generator)
    return Trial(clean, mask, oracle(mixture, clean, mask), denoiser.given(y, mask, sigma))


@pytest.fixture(scope="module")
def gaussian_trial() -> Trial:
    spec = "erase:fraction=0.2..0.6"
    return trial(trained(FEATURES, spec, gaussian_points, steps=500), GAUSSIAN, spec, 1500)


@pytest.fixture(scope="module")
def toy_trial() -> Trial:
    spec = "erase:fraction=0.5"
    return trial(trained(2, spec, toy_points, steps=400), toy_mixture(), spec, 6000)


def test_the_oracle_is_that_of_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    for mixture in (GAUSSIAN, toy_mixture()):
        features = mixture.means.shape[1]
        x, mask = mixture.sample(3, generator), observed(3, features)
        mask[:, 0], mask[:, 1] = True, False
        answer = oracle(mixture, x, mask)
        for row in range(3):
            seen = torch.eye(features, dtype=torch.float64)[mask[row]]
            stated = mixture.observed(seen, seen @ x[row], torch.zeros(len(seen), len(seen), dtype=torch.float64))
            torch.testing.assert_close(answer.mean[row], stated.weights @ stated.means)
            away = (stated.means - answer.mean[row]).square().sum(1)
            variance = stated.covariances.diagonal(dim1=1, dim2=2).sum(1) + away
            torch.testing.assert_close(answer.error[row], stated.weights @ variance)


def test_law_15_imputation_is_as_good_as_that_of_the_oracle(gaussian_trial):
    """Breaks: the mask not shown; what was erased shown as 0 only in training."""
    clean, _, exact, bound = gaussian_trial
    mean = blind_posterior(bound).mean
    rmse, least = ((answer - clean).square().mean().sqrt() for answer in (mean, exact.mean))
    assert rmse <= 1.02 * least


def test_law_15_intervals_of_draws_cover_what_they_say(gaussian_trial):
    """Of 39 draws and the truth each is the lowest, or the highest, as often: from lowest to highest draw is 95 %.

    Break: the noise of a draw's steps a tenth too small.
    """
    clean, mask, _, bound = gaussian_trial
    draws = sample(blind_posterior(bound), 39, seed=1)
    inside = ((clean >= draws.amin(0)) & (clean <= draws.amax(0)))[~mask]
    assert 0.93 <= inside.float().mean() <= 0.97


@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
def test_law_15_what_was_observed_stays_and_what_was_hidden_has_no_part(gaussian_trial, hidden):
    """Breaks: the answer of the network taken everywhere; values times mask."""
    clean, mask, _, bound = gaussian_trial
    few = slice(0, 50)
    told = blind_posterior(bound.denoiser.given(clean[few].masked_fill(~mask[few], hidden), mask[few], 0.0))
    draws = sample(told, 2, seed=1)
    truth = blind_posterior(bound.denoiser.given(clean[few], mask[few], 0.0))
    assert torch.equal(told.mean, truth.mean)
    assert torch.equal(draws, sample(truth, 2, seed=1))
    for answer in (told.mean, *draws):
        assert torch.equal(at_observed(answer, mask[few]), at_observed(clean[few], mask[few]))


def test_of_several_modes_the_mean_is_best_and_draws_have_twice_its_error(toy_trial):
    """On the toy mixture, against the exact error of the best guess.

    A draw knows nothing of the truth but by the observation, so that its squared distance from the truth is that from
    the exact mean, and the error of the exact mean besides.

    Breaks: all draws the best guess; a draw's noise a tenth too large.
    """
    _, _, exact, bound = toy_trial
    least = exact.error.mean()
    posterior = blind_posterior(bound)
    excess = (posterior.mean - exact.mean).square().sum(1).mean()
    assert excess <= 0.03 * least
    draws = sample(posterior, 4, seed=1)
    assert 1 + (draws - exact.mean).square().sum(2).mean() / least == pytest.approx(2, rel=0.05)


# --- Law 17 -----------------------------------------------------------------------------------------------------------


def smooth_signals(size: NetworkSettings, generator: np.random.Generator, item: int) -> np.ndarray:
    if isinstance(size, VectorNetSettings):
        return generator.standard_normal((3, size.features)).astype(np.float32).cumsum(1)
    channels = size.channels if item % 2 else 1
    return generator.standard_normal((channels, *(8,) * size.dims)).cumsum(-1, np.float32)


@pytest.mark.parametrize(
    ("size", "spec"),
    [
        (UNETS[2], "erase:fraction=0..0.9 | block:size=2..4,count=1..2 + gaussian:sigma=0.1"),
        (UNETS[1], "blur:sigma=0.5..1 + poisson:gain=0.1"),
        (VECTOR, "erase:fraction=0.5"),
    ],
    ids=["erased", "blurred", "vectors"],
)
def test_a_conditional_run_is_resumed_as_if_it_had_not_stopped(size, spec, tmp_path):
    """Law 17. Break: masks from torch's global generator."""
    draw = partial(smooth_signals, size)
    settings = FitSettings(spec, size, steps=4, batch=4, share=2, rate=3e-3, warmup=1, patch_size=8)
    whole, first = FitState.start(settings), FitState.start(settings)
    list(fit(whole, draw, precision="float32", threads=1))
    steps = fit(first, draw, precision="float32", threads=2)
    next(steps), next(steps)
    steps.close()
    first.save(tmp_path / "state.safetensors")
    second = FitState.resume(tmp_path / "state.safetensors", settings)
    list(fit(second, draw, precision="float32", threads=1))
    for one, other in ((whole.denoiser, second.denoiser), (whole.averaged, second.averaged)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[key]), key
