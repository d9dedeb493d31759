"""Linear observations, y = A x + sigma n: the operator A as a pair of functions, and what was seen through it.

A is never a matrix. It is a function `forward` and its adjoint, which is known by

    ⟨A x, y⟩ = ⟨x, Aᵀ y⟩        for all x and y

(a wrong adjoint does not fail: it leads to wrong answers; so the two are held against each other before they are used).
Missing components, a Gaussian blur and block means are ready made; anyone's own pair of functions will do.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.model.level import Level, Range, lowest
from unperturb.model.operators import block_means, gaussian_blur
from unperturb.model.perturbation import Composition, Perturbation, alternatives

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class LinearOperator:
    """A and its adjoint, on batches of signals.

    Attributes
    ----------
    forward
        A: signals ``(batch, channel, *space)`` or ``(batch, feature)`` to observations ``(batch, …)``, of any shape.
    adjoint
        Aᵀ: observations to signals.
    mask
        Where A does no more than take components away: boolean, True where they are observed, of a shape that
        broadcasts to the signals. None for every other operator.
    """

    forward: Map
    adjoint: Map
    mask: Tensor | None = None

    def check(self, observed: Tensor) -> None:
        """Hold the two functions against each other on random values, for observations of the shape of `observed`.

        Raises
        ------
        UsageError
            Where the one is not the adjoint of the other.
        """
        generator = torch.Generator().manual_seed(0)
        seen = _normal(observed, generator)
        back = self.adjoint(seen)
        clean = _normal(back, generator)
        there = self.forward(clean)
        if there.shape != seen.shape:
            raise UsageError(
                f"forward makes shape {tuple(there.shape)} of {tuple(clean.shape)}, and the observation has "
                f"{tuple(seen.shape)}"
            )
        one, other = (there * seen).double().flatten(1).sum(1), (clean * back).double().flatten(1).sum(1)
        size = there.double().flatten(1).norm(dim=1) * seen.double().flatten(1).norm(dim=1)
        # For a wrong pair they differ by about size / sqrt(components); by rounding, by a few parts in a million.
        if not ((one - other).abs() <= 1e-5 * size).all():
            raise UsageError(
                "adjoint is not the adjoint of forward: for random x and y, (A x)·y and x·(Aᵀ y) are "
                f"{float(one[0]):.6g} and {float(other[0]):.6g}"
            )


def mask_operator(mask: Tensor) -> LinearOperator:
    """Return the operator that keeps what the mask says is observed and puts 0 elsewhere.

    Parameters
    ----------
    mask
        Boolean, True where observed: ``(batch or 1, 1, *space)`` or ``(batch or 1, feature)``.

    Raises
    ------
    UsageError
        Where it is not boolean.
    """
    if mask.dtype != torch.bool:
        raise UsageError(f"a mask is boolean, True where observed; got {mask.dtype}")

    def keep(values: Tensor) -> Tensor:
        # Filled, not multiplied: 0 * NaN would tell that the hidden value was NaN.
        return values.masked_fill(~mask, 0)

    return LinearOperator(keep, keep, mask)


def blur_operator(sigma: float) -> LinearOperator:
    """Return convolution with a Gaussian of standard deviation `sigma` pixels, of signals with axes of space.

    It is its own adjoint: the kernel is even, and so is the mirror image beyond the border.
    """

    def blur(values: Tensor) -> Tensor:
        return gaussian_blur(values, values.new_full((len(values),), sigma), sigma)

    return LinearOperator(blur, blur)


def downsample_operator(factor: int) -> LinearOperator:
    """Return the operator that puts the mean of each block of `factor` pixels a side in all of them.

    It is an orthogonal projection, and so its own adjoint.
    """

    def means(values: Tensor) -> Tensor:
        return torch.stack([block_means(item, factor) for item in values])

    return LinearOperator(means, means)


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What was seen, y = A x + sigma n: a function of the clean x, N(y; A x, sigma² I).

    Attributes
    ----------
    operator
        A.
    y
        ``(batch, …)``, of the shape that ``operator.forward`` makes. For a mask, what is missing in it may be anything.
    sigma
        Standard deviation of the noise in `y`, in its units; 0 where there is none.

    Raises
    ------
    UsageError
        Where the pair of the operator is wrong, a value of `y` is not finite, or `sigma` is no number of at least 0.
    """

    operator: LinearOperator
    y: Tensor
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.sigma < float("inf"):
            raise UsageError(f"sigma is a finite number of at least 0; got {self.sigma}")
        mask = self.operator.mask
        if mask is not None:
            if mask.ndim != self.y.ndim or len(mask) not in (1, len(self.y)):
                raise UsageError(f"a mask of shape {tuple(mask.shape)} does not fit values {tuple(self.y.shape)}")
            object.__setattr__(self, "y", self.y.masked_fill(~mask, 0))
        if not self.y.isfinite().all():
            raise UsageError("some observed values are NaN or infinite; mark them as missing, or replace them")
        self.operator.check(self.y)

    @property
    def kept(self) -> Tensor | None:
        """``(batch or 1, …)``: which components of the clean signals `y` holds as they are; None where that is none."""
        return self.operator.mask if self.sigma == 0 else None

    def forward(self, x: Tensor) -> Tensor:
        """Return A x, for a batch that may be a multiple of that of `y`, which is then taken in turn."""
        return self._in_turn(self.operator.forward, x)

    def adjoint(self, v: Tensor) -> Tensor:
        """Return Aᵀ v, for such a batch."""
        return self._in_turn(self.operator.adjoint, v)

    def repeated(self, like: Tensor) -> Tensor:
        """Return `y` as many times over as the batch of `like` holds that of `y`, in its type."""
        return self.y.to(like).repeat(len(like) // len(self.y), *(1,) * (self.y.ndim - 1))

    def _in_turn(self, function: Map, values: Tensor) -> Tensor:
        if len(self.y) == 1 or len(values) == len(self.y):
            return function(values)
        if len(values) % len(self.y):
            raise UsageError(f"{len(self.y)} observations do not go into a batch of {len(values)}")
        return torch.cat([function(part) for part in torch.split(values, len(self.y))])


ERASURES = ("erase", "block", "line", "scratch")
"""Names of perturbations that only take components away, and say which."""


def always_erases(perturbation: Perturbation) -> bool:
    """Return whether there is something missing of everything that is perturbed so."""
    return all(any(map(_erases, getattr(one, "parts", (one,)))) for one in alternatives(perturbation))


def _erases(part: Perturbation) -> bool:
    return getattr(part, "name", None) in ERASURES and lowest(getattr(part, "fraction", 1.0)) > 0


def likelihood_of(perturbation: Perturbation, values: Tensor, mask: Tensor | None = None) -> Likelihood:
    """Make a likelihood of a perturbation and what it made.

    Parameters
    ----------
    perturbation
        One linear part, and after it Gaussian noise or none: ``erase``, ``block`` or any other that comes with a mask;
        ``blur`` or ``downsample`` of one stated strength. Noise before an erasure is the same as noise after it.
    values
        What was observed: ``(batch, channel, *space)``, or ``(batch, feature)``.
    mask
        Boolean, True where observed, as `Perturbed` has it; for an erasure.

    Raises
    ------
    UsageError
        Where the perturbation is none of these, or needs a mask that is not there.
    """
    parts = perturbation.parts if isinstance(perturbation, Composition) else (perturbation,)
    linear = [part for part in parts if getattr(part, "name", None) in (*ERASURES, "blur", "downsample")]
    noise = [part for part in parts if getattr(part, "name", None) == "gaussian"]
    erases = len(linear) == 1 and getattr(linear[0], "name", None) in ERASURES
    if len(linear) != 1 or len(linear) + len(noise) != len(parts) or not (erases or parts[0] is linear[0]):
        raise UsageError(
            f"{perturbation} is not one linear part (an erasure, blur or downsample) with Gaussian noise after it, "
            "which is all that a model of noise can be told"
        )
    sigma = sum(_stated(part, "sigma") ** 2 for part in noise) ** 0.5
    if mask is not None and not erases:
        raise UsageError(f"{perturbation}, and values missing besides, is more than a model of noise can be told")
    if erases:
        if mask is None:
            raise UsageError(f"{perturbation} leaves open which components are missing; give a mask as well")
        return Likelihood(mask_operator(mask), values, sigma)
    if values.ndim < 3:
        raise UsageError(f"{perturbation} is for signals with axes of space; got shape {tuple(values.shape)}")
    if getattr(linear[0], "name", None) == "blur":
        return Likelihood(blur_operator(_stated(linear[0], "sigma")), values, sigma)
    return Likelihood(downsample_operator(int(_stated(linear[0], "factor"))), values, sigma)


def _stated(part: Perturbation, field: str) -> float:
    """Return a level that is a number."""
    level: Level = getattr(part, field)
    if isinstance(level, Range):
        raise UsageError(f"{part} leaves {field} open; state the one number that it was")
    return float(level)


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
