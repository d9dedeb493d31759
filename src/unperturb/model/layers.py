"""What a `UNet` is made of: convolutions without biases, in 1, 2 and 3 dimensions, each by its fastest way.

Where nothing is learned any more a residual block may write in place of what it was given, and what comes up from the
level below is added in place: the tensors between layers are the network's own.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from unperturb.model import fused, winograd


class Residual(nn.Module):
    """Two convolutions beside an identity: x + W₂ relu(W₁ x)."""

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        self.first = convolution(dims, width, width)
        self.second = convolution(dims, width, width)
        self._packed = fused.Packed(), fused.Packed()
        with torch.no_grad():
            self.second.weight.mul_(0.2)  # near the identity at first, so that depth costs no stability

    def forward(self, x: Tensor) -> Tensor:
        """Return a tensor of the shape of `x`; written in place of `x` where convolutions are fused."""
        if self._is_plain and fused.pays(x, learning=self.training):
            first, second = self._packed
            return fused.residual(x, first.of(self.first.weight), second.of(self.second.weight))
        return x + self.second(functional.relu(self.first(x)))

    @property
    def _is_plain(self) -> bool:
        """Whether both convolutions are what they were built as, and nobody listens to them."""
        layers = (self.first, self.second)
        heard = any(layer._forward_hooks or layer._forward_pre_hooks for layer in layers)
        return not heard and all(type(layer) is Convolution2d for layer in layers)


class Convolution2d(nn.Conv2d):
    """A 3 × 3 convolution without bias, that takes the faster way where there is one."""

    def forward(self, x: Tensor) -> Tensor:
        """``(batch, channel, height, width)``."""
        training = torch.is_grad_enabled() and self.weight.requires_grad
        if winograd.pays(x, self.weight, training=training):
            return winograd.convolve(x, self.weight)
        return super().forward(x)


class Doubling2d(nn.ConvTranspose2d):
    """A transposed 2 × 2 convolution of step 2 without bias: every pixel becomes four, by one matrix.

    A processor is asked for the product itself. The library's own kernel takes eight times as long as that of the
    convolution which goes the other way, a tenth of the whole network's time.
    """

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """``(batch, channel, height, width)`` to ``(batch, channel_out, 2 · height, 2 · width)``."""
        if x.device.type != "cpu":
            return super().forward(x, output_size)
        batch, _, height, width = x.shape
        return self._placed(x).reshape(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)

    def added_to(self, kept: Tensor, x: Tensor) -> Tensor:
        """Return ``kept + forward(x)``, written in place of `kept`."""
        placed = self._placed(x)
        total = kept.permute(0, 2, 3, 1).reshape(placed.shape).add_(placed)
        return total.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)

    def _placed(self, x: Tensor) -> Tensor:
        channels, out = self.weight.shape[:2]
        batch, _, height, width = x.shape
        four = functional.linear(x.permute(0, 2, 3, 1), self.weight.permute(2, 3, 1, 0).reshape(4 * out, channels))
        return four.view(batch, height, width, 2, 2, out).permute(0, 1, 3, 2, 4, 5)


def onto(kept: Tensor, up: nn.Module, features: Tensor) -> Tensor:
    """Return what was kept, and what comes from the level below, together."""
    if isinstance(up, Doubling2d) and kept.device.type == "cpu" and not torch.is_grad_enabled():
        return up.added_to(kept, features)
    total: Tensor = kept + up(features)
    return total


def blocks(dims: int, width: int, depth: int) -> nn.Sequential:
    """Return residual blocks, one behind the other."""
    return nn.Sequential(*(Residual(dims, width) for _ in range(depth)))


def convolution(dims: int, channels: int, out: int) -> nn.Conv1d | nn.Conv2d | nn.Conv3d:
    """Return a convolution over three places along each axis, zeros beyond the border."""
    kind: type[Any] = (nn.Conv1d, Convolution2d, nn.Conv3d)[dims - 1]
    layer: nn.Conv1d | nn.Conv2d | nn.Conv3d = kind(channels, out, 3, padding=1, bias=False)
    return layer


def halve(dims: int, channels: int, out: int) -> nn.Module:
    """Return what makes one place of two along each axis."""
    kind: type[Any] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    layer: nn.Module = kind(channels, out, 2, stride=2, bias=False)
    return layer


def double(dims: int, channels: int, out: int) -> nn.Module:
    """Return what makes two places of one along each axis."""
    kind: type[Any] = (nn.ConvTranspose1d, Doubling2d, nn.ConvTranspose3d)[dims - 1]
    layer: nn.Module = kind(channels, out, 2, stride=2, bias=False)
    return layer
