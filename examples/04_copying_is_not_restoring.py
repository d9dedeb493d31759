"""Why an autoencoder that copies does not restore.

An autoencoder is asked for its own input, and a bottleneck keeps it from handing that through. What it has to learn is
to describe whole images with few numbers; nobody asks it what to make of half an image. A denoising autoencoder is
asked for what it was not shown. All else is the same: the layers behind the input, the images, the squared error.
"""

from pathlib import Path

import torch

from unperturb.app.lab.autoencoders import TRAINING, erase, error_on_erased, seeded, train_autoencoder
from unperturb.app.lab.images import digits, faces
from unperturb.app.lab.missing import compare, draw_errors, draw_examples

FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "gallery"

# One of each, with sixteen numbers in the middle for images of 64 pixels, and digits that neither has seen. The plain
# one copies better.
images = digits()
networks = {
    name: train_autoencoder(images, TRAINING["digits"], 16, denoising=name == "denoising")
    for name in ("plain", "denoising")
}
clean = images.held_out
whole = torch.ones_like(clean, dtype=torch.bool)
for name, network in networks.items():
    print(f"{name:9} squared error of copying {(network(clean, whole) - clean).square().mean():.4f}")

# Now half of the pixels are erased, and what counts is the error on these.
mask = erase(clean, "single", 0.5, seeded(1))
for name, network in networks.items():
    error = error_on_erased(network.restore(clean * mask, mask), clean, mask)
    print(f"{name:9} squared error on the half that was erased {error:.4f}")

# The whole comparison: each with the bottleneck that serves it best, pixels erased singly and in a block, little and
# much, and beside them what one has without a network, the mean of each pixel. Where much is gone the denoising one
# answers with a blur, the mean of all digits that it could have been; draws are of one digit each.
for images in (digits(), faces()):
    comparison = compare(images)
    told = comparison.figures()
    draw_examples(comparison, FIGURES / f"missing_{images.name}.png")
    draw_errors(told, images.name, FIGURES / f"missing_{images.name}_errors.png")
    print(f"{images.name:15} squared error on what was erased: mean, plain, denoising")
    for row in told["errors"]:
        print(
            f"  {row['kind']:6} {row['erased']:4.0%}", *(f"{row[name]:.4f}" for name in ("mean", "plain", "denoising"))
        )
    print(f"{images.name:15} gradients relative to clean images: denoising, draws")
    for row in told["draws"]:
        print(
            f"  {row['kind']:6} {row['rate']:4.0%}",
            *(f"{row[f'{name}_gradients']:.2f}" for name in ("denoising", "draw")),
        )
