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
    if value.get("calibration"):
        value["calibration"] = {name: _calibrated(entry) for name, entry in value["calibration"].items()}
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


def _calibrated(entry: dict[str, Any]) -> str:
    """Return a calibration in short; --json has all of it."""
    scales = list(entry["scales"].values())
    between = f"{min(scales):.3g}" if len(scales) == 1 else f"{min(scales):.3g} to {max(scales):.3g}"
    return f"half widths of {between} standard deviations of the draws, by {entry['n_images']} images"


def _lines(value: Any, indent: int = 0) -> list[str]:
    """Write nested values as indented lines."""
    lines: list[str] = []
    for key, entry in value.items():
        if isinstance(entry, dict) and entry and all(isinstance(each, float) for each in entry.values()):
            numbers = ", ".join(f"{name}: {number:.4g}" for name, number in entry.items())
            lines.append(f"{' ' * indent}{key}: {numbers}")
        elif isinstance(entry, dict) and entry:
            lines += [f"{' ' * indent}{key}:", *_lines(entry, indent + 2)]
        else:
            lines.append(f"{' ' * indent}{key}: {entry}")
    return lines
