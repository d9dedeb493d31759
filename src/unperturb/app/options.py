"""Options that several commands share, and how results are told."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from unperturb.app.observing import Looking
    from unperturb.infer.tiled import Compute
    from unperturb.model.denoiser import Denoiser
    from unperturb.model.perturbation import Perturbation

device_option = click.option(
    "--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True, help="Where to compute."
)
precision_option = click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    default="auto",
    show_default=True,
    help="What to compute in; auto takes bfloat16 where it was measured to be faster.",
)
SEEDS = click.IntRange(0, 2**32 - 1)
"""Seeds that every generator takes, with room to count up from them."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")


def echo_json(value: Any) -> None:
    """Print a result as JSON on standard output; what is not a finite number is null there."""
    click.echo(json.dumps(_finite(value), indent=2, allow_nan=False))


DROWNED = 3.0
"""Noise so many times as strong as white is bright leaves nothing to be seen: more likely grey levels were meant."""


def warn_of_grey_levels(perturbation: "Perturbation") -> None:
    """Say so on standard error where white noise of images is told in 255 grey levels, by the looks of it."""
    from unperturb.app.observing import white_levels

    sigma = max(white_levels(perturbation), default=0.0)
    if sigma > DROWNED:
        click.echo(
            f"unperturb: gaussian:sigma={sigma:g} is noise {sigma:g} times as strong as white; "
            f"{sigma:g} of 255 grey levels are sigma={sigma / 255:.4g}",
            err=True,
        )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


model_option = click.option(
    "--model", default="natural", show_default=True, help="A bundled model, or the path of a model file."
)


def _read_sigma(context: click.Context, parameter: click.Parameter, text: str | None) -> float | None:  # noqa: ARG001 (click's signature)
    return None if text is None else as_sigma(text)


def looking_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how files are looked at: model, noise level, what is missing."""
    model = click.option(
        "--model",
        default=None,
        help="A bundled model, or the path of a model file.  [default: natural; with --missing: missing]",
    )
    sigma = click.option(
        "--sigma",
        default=None,
        callback=_read_sigma,
        help="Noise level in the file's own units (8-bit: grey levels), or auto.  [default: auto; with --missing, 0]",
    )
    missing = click.option(
        "--missing",
        default=None,
        metavar="MASK",
        help="What is missing: an image whose non-zero pixels are, alpha, nan, or colours such as #ff00ff.",
    )
    perturb = click.option(
        "--perturb",
        default=None,
        metavar="SPEC",
        help="What was done to the images, for a model of noise: such as blur:sigma=1.5 + gaussian:sigma=0.02.",
    )
    noise = click.option(
        "--noise",
        default=None,
        metavar="SPEC",
        help="What noise there is, such as poisson-gaussian:gain=0.01,read=0.02 for that of counting, or auto: what "
        "diagnose finds in each file.",
    )
    return model(sigma(missing(perturb(noise(command)))))


def as_looking(
    model: str | None,
    sigma: float | None,
    missing: str | None,
    perturb: str | None,
    noise: str | None,
    compute: "Compute",
    inputs: Sequence[Path] = (),
    *,
    choosing: bool = False,
) -> "Looking":
    """Turn these options into what the application takes.

    Where pixels are missing, and nothing else was done to them, the model is `missing` unless another is named: it beats
    the approximation that `natural` would be used by (docs/models/missing.md). Signals have no bundled model. With
    `choosing`, files of which nothing is told have the bundled model that fits each.

    Raises
    ------
    click.UsageError
        Where options contradict each other, or signals are given without a model.
    """
    from unperturb.app.diagnosing import noise_of
    from unperturb.app.observing import Looking
    from unperturb.data.stretches import are_signals
    from unperturb.infer.observe import is_conditional
    from unperturb.model.checkpoint import load
    from unperturb.model.spec import parse
    from unperturb.train.noisy import NOISY

    if model is None and are_signals(inputs):
        raise click.UsageError(
            "no bundled model is for signals; train one with unperturb fit, on these signals or others like them, and give it "
            "by --model"
        )
    if sigma is not None and perturb is not None:
        raise click.UsageError("--perturb tells the noise as well, + gaussian:sigma=…; leave --sigma out")
    if noise is not None and any(told is not None for told in (sigma, perturb, missing)):
        raise click.UsageError(
            "--noise says all that was done to the files; leave --sigma, --perturb and --missing out"
        )
    if noise is not None and are_signals(inputs):
        raise click.UsageError("--noise is for images; of signals --sigma tells the noise")
    perturbation = None if perturb is None else parse(perturb)
    if noise is not None and noise != "auto":
        perturbation = noise_of(noise)
    denoiser = load(model or ("missing" if missing is not None and perturb is None else "natural"))
    if is_conditional(denoiser):
        _check_conditional(denoiser, sigma, missing, perturb, noise)
    told_nothing = all(told is None for told in (sigma, missing, perturb, noise))
    if told_nothing and denoiser.card.recipe.get("objective") in NOISY:
        perturbation = parse(denoiser.card.perturbation)  # what it has learned from
    choosing = choosing and model is None and told_nothing and not are_signals(inputs)
    return Looking(denoiser, sigma, missing, perturbation, compute, noise == "auto", choosing)


def _check_conditional(
    denoiser: "Denoiser", sigma: float | None, missing: str | None, perturb: str | None, noise: str | None
) -> None:
    """Refuse what a model that is shown the observation cannot be told, and one of what is missing without a mask."""
    from unperturb.model.linear import always_erases
    from unperturb.model.spec import parse

    if noise is not None:
        raise click.UsageError("--noise is for a model of noise; this one finds out by itself what was done")
    if perturb is not None:
        raise click.UsageError("--perturb is for a model of noise; this one finds out by itself what was done")
    if sigma is not None and missing is None:
        raise click.UsageError("--sigma is for a model of noise; this one finds out by itself how strong it is")
    if missing is None and always_erases(parse(denoiser.card.perturbation)):
        raise click.UsageError(
            "this model has learned of nothing that is whole, and fills in what is missing; --missing says what is"
        )


def polisher_of(model: str) -> "Denoiser | None":
    """Return the denoiser of noise that polishes best guesses of a model; None where the model is a person's own."""
    from unperturb.model.checkpoint import load

    return load("natural") if model == "missing" else None


quality_option = click.option(
    "--quality",
    type=click.Choice(["auto", "fast", "best"]),
    default="auto",
    show_default=True,
    help="Looks at an image: fast takes one, best eight, turned and mirrored, whose answers are averaged; auto two or "
    "four where images are so small that it takes next to no time. What the bundled model finds in missing pixels is "
    "polished as well, by natural, in 8 steps; with best in 16, with fast in none. Planes of a stack are answered fast "
    "unless it is best.",
)

output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=None,
    help="Folder for the results, or one file (with a suffix).",
)

folder_option = click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=None, help="Folder for the results."
)


def sampling_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how to draw: number, steps, seed."""
    number = click.option(
        "-n",
        "--n-samples",
        type=click.IntRange(1, 999),
        default=8,
        show_default=True,
        help="How many draws; uncertainty takes 2 or more.",
    )
    steps = click.option(
        "--steps",
        type=click.IntRange(1),
        default=20,
        show_default=True,
        help="Of each draw, one evaluation of the model each.",
    )
    seed = click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same draws.")
    return number(steps(seed(command)))


def as_sigma(text: str) -> float | None:
    """Read ``auto``, which is None, or a number.

    Raises
    ------
    click.UsageError
        Where it is neither.
    """
    if text == "auto":
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise click.UsageError(f"--sigma is auto or a number of at least 0, in the file's units; got {text!r}")
    return value


def compute_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what says how to compute: device, precision, tile."""
    tile = click.option("--tile", default="auto", show_default=True, help="Side of a tile in pixels, or auto.")
    return device_option(precision_option(tile(command)))


def as_compute(device: str, precision: str, tile: str) -> "Compute":
    """Turn these options into what the library takes."""
    from unperturb.infer.tiled import Compute
    from unperturb.model.machine import choose_device

    if tile != "auto" and not (tile.isdigit() and int(tile) >= 16):
        raise click.UsageError(f"--tile is auto or a number of pixels of at least 16; got {tile!r}")
    choose_device(device)  # refused before any file is read
    return Compute(device=device, precision=precision, tile=None if tile == "auto" else int(tile))
