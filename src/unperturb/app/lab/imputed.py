"""One regression on a table with missing cells, three ways: whole rows alone, filled in once, filled in many times.

Whole rows alone throw away what the others know, and are a selection of their own. A table that was filled in once is
computed with as if all of it had been observed, so its intervals are too short; filled in by best guesses, its columns
have too little variance as well. Many tables, each as it could have been, put together by Rubin's rules
(`unperturb.infer.pooling`), use every row and count in what is not known.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.estimator import DenoisingImputer
from unperturb.app.lab.pictures import CLEAN, DRAW, FAINT, INK, MEAN, OTHER, need, picture
from unperturb.infer.pooling import Estimate, coefficients_of, pool

Values = NDArray[np.float64]

WHOLE, ONCE, MANY = "whole rows alone", "filled in once", "filled in many times"
COLOURS = {WHOLE: OTHER, ONCE: MEAN, MANY: DRAW}


@dataclass(frozen=True, eq=False)
class Analyses:
    """What came of the three.

    Attributes
    ----------
    predictors
        Names, in the order of the coefficients.
    coefficients
        By way: estimate, and both ends of its 95 % interval, each ``(predictor,)``.
    rows
        By way: how many rows were used.
    lost
        ``(predictor,)``: share of what there would be to know that is lost by what is missing.
    watched
        Name of a column, and its values: those observed, and those filled in once and in one of the many tables.
    """

    predictors: tuple[str, ...]
    coefficients: Mapping[str, tuple[Values, Values, Values]]
    rows: Mapping[str, int]
    lost: Values
    watched: tuple[str, Values, Values, Values]


def analyse(
    frame: Any, outcome: str, predictors: Sequence[str], watch: str, *, tables: int = 20, seed: int = 0
) -> Analyses:
    """Regress a column on others, all coefficients in units of a predictor's standard deviation.

    Parameters
    ----------
    frame
        A pandas frame, with missing cells; columns beside those named help to fill them in.
    outcome, predictors
        Numbers.
    watch
        A predictor whose values are kept, for a look at what was filled in.
    tables
        How many.
    seed
        Of the imputer.
    """
    imputer = DenoisingImputer(random_state=seed).set_output(transform="pandas").fit(frame)
    used = [outcome, *predictors]
    scales = frame[list(predictors)].std().to_numpy()

    def one(table: Any) -> Estimate:
        numbers = table[used].astype(float)
        return coefficients_of(numbers[outcome], numbers[list(predictors)].to_numpy() / scales)

    once, many = imputer.transform(frame), imputer.sample_posterior(frame, tables)
    whole = frame[used].dropna()
    pooled = pool([one(table) for table in many])
    found = {WHOLE: _alone(one(whole)), ONCE: _alone(one(once)), MANY: (pooled.estimate, *pooled.interval())}
    gone = frame[watch].isna()
    return Analyses(
        tuple(predictors),
        {way: (each[0][1:], each[1][1:], each[2][1:]) for way, each in found.items()},
        {WHOLE: len(whole), ONCE: len(frame), MANY: len(frame)},
        pooled.missing_information[1:],
        (watch, *(part.to_numpy(float) for part in (frame[watch][~gone], once[watch][gone], many[0][watch][gone]))),
    )


def _alone(estimate: Estimate) -> tuple[Values, Values, Values]:
    """Return an estimate and its interval, as one table has them that is taken for complete."""
    pooled = pool([estimate, estimate])  # no variance between the two: that within is all
    return (pooled.estimate, *pooled.interval())


def draw_picture(analyses: Analyses, path: Path, title: str) -> None:
    """Draw intervals of all coefficients, and what was filled in of the column that is watched."""
    need("matplotlib")
    with picture(path, 1, 2, (11.0, 4.2)) as axes:
        _draw_coefficients(axes[0, 0], analyses, title)
        _draw_watched(axes[0, 1], analyses)


def _draw_coefficients(panel: Any, analyses: Analyses, title: str) -> None:
    places = np.arange(len(analyses.predictors))[::-1]
    for number, (way, (estimate, low, high)) in enumerate(analyses.coefficients.items()):
        at = places + 0.22 * (1 - number)
        label = f"{way} ({analyses.rows[way]} rows)"
        panel.errorbar(
            estimate, at, xerr=[estimate - low, high - estimate], fmt="o", color=COLOURS[way], capsize=3, label=label
        )
    panel.axvline(0, color=FAINT, linewidth=0.8)
    panel.set_yticks(places, analyses.predictors)
    panel.set_ylim(-0.6, len(places) + 0.5)  # room for the legend
    panel.legend(fontsize=8, loc="upper right")
    panel.set_title(title, color=INK, fontsize=10)


def _draw_watched(panel: Any, analyses: Analyses) -> None:
    name, observed, once, draw = analyses.watched
    edges = np.histogram_bin_edges(np.concatenate([observed, draw]), 24)
    for values, colour, label in (
        (observed, CLEAN, f"observed ({len(observed)})"),
        (once, MEAN, f"filled in once ({len(once)})"),
        (draw, DRAW, f"one of the many ({len(draw)})"),
    ):
        panel.hist(values, edges, density=True, histtype="stepfilled", color=colour, alpha=0.25)
        panel.hist(values, edges, density=True, histtype="step", color=colour, linewidth=1.6, label=label)
    panel.legend(fontsize=8)
    panel.set_title(f"{name}: best guesses crowd, draws do not", color=INK, fontsize=10)
