"""A file is written whole or not at all.

The bytes go to a hidden file beside the target, are flushed to the disk, and only then take the target's name in one
step. Whoever looks at the target sees the old file or the complete new one; a failure or an interruption leaves nothing
behind.
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from unperturb.errors import FileError

_REASONS = {
    errno.ENOSPC: "no space is left on the device; free some or choose another folder",
    errno.EDQUOT: "your disk quota is used up; free some space or choose another folder",
    errno.EROFS: "its file system is read-only; choose another folder",
    errno.EACCES: "its folder may not be written to; change its permissions or choose another folder",
    errno.EPERM: "its folder may not be written to; change its permissions or choose another folder",
    errno.ENOTDIR: "a part of its path is a file, not a folder; choose another folder",
    errno.ENAMETOOLONG: "its name is too long; choose a shorter one",
    errno.EFBIG: "it is larger than this file system or your limits allow; choose another folder",
}


@contextlib.contextmanager
def whole(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Lend a temporary path in the target's folder; what was written there becomes `path` when the block ends well.

    Parameters
    ----------
    path
        The file to appear. Its folder must exist.
    overwrite
        Whether a file that is there already may be replaced. Its permissions are kept.

    Yields
    ------
    Path
        An empty file to write to, by any means.

    Raises
    ------
    FileError
        The target exists and may not be replaced, is a folder, or could not be written.
    """
    target = Path(path)
    _check_target(target, overwrite=overwrite)
    temporary = target.with_name(_part())
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        _publish(temporary, target, overwrite=overwrite)
    except OSError as error:
        raise FileError(f"{target} could not be written: {_reason(error)}.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_place(path: str | Path) -> None:
    """Refuse a file that could not be written, before anything is computed: a place is tried, and left as it was.

    Parameters
    ----------
    path
        The file to appear. Its folder may be missing, and be made later.

    Raises
    ------
    FileError
        It is a folder, or cannot be written there.
    """
    target = Path(path)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISDIR(target.stat().st_mode):  # a name that is too long says so as well
                raise FileError(f"{target} is a folder; name a file in it.")
        folder = next(parent for parent in target.absolute().parents if parent.exists())
        tried = folder / _part()
        tried.touch(exist_ok=False)
        tried.unlink()
    except OSError as error:
        raise FileError(f"{target} could not be written: {_reason(error)}.") from error


def make_folder(path: str | Path) -> Path:
    """Make a folder, and those above it, where they are missing.

    Raises
    ------
    FileError
        It cannot be made.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FileError(f"{folder} is a file, not a folder; choose another folder") from None
    except OSError as error:
        raise FileError(f"the folder {folder} could not be made: {_reason(error)}.") from error
    return folder


def _part() -> str:
    """Return a name that nobody else uses, of a file that is not whole yet."""
    return f".{secrets.token_hex(8)}.part"


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse early, before anything is computed or written, what cannot end well."""
    try:
        if target.is_dir():
            raise FileError(f"{target} is a folder; name a file in it.")
        if target.exists() and not overwrite:
            raise FileError(_exists(target))
        if not target.parent.exists():
            raise FileError(
                f"{target} could not be written: the folder {target.parent} does not exist; create it first."
            )
    except OSError as error:
        raise FileError(f"{target} could not be written: {_reason(error)}.") from error


def _publish(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Give the finished file its name, in one step."""
    if overwrite:
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
        return
    try:
        # A hard link, unlike a rename, refuses to replace a file that appeared in the meantime.
        os.link(temporary, target)
    except FileExistsError as error:
        raise FileError(_exists(target)) from error
    except OSError:
        # FAT and some network file systems know no hard links.
        if target.exists():
            raise FileError(_exists(target)) from None
        temporary.replace(target)


def _exists(target: Path) -> str:
    return f"{target} exists already; allow overwriting or choose another name."


def _reason(error: OSError) -> str:
    known = _REASONS.get(error.errno or 0)
    return known or f"{error.strerror or error}; check the path and try again"
