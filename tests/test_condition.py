"""Linear observations: the operators, and law 9 for what is exact and what is approximate."""

import pytest
import torch
from toy import toy_mixture

from unperturb.errors import UsageError
from unperturb.infer import condition as conditioning
from unperturb.infer.condition import METHODS, condition, observed_posterior
from unperturb.infer.derivative import jacobian
from unperturb.infer.particles import ParticleDraws, sample_observed
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import sample
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.checkpoint import load
from unperturb.model.exact import GaussianMixture
from unperturb.model.linear import (
    Likelihood,
    LinearOperator,
    blur_operator,
    downsample_operator,
    likelihood_of,
    mask_operator,
)
from unperturb.model.perturbation import Perturbation
from unperturb.model.solve import conjugate_gradients
from unperturb.model.spec import parse

DOUBLE = torch.float64


def matrix_operator(matrix: torch.Tensor) -> LinearOperator:
    """Return the operator of a matrix ``(observed, feature)``."""
    return LinearOperator(lambda x: x @ matrix.T.to(x), lambda y: y @ matrix.to(y))


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# --- operators --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "shape"),
    [
        (mask_operator(normal(2, 1, 9, 7) > 0), (2, 3, 9, 7)),
        (mask_operator(normal(1, 5) > 0), (3, 5)),
        (blur_operator(1.6), (2, 3, 13, 6)),
        (blur_operator(2.0), (1, 1, 30)),
        (downsample_operator(4), (2, 3, 13, 6)),
        (matrix_operator(normal(2, 5)), (4, 2)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_an_adjoint_is_one(operator, shape, dtype):
    """Breaks: a blur that pads with 0 on its way back; block means multiplied by the size of a block on theirs."""
    operator.check(normal(*shape).to(dtype))
    y = normal(*shape).to(dtype)
    x = normal(*operator.adjoint(y).shape, seed=1).to(dtype)
    one, other = (operator.forward(x) * y).sum(), (x * operator.adjoint(y)).sum()
    assert torch.allclose(one, other, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-5)


def test_a_pair_that_is_none_is_refused():
    """Break: the comparison of the two inner products left out."""
    matrix = normal(3, 3)
    for wrong in (
        LinearOperator(lambda x: x @ matrix.T, lambda y: y @ matrix.T),
        LinearOperator(lambda x: 2 * x, lambda y: y),
        LinearOperator(lambda x: x[:, :2], lambda y: y),
    ):
        with pytest.raises(UsageError):
            Likelihood(wrong, normal(4, 3), 0.1)


# --- a likelihood of a perturbation -----------------------------------------------------------------------------------


def perturbed(spec: str, seed: int = 0) -> tuple[Perturbation, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    perturbation = parse(spec)
    clean = normal(2, 3, 24, 20)
    values, mask, _ = perturbation(clean, torch.Generator().manual_seed(seed))
    return perturbation, clean, values, mask


@pytest.mark.parametrize(
    ("spec", "sigma"),
    [
        ("erase:fraction=0.5", 0.0),
        ("erase:fraction=0.2..0.8 + gaussian:sigma=0.02", 0.02),
        ("gaussian:sigma=0.3 + block:size=8,count=2 + gaussian:sigma=0.4", 0.5),
        ("blur:sigma=1.5 + gaussian:sigma=0.02", 0.02),
        ("downsample:factor=4", 0.0),
    ],
)
def test_a_likelihood_knows_what_the_perturbation_did(spec, sigma):
    """What it says of the clean signal leaves the noise, and no more.

    Breaks: the noise levels added and not their squares; a factor that is one too large.
    """
    perturbation, clean, values, mask = perturbed(spec)
    likelihood = likelihood_of(perturbation, values, mask)
    assert likelihood.sigma == pytest.approx(sigma)
    left = likelihood.y - likelihood.forward(clean)
    seen = left if mask is None else left[mask.expand_as(left)]
    assert float(seen.square().mean()) ** 0.5 == pytest.approx(sigma, rel=0.08, abs=1e-12)


@pytest.mark.parametrize(
    "spec",
    [
        "gaussian:sigma=0.1",
        "gaussian:sigma=0.1 + blur:sigma=1.5",
        "blur:sigma=1..2",
        "downsample:factor=2..4",
        "blur:sigma=1.5 + gaussian:sigma=0..0.1",
        "blur:sigma=1.5 + downsample:factor=2",
        "erase:fraction=0.5 + poisson:gain=0.1",
        "erase:fraction=0.5 + erase:fraction=0.5",
    ],
)
def test_any_other_perturbation_is_refused(spec):
    with pytest.raises(UsageError):
        likelihood_of(parse(spec), normal(2, 3, 24, 20), torch.ones(2, 1, 24, 20, dtype=torch.bool))


def test_an_erasure_without_its_mask_is_refused():
    with pytest.raises(UsageError, match="mask"):
        likelihood_of(parse("erase:fraction=0.5"), normal(2, 3, 8, 8))
    with pytest.raises(UsageError, match="space"):
        likelihood_of(parse("blur:sigma=1"), normal(2, 8))


def test_what_cannot_be_an_observation_is_refused():
    mask = torch.ones(1, 4, dtype=torch.bool)
    for make in (
        lambda: mask_operator(mask.double()),
        lambda: Likelihood(mask_operator(mask), normal(2, 4), -0.1),
        lambda: Likelihood(mask_operator(mask), normal(2, 4) / 0, 0.1),
        lambda: Likelihood(mask_operator(mask), normal(2, 1, 4), 0.1),
        lambda: Likelihood(mask_operator(mask.expand(2, 4)), normal(3, 4), 0.1),
        lambda: Likelihood(matrix_operator(normal(2, 4)), normal(2, 2), 0.1).forward(normal(3, 4)),
    ):
        with pytest.raises(UsageError):
            make()


# --- law 9: Gaussian signals ------------------------------------------------------------------------------------------

FACTOR = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.3, 0.4, 0.3]], dtype=DOUBLE)
MEAN = torch.tensor([[0.5, -1.0, 0.2]], dtype=DOUBLE)
OPERATOR = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=DOUBLE)
SEEN = torch.tensor([[1.0, -0.7]], dtype=DOUBLE)


def gaussian(covariance: torch.Tensor) -> GaussianMixture:
    return GaussianMixture(torch.ones(1, dtype=DOUBLE), MEAN, covariance[None])


PRIORS = {"any": gaussian(FACTOR @ FACTOR.T), "white": gaussian(0.5 * torch.eye(3, dtype=DOUBLE))}


def closed_form(prior: GaussianMixture, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and covariance of p(x | y)."""
    exact = prior.observed(OPERATOR, SEEN[0], sigma**2 * torch.eye(2, dtype=DOUBLE))
    return exact.means[0], exact.covariances[0]


def assert_is(points: torch.Tensor, mean: torch.Tensor, covariance: torch.Tensor) -> None:
    """Hold draws to the stated 2 %, of the root of the trace and of the norm of the covariance."""
    assert float((points.mean(0) - mean).norm()) <= 0.02 * float(covariance.trace()) ** 0.5
    assert float((points.T.cov() - covariance).norm()) <= 0.02 * float(covariance.norm())


@pytest.mark.parametrize("sigma", [0.5, 0.0])
def test_particles_are_exact_for_gaussian_signals(sigma):
    """With any number of steps and of particles, and all of them equally likely.

    The standard error of a variance from 30,000 draws is 0.8 %.

    Breaks: a twist without the noise of the observation; q drawn with the covariance that does not know y.
    """
    found = sample_observed(
        PRIORS["any"], Likelihood(matrix_operator(OPERATOR), SEEN, sigma), 40.0, 300, n_particles=100, steps=5
    )
    assert torch.allclose(found.effective, torch.tensor(100.0, dtype=DOUBLE), rtol=1e-2)
    mean, covariance = closed_form(PRIORS["any"], sigma)
    assert_is(found.particles.reshape(-1, 3), mean, covariance)
    assert torch.allclose(found.mean[0], mean, atol=0.02 * float(covariance.trace()) ** 0.5)


@pytest.mark.parametrize(("method", "prior"), [("approximate-jacobian", "any"), ("approximate-scalar", "white")])
@pytest.mark.parametrize("sigma", [0.5, 0.0])
@pytest.mark.parametrize("level", [0.2, 0.7, 50.0])
def test_an_approximate_method_is_exact_for_the_signals_it_states(method, prior, sigma, level):
    """Mean and covariance of p(x | x_t, y) are those of the closed form; at the last level x_t says nothing.

    Breaks: the noise of the observation not squared; C times the gap, its system not solved; one iteration only.
    """
    likelihood = Likelihood(matrix_operator(OPERATOR), SEEN, sigma)
    x = torch.tensor([[0.3, 0.1, -2.0]], dtype=DOUBLE)
    both = torch.cat([torch.eye(3, dtype=DOUBLE), OPERATOR])
    noise = torch.diag(torch.tensor([level**2] * 3 + [sigma**2] * 2, dtype=DOUBLE))
    exact = PRIORS[prior].observed(both, torch.cat([x[0], SEEN[0]]), noise)
    known = condition(PRIORS[prior], likelihood, method=method)
    assert torch.allclose(known(x, level), exact.means, atol=0.02 * float(exact.covariances[0].trace()) ** 0.5)
    covariance = level**2 * jacobian(Posterior(known, x, level))
    assert float((covariance - exact.covariances).norm()) <= 0.02 * float(exact.covariances.norm())


@pytest.mark.parametrize(("method", "prior"), [("approximate-jacobian", "any"), ("approximate-scalar", "white")])
def test_there_the_best_guess_is_the_mean_and_the_draws_are_draws(method, prior):
    """Break: a walk to the best guess that asks the denoiser alone."""
    posterior = observed_posterior(PRIORS[prior], Likelihood(matrix_operator(OPERATOR), SEEN, 0.5), 5.0, method=method)
    mean, covariance = closed_form(PRIORS[prior], 0.5)
    assert torch.allclose(posterior.mean[0], mean, atol=0.02 * float(covariance.trace()) ** 0.5)
    draws = sample(posterior, 2000, steps=6, method="ancestral-jacobian", batch=2000)[:, 0]
    assert float((draws.mean(0) - mean).norm()) <= 4 * float(covariance.trace() / 2000) ** 0.5
    assert float((draws.T.cov() - covariance).norm()) <= 4 * (2 / 2000) ** 0.5 * float(covariance.norm())


def test_the_scalar_method_is_not_exact_for_others():
    known = condition(PRIORS["any"], Likelihood(matrix_operator(OPERATOR), SEEN, 0.5))
    mean, covariance = closed_form(PRIORS["any"], 0.5)
    assert float((known(torch.zeros(1, 3, dtype=DOUBLE), 1000.0)[0] - mean).norm()) > 0.02 * float(covariance.norm())


# --- law 9: several modes ---------------------------------------------------------------------------------------------

ROW = torch.tensor([[1.0, 0.2]], dtype=DOUBLE)
THERE = torch.tensor([[0.2]], dtype=DOUBLE)
SIGMA = 0.3


def shares(points: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weight of each mode."""
    which = torch.cdist(points.reshape(-1, 2), toy_mixture().means).argmin(1).view(weights.shape)
    return torch.stack([(weights * (which == k)).sum() for k in range(4)]) / weights.sum()


def variation(found: ParticleDraws) -> float:
    exact = toy_mixture().observed(ROW, THERE[0], SIGMA**2 * torch.eye(1, dtype=DOUBLE))
    points = exact.sample(200_000, torch.Generator().manual_seed(0))
    stated = shares(points, torch.ones(len(points), dtype=DOUBLE))
    return float((shares(found.particles, found.weights) - stated).abs().sum()) / 2


def test_particles_find_the_modes_and_more_of_them_find_them_better():
    """The standard error of the distance from 250 runs with 12 effective particles each is 0.007.

    Breaks: no weights; the twist of the step before not divided out; p and q exchanged.
    """
    likelihood = Likelihood(matrix_operator(ROW), THERE, SIGMA)
    distances = [
        variation(sample_observed(toy_mixture(), likelihood, 30.0, runs, n_particles=number, steps=20))
        for number, runs in ((1, 1500), (2, 1000), (16, 250))
    ]
    assert distances[0] > 0.05
    assert distances[1] < 0.75 * distances[0]
    assert distances[2] <= 0.02
    assert distances[2] < distances[1]


def test_one_draw_of_each_run_is_a_draw():
    """What is returned as draws follows the posterior, too. Break: the heaviest particle taken."""
    found = sample_observed(
        toy_mixture(), Likelihood(matrix_operator(ROW), THERE, SIGMA), 30.0, 1500, n_particles=4, steps=15
    )
    every = shares(found.particles, found.weights)
    chosen = shares(found.draws, torch.ones(1500, 1, dtype=DOUBLE))
    assert float((every - chosen).abs().sum()) / 2 <= 0.04
    assert found.draws.shape == (1500, 1, 2)
    assert found.effective.shape == (1500, 1)
    assert bool(((found.effective >= 1) & (found.effective <= 4)).all())
    assert "4 particles" in found.method
    assert "effective sample size" in found.method


# --- what is observed, and what is not --------------------------------------------------------------------------------


def shrink(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Stand in for a denoiser of images: smoother the more noise there is."""
    level = torch.as_tensor(sigma).to(x).view(-1, 1, 1, 1)
    return blur_operator(1.0).forward(x) * (level / (1 + level)) + x / (1 + level)


IMAGE_MASK = normal(2, 1, 8, 6, seed=3) > 0


def answers(y: torch.Tensor, method: str, sigma: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    posterior = observed_posterior(shrink, Likelihood(mask_operator(IMAGE_MASK), y, sigma), 1.0, method=method)
    return posterior.mean, sample(posterior, 2, steps=3)


def test_draws_of_an_image_differ_as_much_as_what_could_be_behind_it():
    """White signals, half of them erased: there every draw has variance 1, and two differ by 2.

    Break: draws that begin at the noise at which a conditional network is first shown something.
    """
    mask = normal(1, 1, 40, 50, seed=3) > 0
    seen = Likelihood(mask_operator(mask), normal(1, 1, 40, 50).float())
    one, other = sample(observed_posterior(lambda x, sigma: x / (1 + sigma**2), seen, 8.0), 2, steps=40)
    assert one[~mask].square().mean() == pytest.approx(1, abs=0.15)
    assert (one - other)[~mask].square().mean() == pytest.approx(2, abs=0.3)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_hidden_makes_no_difference(method):
    """Not even where it is NaN, whether there is noise or not.

    Break: the hidden values multiplied by 0.
    """
    y = normal(2, 3, 8, 6).float()
    for sigma in (0.0, 0.1):
        seen = answers(y, method, sigma)
        hidden = answers(torch.where(IMAGE_MASK, y, torch.nan), method, sigma)
        assert all(torch.equal(one, other) for one, other in zip(seen, hidden, strict=True))
        assert all(values.isfinite().all() for values in seen)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_observed_without_noise_comes_back_bit_for_bit(method):
    """Break: the answer of the system left as it is."""
    y = normal(2, 3, 8, 6).float()
    mean, draws = answers(y, method)
    where = IMAGE_MASK.expand_as(y)
    assert torch.equal(mean[where], y[where])
    assert all(torch.equal(draw[where], y[where]) for draw in draws)
    assert float((draws[0] - draws[1])[~where].abs().min()) > 0


def test_particles_keep_what_is_observed_and_know_nothing_of_what_is_not():
    """Each item of a batch with a mask of its own, one of which hides everything.

    Break: the mask of the first item for all.
    """
    mask = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    y = normal(3, 3)
    found, hidden = (
        sample_observed(
            PRIORS["any"], Likelihood(mask_operator(mask), values), 40.0, 50, n_particles=20, steps=5, seed=1
        )
        for values in (y, torch.where(mask, y, torch.nan))
    )
    assert torch.equal(found.draws, hidden.draws)
    assert torch.equal(found.draws[:, mask], y[mask].expand(50, -1))
    free = found.particles[:, 2].reshape(-1, 3)
    assert torch.allclose(free.mean(0), MEAN[0], atol=4 / 1000**0.5)
    alone = sample_observed(
        PRIORS["any"], Likelihood(mask_operator(mask[:1]), y[:1]), 40.0, 50, n_particles=20, steps=5, seed=1
    )
    assert torch.allclose(alone.draws[:, 0], found.draws[:, 0])


def test_small_patches_are_small_signals():
    """A patch of an image in the shape it has, in the type it has."""
    operator = downsample_operator(2)
    y = operator.forward(normal(1, 1, 4, 4).float())
    found = sample_observed(shrink, Likelihood(operator, y), 2.0, 3, n_particles=4, steps=3)
    assert found.draws.shape == (3, 1, 1, 4, 4)
    assert found.draws.dtype == torch.float32
    assert torch.allclose(operator.forward(found.draws[:, 0]), y.expand(3, 1, 4, 4), atol=1e-4)


# --- approximate is what they are called ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_each_approximate_method_says_so(method):
    """In its name, in the docstrings, in what a report prints. Break: a method added under another kind of name."""
    assert method.startswith("approximate")
    assert method in str(conditioning.__doc__)
    for documented in (conditioning, conditioning.ApproximatelyConditioned, condition, observed_posterior):
        assert "approximate" in str(documented.__doc__)
    made = observed_posterior(
        shrink, Likelihood(blur_operator(1.0), normal(1, 1, 8, 8).float(), 0.1), 1.0, method=method
    )
    assert made.denoise.approximate.startswith(f"approximate ({method})")


# --- around it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_answers_do_not_depend_on_their_company(method):
    """Nor do draws: a batch of observations is taken in turn. Break: masks repeated item by item."""
    y = normal(2, 3, 8, 6).float()
    mean, draws = answers(y, method)
    one = observed_posterior(shrink, Likelihood(mask_operator(IMAGE_MASK[1:]), y[1:]), 1.0, method=method)
    assert torch.allclose(one.mean[0], mean[1], atol=1e-5)
    assert torch.allclose(sample(one, 2, steps=3, items=[1])[:, 0], draws[:, 1], atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_a_denoise_function_in_tiles_is_one_like_any_other(method):
    """With a halo that covers what it sees. Break: tiles without it."""
    y = normal(1, 3, 40, 30).float()
    likelihood = Likelihood(blur_operator(1.6), y, 0.1)
    whole, tiled = (
        observed_posterior(Tiled(shrink, Compute("cpu", "float32", tile, 4)), likelihood, 1.0, method=method)
        for tile in (100, 16)
    )
    assert torch.allclose(whole.mean, tiled.mean, atol=1e-4)
    assert torch.allclose(sample(whole, 1, steps=4), sample(tiled, 1, steps=4), atol=1e-3)


def test_the_bundled_model_says_where_to_begin():
    """In gray, at a size that is nobody's multiple. Break: the least noise that it was trained on."""
    mask = normal(1, 1, 13, 10) > 0
    posterior = observed_posterior(load("natural"), Likelihood(mask_operator(mask), torch.full((1, 1, 13, 10), 0.5)))
    assert posterior.sigma == 0.25
    assert posterior.mean.shape == (1, 1, 13, 10)
    assert float((posterior.mean - 0.5).abs().max()) < 0.05


def test_conjugate_gradients_solve_each_item_by_itself():
    """Break: one pace for the whole batch."""
    factor = normal(3, 5, 5)
    matrix, right = factor @ factor.transpose(1, 2) + torch.eye(5, dtype=DOUBLE), normal(3, 5, seed=1)
    right[2] = 0
    found = conjugate_gradients(lambda v: torch.einsum("bij,bj->bi", matrix, v), right, 20)
    assert torch.allclose(found, torch.linalg.solve(matrix, right), atol=1e-5)


def test_an_item_whose_matrix_is_not_positive_stays_where_that_is_seen():
    """Break: its direction goes on, and it moves again, as long as others do."""
    diagonal = torch.tensor([[1, 2, -0.5, 3], [1, 2, 4, 3]], dtype=DOUBLE)
    together = conjugate_gradients(lambda v: diagonal * v, torch.ones_like(diagonal), 4)
    for item in range(2):
        alone = conjugate_gradients(
            lambda v, item=item: diagonal[item : item + 1] * v, torch.ones(1, 4, dtype=DOUBLE), 4
        )
        assert torch.allclose(together[item], alone[0])


def test_conjugate_gradients_write_to_nothing_that_is_not_theirs():
    """Breaks: the residual is the right side itself, and is written to; the direction is."""
    right = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.linspace(1, 3, 5)
    first = weight * right
    kept = right.clone(), first.clone()
    found = conjugate_gradients(lambda v: weight * v, right, 10, first)
    torch.testing.assert_close(found, right / weight)
    assert torch.equal(right, kept[0])
    assert torch.equal(first, kept[1])
    assert torch.equal(conjugate_gradients(lambda v: v, right, 3), right)  # which answers with its own argument


def test_what_makes_no_sense_is_refused():
    likelihood = Likelihood(mask_operator(IMAGE_MASK), normal(2, 3, 8, 6).float())
    for make in (
        lambda: condition(shrink, likelihood, method="exact"),
        lambda: condition(shrink, likelihood).guess,
        lambda: observed_posterior(shrink, likelihood),
        lambda: observed_posterior(shrink, likelihood, 0.0),
        lambda: sample_observed(shrink, likelihood, 0.0),
        lambda: sample_observed(shrink, likelihood, 1.0, 0),
        lambda: sample_observed(shrink, Likelihood(blur_operator(1.0), normal(1, 3, 40, 40)), 1.0),
    ):
        with pytest.raises(UsageError):
            make()
