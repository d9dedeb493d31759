"""From one file of an image or a signal to draws of what else it could have been."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.observing import Heard, Looking, Seen
from unperturb.app.outputs import Job
from unperturb.app.pictures import Window, most_uncertain, sheet, shown_range
from unperturb.app.traces import draws_page
from unperturb.app.writing import write
from unperturb.atomic import make_folder, whole
from unperturb.data.recording import Index, Recording
from unperturb.infer.sample import STEPS, sample

GROUP = 4_000_000
"""Values that are drawn at a time."""


@dataclass(frozen=True)
class Drawing:
    """How to draw.

    Attributes
    ----------
    looking
        How files are looked at: model, noise level, what is missing.
    n_samples, steps, seed
        As for `sample`.
    overwrite
        Whether results may replace files.
    """

    looking: Looking
    n_samples: int = 8
    steps: int = STEPS
    seed: int = 0
    overwrite: bool = False

    def __call__(self, job: Job, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
        """Draw from the posterior of one file; the last of the job's files is the sheet, the others are the draws.

        Raises
        ------
        UnperturbError
            Where the file cannot be read, drawn from or written.
        """
        make_folder(job.target.parent)
        looked = self.looking.at(job.source)
        recording = looked.recording
        targets, page = job.files[:-1], job.files[-1]
        group = max(1, GROUP // recording.values.size)
        levels: list[float | None] = []
        kept: list[NDArray[np.float32]] = []
        for begin in range(0, self.n_samples, group):
            numbers = range(begin, min(begin + group, self.n_samples))
            stacks, levels, best = self._draw(looked, numbers, progress)
            for number, planes in zip(numbers, stacks, strict=True):
                write(looked.answered(planes.items()), targets[number], overwrite=self.overwrite)
                kept.append(planes[next(iter(planes))])
        if isinstance(looked, Heard):
            with whole(page, overwrite=self.overwrite) as part:
                part.write_text(draws_page(looked, best, kept, job.source.name), encoding="utf-8")
        else:
            assert isinstance(recording, Recording)
            write(_page(recording, best, kept), page, overwrite=self.overwrite)
        return {
            "input": str(job.source),
            "outputs": [str(target) for target in targets],
            "sheet": str(page),
            "sigma": levels[0] if len(levels) == 1 else levels,
            **({} if looked.looking.why is None else {"model": looked.looking.why}),
            **({} if looked.note is None else {"note": f"{job.source}: {looked.note}"}),
            "seed": self.seed,
            "steps": self.steps,
        }

    def _draw(
        self, looked: Seen, numbers: range, progress: Callable[[int, int], None] | None
    ) -> tuple[list[dict[Index, NDArray[np.float32]]], list[float | None], NDArray[np.float32]]:
        """Return the draws of these numbers, each plane by plane; the noise levels; the best guess of the first plane."""
        stacks: list[dict[Index, NDArray[np.float32]]] = [{} for _ in numbers]
        levels: list[float | None] = []
        best: NDArray[np.float32] | None = None
        n_planes = int(np.prod(looked.recording.stack_shape))
        for plane, (index, seen, level) in enumerate(looked.observations()):

            def show(done: int, total: int, plane: int = plane) -> None:
                if progress is not None:
                    share = (plane + done / total) / n_planes
                    progress(round(1000 * (numbers.start + share * len(numbers))), 1000 * self.n_samples)

            levels.append(level)
            n_items = len(seen.posterior.start)
            items = range(plane * n_items, (plane + 1) * n_items)
            draws = sample(seen.posterior, numbers, steps=self.steps, seed=self.seed, items=items, progress=show)
            for stack, draw in zip(stacks, draws, strict=True):
                stack[index] = seen.to_array(draw)
            if best is None:
                best = seen.to_array(seen.posterior.mean)
        assert best is not None
        return stacks, levels, best


def _page(recording: Recording, best: NDArray[np.float32], draws: list[NDArray[np.float32]]) -> Recording:
    """Return input, best guess and draws of the first plane, where they differ most, side by side."""
    index = next(iter(np.ndindex(recording.stack_shape)))
    noisy = recording.as_float()[index]
    spread = np.square(np.stack(draws) - best).mean(0)
    window = Window(*most_uncertain(spread), *shown_range(recording, np.stack(draws)))
    pictures = [("input", window.show(noisy)), ("best guess: the mean", window.show(best))]
    pictures += [(f"draw {number + 1}", window.show(draw)) for number, draw in enumerate(draws[:14])]
    return sheet(pictures)
