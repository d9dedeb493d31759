"""`Posterior` and the way from an array to it and back."""

import numpy as np
import pytest
import torch

from unperturb.errors import UsageError
from unperturb.infer.observe import observe
from unperturb.infer.posterior import Posterior
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings

PLAIN = Compute(device="cpu", precision="float32")


def shrinking(x, sigma):
    """Stand in for a denoiser: an answer that tells what level it was given."""
    return x / (1 + torch.as_tensor(sigma))


def colour_denoiser():
    return Denoiser(Card(UNetSettings(channels=3, widths=(4, 8), blocks=1))).eval().requires_grad_(False)


LAYOUTS = {
    "gray": ((9, 7), None, (1, 1, 9, 7)),
    "channels last": ((9, 7, 3), -1, (1, 3, 9, 7)),
    "channels first": ((3, 9, 7), 0, (1, 3, 9, 7)),
    "two channels": ((9, 7, 2), 2, (2, 1, 9, 7)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_an_array_comes_back_in_its_own_layout(name):
    """Break: channels moved back to the end whatever their axis was."""
    shape, axis, start = LAYOUTS[name]
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    observation = observe(values, colour_denoiser(), 0.1, channel_axis=axis, compute=PLAIN)
    assert observation.posterior.start.shape == start
    assert np.array_equal(observation.to_array(observation.posterior.start), values)
    assert torch.equal(observation.to_signal(values), observation.posterior.start)


def test_gray_stored_as_colour_is_one_signal():
    values = np.repeat(np.random.default_rng(0).normal(size=(8, 8, 1)).astype(np.float32), 3, axis=2)
    observation = observe(values, colour_denoiser(), 0.1, channel_axis=-1, compute=PLAIN)
    assert observation.posterior.start.shape == (1, 1, 8, 8)
    assert np.array_equal(observation.to_array(observation.posterior.start), values)
    assert torch.equal(observation.to_signal(values), observation.posterior.start)


@pytest.mark.parametrize(
    "sigma",
    [0.5, torch.tensor([0.5, 1.0]), torch.rand(1, 1, 4, 5), torch.rand(2, 1, 4, 5)],
    ids=["number", "item", "map", "maps"],
)
def test_repeating_repeats_items_with_their_levels(sigma):
    """Break: levels repeated one by one, not as a whole."""
    posterior = Posterior(shrinking, torch.randn(2, 1, 4, 5), sigma)
    wide = posterior.repeated(3)
    # Such a level a tensor of its own: `shrinking` wants it in a shape that broadcasts.
    expected = posterior.start / (1 + posterior.spread_of_noise)
    answer = wide.start / (1 + wide.spread_of_noise)
    assert torch.equal(answer, expected.repeat(3, 1, 1, 1))


def test_the_mean_is_asked_for_once():
    calls = []

    def counting(x, sigma):
        calls.append(float(sigma))
        return x

    posterior = Posterior(counting, torch.zeros(1, 2), 0.5)
    assert posterior.mean is posterior.mean
    assert calls == [0.5]


@pytest.mark.parametrize("level", ["number", "item", "map"])
def test_tiled_takes_every_kind_of_level(level):
    """Break: the map of the first item for every item."""
    x = torch.randn(2, 1, 40, 50, generator=torch.Generator().manual_seed(0))
    sigma = {"number": torch.tensor(0.5), "item": torch.tensor([0.5, 2.0]), "map": torch.rand(2, 1, 40, 50)}[level]
    tiled = Tiled(shrinking, Compute(device="cpu", precision="float32", tile=16, halo=0))
    wide = sigma.view(-1, 1, 1, 1) if level == "item" else sigma
    assert torch.allclose(tiled(x, sigma), shrinking(x, wide))


def test_what_cannot_be_observed_is_refused():
    values = np.zeros((4, 4), np.float32)
    for bad, sigma in ((values[:0], 0.1), (values * np.nan, 0.1), (values, -1.0), (values, np.zeros((3, 3)))):
        with pytest.raises(UsageError):
            observe(bad, shrinking, sigma)
