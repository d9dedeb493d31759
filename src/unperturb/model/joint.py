"""Rows with missing cells under one joint Gaussian: its fit, and what the observed cells of a row say of the others.

With mean μ and precision Q, the missing cells h of a row given its observed ones o are Gaussian again,

    E[x_h | x_o] = μ_h − Q_hh⁻¹ Q_ho (x_o − μ_o),        Cov[x_h | x_o] = Q_hh⁻¹

(Bishop, "Pattern recognition and machine learning", 2006, eq. 2.96 and 2.97). μ and Q are those of greatest likelihood,
found by expectation maximisation (Dempster, Laird and Rubin, 1977, section 4.1.3), with some rows of independent cells
added, so that a small table is not taken at its word.

It is the start from which a network for rows learns what is left, as the filling is for images.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 96
"""Most features that are fitted jointly; where there are more, each is taken by itself."""

FEW = 16
"""Features up to which all are solved for, missing or not: to pick out those that are missing would take longer."""

STEP = 8
"""By so many missing features rows differ at most that are solved together, where there are more."""

MOST = 8192
"""Most rows that are fitted; of a longer table as many, evenly apart."""

_ROWS = 1024
"""Rows that are worked on at once."""


@dataclass(frozen=True, eq=False)
class JointGaussian:
    """A Gaussian over rows.

    Attributes
    ----------
    mean
        ``(feature,)``.
    precision
        ``(feature, feature)``, the inverse of the covariance.
    """

    mean: Tensor
    precision: Tensor

    def given(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and the standard deviation of every cell, given the observed cells of its row.

        Parameters
        ----------
        values
            ``(row, feature)``. What they are where the mask says missing makes no difference, NaN included.
        mask
            Boolean, of that shape: True where observed.

        Returns
        -------
        tuple of Tensor
            Both of that shape; an observed cell is its own mean, with a deviation of 0.
        """
        if len(self.mean) > LARGEST:
            return torch.where(mask, values, self.mean), (~mask) * self.precision.diagonal().rsqrt()
        mean, covariance = self.moments(values, mask)
        return mean, covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()

    def moments(self, values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean ``(row, feature)`` and the covariance ``(row, feature, feature)``, as for `given`."""
        seen = torch.where(mask, values, self.mean)
        hidden = (~mask).to(seen)
        pull = -((seen - self.mean) @ self.precision)
        if len(self.mean) <= FEW:
            change, covariance = _solved(self.precision, pull, hidden)
            return seen + change, covariance
        mean, covariance = seen.clone(), seen.new_zeros(*seen.shape, seen.shape[1])
        for rows, columns in _alike(~mask):
            across, down = columns[:, None, :], columns[:, :, None]
            change, within = _solved(
                self.precision[down, across], pull[rows].gather(1, columns), hidden[rows].gather(1, columns)
            )
            mean[rows[:, None], columns] += change
            covariance[rows[:, None, None], down, across] = within
        return mean, covariance


def _solved(precision: Tensor, pull: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Return by how much missing features are beside the mean, ``(row, feature)``, and their covariance; else 0."""
    both = hidden[:, :, None] * hidden[:, None, :]
    # Observed cells are taken out of the system by rows and columns of the identity.
    factor = torch.linalg.cholesky(precision * both + torch.diag_embed(1 - hidden))
    change = torch.cholesky_solve((pull * hidden)[:, :, None], factor)[:, :, 0] * hidden
    return change, torch.cholesky_inverse(factor) * both


def _alike(missing: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield rows that lack about as many features, and as many features of each, those it lacks first.

    So what is solved is as large as what is missing. A row that lacks nothing is left out.
    """
    features = missing.shape[1]
    count = missing.sum(1)
    order = missing.byte().argsort(dim=1, descending=True, stable=True)
    for size in range(STEP, features + STEP, STEP):
        rows = ((count > size - STEP) & (count <= size)).nonzero()[:, 0]
        if len(rows):
            yield rows, order[rows, :size]


def fit_joint(values: Tensor, mask: Tensor, independent: float, *, rounds: int = 30) -> JointGaussian:
    """Fit a Gaussian to rows with missing cells.

    Parameters
    ----------
    values
        ``(row, feature)``, about standardised.
    mask
        Boolean, of that shape: True where observed.
    independent
        How many rows of independent cells are added, of the same variances.
    rounds
        The most, of expectation maximisation.
    """
    if len(values) > MOST:
        part = torch.linspace(0, len(values) - 1, MOST).long()
        values, mask = values[part], mask[part]
    n, features = values.shape
    seen = torch.where(mask, values, 0).double()
    joint = _by_itself(seen, mask)
    if features > LARGEST:
        return JointGaussian(joint.mean.to(values), joint.precision.to(values))
    before = torch.zeros_like(joint.precision)
    for _ in range(rounds):
        mean, covariance = _maximised(joint, seen, mask)
        variance = torch.diag(covariance.diagonal().clamp(min=1e-6))
        covariance = (n * covariance + independent * variance) / (n + independent) + 1e-6 * variance
        joint = JointGaussian(mean, torch.linalg.inv(covariance))
        if (covariance - before).abs().max() < 1e-4:
            break
        before = covariance
    return JointGaussian(joint.mean.to(values), joint.precision.to(values))


def _maximised(joint: JointGaussian, seen: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of the rows, their missing cells being taken for what the fit so far says of them."""
    parts = [
        joint.moments(seen[first : first + _ROWS], mask[first : first + _ROWS]) for first in range(0, len(seen), _ROWS)
    ]
    filled = torch.cat([mean for mean, _ in parts])
    within = torch.stack([covariance.sum(0) for _, covariance in parts]).sum(0)
    mean = filled.mean(0)
    gap = filled - mean
    return mean, (gap.T @ gap + within) / len(seen)


def _by_itself(seen: Tensor, mask: Tensor) -> JointGaussian:
    """Return the Gaussian of independent cells; of mean 0 and variance 1 where nothing was observed."""
    count = mask.sum(0)
    mean = seen.sum(0) / count.clamp(min=1)
    square = torch.where(mask, seen - mean, 0).square().sum(0) / count.clamp(min=1)
    variance = torch.where(square > 1e-6, square, 1.0)
    return JointGaussian(mean, torch.diag(1 / variance))
