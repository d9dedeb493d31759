"""What networks are told of the columns of a table: numbers as they are, or their logarithms.

Incomes and concentrations differ by factors. In units of its standard deviation the bulk of such a column lies within a
hundredth, where no network resolves it. So its logarithms are told, where that makes the whole table likelier under its
joint Gaussian, by `CLEARLY` a row:

    ℓ = −½ log det Σ − Σ_c log s_c − Σ_l mean(log x_l)        columns c, of which l are told as logarithms

Σ being the covariance of the columns, each in units of its own standard deviation s (Box and Cox, "An analysis of
transformations", 1964; of several columns at once: Andrews, Gnanadesikan and Warner, "Transformations of multivariate
data", 1971). Its determinant knows what columns have to do with each other: sugar alone looks as if it differed by
factors, but what a wine weighs goes with its amount.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.data.table_ends import CLEARLY, ends_of, is_multiplied
from unperturb.model.joint import LARGEST, fit_joint
from unperturb.model.row_model import ColumnCard, standardised
from unperturb.model.rows import RowSettings

COMPARED = 1000
"""The most rows that are compared, evenly over the table."""

INDEPENDENT, ROUNDS = 10.0, 10
"""Rows of independent cells that are added for it, and rounds of expectation maximisation."""


def cards_of(values: NDArray[np.float64], settings: RowSettings) -> tuple[ColumnCard, ...]:
    """Return where the values of every column are, and which are told as logarithms.

    Parameters
    ----------
    values
        ``(row, column)``: numbers, codes of categories, NaN where missing.
    settings
        What the columns are.
    """
    cards = [
        ColumnCard(seen=bool((~np.isnan(column)).any())) if category else _card(column, logarithm=False)
        for column, category in zip(values.T, settings.categories, strict=True)
    ]
    may = [at for at in settings.numbers if is_multiplied(values[:, at][~np.isnan(values[:, at])])]
    if settings.features > LARGEST:  # too many for a joint Gaussian: each by itself
        return tuple(_card(values[:, at], logarithm=True) if at in may else card for at, card in enumerate(cards))
    part = torch.tensor(values[np.linspace(0, len(values) - 1, min(len(values), COMPARED)).astype(int)])
    before = _likelihood(part, settings, cards) if may else 0.0
    for at in may:
        told = [*cards[:at], _card(values[:, at], logarithm=True), *cards[at + 1 :]]
        after = _likelihood(part, settings, told)
        if after > before + np.log(CLEARLY):
            cards, before = told, after
    return tuple(cards)


def _likelihood(values: torch.Tensor, settings: RowSettings, cards: list[ColumnCard]) -> float:
    """Return ℓ, the logarithm of the likelihood a row; but for what is the same however columns are told."""
    standard = standardised(values, settings, cards)
    seen = settings.as_mask(~standard.isnan())
    fitted = fit_joint(settings.as_features(standard), seen, INDEPENDENT, rounds=ROUNDS)
    told = sum(np.log(card.scale) + card.offset * card.logarithm for card in cards)
    return float(torch.logdet(fitted.precision)) / 2 - float(told)


def _card(values: NDArray[np.float64], *, logarithm: bool) -> ColumnCard:
    """Return where the values of a column of numbers are."""
    observed = values[~np.isnan(values)]
    if not len(observed):
        return ColumnCard(seen=False)
    told = np.log(observed) if logarithm else observed
    size = float(np.abs(told).max()) or 1.0  # squares of what is very large or small are no numbers any more
    mean, scale = (float(size * part) for part in ((told / size).mean(), (told / size).std()))
    ends = float(observed.min()), float(observed.max()), *ends_of(observed, logarithm=logarithm)
    return ColumnCard(mean, scale if scale > 0 else 1.0, *ends, logarithm=logarithm)
