"""Networks answer at any size and any noise level, and depend on no more of their input than they say."""

import json
from dataclasses import replace
from itertools import product
from math import sqrt

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unperturb.errors import ModelError, UsageError
from unperturb.model.layers import Doubling2d
from unperturb.model.layout import as_map, shuffle, unshuffle
from unperturb.model.network import (
    PRESETS,
    UNet,
    UNetSettings,
    VectorNet,
    VectorNetSettings,
    build,
    describe,
    recall,
)

slow_machine = settings(max_examples=25, deadline=None)


def small(dims: int = 2, channels: int = 1, **others) -> UNetSettings:
    return UNetSettings(**{"dims": dims, "channels": channels, "widths": (4, 8), "blocks": 1, **others})


def strong(size: UNetSettings, seed: int = 0) -> UNet:
    """Build a network whose answer is far from its input, unlike that of an untrained one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(size)
    with torch.no_grad():
        network.tail.weight.mul_(30)
    return network.requires_grad_(False)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def number(value: float) -> torch.Tensor:
    return torch.tensor(value)


# --- Any size ---------------------------------------------------------------------------------------------------------


@slow_machine
@given(
    dims=st.integers(1, 3),
    channels=st.integers(1, 3),
    factor=st.integers(1, 3),
    batch=st.integers(1, 2),
    sides=st.tuples(*[st.integers(1, 12)] * 3),
)
def test_every_size_gives_an_answer_of_its_own_size(dims, channels, factor, batch, sides):
    network = strong(small(dims, channels, shuffle=factor))
    for taken in {1, channels}:
        x = noise(batch, taken, *sides[:dims])
        before = x.clone()
        answer = network(x, number(0.3))
        assert answer.shape == x.shape
        assert answer.isfinite().all()
        assert torch.equal(x, before)


@pytest.mark.parametrize("sides", [(5, 7), (1, 1), (1, 9), (2, 13), (3, 2)], ids=str)
def test_sizes_between_are_continued_by_their_mirror_image(sides):
    network = strong(small(widths=(2, 4, 6)))
    y = noise(2, 1, *sides)
    beyond = [(0, -length % network.settings.multiple) for length in sides]
    mirrored = torch.from_numpy(np.pad(y.numpy(), [(0, 0), (0, 0), *beyond], mode="reflect"))
    assert mirrored.shape[2:] != y.shape[2:]
    expected = network(mirrored, number(0.3))[..., : sides[0], : sides[1]]
    torch.testing.assert_close(network(y, number(0.3)), expected)


def test_items_do_not_see_each_other():
    network = strong(small())
    x = noise(3, 1, 9, 9)
    together = network(x, torch.tensor([0.1, 0.2, 0.3]))
    for index, level in enumerate((0.1, 0.2, 0.3)):
        torch.testing.assert_close(together[index : index + 1], network(x[index : index + 1], number(level)))


# --- Noise levels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dims", "channels"), [*product((1, 2, 3), (1, 3))])
def test_one_level_is_the_same_as_number_as_one_an_item_and_as_a_map(dims, channels):
    network = strong(small(dims, channels))
    x = noise(2, channels, *(7, 6, 5)[:dims])
    expected = network(x, number(0.3))
    for level in (
        torch.full((1,), 0.3),
        torch.full((2,), 0.3),
        torch.full((2, *(1,) * (dims + 1)), 0.3),
        torch.full((1, 1, *x.shape[2:]), 0.3),
        torch.full((2, 1, *x.shape[2:]), 0.3),
        torch.tensor(0.3, dtype=torch.float64),
    ):
        assert torch.equal(network(x, level), expected)


def test_the_level_matters():
    network, x = strong(small()), noise(1, 1, 16, 16)
    assert (network(x, number(0.1)) - network(x, number(0.6))).abs().max() > 0.01


def test_a_step_in_the_map_is_felt_near_it_and_not_beyond_the_receptive_field():
    network = strong(small())
    radius, middle = network.settings.radius, 64
    x = noise(1, 1, 8, 2 * middle)
    step = torch.full((1, 1, 8, 2 * middle), 0.1)
    step[..., middle:] = 0.5
    answer, weak, strong_one = (network(x, level) for level in (step, number(0.1), number(0.5)))
    torch.testing.assert_close(answer[..., : middle - radius], weak[..., : middle - radius])
    torch.testing.assert_close(answer[..., middle + radius :], strong_one[..., middle + radius :])
    near = slice(middle - 4, middle + 4)
    assert (answer - weak)[..., near].abs().max() > 1e-3
    assert (answer - strong_one)[..., near].abs().max() > 1e-3


@pytest.mark.parametrize("shape", [(3,), (2, 2, 5, 5), (2, 1, 4, 5), (5, 4)], ids=str)
def test_levels_of_another_shape_are_refused(shape):
    with pytest.raises(UsageError, match="sigma is one number"):
        as_map(torch.zeros(shape), torch.zeros(2, 2, 5, 5))


# --- The receptive field ----------------------------------------------------------------------------------------------

FIELDS = [
    *(
        replace(size, widths=(1,) * len(size.widths), dims=1)
        for size in PRESETS.values()
        if isinstance(size, UNetSettings)
    ),
    UNetSettings(dims=1, widths=(1,), blocks=1, shuffle=1),
    UNetSettings(dims=1, widths=(1, 1), blocks=3, shuffle=3),
    UNetSettings(dims=1, widths=(1, 1, 1), blocks=(1, 2, 4), shuffle=2),
    UNetSettings(dims=2, widths=(1, 1), blocks=1, shuffle=2),
    UNetSettings(dims=3, widths=(1, 1), blocks=1, shuffle=1),
]


@pytest.mark.parametrize(
    "size", FIELDS, ids=lambda size: f"{size.dims}d-{len(size.widths)}x{size.blocks}-{size.shuffle}"
)
def test_the_radius_bounds_what_an_output_depends_on_and_is_not_loose(size):
    """Breaks: `radius` without the middle's convolutions; twice as large as needed.

    With positive weights and values nothing cancels and no ReLU is off: the gradient reaches as far as it ever can.
    """
    network = UNet(size).double()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.ones_like(weight) / weight[0].numel())
    radius, unit = size.radius, size.multiple
    length = 2 * radius + 3 * unit
    x = torch.ones(1, 1, *[length] * size.dims, dtype=torch.float64, requires_grad=True)
    answer = network(x, torch.tensor(1.0, dtype=torch.float64))
    farthest = 0
    for shift in range(unit):
        place = [radius + unit + shift] * size.dims
        (gradient,) = torch.autograd.grad(answer[(0, 0, *place)], x, retain_graph=True)
        touched = gradient[0, 0].nonzero()
        farthest = max(farthest, int((touched - torch.tensor(place)).abs().max()))
    assert farthest <= radius
    assert radius - farthest < 2 * unit


@pytest.mark.parametrize("shape", [(1, 6, 1, 1), (2, 6, 5, 3)])
def test_doubling_is_the_transposed_convolution(shape):
    """Break: rows and columns of the four in the other order."""
    doubling = Doubling2d(6, 4, 2, stride=2, bias=False).double()
    x = noise(*shape).double().requires_grad_()
    expected = torch.nn.functional.conv_transpose2d(x, doubling.weight, stride=2)
    answer = doubling(x)
    torch.testing.assert_close(answer, expected)
    found, wanted = (torch.autograd.grad(y.square().sum(), [x, doubling.weight]) for y in (answer, expected))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_half_precision_sees_small_differences_of_large_values(dims):
    """Half precision has steps of 0.004 at 0.7, differences here are of 0.01. Break: values rounded at first."""
    network = UNet(small(dims)).requires_grad_(False)
    network.head.weight.fill_(0.125)[:, ::2] = -0.125
    seen = 0.7 + 0.01 * noise(1, 2 * 2**dims, *[8] * dims)
    inside = (..., *[slice(1, -1)] * dims)
    exact = network._begin(seen)[inside]
    with torch.autocast("cpu", torch.bfloat16):
        half = network._begin(seen)[inside]
    assert half.dtype == torch.bfloat16
    assert (half.float() - exact).square().mean() < 0.01**2 * exact.square().mean()


# --- Shuffling, colours -----------------------------------------------------------------------------------------------


@slow_machine
@given(
    dims=st.integers(1, 3),
    factor=st.integers(1, 3),
    counts=st.tuples(*[st.integers(1, 3)] * 3),
    channels=st.integers(1, 3),
)
def test_shuffle_undoes_unshuffle(dims, factor, counts, channels):
    x = noise(2, channels, *(count * factor for count in counts[:dims]))
    coarse = unshuffle(x, factor)
    assert coarse.shape == (2, channels * factor**dims, *counts[:dims])
    assert torch.equal(shuffle(coarse, factor), x)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_shuffling_images_is_that_of_torch(factor):
    x = noise(2, 3, 4 * factor, 5 * factor)
    coarse = torch.nn.functional.pixel_unshuffle(x, factor)
    assert torch.equal(unshuffle(x, factor), coarse)
    assert torch.equal(shuffle(coarse, factor), torch.nn.functional.pixel_shuffle(coarse, factor))


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_the_colour_basis_leaves_white_noise_white(channels):
    """Break: rows that are not divided by their norm."""
    basis = UNet(small(channels=channels))._basis.double()
    torch.testing.assert_close(basis @ basis.T, torch.eye(channels, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(basis[0], torch.full((channels,), channels**-0.5, dtype=torch.float64))
    white = noise(channels, 200_000).double()
    covariance = torch.cov(basis @ white)
    assert (covariance - torch.eye(channels)).abs().max() < 5 * sqrt(2 / 200_000)


def test_gray_is_colour_without_differences():
    """The luminance of a gray image, in a colour network, is what the network makes of the gray image itself."""
    network = strong(small(channels=3))
    gray = noise(2, 1, 9, 11)
    colour = gray.expand(-1, 3, -1, -1) / sqrt(3)
    torch.testing.assert_close(
        network(colour, number(0.3)).sum(1, keepdim=True) / sqrt(3), network(gray, number(0.3)), rtol=1e-4, atol=1e-5
    )


# --- Settings ---------------------------------------------------------------------------------------------------------

SETTINGS = [
    *PRESETS.values(),
    small(1, 2),
    small(3, 3, shuffle=1),
    UNetSettings(widths=[8, 16]),
    VectorNetSettings(5, 7, 1),
]


@pytest.mark.parametrize("size", SETTINGS, ids=str)
def test_settings_described_and_recalled_are_the_same(size):
    assert recall(json.loads(json.dumps(describe(size)))) == size


@pytest.mark.parametrize(
    "change",
    [{"kind": "transformer"}, {"depth": 3}, {"dims": 4}, {"widths": 8}, {"widths": []}, {"blocks": "two"}],
    ids=str,
)
def test_a_description_of_no_known_network_is_refused(change):
    with pytest.raises(ModelError, match="not one that this version knows"):
        recall({**describe(small()), **change})


def test_a_description_without_a_kind_is_refused():
    with pytest.raises(ModelError, match="not one that this version knows"):
        recall({"dims": 2})


@pytest.mark.parametrize(
    "change",
    [{"dims": 0}, {"dims": 4}, {"channels": 0}, {"widths": (8, 0)}, {"widths": ()}, {"blocks": 0}, {"shuffle": 0}],
    ids=str,
)
def test_impossible_sizes_are_refused(change):
    with pytest.raises(UsageError):
        UNetSettings(**change)


@pytest.mark.parametrize("change", [{"features": 0}, {"width": 0}, {"layers": -1}], ids=str)
def test_impossible_sizes_for_vectors_are_refused(change):
    with pytest.raises(UsageError):
        VectorNetSettings(**change)


@pytest.mark.parametrize(("name", "millions"), [("tiny", 0.01), ("small", 0.6), ("medium", 4.2), ("large", 8.0)])
def test_presets_are_as_large_as_they_say(name, millions):
    with torch.device("meta"):
        network = build(PRESETS[name])
    parameters = sum(weight.numel() for weight in network.parameters())
    assert round(parameters / 1e6, 2 if millions < 0.1 else 1) == millions


def test_the_untrained_network_all_but_returns_its_input():
    torch.manual_seed(0)
    x = noise(2, 1, 32, 32)
    with torch.no_grad():
        answer = build(PRESETS["tiny"])(x, number(0.3))
    assert (answer - x).norm() < 0.2 * x.norm()


# --- What does not fit ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "shape"),
    [(2, (1, 1, 8)), (2, (1, 1, 8, 8, 8)), (1, (1, 1, 8, 8)), (3, (1, 1, 8, 8)), (2, (8, 8))],
    ids=str,
)
def test_other_dimensions_are_refused(dims, shape):
    with pytest.raises(ModelError, match=f"takes {dims}-dimensional signals"):
        build(small(dims))(torch.zeros(shape), number(0.1))


@pytest.mark.parametrize(("channels", "given"), [(1, 2), (1, 3), (3, 2), (3, 4)])
def test_other_channels_are_refused(channels, given):
    with pytest.raises(ModelError, match=rf"takes {channels} channels?; got {given}"):
        build(small(channels=channels))(torch.zeros(1, given, 8, 8), number(0.1))


# --- Vectors ----------------------------------------------------------------------------------------------------------


def vectors() -> VectorNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return VectorNet(VectorNetSettings(3, 16, 2)).requires_grad_(False)


def test_vectors_without_noise_come_back():
    x = noise(5, 3)
    torch.testing.assert_close(vectors()(x, number(0.0)), x, atol=1e-5, rtol=0)


def test_one_level_a_vector_is_each_by_itself():
    x, levels = noise(3, 3), torch.tensor([0.1, 1.0, 10.0])
    alone = [vectors()(x[index : index + 1], levels[index]) for index in range(3)]
    torch.testing.assert_close(vectors()(x, levels), torch.cat(alone))


def test_answers_for_vectors_stay_of_unit_size_at_every_level():
    """Preconditioning: the answer is neither lost in strong noise nor carried away by it."""
    for level in (1e-3, 1.0, 1e3):
        x = noise(1000, 3) * sqrt(1 + level**2)
        assert vectors()(x, number(level)).std() < 2


@pytest.mark.parametrize("shape", [(4,), (4, 2), (4, 3, 1)], ids=str)
def test_vectors_of_another_length_are_refused(shape):
    with pytest.raises(ModelError, match="vectors of 3 features"):
        vectors()(torch.zeros(shape), number(0.1))
