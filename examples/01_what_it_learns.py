"""What a denoising autoencoder learns, in the plane.

Take points along a line, push each aside at random, and train a network to say where it came from. It is not told how:
it sees pairs of where a point is and where it was, and pays for the squared distance of its answer from the latter.
"""

from pathlib import Path

import numpy as np
import torch

from unperturb.app.lab.learn import BLOCK, POINTS, learn
from unperturb.app.lab.points import POINT_SETS
from unperturb.app.lab.two_d import draw_picture, experience
from unperturb.infer.posterior import Posterior
from unperturb.infer.sample import sample

FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "gallery"

# A ring. Nothing about it is special but that its middle is empty.
ring = POINT_SETS["ring"]
clean = torch.from_numpy(ring.draw(np.random.default_rng(1), 5))
print("distances of five of its points from the middle:", *(f"{far:.2f}" for far in clean.norm(dim=1).tolist()))

# Training asks for a function that draws clean points, and for a perturbation. The noise is Gaussian and its standard
# deviation is another for every point, so that one network learns all levels. It takes a few seconds.
learned = learn(POINTS, lambda generator, _: ring.draw(generator, BLOCK))
print(f"trained for {learned.seconds:.1f} s")

# What does it say of a point in the middle, where the ring is not? It could have come from any side. The answer with
# the least squared error is the average of all of them, and that lies in the middle, too: on no ring.
middle = torch.tensor([[0.1, 0.0]])
mean = learned.denoiser(middle, 0.8)
print(f"a noisy point {middle.norm():.2f} from the middle; its mean is {mean.norm():.2f} from it")

# The same network draws from the posterior: it goes back in twenty small steps, and draws anew at each what cannot be
# known. Every draw is a point of the ring, and they are spread over it as the answer is open.
draws = sample(Posterior(learned.denoiser, middle, 0.8), 5)[:, 0]
print("distances of five draws:", *(f"{far:.2f}" for far in draws.norm(dim=1).tolist()))

# All of this for five sets, as pictures, with the exact answer beside the learned one. Where there is no formula, the
# exact posterior is that of a world that consists of four thousand points of the set.
for name, points in POINT_SETS.items():
    experiment = experience(points, sigma=0.8)
    draw_picture(experiment, FIGURES / f"two_d_{name.replace('-', '_')}.png")
    told = experiment.figures()
    print(
        f"{points.name:16} from the data: means {told['means_to_data']:.3f}, draws {told['draws_to_data']:.3f}; "
        f"squared error over the least: means {told['mse_over_mmse']:.3f}, draws {told['draw_mse_over_mmse']:.2f}"
    )
