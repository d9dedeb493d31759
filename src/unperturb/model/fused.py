"""Two convolutions beside an identity, x + W₂ relu(W₁ x), in two operations: of a network that does not learn any more.

Asked for each by itself, a convolution's kernel is cast to half precision and brought into the order that the library
(oneDNN) computes in, at every call, and ReLU and sum go through memory once more. The library does both as part of a
convolution, and takes kernels that are in its order already. Of a network that is done with learning (`eval`) these are
kept. On two cores with matrix units the bundled networks answer 1.2 to 1.3 times as fast by it, and by adding in place.

PyTorch has no public name for this; by those below its own compiler asks for it. Where they are missing, or do not
compute what they should, nothing is lost but time.
"""

import functools
import weakref

import torch
from torch import Tensor
from torch.nn import functional

_AROUND: tuple[list[int], list[int], list[int], int] = ([1, 1], [1, 1], [1, 1], 1)
"""Zeros beyond the border, step, distance, groups: a plain 3 × 3 convolution."""


class Packed:
    """A kernel in the library's order, made when it is first asked for, and anew where the kernel has changed.

    Changes are known by the tensor, by its version, and, since there are ways round that (`Tensor.data`, NumPy), by the
    sum of some of its values. It is no part of what a network is: copies of the network make their own.
    """

    def __init__(self) -> None:
        self._found: tuple[weakref.ref[Tensor], tuple[int, float], Tensor] | None = None

    def __reduce__(self) -> tuple[type["Packed"], tuple[()]]:
        """Copy and pickle as an empty one."""
        return Packed, ()

    def of(self, weight: Tensor) -> Tensor:
        """Return the kernel ``(channel_out, channel, 3, 3)`` in bfloat16, as `residual` takes it."""
        version = 0 if weight.is_inference() else weight._version
        state = version, float(weight.detach()[::8, 0].sum(dtype=torch.float64))
        found = self._found
        if found is None or found[0]() is not weight or found[1] != state:
            found = weakref.ref(weight), state, _packed(weight)
            self._found = found  # all at once: other threads may ask meanwhile
        return found[2]


def pays(x: Tensor, *, learning: bool) -> bool:
    """Whether `residual` can serve this input, and is known to be faster; `learning` is of the network.

    Parameters
    ----------
    x
        ``(batch, channel, *space)``.
    learning
        Whether weights may change in ways that nobody tells of, as in training.
    """
    plain = x.ndim == 4 and x.dtype == torch.bfloat16 and x.device.type == "cpu"
    return plain and not learning and not torch.is_grad_enabled() and works()


def residual(x: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return ``x + conv2d(relu(conv2d(x, first)), second)`` with zeros beyond the border, written in place of `x`.

    Parameters
    ----------
    x
        ``(batch, channel, height, width)``, bfloat16 on the processor.
    first, second
        Kernels, as `Packed.of` gives them.
    """
    named = torch.ops.mkldnn._convolution_pointwise
    hidden = named(x, first, None, *_AROUND, "relu", [], "")
    answer: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
        x, hidden, second, None, *_AROUND, "add", 1.0, None, [], None
    )
    return answer


@functools.cache
def works() -> bool:
    """Whether this machine and this version of the library have what is asked for, found by trying."""
    try:
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            x, first, second = (torch.randn(16, 16, 3, 3, generator=generator) / size for size in (1, 12, 12))
            exact = x + functional.conv2d(functional.conv2d(x, first, padding=1).relu(), second, padding=1)
            half = x.bfloat16().contiguous(memory_format=torch.channels_last)
            return bool((residual(half, _packed(first), _packed(second)) - exact).abs().max() < 0.1)
    except (AttributeError, NotImplementedError, RuntimeError, TypeError):
        return False


def _packed(weight: Tensor) -> Tensor:
    half = weight.detach().to(torch.bfloat16, memory_format=torch.channels_last)
    kernel: Tensor = torch.ops.mkldnn._reorder_convolution_weight(half, *_AROUND)
    return kernel
