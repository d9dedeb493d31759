"""Convolutions that are fused with what follows answer as they do one by one, and only where nothing is learned."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional

from unperturb.infer import tiled as module
from unperturb.infer.tiled import Compute, Tiled
from unperturb.model import fused
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser
from unperturb.model.layers import Convolution2d, Doubling2d
from unperturb.model.network import UNet, UNetSettings

pytestmark = pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this processor does not compute in bfloat16"
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def half(x: torch.Tensor) -> torch.Tensor:
    return x.bfloat16().contiguous(memory_format=torch.channels_last)


def network(**settings: object) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return UNet(UNetSettings(widths=(8, 16), **settings)).eval()


def answer(net: UNet, x: torch.Tensor) -> torch.Tensor:
    """Ask for an answer as commands do, where bfloat16 pays."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return net(x, torch.tensor(0.3)).float()


@pytest.mark.parametrize(("channels", "height", "width", "batch"), [(64, 12, 20, 1), (24, 7, 5, 2), (3, 1, 1, 1)])
def test_two_convolutions_beside_an_identity(channels, height, width, batch):
    """Breaks: no ReLU; a product in place of the sum."""
    x = normal(batch, channels, height, width)
    first, second = (normal(channels, channels, 3, 3, seed=seed) / (9 * channels) ** 0.5 for seed in (1, 2))
    rounded, *kernels = (part.bfloat16().float() for part in (x, first, second))
    hidden = functional.conv2d(rounded, kernels[0], padding=1).relu().bfloat16().float()
    exact = rounded + functional.conv2d(hidden, kernels[1], padding=1)
    packed = [fused.Packed().of(kernel) for kernel in (first, second)]
    with torch.no_grad():
        found = fused.residual(half(x), *packed)
    torch.testing.assert_close(found.float(), exact, rtol=2**-7, atol=2**-7)


@pytest.mark.parametrize("size", [(32, 48), (17, 5)])
def test_a_network_answers_as_it_does_step_by_step(size, monkeypatch):
    """Break: the kernels the other way round."""
    net, x = network(), normal(2, 1, *size)
    before = x.clone()
    quick = answer(net, x)
    asked = []
    monkeypatch.setattr(fused, "pays", lambda *_, **__: asked.append(1))
    slow = answer(net, x)
    assert asked
    assert torch.equal(x, before)
    difference = (quick - slow).abs().max()
    assert 0 < difference < 0.02 * (slow - x).abs().max()


def test_what_is_added_in_place_is_the_sum():
    """Break: what was kept is written over."""
    layer, kept, x = Doubling2d(6, 4, 2, stride=2, bias=False), normal(2, 4, 6, 10), normal(2, 6, 3, 5)
    for arranged in (kept, kept.contiguous(memory_format=torch.channels_last)):
        with torch.no_grad():
            torch.testing.assert_close(layer.added_to(arranged.clone(), x), kept + layer(x))


def test_a_kernel_that_has_changed_is_brought_into_order_again():
    """Breaks: packed once and for all; pickled as it is."""
    net, x = network(), normal(1, 1, 16, 16)
    first = answer(net, x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(answer(other, x), first)
        with torch.no_grad():
            other.middle[0].first.weight.mul_(-5)
        changed = answer(other, x)
        assert not torch.equal(changed, first)
        fresh = network()
        fresh.load_state_dict(other.state_dict())
        assert torch.equal(answer(fresh, x), changed)
    assert torch.equal(answer(net, x), first)


def test_what_was_written_past_all_versions_is_seen():
    """Break: versions alone are asked for."""
    net, x = network(), normal(1, 1, 16, 16)
    first = answer(net, x)
    for layer in (net.middle[0].first, net.encode[0][0].second):
        layer.weight.data.mul_(-3)
        fresh = network()
        fresh.load_state_dict(net.state_dict())
        assert not torch.equal(answer(fresh, x), first)
        assert torch.equal(answer(net, x), answer(fresh, x))
    weights = dict(net.named_parameters())
    for factor in (1, 2, 1, 3, 1, 4, 2):
        scaled = {name: weight.detach() * factor for name, weight in weights.items()}
        fresh.load_state_dict(scaled)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            found = torch.func.functional_call(net, scaled, (x, torch.tensor(0.3))).float()
        assert torch.equal(found, answer(fresh, x))


def test_a_network_that_was_made_without_versions_answers():
    with torch.inference_mode():
        net = network()
        assert torch.equal(answer(net, normal(1, 1, 16, 16)), answer(network(), normal(1, 1, 16, 16)))


def test_layers_that_are_listened_to_or_replaced_are_asked():
    """Breaks: hooks are not looked for; layers of any kind are taken for convolutions."""

    class Louder(Convolution2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 100 * super().forward(x)

    listened, replaced, x, heard = network(), network(), normal(1, 1, 16, 16), []
    plain = answer(listened, x)
    listened.middle[0].first.register_forward_hook(lambda *_: heard.append(1))
    assert (answer(listened, x) - plain).abs().max() < 0.005
    assert heard == [1]
    replaced.middle[0].second.__class__ = Louder
    assert (answer(replaced, x) - plain).abs().max() > 0.02


def test_nothing_is_fused_while_something_is_learned(monkeypatch):
    """Weights may then be written by other processes, which no version tells of.

    Breaks: the mode is not asked for, or whether there are gradients.
    """
    monkeypatch.setattr(fused, "residual", lambda *_: pytest.fail("was fused"))
    net, x = network().train(), normal(1, 1, 16, 16)
    answer(net, x)
    with torch.autocast("cpu", torch.bfloat16):
        net.eval()(x, torch.tensor(0.3)).sum().backward()
    with torch.no_grad():
        net(x, torch.tensor(0.3))  # in float32
        network(dims=1)(normal(1, 1, 16), torch.tensor(0.3))


LEVELS = [torch.tensor(0.3), torch.tensor([0.1, 0.2, 0.3]), normal(1, 1, 20, 16).abs(), normal(3, 1, 20, 16).abs()]


@pytest.mark.parametrize("level", LEVELS, ids=["one", "three", "map", "maps"])
def test_small_signals_are_answered_together_as_one_by_one(level, monkeypatch):
    """Breaks: all have the level of the first; one call a signal; done once a call."""
    denoiser, x, calls, done = Denoiser(Card(UNetSettings(widths=(8, 16)))).eval(), normal(3, 1, 20, 16), [], []
    denoiser.register_forward_pre_hook(lambda _, arguments: calls.append(len(arguments[0])))
    tiled = Tiled(denoiser, Compute("cpu", "bfloat16"), lambda: done.append(1))
    levels = [level[item : item + 1] if level.ndim and len(level) > 1 else level for item in range(3)]
    one_by_one = torch.cat([tiled(x[item : item + 1], levels[item]) for item in range(3)])
    calls.clear()
    done.clear()
    assert torch.equal(tiled(x, level), one_by_one)
    assert (calls, len(done)) == ([3], 3)
    calls.clear()
    monkeypatch.setattr(module, "TOGETHER", 2 * 20 * 16)
    assert torch.equal(tiled(x, level), one_by_one)
    assert sorted(calls) == [1, 2]


def test_functions_are_asked_of_one_signal_at_a_time():
    """With one level, or a map of it: what a formula makes of numbers. Break: several at a time."""
    x, levels = normal(3, 1, 20, 16), torch.tensor([0.1, 1, 3])
    exact = torch.cat([x[item : item + 1] / (1 + levels[item] ** 2) for item in range(3)])
    assert torch.equal(Tiled(lambda x, s: x / (1 + s**2), Compute("cpu", "bfloat16"))(x, levels), exact)


@pytest.mark.parametrize("error", [NotImplementedError, AttributeError, RuntimeError])
def test_without_the_library_nothing_is_lost(error, monkeypatch):
    def missing(*_: object) -> torch.Tensor:
        raise error

    monkeypatch.setattr(fused, "_packed", missing)
    fused.works.cache_clear()
    try:
        assert not fused.works()
        assert answer(network(), normal(1, 1, 16, 16)).isfinite().all()
    finally:
        fused.works.cache_clear()
