"""Rubin's rules: one answer from the answers that several imputations of a table give.

Each of m imputed tables is analysed as if it were complete, which gives an estimate Q_l and its variance U_l. Then

    Q = mean of Q_l,    T = W + (1 + 1/m) B,    W = mean of U_l,    B = variance of Q_l

and (Q_true − Q) / √T follows Student's t with ν degrees of freedom (Rubin, "Multiple imputation for nonresponse in
surveys", 1987, chapter 3; for tables with few rows, Barnard and Rubin, "Small-sample degrees of freedom with multiple
imputation", 1999).

::

    found = pool([mean_of(table[:, 0]) for table in draws(model, values, 20)])
    found.estimate, found.interval(0.95)
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from unperturb.errors import UsageError
from unperturb.infer.conformal import check_share

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """What one complete table says: values of a quantity of any shape, and their variances.

    Attributes
    ----------
    value, variance
        Of one shape.
    freedom
        Degrees of freedom of the variance; infinite where it is taken for known.
    """

    value: Values
    variance: Values
    freedom: float = np.inf


@dataclass(frozen=True)
class Pooled:
    """What several imputed tables say together.

    Attributes
    ----------
    estimate
        The mean of the estimates.
    within, between
        Mean of their variances, and variance of them.
    variance
        Of the estimate, imputation counted in: T.
    freedom
        ν, of Student's t.
    missing_information
        Share of what there would be to know of the quantity that is lost by what is missing, 0 to 1.
    """

    estimate: Values
    within: Values
    between: Values
    variance: Values
    freedom: Values
    missing_information: Values

    def interval(self, level: float = 0.95) -> tuple[Values, Values]:
        """Return the ends of a confidence interval."""
        check_share("level", level)
        reach = stats.t.ppf((1 + level) / 2, self.freedom) * np.sqrt(self.variance)
        return self.estimate - reach, self.estimate + reach


def pool(estimates: Iterable[Estimate]) -> Pooled:
    """Return one answer from those of several imputations.

    Raises
    ------
    UsageError
        Where there are fewer than two, or they are of different shapes.
    """
    estimates = list(estimates)
    count = len(estimates)
    if count < 2 or len({np.shape(each.value) for each in estimates}) > 1:
        raise UsageError("Rubin's rules take the estimates of two or more imputations, all of one shape")
    values = np.stack([each.value for each in estimates])
    within = np.mean([each.variance for each in estimates], axis=0)
    between = values.var(axis=0, ddof=1)
    variance = within + (1 + 1 / count) * between
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(variance > 0, (1 + 1 / count) * between / variance, 0.0)  # λ of the literature
        large = np.where(share > 0, (count - 1) / share**2, np.inf)
        freedom = large
        complete = min(each.freedom for each in estimates)
        if np.isfinite(complete):
            observed = (complete + 1) / (complete + 3) * complete * (1 - share)
            freedom = np.where(np.isfinite(large), 1 / (1 / large + 1 / np.maximum(observed, 1e-9)), observed)
        ratio = np.where(within > 0, (1 + 1 / count) * between / np.where(within > 0, within, 1), np.inf)
        finite = np.where(np.isfinite(ratio), (ratio + 2 / (freedom + 3)) / (ratio + 1), 1.0)
        lost = np.where(between > 0, finite, 0.0)
    return Pooled(values.mean(axis=0), within, between, variance, freedom, np.clip(lost, 0, 1))


def mean_of(values: ArrayLike) -> Estimate:
    """Return the mean of each column and its variance, s²/n.

    Parameters
    ----------
    values
        ``(row,)`` or ``(row, column)``, at least 2 rows.

    Raises
    ------
    UsageError
        Where there are fewer, or a cell is missing.
    """
    rows = _rows(values, 2)
    return Estimate(rows.mean(0), rows.var(0, ddof=1) / len(rows), len(rows) - 1)


def variance_of(values: ArrayLike) -> Estimate:
    """Return the variance of each column and its own, (m₄ − s⁴ (n − 3)/(n − 1)) / n, whatever their distribution.

    Parameters
    ----------
    values
        ``(row,)`` or ``(row, column)``, at least 4 rows.

    Raises
    ------
    UsageError
        Where there are fewer, or a cell is missing.

    Source: Mood, Graybill and Boes, "Introduction to the theory of statistics", 1974, section VI.2.
    """
    rows = _rows(values, 4)
    n = len(rows)
    square = rows.var(0, ddof=1)
    fourth = ((rows - rows.mean(0)) ** 4).mean(0)
    return Estimate(square, np.maximum(fourth - square**2 * (n - 3) / (n - 1), 0) / n)


def quantile_of(values: ArrayLike, level: float) -> Estimate:
    """Return a quantile of each column, and its variance after Maritz and Jarrett (1978).

    Parameters
    ----------
    values
        ``(row,)`` or ``(row, column)``, at least 2 rows.
    level
        Which one: the share of the values that are below it, between 0 and 1; 0.5 is the median.

    Raises
    ------
    UsageError
        Where there are fewer rows, a cell is missing, or the level is none.
    """
    check_share("level", level)
    rows = _rows(values, 2)
    columns = rows.reshape(len(rows), -1).T
    errors = np.array([float(np.asarray(stats.mstats.mjci(column, prob=[level]))[0]) for column in columns])
    return Estimate(np.quantile(rows, level, axis=0), (errors**2).reshape(rows.shape[1:]))


def coefficients_of(outcome: ArrayLike, predictors: ArrayLike) -> Estimate:
    """Return the coefficients of a linear regression and their variances: the intercept, then one a predictor.

    Parameters
    ----------
    outcome
        ``(row,)``.
    predictors
        ``(row, predictor)``.

    Raises
    ------
    UsageError
        Where there are no more rows than coefficients, one predictor is a combination of others, or a cell is missing.
    """
    y, x = np.asarray(outcome, np.float64), np.asarray(predictors, np.float64)
    if not (np.isfinite(y).all() and np.isfinite(x).all()):
        raise UsageError("a regression takes rows with nothing missing, and nothing infinite")
    design = np.column_stack([np.ones(len(y)), x])
    freedom = len(y) - design.shape[1]
    if freedom < 1 or np.linalg.matrix_rank(design) < design.shape[1]:
        raise UsageError("a regression takes more rows than coefficients, and no predictor that follows from others")
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ y
    noise = float(((y - design @ found) ** 2).sum()) / freedom
    return Estimate(found, noise * np.diag(inverse), freedom)


def _rows(values: ArrayLike, least: int) -> Values:
    rows = np.asarray(values, np.float64)
    if rows.ndim not in (1, 2) or len(rows) < least or np.isnan(rows).any():
        raise UsageError(f"this takes at least {least} rows, (row,) or (row, column), with nothing missing")
    return rows
