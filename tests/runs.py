"""Small runs, and what they leave: what several test files train."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from unperturb.data.decoded import Preparation, open_patches
from unperturb.data.patches import Patches
from unperturb.model.network import UNetSettings, VectorNetSettings
from unperturb.train.fit import fit
from unperturb.train.run import Habits
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

LINE = FitSettings(
    "gaussian:sigma=0.5", VectorNetSettings(2, 16, 2), steps=40, batch=8, share=3, rate=3e-3, warmup=3, average=0.9
)
IMAGES = FitSettings(
    "gaussian:sigma=0..0.5", UNetSettings(widths=(4, 8), blocks=1), steps=4, batch=3, rate=3e-3, warmup=1, patch_size=16
)
COLOUR = replace(IMAGES, network=replace(IMAGES.network, channels=3))
EVERYTHING = "erase:fraction=0.5 | gaussian:sigma=0.2 | blur:sigma=1 | erase:fraction=0.2 + gaussian:sigma=0.1"
"""Of choices, one of each kind: with a mask or without, of known level or not."""

QUIET = Habits(checkpoint=0, validate=2, precision="float32", threads=1)


def on_a_line(generator: np.random.Generator, _: int) -> np.ndarray:
    """Points with both components the same: each tells of the other."""
    return np.full(2, generator.choice([-1.0, 1.0]), np.float32)


def run(state: FitState, draw=on_a_line, **options) -> list:
    return list(fit(state, draw, **{"precision": "float32", "threads": 1, **options}))


def snapshot(state: FitState) -> dict[str, torch.Tensor]:
    parts = {
        "weights": state.denoiser.state_dict(),
        "average": state.averaged.state_dict(),
        "optimizer": state.optimizer.state(),
    }
    return {f"{part}.{key}": value.clone() for part, tensors in parts.items() for key, value in tensors.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def six_pictures(tmp_path: Path) -> Patches:
    """Six colour images, two of them held out."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return open_patches([folder], tmp_path / "cache", Preparation(held_out=3))
