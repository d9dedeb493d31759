"""Networks φ: the part of a denoiser that learns.

All have one call signature,

    phi(x, sigma, given=None) -> estimate of the clean x, of the same shape

with `sigma` the standard deviation of the noise, one for all, one an item, or (images) one a pixel, and `given` what a
conditional network is shown of the rest of the observation (`unperturb.model.given`).

`UNet` is free of biases and of normalisation layers, with ReLU as its only nonlinearity. So it is homogeneous: scaling
the values and the noise level together scales the answer, φ(a·x, a·σ) = a·φ(x, σ) for a > 0, and one network serves
every noise level and contrast (Mohan, Kadkhodaie, Simoncelli and Fernandez-Granda, "Robust and interpretable blind
image denoising via bias-free convolutional neural networks", ICLR 2020). Pixel-unshuffle in front moves all work to a
coarser grid (Zhang, Zuo and Zhang, "FFDNet", 2018); the residual U-Net behind it is that of Zhang et al.,
"Plug-and-play image restoration with deep denoiser prior" (DRUNet), 2021, in small.

`VectorNet` serves points and rows, where what is learned has a scale and a place of its own.
"""

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from unperturb.errors import ModelError, UsageError
from unperturb.model.given import Given
from unperturb.model.layers import blocks, convolution, double, halve, onto
from unperturb.model.layout import arranged, as_map, luminance_basis, padded, shuffle, unshuffle


class Network(Protocol):
    """What a denoiser asks of the part that learns."""

    def __call__(self, x: Tensor, sigma: Tensor, given: Given | None = None) -> Tensor:
        """Estimate the clean signal: same shape as `x`."""
        ...


@dataclass(frozen=True)
class UNetSettings:
    """The size of a `UNet`.

    Attributes
    ----------
    dims
        Space dimensions: 1, 2 or 3.
    channels
        The most channels of a signal: 1 for gray, 3 for colour. A colour network takes gray images as well.
    widths
        Features a level; each level has half the resolution of the one before.
    blocks
        Residual blocks a side: as many at every level, or one number a level.
    shuffle
        Pixels along each axis that become channels in front.
    given
        Whether the network is conditional: whether it is shown an observation beside the noisy signal.
    """

    dims: int = 2
    channels: int = 1
    widths: tuple[int, ...] = (64, 128, 256)
    blocks: int | tuple[int, ...] = 2
    shuffle: int = 2
    given: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.dims not in (1, 2, 3):
            raise UsageError(f"a network for images has 1, 2 or 3 space dimensions; got {self.dims}")
        if not isinstance(self.blocks, int):
            object.__setattr__(self, "blocks", tuple(self.blocks))
        if not self.widths or min(self.channels, self.shuffle, *self.widths, *self.depths) < 1:
            raise UsageError("channels, widths, blocks and shuffle of a network are at least 1")
        if len(self.depths) != len(self.widths):
            raise UsageError(
                f"blocks are one number, or one for each of the {len(self.widths)} levels; got {self.blocks}"
            )

    @property
    def depths(self) -> tuple[int, ...]:
        """Residual blocks of every level, a side; the last has one side."""
        return (self.blocks,) * len(self.widths) if isinstance(self.blocks, int) else self.blocks

    @property
    def multiple(self) -> int:
        """Pixels along each axis that the network takes as a unit: the side of its coarsest pixel."""
        return self.shuffle * 2 ** (len(self.widths) - 1)

    @property
    def radius(self) -> int:
        """Pixels from an output to the farthest input that it can depend on, rounded up to `multiple`."""
        convolutions = [4 * depth for depth in self.depths[:-1]] + [2 * self.depths[-1]]
        reach = sum(count * self.shuffle * 2**level for level, count in enumerate(convolutions))
        reach += 2 * self.shuffle + self.multiple
        return -(-reach // self.multiple) * self.multiple


@dataclass(frozen=True)
class VectorNetSettings:
    """The size of a `VectorNet`: features of a row, width and number of its hidden layers; conditional if `given`."""

    features: int = 2
    width: int = 128
    layers: int = 3
    given: bool = False

    def __post_init__(self) -> None:
        if min(self.features, self.width, self.layers) < 1:
            raise UsageError("features, width and layers of a network are at least 1")


NetworkSettings = UNetSettings | VectorNetSettings

PRESETS: dict[str, NetworkSettings] = {
    "tiny": UNetSettings(widths=(8, 16), blocks=1),
    "small": UNetSettings(widths=(32, 64, 128), blocks=1),
    "medium": UNetSettings(widths=(64, 128, 256), blocks=2),
    "large": UNetSettings(widths=(64, 128, 256), blocks=4),
    "vector": VectorNetSettings(),
}
"""Sizes by name. Parameters of the two-dimensional ones: 0.01, 0.6, 4.2 and 8.0 million."""


def build(settings: NetworkSettings) -> "UNet | VectorNet":
    """Return an untrained network of these settings; its weights come from torch's global generator."""
    return UNet(settings) if isinstance(settings, UNetSettings) else VectorNet(settings)


def describe(settings: NetworkSettings) -> dict[str, Any]:
    """Return settings as plain values, for a model card. `recall` is the way back."""
    return {"kind": "unet" if isinstance(settings, UNetSettings) else "vector", **asdict(settings)}


def recall(description: dict[str, Any]) -> NetworkSettings:
    """Return the settings that `describe` has described.

    Raises
    ------
    ModelError
        Where the description is of no network that this version knows.
    """
    kinds = {"unet": UNetSettings, "vector": VectorNetSettings}
    try:
        fields = {key: value for key, value in description.items() if key != "kind"}
        return kinds[description["kind"]](**fields)
    except (AttributeError, KeyError, TypeError, UsageError) as error:
        raise ModelError(f"the model's network {description!r} is not one that this version knows ({error})") from None


class UNet(nn.Module):
    """Bias-free residual U-Net for signals ``(batch, channel, *space)``; any size, padded inside by mirroring.

    A colour network works in an orthonormal basis of luminance and two colour differences, in which white noise stays
    white. There a gray image is a colour image whose colour differences are zero, without noise: one network for both.
    """

    _basis: Tensor

    def __init__(self, settings: UNetSettings) -> None:
        super().__init__()
        self.settings = settings
        widths, dims = settings.widths, settings.dims
        phases = settings.shuffle**dims
        seen = (settings.channels + 1) * (2 if settings.given else 1)
        self.head = convolution(dims, seen * phases, widths[0])
        sides = list(zip(widths, settings.depths, strict=True))
        self.encode = nn.ModuleList(blocks(dims, *side) for side in sides[:-1])
        self.down = nn.ModuleList(halve(dims, *pair) for pair in pairwise(widths))
        self.middle = blocks(dims, *sides[-1])
        self.up = nn.ModuleList(double(dims, *pair) for pair in zip(widths[1:], widths[:-1], strict=True))
        self.decode = nn.ModuleList(blocks(dims, *side) for side in sides[:-1])
        self.tail = convolution(dims, widths[0], settings.channels * phases)
        with torch.no_grad():
            self.tail.weight.mul_(0.1)  # the untrained network all but returns its input
        self.register_buffer("_basis", luminance_basis(settings.channels), persistent=False)

    def forward(self, x: Tensor, sigma: Tensor, given: Given | None = None) -> Tensor:
        """Estimate the clean signal.

        A conditional network has two versions of the clean signal: x with its noise σ, and y, which may be off by e.
        With c² = e² / (e² + σ²) at every place, the two make one, as if the errors of both were noise,

            z = c² x + (1 − c²) y,   of noise   u = c σ,        D = z − N(z, u, y, mask)

        From there on it is a denoiser like any other, that is shown y and its mask besides.

        Parameters
        ----------
        x
            ``(batch, channel, *space)``; channel is the network's, or 1.
        sigma
            Scalar, ``(batch,)``, or a map that broadcasts to ``(batch, 1, *space)``; in the units of `x`.
        given
            What is shown to a conditional network; None for any other.

        Raises
        ------
        ModelError
            Where the signal has another number of dimensions or channels than the network, or the network is
            conditional and is shown nothing, or the other way round.
        """
        self._check(x)
        _check_given(given, self.settings.given)
        shape = x.shape[2:]
        level = as_map(sigma, x)
        if given is None:
            x, level = (padded(values, self.settings.multiple) for values in (x, level))
            estimate = x - self._noise(x, level)
        else:
            # Of 0 and 0, y is taken.
            share = (given.error / torch.hypot(given.error, level).clamp(min=1e-30)).square()
            blend = share * x + (1 - share) * given.values
            parts = (blend, share.sqrt() * level, given.values, given.mask * given.scale.view(-1, *(1,) * (x.ndim - 1)))
            blend, level, shown, mask = (padded(values, self.settings.multiple) for values in parts)
            estimate = blend - self._noise(blend, level, shown, mask)
        index: tuple[Any, ...] = (..., *(slice(length) for length in shape))
        return estimate[index]

    def _noise(self, x: Tensor, *rest: Tensor) -> Tensor:
        """Return what the network takes for noise in `x`; the rest are its level, and y and its mask where given."""
        channels, factor = x.shape[1], self.settings.shuffle
        basis = self._basis if channels == self.settings.channels else self._basis.new_ones(1, 1)
        # Signals and maps take turns: x, its level, then y, its mask.
        maps = [self._in_basis(seen, basis) if turn % 2 == 0 else seen for turn, seen in enumerate((x, *rest))]
        features = self._begin(arranged(unshuffle(torch.cat(maps, 1), factor)))
        kept = []
        for encode, down in zip(self.encode, self.down, strict=True):
            features = encode(features)
            kept.append(features)
            features = down(features)
        features = self.middle(features)
        for up, decode in zip(reversed(self.up), reversed(self.decode), strict=True):
            features = decode(onto(kept.pop(), up, features))
        noise = shuffle(self.tail(features), factor)[:, :channels]
        return torch.einsum("ij,bi...->bj...", basis, noise)

    def _begin(self, seen: Tensor) -> Tensor:
        """Return the first features; of all values of what is seen, though the rest be computed in half precision.

        Rounded to half precision, the values of a picture are off by a quarter of a grey level. The network, which
        says what is noise, would not see that error, and it would stay in the answer. So they come in two parts, which
        have the same kernel: what half precision holds, and what it leaves.
        """
        device = seen.device.type
        if not torch.is_autocast_enabled(device):
            features: Tensor = self.head(seen)
            return features
        rounded = seen.to(torch.get_autocast_dtype(device))
        parts = torch.cat([rounded, (seen - rounded).to(rounded.dtype)], 1)
        convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[self.settings.dims - 1]
        return convolve(parts, torch.cat([self.head.weight] * 2, 1), padding=1)

    def _in_basis(self, x: Tensor, basis: Tensor) -> Tensor:
        """Return luminance and colour differences, which are 0 for a gray signal."""
        signal = torch.einsum("ij,bj...->bi...", basis, x)
        missing = self.settings.channels - x.shape[1]
        return torch.cat([signal, signal.new_zeros(len(x), missing, *x.shape[2:])], 1) if missing else signal

    def _check(self, x: Tensor) -> None:
        dims, channels = self.settings.dims, self.settings.channels
        if x.ndim != dims + 2:
            raise ModelError(f"the model takes {dims}-dimensional signals; got values of shape {tuple(x.shape)}")
        if x.shape[1] not in (1, channels):
            raise ModelError(f"the model takes {channels} channel{'s' * (channels > 1)}; got {x.shape[1]}")


class VectorNet(nn.Module):
    """Multilayer perceptron for vectors ``(batch, feature)`` of about unit variance, preconditioned for every sigma.

    φ(x, σ) = c_skip·x + c_out·F(c_in·x, ln σ / 4), with the coefficients that keep input and target of F at unit
    variance (Karras, Aittala, Aila and Laine, "Elucidating the design space of diffusion-based generative models",
    2022, table 1 with σ_data = 1).
    """

    def __init__(self, settings: VectorNetSettings) -> None:
        super().__init__()
        self.settings = settings
        seen = settings.features * (3 if settings.given else 1) + 1
        sizes = [seen, *[settings.width] * settings.layers]
        hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.layers = nn.Sequential(*hidden, nn.Linear(settings.width, settings.features))

    def forward(self, x: Tensor, sigma: Tensor, given: Given | None = None) -> Tensor:
        """Estimate the clean vector.

        Parameters
        ----------
        x
            ``(batch, feature)``.
        sigma
            Scalar or ``(batch,)``; in the units of `x`.
        given
            What is shown to a conditional network; None for any other.

        Raises
        ------
        ModelError
            Where the vectors have another number of features than the network, or the network is conditional and is
            shown nothing, or the other way round.
        """
        hidden = self.encode(x, sigma, given)
        sigma = sigma.to(x).expand(len(x))[:, None].clamp(min=1e-6)
        spread = (1 + sigma**2).sqrt()
        return x / spread**2 + self.layers[-1](hidden) * sigma / spread

    def encode(self, x: Tensor, sigma: Tensor, given: Given | None = None) -> Tensor:
        """Return the last hidden layer, ``(batch, width)``; arguments and errors as for `forward`."""
        if x.ndim != 2 or x.shape[1] != self.settings.features:
            raise ModelError(f"the model takes vectors of {self.settings.features} features; got {tuple(x.shape)}")
        _check_given(given, self.settings.given)
        sigma = sigma.to(x).expand(len(x))[:, None].clamp(min=1e-6)
        shown = [] if given is None else [given.values, given.mask]
        hidden: Tensor = self.layers[:-1](torch.cat([x / (1 + sigma**2).sqrt(), sigma.log() / 4, *shown], 1))
        return hidden


def _check_given(given: Given | None, wanted: bool) -> None:
    if wanted and given is None:
        raise ModelError("this model restores from an observation: bind it to one first, denoiser.given(y, mask)")
    if given is not None and not wanted:
        raise ModelError("this model takes noise alone, and nothing beside it can be given to it")
