"""The demonstration: a sample photograph, noise, and what is made of it."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from unperturb.app.observing import Looking
from unperturb.app.outputs import Job
from unperturb.app.restoring import Restoring
from unperturb.atomic import make_folder
from unperturb.data.recording import Recording, read, write
from unperturb.errors import FileError
from unperturb.infer.evaluate import perturb
from unperturb.infer.metrics import psnr
from unperturb.infer.tiled import Compute
from unperturb.model.checkpoint import load
from unperturb.model.machine import keep_freed_memory
from unperturb.model.perturbation import Gaussian


def run_demo(folder: Path, model: str, sigma: float, seed: int, compute: Compute, *, overwrite: bool) -> dict[str, Any]:
    """Write ``clean.png``, ``noisy.png``, ``noisy_restored.png`` and a comparison to a folder.

    Returns
    -------
    dict
        Noise level found, PSNR before and after, seconds, and the pictures.
    """
    original = folder / "clean.png"
    before, after, picture = (folder / f"noisy{what}.png" for what in ("", "_restored", "_restored_compare"))
    taken = [path for path in (original, before, after, picture) if path.exists()]
    if taken and not overwrite:
        raise FileError(f"{taken[0]} is there already; give another folder, or --overwrite")
    keep_freed_memory()
    clean = sample_photograph()
    noisy = perturb(clean.as_float(), Gaussian(sigma / 255), seed, "demo").values
    make_folder(folder)
    recording = clean.with_float(noisy)
    write(clean, original, overwrite=overwrite)
    write(recording, before, overwrite=overwrite)
    start = time.perf_counter()
    told = Restoring(Looking(load(model), compute=compute), overwrite=overwrite)(Job(before, after, picture))
    seconds = time.perf_counter() - start
    return {
        "sigma": told["sigma"],
        "psnr_noisy": psnr(clean.as_float(), recording.as_float()),
        "psnr_restored": psnr(clean.as_float(), read(after).as_float()),
        "seconds": seconds,
        "pictures": [str(path) for path in (original, before, after, picture)],
    }


def sample_photograph() -> Recording:
    """Return a colour photograph that comes with scikit-image: a cat, 451 by 300 pixels."""
    from skimage import data

    return replace(Recording(np.asarray(data.chelsea()), "YXC", "png"))
