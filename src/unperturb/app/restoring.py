"""From one image file to its restored one."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.observing import check_sigma
from unperturb.app.outputs import Job
from unperturb.atomic import make_folder
from unperturb.data.recording import Index, Recording, check_finite, read, write
from unperturb.infer.posterior import as_sigma
from unperturb.infer.restore import Progress, restore
from unperturb.infer.tiled import Compute
from unperturb.model.denoiser import Denoise

FAINT = 1 / 255
"""Noise below this share of the range of the values is not worth taking away."""


@dataclass(frozen=True)
class Restoring:
    """How to restore files.

    Attributes
    ----------
    denoise
        The denoiser.
    sigma
        Noise level in the units of the file, or None to estimate it for every plane.
    quality, compute
        As for `restore`.
    overwrite
        Whether results may replace files.
    """

    denoise: Denoise
    sigma: float | None = None
    quality: str = "fast"
    compute: Compute = field(default_factory=Compute)
    overwrite: bool = False

    def __call__(self, job: Job, progress: Progress | None = None) -> dict[str, Any]:
        """Restore one file, and tell what was done: input, output, shape, sigma in the file's units.

        Raises
        ------
        UnperturbError
            Where the file cannot be read, restored or written.
        """
        make_folder(job.target.parent)
        recording = read(job.source)
        check_finite(recording, job.source)
        levels: list[float] = []
        restored = recording.with_planes(self._planes(recording, levels, progress))
        write(restored, job.target, overwrite=self.overwrite)
        told = {
            "input": str(job.source),
            "output": str(job.target),
            "shape": list(recording.values.shape),
            "sigma": levels[0] if len(levels) == 1 else levels,
        }
        if self.sigma is None and max(levels) < FAINT * _range(recording):
            told["note"] = (
                f"{job.source}: next to no white noise was found and next to nothing changed; noise that can be seen "
                "all the same is not white (in a camera's JPEG, say), and --sigma tells its level"
            )
        if job.compare is not None:
            write(side_by_side(recording, restored), job.compare, overwrite=self.overwrite)
            told["compare"] = str(job.compare)
        return told

    def _planes(
        self, recording: Recording, levels: list[float], progress: Progress | None
    ) -> Iterator[tuple[Index, NDArray[np.float32]]]:
        axis = -1 if recording.is_colour else None
        scale = recording.full_scale
        check_sigma(recording, self.sigma)
        n_planes = int(np.prod(recording.stack_shape))
        for number, (index, plane) in enumerate(recording.planes()):
            sigma = as_sigma(plane, axis, None if self.sigma is None else self.sigma / scale)
            levels.append(float(sigma * scale))

            def show(tile: int, total: int, number: int = number) -> None:
                if progress is not None:
                    progress(number * total + tile, n_planes * total)

            yield (
                index,
                restore(
                    plane,
                    self.denoise,
                    sigma,
                    channel_axis=axis,
                    quality=self.quality,
                    compute=self.compute,
                    progress=show,
                ),
            )


def _range(recording: Recording) -> float:
    return recording.full_scale if recording.values.dtype.kind != "f" else float(np.ptp(recording.values))


def side_by_side(before: Recording, after: Recording) -> Recording:
    """Return one 8-bit picture with before on the left and after on the right; of a stack, the first plane.

    What is not 8-bit is shown between the 0.1 and 99.9 percentile of what is before.
    """
    index = next(iter(np.ndindex(before.stack_shape)))
    pair = [recording.as_float()[index] for recording in (before, after)]
    if before.values.dtype != np.uint8:
        low, high = np.percentile(pair[0], (0.1, 99.9))
        pair = [(values - low) / max(high - low, 1e-12) for values in pair]
    gap = np.ones((pair[0].shape[0], max(2, pair[0].shape[1] // 100), *pair[0].shape[2:]), np.float32)
    joined = np.concatenate([pair[0], gap, pair[1]], axis=1)
    levels = np.rint(joined.clip(0, 1) * 255).astype(np.uint8)
    picture = Recording(levels, before.axes.lstrip("STCZ") if levels.ndim == 2 else "YXC", "png")
    return replace(picture, metadata={key: before.metadata[key] for key in ("icc",) if key in before.metadata})
