"""Autoencoders of two kinds, in small: one learns to copy images, one to restore what was erased from them.

Both are multilayer perceptrons with a bottleneck, and both are trained with squared error:

    plain       φ = argmin Σ_n ‖ x_n − φ(x_n) ‖²          it sees the image
    denoising   φ = argmin Σ_n ‖ x_n − φ(x̃_n) ‖²         components of x̃_n are erased, and it is told which

(Vincent, Larochelle, Bengio and Manzagol, "Extracting and composing robust features with denoising autoencoders", 2008).
The denoising one sees single components erased in half of the images, and a block in the others.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unperturb.app.lab.images import ImageSet
from unperturb.app.lab.learn import Show
from unperturb.model.perturbation import Perturbation
from unperturb.model.spec import parse

RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the components that are erased."""

KINDS = ("single", "block")

HIDDEN, BATCH = 256, 64
"""Units of the layer before the bottleneck and of the one behind it; images a step."""


class Training(NamedTuple):
    """How to train on one set; chosen on images that are neither learned from nor measured on.

    Attributes
    ----------
    validation
        Images for that, the first of those to learn from.
    steps, rate
        Of the two autoencoders.
    shift
        Pixels by which images are moved about while they are learned from: there are few faces.
    repeats
        Times that an image is measured on, each with other components erased.
    blocks
        Sizes of the blocks that are trained with.
    drawing_steps
        Of the denoiser that draws.
    """

    validation: int
    steps: int
    rate: float
    shift: int
    repeats: int
    blocks: str
    drawing_steps: int


TRAINING = {
    "digits": Training(300, 2000, 2e-3, 0, 1, "3..8", 1000),
    "faces": Training(20, 1500, 1e-3, 2, 5, "8..25", 800),
}


class Autoencoder(nn.Module):
    """A multilayer perceptron with a bottleneck, from images to images of the same size.

    Parameters
    ----------
    centre
        ``(1, height, width)``: the mean image. What is erased is 0 from there, so that it counts as the mean.
    width
        Of the bottleneck.
    told
        Whether it sees the mask as well.
    """

    def __init__(self, centre: Tensor, width: int, *, told: bool) -> None:
        super().__init__()
        self.width, self.told = width, told
        self.centre: Tensor
        self.register_buffer("centre", centre)
        features = centre.numel()
        self.layers = nn.Sequential(
            nn.Linear(features * (2 if told else 1), HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, width),
            nn.SiLU(),
            nn.Linear(width, HIDDEN),
            nn.SiLU(),
            nn.Linear(HIDDEN, features),
        )

    def forward(self, seen: Tensor, mask: Tensor) -> Tensor:
        """Return the whole image, ``(image, 1, height, width)``; `mask` is boolean, True where `seen` counts."""
        known = (seen - self.centre).masked_fill(~mask, 0).flatten(1)
        asked = torch.cat([known, mask.flatten(1).to(known)], 1) if self.told else known
        return self.centre + self.layers(asked).view(seen.shape)

    @torch.no_grad()
    def restore(self, seen: Tensor, mask: Tensor) -> Tensor:
        """Return images whose erased components are filled in; the others stay as they are."""
        return torch.where(mask, seen, self(seen, mask))


def train_autoencoder(
    images: ImageSet, training: Training, width: int, *, denoising: bool, seed: int = 0, show: Show | None = None
) -> Autoencoder:
    """Train one autoencoder: to copy, or, `denoising`, to restore what is erased in half of the batch singly."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Autoencoder(images.train.mean(0), width, told=denoising)
    generator = seeded(seed)
    singles, blocks = parse("erase:fraction=0.05..0.95"), parse(f"block:size={training.blocks},count=1")

    def loss(_: int) -> Tensor:
        clean = _batch(images, training.shift, generator)
        mask = _masks(clean, (singles, blocks), generator) if denoising else torch.ones_like(clean, dtype=torch.bool)
        return (network(clean, mask) - clean).square().mean()

    note = f"{images.name}, {'denoising' if denoising else 'plain'}, bottleneck {width}"
    descend(list(network.parameters()), loss, training.steps, training.rate, note, show)
    return network.requires_grad_(False)


def descend(
    parameters: Sequence[Tensor],
    loss: Callable[[int], Tensor],
    steps: int,
    rate: float,
    note: str = "",
    show: Show | None = None,
) -> None:
    """Make ``loss(step)`` small in place, by Adam; the rate falls linearly to zero over the second half."""
    optimizer = torch.optim.Adam(parameters, rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1.0, 2 * (steps - step) / steps)
        optimizer.zero_grad()
        loss(step).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if show is not None:
            show(step + 1, steps, note)


# --- what is erased ---------------------------------------------------------------------------------------------------


def erase(clean: Tensor, kind: str, rate: float, generator: torch.Generator) -> Tensor:
    """Return a mask for each image, True where observed: single components are erased, or one block anywhere within.

    Parameters
    ----------
    clean
        ``(image, 1, height, width)``.
    kind
        Of `KINDS`.
    rate
        Share of the components. That of a block is the nearest to it of a rectangle that is not long and thin.
    generator
        The source of all randomness.
    """
    count, _, height, width = clean.shape
    if kind == "single":
        order = torch.rand(count, height * width, generator=generator).argsort(1).argsort(1)
        return (order >= round(rate * height * width)).view(count, 1, height, width)
    sides = block_sides(rate, height, width)
    mask = torch.ones(count, 1, height, width, dtype=torch.bool)
    for index in range(count):
        tall, wide = sides if torch.rand((), generator=generator) < 0.5 else sides[::-1]
        top, left = (
            int(torch.randint(length - side + 1, (), generator=generator))
            for length, side in ((height, tall), (width, wide))
        )
        mask[index, :, top : top + tall, left : left + wide] = False
    return mask


def block_sides(rate: float, height: int, width: int) -> tuple[int, int]:
    """Return sides of a rectangle that covers about a share of an image and lies in it either way round."""
    most = min(height, width)
    pairs = [(tall, wide) for tall in range(1, most + 1) for wide in range(tall, min(most, 2 * tall) + 1)]
    return min(pairs, key=lambda pair: (abs(pair[0] * pair[1] - rate * height * width), pair[1] - pair[0]))


def erasures(clean: Tensor, seed: int) -> list[tuple[str, float, Tensor]]:
    """Return kinds, rates and masks, all for the same images."""
    generator = seeded(seed)
    return [(kind, rate, erase(clean, kind, rate, generator)) for kind in KINDS for rate in RATES]


def error_on_erased(answer: Tensor, clean: Tensor, mask: Tensor) -> float:
    """Return the mean squared error over the components that were erased; of draws, ``(draw, image, …)``, over all."""
    erased = (~mask).expand(answer.shape)
    return float((answer - clean).square()[erased].mean())


def seeded(seed: int) -> torch.Generator:
    """Return a generator of random numbers of its own."""
    return torch.Generator().manual_seed(seed)


def _batch(images: ImageSet, shift: int, generator: torch.Generator) -> Tensor:
    """Return images to learn from, moved about together and mirrored one by one where that is as good."""
    clean = images.train[torch.randint(len(images.train), (BATCH,), generator=generator)]
    if shift:
        height, width = clean.shape[2:]
        top, left = torch.randint(2 * shift + 1, (2,), generator=generator).tolist()
        wider = nn.functional.pad(clean, (shift,) * 4, mode="replicate")
        clean = wider[:, :, top : top + height, left : left + width]
    if images.mirrored:
        flip = torch.rand(len(clean), 1, 1, 1, generator=generator) < 0.5
        clean = torch.where(flip, clean.flip(-1), clean)
    return clean


def _masks(clean: Tensor, perturbations: Sequence[Perturbation], generator: torch.Generator) -> Tensor:
    """Return a mask for each image, equal parts by each perturbation."""
    masks = []
    for perturb, part in zip(perturbations, clean.chunk(len(perturbations)), strict=True):
        mask = perturb(part, generator).mask
        assert mask is not None
        masks.append(mask)
    return torch.cat(masks)
