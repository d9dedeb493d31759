"""What was taken away, beside the noise that was assumed: white where all is right, and told where it is not."""

import math

import pytest
import torch

from unperturb.errors import UsageError
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.posterior import Posterior
from unperturb.infer.residual import residual
from unperturb.infer.sample import sample

SHAPE = (1, 200, 300)
SIGMA, PRIOR = 0.7, 0.04


def shrinking(x, sigma):
    """Return the posterior mean for white clean signals of variance `PRIOR`, in closed form."""
    return x * PRIOR / (PRIOR + torch.as_tensor(sigma) ** 2)


def seen(noise):
    return math.sqrt(PRIOR) * keyed_normal([(1,)], SHAPE) + SIGMA * noise


def drawn(posterior):
    """Draw exactly: the posterior of a white Gaussian is one."""
    level = posterior.spread_of_noise
    spread = (PRIOR * level**2 / (PRIOR + level**2)).sqrt()
    return (posterior.mean + spread * keyed_normal([(3,)], SHAPE))[None]


def test_draws_from_the_right_posterior_leave_white_noise_of_the_right_level():
    """Within 4 standard errors, exactly drawn and by the sampler. The best guess does not leave such noise.

    Breaks: a product of neighbours across the border; variance not divided by the number of draws.
    """
    posterior = Posterior(shrinking, seen(keyed_normal([(2,)], SHAPE)), SIGMA)
    error = 4 / math.sqrt(posterior.start.numel())
    found = residual(posterior, torch.cat([drawn(posterior), sample(posterior, 1, steps=40)]))
    assert found.variance == pytest.approx(1, abs=math.sqrt(2) * error)
    assert max(map(abs, found.neighbours)) < error
    assert found.is_white
    assert found.fits_level
    assert residual(posterior, posterior.mean[None]).variance < 0.96


@pytest.mark.parametrize("axis", [0, 1])
def test_correlated_noise_is_told_with_its_axis(axis):
    white = keyed_normal([(2,)], SHAPE)
    noise = (white + 0.3 * white.roll(1, 2 + axis)) / math.sqrt(1 + 0.09)
    found = residual(*_with_draws(Posterior(shrinking, seen(noise), SIGMA)))
    assert not found.is_white
    assert abs(found.neighbours[axis]) > 0.05 > abs(found.neighbours[1 - axis])


@pytest.mark.parametrize("factor", [0.8, 1.25])
def test_a_wrong_level_is_told(factor):
    found = residual(*_with_draws(Posterior(shrinking, seen(keyed_normal([(2,)], SHAPE)), factor * SIGMA)))
    assert not found.fits_level
    assert (found.variance > 1) == (factor < 1)


def test_what_is_not_trusted_does_not_count():
    """Break: `trusted` ignored."""
    start = seen(keyed_normal([(2,)], SHAPE))
    trusted = torch.ones_like(start, dtype=torch.bool)
    trusted[..., :50, :] = False
    start[..., :50, :] = 100.0
    posterior = Posterior(shrinking, start, SIGMA)
    assert residual(posterior, drawn(posterior), trusted).fits_level
    assert not residual(posterior, drawn(posterior)).fits_level
    with pytest.raises(UsageError):
        residual(posterior, drawn(posterior), torch.zeros_like(trusted))


def test_a_few_values_are_not_told_off_for_chance():
    """White noise of the right level on 8 × 8 pixels. Break: margins that do not widen where there is little to see."""
    for seed in range(20):
        noise = keyed_normal([(seed, 2)], (1, 8, 8))
        start = math.sqrt(PRIOR) * keyed_normal([(seed, 1)], (1, 8, 8)) + SIGMA * noise
        posterior = Posterior(shrinking, start, SIGMA)
        found = residual(posterior, sample(posterior, 1, steps=20, seed=seed))
        assert found.is_white
        assert found.fits_level


def test_vectors_have_no_neighbours():
    with pytest.raises(UsageError, match="neighbours"):
        residual(Posterior(shrinking, torch.zeros(1, 3), 1.0), torch.zeros(1, 1, 3))


def _with_draws(posterior):
    return posterior, drawn(posterior)
