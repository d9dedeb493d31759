"""The page of commands, made from what ``--help`` says: ``python -m unperturb.app.reference > docs/commands.md``."""

import click

from unperturb.app.cli import VERBS, cli

_HEAD = """# Commands

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 some of the inputs failed and the rest are done, where each has a
result of its own; `calibrate` leaves out what cannot be read, and `diagnose` and `fit` end there. Progress goes to standard
error and results to standard output; with `--json` there is JSON there and nothing else. Every file is written whole
or not at all, and nothing is overwritten without `--overwrite`, but what `restore --resume` finds unfinished. Ctrl-C ends
with 130.
"""


def reference() -> str:
    """Return the page, in Markdown."""
    context = click.Context(
        cli, info_name="unperturb", max_content_width=100, terminal_width=100, **cli.context_settings
    )
    pages = [_HEAD]
    for verb in VERBS:
        command = cli.get_command(context, verb)
        if command is not None:
            inner = click.Context(command, parent=context, info_name=verb, max_content_width=100, terminal_width=100)
            pages.append(f"## unperturb {verb}\n\n```\n{command.get_help(inner)}\n```\n")
    return "\n".join(pages)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
