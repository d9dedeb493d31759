"""Results as files: images by their codecs, signals by theirs."""

from pathlib import Path

from unperturb.data import recording as images
from unperturb.data import signal as signals
from unperturb.data.recording import Recording
from unperturb.data.signal import Signal


def write(result: Recording | Signal, path: Path, *, overwrite: bool = False) -> None:
    """Write a result, whole or not at all.

    Raises
    ------
    FileError
        Where its format cannot hold it, or the file cannot be written.
    """
    if isinstance(result, Signal):
        signals.write(result, path, overwrite=overwrite)
    else:
        images.write(result, path, overwrite=overwrite)
