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
    kept: dict[Path, Path] = {}
    for file in files:
        check_name(file)
        kept.setdefault(file.resolve(), file)
    return list(kept.values()) if once else files


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
