"""The fast convolution is the plain one, up to rounding: its result, and both its gradients."""

import pytest
import torch
from torch.nn import functional

from unperturb.model import winograd
from unperturb.model.layers import Convolution2d

SHAPES = [(1, 3, 5, 4, 4), (2, 48, 64, 8, 12), (3, 64, 48, 16, 4), (1, 7, 2, 20, 8), (2, 5, 6, 7, 1), (1, 6, 5, 13, 10)]
"""Batch, channels in, channels out, height, width."""


def values(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem(batch: int, channels: int, out: int, height: int, width: int) -> tuple[torch.Tensor, ...]:
    """Return image, kernel, and the gradient of the result; all with a mean, so that signs do not cancel errors."""
    x = values(batch, channels, height, width, seed=1) + 1
    weight = values(out, channels, 3, 3, seed=2) + 0.3
    return x, weight, values(batch, out, height, width, seed=3) + 0.5


def assert_close(one: torch.Tensor, exact: torch.Tensor) -> None:
    assert one.shape == exact.shape
    assert (one - exact).norm() <= 1e-5 * exact.norm()
    assert (one - exact).abs().max() <= 5e-5 * exact.abs().max()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_result_and_gradients_are_those_of_the_plain_convolution(shape, layout):
    """Compared with the library's in float64.

    Breaks: two entries of a basis matrix swapped; tiles gathered 3 apart; overlaps not added in the gradient.
    """
    x, weight, gradient = problem(*shape)
    fast = [tensor.contiguous(memory_format=layout).requires_grad_() for tensor in (x, weight)]
    exact = [tensor.double().requires_grad_() for tensor in (x, weight)]
    result = winograd.convolve(*fast)
    plain = functional.conv2d(*exact, padding=1)
    assert_close(result, plain)
    for one, other in zip(
        torch.autograd.grad(result, fast, gradient.contiguous(memory_format=layout)),
        torch.autograd.grad(plain, exact, gradient.double()),
        strict=True,
    ):
        assert_close(one, other)


def test_gradients_of_a_sum_are_right():
    """The gradient of a sum is one number, expanded: a tensor without strides."""
    x, weight, _ = problem(2, 4, 6, 8, 8)
    x.requires_grad_()
    weight.requires_grad_()
    for one, other in zip(
        torch.autograd.grad(winograd.convolve(x, weight).sum(), (x, weight)),
        torch.autograd.grad(functional.conv2d(x, weight, padding=1).sum(), (x, weight)),
        strict=True,
    ):
        assert_close(one, other)


def test_an_image_that_needs_no_gradient_gets_none():
    x, weight, gradient = problem(1, 5, 4, 8, 8)
    weight.requires_grad_()
    (fast,) = torch.autograd.grad(winograd.convolve(x, weight), weight, gradient)
    (plain,) = torch.autograd.grad(functional.conv2d(x, weight, padding=1), weight, gradient)
    assert_close(fast, plain)


def test_images_come_back_unmodified():
    x, weight, _ = problem(1, 5, 4, 8, 8)
    before = x.clone(), weight.clone()
    winograd.convolve(x, weight)
    assert torch.equal(x, before[0])
    assert torch.equal(weight, before[1])


@pytest.mark.parametrize(
    ("image", "width", "training", "pays"),
    [
        (torch.zeros(1, 48, 8, 10), 48, True, True),
        (torch.zeros(1, 48, 8, 12), 47, True, False),
        (torch.zeros(1, 47, 8, 12), 48, True, False),
        (torch.zeros(1, 127, 64, 64), 128, False, False),
        (torch.zeros(1, 128, 64, 64), 128, False, True),
        (torch.zeros(1, 128, 16, 16), 128, False, False),
        (torch.zeros(1, 48, 8, 12, dtype=torch.float64), 48, True, False),
        (torch.zeros(1, 48, 8, 12, dtype=torch.bfloat16), 48, True, False),
        (torch.zeros(1, 48, 8, 12, device="meta"), 48, True, False),
    ],
)
def test_where_it_pays(image, width, training, pays):
    kernel = torch.zeros(width, image.shape[1], 3, 3, dtype=torch.promote_types(image.dtype, torch.float32))
    assert winograd.pays(image, kernel, training=training) is pays


def test_layers_take_it_where_it_pays(monkeypatch):
    """And give the same either way."""
    calls = []
    monkeypatch.setattr(
        winograd, "convolve", lambda x, weight, fast=winograd.convolve: calls.append(1) or fast(x, weight)
    )
    layer = Convolution2d(48, 48, 3, padding=1, bias=False)
    x = values(1, 48, 8, 7, seed=4)
    trained = layer(x)
    assert calls
    calls.clear()
    with torch.no_grad():
        assert_close(trained.detach(), layer(x))
    layer.requires_grad_(False)(x)
    assert not calls


def test_layers_work_in_bfloat16():
    """Under autocast the values may still be float32 at the first layer."""
    layer = Convolution2d(48, 48, 3, padding=1, bias=False)
    x = values(1, 48, 8, 8, seed=5).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(x)
    gradient = torch.ones_like(result)
    for one, other in zip(
        (result, *torch.autograd.grad(result, (x, layer.weight), gradient)),
        (
            plain := functional.conv2d(x, layer.weight, padding=1),
            *torch.autograd.grad(plain, (x, layer.weight), gradient.float()),
        ),
        strict=True,
    ):
        assert (one - other).norm() <= 0.01 * other.norm()
