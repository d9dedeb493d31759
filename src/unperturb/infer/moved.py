"""Images in other units than a network has learned: standardised values about 0, CT numbers, heights, kelvins.

Where a picture is moved by o and made s times as large, its posterior mean goes with it,

    E[x | x̃] = o + s D((x̃ − o)/s, σ/s)

exactly. A network without biases does not ask for s, but what its card says by noise level does; and it has learned
that pictures begin at black and do not lie far above it beside what they differ by. So it is asked in units and at a
place that it knows, and whoever asks never learns of it: draws, components and intervals are of values as they are.

Photographs that cannot be told from others are left where they are. A picture in [0, 1] that was moved to [−1, 0] came
back 8 dB worse without this, one moved to [−0.5, 0.5] 4 dB.
"""

from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from unperturb.model.denoiser import Denoise, Denoiser
from unperturb.model.network import UNetSettings

BELOW = 0.05
"""How far below black values may begin, in units of what they differ by."""

FAR = 4.0
"""How far above it."""

ROOM = 0.5
"""How far above it they are moved to: flat pictures, which lie about the middle, are known better there."""

SMALL, LARGE = 1 / 8, 2.0
"""How little and how much values may differ by, in units of what was learned."""

ENDS, WIDE = 0.001, 3.09
"""Share of the values that may lie beyond either end, and where so much of a Gaussian does."""

SOME = 10**5
"""Values that are looked at for it."""

AnyDenoise = TypeVar("AnyDenoise", bound=Denoise)


def moved(
    denoise: AnyDenoise, planes: NDArray[np.float32], sigma: float, missing: NDArray[np.bool_] | None = None
) -> AnyDenoise:
    """Return a denoise function that is asked where it knows its way; in most cases, as it is.

    Parameters
    ----------
    denoise
        Of a network that was trained on images it is known where they began; others are returned as they are, and so is
        that of a camera's noise, which depends on where black is.
    planes
        ``(channel, *space)``: what was observed.
    sigma
        Standard deviation of the noise in it, about.
    missing
        Boolean, of the shape of the space: True where nothing was observed.
    """
    if not isinstance(denoise, Denoiser) or denoise.keeps_means:
        return denoise
    card = denoise.card
    if card.learned is None or not isinstance(card.network, UNetSettings) or card.network.dims < 2:
        return denoise
    by, size = place(planes if missing is None else planes[:, ~missing], sigma, card.learned)
    if (by, size) == (0.0, 1.0):
        return denoise
    black = card.learned[0]  # stays where it is in both, but for what it is moved by
    offset = black + by + size * (card.offset - black)
    return cast(AnyDenoise, denoise.with_card(offset=offset, scale=size * card.scale))


def place(values: NDArray[np.float32], sigma: float, learned: tuple[float, float]) -> tuple[float, float]:
    """Return by how much values are moved up from where a network knows them, and how many times they are as large.

    That is 0 and 1 where it knows them as they are.

    Parameters
    ----------
    values
        Of any shape.
    sigma
        Standard deviation of the noise in them.
    learned
        The ends of the images that were learned.
    """
    if not values.size:
        return 0.0, 1.0
    black, usual = learned[0], learned[1] - learned[0]
    least, most = float(values.min()), max(float(np.ptp(values)), sigma)
    some = values.ravel()[:: max(1, values.size // SOME)].astype(np.float64)
    low, high = np.quantile(some, [ENDS, 1 - ENDS]) + np.array([WIDE, -WIDE]) * sigma  # the picture's own, or within
    extent = max(float(high - low), sigma)
    size = most if most < SMALL * usual else extent if extent > LARGE * usual else usual
    size = size / usual if size > 0 < usual else 1.0
    if least - black > FAR * most:
        return least - black - ROOM * most, size
    return (0.0 if low - black >= -max(sigma, BELOW * extent) else float(low - black - ROOM * extent)), size
