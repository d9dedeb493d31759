"""Where the answer is most open: the right windows, and what surrounds them cut so that it changes little."""

import pytest
import torch
from skimage import data

from unperturb.errors import UsageError
from unperturb.infer.keyed import keyed_normal
from unperturb.infer.places import look, surroundings, widest_windows
from unperturb.infer.posterior import Posterior
from unperturb.infer.uncertainty import natural_tilt
from unperturb.model.checkpoint import load
from unperturb.model.exact import GaussianMixture


def test_the_widest_windows_come_first_and_do_not_overlap():
    spread = torch.ones(1, 40, 70)
    spread[0, 20:30, 40:50] = 5
    spread[0, 0:5, 0:5] = 3
    windows = widest_windows(spread, 10, 4)
    assert windows[0] == (slice(20, 30), slice(40, 50))
    assert windows[1] == (slice(0, 10), slice(0, 10))
    seen = torch.zeros(40, 70)
    for window in windows:
        seen[window] += 1
    assert seen.max() == 1
    assert len(widest_windows(spread, 100, 4)) == 1
    with pytest.raises(UsageError):
        widest_windows(spread, 0, 4)


def test_a_level_map_is_cut_with_what_was_seen():
    """Break: the map left whole."""
    level = torch.rand(1, 1, 80, 90)
    posterior = Posterior(lambda x, sigma: x + sigma, torch.zeros(1, 1, 80, 90), level)
    near, inside = surroundings(posterior, (slice(40, 50), slice(60, 70)), margin=8)
    assert near.start.shape == (1, 1, 26, 30)
    assert torch.equal(near.mean[0, 0][inside], level[0, 0, 40:50, 60:70])


def test_draws_of_a_small_signal_show_both_answers():
    """Two pictures of four pixels are as likely as each other, and what was seen lies between them.

    Breaks: draws left about the origin; a bandwidth four times as wide.
    """
    pictures = torch.tensor([[1.5, 0.0, 0.0, 1.5], [0.0, 1.0, 1.0, 0.0]])
    exact = GaussianMixture.isotropic(torch.tensor([0.5, 0.5]), pictures, 0.1)

    def denoise(x, sigma):
        return exact(x.flatten(1), sigma).view_as(x)

    for start, count in (([0.75, 0.5, 0.5, 0.75], 2), ([1.5, 0.0, 0.0, 1.5], 1)):
        posterior = Posterior(denoise, torch.tensor(start).view(1, 1, 2, 2), 0.4)
        place = look(posterior, (slice(0, 2), slice(0, 2)), 1, n_draws=400)
        assert len(place.densities[0].modes) == count
        assert place.is_open == (count == 2)
    gap = float((pictures[0] - pictures[1]).norm()) / 2
    place = look(
        Posterior(denoise, torch.tensor([0.75, 0.5, 0.5, 0.75]).view(1, 1, 2, 2), 0.4),
        (slice(0, 2), slice(0, 2)),
        1,
        n_draws=400,
    )
    assert sorted(place.densities[0].modes) == pytest.approx([-gap, gap], abs=0.1)


def test_what_surrounds_a_window_is_enough_for_its_components():
    """Of the bundled model: the variance along a component is what it is given the whole image, within 3 %.

    Break: no margin.
    """
    clean = torch.from_numpy(data.camera()[150:310, 150:310] / 255).float()[None, None]
    posterior = Posterior(load("natural"), clean + 0.1 * keyed_normal([(1,)], (1, 160, 160)), 0.1)
    window = (slice(64, 96), slice(64, 96))
    place = look(posterior, window, n_components=2, iterations=6)
    assert place.components.directions.shape == (2, 1, 32, 32)
    assert not place.is_open
    for direction, variance in zip(place.components.directions, place.components.variances, strict=True):
        whole = torch.zeros(1, 160, 160)
        whole[(slice(None), *window)] = direction
        assert natural_tilt(posterior, whole) ** -2 == pytest.approx(float(variance), rel=0.03)
