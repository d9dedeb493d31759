"""Rubin's rules."""

import numpy as np
import pytest
from scipy import stats

from unperturb.errors import UsageError
from unperturb.infer.pooling import Estimate, coefficients_of, mean_of, pool, quantile_of, variance_of


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_rules_are_rubins():
    """By hand: Q = 2, W = 0.5, B = 1, T = 0.5 + 4/3, r = 8/3, ν = 2 (1 + 1/r)². Breaks: B over m; T without 1/m."""
    found = pool([Estimate(np.array(value), np.array(0.5)) for value in (1.0, 2.0, 3.0)])
    assert found.estimate == pytest.approx(2)
    assert found.variance == pytest.approx(0.5 + 4 / 3)
    assert found.freedom == pytest.approx(2 * (1 + 3 / 8) ** 2)
    low, high = found.interval(0.9)
    reach = stats.t.ppf(0.95, 2 * (1 + 3 / 8) ** 2) * np.sqrt(0.5 + 4 / 3)
    assert (low, high) == (pytest.approx(2 - reach), pytest.approx(2 + reach))


def test_where_imputations_agree_nothing_is_lost():
    """Break: the freedom of imputations that agree not that of the complete table."""
    found = pool([Estimate(np.array(1.0), np.array(0.2), 9)] * 4)
    assert found.variance == pytest.approx(0.2)
    assert found.missing_information == 0
    assert found.freedom == pytest.approx(9 * 10 / 12)


@pytest.mark.parametrize("quantity", ["mean", "variance", "median", "slope"])
def test_intervals_cover(quantity):
    """Of 400 tables, with cells of y missing at random and drawn from what they may be, parameters drawn too.

    Breaks: the variance between imputations left out; the standard error of one column given for that of its square.
    """
    inside, tables = 0, 400
    for number in range(tables):
        generator = rng(number)
        x = generator.standard_normal(80)
        y = 1 + 0.8 * x + 0.6 * generator.standard_normal(80)
        gone = generator.random(80) < 0.3
        estimates = []
        for _ in range(10):
            drawn = _redrawn(x, y, gone, generator)
            estimates.append(
                {
                    "mean": lambda y=drawn: mean_of(y),
                    "variance": lambda y=drawn: variance_of(y),
                    "median": lambda y=drawn: quantile_of(y, 0.5),
                    "slope": lambda x=x, y=drawn: coefficients_of(y, x[:, None]),
                }[quantity]()
            )
        low, high = (np.ravel(side)[-1] for side in pool(estimates).interval(0.95))
        inside += low <= {"mean": 1.0, "variance": 1.0, "median": 1.0, "slope": 0.8}[quantity] <= high
    # Within 4 standard errors; intervals of variances are somewhat narrow in tables of 80 rows.
    assert abs(inside / tables - 0.95) < 4 * np.sqrt(0.95 * 0.05 / tables)


def _redrawn(x: np.ndarray, y: np.ndarray, gone: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw missing y by Bayesian regression on x with a flat prior (Rubin, 1987, example 5.1)."""
    design = np.column_stack([np.ones(len(x)), x])
    seen, n = design[~gone], int((~gone).sum())
    inverse = np.linalg.inv(seen.T @ seen)
    fitted = inverse @ seen.T @ y[~gone]
    noise = ((y[~gone] - seen @ fitted) ** 2).sum() / generator.chisquare(n - 2)
    drawn = generator.multivariate_normal(fitted, noise * inverse)
    return np.where(gone, design @ drawn + np.sqrt(noise) * generator.standard_normal(len(x)), y)


def test_estimates_are_those_of_the_libraries():
    """Breaks: variances with n in place of n − 1; coefficients without an intercept."""
    values = rng().standard_normal((50, 3)) ** 2
    assert np.allclose(mean_of(values).variance, stats.sem(values) ** 2)
    assert np.allclose(variance_of(values).value, values.var(0, ddof=1))
    assert np.allclose(quantile_of(values, 0.3).value, np.quantile(values, 0.3, axis=0))
    found, line = coefficients_of(values[:, 0], values[:, 1:2]), stats.linregress(values[:, 1], values[:, 0])
    assert np.allclose(found.value, [line.intercept, line.slope])
    assert np.allclose(found.variance, [line.intercept_stderr**2, line.stderr**2])


def test_estimates_may_be_plain_numbers():
    """Break: their shapes asked of the numbers themselves."""
    found = pool([Estimate(1.0, 2.0), Estimate(2.0, 2.0)])
    assert (found.estimate, found.between) == (1.5, 0.5)


def test_what_cannot_be_pooled_is_refused():
    with pytest.raises(UsageError, match="two or more"):
        pool([mean_of([1.0, 2.0])])
    with pytest.raises(UsageError, match="one shape"):
        pool([mean_of([1.0, 2.0]), mean_of([[1.0], [2.0]])])
    with pytest.raises(UsageError, match="nothing missing"):
        mean_of([1.0, np.nan])
    with pytest.raises(UsageError, match="follows from others"):
        coefficients_of([1.0, 2.0, 3.0, 4.0], [[1.0, 2.0], [2.0, 4.0], [3.0, 6.0], [4.0, 8.0]])
    with pytest.raises(UsageError, match="nothing missing"):
        coefficients_of([1.0, np.nan, 3.0], [[1.0], [2.0], [5.0]])
