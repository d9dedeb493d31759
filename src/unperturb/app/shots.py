"""Noisy files as pairs of shots: with second ones that a person gives, or the frames of a stack that follow each other."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from unperturb.data.frames import STILL, changed, frame_pairs
from unperturb.data.listing import files_of
from unperturb.data.recording import Index, check_finite, read
from unperturb.errors import FileError, UsageError
from unperturb.model.perturbation import Gaussian, Perturbation
from unperturb.model.stabilise import counting
from unperturb.train.recordings import NEEDED, large_enough

ALIKE = (0.7, 1.4)
"""Half the variance of the difference of two frames, over that of the noise: less, and they have noise in common; more, and
they show different things. Noise is known to a tenth or two."""

ROUGHLY = 3.0
"""The upper end of it where neighbours have noise in common: then its strength is known less well."""

Planes = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class Shots:
    """Planes of noisy images, ``(channel, height, width)``.

    Attributes
    ----------
    firsts
        All of them, each once.
    seconds
        Second shots that were given, one a plane; empty where there are none.
    follow
        Which of the planes, by number, are frames of a stack that follow each other.
    pairs
        Two shots of the same, to learn one from the other.
    apart
        Share of the frames that follow each other and do not show the same; None where it was not looked at.
    """

    firsts: Planes
    seconds: Planes = ()
    follow: tuple[tuple[int, int], ...] = ()
    pairs: tuple[tuple[NDArray[np.float32], NDArray[np.float32]], ...] = ()
    apart: float | None = None

    @property
    def left_out(self) -> int:
        """How many planes are in no pair."""
        return len(self.firsts) - len({id(plane) for plane, _ in self.pairs})

    def looked_at(self, noise: Perturbation, *, correlated: bool) -> "Shots":
        """Return it with pairs of the frames that follow each other and show the same, where most of them do.

        Parameters
        ----------
        noise
            What the planes have, in their units.
        correlated
            Whether neighbours have noise in common.
        """
        if self.seconds or not self.follow:
            return self
        frames = [(self.firsts[one], self.firsts[other]) for one, other in self.follow]
        same = [pair for pair in frames if show_the_same(*pair, noise, correlated=correlated)]
        apart = 1 - len(same) / len(frames)
        pairs = tuple(way for one, other in same for way in ((one, other), (other, one))) if apart <= 0.5 else ()
        return replace(self, pairs=pairs, apart=apart)


def show_the_same(
    first: NDArray[np.float32], second: NDArray[np.float32], noise: Perturbation, *, correlated: bool
) -> bool:
    """Whether noise alone, and each its own, is what is different in two planes ``(channel, height, width)``."""
    if first.shape != second.shape or changed(first.mean(0), second.mean(0)) > STILL:
        return False
    low, high = ALIKE[0], ROUGHLY if correlated else ALIKE[1]
    found = float(np.square(first - second, dtype=np.float64).mean() / 2)
    expected = _variance(noise, (first + second) / np.float32(2))
    return low * expected <= found <= high * expected


def _variance(noise: Perturbation, values: NDArray[np.float32]) -> float:
    """Return the mean variance of the noise of values."""
    counted = counting(noise)
    if counted is not None:
        return float(counted.unbiased_variance(torch.from_numpy(values)).mean())
    assert isinstance(noise, Gaussian)
    assert isinstance(noise.sigma, float)
    return noise.sigma**2


def read_shots(data: tuple[Path, ...], again: tuple[Path, ...]) -> Shots:
    """Read all planes of files, and second shots of them.

    Raises
    ------
    FileError
        Where a file cannot be read, or is too small.
    UsageError
        Where second shots are not of the first.
    """
    firsts: list[NDArray[np.float32]] = []
    follow = []
    for file in files_of(data, once=False):
        planes, pairs = _planes(file)
        number = {index: len(firsts) + place for place, index in enumerate(planes)}
        firsts += planes.values()
        follow += [(number[one], number[other]) for one, other in pairs]
    if not again:
        return Shots(tuple(firsts), follow=tuple(follow))
    seconds = [plane for file in files_of(again, once=False) for plane in _planes(file)[0].values()]
    if [plane.shape for plane in firsts] != [plane.shape for plane in seconds]:
        raise UsageError("second shots are not of the size and number of the first; give two of each thing")
    return Shots(tuple(firsts), tuple(seconds), pairs=tuple(zip(firsts, seconds, strict=True)))


def _planes(file: Path) -> tuple[dict[Index, NDArray[np.float32]], list[tuple[Index, Index]]]:
    """Return the planes of a file, ``(channel, height, width)``, and which of them follow each other."""
    recording = read(file)
    check_finite(recording, file)
    planes = {
        index: np.moveaxis(plane, -1, 0) if recording.is_colour else plane[None] for index, plane in recording.planes()
    }
    if not all(map(large_enough, planes.values())):
        raise FileError(f"{file} is too small to learn from: {NEEDED}")
    # A gray image stored as colour holds one noise three times.
    gray = all((plane == plane[:1]).all() for plane in planes.values())
    return {index: (plane[:1] if gray else plane).copy() for index, plane in planes.items()}, list(
        frame_pairs(recording)
    )
