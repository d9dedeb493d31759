"""How weights move: orthogonalised directions inside, Adam at the ends."""

from functools import partial

import pytest
import torch
from runs import IMAGES, LINE, assert_same

from unperturb.model.network import UNetSettings, build
from unperturb.train.optimizer import Optimizer, is_inner, orthogonalised


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(16, 16), (12, 40), (40, 12), (1, 9)], ids=str)
def test_orthogonalised_matrices_keep_their_directions_and_lose_their_scale(shape, scale):
    """Breaks: one coefficient off by a tenth; tall matrices not turned back."""
    generator = torch.Generator().manual_seed(0)
    rank = min(shape)
    u, v = (torch.linalg.qr(torch.randn(length, rank, generator=generator).double())[0] for length in shape)
    values = torch.linspace(0.3, 1.0, rank).double()
    matrix = scale * (u * values) @ v.T
    result = orthogonalised(matrix.float()).double()
    assert result.shape == shape
    inside = u.T @ result @ v
    new = inside.diagonal()
    assert ((new > 0.6) & (new < 1.3)).all()
    assert (inside - torch.diag(new)).abs().max() < 1e-4
    torch.testing.assert_close((u * new) @ v.T, result, atol=1e-4, rtol=0)


def test_no_gradient_is_no_direction():
    assert torch.equal(orthogonalised(torch.zeros(3, 5)), torch.zeros(3, 5))


@pytest.mark.parametrize(("settings", "outer"), [(IMAGES.network, {"head", "tail"}), (LINE.network, {"layers.0"})])
def test_kernels_inside_are_orthogonalised_and_nothing_else(settings, outer):
    inner = {name for name, value in build(settings).named_parameters() if is_inner(name, value)}
    names = dict(build(settings).named_parameters())
    assert inner == {
        name for name, value in names.items() if value.ndim > 1 and name.removesuffix(".weight") not in outer
    }
    assert inner


def test_ends_and_vectors_move_as_adam_moves_them():
    """Torch's own Adam, given the same gradients. Break: no correction of the moments for their start at zero."""
    torch.manual_seed(0)
    network = build(LINE.network)
    reference = {name: value.detach().clone().requires_grad_() for name, value in network.named_parameters()}
    adam = torch.optim.Adam(reference.values(), betas=(0.9, 0.99), eps=1e-8)
    optimizer = Optimizer(network)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    for rate in (1e-2, 3e-3, 1e-3):
        gradients = [torch.randn_like(value) for value in reference.values()]
        optimizer.step([gradient.clone() for gradient in gradients], rate)
        for value, gradient in zip(reference.values(), gradients, strict=True):
            value.grad = gradient
        adam.param_groups[0]["lr"] = rate
        adam.step()
    for name, value in network.named_parameters():
        if is_inner(name, value):
            assert (value - before[name]).abs().max() > 1e-3
        else:
            torch.testing.assert_close(value, reference[name], rtol=1e-5, atol=1e-6)


def test_kernels_inside_take_a_step_of_stated_size():
    """W moves by rate · inner_scale · √max(1, rows/columns) · (about orthogonal)."""
    for width in (16, 128):
        network = build(UNetSettings(widths=(16, width), blocks=1))
        (kernel,) = (value for name, value in network.named_parameters() if name == "down.0.weight")
        before = kernel.detach().clone()
        optimizer = Optimizer(network, inner_scale=7.0)
        torch.manual_seed(0)
        optimizer.step([torch.randn_like(value) for value in network.parameters()], 0.01)
        singular = torch.linalg.svdvals((kernel - before).flatten(1)) / (0.07 * max(1.0, width / 64) ** 0.5)
        assert 0.6 < singular.min() <= singular.max() < 1.3


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_kernels_move_along_their_own_gradient(layout):
    """However they lie in memory. Breaks: a direction in another order than the kernel; its sides turned round."""
    network = build(UNetSettings(widths=(16, 24), blocks=1)).to(memory_format=layout)
    (kernel,) = (value for name, value in network.named_parameters() if name == "middle.0.first.weight")
    before = kernel.detach().clone()
    torch.manual_seed(0)
    gradients = [torch.randn_like(value) for value in network.parameters()]
    (mine,) = (gradient for gradient, value in zip(gradients, network.parameters(), strict=True) if value is kernel)
    wanted = orthogonalised((1.95 * mine).flatten(1)).view_as(mine)
    Optimizer(network).step([gradient.clone() for gradient in gradients], 0.1)
    torch.testing.assert_close(before - kernel, wanted, rtol=1e-3, atol=1e-5)


def test_kernels_remember_gradients_of_the_steps_before():
    """Nesterov's form: with M ← g + μM, along g + μM. Breaks: momenta that are not kept; the gradient left out."""
    network = build(UNetSettings(widths=(16, 24), blocks=1))
    (kernel,) = (value for name, value in network.named_parameters() if name == "middle.0.first.weight")
    optimizer = Optimizer(network, momentum=0.5)
    torch.manual_seed(0)
    momentum = torch.zeros_like(kernel)
    for _ in range(3):
        before = kernel.detach().clone()
        gradients = [torch.randn_like(value) for value in network.parameters()]
        (mine,) = (gradient for gradient, value in zip(gradients, network.parameters(), strict=True) if value is kernel)
        momentum = mine + 0.5 * momentum
        optimizer.step([gradient.clone() for gradient in gradients], 0.1)
        wanted = orthogonalised((mine + 0.5 * momentum).flatten(1)).view_as(mine)
        torch.testing.assert_close(before - kernel, wanted, rtol=1e-3, atol=1e-5)


def test_an_optimizer_restored_goes_on_the_same():
    torch.manual_seed(0)
    networks = [build(LINE.network) for _ in range(2)]
    one, other = (Optimizer(network) for network in networks)
    gradients = [[torch.randn_like(value) for value in one.parameters] for _ in range(3)]
    for gradient in gradients[:2]:
        one.step([value.clone() for value in gradient], 0.01)
    networks[1].load_state_dict(networks[0].state_dict())
    other.restore(one.state(), one.steps)
    for optimizer in (one, other):
        optimizer.step([value.clone() for value in gradients[2]], 0.01)
    assert_same(networks[0].state_dict(), networks[1].state_dict())
    assert_same(one.state(), other.state())


def _given(groups: list, *, at_once: bool) -> list:  # noqa: ARG001 (as the method has it)
    return groups


@pytest.mark.parametrize("shape", [(3, 8, 20), (3, 20, 8)], ids=str)
def test_several_matrices_are_orthogonalised_as_each_by_itself(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.tensor([1e-3, 1, 50]).view(
        3, 1, 1
    )
    torch.testing.assert_close(
        orthogonalised(matrices), torch.stack([orthogonalised(each) for each in matrices]), atol=1e-4, rtol=0
    )


def test_kernels_of_one_shape_can_be_updated_together(monkeypatch):
    """What a GPU is given together moves as it would alone. Break: the gradients of a group in another order."""
    start = build(IMAGES.network)
    gradients = [
        torch.randn(value.shape, generator=torch.Generator().manual_seed(n))
        for n, value in enumerate(start.parameters())
    ]
    ends = []
    for at_once in (False, True):
        network = build(IMAGES.network)
        network.load_state_dict(start.state_dict())
        optimizer = Optimizer(network)
        groups = optimizer._groups(at_once=at_once)
        assert (max(map(len, groups)) > 3) == at_once
        assert sorted(index for group in groups for index in group) == [
            n for n, inner in enumerate(optimizer.inner) if inner
        ]
        monkeypatch.setattr(optimizer, "_groups", partial(_given, groups))
        for _ in range(3):
            optimizer.step(gradients, 1e-2)
        ends.append(list(network.parameters()))
    for alone, other in zip(*ends, strict=True):
        torch.testing.assert_close(alone, other, atol=1e-5, rtol=0)
