"""Images that do not begin at black: standardised values about 0, CT numbers, heights, kelvins.

A network without biases asks for no units, D(c x, c σ) = c D(x, σ), but it has learned that pictures begin at black and
do not lie far above it beside what they differ by. Where a picture is moved by o, its posterior mean is moved with it,

    E[x | x̃] = o + D(x̃ − o, σ)

exactly, whatever o is. So a network is asked at a place that it knows, and whoever asks never learns of it: draws,
components and intervals are of the values as they are.

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
    network, black = denoise.card.network, denoise.card.black
    if black is None or not isinstance(network, UNetSettings) or network.dims < 2:
        return denoise
    seen = planes.reshape(len(planes), -1) if missing is None else planes[:, ~missing]
    by = movement(seen.T.ravel(), sigma, black)
    return cast(AnyDenoise, denoise.with_card(offset=denoise.card.offset + by)) if by else denoise


def movement(values: NDArray[np.float32], sigma: float, black: float) -> float:
    """Return by how much values are to be moved down for a network to know them; 0 where it does as they are.

    Parameters
    ----------
    values
        In any order.
    sigma
        Standard deviation of the noise in them.
    black
        Where the images begin that were learned.
    """
    if not len(values):
        return 0.0
    least, extent = float(values.min()), max(float(np.ptp(values)), sigma)
    if least - black > FAR * extent:
        return least - black - ROOM * extent
    some = values[:: max(1, len(values) // SOME)].astype(np.float64)
    low, high = np.quantile(some, [ENDS, 1 - ENDS]) + np.array([WIDE, -WIDE]) * sigma  # the picture's own, or within
    extent = max(high - low, sigma)
    return 0.0 if low - black >= -max(sigma, BELOW * extent) else float(low - black - ROOM * extent)
