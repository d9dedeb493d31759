"""Draws from the posterior: laws 6, 7, 8, and what of law 16 concerns draws.

They are held over every method and over exact denoise functions, so that what fails is the sampler.
"""

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.posterior import Posterior, onset_of
from unperturb.infer.sample import (
    METHODS,
    State,
    ancestral,
    corrected,
    default_levels,
    falling_levels,
    geometric_levels,
    polynomial_levels,
    sample,
    scalar_spread,
    trajectory,
)
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.card import Card
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.exact import GaussianMixture
from unperturb.model.network import UNetSettings

DOUBLE = torch.float64
SAMPLERS = {"corrected": 40, "ancestral": 80, "ancestral-plain": 160, "ancestral-jacobian": 25}
"""Methods that draw from the posterior, and the steps at which they are asked to. A new method is a new row."""


def toy() -> GaussianMixture:
    """Return the mixture of four components that the laws are stated for."""
    means = torch.tensor([[0, -2], [0.4, 2], [1.5, 0], [-1.5, 0.5]], dtype=DOUBLE)
    return GaussianMixture.isotropic(torch.tensor([0.3, 0.3, 0.2, 0.2], dtype=DOUBLE), means, 0.35)


SIGMA = 1.0
PAIRS = 10_000
SEEN = torch.tensor([0.3, 0.6], dtype=DOUBLE)
"""A point from which all four components can be told apart, and three are likely."""


@cache
def pairs() -> tuple[Tensor, Tensor]:
    """Return clean points, and what was seen of them."""
    generator = torch.Generator().manual_seed(0)
    clean = toy().sample(PAIRS, generator)
    return clean, clean + SIGMA * torch.randn(clean.shape, generator=generator, dtype=DOUBLE)


@cache
def drawn(method: str, steps: int) -> tuple[Tensor, Tensor]:
    """Return two draws for each pair, and 10,000 for the one point `SEEN`."""
    _, y = pairs()
    both = torch.cat([y, y, SEEN.repeat(PAIRS, 1)])
    draws = sample(Posterior(toy(), both, SIGMA), steps=steps, method=method)[0]
    return draws[: 2 * PAIRS].view(2, PAIRS, 2), draws[2 * PAIRS :]


def test_every_method_is_held_to_the_laws():
    """Break: a method was added to `METHODS` without a row here."""
    assert {*SAMPLERS, "flow"} == set(METHODS)


# --- Law 6: twice the error -------------------------------------------------------------------------------------------


def error(estimate: Tensor) -> float:
    clean, _ = pairs()
    return float((estimate - clean).square().sum(1).mean())


@pytest.mark.parametrize("method", SAMPLERS)
def test_a_draw_has_twice_the_error_of_the_best_guess(method):
    """And the mean of two draws 3/2 of it, and a mixture (1 − a) D + a·draw 1 + a² of it.

    The stated 0.05 is two standard errors of the ratio at this number of pairs.

    Breaks: no new noise in a step; noise of the level before the step; (1 − a) C instead of (1 − a)² C.
    """
    clean, y = pairs()
    best = toy()(y, SIGMA)
    draws, _ = drawn(method, SAMPLERS[method])
    least = error(best)
    assert error(draws[0]) / least == pytest.approx(2, abs=0.05)
    assert error(draws.mean(0)) / least == pytest.approx(1.5, abs=0.05)
    for a in (0.3, 0.7):
        assert error((1 - a) * best + a * draws[1]) / least == pytest.approx(1 + a**2, abs=0.05)
    assert clean.shape == y.shape


# --- Law 7: the right modes -------------------------------------------------------------------------------------------


def has_the_right_modes(draws: Tensor) -> dict[str, bool]:
    """Compare draws of p(x | SEEN) with exact ones: weights of the modes, variances within them, energy distance."""
    generator = torch.Generator().manual_seed(1)
    exact = toy().posterior(SEEN, SIGMA).sample(100_000, generator)
    ours, theirs = (_nearest(points) for points in (draws, exact))
    weights, stated = (torch.bincount(which, minlength=4) / len(which) for which in (ours, theirs))
    variances = [
        float((draws[ours == k].var(0) / exact[theirs == k].var(0)).mean()) if (ours == k).sum() > 2 else 0.0
        for k in range(4)
        if stated[k] > 0.05
    ]
    # The stated 5 %, and the standard error of a variance of so many draws.
    slack = [0.05 + 3 * math.sqrt(1 / (len(draws) * float(stated[k]))) for k in range(4) if stated[k] > 0.05]
    return {
        "weights": float((weights - stated).abs().sum()) / 2 <= 0.02,
        "variances": all(abs(v - 1) <= s for v, s in zip(variances, slack, strict=True)),
        "energy": _energy_distance_is_small(draws[:1000], exact[:1000]),
    }


def _nearest(points: Tensor) -> Tensor:
    return torch.cdist(points, toy().means).argmin(1)


def _energy_distance_is_small(one: Tensor, two: Tensor) -> bool:
    """Whether the distance is below the 99 % quantile of those of random splits of both together."""
    both = torch.cat([one, two])
    distances = torch.cdist(both, both)
    n, generator = len(one), torch.Generator().manual_seed(2)
    signs = torch.ones(500, 2 * n, dtype=DOUBLE)
    for row in signs[1:]:
        row[torch.randperm(2 * n, generator=generator)[:n]] = -1
    signs[0, n:] = -1
    energy = -torch.einsum("si,ij,sj->s", signs, distances, signs)
    return bool(energy[0] <= energy[1:].quantile(0.99))


@pytest.mark.parametrize("method", SAMPLERS)
def test_a_posterior_of_several_modes_is_drawn_as_it_is(method):
    """Breaks: a draw's own noise used twice; the posterior's temperature raised by a tenth."""
    _, draws = drawn(method, SAMPLERS[method])
    assert all(has_the_right_modes(draws).values()), has_the_right_modes(draws)


def test_exact_draws_have_the_right_modes():
    draws = toy().sample_posterior(SEEN.repeat(PAIRS, 1), SIGMA, torch.Generator().manual_seed(5))
    assert all(has_the_right_modes(draws).values())


def test_one_gaussian_step_has_the_right_error_and_the_wrong_modes():
    """Twice the error is necessary, not sufficient."""
    _, y = pairs()
    draws = sample(Posterior(toy(), y, SIGMA), steps=1, method="ancestral-jacobian")[0]
    assert error(draws) / error(toy()(y, SIGMA)) == pytest.approx(2, abs=0.05)
    draws = sample(Posterior(toy(), SEEN.repeat(PAIRS, 1), SIGMA), steps=1, method="ancestral-jacobian")[0]
    assert not any(has_the_right_modes(draws).values())


def test_the_deterministic_flow_is_not_a_sampler():
    draws = sample(Posterior(toy(), SEEN.repeat(PAIRS, 1), SIGMA), steps=40, method="flow")[0]
    assert not any(has_the_right_modes(draws).values())
    assert float(draws.var(0).max()) < 1e-20


# --- Law 8: order -----------------------------------------------------------------------------------------------------

PRIOR = torch.tensor([1.0, 0.3, 0.05], dtype=DOUBLE)
"""Variances of a Gaussian with axes of its own, for which a walk is linear and its law can be written down."""


def final_variance(method: str, steps: int) -> Tensor:
    """Return the exact variance of the draws from that Gaussian: the sum over all noise of its gain squared."""
    gaussian = GaussianMixture(torch.ones(1, dtype=DOUBLE), torch.zeros(1, 3, dtype=DOUBLE), torch.diag(PRIOR)[None])
    posterior = Posterior(gaussian, torch.zeros(2 * steps, 3, dtype=DOUBLE), SIGMA)

    def impulse(step: int, n: int) -> Tensor:
        field = torch.zeros(2 * steps, 3, dtype=DOUBLE)
        field[2 * step + n] = 1
        return field

    *_, last = trajectory(posterior, impulse, method=method, levels=polynomial_levels(steps))
    return last.x.square().sum(0)


@pytest.mark.parametrize(("method", "order"), [("ancestral-plain", 1), ("ancestral", 1), ("corrected", 2)])
def test_the_error_falls_at_the_stated_order(method, order):
    """The slope of error against steps, for each axis and without Monte-Carlo error.

    Breaks: the correction added t/s times; half of it.
    """
    exact = PRIOR * SIGMA**2 / (PRIOR + SIGMA**2)
    coarse, fine = (((final_variance(method, steps) - exact) / exact).abs() for steps in (40, 160))
    # The scalar variance is right for the axis of mean variance only: there its error may cross zero.
    slope = float((coarse.log() - fine.log()).median()) / math.log(4)
    assert slope == pytest.approx(order, abs=0.15)


def test_twenty_corrected_steps_are_within_five_percent_on_every_axis():
    """And the last step, with nothing to send through, has the variance of the model's error.

    Breaks: the answer after the correction not continued; the last step without its variance.
    """
    exact = PRIOR * SIGMA**2 / (PRIOR + SIGMA**2)
    assert torch.allclose(final_variance("corrected", 20), exact, rtol=0.05)
    assert torch.allclose(final_variance("corrected", 1), exact.mean().expand(3), rtol=0.03)


def test_the_whole_covariance_has_no_error_for_a_gaussian():
    exact = PRIOR * SIGMA**2 / (PRIOR + SIGMA**2)
    assert torch.allclose(final_variance("ancestral-jacobian", 4), exact, rtol=1e-6)


def test_the_flow_converges_at_first_order():
    """To y · sqrt(v / (v + σ²)) for a Gaussian of variance v, the flow's own end."""
    gaussian = GaussianMixture(torch.ones(1, dtype=DOUBLE), torch.zeros(1, 3, dtype=DOUBLE), torch.diag(PRIOR)[None])
    y = torch.tensor([[1.0, -0.5, 0.2]], dtype=DOUBLE)
    end = y * (PRIOR / (PRIOR + SIGMA**2)).sqrt()
    errors = [
        (sample(Posterior(gaussian, y, SIGMA), steps=steps, method="flow")[0] - end).norm() for steps in (100, 400)
    ]
    assert math.log(errors[0] / errors[1]) / math.log(4) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("method", ["ancestral", "corrected"])
def test_with_a_variance_twenty_steps_do_what_fifty_do_without(method):
    """In twice the error of 10,000 pairs, and, exactly, in the variance of a Gaussian.

    Break: no variance beyond that of the noise.
    """
    _, y = pairs()
    least = error(toy()(y, SIGMA))
    gaps = [
        abs(error(sample(Posterior(toy(), y, SIGMA), steps=steps, method=kind)[0]) / least - 2)
        for kind, steps in ((method, 20), ("ancestral-plain", 50))
    ]
    assert gaps[0] <= gaps[1]
    exact = float((PRIOR * SIGMA**2 / (PRIOR + SIGMA**2)).sum())
    off = [
        abs(float(final_variance(kind, steps).sum()) - exact) for kind, steps in ((method, 20), ("ancestral-plain", 50))
    ]
    assert off[0] <= off[1]


# --- The same seed, the same draws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_draws_do_not_depend_on_their_company(method):
    """At any batch size, in any order of items, in one call or in several.

    Breaks: noise from one generator for the whole batch; draws numbered from 0 in every group.
    """
    _, y = pairs()
    y = y[:6]
    whole = sample(Posterior(toy(), y, SIGMA), 5, steps=4, method=method, seed=3)
    one_by_one = sample(Posterior(toy(), y, SIGMA), 5, steps=4, method=method, seed=3, batch=1)
    in_groups = torch.cat(
        [sample(Posterior(toy(), y, SIGMA), part, steps=4, method=method, seed=3) for part in (range(2), range(2, 5))]
    )
    order = [4, 0, 2]
    some = sample(Posterior(toy(), y[order], SIGMA), 5, steps=4, method=method, seed=3, items=order)
    assert torch.allclose(whole, one_by_one, atol=1e-9)
    assert torch.allclose(whole, in_groups, atol=1e-9)
    assert torch.allclose(whole[:, order], some, atol=1e-9)
    other = sample(Posterior(toy(), y, SIGMA), 5, steps=4, method=method, seed=4)
    assert torch.equal(whole, other) == (method == "flow")


def test_a_draw_in_tiles_is_a_draw_of_the_whole():
    """Law 16 for draws, with a halo that covers what the network sees.

    Break: tiles cut with half the halo.
    """
    settings = UNetSettings(widths=(4, 8), blocks=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        denoiser = Denoiser(Card(settings, errors={"gray": {"0.1": 0.005}})).requires_grad_(False)
    y = keyed_normal([(0,)], (1, 90, 113))
    whole, tiled = (
        sample(
            Posterior(Tiled(denoiser, Compute("cpu", "float32", tile, settings.radius)), y, 1.0),
            2, steps=4, seed=1, batch=batch,
        )
        for tile, batch in ((1000, 2), (24, 1))
    )  # fmt: skip
    assert (whole - tiled).abs().max() <= 1e-4
    assert (whole[0] - whole[1]).abs().max() > 0.05


# --- What is around it ------------------------------------------------------------------------------------------------


def test_a_map_of_sigma_is_walked_down_pixel_by_pixel():
    """Where there is no noise nothing changes; where it is weak, little is drawn."""
    prior = 1.0

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return x * prior / (prior + sigma**2)

    level = torch.tensor([0.0, 0.1, 1.0]).view(1, 1, 3, 1).expand(1, 1, 3, 5000)
    draws = sample(Posterior(denoise, torch.ones(1, 1, 3, 5000), level), steps=100)[0, 0, 0]
    assert torch.equal(draws[0], torch.ones(5000))
    for row, sigma in ((1, 0.1), (2, 1.0)):
        assert float(draws[row].mean()) == pytest.approx(1 / (1 + sigma**2), abs=4 * sigma / 70)
        assert float(draws[row].var()) == pytest.approx(sigma**2 / (1 + sigma**2), rel=0.1)


class Inflated:
    """The mean of a standard normal component, that asks for more noise where it starts from much."""

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Return the mean."""
        return x / (1 + sigma.view(-1, 1, 1, 1) ** 2)

    def inflation(self, sigma: Tensor) -> Tensor:
        """Return what noise is to be multiplied by."""
        return torch.where(sigma > 0.5, 1.5, 1.25)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("through", [lambda denoise: denoise, Tiled], ids=["plain", "tiled"])
def test_noise_is_inflated_as_the_denoise_function_asks(method, through):
    """By what it says of the start, all the way down, item by item. Breaks: not at all; not in tiles; one for all."""
    y, level = torch.ones(4, 1, 8, 8), torch.tensor([0.3, 0.9, 0.3, 0.9])
    fields = keyed_normal([(step, n) for step in range(5) for n in (0, 1)], (4, 1, 8, 8), dtype=torch.float32)

    def noise(step: int, n: int) -> Tensor:
        return fields[2 * step + n]

    def more(step: int, n: int) -> Tensor:
        return noise(step, n) * torch.tensor([1.25, 1.5, 1.25, 1.5]).view(4, 1, 1, 1)

    def plain(x: Tensor, sigma: Tensor) -> Tensor:
        return Inflated()(x, sigma)

    levels = polynomial_levels(5)
    ends = [
        list(trajectory(Posterior(denoise, y, level), drawn, method=method, levels=levels))[-1].x
        for denoise, drawn in ((through(Inflated()), noise), (plain, more), (plain, noise))
    ]
    assert torch.allclose(ends[0], ends[1], atol=1e-5)
    assert torch.allclose(ends[0], ends[2], atol=1e-5) == (method == "flow")
    few = Posterior(through(Inflated()), y[:2], level[:2])
    draws = sample(few, 2, steps=3, method=method)
    assert torch.allclose(draws[1], sample(few, range(1, 2), steps=3, method=method)[0], atol=1e-5)


def test_a_model_that_knows_nothing_of_its_error_is_walked_without():
    assert scalar_spread(Posterior(lambda x, _: x, torch.zeros(1, 2), 1.0)) is None
    assert scalar_spread(Posterior(toy(), torch.zeros(1, 2), 1.0)) is not None
    natural = load("natural")
    spread = scalar_spread(Posterior(Tiled(natural), torch.zeros(1, 1, 8, 8), 0.1))
    assert spread is not None


def test_an_image_that_starts_blind_loses_no_steps_on_the_way_to_where_there_is_something_to_see():
    """Breaks: the same levels as for vectors; for a walk that begins with a noisy image as well."""
    levels = default_levels(blind(torch.zeros(1, 1, 8, 8), onset=0.06), 20)
    assert len(levels) == 21
    assert levels[:2] == [1, pytest.approx(0.06)]
    assert levels[-2:] == [pytest.approx(2e-3), 0]
    assert all(low < high < 1.3 * low for high, low in pairwise(levels[1:-1]))
    assert default_levels(blind(torch.zeros(1, 1, 8, 8), onset=0.06), 2) == falling_levels(2)


def test_what_hides_in_a_gap_of_a_recording_is_drawn_as_often_as_it_is_there():
    """A beat up, four times of five, or down, of which nothing shows outside; in images what is left open is small.

    Break: begun at the noise at which an image shows, which does not hide which of both it is.
    """
    beat = torch.exp(-((torch.arange(64.0) - 32) ** 2) / 8).view(1, 1, 64) * 5

    def either(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        level = torch.as_tensor(sigma).view(-1, 1, 1)
        return torch.tanh((x * beat).sum(-1, keepdim=True) / level**2 + math.log(4) / 2) * beat

    start = torch.zeros(1, 1, 64)
    draws = sample(Posterior(either, start, torch.tensor(10.0), blind=True, onset=onset_of(start)), 400)
    height = draws[..., 32].flatten()
    assert float((height.abs() - 5).abs().mean()) < 0.1
    assert float((height > 0).float().mean()) == pytest.approx(0.8, abs=0.06)
    assert onset_of(torch.zeros(1, 1, 8, 8)) == pytest.approx(0.06)


def test_a_walk_that_sees_something_from_the_start_skips_nothing():
    """Break: every image that starts blind taken for one whose noise is far above all that there is to see."""
    for shape in ((1, 4), (1, 1, 8)):
        assert default_levels(blind(torch.zeros(shape)), 20) == falling_levels(20)
    assert default_levels(blind(torch.zeros(1, 1, 8, 8)), 20) == polynomial_levels(20)
    assert default_levels(Posterior(lambda x, _: x, torch.zeros(1, 1, 8, 8), torch.tensor(1.0)), 20) == (
        polynomial_levels(20)
    )


def blind(start: torch.Tensor, onset: float = 1.0) -> Posterior:
    return Posterior(lambda x, _: x, start, torch.tensor(1.0), blind=True, onset=onset)


def test_a_long_step_is_not_corrected():
    """Break: the noise of a step that leaves a sixteenth of the level, sent through sixteen times."""
    posterior = Posterior(lambda x, _: 0.5 * x, torch.ones(1, 4), torch.tensor(1.0))
    state = State(posterior.start, 1.0, posterior.mean)
    for level, same in ((1 / 16, True), (1 / 3, False)):
        first, second = (
            step(posterior, state, level, lambda n: torch.arange(4.0) + n, None).x for step in (corrected, ancestral)
        )
        assert torch.equal(first, second) == same


@pytest.mark.parametrize(
    "levels", [polynomial_levels(7), polynomial_levels(7, 0.5), geometric_levels(7), geometric_levels(1)]
)
def test_schedules_fall_from_one_to_nothing(levels):
    assert levels[0] == 1
    assert levels[-1] == 0
    assert np.all(np.diff(levels) < 0)


def test_what_makes_no_sense_is_refused():
    posterior = Posterior(toy(), SEEN[None], SIGMA)
    for wrong in ({"steps": 0}, {"method": "magic"}, {"n_samples": 0}):
        with pytest.raises(UsageError):
            sample(posterior, **wrong)
    for levels in ([0.5, 0.0], [1.0, 1.0, 0.0], [1.0, -0.1]):
        with pytest.raises(UsageError):
            list(trajectory(posterior, lambda *_: torch.zeros(1, 2, dtype=DOUBLE), levels=levels))
    for schedule in (polynomial_levels, geometric_levels):
        with pytest.raises(UsageError):
            schedule(0)
