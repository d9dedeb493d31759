"""From one image file to what is known of its answer: a map, components, and a report that says it in words."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from unperturb.app.findings import Findings, Region, RegionMean
from unperturb.app.observing import Looking, Seen
from unperturb.app.outputs import Job
from unperturb.app.telling import told_page, verdict
from unperturb.atomic import make_folder, whole
from unperturb.data.recording import Recording, write
from unperturb.errors import ModelError, UsageError
from unperturb.infer.interval import Calibration, Drawing, find_calibration, interval, kind_of, level_of, pixel_spread
from unperturb.infer.observe import Observation
from unperturb.infer.places import FEW, Place, can_be_cut, look, of_gaps, surroundings, widest_windows
from unperturb.infer.posterior import Posterior
from unperturb.infer.residual import Residual, residual
from unperturb.infer.sample import STEPS, sample
from unperturb.infer.statistic import PIXEL
from unperturb.infer.statistic import region_mean as region_mean_of
from unperturb.infer.tiled import Tiled
from unperturb.infer.uncertainty import Components, components, components_of_draws
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser

Progress = Callable[[int, int], None]

PLACES, SIDE = 6, 32
"""How many windows are looked at closely, and their side in pixels."""

BUDGET = 5_000_000
"""Values that are evaluated for the draws of a place, at most, in images so small that a few hundred draws fit in."""

WHOLE = 1_100_000
"""Pixels up to which the components of an image as a whole are computed."""


@dataclass(frozen=True)
class Examining:
    """How to find out what is uncertain.

    Attributes
    ----------
    looking
        How files are looked at: model, noise level, what is missing.
    drawing
        How draws are made; that of the model's calibration keeps what it promises.
    seed
        Of the draws.
    n_components
        Directions of the image as a whole, or of the region.
    region
        Left, top, width and height of a part of interest, or None.
    overwrite
        Whether results may replace files.
    """

    looking: Looking
    drawing: Drawing = field(default_factory=Drawing)
    seed: int = 0
    n_components: int = 4
    region: Region | None = None
    overwrite: bool = False

    def __call__(self, job: Job, progress: Progress | None = None) -> dict[str, Any]:
        """Examine one file; the job's files are the map, the components, and the report.

        Raises
        ------
        UnperturbError
            Where the file cannot be read, examined or written, or the region lies outside of it.
        """
        make_folder(job.target.parent)
        looked = self.looking.at(job.source)
        return replace(self, looking=looked.looking)._examined(job, looked, progress)  # a model may have been chosen

    def _examined(self, job: Job, looked: Seen, progress: Progress | None) -> dict[str, Any]:
        recording = looked.recording
        assert isinstance(recording, Recording)
        if self.region is not None:
            self.region.slices(recording.values.shape[len(recording.stack_shape) :])  # refused before it takes time
        spread = np.empty(recording.values.shape, np.float32)
        found: Findings | None = None
        n_planes = int(np.prod(recording.stack_shape))
        for plane, (index, seen, sigma) in enumerate(looked.observations()):
            n_items = len(seen.posterior.start)
            items = range(plane * n_items, (plane + 1) * n_items)
            drawn, places = self.drawing.n_samples, _effort(seen.posterior, self.drawing.n_samples)
            count = _counter(progress, n_planes * drawn + places)
            before = plane * drawn + (places if plane else 0)
            draws = self.drawing.draw(seen.posterior, seed=self.seed, items=items, progress=count(before, drawn))
            spread[index] = seen.to_array(pixel_spread(seen.posterior, draws)) * recording.full_scale
            if found is None:
                found = self._find(looked, seen, sigma, draws, count(drawn, places))
        assert found is not None
        write(Recording(spread, recording.axes, "tiff"), job.target, overwrite=self.overwrite)
        if found.components is not None:
            pages = _as_pages(found.components, recording.full_scale)
            write(pages, job.more[0], overwrite=self.overwrite)
        with whole(job.more[1], overwrite=self.overwrite) as part:
            part.write_text(told_page(found, job.source.name), encoding="utf-8")
        return {
            "input": str(job.source),
            "std": str(job.target),
            "directions": None if found.components is None else str(job.more[0]),
            "report": str(job.more[1]),
            "verdict": verdict(found),
            **({} if self.looking.why is None else {"chosen": self.looking.why}),
            **found.numbers(),
        }

    def _find(
        self, looked: Seen, seen: Observation, sigma: float | None, draws: torch.Tensor, progress: Progress
    ) -> Findings:
        """Look at the first plane closely."""
        recording = looked.recording
        assert isinstance(recording, Recording)
        posterior = _precise(seen.posterior)
        spread = pixel_spread(seen.posterior, draws)  # as in the map
        calibration = self._calibration(posterior, PIXEL)
        half = None if calibration is None else calibration.scale(level_of(posterior, calibration)).to(spread) * spread
        first = _first(posterior)
        windows = [window for window in widest_windows(spread[0], SIDE, PLACES) if spread[0][:, *window].any()]
        places = self._places(first, windows, draws[:, :1], progress)
        directions, window = self._directions(first, (draws - posterior.mean)[:, 0])
        index = next(iter(np.ndindex(recording.stack_shape)))
        return Findings(
            recording=recording,
            noisy=recording.as_float()[index],
            best=seen.to_array(posterior.mean),
            draws=[seen.to_array(draw) for draw in draws],
            spread=seen.to_array(spread),
            half=None if half is None else seen.to_array(half),
            sigma=sigma,
            estimated=self.looking.sigma is None,
            missing=None if looked.missing is None else float(looked.missing[index].mean()),
            caveat=self.looking.caveat,
            calibration=calibration,
            in_range=calibration is not None and calibration.holds_at(level_of(posterior, calibration)),
            residual=None if posterior.blind else _residual(recording, posterior, draws),
            places=places,
            components=directions,
            window=window,
            region=self.region,
            region_mean=self._region_mean(posterior, draws),
            settings={
                "model": self._card.name,
                "draws": self.drawing.n_samples,
                "steps": self.drawing.steps,
                "seed": self.seed,
            },
        )

    def _places(
        self, posterior: Posterior, windows: Sequence[tuple[slice, ...]], draws: torch.Tensor, progress: Progress
    ) -> list[Place]:
        """Look at windows of one signal, of which there are draws."""
        if _one_by_one(posterior, windows, len(draws)):
            found = []
            for number, window in enumerate(windows):
                found.append(look(posterior, window, n_draws=_affordable(posterior, window), seed=self.seed))
                progress(number + 1, len(windows))
            return found
        if windows and len(draws) < FEW:  # of the whole, once for all windows
            # What the denoise function was bound to is cut as well, to the first of the signals.
            alone, _ = surroundings(posterior, tuple(slice(0, length) for length in posterior.start.shape[2:]))
            missing = range(len(draws), FEW)
            more = sample(alone, missing, steps=self.drawing.steps, seed=self.seed, progress=progress)
            draws = torch.cat([draws, more])
        gaps = (draws - posterior.mean)[:, 0]
        return [of_gaps(window, gaps[(slice(None), slice(None), *window)]) for window in windows]

    def _calibration(self, posterior: Posterior, statistic: str) -> Calibration | None:
        try:
            found = find_calibration(self._card, kind_of(posterior), statistic)
        except ModelError:
            return None
        return found if found.drawing == self.drawing else None

    @property
    def _card(self) -> Card:
        assert isinstance(self.looking.denoise, Denoiser)
        return self.looking.denoise.card

    def _directions(self, posterior: Posterior, gaps: torch.Tensor) -> tuple[Components | None, tuple[slice, ...]]:
        """Return the components of the region, or of the whole, and the window of space they live in.

        Where the start of the posterior says nothing its derivative does not either, and they are those of the draws.
        """
        space = posterior.start.shape[2:]
        if posterior.blind:
            window = tuple(slice(0, length) for length in space) if self.region is None else self.region.slices(space)
            return components_of_draws(gaps[:, :, *window], self.n_components), window
        if self.region is not None:
            window = self.region.slices(space)
            near, inside = surroundings(posterior, window)
            found = components(near, self._count(near, inside), region=inside)
            cut = found.directions[(slice(None), slice(None), *inside)].clone()
            return replace(found, directions=cut), window
        window = tuple(slice(0, length) for length in space)
        if int(np.prod(space)) > WHOLE:
            return None, window
        return components(posterior, self._count(posterior, window), iterations=5), window

    def _count(self, posterior: Posterior, window: tuple[slice, ...]) -> int:
        return min(self.n_components, posterior.start[0][(slice(None), *window)].numel())

    def _region_mean(self, posterior: Posterior, draws: torch.Tensor) -> RegionMean | None:
        """Return the mean over the region, channel by channel, and the half width of its interval, if calibrated."""
        if self.region is None:
            return None
        mask = torch.zeros(posterior.start.shape[2:], dtype=torch.bool)
        mask[self.region.slices(mask.shape)] = True
        statistic = region_mean_of(mask)
        means = tuple(statistic.of(posterior.mean).flatten().tolist())
        calibration = self._calibration(posterior, statistic.name)
        if calibration is None:
            return RegionMean(means, None)
        low, high, _ = interval(posterior, draws, statistic, calibration)
        return RegionMean(means, tuple(((high - low) / 2).flatten().tolist()))


def _first(posterior: Posterior) -> Posterior:
    """Return the posterior of the first signal of a batch alone."""
    level = posterior.level_map
    return replace(posterior, start=posterior.start[:1], sigma=level[:1] if level.ndim else level)


def _precise(posterior: Posterior) -> Posterior:
    """Return the posterior in single precision: differences of answers need it."""
    tiled = posterior.denoise
    if not isinstance(tiled, Tiled):
        return posterior
    return replace(posterior, denoise=Tiled(tiled.denoise, replace(tiled.compute, precision="float32")))


def _affordable(posterior: Posterior, window: tuple[slice, ...]) -> int:
    """Return how many draws to make of a place: some hundreds where it is small, and none where that is too much."""
    near, _ = surroundings(posterior, window)
    n_draws = min(256, BUDGET // (STEPS * near.start.numel()))
    return n_draws if n_draws >= 128 else 0


def _one_by_one(posterior: Posterior, windows: Sequence[tuple[slice, ...]], n_draws: int) -> bool:
    """Whether windows are looked at each by itself: where they can be, unless a few more draws of the whole take less."""
    if not can_be_cut(posterior):
        return False
    if not posterior.blind or any(_affordable(posterior, window) for window in windows):
        return True
    near = sum(surroundings(posterior, window)[0].start.numel() for window in windows)
    return FEW * near < max(FEW - n_draws, 0) * posterior.start.numel()


def _effort(posterior: Posterior, n_draws: int) -> float:
    """Return what places will take to look at, about, in draws of the whole, of which there are so many."""
    first = _first(posterior)
    sides = ((length, min(SIDE, length)) for length in first.start.shape[2:])
    windows = [tuple(slice((length - side) // 2, (length + side) // 2) for length, side in sides)] * PLACES
    if not _one_by_one(first, windows, n_draws):
        return max(FEW - n_draws, 0)
    near = surroundings(first, windows[0])[0].start.numel()
    return PLACES * max(_affordable(first, windows[0]), FEW) * near / posterior.start.numel()


def _residual(recording: Recording, posterior: Posterior, draws: torch.Tensor) -> Residual | None:
    """Compare with what was seen, besides values that an integer file has clipped."""
    trusted = None
    if recording.values.dtype.kind != "f":
        # Where the guess is near an end of the range, part of the noise was clipped, whether this value was or not.
        level = posterior.spread_of_noise
        trusted = (posterior.mean > 3 * level) & (posterior.mean < 1 - 3 * level)
    try:
        return residual(posterior, draws, trusted)
    except UsageError:
        return None


def _as_pages(made: Components, scale: float) -> Recording:
    """Return each component times its standard deviation, in the units of the file, as pages of one stack."""
    pages = (made.directions * made.variances.sqrt().view(-1, 1, 1, 1) * scale).float().numpy()
    if pages.shape[1] == 1:
        return Recording(pages[:, 0].copy(), "ZYX", "tiff")
    return Recording(np.ascontiguousarray(np.moveaxis(pages, 1, -1)), "ZYXC", "tiff")


def _counter(progress: Progress | None, n_draws: float) -> Callable[[float, float], Progress]:
    """Return what counts some draws out of all, behind so many; the last tenth of the time is for the rest."""

    def some(before: float, count: float) -> Progress:
        def show(done: int, total: int) -> None:
            if progress is not None:
                progress(round(900 * (before + count * done / total) / n_draws), 1000)

        return show

    return some
