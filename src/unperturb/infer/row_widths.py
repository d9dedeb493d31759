"""From the quantiles of a network for rows to intervals that hold: how much wider they have to be, measured.

Networks are too sure of cells that they have learned from, and not sure enough of cells that all others of the row
determine. So every network is asked about cells that it was never shown, twice,

    with all else that was observed of the row         as in a row of the table that lacks just this
    with a few other cells of the row alone            as in a row that lacks nearly everything

and the distance of the truth from the median, in units of that of the quantile, has a quantile of its own: the factor
by which the interval has to be wider (`unperturb.infer.conformal`). Between the two it is taken to change evenly with
the share of the row that is missing.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from unperturb.infer.conformal import conformal_scale
from unperturb.model.row_model import SharedBelief, Widths, believe, median_of
from unperturb.model.rows import RowNet

SHARES = (0.2, 0.5, 0.8, 0.9, 0.95, 0.99)
"""Shares of values that intervals are measured for."""

MEASURED = 2048
"""The most rows that widths are measured on."""

TURNS = 4
"""The most cells of a row that they are measured on, one after the other."""

BARE = 0.25
"""Share of other cells that is left of a row that lacks nearly everything."""

LEAST = 0.1
"""Of a network's own variance, what is left of it at least."""

_NORMAL = 1.2815515655446004
"""Nine tenths of normal numbers are below so many standard deviations."""

Told = Iterator[tuple[Tensor, Tensor, Tensor]]
"""Quantiles ``(cell, quantile)`` of cells, what they are ``(cell,)``, and which share of their rows was missing."""


def quantile(quantiles: Tensor, level: Tensor, widths: Widths, missing: Tensor, narrow: Tensor | float = 1.0) -> Tensor:
    """Return where a distribution function has a level: between its quantiles by straight lines.

    Parameters
    ----------
    quantiles
        ``(…, quantile)``, rising.
    level
        ``(…,)`` or a number, between 0 and 1.
    widths
        How much farther from the median it is than the quantiles say.
    missing
        ``(…,)``: which share of the row is missing.
    narrow
        What all distances from the median are multiplied by beside.
    """
    count = quantiles.shape[-1]
    level = level.expand(quantiles.shape[:-1])
    at = level * count - 0.5
    low = at.floor().clamp(0, max(count - 2, 0)).long()
    first, second = (quantiles.gather(-1, (low + step).clamp(max=count - 1)[..., None])[..., 0] for step in (0, 1))
    value = first + (second - first) * (at - low).clamp(-0.5, 1.5)
    median = median_of(quantiles)
    return median + (value - median) * widths.at((2 * level - 1).abs(), missing) * narrow


def narrowed(belief: SharedBelief, widths: Widths, missing: Tensor) -> Tensor:
    """Return by how much narrower than measured the spread of draws of one network is to be, ``(row, number)``.

    Widths are measured on single networks. Where one has a squared error of T, and their medians a variance of B, the
    mean of all has one of T − B (Krogh and Vedelsby, "Neural network ensembles, cross validation, and active learning",
    1995), and so far from it draws are to lie. They take networks by turns, whose medians have a variance of B already;
    so each has √(T − 2B) of its own.

    Parameters
    ----------
    belief
        What the networks say.
    widths, missing
        As for `quantile`.
    """
    low, high = (
        quantile(belief.quantiles, torch.tensor(level), widths, missing.expand(belief.mean.shape))
        for level in (0.1, 0.9)
    )
    spread = (high - low) / (2 * _NORMAL)
    return (1 - 2 * belief.apart / spread.square().clamp(min=1e-12)).clamp(min=LEAST).sqrt()


def measured_widths(
    members: Sequence[RowNet], values: Tensor, held_out: Sequence[Tensor], shares: Sequence[float] = SHARES
) -> Widths:
    """Return how much wider intervals have to be than the quantiles say.

    Parameters
    ----------
    members
        Networks.
    values
        ``(row, column)``, standardised; NaN where missing.
    held_out
        For each network which cells it was not shown: boolean, of that shape.
    shares
        Of values that are to be covered, rising.

    Returns
    -------
    Widths
        Empty where too few cells were held out to say.
    """
    part = torch.linspace(0, max(len(values) - 1, 0), min(len(values), MEASURED)).long()
    measured = []
    for told in (_one_by_one, _nearly_alone):
        cells = [
            cell
            for member, hidden in zip(members, held_out, strict=True)
            for cell in told(member, values[part], hidden[part])
        ]
        if cells:
            quantiles, truth, missing = (torch.cat(each) for each in zip(*cells, strict=True))
            measured.append((float(missing.mean()), _factors(quantiles, truth, shares)))
    if not measured or not all(factors for _, factors in measured):
        return Widths()
    rising = sorted(measured) if measured[0][0] < measured[-1][0] else measured[:1]
    count = min(len(factors) for _, factors in rising)
    return Widths(
        tuple(shares[:count]), tuple(place for place, _ in rising), tuple(factors[:count] for _, factors in rising)
    )


def _factors(quantiles: Tensor, truth: Tensor, shares: Sequence[float]) -> tuple[float, ...]:
    """Return a factor for each share, as far as there are cells enough to say."""
    found = []
    for share in shares:
        if len(truth) * (1 - share) < 5:
            break
        low, middle, high = (
            quantile(quantiles, torch.tensor(level), Widths(), torch.zeros_like(truth))
            for level in ((1 - share) / 2, 0.5, (1 + share) / 2)
        )
        reach = torch.where(truth > middle, high - middle, middle - low).clamp(min=1e-6)
        found.append(conformal_scale(((truth - middle).abs() / reach).numpy(), share))
    return tuple(found)


def _one_by_one(member: RowNet, values: Tensor, hidden: Tensor) -> Told:
    """Ask for cells that were held out, one of a row at a time, with all else that was observed of it.

    A cell that is missing in a table to be filled in is missing by itself as well. Hiding all that was held out at once
    would make intervals too wide.
    """
    return _asked(member, values, hidden, lambda rows, cell: rows.masked_fill(cell, torch.nan))


def _nearly_alone(member: RowNet, values: Tensor, hidden: Tensor) -> Told:
    """Ask for them with a few others of the row alone."""
    generator = torch.Generator().manual_seed(1)

    def left(rows: Tensor, cell: Tensor) -> Tensor:
        gone = torch.rand(rows.shape, generator=generator) >= BARE
        return rows.masked_fill(cell | gone, torch.nan)

    return _asked(member, values, hidden, left)


def _asked(member: RowNet, values: Tensor, hidden: Tensor, left: Callable[[Tensor, Tensor], Tensor]) -> Told:
    numbers = torch.tensor(member.settings.numbers)
    wanted = (hidden & ~values.isnan())[:, numbers]
    chance = torch.rand(wanted.shape, generator=torch.Generator().manual_seed(0))
    order = torch.where(wanted, chance, torch.inf).argsort(1)
    count = wanted.sum(1)
    for turn in range(min(int(count.max()), TURNS) if len(values) else 0):
        rows = (count > turn).nonzero()[:, 0]
        column, every = order[rows, turn], torch.arange(len(rows))
        cell = torch.zeros(len(rows), values.shape[1], dtype=torch.bool)
        cell[every, numbers[column]] = True
        asked = left(values[rows], cell)
        yield (
            believe([member], asked).quantiles[every, column],
            values[rows, numbers[column]].float(),
            asked.isnan().double().mean(1),
        )
