"""What else it could have been: draws from the posterior, by reverse diffusion.

From ``start = clean + sigma·n`` noise is taken away in small steps, down to none, and at each what cannot be known
is drawn anew. Writing t and s for the noise before and after a step, D for the answer of the denoiser, D(x_t, t), and
a = s²/t², the law of x_s given x_t has

    mean         D + a (x_t − D)
    covariance   s² (1 − a) I  +  (1 − a)² C,       C = Cov[clean | x_t] = t² J,    J = ∂D/∂x

(the first line and the first term: Ho, Jain and Abbeel, "Denoising diffusion probabilistic models", 2020, eq. 7, with
noise that grows instead of a signal that shrinks; the last term is the uncertainty about the clean signal, which that
Gaussian leaves out). Each method here is one function, a step, that differs in what it does about that last term:

`ancestral`
    adds it as it is told: nothing (order 1 in the length of a step), the same in every component, √(MSE(t)), from the
    model's validation error, or the whole of it for small signals, √C (order 2).
`corrected`
    the default. The noise z of the step is sent through the denoiser, which is evaluated after the step anyway:
    D(x_s, s) − D ≈ J s √(1−a) z. Adding this (t/s − 1) times gives the covariance s²(1−a) (I + (t/s − 1) J)², which is
    the right one where J has eigenvalues 0 and 1 only, the case of a clean signal that lies on a smooth surface, and of
    order 2 otherwise. It costs no evaluation.
`flow`
    adds no noise at all (Song, Meng and Ermon, "Denoising diffusion implicit models", 2021, eq. 12 with σ = 0). It is
    *not* a sampler of the posterior: it ends at one point, which depends on the start alone.

One loop, `trajectory`, runs any of them and yields its states; `sample` runs it for many draws.

All this is of an exact mean. A network on the way down sees less detail at each step than it would have seen in a clean
signal with as much noise, answers with less, and so on: draws come out too smooth, and too much alike. A little more
noise than should be drawn, a hundredth, makes up for it (`Denoiser.inflation`; S_noise of Karras, Aittala, Aila and
Laine, "Elucidating the design space of diffusion-based generative models", 2022). How much is found on held-out images.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unperturb.errors import UsageError
from unperturb.infer.derivative import jacobian
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.posterior import Posterior


class State(NamedTuple):
    """Where a trajectory is: `x`, with noise of `level` times that of the start, and the mean E[clean | x] there."""

    x: Tensor
    level: float
    mean: Tensor


Noise = Callable[[int], Tensor]
"""``noise(n)``: the n-th standard normal field of the step at hand, of the shape of `x`."""

Spread = Callable[[State, Tensor], Tensor]
"""``spread(state, z)``: a draw of N(0, C), made of a standard normal one; C is the covariance of clean given `x`."""

Step = Callable[[Posterior, State, float, Noise, Spread | None], State]
"""``step(posterior, state, level, noise, spread)``: the state at the lower `level`."""


def ancestral(posterior: Posterior, state: State, level: float, noise: Noise, spread: Spread | None) -> State:
    """Draw from a Gaussian with the mean of x_s given x_t, and its covariance as far as `spread` tells it."""
    a = (level / state.level) ** 2
    x = state.mean + a * (state.x - state.mean)
    if level > 0:
        x = x + posterior.spread_of_noise * (level * (1 - a) ** 0.5) * noise(0)
    if spread is not None:
        x = x + (1 - a) * spread(state, noise(1))
    return _arrived(posterior, x, level)


def corrected(posterior: Posterior, state: State, level: float, noise: Noise, spread: Spread | None) -> State:
    """Draw as `ancestral` without a spread, then add what the denoiser makes of the noise that was drawn.

    The answer after the correction is not evaluated but continued: for J² = J, D(x_s) = D + (t/s) (D(x'_s) − D), with
    x'_s the point before it. The last step, down to no noise, has nothing to send through, and of one that leaves less
    than a quarter of the noise this would make too much: these are steps of `ancestral`.
    """
    if 4 * level < state.level:
        return ancestral(posterior, state, level, noise, spread)
    drawn = ancestral(posterior, state, level, noise, None)
    learned = drawn.mean - state.mean
    more = state.level / level - 1
    return State(drawn.x + more * learned, level, drawn.mean + more * learned)


def flow(posterior: Posterior, state: State, level: float, noise: Noise, spread: Spread | None) -> State:  # noqa: ARG001 (a step's signature)
    """Follow the deterministic flow: x_s = D + (s/t) (x_t − D). Not a draw from the posterior."""
    return _arrived(posterior, state.mean + (level / state.level) * (state.x - state.mean), level)


def _arrived(posterior: Posterior, x: Tensor, level: float) -> State:
    """Return the state at `x`. Without noise there is nothing left to ask the denoiser."""
    return State(x, level, posterior.at(x, level) if level > 0 else x)


# --- what is known of the covariance ----------------------------------------------------------------------------------


def scalar_spread(posterior: Posterior) -> Spread | None:
    """Return the same standard deviation for every component, the root of the mean squared error at the state's level.

    Returns
    -------
    Spread or None
        None where the denoise function knows nothing of its error (a `Denoiser` has it on its card).
    """
    known = getattr(posterior.denoise, "expected_error", None)
    if known is None or known(posterior.spread_of_noise, posterior.start.shape[1]) is None:
        return None

    def spread(state: State, z: Tensor) -> Tensor:
        error: Tensor = known(posterior.spread_of_noise * state.level, z.shape[1])
        if error.ndim and len(error) < len(z):
            error = error.repeat(len(z) // len(error), *(1,) * (z.ndim - 1))
        return error.sqrt() * z

    return spread


def jacobian_spread(posterior: Posterior) -> Spread:
    """Return the whole covariance t² J, from the derivative of the denoise function; for signals of few components."""

    def spread(state: State, z: Tensor) -> Tensor:
        noise = (posterior.spread_of_noise * state.level).expand(len(z), *z.shape[1:]).flatten(1)
        matrix = noise[:, :, None] * jacobian(posterior, x=state.x, level=state.level) * noise[:, None, :]
        values, vectors = torch.linalg.eigh((matrix + matrix.transpose(1, 2)) / 2)
        return torch.einsum("bij,bj->bi", vectors, values.clamp(min=0).sqrt() * z.flatten(1)).view_as(z)

    return spread


# --- schedules --------------------------------------------------------------------------------------------------------


def polynomial_levels(steps: int, power: float = 1.4) -> list[float]:
    """Return noise levels from 1 down to 0, (1 − k/steps)^power: shorter steps towards the end where it is above 1.

    Raises
    ------
    UsageError
        Where there is no step, or the power is not above 0.
    """
    if steps < 1 or not power > 0:
        raise UsageError(f"a schedule has at least one step and a power above 0; got {steps} and {power}")
    return [(1 - k / steps) ** power for k in range(steps + 1)]


def geometric_levels(steps: int, lowest: float = 1e-2) -> list[float]:
    """Return noise levels from 1 down to `lowest`, each the same share of the one before, and 0 at the end.

    Raises
    ------
    UsageError
        Where there is no step, or `lowest` is not between 0 and 1.
    """
    if steps < 1 or not 0 < lowest < 1:
        raise UsageError(f"a schedule has at least one step and a lowest level between 0 and 1; got {steps}, {lowest}")
    return [lowest ** (k / max(steps - 1, 1)) for k in range(steps)] + [0.0]


def falling_levels(steps: int, lowest: float = 2e-3, power: float = 7.0) -> list[float]:
    """Return noise levels that fall from 1 to `lowest` by about equal shares, somewhat larger ones at first; then 0.

    For walks that begin where noise hides everything (Karras et al., 2022, eq. 5).

    Raises
    ------
    UsageError
        Where there is no step, or `lowest` is not between 0 and 1.
    """
    if steps < 1 or not 0 < lowest < 1:
        raise UsageError(f"a schedule has at least one step and a lowest level between 0 and 1; got {steps}, {lowest}")
    last = lowest ** (1 / power)
    return [(1 + k / max(steps - 1, 1) * (last - 1)) ** power for k in range(steps)] + [0.0]


def default_levels(posterior: Posterior, steps: int) -> list[float]:
    """Return the noise levels of a walk of so many steps, as suits where it begins.

    Where the start says nothing, a walk goes at once to the level at which something does.
    """
    if posterior.onset < 1 and steps > 2:
        top = posterior.onset
        return [1.0, *(top * level for level in falling_levels(steps - 1, 2e-3 / top))]
    falls = posterior.onset < 1 or (posterior.blind and posterior.start.ndim < 4)
    return falling_levels(steps) if falls else polynomial_levels(steps)


# --- methods, and the loop --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Method:
    """A step, and what it is told of the covariance: a function of the posterior, or nothing."""

    step: Step
    spread: Callable[[Posterior], Spread | None] | None = None


METHODS: dict[str, Method] = {
    "corrected": Method(corrected, scalar_spread),
    "ancestral": Method(ancestral, scalar_spread),
    "ancestral-plain": Method(ancestral),
    "ancestral-jacobian": Method(ancestral, jacobian_spread),
    "flow": Method(flow),
}
"""All ways down by name; all but "flow" draw from the posterior, as the steps grow in number."""

STEPS = 20
"""Default number of steps, each one evaluation of the denoiser."""


def trajectory(
    posterior: Posterior,
    noise: Callable[[int, int], Tensor],
    *,
    method: str = "corrected",
    levels: Sequence[float] | None = None,
    mean: Tensor | None = None,
) -> Iterator[State]:
    """Walk from the start down to no noise, one draw an item of the batch, yielding every state, the first included.

    Parameters
    ----------
    posterior
        The problem.
    noise
        ``noise(step, n)``: the n-th standard normal field of a step, of the shape of the start.
    method
        One of `METHODS`.
    levels
        Noise levels relative to that of the start, falling from 1 to 0.
    mean
        The best guess, where it is known already; saves the first evaluation.

    Raises
    ------
    UsageError
        Where there is no such method, or the levels do not fall from 1.
    """
    if method not in METHODS:
        raise UsageError(f"there is no method {method!r}; the methods are {', '.join(METHODS)}")
    levels = default_levels(posterior, STEPS) if levels is None else levels
    if levels[0] != 1 or any(low >= high for high, low in pairwise(levels)) or levels[-1] < 0:
        raise UsageError("noise levels fall from 1, each below the one before, and none is below 0")
    step, spread_of = METHODS[method].step, METHODS[method].spread
    more = _inflation(posterior)
    spread = None if spread_of is None else spread_of(posterior)
    state = State(posterior.start, 1.0, posterior.mean if mean is None else mean)
    yield state
    for number, level in enumerate(levels[1:]):

        def drawn(n: int, number: int = number) -> Tensor:
            return more * noise(number, n)

        state = step(posterior, state, level, drawn, spread)
        yield state


def _inflation(posterior: Posterior) -> Tensor:
    """Return what noise is multiplied by, of a shape that goes with that of the start."""
    known = getattr(posterior.denoise, "inflation", None)
    found: Tensor = torch.ones(()) if known is None else known(posterior.spread_of_noise)
    return found


def sample(
    posterior: Posterior,
    n_samples: int | Sequence[int] = 1,
    *,
    steps: int = STEPS,
    method: str = "corrected",
    seed: int = 0,
    items: Sequence[int] | None = None,
    batch: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Draw from the posterior.

    Parameters
    ----------
    posterior
        The problem.
    n_samples
        How many draws for each item of the start; or the numbers of the draws, such as ``range(4, 8)`` for the last
        four of eight.
    steps
        Of the walk; each is one evaluation of the denoiser.
    method
        One of `METHODS`.
    seed
        The same seed gives the same draws, whatever they are made together with.
    items
        Numbers of the items of the start, from which their noise comes; 0, 1, 2 … by default.
    batch
        How many draws to make at a time; by default as many as make 4 million values.
    progress
        Called with the evaluations done and all there are.

    Returns
    -------
    Tensor
        ``(n_samples, *start.shape)``.

    Raises
    ------
    UsageError
        Where a number is out of range, or there is no such method.
    """
    numbers = range(n_samples) if isinstance(n_samples, int) else n_samples
    if len(numbers) < 1:
        raise UsageError(f"the number of draws is at least 1; got {len(numbers)}")
    levels = default_levels(posterior, steps)
    items = range(len(posterior.start)) if items is None else items
    batch = max(1, 4_000_000 // max(posterior.start.numel(), 1)) if batch is None else batch
    shape = posterior.start.shape
    draws = []
    for begin in range(0, len(numbers), batch):
        group = numbers[begin : begin + batch]
        keys = np.array([(seed % 2**64, item, number, 0) for number in group for item in items], np.uint64)
        noise = partial(_noise, keys, shape[1:], posterior.start.dtype)
        mean = posterior.mean.repeat(len(group), *(1,) * (len(shape) - 1))
        repeated = posterior.repeated(len(group))
        if posterior.blind:
            repeated = replace(repeated, start=mean + repeated.spread_of_noise * noise(_BEFORE, 0))
        walk = trajectory(repeated, noise, method=method, levels=levels, mean=mean)
        for done, state in enumerate(walk):
            last = state
            if progress is not None:
                progress(begin * steps + done * len(group), len(numbers) * steps)
        draws.append(last.x.view(len(group), *shape))
    return torch.cat(draws)


_BEFORE = 2**62
"""Number, out of the way of all others, of the step that noise at a blind start is drawn in."""


def _noise(keys: NDArray[np.uint64], shape: Sequence[int], dtype: torch.dtype, step: int, n: int) -> Tensor:
    """Return the n-th field of a step, of which there are up to two, for each key."""
    return keyed_normal(keys + np.array([0, 0, 0, 2 * step + n], np.uint64), shape, dtype=dtype)
