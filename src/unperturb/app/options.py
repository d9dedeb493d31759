"""Options that several commands share, and how results are told."""

import json
from typing import Any

import click

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
json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, and nothing else.")


def echo_json(value: Any) -> None:
    """Print a result as JSON on standard output."""
    click.echo(json.dumps(value, indent=2))
