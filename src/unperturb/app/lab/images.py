"""Small images that come with well-kept libraries: handwritten digits, and faces.

Digits are those of the Optical Recognition of Handwritten Digits data set (Alpaydin and Kaynak, 1998), 8 × 8 pixels, in
scikit-learn; faces are a hundred of Labeled Faces in the Wild (Huang et al., 2007), 25 × 25 pixels, in scikit-image. A
part of each is held out, and everything that is shown or measured is from there.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.app.lab.learn import Learned, Show, as_tensor, learn, noisy, perturbation
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings
from unperturb.train.settings import FitSettings

LEVELS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Noise levels at which a model's card states its validation error."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Gray images, ``(image, 1, height, width)`` with values in 0 … 1.

    Attributes
    ----------
    name
        For people.
    source
        What the images are, for a model's card.
    train, held_out
        To learn from, and to look at.
    labels, held_out_labels
        What they show, where that is known; else empty.
    mirrored
        Whether the mirror image of one is as good as the image.
    settings
        How to train on them.
    sigma
        Noise under which they are blurred by their mean, in units of the values.
    """

    name: str
    source: str
    train: Tensor
    held_out: Tensor
    labels: NDArray[np.int64]
    held_out_labels: NDArray[np.int64]
    mirrored: bool
    settings: FitSettings
    sigma: float

    def draw(self, generator: np.random.Generator, _: int) -> NDArray[np.float32]:
        """Return one image to learn from, ``(1, height, width)``."""
        image = self.train[int(generator.integers(len(self.train)))].numpy()
        flip = self.mirrored and generator.random() < 0.5
        return np.ascontiguousarray(image[..., ::-1] if flip else image)


_NETWORK = UNetSettings(channels=1, widths=(32, 64), blocks=2, shuffle=1)
_SETTINGS = FitSettings("gaussian:sigma=0..1", _NETWORK, warmup=20, decay=0.6, average=0.99)


def digits(held_out: int = 300) -> ImageSet:
    """Return the digits of scikit-learn. They are dealt out at random: writers are in both parts."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images, labels = as_tensor(bunch.images[order, None] / 16), np.asarray(bunch.target)[order].astype(np.int64)
    test, train = slice(held_out), slice(held_out, None)
    return ImageSet(
        "digits",
        "1497 handwritten digits of the Optical Recognition of Handwritten Digits data set, 8 × 8",
        images[train],
        images[test],
        labels[train],
        labels[test],
        mirrored=False,
        settings=replace(_SETTINGS, steps=400, batch=32, share=16, rate=2e-3),
        sigma=0.3,
    )


def only(images: ImageSet, labels: tuple[int, ...], name: str, sigma: float) -> ImageSet:
    """Return the world in which there are images with these labels alone."""
    learned, shown = (np.isin(each, labels) for each in (images.labels, images.held_out_labels))
    return replace(
        images,
        name=name,
        source=f"{int(learned.sum())} {name} of {images.source.split(' ', 1)[1]}",
        train=images.train[torch.from_numpy(learned)],
        held_out=images.held_out[torch.from_numpy(shown)],
        labels=images.labels[learned],
        held_out_labels=images.held_out_labels[shown],
        sigma=sigma,
    )


def faces(held_out: int = 20) -> ImageSet:
    """Return the faces of scikit-image. Each is of another photograph; the mirrored ones are learned from as well."""
    from skimage.data import lfw_subset

    images = as_tensor(lfw_subset()[:100, None])  # the second hundred are no faces
    images = images[torch.from_numpy(np.random.default_rng(0).permutation(len(images)))]
    none = np.empty(0, np.int64)
    return ImageSet(
        "faces",
        "80 faces of Labeled Faces in the Wild, 25 × 25",
        images[held_out:],
        images[:held_out],
        none,
        none,
        mirrored=True,
        settings=replace(_SETTINGS, steps=300, batch=8, share=4, rate=2e-3),
        sigma=0.25,
    )


def learn_images(
    images: ImageSet, sigma: float, *, steps: int | None = None, seed: int = 0, show: Show | None = None
) -> Learned:
    """Train on an image set, under noise of every standard deviation from 0 to somewhat above `sigma`.

    The denoiser's card holds its errors on the images held out.
    """
    settings = replace(images.settings, perturb=perturbation(sigma), seed=seed, data=images.name)
    learned = learn(replace(settings, steps=steps or settings.steps), images.draw, images.name, show)
    known = {
        f"{level:g}": _error(learned.denoiser, images.held_out, level) for level in LEVELS if level <= 1.25 * sigma
    }
    card = {"name": images.name, "data": images.source, "errors": {"gray": known}}
    card["description"] = "A small denoiser that was trained in seconds, to look at"
    return Learned(learned.denoiser.with_card(**card), learned.seconds)


def _error(denoiser: Denoiser, clean: Tensor, sigma: float) -> float:
    clean = clean.repeat(4, 1, 1, 1)
    return float((denoiser(noisy(clean, sigma, seed=0), sigma) - clean).square().mean())
