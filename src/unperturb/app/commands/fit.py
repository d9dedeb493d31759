"""`unperturb fit`: train a denoiser on images or signals."""

import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from unperturb.app.options import SEEDS, device_option, echo_json, json_option, precision_option, warn_of_grey_levels
from unperturb.app.progress import progress_line


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The model file to write."
)
@click.option("--recipe", type=click.Path(exists=True, dir_okay=False, path_type=Path), is_eager=True, expose_value=False,
              callback=lambda context, _, path: _use_recipe(context, path),
              help="A TOML file that sets any of the options below.")  # fmt: skip
@click.option(
    "--perturb", default=None,
    help="The perturbation to undo, as a spec.  [default: gaussian:sigma=0..0.25; of signals gaussian:sigma=0..1]",
)  # fmt: skip
@click.option(
    "--network", default="medium", show_default=True, help="Size of the network: tiny, small, medium or large."
)
@click.option(
    "--channels", type=click.IntRange(1), default=1, show_default=True, help="1 for gray, 3 for colour and gray."
)
@click.option("--widths", default=None, help="Features a level, in place of the preset's, such as 64,128,256.")
@click.option(
    "--blocks", default=None, help="Residual blocks, at every level or one number a level, in place of the preset's."
)
@click.option("--steps", type=click.IntRange(1), default=10_000, show_default=True, help="Updates of the weights.")
@click.option("--batch", type=click.IntRange(1), default=None, help="Crops a step.  [default: 4; of signals 16]")
@click.option(
    "--share",
    type=click.IntRange(1),
    default=None,
    help="Crops a thread works on at once.  [default: 2; of signals 8]",
)
@click.option(
    "--patch-size",
    type=click.IntRange(8),
    default=None,
    help="Height and width, or length, of the crops.  [default: 96 pixels; 1024 samples]",
)
@click.option(
    "--part",
    default=None,
    help="Of signals, the part to learn from, such as 0..0.5 for the first half.  [default: 0..1]",
)
@click.option(
    "--gray",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of the crops in gray, for a colour network.",
)
@click.option("--rate", type=float, default=1e-3, show_default=True, help="Learning rate.")
@click.option("--warmup", type=click.IntRange(0), default=100, show_default=True, help="Steps over which it rises.")
@click.option(
    "--decay",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    help="Share of the steps over which it falls to zero.",
)
@click.option(
    "--average",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.999,
    show_default=True,
    help="Weight of the past in the running average of the weights.",
)
@click.option("--noisy", is_flag=True, help="DATA are noisy, and there is nothing clean: learn from them alone. With --from, where they are left out: "
              "--steps 120 --warmup 5 --decay 0.5 --average 0.9 --validate 10.")  # fmt: skip
@click.option(
    "--noise",
    default="auto",
    show_default=True,
    metavar="SPEC",
    help="Of noisy data, their noise, such as poisson-gaussian:gain=0.01,read=0.02; auto: what diagnose finds.",
)
@click.option(
    "--again",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    help="Of noisy data, second shots of the same things: files or folders.",
)
@click.option(
    "--tune",
    type=click.Choice(["all", "gains"]),
    default=None,
    help="Of noisy data, what to train: all weights, or one factor a feature.  [default: all; with --from, gains]",
)
@click.option(
    "--objective",
    type=click.Choice(
        ["squared", "absolute", "auto", "noise2noise", "recorrupted", "sure", "unsure", "neighbours", "blind-spot"]
    ),
    default=None,
    help="What to make small: the squared error (the model becomes the posterior mean) or the absolute (the median); of "
    "noisy data, auto or one of the others.  [default: squared; of noisy data auto]",
)
@click.option("--clip", type=float, default=1.0, show_default=True, help="Largest norm of the gradient.")
@click.option(
    "--scales", default="1", show_default=True, help="Factors by which images are also reduced, such as 1,1.5,2."
)
@click.option(
    "--enlarge",
    type=click.FloatRange(min=1),
    default=1.0,
    show_default=True,
    help="Largest factor by which crops are enlarged: photographs in full resolution have less fine detail.",
)
@click.option(
    "--reuse",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="How often a GPU learns from a crop as it was perturbed once, other than by white noise; a processor perturbs "
    "anew each time.",
)
@click.option(
    "--half-colour",
    is_flag=True,
    help="Where the perturbation is JPEG, find colour at half resolution, as a camera's file has it; do not sharpen it.",
)
@click.option("--jpeg", default=None, help="JPEG quality of the reduced copies, such as 75..95.")
@click.option(
    "--held-out",
    type=click.IntRange(2),
    default=20,
    show_default=True,
    help="One image in so many is kept for validation.",
)
@click.option("--seed", type=SEEDS, default=0, show_default=True, help="Of everything random.")
@click.option("--name", default=None, help="The model's name, for its card.  [default: the file's]")
@click.option("--description", default="", help="One sentence for its card.")
@click.option("--data-note", default="", help="What the data is, for its card.")
@click.option("--licence", default="", help="Under which terms the weights may be used, for its card.")
@click.option("--half", is_flag=True, help="Store the weights in half precision.")
@click.option(
    "--from", "start", default=None, help="A model to begin with, bundled or a path, rather than with random weights."
)
@click.option("--resume", is_flag=True, help="Go on from the latest checkpoint, where there is one.")
@click.option("--overwrite", is_flag=True, help="Replace a model that is there already.")
@click.option(
    "--checkpoint", type=click.FloatRange(0), default=180.0, show_default=True, help="Seconds between checkpoints."
)
@click.option("--validate", type=click.IntRange(1), default=500, show_default=True, help="Steps between validations.")
@click.option("--threads", type=click.IntRange(1), default=None, help="Threads to train with.  [default: all cores]")
@click.option(
    "--cache",
    type=click.Path(file_okay=False, path_type=Path),
    default=None,
    help="Folder for decoded images.  [default: the user's cache]",
)
@device_option
@precision_option
@json_option
def fit(data: tuple[Path, ...], output: Path, device: str, precision: str, as_json: bool, **options: Any) -> None:
    """Train a denoiser on DATA, and write it to a model file.

    DATA are images, or folders of them; or signals: WAV, .npy, CSV, and .hea files. Each channel of a signal is learned
    in units of its own standard deviation.

    A checkpoint is kept beside it every few minutes. A run that was stopped, by whatever, goes on with --resume from
    there, and ends with the same weights as one that was not.

    Started by torchrun, several processes learn from one batch together, on a GPU each, or on shares of the cores.

    With --noisy it learns from noisy images, of which nobody has the clean ones; with --from natural as well, a bundled
    model is tuned to one recording, in minutes.
    """
    from unperturb.app.training import run_training
    from unperturb.data.stretches import are_signals
    from unperturb.errors import UsageError
    from unperturb.model.machine import choose_device, keep_freed_memory
    from unperturb.model.spec import parse
    from unperturb.train.processes import processes

    keep_freed_memory()
    source = click.get_current_context().get_parameter_source
    given = {name for name in options if source(name) is not ParameterSource.DEFAULT}
    chosen = choose_device(device)
    with processes(chosen) as team, progress_line("training", silent=not team.leads) as show:
        try:
            if team.leads and options["perturb"] and not (options["noisy"] or are_signals(data)):
                warn_of_grey_levels(parse(options["perturb"]))
            summary = run_training(data, output, chosen, precision, options, given, show, team)
        except UsageError:  # all processes say it; once is enough
            if team.leads:
                raise
            sys.exit(2)
    if not team.leads:
        return
    if as_json:
        echo_json(summary)
    elif options["noisy"]:
        for sentence in summary["told"]:
            click.echo(f"unperturb: {sentence}", err=True)
        click.echo(f"{output}: {summary['steps']} steps, {summary['gain']:+.2f} dB by an estimate without clean images")
    else:
        psnr = ", ".join(f"{kind} {value:.2f} dB" for kind, value in summary["psnr"].items())
        click.echo(f"{output}: {summary['steps']} steps, " + (f"validation {psnr}" if psnr else "done before"))


def _use_recipe(context: click.Context, path: Path | None) -> None:
    """Take the options' defaults from a recipe; what is not an option is refused."""
    import tomllib

    if path is None:
        return
    try:
        recipe = tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"the recipe {path} cannot be read: {error}") from None
    known = {
        name.lstrip("-"): parameter
        for parameter in context.command.params
        for name in (*parameter.opts, *([] if parameter.name is None else [parameter.name.replace("_", "-")]))
    }
    values: dict[str, Any] = {}
    for key, value in recipe.items():
        parameter = known.get(key.replace("_", "-"))
        if parameter is None or parameter.name is None:
            raise click.UsageError(f"the recipe {path} sets {key}, which fit does not know")
        if not _fits(value, parameter.type):
            raise click.UsageError(f"the recipe {path} sets {key} to {value!r}, which is no {parameter.type.name}")
        values[parameter.name] = value
    context.default_map = {**(context.default_map or {}), **values}


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value of a recipe is of the kind of an option."""
    if isinstance(kind, click.types.BoolParamType):
        return isinstance(value, bool)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return False
    return isinstance(value, str) or not isinstance(kind, click.types.IntParamType) or value == int(value)
