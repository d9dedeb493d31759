"""Why restored images are blurred, and what a sharp one costs.

The same as in the plane, with images: digits of 8 × 8 pixels and faces of 25 × 25. The network's answer is the average
of all digits, or faces, that could lie behind the noise. Where they agree it is sharp. Where they do not it is a blur.
"""

from pathlib import Path

from unperturb.app.lab.blur import draw_picture, experience
from unperturb.app.lab.four_or_nine import draw_ambiguous, find_ambiguous, fours_and_nines
from unperturb.app.lab.images import digits, faces, learn_images

FIGURES = Path(__file__).parent.parent / "docs" / "figures" / "gallery"

# Blur has a measure: the energy of the gradients, the mean squared difference of neighbouring pixels. Noise has much of
# it, means have too little, and draws have about what clean images have.
#
# Sharpness is not free. A draw is as far from the mean as the truth is, and in another direction, so that its squared
# error is twice the mean's. A restored image that looks sharp has guessed; a draw says so, and the next draw guesses
# otherwise.
for images in (digits(), faces()):
    experiment = experience(images)
    told = experiment.figures()
    draw_picture(experiment, FIGURES / f"blur_{images.name}.png")
    print(
        f"{images.name:7} gradients relative to the clean images: noisy {told['noisy_gradients']:.1f}, "
        f"mean {told['mean_gradients']:.2f}, draws {told['draw_gradients']:.2f}; "
        f"squared error of draws over the mean's {told['draw_mse_over_mse']:.2f}"
    )

# Blur is the lesser harm. In a world of fours and nines there are noisy digits that could be either. Their mean is a
# picture that no one has written, and no single answer is honest; draws are of both, each as often as it is likely.
world = fours_and_nines(digits())
learned = learn_images(world, world.sigma)
ambiguous = find_ambiguous(world, learned.denoiser, world.sigma, seed=0)
draw_ambiguous(ambiguous, FIGURES / "blur_four_or_nine.png")
told = ambiguous.figures()
print(
    f"a noisy {told['truth']}: {100 * told['fours']:.0f} % of the draws are fours, {100 * told['nines']:.0f} % nines; "
    f"their kurtosis along the direction in which they differ most is {told['kurtosis']:.2f}"
)
