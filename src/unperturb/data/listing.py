"""Which files are meant: the images in folders, and files that are named."""

import os
from collections.abc import Sequence
from pathlib import Path

from unperturb.data.recording import RAW, SUFFIXES
from unperturb.errors import FileError


def image_files(folder: str | Path, *, recursive: bool = True) -> list[Path]:
    """List the image files of a folder by their suffix, sorted. Hidden files and folders are left out.

    Raises
    ------
    FileError
        The folder does not exist or is a file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise FileError(f"{folder} {what}; name a folder of images.")
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]
        paths = (Path(parent, name) for name in files if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in (*SUFFIXES, *RAW)]
    return sorted(found)


def files_of(sources: Sequence[str | Path], *, once: bool = True) -> list[Path]:
    """Return files as they are, and folders as the image files in them.

    Parameters
    ----------
    sources
        Files and folders.
    once
        Whether a file that is named several times is one.

    Raises
    ------
    FileError
        There are none.
    """
    files = [file for source in sources for file in (image_files(source) if Path(source).is_dir() else [Path(source)])]
    if not files:
        raise FileError(f"there are no images in {', '.join(map(str, sources)) or 'nothing'}")
    for file in files:
        check_name(file)
    return once_each(files) if once else files


def once_each(files: Sequence[Path]) -> list[Path]:
    """Return files without those that were named before, in whatever way."""
    kept: dict[Path, Path] = {}
    for file in files:
        kept.setdefault(resolved(file), file)
    return list(kept.values())


def resolved(path: Path) -> Path:
    """Return where a path leads; one that leads nowhere is what it says."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return path.absolute()


def check_name(path: Path) -> None:
    """Refuse the samples of a record that is named by another file.

    Raises
    ------
    FileError
        It is the ``.dat`` of a WFDB record.
    """
    head = path.with_suffix(".hea")
    if path.suffix.lower() == ".dat" and head.is_file():
        raise FileError(f"{path} holds the samples of the record {head}; name that")
