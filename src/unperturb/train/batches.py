"""What a step learns from: items drawn one by one or together, perturbed, those of one shape joined.

Three kinds of draw are understood: clean signals one by one, `Draw`; all of a batch on the device, `Together`; noisy
signals of which nobody has the clean ones, `NoisyDraw`. What is random about an item comes from the seed, the step and
its number, or, of those that are drawn together, from the seed, the step and the part of the batch.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.model.given import Fill
from unperturb.model.network import VectorNetSettings
from unperturb.model.stabilise import Counting
from unperturb.train.noisy import Noisy, together
from unperturb.train.pool import DrawAll, Pool
from unperturb.train.settings import FitSettings
from unperturb.train.showing import Task, joined, task_of

Draw = Callable[[np.random.Generator, int], NDArray[np.float32]]
"""``draw(generator, item) -> clean signal (channel, *space) or (feature,)`` for one item of a batch.

For a network for vectors an item may be a block of them, ``(vector, feature)``, each with noise of its own: points are
so small that drawing them one by one would take longer than learning from them.
"""

_OF_POOL = 2**32
"""Beside the seed, what no step and no process is numbered."""


@dataclass(frozen=True)
class Together:
    """Draws all clean signals of a batch at once, on the device where they are learned from.

    ``draw(generator)`` returns tensors ``(item, channel, *space)``, those of one shape as one. Where several processes
    share a batch, `part` says which part of it this is; each has randomness of its own. Where there is a `pool`, what
    it has perturbed is learned from several times.
    """

    draw: DrawAll
    part: tuple[int, ...] = ()
    pool: Pool | None = None


@dataclass(frozen=True)
class NoisyDraw:
    """Draws noisy signals one by one, of which nobody has the clean ones.

    ``draw(generator, item)`` returns ``(channel, *space)``: the values, with `noise2noise` those of a second shot, and
    as the last channel how strong the noise is. `counting` is their noise, where it is that of counting.
    """

    draw: Draw
    counting: Counting | None = None


def batches(
    settings: FitSettings, draw: Draw | Together | NoisyDraw, step: int, items: range, device: torch.device, fill: Fill
) -> Iterator[tuple[int, Task | Noisy]]:
    """Yield the number of items and what is to be learned from them, items of one shape together.

    Parameters
    ----------
    settings, draw
        Of the run.
    step, items
        Which items of which step; where a batch is drawn together, all that there are.
    device
        Where they are learned from.
    fill
        How to fill in what was erased, where a batch is drawn together.
    """
    if isinstance(draw, NoisyDraw):
        yield from _noisy_batches(settings, draw, step, items, device)
        return
    perturb, shown = settings.perturbing, settings.network.given
    groups: dict[tuple[int, ...], list[Task]] = {}
    if isinstance(draw, Together):
        generator = _seeded(device, settings.seed, step, *draw.part)
        if draw.pool:
            seeded = partial(_seeded, device, settings.seed, *draw.part, _OF_POOL)
            by_shape = draw.pool.batch(step, seeded)
        else:
            by_shape = [perturb(signals, generator) for signals in draw.draw(generator)]
        for kinds in by_shape:
            made = [task_of(pairs, generator, shown=shown, fill=fill) for pairs in kinds]
            yield sum(len(pairs.clean) for pairs in kinds), joined(made)
        return
    for item in items:
        source = np.random.default_rng([settings.seed, step, item])
        drawn = torch.from_numpy(draw(source, item))
        clean = drawn if drawn.ndim == 2 and isinstance(settings.network, VectorNetSettings) else drawn[None]
        generator = torch.Generator().manual_seed(int(source.integers(2**63)))
        made = [task_of(pairs, generator, shown=shown) for pairs in perturb(clean, generator)]
        groups.setdefault(tuple(clean.shape), []).extend(made)
    for group in groups.values():
        yield len(group), joined(group).to(device)


def _seeded(device: torch.device, *numbers: int) -> torch.Generator:
    """Return a source of randomness on a device, that these numbers name."""
    return torch.Generator(device).manual_seed(int(np.random.default_rng(numbers).integers(2**63)))


def _noisy_batches(
    settings: FitSettings, shots: NoisyDraw, step: int, items: range, device: torch.device
) -> Iterator[tuple[int, Noisy]]:
    """Yield the same of noisy signals."""
    groups: dict[tuple[int, ...], list[Noisy]] = {}
    for item in items:
        source = np.random.default_rng([settings.seed, step, item])
        values, sigma = _parted(shots.draw(source, item))
        generator = torch.Generator().manual_seed(int(source.integers(2**63)))
        first, again = values.chunk(2, 1) if settings.objective == "noise2noise" else (values, None)
        groups.setdefault(tuple(first.shape), []).append(Noisy.of(first, sigma, generator, again, shots.counting))
    for group in groups.values():
        yield len(group), together(group).to(device)


def _parted(drawn: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    whole = torch.from_numpy(drawn)[None]
    return whole[:, :-1], whole[:, -1:]
