"""What the missing cells of rows may be: the best guess, draws, and intervals.

    best(model, values)               a number is its mean, a category the most likely one
    draws(model, values, n)           whole rows from p(missing | observed): multiple imputations
    bounds(model, values, 0.95)       between which a number lies so often

A draw fills in a row cell by cell in an order of its own, and every cell that it has drawn is observed from then on. So
the cells of a drawn row belong together, as those of a row of the table do (any-order autoregression: Uria, Murray and
Larochelle, "A deep and tractable density estimator", 2014). Each takes one network of the ensemble, by turns: draws
differ as well where the table does not say enough to know how its columns depend on each other, which is what makes
multiple imputations proper (Rubin, "Multiple imputation for nonresponse in surveys", 1987, section 4.2).

How wide quantiles have to be is measured on cells that were held out (`unperturb.infer.row_widths`).
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.conformal import check_share
from unperturb.infer.row_widths import narrowed, quantile
from unperturb.model.row_model import RowModel, believe
from unperturb.model.rows import Belief, RowNet, by_category

Rows = NDArray[np.float64]


def best(model: RowModel, values: Rows) -> Rows:
    """Return rows whose missing cells are the best guess.

    Parameters
    ----------
    model
        Of the table.
    values
        ``(row, column)``: numbers, codes of categories, NaN where missing.

    Returns
    -------
    ndarray
        Of that shape. What was observed is there bit for bit.

    Raises
    ------
    UsageError
        Where they are no such rows.
    """
    belief = believe(model.members, model.standardised(torch.tensor(values)))
    guess = np.empty_like(values)
    guess[:, model.settings.numbers] = model.mean(belief).numpy()
    for column, chances in by_category(model.settings, belief.logits):
        guess[:, column] = chances.argmax(1).numpy()
    return np.where(np.isnan(values), guess, values)


def bounds(model: RowModel, values: Rows, share: float) -> tuple[Rows, Rows]:
    """Return between which two values every missing number lies with this probability.

    Parameters
    ----------
    model, values
        As for `best`.
    share
        Between 0 and 1.

    Returns
    -------
    tuple of ndarray
        Of the shape of `values`: what was observed is its own bounds; for missing categories they are NaN.

    Raises
    ------
    UsageError
        Where they are no such rows, or the share is none.
    """
    check_share("share", share)
    belief = believe(model.members, model.standardised(torch.tensor(values)))
    missing = torch.from_numpy(np.isnan(values).mean(1, keepdims=True)).expand(belief.mean.shape)
    sides = []
    for level in ((1 - share) / 2, (1 + share) / 2):
        side = np.full_like(values, np.nan)
        at = quantile(belief.quantiles, torch.tensor(level), model.widths, missing)
        side[:, model.settings.numbers] = model.restored(at.double()).numpy()
        sides.append(np.where(np.isnan(values), side, values))
    return sides[0], sides[1]


def draws(
    model: RowModel,
    values: Rows,
    n_draws: int,
    *,
    seed: int = 0,
    done: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Draw rows whose missing cells are what else they could have been.

    Parameters
    ----------
    model, values
        As for `best`.
    n_draws
        How many.
    seed
        Of the draws; draw k is the same however many there are.
    done
        Called with the draws done and all there are.

    Returns
    -------
    ndarray
        ``(draw, row, column)``. What was observed is there bit for bit.

    Raises
    ------
    UsageError
        Where they are no such rows, or no draw is asked for.
    """
    if n_draws < 1:
        raise UsageError(f"the number of draws is at least 1; got {n_draws}")
    start = model.standardised(torch.tensor(values))
    missing = start.isnan().double().mean(1, keepdim=True)
    narrow = narrowed(believe(model.members, start), model.widths, missing)
    drawn = np.empty((n_draws, *values.shape))
    numbers = model.settings.numbers
    for number in range(n_draws):
        generator = torch.Generator().manual_seed(_mixed(seed, number))
        rows = _drawn(model, model.members[number % len(model.members)], start.clone(), narrow, generator)
        rows[:, numbers] = model.restored(rows[:, numbers])
        drawn[number] = np.where(np.isnan(values), rows.numpy(), values)
        if done is not None:
            done(number + 1, n_draws)
    return drawn


def _drawn(model: RowModel, member: RowNet, rows: Tensor, narrow: Tensor, generator: torch.Generator) -> Tensor:
    """Fill rows in, cell by cell."""
    missing = rows.isnan()
    # The missing cells of a row in an order of their own, before all others.
    order = torch.where(missing, torch.rand(rows.shape, generator=generator), torch.inf).argsort(1)
    chance = torch.rand(rows.shape, generator=generator)
    count = missing.sum(1)
    for turn in range(int(count.max()) if len(rows) else 0):
        index = (count > turn).nonzero()[:, 0]
        column = order[index, turn]
        asked = rows[index]
        belief = believe([member], asked)
        share = asked.isnan().double().mean(1)
        rows[index, column] = _cell(model, belief, column, chance[index, column], share, narrow[index]).to(rows)
    return rows


def _cell(model: RowModel, belief: Belief, column: Tensor, chance: Tensor, missing: Tensor, narrow: Tensor) -> Tensor:
    """Return one cell of each row, where its distribution function is `chance`."""
    settings = model.settings
    cell = torch.zeros(len(column))
    where = torch.zeros(len(settings.sizes), dtype=torch.long)
    where[settings.numbers] = torch.arange(len(settings.numbers))
    number = ~torch.tensor(settings.categories)[column]
    index = number.nonzero()[:, 0]
    if len(index):
        at = where[column[index]]
        cell[index] = quantile(
            belief.quantiles[index, at], chance[index], model.widths, missing[index], narrow[index, at]
        )
    for other, chances in by_category(settings, belief.logits):
        mine = (column == other).nonzero()[:, 0]
        below = chances[mine].exp().cumsum(1)
        cell[mine] = (below < chance[mine, None]).sum(1).clamp(max=settings.sizes[other] - 1).float()
    return cell


def folds(observed: Tensor, members: int, share: float, seed: int) -> list[Tensor]:
    """Return for each network which cells it is not shown: a share of those observed, no cell for two of them.

    Parameters
    ----------
    observed
        Boolean, ``(row, column)``.
    members
        How many networks there are; at most 1 / share.
    share
        Of the cells.
    seed
        Of the choice.
    """
    place = torch.rand(observed.shape, generator=torch.Generator().manual_seed(_mixed(seed, 2**31)))
    return [observed & (place >= number * share) & (place < (number + 1) * share) for number in range(members)]


def _mixed(seed: int, number: int) -> int:
    """Return one seed of two numbers."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> np.uint64(1))
