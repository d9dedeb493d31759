"""From one file of an image or a signal to its restored one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.observing import Looking, Seen
from unperturb.app.outputs import Job
from unperturb.app.writing import write
from unperturb.atomic import make_folder
from unperturb.data.exif import upright
from unperturb.data.recording import Index, Recording
from unperturb.data.signal import Signal
from unperturb.errors import UsageError
from unperturb.infer.polish import CAVEAT, STEPS, polish
from unperturb.infer.restore import Progress, restore
from unperturb.model.denoiser import Denoise
from unperturb.model.stabilise import is_noise

FAINT = 1 / 255
"""Noise below this share of the range of the values is not worth taking away."""

BEYOND = (8, 300)
"""How far beyond that range values disturb what is around them, in units of it, and of the noise."""

CUT_OFF = 0.05
"""Share of values at an end of what a file can hold, above which it is worth a word that noise was cut off there."""

SOME = 10**5
"""Values that are looked at for their range."""


@dataclass(frozen=True)
class Restoring:
    """How to restore files.

    Attributes
    ----------
    looking
        How they are looked at: model, noise level, what is missing.
    quality
        As for `restore`; planes of a stack, of which there may be thousands, are looked at once by "auto".
    strength
        Share of what was found to be noise that is taken away. Less than all keeps grain, and is no best guess any more.
    overwrite
        Whether results may replace files.
    polisher
        A denoiser of noise that polishes what is found in missing pixels (`unperturb.infer.polish`), if there is one.
    """

    looking: Looking
    quality: str = "auto"
    strength: float = 1.0
    overwrite: bool = False
    polisher: Denoise | None = None

    def __call__(self, job: Job, progress: Progress | None = None) -> dict[str, Any]:
        """Restore one file, and tell what was done: input, output, shape, sigma in the file's units.

        Raises
        ------
        UnperturbError
            Where the file cannot be read, restored or written.
        """
        make_folder(job.target.parent)
        seen = self.looking.at(job.source)
        if job.compare is not None and isinstance(seen.recording, Signal):
            raise UsageError(f"{job.source} is a signal; --compare is of images, and uncertainty draws signals")
        recording = seen.recording
        levels: list[float | None] = []
        restored = seen.answered(self._planes(seen, levels, progress))
        write(restored, job.target, overwrite=self.overwrite)
        told = {
            "input": str(job.source),
            "output": str(job.target),
            "shape": list(recording.values.shape),
            "sigma": levels[0] if len(levels) == 1 else levels,
        }
        if seen.looking.why is not None:
            told["model"] = seen.looking.why
        if seen.looking.perturbation is not None and is_noise(seen.looking.perturbation):
            told["noise"] = str(seen.looking.perturbation)
        if seen.missing is not None:
            told["missing"] = float(seen.missing.mean())
        if self._steps(seen):
            told["polished"] = CAVEAT
        note = self._note(seen, [level for level in levels if level is not None])
        if note is not None:
            told["note"] = f"{job.source}: {note}"
        if job.compare is not None:
            assert isinstance(recording, Recording)
            assert isinstance(restored, Recording)
            write(side_by_side(recording, restored), job.compare, overwrite=self.overwrite)
            told["compare"] = str(job.compare)
        return told

    def _note(self, seen: Seen, levels: list[float]) -> str | None:
        """Return what has to be said of an answer, given the noise levels of the planes; None where there is nothing."""
        low, high = _ends(seen.recording)
        told = [] if seen.note is None else [seen.note]
        if self.looking.sigma is None and levels and max(levels) <= FAINT * (high - low):
            camera = "" if isinstance(seen.recording, Signal) else " (in a camera's JPEG, say)"
            told.append(
                "next to no white noise was found and next to nothing changed; noise that can be seen all the same is "
                f"not white{camera}, and --sigma tells its level"
            )
        if told:
            return "; ".join(told)
        if not levels or seen.missing is not None or isinstance(seen.recording, Signal):
            return None
        far = max(BEYOND[0] * (high - low), BEYOND[1] * max(levels))
        values = seen.recording.values
        least, most = np.float64(low - far), np.float64(high + far)  # beyond what 16 bits hold, it may be
        count = int(np.count_nonzero(values < least) + np.count_nonzero(values > most))
        if count:
            return (
                f"what lies far beyond all other values disturbs what is around it ({count} here); --missing takes a "
                "mask of what is to be left out"
            )
        share = _at_ends(values)
        if share < CUT_OFF or self.looking.perturbation is not None or not any(levels):
            return None
        return (
            f"{100 * share:.2g} % of the values are black or white, as far as the file goes, and noise was cut off "
            "there: what is so bright or dark comes back a little grey, and intervals may miss it"
        )

    def _quality_of(self, recording: Recording | Signal) -> str:
        return "fast" if self.quality == "auto" and np.prod(recording.stack_shape) > 1 else self.quality

    def _steps(self, seen: Seen) -> int:
        """Return in how many steps what is found is polished."""
        polished = self.polisher is not None and seen.keeps_observed
        return STEPS[self._quality_of(seen.recording)] if polished else 0

    def _planes(
        self, seen: Seen, levels: list[float | None], progress: Progress | None
    ) -> Iterator[tuple[Index, NDArray[np.float32]]]:
        recording, looking = seen.recording, seen.looking
        n_planes, quality, steps = int(np.prod(recording.stack_shape)), self._quality_of(recording), self._steps(seen)
        for number, (index, plane, missing, sigma) in enumerate(seen.planes()):
            levels.append(None if sigma is None else seen.in_file_units(index, sigma))
            parts = 2 if steps else 1

            def show(done: int, total: int, first: int = parts * number, parts: int = parts) -> None:
                if progress is not None:
                    progress(first * total + done, parts * n_planes * total)

            answer = restore(
                plane,
                looking.denoise,
                sigma,
                channel_axis=seen.channel_axis,
                missing=missing,
                perturbation=looking.perturbation,
                quality=quality,
                compute=looking.compute,
                progress=show,
            )
            if steps:
                assert missing is not None
                assert self.polisher is not None
                answer = polish(
                    answer,
                    missing,
                    self.polisher,
                    channel_axis=seen.channel_axis,
                    steps=steps,
                    compute=looking.compute,
                    progress=partial(show, first=2 * number + 1),
                )
            yield index, answer if self.strength == 1 else plane + np.float32(self.strength) * (answer - plane)


def _ends(recording: Recording | Signal) -> tuple[float, float]:
    """Return between what most values lie, in the units of the file: of sixteen bits often less than twelve."""
    some = recording.values.ravel()[:: max(1, recording.values.size // SOME)]
    low, high = np.quantile(some[np.isfinite(some)].astype(np.float64), [0.001, 0.999])
    return float(low), float(high)


def _at_ends(values: NDArray[Any]) -> float:
    """Return the share of values at the end of what integers can hold where more are; of other numbers 0."""
    if values.dtype.kind not in "iu":
        return 0.0
    ends = np.iinfo(values.dtype)
    return max(np.count_nonzero(values == end) for end in (ends.min, ends.max)) / values.size


def side_by_side(before: Recording, after: Recording) -> Recording:
    """Return one 8-bit picture with before on the left and after on the right, upright; of a stack, the first plane.

    What is not 8-bit is shown between the 0.1 and 99.9 percentile of what is before.
    """
    index = next(iter(np.ndindex(before.stack_shape)))
    pair = [upright(recording.as_float()[index], before.metadata.get("exif")) for recording in (before, after)]
    if before.values.dtype != np.uint8:
        low, high = np.percentile(pair[0], (0.1, 99.9))
        pair = [(values - low) / max(high - low, 1e-12) for values in pair]
    gap = np.ones((pair[0].shape[0], max(2, pair[0].shape[1] // 100), *pair[0].shape[2:]), np.float32)
    joined = np.concatenate([pair[0], gap, pair[1]], axis=1)
    levels = np.rint(joined.clip(0, 1) * 255).astype(np.uint8)
    picture = Recording(levels, before.axes.lstrip("STCZ") if levels.ndim == 2 else "YXC", "png")
    return replace(picture, metadata={key: before.metadata[key] for key in ("icc",) if key in before.metadata})
