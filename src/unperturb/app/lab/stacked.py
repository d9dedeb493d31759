"""`unperturb demo stacked`: what a stack of denoising autoencoders learns of digits before it is told a single label.

Layers are trained one by one, each to restore what the layer below makes of an image, from a copy of it of which a share
of the components is erased:

    h = relu(W x̃ + b)        φ(x̃) = Wᵀ h + c        x̃: components of x erased

Then a last layer is put on top, and the whole is trained on few labels (Vincent, Larochelle, Lajoie, Bengio and Manzagol,
"Stacked denoising autoencoders", 2010). Beside it the same network from random weights, and one whose layers were trained
to copy, with nothing erased. All that differs is where training on labels begins.

The lowest layer restores values of 0 … 1 with the cross-entropy, as in the paper, the others with the squared error.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from unperturb.app.lab import pictures
from unperturb.app.lab.autoencoders import descend, seeded
from unperturb.app.lab.idx import find_idx, read_idx
from unperturb.app.lab.learn import Show, as_tensor
from unperturb.errors import FileError

BEGINNINGS = {"random": pictures.CLEAN, "copying": pictures.NOISY, "denoising": pictures.MEAN}
"""Where training on labels begins, and the colours."""

UNLABELLED, VALIDATION = 8000, 1000
"""Images to learn from, and how many of these settings were chosen on; with a file of its own to test on as well."""

SEEDS = 5


@dataclass(frozen=True)
class Settings:
    """The network and its training; chosen on the images of validation, with one seed.

    Attributes
    ----------
    widths
        Of the layers that are pre-trained.
    erased
        Share of the components of what a layer sees.
    epochs
        Times that pre-training of a layer sees every image.
    rate, batch
        Of pre-training.
    steps, label_rate, label_batch
        Of training on labels: updates, learning rate, images a step.
    """

    widths: tuple[int, ...] = (300, 300, 300)
    erased: float = 0.25
    epochs: int = 8
    rate: float = 1e-3
    batch: int = 100
    steps: int = 250
    label_rate: float = 1e-3
    label_batch: int = 50


@dataclass(frozen=True, eq=False)
class Digits:
    """Images ``(image, pixel)``, values in 0 … 1, and what they show, ``(image,)``; to learn from, and to be told."""

    images: Tensor
    labels: Tensor
    test_images: Tensor
    test_labels: Tensor

    def on_validation(self) -> "Digits":
        """Return the problem that settings are chosen on: a part of the images to learn from stands for the test."""
        rest = slice(VALIDATION, None)
        return Digits(self.images[rest], self.labels[rest], self.images[:VALIDATION], self.labels[:VALIDATION])


Layer = tuple[Tensor, Tensor]
"""Weights ``(out, in)`` and biases ``(out,)``."""


def run_stacked(
    source: Path,
    folder: Path,
    *,
    labels: Sequence[int] = (100, 300, 1000),
    seeds: int = SEEDS,
    seed: int = 0,
    settings: Settings | None = None,
    validate: bool = False,
    overwrite: bool = False,
    show: Show | None = None,
) -> dict[str, Any]:
    """Compare the three beginnings, and write the picture ``stacked.png`` to a folder.

    Parameters
    ----------
    source
        Folder with the files of MNIST; see `read_digits`.
    folder
        Is made where it is missing.
    labels
        How many of the images have one.
    seeds, seed
        How often all is done anew, and the first of the seeds: of weights, of what is erased, of which have labels.
    settings
        Of training.
    validate
        Whether to measure on the images of validation: the way to choose settings.
    overwrite
        Whether the picture may be replaced.
    show
        For progress.

    Returns
    -------
    dict
        "errors": by number of labels and beginning, mean and standard error over seeds, in percent; "pictures" …

    Raises
    ------
    UnperturbError
        Where the files are missing or damaged, the picture is there already, or a package of the extra is missing.
    """
    pictures.need("matplotlib")
    digits = read_digits(source)
    path = folder / "stacked.png"
    pictures.prepare([path], overwrite=overwrite)
    begin = time.perf_counter()
    digits = digits.on_validation() if validate else digits
    settings = settings or Settings()
    trials = [
        measure(digits, settings, labels, seed + number, note=f"{number + 1} of {seeds}", show=show)
        for number in range(seeds)
    ]
    told: dict[str, Any] = {
        "learned_from": len(digits.images),
        "tested_on": len(digits.test_images),
        "part": "validation" if validate else "test",
        "seeds": seeds,
        "errors": _summary(trials, labels),
    }
    draw_picture(told["errors"], path)
    return {**told, "pictures": [str(path)], "seconds": time.perf_counter() - begin}


def read_digits(source: Path) -> Digits:
    """Read the files of MNIST in a folder, gzipped or not.

    Where those of training are there, 8,000 of their images are learned from and all of ``t10k`` is tested on. Where
    there is ``t10k`` alone, 8,000 of it are learned from and the others are tested on. They are dealt out at random,
    the same way each time.

    Raises
    ------
    FileError
        Where they are not there, damaged, or do not go together.
    """
    images, labels = _pair(source, "t10k")
    if find_idx(source, "train-images-idx3-ubyte") is not None:
        test, test_labels = images, labels
        images, labels = _pair(source, "train")
    order = np.random.default_rng(0).permutation(len(images))
    images, labels = images[order], labels[order]
    if find_idx(source, "train-images-idx3-ubyte") is None:
        test, test_labels = images[UNLABELLED:], labels[UNLABELLED:]
    if len(images) < UNLABELLED or not len(test) or test.shape[1:] != images.shape[1:]:
        raise FileError(f"the files in {source} hold too few images, or images of two sizes; take those of MNIST")
    images, labels = images[:UNLABELLED], labels[:UNLABELLED]
    return Digits(_values(images), torch.from_numpy(labels), _values(test), torch.from_numpy(test_labels))


def measure(
    digits: Digits,
    settings: Settings,
    labels: Sequence[int],
    seed: int,
    *,
    note: str = "",
    show: Show | None = None,
) -> dict[str, list[float]]:
    """Return errors on the test in percent, by beginning, for each number of labels."""
    errors: dict[str, list[float]] = {}
    order = torch.randperm(len(digits.images), generator=seeded(seed))
    for name in BEGINNINGS:
        generator = seeded(seed)
        layers = fresh_layers((digits.images.shape[1], *settings.widths, 10), generator)
        if name != "random":
            erased = settings.erased if name == "denoising" else 0.0
            pretrain(layers[:-1], digits.images, erased, settings, generator, note=f"{note}, {name}", show=show)
        errors[name] = []
        for count in labels:
            some = order[:count]
            tuned = fine_tune(layers, digits.images[some], digits.labels[some], settings, seeded(seed))
            errors[name].append(error_rate(tuned, digits.test_images, digits.test_labels))
    return errors


def fresh_layers(sizes: Sequence[int], generator: torch.Generator) -> list[Layer]:
    """Return layers of random weights, uniform with the variance 2 / inputs, and no biases.

    He, Zhang, Ren and Sun, "Delving deep into rectifiers", 2015.
    """
    layers = []
    for inputs, outputs in pairwise(sizes):
        reach = (6 / inputs) ** 0.5
        layers.append(((2 * torch.rand(outputs, inputs, generator=generator) - 1) * reach, torch.zeros(outputs)))
    return layers


def pretrain(
    layers: Sequence[Layer],
    images: Tensor,
    erased: float,
    settings: Settings,
    generator: torch.Generator,
    *,
    note: str = "",
    show: Show | None = None,
) -> None:
    """Train layers in place, from the lowest up, to restore what comes from below; labels have no part in it."""
    below = images
    for number, layer in enumerate(layers):
        pretrain_layer(layer, below, erased, settings, generator, lowest=number == 0, note=note, show=show)
        below = forward([layer], below)


def pretrain_layer(
    layer: Layer,
    below: Tensor,
    erased: float,
    settings: Settings,
    generator: torch.Generator,
    *,
    lowest: bool = True,
    note: str = "",
    show: Show | None = None,
) -> Tensor:
    """Train one layer in place as an autoencoder with its own weights transposed on the way back.

    Returns
    -------
    Tensor
        The biases of the way back, which nobody needs any more.
    """
    weight, bias = layer
    back = torch.zeros(weight.shape[1])
    batches = Batches(len(below), settings.batch, generator)

    def loss(_: int) -> Tensor:
        clean = below[batches.next()]
        seen = clean * (torch.rand(clean.shape, generator=generator) >= erased) if erased else clean
        answer = functional.linear(forward([layer], seen), weight.T, back)
        if lowest:
            return functional.binary_cross_entropy_with_logits(answer, clean, reduction="sum") / len(clean)
        return (answer - clean).square().sum() / len(clean)

    parameters = [weight, bias, back]
    for parameter in parameters:
        parameter.requires_grad_()
    steps = settings.epochs * -(-len(below) // settings.batch)
    descend(parameters, loss, steps, settings.rate, note, show)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return back


def fine_tune(
    layers: Sequence[Layer], images: Tensor, labels: Tensor, settings: Settings, generator: torch.Generator
) -> list[Layer]:
    """Return layers that were trained on labels, all of them, from these on; these stay as they are."""
    tuned = [(weight.clone().requires_grad_(), bias.clone().requires_grad_()) for weight, bias in layers]
    batches = Batches(len(images), settings.label_batch, generator)

    def loss(_: int) -> Tensor:
        some = batches.next()
        return functional.cross_entropy(logits(tuned, images[some]), labels[some])

    descend([part for layer in tuned for part in layer], loss, settings.steps, settings.label_rate)
    return [(weight.detach(), bias.detach()) for weight, bias in tuned]


def forward(layers: Sequence[Layer], images: Tensor) -> Tensor:
    """Return what layers make of images: relu(W x + b), one after the other."""
    for weight, bias in layers:
        images = functional.linear(images, weight, bias).relu()
    return images


def logits(layers: Sequence[Layer], images: Tensor) -> Tensor:
    """Return ten numbers an image, of which the largest is the answer."""
    return functional.linear(forward(layers[:-1], images), *layers[-1])


def error_rate(layers: Sequence[Layer], images: Tensor, labels: Tensor) -> float:
    """Return how many answers are wrong, in percent."""
    return 100 * float((logits(layers, images).argmax(1) != labels).float().mean())


class Batches:
    """Places of a batch, one batch after the other: all in a random order, then all in another."""

    def __init__(self, count: int, batch: int, generator: torch.Generator) -> None:
        self.count, self.batch, self.generator = count, batch, generator
        self.left: list[Tensor] = []

    def next(self) -> Tensor:
        """Return the places of the next batch."""
        if not self.left:
            self.left = list(torch.split(torch.randperm(self.count, generator=self.generator), self.batch))
        return self.left.pop()


def _pair(source: Path, part: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return images ``(image, height, width)`` and their labels."""
    names = (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
    paths = [find_idx(source, name) for name in names]
    for name, path in zip(names, paths, strict=True):
        if path is None:
            raise FileError(f"there is no {name} or {name}.gz in {source}; give a folder with the files of MNIST")
    images, labels = (read_idx(path) for path in paths if path is not None)
    fits = (
        images.ndim == 3
        and images.shape[1] == images.shape[2]
        and labels.shape == images.shape[:1]
        and {images.dtype, labels.dtype} == {np.dtype("u1")}
    )
    if not fits or not len(labels) or int(labels.max()) > 9:
        raise FileError(f"{names[0]} and {names[1]} in {source} do not go together; take both from one copy of MNIST")
    return images, labels.astype(np.int64)


def _values(images: NDArray[np.uint8]) -> Tensor:
    return as_tensor(images.reshape(len(images), -1).astype(np.float32) / np.float32(255))


def _summary(trials: Sequence[dict[str, list[float]]], labels: Sequence[int]) -> list[dict[str, Any]]:
    """Return mean and standard error over trials, a row for each number of labels."""
    rows = []
    for place, count in enumerate(labels):
        row: dict[str, Any] = {"labels": count}
        for name in BEGINNINGS:
            values = np.array([trial[name][place] for trial in trials])
            error = values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 0.0
            row[name] = {"error": float(values.mean()), "standard_error": float(error), "all": values.tolist()}
        rows.append(row)
    return rows


# --- the picture ------------------------------------------------------------------------------------------------------


def draw_picture(errors: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw errors by the number of labels; and, seed by seed, what is gained over random layers."""
    with pictures.picture(path, 1, 2, (8.6, 4.0)) as axes:
        (means, gains) = axes[0]
        places = list(range(len(errors)))
        for number, (name, colour) in enumerate(BEGINNINGS.items()):
            at = [place + 0.08 * (number - 1) for place in places]
            middle, spans = ([row[name][key] for row in errors] for key in ("error", "standard_error"))
            means.errorbar(at, middle, spans, color=colour, marker="o", markersize=4, capsize=3, label=name)
            if name == "random":
                continue
            for place, row in zip(at, errors, strict=True):
                pairs = zip(row[name]["all"], row["random"]["all"], strict=True)
                gained = [of_random - of_name for of_name, of_random in pairs]
                gains.scatter([place] * len(gained), gained, s=22, color=colour, alpha=0.7, linewidths=0)
        gains.axhline(0, color=BEGINNINGS["random"], linewidth=1)
        for panel in (means, gains):
            pictures.framed(panel).set_xticks(places, [str(row["labels"]) for row in errors])
            panel.set(xlabel="labels", xlim=(-0.4, len(errors) - 0.6))
        means.set(ylim=(0, None))
        means.legend(frameon=False, fontsize=9, labelcolor="linecolor", title="layers begin", title_fontsize=9)
        pictures.title(means, "Wrong answers, in %", "mean over seeds, bars: one standard error")
        pictures.title(gains, "Fewer than from random layers", "in % of all answers, a dot a seed")
