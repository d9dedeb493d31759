"""How wide an interval has to be, learned from scores on data where the truth is known. Nothing here knows of images.

A score says how far off an interval of width 1 was: the truth lies within λ times the width where score ≤ λ. Two
promises can be made of a λ that was chosen on n examples, if the next one is exchangeable with them; neither assumes
anything of the model that made the intervals.

`conformal_scale`: the coverage is `level` *on average* over calibrations. With scores r₁ ≤ … ≤ r_n,

    λ = r_k,   k = ⌈(n + 1) · level⌉      ⇒     level ≤ P(r ≤ λ) ≤ level + 1/(n + 1)

(split conformal: Papadopoulos, Proedrou, Vovk and Gammerman, 2002; Lei, G'Sell, Rinaldo, Tibshirani and Wasserman,
"Distribution-free predictive inference for regression", 2018, theorem 2.2).

`risk_controlled_scale`: the *risk*, the expectation of a loss in [0, 1] that falls with λ (such as the share of an
image's pixels that miss their intervals), is at most α but for a share δ of all calibrations,

    λ = inf { λ : R⁺(λ') < α for all λ' ≥ λ }      ⇒     P( R(λ) ≤ α ) ≥ 1 − δ

with R⁺ an upper confidence bound of the risk (Bates, Angelopoulos, Lei, Malik and Jordan, "Distribution-free,
risk-controlling prediction sets", 2021, theorem 1). It is wider, the more so the fewer examples there are.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unperturb.errors import UsageError

SCALES = np.geomspace(0.05, 500, 926)
"""Widths that are tried, each a hundredth above the one before."""


def conformal_scale(scores: ArrayLike, level: float) -> float:
    """Return the width that covers the next value with probability `level`, on average over calibrations.

    Parameters
    ----------
    scores
        One a value, of any shape. Where several values come from one image, only the images are exchangeable: the
        coverage is then right as images grow in number, and the guarantee for few of them is not given.
    level
        Between 0 and 1.

    Returns
    -------
    float
        Infinite where there are fewer than level / (1 − level) scores.

    Raises
    ------
    UsageError
        Where the level is out of range, or there are no scores.
    """
    check_share("level", level)
    flat = np.ravel(np.asarray(scores))
    if flat.size == 0:
        raise UsageError("there are no scores to choose a width by")
    rank = math.ceil((flat.size + 1) * level - 1e-9)  # rounding must not push a whole number up to the next
    return float(np.partition(flat, rank - 1)[rank - 1]) if rank <= flat.size else math.inf


def risk_controlled_scale(losses_by_scale: ArrayLike, scales: ArrayLike, alpha: float, delta: float) -> float:
    """Return the smallest width whose risk is at most `alpha`, but for a share `delta` of all calibrations.

    Parameters
    ----------
    losses_by_scale
        ``(n_images, n_scales)``: the loss of each image at each width, in [0, 1]; its expectation falls with the width.
    scales
        ``(n_scales,)``, rising.
    alpha
        The most that the risk may be.
    delta
        How often, over calibrations, it may be more.

    Returns
    -------
    float
        Infinite where none of the widths can be vouched for; below ``log(delta) / log(1 - alpha)`` images that is so
        whatever their losses (`images_needed`).

    Raises
    ------
    UsageError
        Where a number is out of range or the shapes do not go together.
    """
    check_share("alpha", alpha)
    check_share("delta", delta)
    losses, widths = np.asarray(losses_by_scale, float), np.asarray(scales, float)
    if losses.ndim != 2 or len(losses) == 0 or losses.shape[1:] != widths.shape or (np.diff(widths) <= 0).any():
        raise UsageError(
            f"losses are (n_images, n_scales) and scales rise; got shapes {losses.shape} and {widths.shape}"
        )
    if not ((losses >= 0) & (losses <= 1)).all():
        raise UsageError("losses lie between 0 and 1")
    vouched = _p_values(losses.mean(0), len(losses), alpha) <= delta
    failed = np.flatnonzero(~vouched)
    first = failed[-1] + 1 if failed.size else 0
    return float(widths[first]) if first < len(widths) else math.inf


def hoeffding_bentkus(mean: float, n: int, delta: float) -> float:
    """Return an upper confidence bound of an expectation: with probability 1 − `delta` it is no larger.

    Parameters
    ----------
    mean
        Average of the `n` independent values in [0, 1] that were seen.
    n
        How many.
    delta
        How often the bound may fail.

    Notes
    -----
    The largest R that is not refuted, p(mean; R) > delta, with the p-value

        p = min( exp(−n h(mean, R)),  e · P(Binomial(n, R) ≤ ⌈n · mean⌉) )
        h(a, b) = a ln(a/b) + (1−a) ln((1−a)/(1−b))

    by Hoeffding (1963) and Bentkus (2004), joined by Bates et al. (2021, section 3.1).

    Raises
    ------
    UsageError
        Where a number is out of range.
    """
    check_share("delta", delta)
    if n < 1 or not 0 <= mean <= 1:
        raise UsageError(f"the mean of at least one value in [0, 1] is needed; got {mean} of {n}")
    low, high = mean, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _p_values(np.array([mean]), n, middle)[0] > delta else (low, middle)
    return high


def images_needed(alpha: float, delta: float) -> int:
    """Return how many examples a guarantee takes at least: so many, all without loss, are that improbable otherwise."""
    check_share("alpha", alpha)
    check_share("delta", delta)
    return math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)


def miss_shares(scores: ArrayLike, scales: ArrayLike) -> NDArray[np.float64]:
    """Return the share of one image's scores that lie above each of the widths, ``(n_scales,)``: a loss in [0, 1]."""
    ordered = np.sort(np.ravel(np.asarray(scores)))
    return 1 - np.searchsorted(ordered, np.asarray(scales), side="right") / ordered.size


def check_share(name: str, value: float) -> None:
    """Refuse a share that is not between 0 and 1."""
    if not 0 < value < 1:
        raise UsageError(f"{name} lies between 0 and 1; got {value:g}")


def _p_values(means: NDArray[np.float64], n: int, risk: float) -> NDArray[np.float64]:
    """Bound how probable means so low are where the expectation is `risk` or more."""
    from scipy.special import rel_entr
    from scipy.stats import binom

    below = np.minimum(means, risk)
    hoeffding = np.exp(-n * (rel_entr(below, risk) + rel_entr(1 - below, 1 - risk)))
    bentkus = math.e * binom.cdf(np.ceil(n * means - 1e-9), n, risk)
    return np.minimum(hoeffding, bentkus)
