"""What the machine was while it was measured: a time means nothing without it."""

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from unperturb.model.machine import choose_precision

FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
"""Instruction sets that decide how fast a network is, by the names that Linux gives them."""

PACKAGES = ("numpy", "torch", "scikit-image", "bm3d", "opencv-python-headless", "PyWavelets")


def machine() -> dict[str, Any]:
    """Return the facts: processor, cores, its instruction sets, threads, precision, load now, versions."""
    model, flags = _processor()
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return {
        "processor": model,
        "cores": len(affinity),
        "flags": {flag: flag in flags for flag in FLAGS},
        "torch_threads": torch.get_num_threads(),
        "precision": str(choose_precision("auto", torch.device("cpu"))).removeprefix("torch."),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "versions": {name: version for name in PACKAGES if (version := _version(name))},
    }


def in_words(facts: Mapping[str, Any]) -> str:
    """Return the facts as one line for people."""
    flags = ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in facts["flags"].items())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    load = "unknown" if facts["load_average"] is None else " ".join(f"{value:.2f}" for value in facts["load_average"])
    return (
        f"{facts['processor']}, {facts['cores']} cores ({flags}); torch on {facts['torch_threads']} threads, "
        f"natural in {facts['precision']}; load average at the start {load}; Python {facts['python']}, {versions}."
    )


def _processor() -> tuple[str, frozenset[str]]:
    """Return the processor's name and its flags, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), frozenset()
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name", platform.machine()), frozenset(fields.get("flags", "").split())


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
