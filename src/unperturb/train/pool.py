"""Perturbed signals from which is learned several times, where perturbing takes longer than learning.

A GPU learns from a batch in a hundredth of a second. A camera's noise, with every stage of the camera for every kind of
photograph, takes it ten times as long, and hardly longer for many batches than for one. So several batches are
perturbed at once, and each of their signals is learned from as often as is asked for in the steps that follow, every
time among others::

    round    steps 0 … AHEAD · reuse − 1: from AHEAD batches, perturbed before the first of them; and so on
    turn     AHEAD steps of a round, in which every signal of it comes once, in an order drawn anew

The noise of x, by which a conditional network learns to draw, is drawn anew every time. Everything random comes from
the seed and the number of the step alone, so that a run can be taken up again after any.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unperturb.model.perturbation import Perturbed
from unperturb.train.showing import Pairs

AHEAD = 8
"""Batches that are perturbed at once."""

DrawAll = Callable[[torch.Generator], Sequence[Tensor]]
"""``draw(generator)`` returns all clean signals of a batch, those of one shape as one."""

Perturb = Callable[[Tensor, torch.Generator], list[Pairs]]
"""``perturb(clean, generator)`` does as `unperturb.train.showing.perturbed` does."""

Seeded = Callable[..., torch.Generator]
"""``seeded(*numbers)`` returns a source of randomness that these numbers name."""


class Pool:
    """Signals that are perturbed ahead, and learned from `reuse` times each."""

    def __init__(self, draw: DrawAll, perturb: Perturb, reuse: int) -> None:
        self._draw, self._perturb, self._reuse = draw, perturb, reuse
        self._source = -1
        self._shapes: list[list[Pairs]] = []

    def batch(self, step: int, seeded: Seeded) -> list[list[Pairs]]:
        """Return what is learned from in a step, counted from 0: for every shape, pairs of which alike much is known.

        The batch is that of this step, whichever steps were asked for before.
        """
        turn, place = divmod(step, AHEAD)
        number = turn // self._reuse
        source = seeded(number, 0)
        if source.initial_seed() != self._source:
            self._shapes = []  # before others take their place in memory
            self._shapes = self._perturbed(source)
            self._source = source.initial_seed()
        order = seeded(turn, 1)
        return [_taken(kinds, place, order) for kinds in self._shapes]

    def _perturbed(self, generator: torch.Generator) -> list[list[Pairs]]:
        drawn = [self._draw(generator) for _ in range(AHEAD)]
        return [self._perturb(torch.cat(signals), generator) for signals in zip(*drawn, strict=True)]


def _taken(kinds: list[Pairs], place: int, generator: torch.Generator) -> list[Pairs]:
    """Return one part in `AHEAD` of all signals of one shape, in an order that the generator gives."""
    total = sum(len(pairs.clean) for pairs in kinds)
    count = total // AHEAD
    order = torch.randperm(total, generator=generator, device=generator.device)
    chosen = order[place * count : (place + 1) * count]
    if len(kinds) == 1:  # nothing has to be asked, for which a GPU would have to be waited for
        return [_some(kinds[0], chosen)]
    found, first = [], 0
    for pairs in kinds:
        inside = chosen[(chosen >= first) & (chosen < first + len(pairs.clean))] - first
        if len(inside):
            found.append(_some(pairs, inside))
        first += len(pairs.clean)
    return found


def _some(pairs: Pairs, items: Tensor) -> Pairs:
    values, mask, sigma = (None if part is None else part[items] for part in pairs.observed)
    assert values is not None
    return Pairs(pairs.clean[items], Perturbed(values, mask, sigma))
