"""Findings in words and pictures: the verdict, and the sections of the report."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.app.findings import Findings
from unperturb.app.pictures import Window, most_uncertain, shown_range
from unperturb.app.report import Section, curve, figure, flip, page, preformatted, row, table
from unperturb.infer.density import Density
from unperturb.infer.places import Place

STEPS = (-2.0, -1.0, 0.0, 1.0, 2.0)
"""Where along a direction pictures are shown, in standard deviations."""

CONTEXT = 16
"""Pixels shown around a place."""


def told_page(found: Findings, name: str) -> str:
    """Return the report as HTML."""
    height, width = found.best.shape[:2]
    stack = (
        "" if not found.recording.stack_shape else f", the first of {int(np.prod(found.recording.stack_shape))} planes"
    )
    about = f"{name}, {width} × {height} pixels{stack}; model {found.settings['model'] or 'without a name'}"
    sections = [_pictures(found), _draws(found), _places(found), _directions(found), _residual(found), _made(found)]
    return page("What is known, and what is open", about, verdict(found), sections)


def verdict(found: Findings) -> list[str]:
    """Return what a reader should take away, in a few sentences."""
    told = [_noise_sentence(found), _interval_sentence(found), _modes_sentence(found)]
    if found.caveat is not None:
        told.insert(0, f"Beware: all of this is {found.caveat}.")
    if found.region is not None and found.region_mean is not None:
        told.append(_region_sentence(found))
    told.append(_residual_sentence(found))
    return told


def _noise_sentence(found: Findings) -> str:
    if found.sigma is None:
        return _perturbed_sentence(found)
    how = "estimated" if found.estimated else "as given"
    left = float(np.sqrt(np.square(found.spread).mean())) * found.scale
    return (
        f"The noise has a standard deviation of {found.sigma:.3g} {found.unit} ({how}); "
        f"of that, {left:.2g} are left in the best guess."
    )


def _perturbed_sentence(found: Findings) -> str:
    """Tell of an observation whose noise is not what it is about."""
    left = f"{float(np.sqrt(np.square(found.spread).mean())) * found.scale:.2g} {found.unit}"
    if found.missing is None:
        return f"The best guess is uncertain by {left} (standard deviation)."
    hidden = found.spread[found.spread > 0]
    left = f"{float(np.sqrt(np.square(hidden).mean())) * found.scale:.2g} {found.unit}" if hidden.size else "nothing"
    return (
        f"{100 * found.missing:.3g} % of the pixels are missing; what is filled in is uncertain by {left} (standard "
        "deviation), and the other pixels are as they were."
    )


def _interval_sentence(found: Findings) -> str:
    if found.half is None or found.calibration is None:
        return (
            "How far the truth may lie from the best guess is the model's own opinion: it is not calibrated for draws "
            "made this way. `unperturb calibrate` measures it on images of your own."
        )
    known = found.calibration
    half = found.half[found.half > 0] * found.scale if (found.half > 0).any() else found.half * found.scale
    beyond = "" if found.in_range else " The noise here is outside of what was calibrated, so take this with caution."
    return (
        f"{100 * known.level:.0f} % of the true values lie within ± {half.mean():.2g} {found.unit} of the best guess on "
        f"average, ± {np.quantile(half, 0.99):.2g} where it is least certain (calibrated on {known.n_images} images: "
        f"{known.data}).{beyond}"
    )


def _modes_sentence(found: Findings) -> str:
    several = found.open_places
    number = len(found.places)
    where = "with the whole looked at" if number == 1 else f"with the {number} most uncertain places looked at"
    if not several:
        return f"There is one most likely answer, of which details are open: {where}, no second one was found."
    places = "; ".join(f"at {place.window[1].start}, {place.window[0].start}" for place in several)
    if number == 1:
        return (
            "The answer is open: there is more than one likely answer, and the best guess is an average of them that may "
            "be like none. Look at the draws."
        )
    return (
        f"The answer is open in {len(several)} of the {number} most uncertain places ({places}): there is more than one "
        "likely answer there, and the best guess is an average of them that may be like none. Look at the draws."
    )


def _region_sentence(found: Findings) -> str:
    assert found.region_mean is not None
    best = ", ".join(f"{value * found.scale:.4g}" for value in found.region_mean.best)
    if found.region_mean.half is None:
        return f"The mean over the region {found.region} is {best} {found.unit}; the model is not calibrated for it."
    half = ", ".join(f"{value * found.scale:.2g}" for value in found.region_mean.half)
    level = "" if found.calibration is None else f" at {100 * found.calibration.level:.0f} %"
    return f"The mean over the region {found.region} is {best} ± {half} {found.unit}{level}."


def _residual_sentence(found: Findings) -> str:
    seen = found.residual
    if seen is None and found.sigma is None:
        return "Whether the model fits what was seen is not checked here: that takes noise of a known level."
    if seen is None:
        return (
            "Whether the noise is what was assumed cannot be told here: nothing but clipped values is left to compare."
        )
    faults = []
    if not seen.is_white:
        faults.append(
            f"is not white (neighbours correlate by {max(seen.neighbours, key=abs):+.2f}), as it is in photographs that a "
            "camera has processed (for which there is --model photo)"
        )
    if not seen.fits_level:
        faults.append(f"has {seen.variance:.2f} times the power that was assumed")
    if not faults:
        return "What was taken away looks like the noise that was assumed: white, and of the right strength."
    return f"Beware: what was taken away {' and '.join(faults)}, so that everything here rests on a wrong assumption."


# --- sections ---------------------------------------------------------------------------------------------------------


def _pictures(found: Findings) -> Section:
    window = _whole_or_widest(found)
    flat = found.spread if found.spread.ndim == 2 else found.spread.mean(-1)
    high = float(np.quantile(flat, 0.999))
    shown = [
        figure(window.show(found.noisy), "What was seen"),
        figure(window.show(found.best), "The best guess: the mean of all that it could be"),
        figure(
            window.show_map(flat, high),
            f"Standard deviation: black is 0, bright is {high * found.scale:.2g} {found.unit}",
        ),
    ]
    return Section("What was seen, the best guess, and where not to trust it", _which(found, window), shown)


def _draws(found: Findings) -> Section:
    window = _whole_or_widest(found)
    pictures = [(f"draw {number + 1}", window.show(draw)) for number, draw in enumerate(found.draws)]
    words = (
        "Each draw is as likely as any other to be the truth, given what was seen. They agree where the answer is "
        "settled and differ where it is not; each is as sharp as a clean image, which the best guess is not."
    )
    leaf = flip(
        [("best guess", window.show(found.best)), *pictures], "Leaf through: the best guess first, then the draws."
    )
    return Section("What else it could have been", words, [leaf, *(figure(draw, name) for name, draw in pictures[:3])])


def _places(found: Findings) -> Section:
    words = (
        "The windows with the largest variance, each with the posterior along the direction in which it is widest. Two "
        "peaks are two answers: the pictures show each of them. One peak is one answer, and the slider shows its spread."
    )
    shown = []
    for number, place in enumerate(sorted(found.places, key=lambda place: not place.is_open)):
        shown.append(_place(found, place, number + 1))
    return Section("The most uncertain places", words, shown)


def _place(found: Findings, place: Place, number: int) -> str:
    widest = max(range(len(place.densities)), key=lambda index: (len(place.densities[index].modes), -index))
    density, direction = place.densities[widest], place.components.directions[widest]
    sd = float(place.components.variances[widest]) ** 0.5
    window = _around(found, place.window)
    if len(density.modes) > 1:
        offsets = [(f"answer {chr(65 + index)}", mode) for index, mode in enumerate(density.modes)]
    else:
        offsets = [(f"{step:+g} standard deviations", step * sd) for step in STEPS]
    frames = [(words, window.show(_moved(found, place.window, direction, offset))) for words, offset in offsets]
    name = f"Place {number}, at {place.window[1].start}, {place.window[0].start}"
    peaks = "one peak" if len(density.modes) < 2 else f"{len(density.modes)} peaks"
    return row(
        [
            figure(window.show(found.noisy), f"{name}: what was seen"),
            figure(window.show(found.best), "Best guess"),
            flip(frames, f"along direction {widest + 1}", start=len(frames) // 2 if len(density.modes) < 2 else 0),
            _density(density, found.scale, f"The posterior along it: {peaks} ({found.unit} from the best guess)"),
        ]
    )


def _directions(found: Findings) -> Section:
    title = "Directions of the region" if found.region is not None else "Directions of the image as a whole"
    if found.components is None:
        return Section(
            title, "The image is too large for directions as a whole; its places are above, and --region asks for one."
        )
    words = (
        "The principal components of the posterior: what changes together, the widest first. The slider moves the best "
        "guess along each by so many standard deviations."
    )
    shown = []
    rows = [("direction", "standard deviation", "share of all variance", "residual")]
    made = found.components
    for index, direction in enumerate(made.directions):
        sd = float(made.variances[index]) ** 0.5
        window = _around_direction(found, direction)
        frames = [
            (f"{step:+g} standard deviations", window.show(_moved(found, found.window, direction, step * sd)))
            for step in STEPS
        ]
        shown.append(flip(frames, f"direction {index + 1}", start=len(STEPS) // 2))
        rows.append((
            str(index + 1), f"{sd * found.scale:.3g} {found.unit}", f"{100 * float(made.share[index]):.2g} %",
            f"{float(made.residuals[index]):.2g}",
        ))  # fmt: skip
    return Section(title, words, [*shown, table(rows)])


def _residual(found: Findings) -> Section:
    words = (
        "What was seen minus a draw, in units of the noise. If model and noise level are right this is white noise of "
        "strength 1, exactly. " + _residual_sentence(found)
    )
    if found.residual is None or found.sigma is None:
        return Section("What was taken away", _residual_sentence(found))
    gap = (found.noisy - found.draws[0]) / max(found.sigma / found.scale, 1e-12)
    window = _whole_or_widest(found, low=-3, high=3)
    axes = ", ".join(f"{value:+.3f}" for value in found.residual.neighbours)
    caption = f"Black is −3, white is +3. Variance {found.residual.variance:.3f}; neighbours correlate by {axes}."
    return Section("What was taken away", words, [figure(window.show(gap), caption)])


def _made(found: Findings) -> Section:
    return Section("How this was made", "", [preformatted(json.dumps(found.numbers(), indent=1))])


# --- pictures ---------------------------------------------------------------------------------------------------------


def _whole_or_widest(found: Findings, low: float | None = None, high: float | None = None) -> Window:
    black, white = shown_range(found.recording, np.stack(found.draws))
    return Window(*most_uncertain(found.spread), black if low is None else low, white if high is None else high)


def _which(found: Findings, window: Window) -> str:
    if (window.height, window.width) == found.best.shape[:2]:
        return ""
    return f"The part with the largest uncertainty, {window.width} × {window.height} pixels at {window.left}, {window.top}."


def _around(found: Findings, place: Sequence[slice]) -> Window:
    lows = [max(part.start - CONTEXT, 0) for part in place]
    highs = [min(part.stop + CONTEXT, length) for part, length in zip(place, found.best.shape[:2], strict=True)]
    size = [high - low for low, high in zip(lows, highs, strict=True)]
    return Window(lows[0], lows[1], size[0], size[1], *shown_range(found.recording, np.stack(found.draws)), least=240)


def _around_direction(found: Findings, direction: Tensor) -> Window:
    """Return the part of the image in which a direction is largest."""
    inside: NDArray[np.float32] = np.zeros(found.best.shape[:2], np.float32)
    inside[found.window] = direction.square().sum(0).numpy()
    return Window(*most_uncertain(inside, 192), *shown_range(found.recording, np.stack(found.draws)))


def _moved(found: Findings, window: tuple[slice, ...], direction: Tensor, offset: float) -> NDArray[np.float32]:
    """Return the best guess moved along a direction ``(channel, height, width)`` of a window."""
    change = (offset * direction.to(torch.float32)).numpy()
    moved = found.best.copy()
    moved[window] += change[0] if moved.ndim == 2 else np.moveaxis(change, 0, -1)
    return moved


def _density(density: Density, scale: float, caption: str) -> str:
    at = [float(value) * scale for value in density.at[::4]]
    heights = [float(value) for value in density.heights[::4]]
    return curve(at, heights, [mode * scale for mode in density.modes], caption)
