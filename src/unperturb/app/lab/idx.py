"""Files in the idx format, in which MNIST is given away; gzipped or not.

::

    two bytes of 0, one for the type of the values, one for the number of axes
    the length of each axis, four bytes, the most significant first
    the values, the last axis the fastest, the most significant byte first

(LeCun, Cortes and Burges, "The MNIST database of handwritten digits".)
"""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import FileError

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

GZIP = b"\x1f\x8b"

CHUNK = 2**20


class Stream(Protocol):
    """Bytes, one after the other."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes, or fewer where there are no more."""
        ...


def read_idx(path: Path) -> NDArray[Any]:
    """Return the array in a file, in the machine's own byte order.

    Raises
    ------
    FileError
        Where the file cannot be opened, is none of this format, or holds fewer or more values than it says.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
        with gzip.open(path) if packed else path.open("rb") as stream:
            return _array(stream, path)
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"{path} cannot be read ({error}); take a whole copy of it") from None


def find_idx(folder: Path, name: str) -> Path | None:
    """Return the file of a name such as ``t10k-images-idx3-ubyte`` in a folder, as it goes about; None where not there.

    With and without ``.gz``, and with a dot before ``idx`` in place of the hyphen.
    """
    names = [f"{each}{ending}" for each in (name, name.replace("-idx", ".idx")) for ending in ("", ".gz")]
    return next((folder / each for each in names if (folder / each).is_file()), None)


def _array(stream: Stream, path: Path) -> NDArray[Any]:
    head = stream.read(4)
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in TYPES or not head[3]:
        raise FileError(f"{path} is not a file in the idx format; give one of MNIST's")
    axes, kind = stream.read(4 * head[3]), np.dtype(TYPES[head[2]])
    whole = len(axes) == 4 * head[3]
    lengths = np.frombuffer(axes, ">u4").tolist() if whole else []
    size = math.prod(lengths) * kind.itemsize
    # One byte more, to see whether there is more.
    values = _at_most(size + 1, stream)
    if not whole or len(values) != size:
        amount = "more" if whole and len(values) > size else "less"
        raise FileError(f"{path} holds {amount} than its head says; take a whole copy of it")
    return np.frombuffer(values, kind).reshape(lengths).astype(kind.newbyteorder("="))


def _at_most(size: int, stream: Stream) -> bytes:
    """Return so many bytes, or all that there are. No more room is taken than for these, whatever `size` is."""
    parts = []
    while size > 0 and (part := stream.read(min(size, CHUNK))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
