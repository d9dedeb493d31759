"""`unperturb demo blur`: why a restored image is blurred, and what a sharp one looks like.

A small denoising autoencoder is trained with squared error on digits, another on faces. Its answer is the average of
all images that could lie behind the noise, and an average of sharp images is not sharp: its gradients have less energy.
Draws from the posterior, by the same network, have about that of clean images. A third network knows fours and nines
alone; for one digit the noise leaves it both readings: draws are of either, the mean is neither.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unperturb.app.lab import pictures
from unperturb.app.lab.four_or_nine import draw_ambiguous, find_ambiguous, fours_and_nines
from unperturb.app.lab.images import ImageSet, digits, faces, learn_images
from unperturb.app.lab.learn import Learned, Show, noisy
from unperturb.data.recording import Recording, write
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import sample
from unperturb.model.checkpoint import save_model

IMAGE_SETS: dict[str, Callable[[], ImageSet]] = {"digits": digits, "faces": faces}
"""All of them by the name that the command line takes."""

MORE = ("blur_four_or_nine.png", "four_or_nine.tif", "four_or_nine.safetensors", "digits.safetensors")
"""What comes with the digits."""

SHOWN = 5
"""Images in a picture."""

DRAWS = 3
"""Draws of each."""


@dataclass(frozen=True, eq=False)
class Experiment:
    """Images held out, ``(image, 1, height, width)``, and what one network makes of them under noise."""

    images: ImageSet
    sigma: float
    learned: Learned
    seen: Tensor
    mean: Tensor
    draws: Tensor
    """``(draw, *clean.shape)``"""

    @property
    def clean(self) -> Tensor:
        """The images as they are."""
        return self.images.held_out

    def figures(self) -> dict[str, float]:
        """Return errors, their ratio, which is 2 for exact draws, and the energy of gradients relative to the clean."""
        mse = float((self.mean - self.clean).square().mean())
        of_draws = float((self.draws - self.clean).square().mean())
        energy = gradient_energy(self.clean)
        return {
            "sigma": self.sigma,
            "mse": mse,
            "draw_mse_over_mse": of_draws / mse,
            "noisy_gradients": gradient_energy(self.seen) / energy,
            "mean_gradients": gradient_energy(self.mean) / energy,
            "draw_gradients": gradient_energy(self.draws) / energy,
            "seconds": self.learned.seconds,
        }


def run_blur(
    folder: Path,
    names: Sequence[str] = tuple(IMAGE_SETS),
    *,
    sigma: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train on image sets and write a picture of each, ``blur_<set>.png``, to a folder.

    With the digits come ``digits.safetensors``, their network; ``blur_four_or_nine.png``; and for the other commands to
    be tried on, the ambiguous digit itself as ``four_or_nine.tif`` and its network as ``four_or_nine.safetensors``.

    Parameters
    ----------
    folder
        Is made where it is missing.
    names
        Of `IMAGE_SETS`.
    sigma
        Noise in units of the values, which lie in 0 … 1; by default each set has its own.
    steps
        Of training, where not the set's own.
    seed
        Of training, noise and draws.
    overwrite
        Whether files may be replaced.
    show
        For progress.

    Returns
    -------
    dict
        "sets": what was measured, by set; "four_or_nine"; "pictures"; "files"; "seconds" of all.

    Raises
    ------
    UnperturbError
        Where a file is there already, or a package of the extra is missing.
    """
    pictures.need("matplotlib", "sklearn")
    paths = {name: folder / f"blur_{name}.png" for name in names}
    more = [folder / name for name in MORE] if "digits" in names else []
    pictures.prepare([*paths.values(), *more], overwrite=overwrite)
    begin = time.perf_counter()
    told: dict[str, Any] = {"sets": {}, "pictures": [str(path) for path in [*paths.values(), *more[:1]]]}
    for name, path in paths.items():
        experiment = experience(IMAGE_SETS[name](), sigma, steps=steps, seed=seed, show=show)
        draw_picture(experiment, path)
        told["sets"][name] = experiment.figures()
        if name == "digits":
            save_model(experiment.learned.denoiser, folder / "digits.safetensors", dtype=torch.float16)
            told["four_or_nine"] = run_four_or_nine(folder, experiment.images, steps=steps, seed=seed, show=show)
    return {**told, "files": [str(path) for path in more[1:]], "seconds": time.perf_counter() - begin}


def run_four_or_nine(
    folder: Path, images: ImageSet, *, steps: int | None = None, seed: int = 0, show: Show | None = None
) -> dict[str, float]:
    """Find an ambiguous digit, draw it, and write it and its network; return what was measured of it."""
    images = fours_and_nines(images)
    learned = learn_images(images, images.sigma, steps=steps, seed=seed, show=show)
    ambiguous = find_ambiguous(images, learned.denoiser, images.sigma, seed)
    draw_ambiguous(ambiguous, folder / MORE[0])
    write(Recording(ambiguous.seen[0, 0].numpy(), "YX"), folder / MORE[1], overwrite=True)
    save_model(learned.denoiser, folder / MORE[2], dtype=torch.float16)
    return ambiguous.figures()


def experience(
    images: ImageSet,
    sigma: float | None = None,
    *,
    steps: int | None = None,
    seed: int = 0,
    show: Show | None = None,
) -> Experiment:
    """Train on an image set, and restore the images held out."""
    sigma = images.sigma if sigma is None else sigma
    learned = learn_images(images, sigma, steps=steps, seed=seed, show=show)
    seen = noisy(images.held_out, sigma, seed)
    posterior = Posterior(learned.denoiser, seen, sigma)
    return Experiment(images, sigma, learned, seen, posterior.mean, sample(posterior, DRAWS, seed=seed))


def gradient_energy(images: Tensor) -> float:
    """Return the mean squared difference of neighbours, along rows and columns: what blur takes away."""
    return float(sum(images.diff(dim=axis).square().mean() for axis in (-1, -2)))


def draw_picture(experiment: Experiment, path: Path) -> None:
    """Draw a row an image: clean, noisy, the mean, and draws."""
    figures = experiment.figures()
    columns = [
        ("Clean", pictures.INK, "gradients 1", experiment.clean),
        ("Noisy", pictures.NOISY, f"gradients {figures['noisy_gradients']:.2g}", experiment.seen),
        ("Mean", pictures.MEAN, f"gradients {figures['mean_gradients']:.2f}", experiment.mean),
        *(
            ("Draws" if number == 0 else "", pictures.DRAW, "" if number else f"gradients {figures['draw_gradients']:.2f}", draw)
            for number, draw in enumerate(experiment.draws)
        ),
    ]  # fmt: skip
    with pictures.picture(path, SHOWN, len(columns), (1.62 * len(columns), 1.62 * SHOWN + 0.75)) as axes:
        for column, (name, colour, note, shown) in enumerate(columns):
            for row, index in enumerate(_different(experiment.images)):
                pictures.gray(axes[row, column], shown[index, 0])
            pictures.title(axes[0, column], name, note or " ", colour)


def _different(images: ImageSet) -> list[int]:
    """Return which images to show: the first of each label, where there are labels."""
    if not len(images.held_out_labels):
        return list(range(SHOWN))
    return np.sort(np.unique(images.held_out_labels, return_index=True)[1])[:SHOWN].tolist()
