"""A network for rows of a table: of every missing cell, what it may be, given the observed cells of the row.

Rows are unlike images. Their cells have kinds of their own (a number, one of some categories), half of them may never
have been observed together, and what people need of one is rarely its mean alone. So the network answers with the whole
distribution of every cell by itself: for a number its mean, and its quantiles at

    τ_i = (i + 1/2) / Q,        i = 0 … Q − 1

for a category the chance of each. Draws of a whole row come cell by cell, each drawn cell being observed from then on,
p(x_1, x_2, … | y) = p(x_1 | y) p(x_2 | x_1, y) …, in any order (`unperturb.infer.impute`).

It is a denoising autoencoder of the perturbation "erase": trained to give back cells that were taken away. It starts
from the joint Gaussian of the rows (`unperturb.model.joint`) and from what like rows of the table have in their place
(`unperturb.model.neighbours`), and learns, in units of what these leave open, what they do not know.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional

from unperturb.errors import UsageError
from unperturb.model.joint import JointGaussian
from unperturb.model.neighbours import Described, Memory, Neighbours

LEAST = 0.02
"""Least unit that a number is learned in, as a share of the standard deviation of its column."""

KNOTS = 33
"""Quantiles of a column that its values are ranked by."""

BINS = 16
"""Parts of a column, about equally full, that a cell is described by how much of it lies below."""

FREQUENCIES = 6
"""Octaves of the sines and cosines that a rank is described by."""


@dataclass(frozen=True)
class RowSettings:
    """What the columns of a table are, and the size of a network for them.

    Attributes
    ----------
    sizes
        Of every column: 1 for a number, else the number of its categories.
    categories
        Of every column: whether its values are codes of categories.
    width, blocks
        Features of the hidden layers, and how many residual blocks there are.
    quantiles
        How many quantiles of a number are learned.
    dropout
        Share of hidden features that training leaves out.
    heads
        Metrics that like rows are looked for by.
    """

    sizes: tuple[int, ...]
    categories: tuple[bool, ...]
    width: int = 128
    blocks: int = 3
    quantiles: int = 31
    dropout: float = 0.1
    heads: int = 2

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", tuple(self.sizes))
        object.__setattr__(self, "categories", tuple(self.categories))
        if not self.sizes or len(self.sizes) != len(self.categories):
            raise UsageError("a table has at least one column, and a size and a kind for each")
        if min(self.width, self.blocks, self.quantiles, self.heads, *self.sizes) < 1 or not 0 <= self.dropout < 1:
            raise UsageError("sizes, width, blocks, quantiles and heads are at least 1, dropout is from 0 to below 1")

    @property
    def features(self) -> int:
        """Numbers that a row becomes."""
        return sum(self.sizes)

    @property
    def columns(self) -> list[slice]:
        """Return where in the features each column is."""
        ends = list(accumulate(self.sizes))
        return [slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True)]

    @property
    def numbers(self) -> list[int]:
        """Return the columns that are numbers."""
        return [column for column, category in enumerate(self.categories) if not category]

    @property
    def levels(self) -> Tensor:
        """Return the τ of the quantiles, ``(quantile,)``."""
        return (torch.arange(self.quantiles) + 0.5) / self.quantiles

    def as_features(self, values: Tensor) -> Tensor:
        """Return rows as features: numbers as they are, codes of categories as zeros and a one.

        Parameters
        ----------
        values
            ``(row, column)``; NaN where missing, of which all features are 0.
        """
        parts = []
        for column, (size, category) in enumerate(zip(self.sizes, self.categories, strict=True)):
            value = values[:, [column]]
            missing = value.isnan()
            if category:
                codes = torch.where(missing, -1, value).long()
                parts.append((codes == torch.arange(size)).to(values))
            else:
                parts.append(torch.where(missing, 0, value))
        return torch.cat(parts, 1)

    def as_mask(self, observed: Tensor) -> Tensor:
        """Return a mask of columns ``(row, column)`` as one of features."""
        return observed.repeat_interleave(torch.tensor(self.sizes), 1)


@dataclass(frozen=True, eq=False)
class Belief:
    """What the cells of rows may be, each by itself. Of observed cells it says nothing.

    Attributes
    ----------
    mean
        ``(row, number)``, one for every column that is a number.
    quantiles
        ``(row, number, quantile)``, not always rising.
    logits
        ``(row, feature)``: logarithms of chances up to a constant a column, for features of categories; others are 0.
    unit
        ``(row, number)``: how far off the joint Gaussian and like rows may be, in whose units numbers are learned.
    deviation
        ``(row, number)``: how far off the joint Gaussian alone may be, whatever the network has learned.
    """

    mean: Tensor
    quantiles: Tensor
    logits: Tensor
    unit: Tensor
    deviation: Tensor


class RowNet(nn.Module):
    """Residual perceptron over rows, on top of a joint Gaussian and of what like rows say.

    Parameters
    ----------
    settings
        The columns, and the size.
    joint
        Of the rows' features; None where stored weights will be put in.
    ranks
        ``(feature, KNOTS)``: quantiles of what was observed of each feature; None likewise.
    """

    mean: Tensor
    precision: Tensor
    ranks: Tensor

    def __init__(self, settings: RowSettings, joint: JointGaussian | None = None, ranks: Tensor | None = None) -> None:
        super().__init__()
        self.settings = settings
        self.memory: Memory | None = None
        features, width, heads, n_numbers = settings.features, settings.width, settings.heads, len(settings.numbers)
        self.register_buffer("mean", torch.zeros(features) if joint is None else joint.mean)
        self.register_buffer("precision", torch.eye(features) if joint is None else joint.precision.contiguous())
        self.register_buffer("ranks", torch.zeros(features, KNOTS) if ranks is None else ranks)
        plain = (4 + BINS) * features
        self.neighbours = Neighbours(plain, 2 * FREQUENCIES * features, heads)
        self.head = nn.Linear(plain + 2 * heads * features, width)
        self.blocks = nn.ModuleList(_Block(width, settings.dropout) for _ in range(settings.blocks))
        self.norm = nn.LayerNorm(width)
        self.trust = nn.Linear(width, features * (1 + heads))
        self.number = nn.Linear(width, max(n_numbers, 1) * (1 + settings.quantiles))  # torch warns of none
        self.category = nn.Linear(width, features)
        with torch.no_grad():  # untrained, it says what the joint Gaussian and like rows do
            for layer in (self.trust, self.number, self.category):
                layer.weight.mul_(0.01)
                layer.bias.zero_()
            self.trust.bias.view(features, -1)[:, 0] = 1
            self.number.bias.view(-1, 1 + settings.quantiles)[:, 1:] = torch.special.ndtri(settings.levels)

    @torch.no_grad()
    def remember(self, features: Tensor, mask: Tensor) -> None:
        """Keep rows of a table, for others to be compared with. Out of training, weights are not to change after it.

        Parameters
        ----------
        features, mask
            As for `forward`.
        """
        row, seen = self._described(features, mask), self.settings.as_mask(mask)
        keys = None if self.training else self.neighbours.keys(row.plain, row.fine)
        self.memory = Memory(row.plain, row.fine, torch.where(seen, features, 0), seen.to(features), keys)

    def forward(
        self,
        features: Tensor,
        mask: Tensor,
        generator: torch.Generator | None = None,
        *,
        own: Tensor | None = None,
        among: Tensor | None = None,
    ) -> Belief:
        """Say what cells may be.

        Parameters
        ----------
        features
            ``(row, feature)``, see `RowSettings.as_features`; numbers about standardised.
        mask
            Boolean, ``(row, column)``: True where observed.
        generator
            Where it comes from what is left out in training; None leaves nothing out.
        own
            ``(row,)``: which of the remembered rows each is, not to be asked of itself; none where None.
        among
            Numbers of the remembered rows that are asked; all where None.
        """
        seen = self.settings.as_mask(mask)
        row = self._described(features, mask)
        said, spread = self._said(row, own, among)
        unit = row.deviation.clamp(min=LEAST)
        apart = torch.where(seen[..., None], 0, (said - row.start[..., None]) / unit[..., None]).clamp(-6, 6)
        wide = torch.where(seen[..., None], 0, spread / unit[..., None]).clamp(max=6)
        hidden = self.head(torch.cat([row.plain, apart.flatten(1), wide.flatten(1)], 1))
        for block in self.blocks:
            hidden = block(hidden, generator)
        hidden = self.norm(hidden)
        # Of every feature, how far the joint Gaussian is to be trusted, and how far each way of finding like rows.
        trust = self.trust(hidden).view(*unit.shape, -1).softmax(-1)
        start = (trust * torch.cat([row.start[..., None], said], -1)).sum(-1)
        unit = (trust * torch.cat([unit[..., None], spread.clamp(min=LEAST)], -1)).sum(-1)
        at = [self.settings.columns[column].start for column in self.settings.numbers]
        numbers = self.number(hidden).view(len(start), -1, 1 + self.settings.quantiles)[:, : len(at)]
        found = start[:, at, None] + unit[:, at, None] * numbers
        logits = start.clamp(0.01, 1).log() + self.category(hidden)
        logits = logits * self._of_categories(start)
        return Belief(found[..., 0], found[..., 1:], logits, unit[:, at], row.deviation[:, at])

    def _described(self, features: Tensor, mask: Tensor) -> Described:
        seen = self.settings.as_mask(mask)
        start, deviation = JointGaussian(self.mean, self.precision).given(features, seen)
        low, high = self.ranks[:, :-1], self.ranks[:, 1:]
        rank = (_below(start, low, high)).sum(-1) / (high > low).sum(-1).clamp(min=1)
        edges = self.ranks[:, :: (KNOTS - 1) // BINS]
        parts = _below(start, edges[:, :-1], edges[:, 1:]) * seen[..., None]
        angle = rank[..., None] * (torch.pi * 2.0 ** torch.arange(FREQUENCIES))
        # Normal scores of the rank are blind to how far out an outlier is.
        scores = torch.special.ndtri(0.02 + 0.96 * rank)
        return Described(
            start,
            deviation,
            torch.cat([start.clamp(-6, 6), scores, deviation, seen.to(start), parts.flatten(1)], 1),
            (torch.cat([angle.sin(), angle.cos()], -1) * seen[..., None]).flatten(1),
        )

    def _said(self, row: Described, own: Tensor | None, among: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what like rows say; what the joint Gaussian does where none is remembered."""
        if self.memory is None:
            shape = (*row.start.shape, self.settings.heads)
            return row.start[..., None].expand(shape), row.deviation[..., None].expand(shape)
        memory = self.memory if among is None else self.memory.of(among)
        alike = None
        if own is not None:
            alike = own[:, None] == (torch.arange(len(memory.seen)) if among is None else among)
        mean, spread = self.neighbours(row, memory, alike)
        return mean, spread

    def _of_categories(self, like: Tensor) -> Tensor:
        flags = [
            flag for flag, size in zip(self.settings.categories, self.settings.sizes, strict=True) for _ in range(size)
        ]
        return torch.tensor(flags).to(like)


def _below(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return which share of each part of a column lies below a value, ``(row, feature, part)``; 0 for empty parts."""
    return ((values[..., None] - low) / (high - low).clamp(min=1e-6)).clamp(0, 1) * (high > low)


class _Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = dropout
        nn.init.normal_(self.second.weight, 0, 0.3 / math.sqrt(2 * width))
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """``(row, width)`` to the same."""
        inner = functional.silu(self.first(self.norm(x)))
        if generator is not None:
            # Not torch's own: that draws from a generator which all threads share.
            kept = torch.rand(inner.shape, generator=generator) >= self.dropout
            inner = inner * kept / (1 - self.dropout)
        change: Tensor = self.second(inner)
        return x + change


def by_category(settings: RowSettings, logits: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Yield each column of categories, with the logarithms of its chances ``(row, category)``."""
    for column, where in enumerate(settings.columns):
        if settings.categories[column]:
            yield column, functional.log_softmax(logits[:, where], 1)


def ranks_of(features: Tensor, mask: Tensor) -> Tensor:
    """Return `KNOTS` quantiles of what was observed of each feature, ``(feature, KNOTS)``; 0 where nothing was.

    Parameters
    ----------
    features, mask
        ``(row, feature)``; the mask is boolean, True where observed.
    """
    levels = torch.linspace(0, 1, KNOTS)
    columns: Sequence[Tensor] = [features[mask[:, index], index] for index in range(features.shape[1])]
    return torch.stack([torch.quantile(column, levels) if len(column) else torch.zeros(KNOTS) for column in columns])
