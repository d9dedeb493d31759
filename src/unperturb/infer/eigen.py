"""The leading eigenvectors of a symmetric matrix that is known by its products with vectors alone.

A subspace is built up a block at a time. With V an orthonormal basis of it and A V known,

    Vᵀ A V = U Λ Uᵀ        V U, Λ are the best eigenvectors and eigenvalues within it         (Rayleigh and Ritz)
    R = A V U − V U Λ      is what they lack; its part outside of the subspace is the next block

(Davidson, "The iterative calculation of a few of the lowest eigenvalues and corresponding eigenvectors of large
real-symmetric matrices", 1975, without a preconditioner). A block costs what one iteration of the power method costs,
and nothing that was learned before is thrown away.

Vectors are rows here, as the items of a batch are.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Apply = Callable[[Tensor], Tensor]
"""Rows ``(row, component)`` to their products with a matrix."""

_KEPT = 64_000_000  # values of the subspace, beyond which it is reduced to the eigenvectors within it


class Eigen(NamedTuple):
    """Eigenvalues, falling; eigenvectors ``(row, component)``; A times these; ‖A v − λ v‖ / |λ| of each."""

    values: Tensor
    vectors: Tensor
    products: Tensor
    residuals: Tensor


def leading(apply: Apply, first: Tensor, iterations: int, tolerance: float) -> Eigen:
    """Return as many eigenvectors of the largest eigenvalues as there are rows in the first block.

    Parameters
    ----------
    apply
        The matrix. Of one that is not symmetric, the symmetric part is solved, and the rest shows in the residuals.
    first
        ``(row, component)``, independent; random where nothing is known.
    iterations
        Blocks, at most.
    tolerance
        Residual of all of them at which to stop.
    """
    count, size = first.shape
    basis = orthonormal(first, first[:0])
    images = apply(basis)
    for _ in range(iterations - 1):
        found = ritz(basis, images, count)
        if bool((found.residuals <= tolerance).all()):
            break
        if len(basis) + count > max(3 * count, _KEPT // size):
            basis, images = found.vectors, found.products
        new = orthonormal(found.products - found.values[:, None] * found.vectors, basis)
        if len(new) == 0:
            break
        basis, images = torch.cat([basis, new]), torch.cat([images, apply(new)])
    return ritz(basis, images, count)


def ritz(basis: Tensor, images: Tensor, count: int) -> Eigen:
    """Return the best eigenvectors within the span of an orthonormal basis, given its products with the matrix."""
    inner = (basis @ images.T).double()
    values, mixing = torch.linalg.eigh((inner + inner.T) / 2)
    values, mixing = values.flip(0)[:count].to(basis), mixing.flip(1)[:, :count].to(basis)
    vectors, products = mixing.T @ basis, mixing.T @ images
    lacking = (products - values[:, None] * vectors).norm(dim=1)
    return Eigen(values, vectors, products, lacking / values.abs().clamp(min=torch.finfo(values.dtype).tiny))


def orthonormal(rows: Tensor, basis: Tensor) -> Tensor:
    """Return an orthonormal basis of what rows have outside of the span of another one; twice, for the rounding."""
    rows = rows / rows.norm(dim=1, keepdim=True).clamp(min=torch.finfo(rows.dtype).tiny)
    for _ in range(2):
        rows = rows - (rows @ basis.T) @ basis
        orthogonal, triangle = torch.linalg.qr(rows.T)
        rows = orthogonal.T[triangle.diagonal().abs() > 100 * torch.finfo(rows.dtype).eps]
    return rows
