"""WAV: a chain of chunks, one of which holds samples.

SciPy decodes the samples. All other chunks are carried as raw bytes (format, text, cue points, broadcast data …), so
that a file that is written differs from the one that was read in its samples alone. Chunks that would be false then are
left out: recorded peaks, and the number of samples where that changed.

24-bit samples are held in 32-bit integers, by their own levels: -8,388,608 to 8,388,607.

Source: Microsoft and IBM, Multimedia Programming Interface and Data Specifications 1.0; Microsoft,
WAVEFORMATEXTENSIBLE.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from unperturb.atomic import whole
from unperturb.data.recording import Array
from unperturb.data.signal import Levels, Signal
from unperturb.errors import FileError

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_NAMES = {2: "ADPCM", 6: "A-law", 7: "µ-law", 17: "ADPCM", 85: "MP3"}
_FALSE_AFTERWARDS = {b"PEAK"}
_MAX_BYTES = 2**32 - 1
_BLOCK = 2**18  # frames that are encoded at once


class Chunk(NamedTuple):
    """A name of four letters and what it says."""

    name: bytes
    body: bytes


@dataclass(frozen=True)
class Format:
    """What the samples are.

    Attributes
    ----------
    tag
        1 for integers, 3 for floats.
    channels, rate
        How many there are, and samples a second of each.
    width
        Bytes of a sample.
    """

    tag: int
    channels: int
    rate: int
    width: int

    @property
    def bits(self) -> int:
        """Of the container of a sample."""
        return 8 * self.width


@dataclass(frozen=True)
class Carried:
    """All of a file but its samples: chunks before and behind them, and how many samples a channel has."""

    before: tuple[Chunk, ...]
    behind: tuple[Chunk, ...]
    n_samples: int


def read(path: Path, time_axis: int | None) -> Signal:  # noqa: ARG001
    """Read a WAV file of integers of 8, 16, 24 or 32 bits (8: unsigned) or floats of 32 or 64.

    Raises
    ------
    FileError
        The file is no WAV file, is cut short, holds no samples, or they are compressed.
    """
    # Where it is used: importing it takes a moment.
    from scipy.io import wavfile

    layout, carried = _walked(path)
    _, samples = wavfile.read(path)
    values = np.atleast_2d(samples.T)
    if values.shape != (layout.channels, carried.n_samples):
        raise FileError(f"{path} is damaged: its samples do not fit its header; obtain the file again.")
    if layout.width == 3:
        values >>= 8  # decoded into the upper bytes
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    levels = () if layout.tag == _FLOAT else (_levels(layout.bits),) * layout.channels
    return Signal(
        values,
        "wav",
        rate=float(layout.rate),
        levels=levels,
        full_scale=levels[0].gain if levels else 1.0,
        metadata={"wav": carried},
    )


def write(signal: Signal, target: Path, *, overwrite: bool) -> None:
    """Write a WAV file: of the bits of the one that was read, and of floats for signals in units of their own.

    Raises
    ------
    FileError
        The rate is not known or not whole, or there is more than the format holds: 65,535 channels or 4 GiB.
    """
    if signal.rate is None or signal.rate != round(signal.rate) or signal.rate > _MAX_BYTES:
        told = "none is known" if signal.rate is None else f"this signal has {signal.rate:g}"
        raise FileError(f"{target} needs a whole number of samples a second, and {told}; write a .npy or .csv file.")
    values, layout = _encodable(signal, target)
    carried = signal.metadata.get("wav")
    before, behind = _chunks_of(carried, layout, values.shape[1])
    n_bytes = values.size * layout.width
    length = (
        4 + sum(8 + len(chunk.body) + len(chunk.body) % 2 for chunk in (*before, *behind)) + 8 + n_bytes + n_bytes % 2
    )
    if length > _MAX_BYTES:
        raise FileError(f"{target} would be larger than 4 GiB, which WAV cannot hold; write a .npy file.")
    with whole(target, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        file.write(b"RIFF" + struct.pack("<I", length) + b"WAVE" + b"".join(map(_packed, before)))
        file.write(b"data" + struct.pack("<I", n_bytes))
        for start in range(0, values.shape[1], _BLOCK):
            file.write(_bytes_of(values[:, start : start + _BLOCK], layout.width))
        file.write(b"\0" * (n_bytes % 2) + b"".join(map(_packed, behind)))


def _levels(bits: int) -> Levels:
    """Return what integers mean: [-1, 1), around 128 for those of 8 bits."""
    half = 2 ** (bits - 1)
    return Levels(half, half, 0, 255) if bits == 8 else Levels(half, 0, -half, half - 1)


def _walked(path: Path) -> tuple[Format, Carried]:
    """Read all of a file but its samples."""
    layout, n_bytes = None, None
    before: list[Chunk] = []
    behind: list[Chunk] = []
    with path.open("rb") as file:
        _check_head(file.read(12), path)
        size = path.stat().st_size
        for name, length in _headers(file, size, path):
            if name == b"data" and n_bytes is None:
                n_bytes = length
                continue
            chunk = Chunk(name, file.read(length))
            (before if n_bytes is None else behind).append(chunk)
            if name == b"fmt " and layout is None:
                layout = _format(chunk.body, path)
    if layout is None or n_bytes is None:
        raise FileError(f"{path} is cut short or damaged: it has no samples; obtain the file again.")
    if n_bytes == 0:
        raise FileError(f"{path} holds no samples; record it again.")
    n_samples, rest = divmod(n_bytes, layout.channels * layout.width)
    if rest:
        raise FileError(f"{path} is damaged: its last samples are not whole; obtain the file again.")
    return layout, Carried(tuple(before), tuple(behind), n_samples)


def _check_head(head: bytes, path: Path) -> None:
    if head[:4] == b"RF64" and head[8:] == b"WAVE":
        raise FileError(f"{path} is an RF64 file, for more than 4 GiB; cut it into shorter WAV files.")
    if head[:4] == b"RIFX" and head[8:] == b"WAVE":
        raise FileError(f"{path} is a WAV file of big-endian samples; save it as an ordinary one.")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        raise FileError(f"{path} is not a WAV file, whatever its name says; convert it to one.")


def _headers(file: BinaryIO, size: int, path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield name and length of each chunk, the file standing at its body."""
    position = 12
    while position + 8 <= size:
        file.seek(position)
        name, length = struct.unpack("<4sI", file.read(8))
        there = size - position - 8
        if length > there:
            raise FileError(
                f"{path} is cut short: its header tells of {length} bytes where {there} are; obtain the file again."
            )
        yield name, length
        position += 8 + length + length % 2


def _format(body: bytes, path: Path) -> Format:
    if len(body) < 16:
        raise FileError(f"{path} has a damaged header; obtain the file again.")
    tag, channels, rate, _, block, _ = struct.unpack("<HHIIHH", body[:16])
    if tag == _EXTENSIBLE and len(body) >= 26:
        (tag,) = struct.unpack("<H", body[24:26])
    if tag not in {_PCM, _FLOAT}:
        raise FileError(f"{path} holds {_NAMES.get(tag, 'compressed')} samples; save it as PCM or float WAV.")
    if not channels or not rate or block % channels:
        raise FileError(f"{path} has a damaged header; obtain the file again.")
    width = block // channels
    if width not in ({1, 2, 3, 4} if tag == _PCM else {4, 8}):
        kind = "integer" if tag == _PCM else "float"
        raise FileError(f"{path} holds {kind} samples of {8 * width} bits; save it with 16, 24 or 32.")
    return Format(tag, channels, rate, width)


def _encodable(signal: Signal, target: Path) -> tuple[Array, Format]:
    """Return samples that WAV can hold, and what they are."""
    if len(signal.values) > 65535:
        raise FileError(f"{target} cannot hold {len(signal.values)} channels; write a .npy file.")
    dtype, bits = signal.values.dtype, _bits(signal)
    if bits is not None:
        return signal.values, Format(_PCM, len(signal.values), round(signal.rate or 0), bits // 8)
    values = signal.in_units()
    if values.dtype.name not in {"float32", "float64"}:
        values = values.astype(np.float32 if dtype.itemsize < 4 else np.float64)
    return values, Format(_FLOAT, len(values), round(signal.rate or 0), values.dtype.itemsize)


def _bits(signal: Signal) -> int | None:
    """Return the bits of integers that are WAV's own, and None for all other values."""
    if signal.format != "wav" or not signal.levels:
        return None
    return next((bits for bits in (8, 16, 24, 32) if set(signal.levels) == {_levels(bits)}), None)


def _chunks_of(carried: Carried | None, layout: Format, n_samples: int) -> tuple[list[Chunk], list[Chunk]]:
    """Return the chunks before and behind the samples."""
    body = struct.pack(
        "<HHIIHH",
        layout.tag,
        layout.channels,
        layout.rate,
        min(layout.rate * layout.channels * layout.width, _MAX_BYTES),
        layout.channels * layout.width,
        layout.bits,
    )
    new = [Chunk(b"fmt ", body)]
    if layout.tag == _FLOAT:
        new = [Chunk(b"fmt ", body + b"\0\0"), Chunk(b"fact", struct.pack("<I", n_samples))]
    if carried is None:
        return new, []
    false = _FALSE_AFTERWARDS if carried.n_samples == n_samples else {*_FALSE_AFTERWARDS, b"fact"}
    before = [chunk for chunk in carried.before if chunk.name not in false]
    behind = [chunk for chunk in carried.behind if chunk.name not in false]
    if _is(layout, before):
        return before, behind
    return [*new, *(chunk for chunk in before if chunk.name not in {b"fmt ", b"fact"})], behind


def _is(layout: Format, chunks: list[Chunk]) -> bool:
    """Whether a format is the one that chunks tell of."""
    return any(chunk.name == b"fmt " and _format(chunk.body, Path()) == layout for chunk in chunks)


def _packed(chunk: Chunk) -> bytes:
    return chunk.name + struct.pack("<I", len(chunk.body)) + chunk.body + b"\0" * (len(chunk.body) % 2)


def _bytes_of(values: Array, width: int) -> bytes:
    """Encode ``(C, T)`` samples, little end first, the channels of one time side by side."""
    samples = np.ascontiguousarray(values.T, dtype=values.dtype.newbyteorder("<"))
    if width == 3:
        return samples.view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return samples.tobytes()
