"""`unperturb demo missing`: to copy is not to restore.

A plain and a denoising autoencoder, each with the bottleneck that serves it best, are asked for what was erased from
images that neither has seen: single components, or one block. The plain one may copy perfectly and know nothing of how
components depend on each other; the wider its bottleneck, the better it copies the holes too. Filling in each component's
mean is what one has without any network.

The denoising one answers with the mean of all that could have been there. Where that is much, the mean is a blur, and
draws of a conditional denoiser stand beside it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unperturb.app.lab import pictures
from unperturb.app.lab.autoencoders import (
    KINDS,
    RATES,
    TRAINING,
    Autoencoder,
    Training,
    erase,
    erasures,
    error_on_erased,
    seeded,
    train_autoencoder,
)
from unperturb.app.lab.blur import IMAGE_SETS, gradient_energy
from unperturb.app.lab.images import ImageSet
from unperturb.app.lab.learn import Show, learn
from unperturb.infer.posterior import Posterior, blind_posterior
from unperturb.infer.sample import sample
from unperturb.model.denoiser import Denoiser

WIDTHS = (4, 16, 64)
"""Bottlenecks to choose from."""

MIDDLE = 0.5
"""Half way from black to white."""

DRAWS = 3
"""Draws of each image."""

SHOWN = (("single", 0.5), ("single", 0.9), ("block", 0.3), ("block", 0.5), ("block", 0.9))
"""What the examples in the picture lack, a row each."""

NAMES = {"mean": "Mean of the set", "plain": "Plain", "denoising": "Denoising"}
COLOURS = {"mean": pictures.CLEAN, "plain": pictures.NOISY, "denoising": pictures.MEAN}


@dataclass(frozen=True, eq=False)
class Comparison:
    """What both autoencoders make of the images held out, and draws beside them.

    Attributes
    ----------
    images
        The set.
    plain, denoising
        Each with the bottleneck that restored best on the images of validation.
    widths
        Errors on these, by bottleneck: of copying what is whole, and on what was erased.
    drawing
        The conditional denoiser that draws.
    seed
        Of training and of what is erased.
    seconds
        Of it all.
    """

    images: ImageSet
    plain: Autoencoder
    denoising: Autoencoder
    widths: list[dict[str, Any]]
    drawing: Denoiser
    seed: int
    seconds: float

    def figures(self) -> dict[str, Any]:
        """Return errors by kind and rate, the bottlenecks and their errors, and what draws keep of the gradients."""
        return {
            "plain_width": self.plain.width,
            "denoising_width": self.denoising.width,
            "widths": self.widths,
            "errors": self._errors(),
            "draws": [self._of_draws(kind, rate) for kind, rate in SHOWN],
            "seconds": self.seconds,
        }

    def restored(self, seen: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Return the answers by name."""
        mean = torch.where(mask, seen, self.plain.centre)
        return {"mean": mean, "plain": self.plain.restore(seen, mask), "denoising": self.denoising.restore(seen, mask)}

    def _errors(self) -> list[dict[str, Any]]:
        clean = self.images.held_out.repeat(TRAINING[self.images.name].repeats, 1, 1, 1)
        rows = []
        for kind, rate, mask in erasures(clean, self.seed + 1):
            answers = self.restored(clean * mask, mask)
            errors = {name: error_on_erased(answer, clean, mask) for name, answer in answers.items()}
            rows.append({"kind": kind, "rate": rate, "erased": 1 - float(mask.float().mean()), **errors})
        return rows

    def _of_draws(self, kind: str, rate: float) -> dict[str, Any]:
        """Return errors and gradients, relative to those of clean images, of the mean and of draws."""
        clean = self.images.held_out[:60]
        mask = erase(clean, kind, rate, seeded(self.seed + 2))
        posterior = posterior_of(self.drawing, clean * mask, mask)
        draws = sample(posterior, DRAWS, seed=self.seed)
        mse, of_draws = (error_on_erased(answer, clean, mask) for answer in (posterior.mean, draws))
        energy = gradient_energy(clean)
        return {
            "kind": kind,
            "rate": rate,
            "mean_error": mse,
            "draw_error_over_mean_error": of_draws / mse,
            "mean_gradients": gradient_energy(posterior.mean) / energy,
            "denoising_gradients": gradient_energy(self.denoising.restore(clean * mask, mask)) / energy,
            "draw_gradients": gradient_energy(draws) / energy,
        }


def run_missing(
    folder: Path,
    names: Sequence[str] = tuple(IMAGE_SETS),
    *,
    steps: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    show: Show | None = None,
) -> dict[str, Any]:
    """Train on image sets, and write two pictures of each: ``missing_<set>.png`` and ``missing_<set>_errors.png``.

    Parameters
    ----------
    folder
        Is made where it is missing.
    names
        Of the image sets.
    steps
        Of training, of every network, where not the set's own.
    seed
        Of training, of what is erased, and of draws.
    overwrite
        Whether pictures may be replaced.
    show
        For progress.

    Returns
    -------
    dict
        "sets": what was measured, by set; "pictures"; "seconds" of all.

    Raises
    ------
    UnperturbError
        Where a picture is there already, or a package of the extra is missing.
    """
    pictures.need("matplotlib", "sklearn")
    paths = {name: [folder / f"missing_{name}.png", folder / f"missing_{name}_errors.png"] for name in names}
    pictures.prepare([path for pair in paths.values() for path in pair], overwrite=overwrite)
    begin = time.perf_counter()
    told: dict[str, Any] = {"sets": {}, "pictures": [str(path) for pair in paths.values() for path in pair]}
    for name, (examples, errors) in paths.items():
        comparison = compare(IMAGE_SETS[name](), widths=WIDTHS, steps=steps, seed=seed, show=show)
        told["sets"][name] = comparison.figures()
        draw_examples(comparison, examples)
        draw_errors(told["sets"][name], name, errors)
    return {**told, "seconds": time.perf_counter() - begin}


def compare(
    images: ImageSet,
    *,
    widths: Sequence[int] = WIDTHS,
    steps: int | None = None,
    seed: int = 0,
    show: Show | None = None,
) -> Comparison:
    """Train both autoencoders with every bottleneck, keep the one of each that restores best, and one that draws."""
    begin = time.perf_counter()
    training = TRAINING[images.name]
    training = training if steps is None else training._replace(steps=steps, drawing_steps=steps)
    part = replace(images, train=images.train[training.validation :], held_out=images.train[: training.validation])
    rows: list[dict[str, Any]] = []
    networks: dict[int, tuple[Autoencoder, Autoencoder]] = {}
    for width in widths:
        plain, denoising = (
            train_autoencoder(part, training, width, denoising=kind, seed=seed, show=show) for kind in (False, True)
        )
        networks[width] = (plain, denoising)
        rows.append({"width": width, **_on_validation(part.held_out, plain, denoising, training.repeats)})
    best = [min(rows, key=lambda row: row[name])["width"] for name in ("plain", "denoising")]
    drawing = train_drawing(images, training, seed=seed, show=show)
    kept = networks[best[0]][0], networks[best[1]][1]
    return Comparison(images, *kept, rows, drawing, seed, time.perf_counter() - begin)


def train_drawing(images: ImageSet, training: Training, *, seed: int = 0, show: Show | None = None) -> Denoiser:
    """Train the conditional denoiser that draws: φ(x_σ, σ, x̃), a convolutional network.

    It measures noise against the size of what it is shown, so black must not be 0: it works in values from `MIDDLE`.
    """
    perturb = f"erase:fraction=0.05..0.95 | block:size={training.blocks},count=1"
    settings = replace(images.settings, perturb=perturb, steps=training.drawing_steps, seed=seed, data=images.name)
    learned = learn(settings, lambda *item: images.draw(*item) - MIDDLE, f"{images.name}, draws", show)
    return learned.denoiser.with_card(offset=MIDDLE)


def posterior_of(denoiser: Denoiser, seen: Tensor, mask: Tensor) -> Posterior:
    """Return what can be known of images of which a part is seen."""
    return blind_posterior(denoiser.given(seen, mask, 0.0))


def _on_validation(clean: Tensor, plain: Autoencoder, denoising: Autoencoder, repeats: int) -> dict[str, float]:
    """Return the error of copying, and that on what was erased, on average over kinds and rates."""
    whole = torch.ones_like(clean, dtype=torch.bool)
    with torch.no_grad():
        told = {"copy": float((plain(clean, whole) - clean).square().mean())}
    clean = clean.repeat(repeats, 1, 1, 1)
    masks = [mask for _, _, mask in erasures(clean, seed=0)]
    for name, network in (("plain", plain), ("denoising", denoising)):
        errors = [error_on_erased(network.restore(clean * mask, mask), clean, mask) for mask in masks]
        told[name] = sum(errors) / len(errors)
    return told


# --- the pictures -----------------------------------------------------------------------------------------------------


def draw_examples(comparison: Comparison, path: Path) -> None:
    """Draw a row an image: clean, what is seen of it, both answers, and draws."""
    images, rows = comparison.images, len(SHOWN)
    columns = ["Clean", "Seen", "Plain", "Denoising", "Draws", "", ""]
    colours = [pictures.INK, pictures.INK, COLOURS["plain"], COLOURS["denoising"], *[pictures.DRAW] * DRAWS]
    with pictures.picture(path, rows, len(columns), (1.62 * len(columns), 1.62 * rows + 0.9)) as axes:
        for row, (index, (kind, rate)) in enumerate(zip(_different(images, rows), SHOWN, strict=True)):
            clean = images.held_out[index : index + 1]
            mask = erase(clean, kind, rate, seeded(comparison.seed + 3 + row))
            answers = comparison.restored(clean * mask, mask)
            posterior = posterior_of(comparison.drawing, clean * mask, mask)
            draws = sample(posterior, DRAWS, seed=comparison.seed)[:, 0, 0]
            shown = [clean[0, 0], _tinted(clean * mask, mask), answers["plain"][0, 0], answers["denoising"][0, 0]]
            for column, image in enumerate([*shown, *draws]):
                pictures.gray(axes[row, column], image)
            axes[row, 0].set_ylabel(f"{kind}, {100 * rate:.0f} %", fontsize=9, color=pictures.FAINT)
        for panel, name, colour in zip(axes[0], columns, colours, strict=True):
            pictures.title(panel, name, " ", colour)


def draw_errors(figures: dict[str, Any], name: str, path: Path) -> None:
    """Draw the error on what was erased by its share, of both kinds; and by the width of the bottleneck."""
    with pictures.picture(path, 1, 3, (12.4, 3.9)) as axes:
        top = 1.1 * max(row[key] for row in figures["errors"] for key in NAMES)
        for panel, kind in zip(axes[0], KINDS, strict=False):
            rows = [row for row in figures["errors"] if row["kind"] == kind]
            pictures.framed(panel).set(ylim=(0, top), xlabel="% erased", xticks=[100 * rate for rate in RATES])
            for key, label in NAMES.items():
                line = [row[key] for row in rows]
                panel.plot(
                    [100 * rate for rate in RATES], line, color=COLOURS[key], marker="o", markersize=4, label=label
                )
            what = "single components" if kind == "single" else "one block"
            pictures.title(panel, f"{name.capitalize()}: {what} erased", "squared error on what was erased")
        axes[0, 0].legend(frameon=False, fontsize=9, labelcolor="linecolor", loc="lower right")
        _draw_widths(axes[0, 2], figures["widths"])


def _draw_widths(panel: Any, widths: list[dict[str, Any]]) -> None:
    """Draw what a wider bottleneck does for copying and for restoring."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    pictures.framed(panel).set(xscale="log", yscale="log", xlabel="bottleneck")
    at = [row["width"] for row in widths]
    lines = (
        ("copy", "plain, copying", COLOURS["plain"], "--"),
        ("plain", "plain, restoring", COLOURS["plain"], "-"),
        ("denoising", "denoising, restoring", COLOURS["denoising"], "-"),
    )
    for key, label, colour, style in lines:
        panel.plot(at, [row[key] for row in widths], style, color=colour, marker="o", markersize=4, label=label)
    panel.set_xticks(at, [str(width) for width in at])
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    panel.minorticks_off()
    panel.legend(frameon=False, fontsize=9, labelcolor="linecolor")
    pictures.title(panel, "Copying is not restoring", "squared error on images of validation")


def _tinted(seen: Tensor, mask: Tensor) -> Tensor:
    """Return what is seen as a picture in colour, ``(height, width, 3)``, erased places in a tint of their own."""
    tint = torch.tensor([0.98, 0.80, 0.55])
    return torch.where(mask[0, 0, ..., None], seen[0, 0, ..., None], tint)


def _different(images: ImageSet, count: int) -> list[int]:
    """Return which images to show: of labels as different as may be, where there are labels."""
    labels = images.held_out_labels.tolist()
    firsts = [index for index, label in enumerate(labels) if label not in labels[:index]] if labels else []
    return [*firsts, *(index for index in range(len(images.held_out)) if index not in firsts)][:count]
