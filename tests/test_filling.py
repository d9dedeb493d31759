"""Filling in what is missing without anything learned."""

import numpy as np
import pytest
import torch
from torch import Tensor

from unperturb.model.filling import TENSION, filled
from unperturb.model.machine import Replayed


def laplacian(space: tuple[int, ...]) -> Tensor:
    """Return the sum of second differences as a matrix, with no slope across the edge."""
    total = torch.zeros(1, 1, dtype=torch.float64)
    for length in space:
        slope = torch.eye(length, dtype=torch.float64).diff(dim=0)
        along = -slope.T @ slope
        total = torch.kron(total, torch.eye(length, dtype=torch.float64)) + torch.kron(
            torch.eye(len(total), dtype=torch.float64), along
        )
    return total


@pytest.mark.parametrize("share", [0.6, 0.8])
@pytest.mark.parametrize("space", [(10, 12), (5, 4, 6)], ids=str)
def test_it_is_the_surface_that_is_least_bent_and_stretched(space, share):
    """Beside the solution of the linear system.

    Breaks: no conjugate gradients; a tension of 0; means of the observed alone; forces that act on what was observed.
    """
    generator = torch.Generator().manual_seed(1)
    values = torch.randn((1, 1, *space), generator=generator, dtype=torch.float64)
    mask = torch.rand((1, 1, *space), generator=generator) < share
    matrix = laplacian(space)
    stiffness = matrix @ matrix - TENSION * matrix
    here, there = mask.flatten(), (~mask).flatten()
    exact = values.flatten().clone()
    exact[there] = torch.linalg.solve(stiffness[there][:, there], -stiffness[there][:, here] @ exact[here])

    found = filled(values.masked_fill(~mask, 0), mask).flatten()
    assert torch.equal(found[here], exact[here])
    assert (found - exact)[there].norm() < 0.1 * exact[there].norm()


def test_a_large_hole_is_filled_from_coarse_to_fine():
    """A slope that goes on through a hole of 40 pixels. Break: conjugate gradients at the finest level alone."""
    slope = torch.linspace(-1, 1, 96).expand(1, 1, 96, 96)
    mask = torch.ones(1, 1, 96, 96, dtype=torch.bool)
    mask[..., 28:68, 28:68] = False
    found = filled(slope.masked_fill(~mask, 0), mask)
    assert (found - slope).abs().max() < 0.03


def test_gaps_of_signals_are_spanned_by_straight_lines():
    """Held against numpy's. Breaks: an end that is missing drawn to 0; the gaps of another signal of the batch."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 2, 40, generator=generator)
    mask = torch.rand(3, 1, 40, generator=generator) < 0.4
    mask[0, 0, -6:], mask[1, 0, :5], mask[2] = False, False, False
    found = filled(values.masked_fill(~mask, 0), mask)
    for item in range(2):
        there = mask[item, 0].nonzero()[:, 0].numpy()
        for channel in range(2):
            line = np.interp(np.arange(40), there, values[item, channel][there].numpy())
            assert np.abs(found[item, channel].numpy() - line).max() < 1e-6
    assert (found[2] == 0).all()


# --- On a GPU ---------------------------------------------------------------------------------------------------------


def test_what_is_not_on_a_gpu_is_not_recorded():
    values, mask = torch.rand(2, 1, 8, 8), torch.rand(2, 1, 8, 8) > 0.5
    replayed = Replayed(filled)
    assert torch.equal(replayed(values * mask, mask), filled(values * mask, mask))
    assert not replayed._recorded


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_what_was_recorded_is_played_for_other_values_of_the_shape():
    """As on the processor; a result stays when the recording is played again."""
    replayed = Replayed(filled)
    kept = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        mask = torch.rand(3, 1, 32, 32, generator=generator) > 0.4 * seed
        values = torch.rand(3, 2, 32, 32, generator=generator).masked_fill(~mask, 0)
        kept.append((replayed(values.cuda(), mask.cuda()), filled(values, mask)))
    for found, expected in kept:
        torch.testing.assert_close(found.cpu(), expected, atol=1e-5, rtol=0)


def test_it_can_be_differentiated():
    """Break: all is computed without gradients."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn((1, 1, 6, 5), generator=generator, dtype=torch.float64)
    mask = torch.rand((1, 1, 6, 5), generator=generator) < 0.7
    assert torch.autograd.gradcheck(lambda v: filled(v.masked_fill(~mask, 0), mask), values.requires_grad_())
