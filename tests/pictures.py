"""Image files for tests."""

import numpy as np
from PIL import Image


def picture(path, size=(24, 31), seed=0, mode="RGB", **options):
    channels = {"L": (), "RGB": (3,), "RGBA": (4,), "LA": (2,)}[mode]
    values = np.random.default_rng(seed).normal(128, 20, (*size, *channels)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return values


def opened(path):
    with Image.open(path) as image:
        image.load()
        return image
