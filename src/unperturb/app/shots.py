"""Noisy files as pairs of shots: with second ones that a person gives, or the frames of a stack that follow each other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unperturb.data.frames import STILL, changed, frame_pairs
from unperturb.data.recording import Index, check_finite, files_of, read
from unperturb.errors import FileError, UsageError
from unperturb.train.recordings import NEEDED, large_enough

LOOKED_AT = 12
"""Pairs of frames in which it is looked whether something moved, spread evenly over all."""

Planes = tuple[NDArray[np.float32], ...]


@dataclass(frozen=True, eq=False)
class Shots:
    """Planes of noisy images, ``(channel, height, width)``.

    Attributes
    ----------
    firsts
        What is learned from.
    seconds
        Second shots of the same, one a plane; empty where there are none.
    moved
        Of frames of a stack, how much changes from one to the next, as a share of their noise; None where they are not.
    """

    firsts: Planes
    seconds: Planes = ()
    moved: float | None = None

    @property
    def paired(self) -> bool:
        """Whether there are two shots of each thing."""
        return bool(self.seconds)


def read_shots(data: tuple[Path, ...], again: tuple[Path, ...]) -> Shots:
    """Read all planes of files, and pair them with second shots, or with the frames that follow them and show the same.

    Raises
    ------
    FileError
        Where a file cannot be read, or is too small.
    UsageError
        Where second shots are not of the first.
    """
    first = [_planes(file) for file in files_of(data)]
    firsts = tuple(plane for planes, _ in first for plane in planes.values())
    if again:
        seconds = tuple(plane for file in files_of(again) for plane in _planes(file)[0].values())
        if [plane.shape for plane in firsts] != [plane.shape for plane in seconds]:
            raise UsageError("second shots are not of the size and number of the first; give two of each thing")
        return Shots(firsts, seconds)
    if not first or not all(pairs for _, pairs in first):
        return Shots(firsts)
    both = [(planes[one], planes[other]) for planes, pairs in first for one, other in pairs]
    looked_at = [both[index] for index in sorted({round(at) for at in np.linspace(0, len(both) - 1, LOOKED_AT)})]
    moved = float(np.mean([changed(one.mean(0), other.mean(0)) for one, other in looked_at]))
    if moved > STILL:
        return Shots(firsts, (), moved)
    return Shots(
        tuple(plane for pair in both for plane in pair), tuple(plane for pair in both for plane in pair[::-1]), moved
    )


def _planes(file: Path) -> tuple[dict[Index, NDArray[np.float32]], list[tuple[Index, Index]]]:
    """Return the planes of a file, ``(channel, height, width)``, and which of them follow each other."""
    recording = read(file)
    check_finite(recording, file)
    planes = {}
    for index, plane in recording.planes():
        channels = np.moveaxis(plane, -1, 0) if recording.is_colour else plane[None]
        # A gray image stored as colour holds one noise three times.
        channels = channels[:1] if (channels == channels[:1]).all() else channels
        if not large_enough(channels):
            raise FileError(f"{file} is too small to learn from: {NEEDED}")
        planes[index] = channels.copy()
    return planes, list(frame_pairs(recording))
