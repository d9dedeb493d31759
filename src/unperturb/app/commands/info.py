"""`unperturb info`: models, machine, and what would be used."""

from typing import Any

import click

from unperturb.app.options import echo_json, json_option


@click.command()
@click.argument("model", required=False)
@json_option
def info(model: str | None, as_json: bool) -> None:
    """Tell what MODEL is (a bundled name or a path), or which models there are and what this machine will use."""
    from unperturb.model.checkpoint import load

    value = load(model).card.as_dict() if model else _overview()
    if as_json:
        echo_json(value)
        return
    for line in _lines(value):
        click.echo(line)


def _overview() -> dict[str, Any]:
    import os
    import platform

    import torch

    from unperturb import __version__
    from unperturb.model.checkpoint import bundled, load
    from unperturb.model.machine import bfloat16_gain, choose_device, choose_precision

    device = choose_device()
    return {
        "unperturb": __version__,
        "models": {name: load(name).card.description for name in bundled()},
        "machine": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "bfloat16 speed over float32": round(bfloat16_gain(device.type), 2),
        },
        "will use": {"device": device.type, "precision": str(choose_precision("auto", device)).removeprefix("torch.")},
    }


def _lines(value: Any, indent: int = 0) -> list[str]:
    """Write nested values as indented lines."""
    lines: list[str] = []
    for key, entry in value.items():
        if isinstance(entry, dict) and entry:
            lines += [f"{' ' * indent}{key}:", *_lines(entry, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{key}: {entry}")
    return lines
