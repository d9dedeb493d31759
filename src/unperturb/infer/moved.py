"""Images in other units than a network has learned: standardised values about 0, CT numbers, heights, kelvins.

Where a picture is moved by o and made s times as large, its posterior mean goes with it,

    E[x | x̃] = o + s D((x̃ − o)/s, σ/s)

exactly. A network without biases does not ask for s, but what its card says by noise level does; and it has learned
that pictures begin at black and do not lie far above it beside what they differ by. So it is asked in units and at a
place that it knows, and whoever asks never learns of it: draws, components and intervals are of values as they are.

Photographs that cannot be told from others are left where they are. A picture in [0, 1] that was moved to [−1, 0] came
back 8 dB worse without this, one moved to [−0.5, 0.5] 4 dB.

Signals are learned about their median, in units of how far they go (`unperturb.data.stretches`), and asked for there.
"""

from collections.abc import Sequence
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from unperturb.errors import UsageError
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
"""The most values that are looked at for it."""

SAME, NEAR = 1e-3, 0.5
"""How far from where they were learned signals are left: one by itself, and several, which have no place in common."""

AnyDenoise = TypeVar("AnyDenoise", bound=Denoise)


def moved(
    denoise: AnyDenoise,
    planes: NDArray[np.float32],
    sigma: float,
    missing: NDArray[np.bool_] | None = None,
    *,
    placed: bool = False,
) -> AnyDenoise:
    """Return a denoise function that is asked where it knows its way; in most cases, as it is.

    Parameters
    ----------
    denoise
        Of a network that was trained on images it is known where they began, and of one of signals that they lay about
        0; others are returned as they are, and so is that of a camera's noise, which depends on where black is.
    planes
        ``(channel, *space)``: what was observed.
    sigma
        Standard deviation of the noise in it, about.
    missing
        Boolean, of the shape of the space: True where nothing was observed.
    placed
        Whether signals are where they were learned: in units of their channel, of which they may be a part.

    Raises
    ------
    UsageError
        Where several signals are asked for at once that lie elsewhere than where they were learned.
    """
    if not isinstance(denoise, Denoiser) or denoise.keeps_means:
        return denoise
    card = denoise.card
    if card.learned is None or not isinstance(card.network, UNetSettings) or (placed and card.network.dims == 1):
        return denoise
    seen = planes if missing is None else planes[:, ~missing]
    apart = len(seen) > 1 and card.network.channels != len(seen)  # signals of their own, of one denoiser
    each = list(seen) if apart else [seen]
    places = {_place_of_signals(each)} if card.network.dims == 1 else {place(one, sigma, card.ends) for one in each}
    by, size = places.pop()
    if places or (by, size) == (0.0, 1.0):  # there is no place for all of them
        return denoise
    return cast(AnyDenoise, denoise.with_card(offset=by + size * card.offset, scale=size * card.scale))


def _place_of_signals(channels: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    """Return the median of a signal and its standard deviation; 0 and 1 where it is where it was learned.

    Raises
    ------
    UsageError
        Where there are several, not all of which are about there.
    """
    found = {(float(np.median(each)), float(each.std(dtype=np.float64)) or 1.0) for each in channels if each.size}
    if len(found) != 1:
        if any(abs(offset) > NEAR * scale for offset, scale in found):
            raise UsageError(
                "each of these channels is a signal of its own, at a place of its own: ask for one at a time, or take "
                "their medians away"
            )
        return 0.0, 1.0
    [(offset, scale)] = found
    return (0.0, 1.0) if abs(offset) <= SAME * scale and abs(scale - 1) <= SAME else (offset, scale)


def place(values: NDArray[np.float32], sigma: float, ends: Sequence[float] | None = None) -> tuple[float, float]:
    """Return by how much values are moved up from where a network knows them, and how many times they are as large.

    That is 0 and 1 where it knows them as they are.

    Parameters
    ----------
    values
        Of any shape.
    sigma
        Standard deviation of the noise in them.
    ends
        Between which values the images lay that were learned, where they were floats. Of those no more is known than
        where they began, since they are in units of their own, and may hold what stands for nothing.
    """
    if not values.size:
        return 0.0, 1.0
    least = float(values.min())
    most = max(float(values.max()) - least, sigma)
    some = values.ravel()[:: -(-values.size // SOME)].astype(np.float64)
    low, high = np.quantile(some, [ENDS, 1 - ENDS]) + np.array([WIDE, -WIDE]) * sigma  # the picture's own, or within
    extent = max(float(high - low), sigma)
    below = -max(sigma, BELOW * extent)
    if ends is not None:
        above = float(low) - ends[0]
        return (0.0 if above >= below else above - ROOM * extent), 1.0
    size = most if most < SMALL else extent if extent > LARGE else 1.0
    if least > FAR * most:
        return least - ROOM * most, size or 1.0
    return (0.0 if low >= below else float(low) - ROOM * extent), size or 1.0
