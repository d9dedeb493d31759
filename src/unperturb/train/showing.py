"""What one item is learned from: the clean signal, the noisy one, and, for a conditional network, what it is shown.

Gaussian noise of known level is a task by itself: x = clean + σ n, with σ drawn by the perturbation.

Any other perturbation makes an observation y, and the task is E[clean | x, y] at every noise level of x = clean + σ n
that a draw will have to find its way through: with s the scale of what was observed, ln(σ/s) is uniform between the
ends of `RANGE`. In a share of `UNSEEING` items x says nothing. There the answer is E[clean | y] alone, the best guess;
it is what most people ask for, and the hardest.

What was observed without noise will be kept as it is, so that errors count elsewhere alone. They are measured in units
of what is to be expected, so that an image of which a tenth is missing teaches as much as one of which little is left,
and one with little noise as much as one with a lot.
This may depend on y, never on what is hidden, or the answer would no longer be a mean:

    w² = 1 / (1/σ² + 1/e²),        e: how far off y may be by itself (`Given.error`)

Where pixels are erased, a network looks twice, and its second look is shown the answer of the first (`Given.refined`).
Half of the items whose x says nothing teach the first look; the others, and all items with an x, the second.

A crop stands for the image that it will be part of, whose e is another: what the network is told of it is multiplied by
a number between 1/2 and 2, drawn an item.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from unperturb.model import operators
from unperturb.model.filling import filled
from unperturb.model.given import BLIND, Fill, Given, show
from unperturb.model.optics import compresses
from unperturb.model.perturbation import Choice, Composition, Gaussian, Perturbation, Perturbed, stacked

RANGE = (0.02, BLIND)
"""Least and largest noise in x, in units of the scale."""

UNSEEING = 0.5
"""Share of the items whose x says nothing."""

VECTORS = 0.4
"""What e is for vectors, in units of their scale."""

LEAST = 0.02
"""Errors are measured in units of so much of the scale at least."""


@dataclass(frozen=True, eq=False)
class Task:
    """What is to be learned from a batch of signals.

    Attributes
    ----------
    clean, x
        ``(batch, …)``: clean signals, and noisy ones.
    sigma
        ``(batch,)``, of the noise in `x`.
    given
        What a conditional network is shown of y.
    known
        Boolean, shape of `clean`: what need not be learned. None where nothing is known.
    unit
        ``(batch,)``: what errors, values and `weigh` are measured in.
    weigh
        ``(batch,)``: the noise level for which errors are weighed.
    again
        Items of which a conditional network is to see its first answer.
    """

    clean: Tensor
    x: Tensor
    sigma: Tensor
    given: Given | None
    known: Tensor | None
    unit: Tensor
    weigh: Tensor
    again: tuple[int, ...] = ()

    def to(self, device: torch.device) -> "Task":
        """Return it on a device."""
        clean, x, sigma, unit, weigh = (
            part.to(device, non_blocking=True) for part in (self.clean, self.x, self.sigma, self.unit, self.weigh)
        )
        known = None if self.known is None else self.known.to(device)
        given = None if self.given is None else self.given.to(clean)
        return Task(clean, x, sigma, given, known, unit, weigh, self.again)

    @torch.no_grad()
    def seen_by(self, denoiser: Callable[[Tensor, Tensor, Given], Tensor]) -> Given | None:
        """Return what a network is shown: of some items its own first answer, from which nothing flows back."""
        if self.given is None or not self.again:
            return self.given
        part = self.given.rows(list(self.again))
        part = part.refined(denoiser(torch.zeros_like(part.values), BLIND * part.scale, part).to(part.values))
        values = self.given.values.clone()
        values[list(self.again)] = part.values
        return replace(self.given, values=values)

    def measured(self, estimate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return estimate, truth and noise level as an objective takes them, in units of `unit`."""
        estimate = estimate.float()
        if self.given is None:
            return estimate, self.clean, self.weigh
        if self.known is not None:
            estimate = torch.where(self.known, self.clean, estimate)
        unit = _per_item(self.unit, estimate)
        return estimate / unit, self.clean / unit, self.weigh / self.unit


def says_all(perturbation: Perturbation) -> bool:
    """Whether a perturbation is Gaussian noise of known level and nothing else, so that a plain denoiser undoes it."""
    if isinstance(perturbation, Composition | Choice):
        return all(says_all(part) for part in perturbation.parts)
    return isinstance(perturbation, Gaussian)


class Pairs(NamedTuple):
    """Clean signals ``(batch, …)``, and what was observed of them."""

    clean: Tensor
    observed: Perturbed


def perturbed(
    clean: Tensor, generator: torch.Generator, perturb: Perturbation, *, half_colour: bool = False
) -> list[Pairs]:
    """Perturb clean signals; those of which alike much is known, a mask or a noise level, come together.

    Parameters
    ----------
    clean
        ``(batch, …)``.
    generator
        The source of randomness, on the device of the signals.
    perturb
        Of a choice, each item has one part of its own.
    half_colour
        Whether of what was JPEG-compressed colour is to be found at half resolution, as the file has it.
    """
    drawn: dict[tuple[bool, bool], list[Pairs]] = {}
    for part, items in _shared_out(clean, perturb, generator):
        made = part(items, generator)
        wanted = operators.half_colour(items).clamp(0, 1) if half_colour and compresses(part) else items
        drawn.setdefault((made.mask is None, made.sigma is None), []).append(Pairs(wanted, made))
    return [
        Pairs(torch.cat([pairs.clean for pairs in found]), stacked([pairs.observed for pairs in found]))
        for found in drawn.values()
    ]


def task_of(pairs: Pairs, generator: torch.Generator, *, shown: bool, fill: Fill = filled) -> Task:
    """Return what is to be learned from perturbed signals.

    Parameters
    ----------
    pairs
        Signals, clean and perturbed.
    generator
        The source of randomness, on the device of the signals.
    shown
        Whether for a conditional network; if not, the perturbation is one that `says_all`.
    fill
        How to fill in what was erased.
    """
    clean, observed = pairs
    if shown:
        return shown_task(clean, observed, generator, fill)
    assert observed.sigma is not None
    return Task(clean, observed.values, observed.sigma, None, None, torch.ones_like(observed.sigma), observed.sigma)


def _shared_out(
    clean: Tensor, perturb: Perturbation, generator: torch.Generator
) -> Iterator[tuple[Perturbation, Tensor]]:
    """Yield the parts of a choice, each with the items that it is drawn for."""
    if not isinstance(perturb, Choice):
        yield perturb, clean
        return
    which = perturb.drawn(len(clean), generator).to(clean.device)
    for number, part in enumerate(perturb.parts):
        items = clean[which == number]
        if len(items):
            yield part, items


def shown_task(clean: Tensor, observed: Perturbed, generator: torch.Generator, fill: Fill = filled) -> Task:
    """Return the task of a conditional network, of clean signals and what was observed of them."""
    y, mask, noise_of_y = observed
    seen = show(y, mask, noise_of_y, fill)
    chance, place, factor, turn = torch.rand(4, len(clean), generator=generator, device=clean.device)
    expected = seen.error.flatten(1).amax(1) if clean.ndim > 2 else VECTORS * seen.scale
    if mask is None and clean.ndim > 2:
        expected = torch.minimum(expected, roughness(y))
    if clean.ndim > 2:
        told = seen.error * torch.exp(_per_item(2 * factor - 1, clean) * math.log(2))
        exact = (seen.mask > 0) if noise_of_y is not None else torch.zeros_like(seen.mask, dtype=torch.bool)
        seen = replace(seen, error=torch.where(exact, seen.error, told))
    low, high = map(math.log, RANGE)
    sigma = seen.scale * torch.where(chance < UNSEEING, BLIND, torch.exp(low + (high - low) * place))
    noise = torch.randn(clean.shape, generator=generator, dtype=clean.dtype, device=clean.device)
    x = clean + _per_item(sigma, clean) * noise
    unit = torch.hypot(sigma * expected / torch.hypot(sigma, expected), LEAST * seen.scale)
    known = None
    if mask is not None and noise_of_y is not None:
        known = mask.expand_as(clean) & _per_item(noise_of_y == 0, clean)
        # Where few components count, the mean over all is small, and what it says of the network is largely chance.
        unit = unit * (1 - known.flatten(1).float().mean(1)).clamp(min=1e-3) ** 0.25
    again = (mask is not None) & (clean.ndim > 2) & ((chance >= UNSEEING) | (turn < 0.5))
    return Task(clean, x, sigma, seen, known, unit, unit, tuple(again.nonzero()[:, 0].tolist()))


def roughness(values: Tensor) -> Tensor:
    """Return about the standard deviation of the noise in signals, and of what looks like it: ``(batch,)``.

    White noise of variance σ² has, as differences of neighbours along every axis, a variance of σ² · 2^axes; a smooth
    signal has next to none there (Immerkær, "Fast noise variance estimation", 1996). Of the signal and of its means
    over two neighbours the larger is taken, for noise that neighbours have in common.
    """
    found = []
    for _ in range(2):
        detail = values
        for axis in range(2, values.ndim):
            detail = detail.diff(dim=axis) if detail.shape[axis] > 1 else detail
        found.append(detail.abs().flatten(1).mean(1) * math.sqrt(math.pi / 2) / 2 ** ((values.ndim - 2) / 2))
        for axis in range(2, values.ndim):
            if values.shape[axis] > 1:
                values = values.unfold(axis, 2, 2).mean(-1)
    return torch.maximum(*found)


def joined(tasks: Sequence[Task]) -> Task:
    """Return several tasks, of signals of one shape, as one."""
    clean, x, sigma, unit, weigh = (
        torch.cat([getattr(task, name) for task in tasks]) for name in ("clean", "x", "sigma", "unit", "weigh")
    )
    known = None
    if any(task.known is not None for task in tasks):
        known = torch.cat(
            [torch.zeros_like(task.clean, dtype=torch.bool) if task.known is None else task.known for task in tasks]
        )
    given = [task.given for task in tasks if task.given is not None]
    if not given:
        return Task(clean, x, sigma, None, known, unit, weigh)
    firsts = accumulate((len(task.clean) for task in tasks), initial=0)
    again = tuple(first + item for first, task in zip(firsts, tasks, strict=False) for item in task.again)
    parts = (torch.cat([getattr(each, name) for each in given]) for name in ("values", "mask", "scale", "error"))
    return Task(clean, x, sigma, Given(*parts), known, unit, weigh, again)


def _per_item(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *(1,) * (like.ndim - 1))
