"""Which bundled model fits a file, by what noise is in it.

    white noise                                natural: noise of one strength is what it was trained for
    JPEG, or traces of it                      photo: what compression has left of it
    next to none                               natural, which takes next to nothing away then
    noise that neighbours have in common,      photo: a camera has developed it
    or of which it cannot be told

Only finished photographs have gone through a camera's processor: what is in colour, with 8 or 16 bits, or is a JPEG.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from unperturb.app.diagnosing import Diagnosis, diagnose_files
from unperturb.data.recording import Recording
from unperturb.errors import UnperturbError
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser

LOOKED_AT = 768
"""Pixels a side that are looked at, in the middle."""

WHITE = 0.7
"""Whiteness from which on noise is white, whatever a file has gone through."""

FAINT = 1.5
"""Noise of so many of 255 grey levels is worth taking away where it is not white: fine texture looks like less of it."""


@dataclass(frozen=True)
class Decision:
    """What fits, and why.

    Attributes
    ----------
    model
        The name of a bundled model.
    why
        Half a sentence.
    """

    model: str
    why: str

    @property
    def denoiser(self) -> Denoiser:
        """The model, loaded once."""
        return _loaded(self.model)


def decide(path: Path, recording: Recording) -> Decision:
    """Return the bundled model that fits a file.

    Parameters
    ----------
    path, recording
        The file, and what is in it.
    """
    if not is_photograph(recording):
        return Decision("natural", "it is no finished photograph")
    try:
        found = diagnose_files([path], side=LOOKED_AT, intervals=False)  # of which nothing is asked here
    except UnperturbError:
        return Decision("natural", "it does not tell what noise it has")
    return decided(found, compressed=recording.format == "jpeg" or found.faults.compressed)


def is_photograph(recording: Recording) -> bool:
    """Whether a file may have come out of a camera's processor."""
    return recording.format == "jpeg" or (recording.is_colour and recording.values.dtype.kind in "iu")


def decided(found: Diagnosis, *, compressed: bool) -> Decision:
    """Return the bundled model that fits the noise of a photograph."""
    noise = found.noise
    if noise.heard and noise.whiteness is not None and noise.whiteness.value >= WHITE:
        return Decision("natural", "its noise is white")
    if compressed:
        return Decision("photo", "it was compressed as JPEG, and white noise is not heard in it")
    if not (noise.heard and noise.sigma.value > FAINT / 255):
        return Decision("natural", "next to no noise is heard in it")
    if noise.correlated:
        return Decision("photo", "neighbours have its noise in common, as in what a camera has developed")
    return Decision("photo", "its noise is not heard to be white")


@functools.cache
def _loaded(name: str) -> Denoiser:
    return load(name)
