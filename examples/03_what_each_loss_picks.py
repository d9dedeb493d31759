"""Which point of the posterior each loss picks, and which of them keeps the posterior.

To complain of blur is to ask for another answer than the mean. There are several, and each is the best in one respect.
"""

from pathlib import Path

import torch

from unperturb.app.lab.losses import PLACE, SIGMA, compare, draw_picture, posterior_median, posterior_mode
from unperturb.app.lab.points import mixture

FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "gallery"

# The mixture of four has a posterior that can be written down: a mixture of four again. Here is that of one noisy point
# in the middle. Its mean lies between the components, its median is taken of each coordinate by itself, its mode is the
# centre of whatever component is the likeliest.
toy = mixture()
place = torch.tensor(PLACE)
posterior = toy.posterior(place, SIGMA)
for what, values in {
    "shares of the four": posterior.weights,
    "mean": toy(place[None], SIGMA)[0],
    "median": posterior_median(posterior),
    "mode": posterior_mode(posterior),
}.items():
    print(f"{what:20}", *(f"{value:6.2f}" for value in values.tolist()))

# A network becomes the mean if it is trained with the squared error and the median if it is trained with the absolute
# error; nothing else differs. A network that is trained to fool a judge (a GAN) answers with some point that looks like
# data, and nothing asks it to be there as often as the posterior says. Draws are, and they come from the first network.
comparison = compare()
draw_picture(comparison, FIGURES / "losses.png")
print(f"{'':8} {'squared':>8} {'absolute':>9} {'variance kept':>14} {'energy distance':>16}")
for name, told in comparison.figures().items():
    print(
        f"{name:8} {told['squared_error']:8.3f} {told['absolute_error']:9.3f} {told['variance_kept']:14.2f} "
        f"{told['energy_distance']:16.3f}"
    )

# Only draws are distributed as the clean points are (an energy distance of 0, but for chance), and only they say how
# open the answer is: the truth lies in the middle nine tenths of them nine times in ten.
print(f"the truth lies in the middle 90 % of the draws in {100 * comparison.coverage():.1f} %")
