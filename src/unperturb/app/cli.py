"""The command group. Each verb lives in a file of its own in `commands`, and is imported when it is called."""

import importlib
import sys
import traceback

import click

from unperturb import __version__
from unperturb.errors import UnperturbError, UsageError

VERBS = {
    "restore": "Restore images and signals: the best guess of what is behind the noise, or missing.",
    "sample": "Draw what else images and signals could have been: sharp, and different where the answer is open.",
    "uncertainty": "Tell where not to trust the best guess: a map, directions, a report in plain words.",
    "impute": "Fill in the missing cells of a table: the best guess, draws, a report.",
    "fit": "Train a denoiser on images or signals.",
    "evaluate": "Measure how well a model restores clean images that are perturbed on purpose.",
    "calibrate": "Learn how wide intervals have to be, on clean images that are perturbed on purpose.",
    "diagnose": "Tell what noise is in files, from them alone: how strong, how far it reaches, what else is wrong.",
    "info": "Tell models, machine, and what would be used.",
    "demo": "Show what this is about, in pictures: a photograph, points, small images, missing parts, few labels.",
}
"""Verbs in the order of `--help`, with their one line there; nothing is imported to show it."""


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 (click's signature)
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"unperturb.app.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 (click's signature)
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def cli(debug: bool) -> None:
    """Denoising autoencoders: restore what noise took away."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some inputs failed and the rest are done."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        cli.main(arguments, prog_name="unperturb", standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.Abort:
        _complain("stopped")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UnperturbError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        _complain(str(error))
        sys.exit(2 if isinstance(error, UsageError) else 1)
    except Exception as error:
        if "--debug" in arguments:
            raise
        _complain(f"this should not have happened: {type(error).__name__}: {error} (--debug shows where)")
        sys.exit(1)


def _complain(text: str) -> None:
    click.echo(f"unperturb: {text}", err=True)


if __name__ == "__main__":
    main()
