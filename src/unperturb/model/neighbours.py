"""What like rows of a table have to say of a row's missing cells: attention over rows, in a metric that is learned.

Row a asks every other row b of the table with the weight

    w_ab  ∝  exp(−‖k(a) − k(b)‖²)

and hears of column j the mean and the spread of what those rows have observed there,

    v_j = Σ_b w_ab m_bj x_bj / Σ_b w_ab m_bj,        m_bj = 1 where observed

Several heads do so, each with a metric k of its own. It is kernel regression (Nadaraya, 1964; Watson, 1964) in learned
coordinates (Goldberger et al., "Neighbourhood components analysis", 2004), for rows of which anything may be missing.

Tables are full of rows that share some cells to the last digit: measurements of one site, mixtures made twice. So the
metric reads cells as sines and cosines of their ranks as well, up to a frequency that tells a value from the next one
(Gorishniy, Rubachev and Babenko, "On embeddings for numerical features in tabular deep learning", 2022).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

PRIOR = 1e-4
"""Weight of what is said without any neighbour."""

_PAIRS = 2**20
"""Pairs of rows that are compared at once."""


@dataclass(frozen=True, eq=False)
class Described:
    """Rows as networks read them.

    Attributes
    ----------
    start, deviation
        ``(row, feature)``: what the joint Gaussian says of every cell.
    plain
        ``(row, …)``: cells, where they are among those of their column, and which of them were observed.
    fine
        ``(row, …)``: sines and cosines of observed cells' ranks.
    """

    start: Tensor
    deviation: Tensor
    plain: Tensor
    fine: Tensor


@dataclass(frozen=True, eq=False)
class Memory:
    """The rows of a table that others are compared with.

    Attributes
    ----------
    plain, fine
        As in `Described`.
    values
        ``(row, feature)``; 0 where missing.
    seen
        ``(row, feature)``: 1 where observed, 0 where missing.
    keys
        ``(head, row, coordinate)``, where weights do not change any more.
    """

    plain: Tensor
    fine: Tensor
    values: Tensor
    seen: Tensor
    keys: Tensor | None = None

    def of(self, rows: Tensor) -> "Memory":
        """Return some of the rows alone, by their numbers."""
        keys = None if self.keys is None else self.keys[:, rows]
        return Memory(self.plain[rows], self.fine[rows], self.values[rows], self.seen[rows], keys)


class Neighbours(nn.Module):
    """Attention over rows.

    Parameters
    ----------
    plain, fine
        Sizes of both descriptions of a row.
    heads
        Metrics that are learned.
    size
        Coordinates of each.
    width
        Features of the hidden layer of the metric.
    """

    def __init__(self, plain: int, fine: int, heads: int, size: int = 16, width: int = 64) -> None:
        super().__init__()
        self.heads = heads
        self.bent = nn.Sequential(nn.Linear(plain, width), nn.SiLU(), nn.Linear(width, heads * size))
        self.straight = nn.Linear(fine, heads * size, bias=False)

    def forward(self, rows: Described, memory: Memory, alike: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of every cell among like rows, both ``(row, feature, head)``.

        Parameters
        ----------
        rows
            Who asks.
        memory
            Who is asked.
        alike
            Boolean, ``(row, other)``: whom not to ask, being the same row.
        """
        asks = self.keys(rows.plain, rows.fine)
        told = self.keys(memory.plain, memory.fine) if memory.keys is None else memory.keys
        reach = told.square().sum(-1)[:, None]
        values = torch.cat([memory.seen, memory.values, memory.values.square()], 1)
        said = []
        size = max(_PAIRS // max(len(values), 1), 1)
        for first in range(0, max(asks.shape[1], 1), size):
            part = slice(first, first + size)
            weight = torch.baddbmm(reach, asks[:, part], told.transpose(1, 2), beta=-1, alpha=2)
            if alike is not None:
                weight = weight.masked_fill(alike[part], -torch.inf)
            weight = weight.softmax(-1)
            if alike is not None and alike[part].all(1).any():
                weight = weight.nan_to_num(0)  # nobody is left to ask: nothing is said
            said.append(weight @ values)
        count, total, square = (part.movedim(0, -1) for part in torch.cat(said, 1).chunk(3, -1))
        start, spread = rows.start[..., None], rows.deviation[..., None]
        mean = (total + PRIOR * start) / (count + PRIOR)
        second = (square + PRIOR * (start.square() + spread.square())) / (count + PRIOR)
        return mean, (second - mean.square()).clamp(min=1e-6).sqrt()

    def keys(self, plain: Tensor, fine: Tensor) -> Tensor:
        """Return the place of rows in each metric, ``(head, row, coordinate)``."""
        keys: Tensor = self.bent(plain) + self.straight(fine)
        return keys.view(len(keys), self.heads, -1).transpose(0, 1)
