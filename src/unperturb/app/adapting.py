"""From the options of `unperturb fit --noisy` to a run: noise told or found, an objective that fits it, recordings."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unperturb.app.diagnosing import diagnose_files, noise_of, white_noise
from unperturb.app.shots import Shots, read_shots
from unperturb.errors import UsageError
from unperturb.infer.moved import SOME, place
from unperturb.infer.observe import observe
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import PRESETS, UNetSettings
from unperturb.model.perturbation import Gaussian, Perturbation
from unperturb.model.stabilise import counting, stabiliser
from unperturb.train.adapt import NoisyReport, learn_noisy
from unperturb.train.noisy import NOISY, check_noisy
from unperturb.train.recordings import Recordings
from unperturb.train.run import Habits, RunFiles
from unperturb.train.settings import FitSettings

Show = Callable[[int, int, str], None]

ADAPTING = {"steps": 120, "rate": 1e-3, "warmup": 5, "decay": 0.5, "average": 0.9, "validate": 10}
"""What is taken where an option is left out and there is a model to begin with: a few gains to tune, in minutes."""

SMOOTH = 3.0
"""Pixels over which the strength of the noise is taken to change."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What is learned by, and why.

    Attributes
    ----------
    noise
        What the recordings have.
    objective
        One of `unperturb.train.noisy`.
    shots
        What is learned from.
    told
        In words: the noise, the objective, and what is to be warned of.
    """

    noise: Perturbation
    objective: str
    shots: Shots
    told: tuple[str, ...]


def choose(
    data: tuple[Path, ...], again: tuple[Path, ...], shots: Shots, noise: str, objective: str, *, adapting: bool
) -> Choice:
    """Settle what noise there is and what to learn by.

    Parameters
    ----------
    data, again
        Noisy images, and second shots of the same, as many and in the same order, or none.
    shots
        What was read of them.
    noise
        A spec, or "auto": what the files say.
    objective
        One of `unperturb.train.noisy`, or "auto".
    adapting
        Whether there is a model to begin with.

    Raises
    ------
    UsageError
        Where the objective cannot work on such noise.
    """
    process, correlated, told = _noise(noise, data, again)
    shots = shots.looked_at(process, correlated=correlated)
    if objective == "auto":
        objective, why = _fitting(process, shots, adapting=adapting)
        told.append(f"objective: {objective}, as {why}")
    if objective not in NOISY:
        raise UsageError(f"of noisy data the objective is auto, {', '.join(NOISY)}; got {objective!r}")
    if objective == "noise2noise" and shots.apart and not shots.pairs:
        raise UsageError(f"{_apart(shots.apart)}: noise2noise would blur or keep it; leave the objective to auto")
    warning = check_noisy(objective, paired=bool(shots.pairs), correlated=correlated)
    if objective == "noise2noise" and shots.left_out:
        told.append(f"{shots.left_out} of {len(shots.firsts)} planes have no second shot, and are left out")
    if not (objective == "noise2noise" or shots.seconds):
        told.append(
            "from one shot the estimate is as good as what is known of the noise: compare with --noise before you keep "
            "the model"
        )
    return Choice(process, objective, shots, (*told, *([] if warning is None else [warning])))


def _noise(text: str, data: tuple[Path, ...], again: tuple[Path, ...]) -> tuple[Perturbation, bool, list[str]]:
    """Return the noise, told or found; whether neighbours have it in common; and what there is to say of it."""
    if text != "auto":
        process = noise_of(text)
        if isinstance(process, Gaussian) and process.sigma == 0:
            raise UsageError("noise of strength 0 is none: there is nothing to learn from")
        return process, False, []
    found = diagnose_files(data, again)
    if not found.noise.heard:
        raise UsageError("there is no more noise in these files than values are rounded to: nothing to learn from")
    return white_noise(found.noise), found.noise.correlated, [f"noise: {found.spec}, as found"]


def _fitting(noise: Perturbation, shots: Shots, *, adapting: bool) -> tuple[str, str]:
    """Return an objective that fits, and why."""
    if shots.pairs:
        still = "frames that follow each other show the same"
        return "noise2noise", still if shots.follow and not shots.seconds else "there are two shots of each"
    why = "there is one shot of each, with noise of known strength"
    if shots.apart:
        why = f"{_apart(shots.apart)}, and {why}"
    return "sure" if adapting and counting(noise) is None else "recorrupted", why


def _apart(share: float) -> str:
    return f"{share:.0%} of the frames that follow each other differ by more, or by less, than noise"


def run_noisy(
    data: tuple[Path, ...], output: Path, habits: Habits, options: dict[str, Any], given: set[str], show: Show
) -> dict[str, Any]:
    """Learn from noisy images, showing progress, and return what came of it.

    Parameters
    ----------
    data
        Files and folders.
    output
        The model file.
    habits
        How to go about it.
    options
        Those of `unperturb fit`.
    given
        Names of the options that a person has given.
    show
        Told steps done, all there are, and a note.

    Raises
    ------
    UnperturbError
        Where the request, the data or the training is wrong.
    """
    again = tuple(options["again"])
    start = load(options["start"]) if options["start"] else None
    if start is not None:
        options = {**options, **{name: value for name, value in ADAPTING.items() if name not in given}}
    shots = read_shots(data, again)
    choice = choose(data, again, shots, options["noise"], options["objective"], adapting=start is not None)
    for sentence in choice.told:
        show(0, 1, sentence)
    recordings = _recordings(choice, start or load("natural"))
    settings = _settings(recordings, choice, options, start)
    card = {
        "name": options["name"] or output.stem,
        "description": options["description"] or _described(recordings.count),
        "data": options["data_note"],
        "licence": options["licence"],
    }
    report: NoisyReport | None = None
    run = learn_noisy(
        settings, recordings, RunFiles(output), replace(habits, validate=options["validate"]),
        card=card, half=options["half"], weights=start, resume=options["resume"],
    )  # fmt: skip
    for report in run:
        if report.progress is not None:
            note = f"step {report.progress.step}  {report.gain:+.2f} dB by the estimate"
            show(report.progress.step, report.progress.steps, note)
    assert report is not None
    return {
        "model": str(output),
        "steps": report.steps,
        "noise": str(choice.noise),
        "objective": choice.objective,
        "told": list(choice.told),
        "estimated_error": {"before": report.before, "after": report.best, "noise": report.noise},
        "gain": report.gain,
    }


def _described(count: int) -> str:
    return f"Learned from {count} noisy recording{'s' * (count != 1)}"


def _settings(recordings: Recordings, choice: Choice, options: dict[str, Any], start: Denoiser | None) -> FitSettings:
    channels = max(len(plane) for plane in recordings.planes)
    if start is not None:
        network = start.card.network
        if not isinstance(network, UNetSettings) or network.dims != 2 or network.given:
            raise UsageError("the model to begin with is not a denoiser of noise in images")
    else:
        preset = PRESETS.get(options["network"])
        if not isinstance(preset, UNetSettings):
            raise UsageError(f"--network is the size of a network for images; got {options['network']!r}")
        network = replace(preset, channels=channels)
    if channels not in (1, network.channels):
        raise UsageError(f"the images have {channels} channels, and the model {network.channels}")
    tune = options["tune"] or ("gains" if start is not None else "all")
    same = ("steps", "rate", "warmup", "decay", "average", "clip", "seed")
    return FitSettings(
        perturb=str(choice.noise),
        network=network,
        batch=options["batch"] or 4,
        share=options["share"] or 2,
        patch_size=min(options["patch_size"] or 96, recordings.largest),
        objective=choice.objective,
        tune=tune,
        **{name: options[name] for name in same},
    )


def _recordings(choice: Choice, denoiser: Denoiser) -> Recordings:
    """Return what is learned from, of a range of about 1, and how strong the noise is everywhere in it."""
    shots, noise = choice.shots, choice.noise
    counted = counting(noise)
    by = 0.0 if counted else _movement(shots.firsts, noise)
    top = max(float(np.quantile(np.abs(plane - by), 0.999)) for plane in shots.firsts) or 1.0
    firsts, seconds = shots.firsts, shots.seconds
    if choice.objective == "noise2noise":
        firsts, seconds = (tuple(pair[which] for pair in shots.pairs) for which in (0, 1))
    each = {id(plane): plane for plane in (*firsts, *seconds)}  # frames come several times
    scaled = {key: ((plane - by) / top).astype(np.float32) for key, plane in each.items()}
    sigmas = {key: _sigma_map(each[key], noise, denoiser) / top for key in {id(plane) for plane in firsts}}
    return Recordings(
        tuple(scaled[id(plane)] for plane in firsts),
        tuple(sigmas[id(plane)] for plane in firsts),
        tuple(scaled[id(plane)] for plane in seconds),
        None if counted is None else counted.scaled(1 / top),
    )


def _movement(planes: Sequence[NDArray[np.float32]], noise: Perturbation) -> float:
    """Return by how much images are moved that do not begin at black; restoring moves them again."""
    values = np.concatenate([plane.ravel()[:: max(1, plane.size // SOME)] for plane in planes])
    sigma = getattr(noise, "sigma", 0.0)
    return place(values, sigma if isinstance(sigma, float) else 0.0)[0]


def _sigma_map(plane: NDArray[np.float32], noise: Perturbation, denoiser: Denoiser) -> NDArray[np.float32]:
    """Return how strong the noise of a plane is where, ``(1, height, width)``."""
    level = noise.sigma if isinstance(noise, Gaussian) and isinstance(noise.sigma, float) else None
    posterior = observe(plane, denoiser, level, channel_axis=0, perturbation=noise).posterior
    counts = stabiliser(noise, plane)
    strong = (
        posterior.spread_of_noise if counts is None else counts.variance(posterior.mean).mean(1, keepdim=True).sqrt()
    )
    spread = strong.numpy()
    return _smooth(np.broadcast_to(spread, (1, 1, *plane.shape[1:]))[0] if spread.ndim < 4 else spread[0])


def _smooth(sigma: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map ``(1, height, width)`` without what the noise itself left in it.

    Where the map holds a trace of the noise, a network would learn to read it there.
    """
    from scipy.ndimage import gaussian_filter

    return np.sqrt(gaussian_filter(np.square(sigma), (0, SMOOTH, SMOOTH))).astype(np.float32)
