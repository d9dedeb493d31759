"""`unperturb diagnose`: what noise is in files, from them alone."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from unperturb.app.options import echo_json, json_option
from unperturb.app.progress import progress_line

if TYPE_CHECKING:
    from unperturb.app.diagnosing import Diagnosis
    from unperturb.data.diagnosis import Measured


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--again", multiple=True, type=click.Path(exists=True, path_type=Path),
    help="Second shots of the same things, files or folders in the same order; may be repeated.",
)  # fmt: skip
@click.option(
    "--dark", multiple=True, type=click.Path(exists=True, path_type=Path),
    help="Frames without light at the same setting: they tell the offset and the noise of reading; may be repeated.",
)  # fmt: skip
@click.option(
    "--flat", multiple=True, type=click.Path(exists=True, path_type=Path),
    help="Frames of something even: noise without any texture; may be repeated.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="An HTML page with the plots, to write."
)
@click.option("--overwrite", is_flag=True, help="Replace a page that is there already.")
@json_option
def diagnose(
    inputs: tuple[Path, ...],
    again: tuple[Path, ...],
    dark: tuple[Path, ...],
    flat: tuple[Path, ...],
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Tell what noise is in INPUTS, image files or folders of them from one camera at one setting.

    The answer is a perturbation spec, which fit --perturb takes, and restore --noise if it is of white noise alone,
    with 95 % intervals, and what follows from it. Levels are in units where white is 1; those of float files in their own.
    """
    from unperturb.app.diagnosing import diagnose_files
    from unperturb.app.outputs import check_not_input
    from unperturb.atomic import check_place
    from unperturb.errors import FileError

    if output is not None:
        check_not_input(output, (*inputs, *again, *dark, *flat))
        if output.suffix.lower() not in (".html", ".htm"):
            raise click.UsageError(f"-o names an HTML page; got {output}")
        check_place(output)
    if output is not None and output.exists() and not overwrite:
        raise FileError(f"{output} exists already; give another name, or --overwrite")
    with progress_line("diagnosing") as show:
        found = diagnose_files(inputs, again, show, dark=dark, flat=flat)
    if output is not None:
        _write(found, inputs, output, overwrite=overwrite)
    if as_json:
        echo_json(found.as_dict())
        return
    for line in _lines(found):
        click.echo(line)


def _lines(found: "Diagnosis") -> list[str]:
    from unperturb.app.diagnosing import pixels

    noise = found.noise
    lines = [found.spec, _line("sigma", noise.sigma, found.white), _line("gain", noise.gain, 1.0)]
    lines.append(_line("read", noise.read, found.white))
    if found.offset is not None:
        lines.append(f"{'offset':<11}{found.offset:.4g}  (of the dark frames){_own(found.offset, found.white)}")
    if noise.heard and noise.whiteness is not None:
        in_common = f"in common up to {pixels(noise.reach)} apart" if noise.correlated else "white"
        lines.append(f"{'neighbours':<11}{in_common} (whiteness {noise.whiteness.value:.2f})")
    return lines + [f"- {sentence}" for sentence in found.advice]


def _line(name: str, measured: "Measured", white: float) -> str:
    return f"{name:<11}{measured.value:.4g}  ({measured.low:.4g} to {measured.high:.4g}){_own(measured.value, white)}"


def _own(value: float, white: float) -> str:
    """Return a value in the units of the files, where they have others."""
    return f"   {white * value:.3g} of {white:g}" if white != 1 else ""


def _write(found: "Diagnosis", inputs: tuple[Path, ...], output: Path, *, overwrite: bool) -> None:
    from unperturb.app.diagnosis_report import diagnosis_page
    from unperturb.atomic import make_folder, whole

    make_folder(output.parent)
    with whole(output, overwrite=overwrite) as part:
        others = f" and {len(inputs) - 1} more" if len(inputs) > 1 else ""
        part.write_text(diagnosis_page(found, f"{inputs[0]}{others}"), encoding="utf-8")
