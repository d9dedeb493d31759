"""What was learned of a table, as one thing to keep: an ensemble of networks, and what its columns are.

The networks were started from other weights and were shown other cells, so that where they do not agree the table does
not say enough. Their means, quantiles and chances are averaged for the best guess; every draw takes one of them.

They look up rows of the table that are like the one they are asked about. So a kept model holds such rows: who gets
the file can read them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unperturb.errors import ModelError, UsageError
from unperturb.model.checkpoint import fill, read_tensors, write_tensors
from unperturb.model.rows import Belief, RowNet, RowSettings

FORMAT = "unperturb-rows-3"

REMEMBERED = 8192
"""The most rows of a table that are kept."""

FARTHEST = 1e6
"""Standard deviations: what is farther off is taken for so far off, as no network could compute with it."""

SMALLEST = 1e-3
"""Of the least that was observed of a column whose logarithms are told: what is smaller is taken for so much."""

TAIL = 64
"""Parts that the last quantile is cut into for the mean of such a column."""

_LARGEST = 1e308

_ROWS = 1024
"""Rows that are worked on at once."""


@dataclass(frozen=True)
class ColumnCard:
    """What a column of numbers is: where its values are, and how far they go. For categories nothing is used of it.

    Attributes
    ----------
    offset, scale
        Mean and standard deviation of what was observed, or of its logarithms.
    least, most
        The least and the greatest value that was observed.
    low, high
        Between which values its cells are taken to lie: no narrower.
    seen
        Whether anything was observed of the column.
    logarithm
        Whether networks are told its logarithms; all of it is positive then.
    """

    offset: float = 0.0
    scale: float = 1.0
    least: float = 0.0
    most: float = 0.0
    low: float = 0.0
    high: float = 0.0
    seen: bool = True
    logarithm: bool = False


@dataclass(frozen=True)
class Widths:
    """How much wider intervals of numbers have to be than quantiles say; nothing is known where all are empty.

    Attributes
    ----------
    shares
        Of values that are to be covered, rising.
    missing
        Shares of a row's cells that are missing, rising.
    factors
        ``[missing][share]``.
    """

    shares: tuple[float, ...] = ()
    missing: tuple[float, ...] = ()
    factors: tuple[tuple[float, ...], ...] = ()

    def at(self, share: Tensor, missing: Tensor) -> Tensor:
        """Return a factor for each share to be covered, in a row of which so much is missing: straight lines between.

        Both of one shape; beyond what was measured, the nearest that was.
        """
        if not self.factors:
            return torch.ones_like(share)
        rows = [np.interp(share.double().numpy(), self.shares, row) for row in self.factors]
        found = torch.from_numpy(np.asarray(rows[0])).to(share)
        for number in range(1, len(rows)):
            low, high = self.missing[number - 1 : number + 1]
            step = torch.from_numpy(np.asarray(rows[number] - rows[number - 1])).to(share)
            found = found + ((missing.to(share) - low) / (high - low)).clamp(0, 1) * step
        return found


@dataclass(frozen=True, eq=False)
class SharedBelief(Belief):
    """What several networks together say: the mean of all they say.

    Attributes
    ----------
    apart
        ``(row, number)``: the variance of their medians; 0 where there is one network alone.
    """

    apart: Tensor


@dataclass(frozen=True, eq=False)
class RowModel:
    """A model of the rows of a table.

    Attributes
    ----------
    settings
        The columns, and the size of the networks.
    columns
        One a column.
    members
        The networks.
    rows
        ``(row, column)``: of the table, standardised; NaN where missing.
    widths
        How much wider than the quantiles say an interval has to be.
    about
        Anything that is worth keeping, as JSON can.
    """

    settings: RowSettings
    columns: tuple[ColumnCard, ...]
    members: tuple[RowNet, ...]
    rows: Tensor
    widths: Widths = field(default_factory=Widths)
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for member in self.members:
            member.remember(self.settings.as_features(self.rows), ~self.rows.isnan())

    def standardised(self, values: Tensor) -> Tensor:
        """Return rows ``(row, column)`` as networks take them: NaN where missing.

        Raises
        ------
        UsageError
            Where they have another number of columns, a value is infinite, or a code is none.
        """
        return standardised(values, self.settings, self.columns)

    def restored(self, numbers: Tensor) -> Tensor:
        """Return ``(row, number)`` or ``(row, number, …)`` in the units of the table, between the ends of columns.

        What goes beyond all that was observed comes the nearer to an end the farther it goes, and never lies there in a
        heap; unless what was observed does.
        """
        at = self.settings.numbers
        shape = (1, -1, *(1,) * (numbers.ndim - 2))
        low, least, most, high, offset, scale = (
            torch.tensor([getattr(self.columns[column], name) for column in at], dtype=torch.float64).view(shape)
            for name in ("low", "least", "most", "high", "offset", "scale")
        )
        logarithm = torch.tensor([self.columns[column].logarithm for column in at], dtype=torch.bool).view(shape)
        lowest = torch.where(logarithm, low.maximum(least * SMALLEST), low)
        bottom, first, last, top = (torch.where(logarithm, end.log(), end) for end in (lowest, least, most, high))
        told = numbers * scale + offset
        above, below = told > last, told < first
        told = torch.where(above, last + _bent(told - last, top - last), told)
        told = torch.where(below, first - _bent(first - told, first - bottom), told)
        found = torch.where(logarithm, told.exp(), told)
        found = torch.where(above & (high == most), most, found)  # where others lie, digit for digit
        found = torch.where(below & (low == least), least, found)
        return torch.minimum(torch.maximum(found, low), high)

    def mean(self, belief: Belief) -> Tensor:
        """Return the mean of every number in the units of the table, ``(row, number)``."""
        found = self.restored(belief.mean.double())
        multiplied = [at for at, column in enumerate(self.settings.numbers) if self.columns[column].logarithm]
        if multiplied:  # the mean of logarithms is not the logarithm of the mean
            quantiles = belief.quantiles.double()
            inner, tail = (self.restored(part)[:, multiplied] for part in (quantiles[..., :-1], _tail(quantiles)))
            found[:, multiplied] = (inner.sum(-1) + tail.mean(-1)) / quantiles.shape[-1]
        return found

    def between(self, ends: Mapping[int, tuple[float, float]]) -> "RowModel":
        """Return this model, some of whose columns have ends that somebody knows.

        Parameters
        ----------
        ends
            Of columns of numbers, by their places, the least and the greatest value that a cell can have, observed ones
            included; −∞ and ∞ leave what was found out.

        Raises
        ------
        UsageError
            Where a column is none of numbers, the lower end is above the upper one, or something was observed beyond.
        """
        cards = list(self.columns)
        for column, (low, high) in ends.items():
            if column not in self.settings.numbers or not low <= high:
                raise UsageError(f"columns of numbers lie between two ends, the lower first; got {low:g} and {high:g}")
            card = cards[column]
            below, above = (card.low if low == -math.inf else low), (card.high if high == math.inf else high)
            if card.seen and not below <= card.least <= card.most <= above:
                raise UsageError(f"a column lies between {card.least:g} and {card.most:g}, beyond {low:g} and {high:g}")
            cards[column] = replace(card, low=float(below), high=float(above))
        return replace(self, columns=tuple(cards))


def standardised(values: Tensor, settings: RowSettings, columns: Sequence[ColumnCard]) -> Tensor:
    """Return rows ``(row, column)`` in units of what was observed of their columns, at most `FARTHEST` off.

    Raises
    ------
    UsageError
        Where they have another number of columns, a value is infinite, or a code is none.
    """
    check_rows(values, settings)
    offset, scale = _units(columns)
    logarithm = torch.tensor([column.logarithm for column in columns], dtype=torch.bool)
    floors = [column.least * SMALLEST if column.logarithm else 1.0 for column in columns]
    least = torch.tensor(floors, dtype=torch.float64)
    values = torch.where(logarithm, values.maximum(least).log(), values)
    return ((values - offset) / scale).clamp(-FARTHEST, FARTHEST)


def _units(columns: Sequence[ColumnCard]) -> tuple[Tensor, Tensor]:
    offset, scale = zip(*((column.offset, column.scale) for column in columns), strict=True)
    return torch.tensor(offset, dtype=torch.float64), torch.tensor(scale, dtype=torch.float64)


def _bent(beyond: Tensor, room: Tensor) -> Tensor:
    """Return how far to go of what goes beyond, where there is so much room: all of little, and never all there is."""
    room = room.clamp(max=_LARGEST)
    return -room * torch.expm1(-beyond / room)


def _tail(quantiles: Tensor) -> Tensor:
    """Return what is beyond the last quantile of ``(row, number, quantile)``: ``(row, number, TAIL)`` of a normal tail.

    Of numbers that are told as logarithms what is beyond the last quantile is a large part of the mean.
    """
    count = quantiles.shape[-1]
    middle, last = median_of(quantiles)[..., None], quantiles[..., -1:]
    if count == 1:
        return last
    levels = (count - 1 + (torch.arange(TAIL) + 0.5) / TAIL).to(quantiles) / count
    steps = torch.special.ndtri(levels) / torch.special.ndtri(torch.tensor((count - 0.5) / count).to(quantiles))
    return middle + (last - middle) * steps


@torch.no_grad()
def believe(members: Sequence[RowNet], values: Tensor) -> SharedBelief:
    """Return what networks together say of rows; quantiles rise.

    Parameters
    ----------
    members
        The networks.
    values
        ``(row, column)``, standardised; NaN where missing.
    """
    parts = [_averaged(members, values[first : first + _ROWS]) for first in range(0, max(len(values), 1), _ROWS)]
    return SharedBelief(*(torch.cat([getattr(part, each.name) for part in parts]) for each in fields(SharedBelief)))


def _averaged(members: Sequence[RowNet], values: Tensor) -> SharedBelief:
    settings = members[0].settings
    features, mask = settings.as_features(values).float(), ~values.isnan()
    said = [member(features, mask) for member in members]
    chances = torch.zeros_like(said[0].logits)
    for where, category in zip(settings.columns, settings.categories, strict=True):
        if category:
            chances[:, where] = torch.stack([each.logits[:, where].softmax(1) for each in said]).mean(0).log()
    quantiles = torch.stack([each.quantiles.sort(-1).values for each in said])
    medians = median_of(quantiles)
    return SharedBelief(
        torch.stack([each.mean for each in said]).mean(0),
        quantiles.mean(0),
        chances,
        torch.stack([each.unit for each in said]).mean(0),
        torch.stack([each.deviation for each in said]).mean(0),
        (medians - medians.mean(0)).square().mean(0),  # of no numbers var warns
    )


def median_of(quantiles: Tensor) -> Tensor:
    """Return the median of quantiles ``(…, quantile)``, at levels that lie evenly."""
    count = quantiles.shape[-1]
    return (quantiles[..., (count - 1) // 2] + quantiles[..., count // 2]) / 2


def check_rows(values: Tensor, settings: RowSettings) -> None:
    """Refuse rows that are not of a table's columns.

    Raises
    ------
    UsageError
        Where they have another number of columns, a value is infinite, or a code is none.
    """
    if values.ndim != 2 or values.shape[1] != len(settings.sizes):
        raise UsageError(f"the table has {len(settings.sizes)} columns; got values of shape {tuple(values.shape)}")
    if values.isinf().any():
        raise UsageError("a value is infinite; mark it as missing, or replace it")
    for column, (size, category) in enumerate(zip(settings.sizes, settings.categories, strict=True)):
        codes = values[:, column]
        codes = codes[~codes.isnan()]
        if category and not ((codes == codes.round()) & (codes >= 0) & (codes < size)).all():
            raise UsageError(f"codes of column {column} are whole numbers from 0 to {size - 1}, or NaN where missing")


def save_rows(model: RowModel, path: str | Path) -> None:
    """Write a model of rows, whole or not at all, in place of what may be there.

    Raises
    ------
    FileError
        Where it cannot be written.
    """
    tensors = {"rows": model.rows} | {
        f"{number}.{key}": value.detach().contiguous()
        for number, member in enumerate(model.members)
        for key, value in member.state_dict().items()
    }
    card = {
        "settings": asdict(model.settings),
        "columns": [asdict(column) for column in model.columns],
        "members": len(model.members),
        "widths": asdict(model.widths),
        "about": dict(model.about),
    }
    write_tensors(path, FORMAT, tensors, {"card": json.dumps(card)})


def load_rows(path: str | Path) -> RowModel:
    """Read what `save_rows` has written.

    Raises
    ------
    ModelError
        Where the file is not such a model.
    """
    tensors, texts = read_tensors(path, FORMAT)
    try:
        card = json.loads(texts["card"])
        settings = RowSettings(**card["settings"])
        columns = tuple(map(_recalled, card["columns"]))
        found = card["widths"]
        widths = Widths(tuple(found["shares"]), tuple(found["missing"]), tuple(map(tuple, found["factors"])))
        count, about = int(card["members"]), card["about"]
    except (KeyError, TypeError, ValueError, UsageError):
        raise ModelError(f"{path} holds no card that can be read; it may be damaged") from None
    rows = tensors.pop("rows", torch.empty(0, len(columns)))
    members = tuple(RowNet(settings).eval().requires_grad_(False) for _ in range(count))
    for number, member in enumerate(members):
        prefix = f"{number}."
        fill(member, {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}, path)
    return RowModel(settings, columns, members, rows, widths, about)


def _recalled(told: Mapping[str, Any]) -> ColumnCard:
    """Return the card of a column from what JSON has kept of it."""
    return ColumnCard(**{"least": told["low"], "most": told["high"], **told})
