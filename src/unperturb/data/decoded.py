"""Images decoded once, into one file that is memory-mapped ever after.

Decoding a photograph takes far longer than training on a crop of it. So the first run writes all images, and reduced
copies of them, behind each other into a cache; later runs find it there by the names, sizes and times of the files that
went in. Crops of it are those of `unperturb.data.patches`.

Reduced copies serve two ends: they show the same things at another scale, and noise and compression of the camera
shrink with them. Where `jpeg` is given, reduced copies are also encoded lightly as JPEG, as most photographs in use
are.
"""

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from unperturb.atomic import make_folder, whole
from unperturb.data.listing import files_of, resolved
from unperturb.data.patches import Patches, Place
from unperturb.data.recording import Recording, check_finite, read
from unperturb.errors import FileError, UsageError

Result = TypeVar("Result")


@dataclass(frozen=True)
class Preparation:
    """How images are prepared for training.

    Attributes
    ----------
    scales
        Factors by which each image is also reduced; 1 is the image itself.
    jpeg
        Lowest and highest JPEG quality of the reduced copies, or None.
    held_out
        Every so-manieth image is kept for validation and never trained on.
    """

    scales: tuple[float, ...] = (1.0,)
    jpeg: tuple[int, int] | None = None
    held_out: int = 20

    def __post_init__(self) -> None:
        if not self.scales or min(self.scales) < 1:
            raise UsageError(f"scales are factors of reduction, 1 and above; got {self.scales}")
        if self.jpeg is not None and not 1 <= self.jpeg[0] <= self.jpeg[1] <= 100:
            raise UsageError(f"jpeg is a lowest and a highest quality between 1 and 100; got {self.jpeg}")
        if self.held_out < 2:
            raise UsageError(f"held_out is 2 at least, or nothing is left to train on; got {self.held_out}")


def open_patches(
    sources: Sequence[str | Path],
    cache: str | Path,
    preparation: Preparation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Patches:
    """Open the images of some files and folders, decoding them into the cache where they are not there yet.

    Parameters
    ----------
    sources
        Image files and folders of images.
    cache
        Folder for decoded images; made where it is missing.
    preparation
        What to make of each image.
    progress
        Called with the images done and all there are.

    Raises
    ------
    FileError
        Where there are no images, or one cannot be read.
    """
    preparation = preparation or Preparation()
    files = files_of(sources)
    folder = make_folder(cache)
    key = _key(files, preparation)
    index, samples = folder / f"{key}.json", folder / f"{key}.bin"
    found = _cached(index, samples, key)
    if found is None:
        _decode(files, preparation, index, samples, progress)
        found = _cached(index, samples, key)
    if found is None:
        raise FileError(f"{samples} does not hold what was written there; give another --cache")
    return found


def _cached(index: Path, samples: Path, key: str) -> Patches | None:
    """Return what a cache holds; None where it is not there, or damaged."""
    try:
        described = json.loads(index.read_text())
        places = tuple(Place(**place) for place in described["places"])
        mapped = np.memmap(samples, dtype=np.dtype(described["dtype"]), mode="r")
        full = len(mapped) == sum(place.height * place.width * place.channels for place in places)
        return Patches(mapped, places, described["full_scale"], key) if full else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def held_out_files(sources: Sequence[str | Path], every: int = Preparation.held_out) -> list[Path]:
    """Return the files that `open_patches` holds out, given the same files and folders in the same order.

    Parameters
    ----------
    sources
        Image files and folders of images; more than one image.
    every
        As `Preparation.held_out`.

    Raises
    ------
    FileError
        Where there are no images, or a single one: that is held out by its planes.
    """
    files = files_of(sources)
    if len(files) == 1:
        raise FileError(f"{files[0]} is the only image, so that none is held out as a whole")
    every = Preparation(held_out=every).held_out
    return [file for number, file in enumerate(files) if _is_held_out(number, len(files), every)]


def _is_held_out(number: int, total: int, every: int) -> bool:
    """Whether the image of this number is held out, of so many; of a few, one is."""
    every = min(every, max(total, 2))
    return number % every == every // 2


def _key(files: Iterable[Path], preparation: Preparation) -> str:
    """Name the cache by what goes in: other files, or files that have changed, are another cache."""
    try:
        stats = [(str(resolved(file)), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    except OSError as error:
        raise FileError(f"{error.filename} cannot be read: {error.strerror}") from None
    return hashlib.sha256(json.dumps([stats, asdict(preparation)]).encode()).hexdigest()[:16]


def _decode(
    files: list[Path],
    preparation: Preparation,
    index: Path,
    samples: Path,
    progress: Callable[[int, int], None] | None,
) -> None:
    places: list[dict[str, int | bool]] = []
    offset = 0
    first: Recording | None = None
    with whole(samples, overwrite=True) as part, part.open("wb") as out:
        prepared = _ahead(lambda number: _prepared(files, number, preparation), len(files))
        for number, (file, (recording, images)) in enumerate(zip(files, prepared, strict=True)):
            first = first or recording
            _check_kind(recording, first, file)
            for held_out, image in images:
                out.write(image.tobytes())
                height, width, channels = image.shape
                places.append(asdict(Place(offset, height, width, channels, held_out)))
                offset += image.size
            if progress is not None:
                progress(number + 1, len(files))
    assert first is not None
    kind = np.dtype(np.float32) if first.values.dtype == bool else first.values.dtype
    described = {"dtype": str(kind), "full_scale": first.full_scale, "places": places}
    with whole(index, overwrite=True) as part:
        part.write_text(json.dumps(described))


def _ahead(function: Callable[[int], Result], count: int) -> Iterator[Result]:
    """Yield the function of 0, 1, … in order; as many more as there are cores are being worked at meanwhile."""
    threads = os.cpu_count() or 1
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for number in range(count):
            waiting.append(pool.submit(function, number))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _prepared(
    files: list[Path], number: int, preparation: Preparation
) -> tuple[Recording, list[tuple[bool, NDArray[Any]]]]:
    """Read one of the files, and return what is learned from it: whether held out, ``(height, width, channel)``."""
    recording = read(files[number])
    check_finite(recording, files[number])
    planes = _planes(recording)
    # Of a few images one is held out; a single file is held out by its planes.
    alone = len(files) == 1
    images = []
    for index, plane in enumerate(planes):
        held_out = _is_held_out(*((index, len(planes)) if alone else (number, len(files))), preparation.held_out)
        images += [(held_out, each) for each in _versions(plane, (number, index), held_out, preparation)]
    return recording, images


def _check_kind(recording: Recording, first: Recording, file: Path) -> None:
    """Refuse files that are not of one kind."""
    kind = first.values.dtype
    if recording.values.dtype != kind:
        raise FileError(f"{file} holds {recording.values.dtype}, the files before it {kind}; train on one kind")
    if recording.full_scale != first.full_scale or kind.kind == "i":
        raise FileError(f"{file} is signed, or has another bit depth than the files before it; train on one kind")


def _planes(recording: Recording) -> NDArray[Any]:
    """Return the planes of a recording, ``(plane, height, width, channel)``."""
    values = recording.values
    if recording.values.dtype == bool:
        values = values.astype(np.float32)
    return values.reshape(-1, *values.shape[-3:]) if recording.is_colour else values.reshape(-1, *values.shape[-2:], 1)


def _versions(
    plane: NDArray[Any], number: tuple[int, int], held_out: bool, preparation: Preparation
) -> Iterator[NDArray[Any]]:
    """Yield a plane ``(height, width, channel)`` and its reduced copies; of one held out no copies."""
    generator = np.random.default_rng([20, *number])
    for scale in (1.0,) if held_out else preparation.scales:
        if scale == 1:
            yield plane
        elif min(plane.shape[:2]) / scale >= 16:
            yield _reduced(plane, scale, preparation.jpeg, generator)


def _reduced(
    plane: NDArray[Any], scale: float, jpeg: tuple[int, int] | None, generator: np.random.Generator
) -> NDArray[Any]:
    from PIL import Image

    size = tuple(max(1, round(length / scale)) for length in reversed(plane.shape[:2]))
    channels = [Image.fromarray(np.ascontiguousarray(channel, np.float32)) for channel in np.moveaxis(plane, -1, 0)]
    small = np.stack([np.asarray(channel.resize(size, Image.Resampling.LANCZOS)) for channel in channels], -1)
    if plane.dtype.kind != "u":
        return small.astype(plane.dtype)
    levels = np.rint(np.clip(small, 0, np.iinfo(plane.dtype).max)).astype(plane.dtype)
    if jpeg is None or plane.dtype != np.uint8:
        return levels
    return _through_jpeg(levels, int(generator.integers(jpeg[0], jpeg[1] + 1)))


def _through_jpeg(plane: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(plane.squeeze(-1) if plane.shape[-1] == 1 else plane).save(
        stream, "JPEG", quality=quality, subsampling=0
    )
    return np.asarray(Image.open(stream)).reshape(plane.shape)
