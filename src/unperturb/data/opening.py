"""What is wrong with a path that cannot be read, said alike for every kind of file."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from unperturb.errors import FileError


@contextlib.contextmanager
def readable(path: Path, what: str) -> Iterator[None]:
    """Turn the errors of opening and reading a file into sentences.

    Parameters
    ----------
    path
        The file.
    what
        What it should be, with its article: "an image".

    Raises
    ------
    FileError
        Where it does not exist, is a folder, or may not or cannot be read.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise FileError(f"{path} does not exist; check the path.") from error
    except IsADirectoryError as error:
        raise FileError(f"{path} is a folder, not {what}; name the files in it.") from error
    except PermissionError as error:
        raise FileError(f"{path} may not be read; change its permissions.") from error
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be opened ({error}); check the path.") from error


def first_bytes(path: Path, what: str, count: int = 16) -> bytes:
    """Return how a file begins.

    Raises
    ------
    FileError
        As by `readable`, and where it is empty.
    """
    with readable(path, what), path.open("rb") as file:
        head = file.read(count)
    if not head:
        raise FileError(f"{path} is empty (0 bytes); obtain the file again.")
    return head
