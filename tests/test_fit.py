"""Training: what is made small, how weights move, and a run with its files. Law 17, resuming, is in `test_laws`."""

import json
import math
from collections import Counter
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from unperturb.data.patches import Patches, Preparation, open_patches
from unperturb.data.stretches import open_stretches
from unperturb.errors import FileError, ModelError, TrainingError, UsageError
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Card, Denoiser
from unperturb.model.filling import filled
from unperturb.model.network import UNetSettings, VectorNetSettings, build
from unperturb.model.operators import half_colour
from unperturb.model.spec import parse
from unperturb.train import validate as validate_module
from unperturb.train.batches import Together, batches
from unperturb.train.crops import AS_THEY_ARE, enlarged
from unperturb.train.fit import _Learning, _tensors, fit
from unperturb.train.material import crops, together
from unperturb.train.objective import FLOOR, squared_error
from unperturb.train.optimizer import Optimizer, is_inner, orthogonalised
from unperturb.train.pool import AHEAD, Pool
from unperturb.train.run import Habits, RunFiles, train_model
from unperturb.train.settings import FitSettings
from unperturb.train.showing import Task, joined, perturbed, task_of
from unperturb.train.state import FitState
from unperturb.train.validate import LEVELS

LINE = FitSettings(
    "gaussian:sigma=0.5", VectorNetSettings(2, 16, 2), steps=40, batch=8, share=3, rate=3e-3, warmup=3, average=0.9
)
IMAGES = FitSettings(
    "gaussian:sigma=0..0.5", UNetSettings(widths=(4, 8), blocks=1), steps=4, batch=3, rate=3e-3, warmup=1, patch_size=16
)
COLOUR = replace(IMAGES, network=replace(IMAGES.network, channels=3))
QUIET = Habits(checkpoint=0, validate=2, precision="float32", threads=1)


def on_a_line(generator: np.random.Generator, _: int) -> np.ndarray:
    """Points with both components the same: each tells of the other."""
    return np.full(2, generator.choice([-1.0, 1.0]), np.float32)


def run(state: FitState, draw=on_a_line, **options) -> list:
    return list(fit(state, draw, **{"precision": "float32", "threads": 1, **options}))


def snapshot(state: FitState) -> dict[str, torch.Tensor]:
    parts = {
        "weights": state.denoiser.state_dict(),
        "average": state.averaged.state_dict(),
        "optimizer": state.optimizer.state(),
    }
    return {f"{part}.{key}": value.clone() for part, tensors in parts.items() for key, value in tensors.items()}


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [key for key in one if not torch.equal(one[key], other[key])] == []


def in_blocks(generator: np.random.Generator, item: int) -> np.ndarray:
    return np.stack([on_a_line(generator, item) for _ in range(5)])


# --- The objective ----------------------------------------------------------------------------------------------------


def test_the_loss_is_the_squared_error_over_the_variance():
    clean = torch.zeros(3, 2, 4)
    estimate = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1).expand_as(clean)
    sigma = torch.tensor([0.0, 0.1, 0.5])
    loss = squared_error(estimate, clean, sigma)
    torch.testing.assert_close(loss, torch.tensor([0.01, 0.04, 0.09]) / (sigma**2 + FLOOR**2))
    assert torch.equal(squared_error(clean, clean, sigma), torch.zeros(3))


def test_doing_nothing_costs_the_same_at_every_level():
    """The weight makes all levels above the floor count alike."""
    generator = torch.Generator().manual_seed(0)
    sigma = torch.tensor([0.1, 0.3, 1.0, 3.0])
    clean = torch.rand(4, 50_000, generator=generator)
    noisy = clean + sigma[:, None] * torch.randn(clean.shape, generator=generator)
    torch.testing.assert_close(squared_error(noisy, clean, sigma), torch.ones(4), atol=0.05, rtol=0)


# --- Whole batches ----------------------------------------------------------------------------------------------------

EVERYTHING = "erase:fraction=0.5 | gaussian:sigma=0.2 | blur:sigma=1 | erase:fraction=0.2 + gaussian:sigma=0.1"


def alternating(generator: torch.Generator) -> list[torch.Tensor]:
    return [torch.rand(count, channels, 16, 16, generator=generator) for count, channels in ((5, 1), (3, 3))]


@pytest.mark.parametrize("reuse", [1, 2])
@pytest.mark.parametrize("perturb", ["gaussian:sigma=0..0.5", EVERYTHING])
def test_a_batch_drawn_as_a_whole_is_learned_from_and_taken_up_again(perturb, reuse, tmp_path):
    """Break: the randomness of a step left to a generator that goes on from step to step."""

    def drawn() -> Together:
        return Together(
            alternating,
            pool=Pool(alternating, partial(perturbed, perturb=parse(perturb)), reuse) if reuse > 1 else None,
        )

    network = UNetSettings(channels=3, widths=(4, 8), blocks=1)
    steps, stop = (6, 2) if reuse == 1 else (2 * AHEAD + 2, AHEAD + 1)
    settings = replace(IMAGES, perturb=perturb, network=network, batch=8, steps=steps)
    whole = FitState.start(settings)
    assert all(math.isfinite(progress.loss) for progress in run(whole, drawn()))
    part = FitState.start(settings)
    for progress in fit(part, drawn(), precision="float32", threads=1):
        if progress.step == stop:
            part.save(tmp_path / "state")
            break
    again = FitState.resume(tmp_path / "state", settings)
    run(again, drawn())
    assert_same(snapshot(whole), snapshot(again))


SHOT = "gaussian:sigma=0.1..0.5", "blur:sigma=0.5..1.5 | poisson:gain=0.02"
"""What is undone by a plain denoiser, and what by a conditional one."""


def _learning(device: str, perturb: str) -> tuple[_Learning, list[tuple[int, Task]]]:
    """Return a batch of gray and colour items, and what learns from it."""
    network = UNetSettings(channels=3, widths=(4, 8), blocks=1)
    settings = FitSettings(perturb=perturb, network=network, batch=4)
    state = FitState.start(settings, device=torch.device(device))
    draw = Together(
        lambda generator: [torch.rand(2, c, 16, 16, generator=generator, device=generator.device) for c in (1, 3)]
    )
    found = list(batches(settings, draw, 0, range(4), torch.device(device), filled))
    return _Learning(state, squared_error, torch.float32), found


@pytest.mark.parametrize("perturb", SHOT)
def test_what_is_learned_from_can_be_given_as_tensors_alone(perturb):
    """As a recording takes it. Breaks: parts in another order; the second task left out."""
    learning, batches = _learning("cpu", perturb)
    expected = learning(batches)
    found = learning._plainly(*(value for _, task in batches for value in _tensors(task)))
    assert len(found) == len(expected) == 1 + len(list(learning.state.denoiser.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("perturb", SHOT)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here")
def test_a_recording_learns_as_training_without_one_does(perturb):
    learning, batches = _learning("cuda", perturb)
    for _ in range(2):
        for one, other in zip(learning(batches), learning._learned(batches), strict=True):
            torch.testing.assert_close(one, other)
        with torch.no_grad():
            for parameter in learning.state.denoiser.parameters():
                parameter.mul_(0.9)


def _numbered(generator: torch.Generator) -> list[torch.Tensor]:
    """Return four gray and two colour images, each of one value of its own."""
    return [torch.rand(count, c, 1, 1, generator=generator).expand(-1, -1, 12, 12) for count, c in ((4, 1), (2, 3))]


def _named(step: int, pool: Pool) -> list[list[tuple[float, ...]]]:
    """Return what is learned from in a step: of either shape, the clean values and the perturbed ones, summed up."""
    found = []
    for kinds in pool.batch(step, lambda *numbers: torch.Generator().manual_seed(sum(numbers) * 1000 + len(numbers))):
        values = [torch.stack([pairs.clean, pairs.observed.values]).sum((2, 3, 4)).T for pairs in kinds]
        found.append([tuple(row) for row in torch.cat(values).tolist()])
    return found


def test_what_is_perturbed_ahead_is_learned_from_as_often_as_was_asked_for_in_every_step_of_its_own():
    """Breaks: a turn in the order of the one before; one signal too many skipped; perturbed anew in every turn."""
    everything = partial(perturbed, perturb=parse(EVERYTHING))
    pool = Pool(_numbered, everything, 3)
    steps = [_named(step, pool) for step in range(6 * AHEAD)]
    assert all([len(shape) for shape in step] == [4, 2] for step in steps)
    for which, count in enumerate((4, 2)):
        rounds = [[item for step in steps[first : first + 3 * AHEAD] for item in step[which]] for first in (0, 24)]
        for items in rounds:
            assert len(set(items)) == count * AHEAD
            assert all(number == 3 for number in Counter(items).values())
        assert not set(rounds[0]) & set(rounds[1])
    assert steps[0][0] != steps[AHEAD][0]
    later = Pool(_numbered, everything, 3)
    assert all(_named(step, later) == steps[step] for step in (7, 30, 8))


def test_each_item_of_a_batch_has_one_part_of_a_choice_and_what_is_known_of_it():
    """Breaks: one part for all; the level of all taken to be unknown where that of one is."""
    clean = torch.rand(200, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1)
    found = [task_of(pairs, generator, shown=True) for pairs in perturbed(clean, generator, parse(EVERYTHING))]
    assert len(found) == 3
    assert sum(len(task.clean) for task in found) == 200
    sizes = {(task.known is None, bool((task.given.mask == 1).all())): len(task.clean) for task in found}
    assert sizes.keys() == {(False, False), (True, True)}
    erased = next(task for task in found if task.known is not None)
    assert 70 < len(erased.clean) < 130
    noisy = erased.known.flatten(1).sum(1) == 0
    assert 25 < noisy.sum() < 75
    joint = joined(found)
    assert len(joint.clean) == 200
    assert {tuple(image.flatten().tolist()) for image in joint.clean} == {tuple(i.flatten().tolist()) for i in clean}


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
        assert sorted(index for group in groups for index in group) == list(range(len(optimizer.parameters)))
        monkeypatch.setattr(optimizer, "_groups", partial(_given, groups))
        for _ in range(3):
            optimizer.step(gradients, 1e-2)
        ends.append(list(network.parameters()))
    for alone, other in zip(*ends, strict=True):
        torch.testing.assert_close(alone, other, atol=1e-5, rtol=0)


# --- The optimizer ----------------------------------------------------------------------------------------------------


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


# --- Settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [LINE, IMAGES, FitSettings("poisson:gain=0.1", seed=5, data="x")])
def test_settings_read_and_written_are_the_same(settings):
    assert FitSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize(
    "change",
    [
        *({name: 0} for name in ("steps", "batch", "share", "patch_size", "rate", "clip")),
        *({name: 1.1} for name in ("decay", "gray")),
        *({"enlarge": factor} for factor in (0.5, math.inf, math.nan)),
        {"reuse": 0},
        {"average": 1},
        {"decay": -0.1},
        {"rate": math.nan},
        {"warmup": -1},
        {"seed": -1},
    ],
    ids=str,
)
def test_impossible_settings_are_refused(change):
    with pytest.raises(UsageError):
        replace(LINE, **change)


def test_the_rate_rises_stays_and_falls():
    settings = replace(LINE, steps=100, warmup=9, decay=0.4, rate=2.0)
    rates = [settings.rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert rates[10:61] == pytest.approx([2.0] * 51)
    assert rates[60:] == pytest.approx([2.0 * left / 40 for left in range(40, 0, -1)])


@pytest.mark.parametrize(("steps", "warmup", "decay"), [(1, 0, 0), (1, 0, 1), (5, 0, 0), (5, 100, 1), (10, 3, 0.05)])
def test_every_step_has_a_rate(steps, warmup, decay):
    settings = replace(LINE, steps=steps, warmup=warmup, decay=decay)
    assert all(0 < settings.rate_at(step) <= settings.rate for step in range(steps))


# --- Starting ---------------------------------------------------------------------------------------------------------


def test_the_seed_decides_the_first_weights_and_leaves_the_rest_of_the_world_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, again, other = (FitState.start(replace(LINE, seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert_same(snapshot(one), snapshot(again))
    assert not torch.equal(one.denoiser.network.layers[0].weight, other.denoiser.network.layers[0].weight)
    assert_same(one.denoiser.state_dict(), one.averaged.state_dict())
    assert one.denoiser.card.perturbation == LINE.perturb


def test_training_may_start_from_a_model_and_leaves_it_as_it_was():
    torch.manual_seed(0)
    model = Denoiser(Card(LINE.network)).requires_grad_(False)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = FitState.start(LINE, weights=model)
    assert_same(state.denoiser.state_dict(), before)
    run(state)
    assert_same(model.state_dict(), before)
    with pytest.raises(UsageError, match="another network"):
        FitState.start(IMAGES, weights=model)


# --- Steps ------------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_each_component_tells_of_the_other():
    """On a line of two points, E[x | y] = tanh((y₁ + y₂)/σ²), the same in both components. Law 2 measures how close."""
    state = FitState.start(replace(LINE, steps=150, batch=32, share=32))
    losses = [progress.loss for progress in run(state)]
    assert np.mean(losses[-20:]) < 0.3 * np.mean(losses[:5])
    y = torch.tensor([[1.0, 0.6], [-1.3, -0.2], [1.7, -0.3], [0.3, -1.7]])
    exact = torch.tanh(y.sum(1, keepdim=True) / 0.25).expand(-1, 2)
    with torch.no_grad():
        answer = state.averaged(y, 0.5)
    assert (answer - exact).abs().max() < 0.4
    assert (answer[:, 0] - answer[:, 1]).abs().max() < 0.1


def test_progress_says_what_was_done():
    state = FitState.start(LINE)
    told = run(state)
    assert [progress.step for progress in told] == list(range(1, 41))
    assert {progress.steps for progress in told} == {40}
    assert [progress.rate for progress in told] == [LINE.rate_at(step) for step in range(40)]
    assert all(math.isfinite(progress.loss) and progress.gradient > 0 for progress in told)
    assert all(one.seconds < other.seconds for one, other in pairwise(told))
    assert told[0].left > 0
    assert told[-1].left == 0
    assert state.step == 40
    assert run(state) == [], "a run that has ended goes on no further"


def test_the_average_follows_as_it_says():
    """Break: the average keeps its start. It moves by 1 − min(average, (k+1)/(k+10)) in step k."""
    state = FitState.start(LINE)
    expected = {key: value.clone().double() for key, value in state.denoiser.state_dict().items()}
    for progress in fit(state, on_a_line, precision="float32", threads=1):
        share = 1 - min(0.9, progress.step / (progress.step + 9))
        for key, value in state.denoiser.state_dict().items():
            expected[key] += share * (value.double() - expected[key])
    for key, value in state.averaged.state_dict().items():
        torch.testing.assert_close(value.double(), expected[key], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("share", [1, 2, 8])
def test_how_items_are_shared_out_changes_rounding_alone(share):
    (first,), (other,) = (run(FitState.start(replace(LINE, steps=1, share=n))) for n in (3, share))
    assert other.loss == pytest.approx(first.loss, rel=1e-5)
    assert other.gradient == pytest.approx(first.gradient, rel=1e-5)


def test_items_of_different_shape_may_share_a_batch():
    def draw(generator: np.random.Generator, item: int) -> np.ndarray:
        return generator.random((3 if item % 2 else 1, 16, 16), np.float32)

    network = UNetSettings(channels=3, widths=(4,), blocks=1)
    (one,), (other,) = (
        run(FitState.start(replace(IMAGES, network=network, steps=1, batch=4, share=n)), draw) for n in (1, 4)
    )
    assert one.loss == pytest.approx(other.loss, rel=1e-5)


def test_an_item_may_be_a_block_of_vectors_and_weighs_as_one():
    """Blocks of 1 to 4 vectors, all of the block's value. Break: the mean is taken over the vectors of all blocks."""
    levels = []

    def block(_: np.random.Generator, item: int) -> np.ndarray:
        return np.full((1 + item % 4, 2), item, np.float32)

    def value(estimate, clean, sigma):
        levels.extend(sigma.tolist())
        return clean[:, 0] + 0 * estimate.sum(1)

    settings = replace(LINE, perturb="gaussian:sigma=0.1..0.5", steps=1)
    (progress,) = run(FitState.start(settings), block, objective=value)
    assert progress.loss == pytest.approx(np.arange(8).mean())
    assert len(set(levels)) == len(levels) == 2 * (1 + 2 + 3 + 4)  # every vector has a noise level of its own


def test_training_on_blocks_is_resumed_as_if_it_had_not_stopped(tmp_path):
    """Break: a generator that is seeded by nothing."""
    whole, first = (FitState.start(replace(LINE, steps=6)) for _ in range(2))
    run(whole, in_blocks)
    steps = fit(first, in_blocks, precision="float32", threads=2)
    for _ in range(3):
        next(steps)
    steps.close()
    first.save(tmp_path / "state.safetensors")
    second = FitState.resume(tmp_path / "state.safetensors", replace(LINE, steps=6))
    run(second, in_blocks)
    assert_same(snapshot(second), snapshot(whole))
    assert not torch.equal(
        whole.denoiser.network.layers[0].weight, FitState.start(LINE).denoiser.network.layers[0].weight
    )


def test_every_item_of_every_step_is_another():
    drawn = []
    run(
        FitState.start(replace(LINE, steps=3)),
        lambda generator, _: drawn.append(generator.random()) or np.zeros(2, np.float32),
    )
    assert len(set(drawn)) == 3 * 8


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weights_stay_in_float32(precision):
    state = FitState.start(replace(IMAGES, network=UNetSettings(widths=(48,), blocks=1), steps=2))
    run(state, lambda generator, _: generator.random((1, 16, 16), np.float32), precision=precision)
    assert {value.dtype for value in snapshot(state).values()} == {torch.float32}
    assert all(value.isfinite().all() for value in snapshot(state).values())


def test_threads_are_given_back():
    before = torch.get_num_threads()
    for _ in fit(FitState.start(LINE), on_a_line, precision="float32", threads=1):
        break
    assert torch.get_num_threads() == before


# --- What cannot go on ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_training_before_it_does_harm():
    """Break: the check comes after the weights have moved."""
    poison = False

    def draw(generator: np.random.Generator, item: int) -> np.ndarray:
        return on_a_line(generator, item) * (np.float32(np.nan) if poison and item == 5 else 1)

    state = FitState.start(LINE)
    with pytest.raises(TrainingError, match="the loss of item 5 in step 4 is not finite"):
        for progress in fit(state, draw, precision="float32", threads=1):
            if progress.step == 3:
                before, poison = snapshot(state), True
    assert state.step == 3
    assert_same(snapshot(state), before)
    poison = False
    run(state, draw)
    whole = FitState.start(LINE)
    run(whole, draw)
    assert_same(snapshot(state), snapshot(whole))


def test_a_gradient_that_is_not_finite_stops_training_before_it_does_harm():
    """A loss can be finite and its slope not: the root of nothing."""
    state = FitState.start(LINE)
    before = snapshot(state)
    with pytest.raises(TrainingError, match="step 1"):
        run(state, objective=lambda estimate, *_: (estimate - estimate.detach()).abs().sqrt().flatten(1).mean(1))
    assert state.step == 0
    assert_same(snapshot(state), before)


@pytest.mark.parametrize(
    ("perturb", "conditional"),
    [
        ("gaussian:sigma=0.1", False),
        ("gaussian:sigma=0..0.1 + gaussian:sigma=0.2 | gaussian:sigma=0.5", False),
        ("poisson:gain=0.1", True),
        ("erase:fraction=0.5", True),
        ("erase:fraction=0.5 + gaussian:sigma=0.1", True),
    ],
)
def test_all_but_plain_noise_makes_a_conditional_network(perturb, conditional):
    settings = replace(LINE, perturb=perturb, steps=2)
    assert settings.network.given == conditional
    state = FitState.start(settings)
    (*_, last) = run(state)
    assert math.isfinite(last.loss)
    assert state.averaged.card.network.given == conditional


# --- Resuming ---------------------------------------------------------------------------------------------------------


def saved(tmp_path, settings: FitSettings, stop: int):
    state, path = FitState.start(settings), tmp_path / "run.state.safetensors"
    for progress in fit(state, on_a_line, precision="float32", threads=1):
        if progress.step == stop:
            break
    state.save(path)
    return path


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 1}, "seed 0, not 1"),
        ({"rate": 0.1, "batch": 2}, "batch 8, not 2, rate 0.003, not 0.1"),
        ({"network": VectorNetSettings(2, 16, 3)}, "network"),
        ({"data": "other"}, "data"),
        ({"steps": 50, "seed": 1}, "steps 40, not 50, seed"),
    ],
    ids=str,
)
def test_a_run_with_other_settings_is_not_resumed(change, text, tmp_path):
    path = saved(tmp_path, LINE, 3)
    with pytest.raises(UsageError, match=text):
        FitState.resume(path, replace(LINE, **change))


@pytest.mark.parametrize(
    ("stop", "steps", "allowed"),
    [(10, 80, True), (24, 80, True), (25, 80, False), (40, 80, False), (10, 20, True), (12, 20, True), (13, 20, False)],
)
def test_a_run_is_made_longer_or_shorter_before_the_rate_falls(stop, steps, allowed, tmp_path):
    """It falls from step 24 of 40, and from step 12 of 20: up to there the shorter and the longer run are the same."""
    path, settings = saved(tmp_path, LINE, stop), replace(LINE, steps=steps)
    if not allowed:
        with pytest.raises(UsageError, match=f"steps 40, not {steps}"):
            FitState.resume(path, settings)
        return
    state, whole = FitState.resume(path, settings), FitState.start(settings)
    assert state.step == stop
    run(state)
    run(whole)
    assert_same(snapshot(state), snapshot(whole))


def test_a_file_that_is_no_state_is_refused(tmp_path):
    path = tmp_path / "state"
    path.write_text("nothing")
    with pytest.raises(ModelError, match="is not a model file"):
        FitState.resume(path, LINE)


def test_a_state_is_no_model(tmp_path):
    with pytest.raises(ModelError, match="not of the kind"):
        load(saved(tmp_path, LINE, 1))


# --- Runs -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pictures(tmp_path) -> Patches:
    """Six colour images, two of them held out."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(6):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 6, 3), np.uint8))
        coarse.resize((48, 40), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return open_patches([folder], tmp_path / "cache", Preparation(held_out=3))


def finish(
    pictures: Patches, files: RunFiles, settings: FitSettings = IMAGES, habits: Habits = QUIET, **options
) -> list:
    return list(train_model(settings, pictures, files, habits, **options))


def test_a_run_leaves_a_model_a_state_and_a_log(pictures, tmp_path):
    files = RunFiles(tmp_path / "my.model.safetensors")
    reports = finish(pictures, files, card={"name": "mine", "licence": "CC0"})
    assert (files.state.name, files.log.name) == ("my.model.state.safetensors", "my.model.log.jsonl")
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        files.model.name,
        files.state.name,
        files.log.name,
    }
    card = load(files.model).card
    assert (card.name, card.licence, card.network, card.perturbation) == ("mine", "CC0", IMAGES.network, IMAGES.perturb)
    assert FitSettings.from_dict(dict(card.recipe)) == replace(IMAGES, data=pictures.key)
    assert card.training["steps"] == 4
    assert card.errors.keys() == {"gray"}
    assert [float(level) for level in card.errors["gray"]] == list(LEVELS)
    lines = [json.loads(line) for line in files.log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert lines[-1]["psnr"] == reports[-1].psnr
    assert [bool(report.psnr) for report in reports] == [False, True, True, True]
    assert_same(
        load(files.model).state_dict(),
        FitState.resume(files.state, replace(IMAGES, data=pictures.key)).averaged.state_dict(),
    )


def test_validation_errors_are_those_of_the_held_out_images(pictures, tmp_path):
    files = RunFiles(tmp_path / "model.safetensors")
    finish(pictures, files, half=True)
    denoiser, held_out = load(files.model), pictures.of(held_out=True)
    errors = []
    for index in range(2):
        clean = torch.from_numpy(held_out.centre(index, 32, gray=True))[None]
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
        errors.append(float((denoiser(clean + 0.1 * noise, 0.1) - clean).square().mean()))
    assert denoiser.card.errors["gray"]["0.1"] == pytest.approx(np.mean(errors), rel=1e-3)


def test_a_colour_network_learns_colour_and_gray(pictures, tmp_path):
    network = replace(IMAGES.network, channels=3)
    settings = replace(IMAGES, network=network, batch=4, gray=0.5)
    draw = crops(settings, pictures)
    assert [draw(np.random.default_rng(0), item).shape[0] for item in range(4)] == [1, 1, 3, 3]
    files = RunFiles(tmp_path / "model.safetensors")
    reports = finish(pictures, files, settings)
    assert load(files.model).card.errors.keys() == reports[-1].psnr.keys() == {"gray", "colour"}


@pytest.mark.parametrize("network", [VectorNetSettings(), replace(IMAGES.network, dims=3)], ids=["vector", "3d"])
def test_images_are_learned_by_networks_for_images(network, pictures, tmp_path):
    with pytest.raises(UsageError, match="2 space dimensions"):
        finish(pictures, RunFiles(tmp_path / "model.safetensors"), replace(IMAGES, network=network))


def test_images_smaller_than_a_crop_are_not_enough(pictures, tmp_path):
    with pytest.raises(TrainingError, match="at least 64 pixels"):
        finish(pictures, RunFiles(tmp_path / "model.safetensors"), replace(IMAGES, patch_size=64))


def test_a_new_run_begins_a_new_log_and_a_resumed_one_goes_on_with_it(pictures, tmp_path):
    files = RunFiles(tmp_path / "model.safetensors")
    finish(pictures, files)
    first = files.log.read_text()
    with files.log.open("a") as file:
        file.write('{"step": 5}\n{"ste')
    finish(pictures, files, resume=True)
    assert files.log.read_text() == first, "the last line was torn, the one before it came after the checkpoint"
    finish(pictures, files)
    assert [json.loads(line)["step"] for line in files.log.read_text().splitlines()] == [2, 4]


def test_a_run_without_a_checkpoint_is_begun_anew(pictures, tmp_path):
    files = RunFiles(tmp_path / "model.safetensors")
    assert [report.progress.step for report in finish(pictures, files, resume=True)] == [1, 2, 3, 4]


def test_a_run_on_other_images_is_not_resumed(pictures, tmp_path):
    files = RunFiles(tmp_path / "model.safetensors")
    finish(pictures, files)
    with pytest.raises(UsageError, match="data"):
        finish(replace(pictures, key="other"), files, resume=True)


def test_an_output_folder_that_is_missing_is_an_error(pictures, tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        finish(pictures, RunFiles(tmp_path / "none" / "model.safetensors"), habits=replace(QUIET, validate=100))


@pytest.mark.parametrize(("images", "size"), [(3, 40), (6, 20)], ids=["none held out", "held out ones too small"])
def test_what_cannot_be_validated_is_refused_before_training_or_trained_without(images, size, tmp_path):
    """Not found out after the last step, when all that was learned would be lost."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(images):
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (size, size), np.uint8)).save(
            folder / f"{number}.png"
        )
    held_out = 20 if images == 3 else 3
    patches = open_patches([folder], tmp_path / "cache", Preparation(held_out=held_out))
    files = RunFiles(tmp_path / "model.safetensors")
    steps = 0
    try:
        for report in train_model(IMAGES, patches, files, QUIET):
            steps = report.progress.step
    except (TrainingError, UsageError):
        assert steps == 0
    else:
        assert files.model.is_file()


def test_a_run_stays_with_its_precision(tmp_path):
    """Break: the precision measured anew by every process."""
    state = FitState.start(LINE)
    next(iter(fit(state, on_a_line, precision="bfloat16")))
    assert state.precision == "bfloat16"
    state.save(tmp_path / "state")
    again = FitState.resume(tmp_path / "state", LINE)
    with pytest.raises(UsageError, match="precision"):
        next(iter(fit(again, on_a_line, precision="float32")))
    next(iter(fit(again, on_a_line, precision="auto")))
    assert again.precision == "bfloat16"


@pytest.mark.parametrize("perturb", ["gaussian:sigma=0.2", EVERYTHING])
@pytest.mark.parametrize("sigma", [0.1, math.inf])
def test_validation_of_many_images_at_once_is_that_of_each(perturb, sigma):
    """Break: the errors of a group in the order of groups, not of images."""
    if sigma == math.inf and perturb != EVERYTHING:
        pytest.skip("a plain denoiser has no answer where there is nothing to see")
    settings = replace(IMAGES, perturb=perturb)
    denoiser = FitState.start(settings).denoiser
    clean = list(torch.rand(9, 1, 1, 16, 16, generator=torch.Generator().manual_seed(0)))
    how = sigma, torch.device("cpu"), settings.perturbing
    alone = [validate_module._error(denoiser, [image], [seed], *how)[0] for seed, image in enumerate(clean)]
    assert len(set(alone)) == 9
    np.testing.assert_allclose(validate_module._error(denoiser, clean, list(range(9)), *how), alone, rtol=1e-4)


def test_a_model_is_validated_against_what_it_looks_for(pictures, tmp_path):
    """Colour at half resolution, where that is. Break: the clean images themselves."""
    settings = replace(COLOUR, perturb="jpeg:quality=90", half_colour=True, steps=1)
    files = RunFiles(tmp_path / "model.safetensors")
    told = finish(pictures, files, settings)[-1].psnr["colour"]
    denoiser, held_out = load(files.model), pictures.of(held_out=True)
    errors = {half: [] for half in (False, True)}
    for index in range(2):
        clean = torch.from_numpy(held_out.centre(index, 32, gray=False))[None]
        answer = denoiser.given(parse(settings.perturb)(clean, torch.Generator()).values)(clean, 20.0)
        for half, found in errors.items():
            truth = half_colour(clean) if half else clean
            found.append(float((answer - truth).square().mean()))
    psnr = {half: -10 * np.log10(found).mean() for half, found in errors.items()}
    assert told == pytest.approx(psnr[True], abs=0.01)
    assert told != pytest.approx(psnr[False], abs=0.03)
    stated = denoiser.card.errors["colour"]["inf"]
    assert stated == pytest.approx(np.mean(errors[True]), rel=1e-3)
    assert stated != pytest.approx(np.mean(errors[False]), rel=1e-2)


def test_whole_batches_are_the_crops_that_were_asked_for(pictures):
    """So many in gray, the others in colour, of images by their area. Break: gray and colour exchanged."""
    settings = replace(IMAGES, network=UNetSettings(channels=3, widths=(4, 8), blocks=1), batch=7, gray=0.3)
    drawn = together(pictures, settings, 2, torch.device("cpu")).draw(torch.Generator().manual_seed(0))
    assert [tuple(each.shape) for each in drawn] == [(2, 1, 16, 16), (5, pictures.places[0].channels, 16, 16)]


def test_crops_are_enlarged_about_their_middle():
    """A ramp is less steep by the factor, some stay as they are. Breaks: reduced; a corner kept; all of them."""
    line = torch.linspace(-1, 1, 33)
    ramps = (line[:, None] + 2 * line)[None, None].expand(200, 1, 33, 33)
    chance = torch.rand(200, generator=torch.Generator().manual_seed(0))
    found = enlarged(ramps, 2.5, chance)
    slopes = (found[:, 0, 16, 20] - found[:, 0, 16, 12]) / (ramps[0, 0, 16, 20] - ramps[0, 0, 16, 12])
    factors = 1 / slopes
    stay = chance < AS_THEY_ARE
    assert torch.equal(found[stay], ramps[stay])
    np.testing.assert_allclose(factors[~stay].log() / math.log(2.5), (chance[~stay] - 0.4) / 0.6, atol=0.05)
    np.testing.assert_allclose(found[:, 0, 16, 16], 0, atol=1e-5)
    bright = (torch.rand(200, 3, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    assert (enlarged(bright, 2.5, chance).min(), enlarged(bright, 2.5, chance).max()) == (0, 1)


@pytest.mark.parametrize("whole", [False, True], ids=["one by one", "whole batches"])
def test_what_is_learned_from_is_enlarged_where_it_is_asked_for(whole, pictures):
    """Less of its variation is between neighbours. Break: enlarged by one way of drawing alone."""

    def steep(enlarge: float) -> float:
        settings = replace(IMAGES, enlarge=enlarge, batch=64)
        if whole:
            drawn = together(pictures, settings, 20, torch.device("cpu")).draw(torch.Generator().manual_seed(0))
        else:
            draw, generator = crops(settings, pictures), np.random.default_rng(0)
            drawn = [torch.from_numpy(draw(generator, item)) for item in range(64)]
        values, steps = (torch.cat([each.flatten() for each in parts]) for parts in (drawn, map(_steps, drawn)))
        return float(steps.square().mean() / values.var())

    assert steep(4) < 0.8 * steep(1)


def test_what_is_perturbed_ahead_is_that_of_the_seed_and_of_the_part_and_seen_through_other_noise_each_time():
    """Breaks: one pool for all parts; for all seeds; the noise of x that of the turn before."""
    perturb = partial(perturbed, perturb=parse("blur:sigma=1"))
    pools = {part: Together(_numbered, part, Pool(_numbered, perturb, 2)) for part in ((), (1,))}
    settings = replace(IMAGES, network=replace(IMAGES.network, channels=3), perturb="blur:sigma=1", batch=6, reuse=2)

    def learned_from(step: int, part: tuple[int, ...] = (), seed: int = 0) -> dict[float, torch.Tensor]:
        at = replace(settings, seed=seed), pools[part], step, range(6), torch.device("cpu"), filled
        (_, gray), _ = batches(*at)
        return {float(clean.mean()): x - clean for clean, x in zip(gray.clean, gray.x, strict=True)}

    first = {key: noise for step in range(AHEAD) for key, noise in learned_from(step).items()}
    again = {key: noise for step in range(AHEAD, 2 * AHEAD) for key, noise in learned_from(step).items()}
    assert first.keys() == again.keys()
    assert not any(torch.equal(noise, again[key]) for key, noise in first.items())
    for other in (learned_from(0, (1,)), learned_from(0, seed=1)):
        assert not first.keys() & other.keys()


@pytest.mark.parametrize("reuse", [1, 3])
def test_crops_that_are_drawn_together_are_perturbed_ahead_where_they_are_to_be_learned_from_again(reuse, pictures):
    """White noise is drawn anew in any case. Break: the setting left to the command line alone."""
    settings = replace(IMAGES, reuse=reuse, perturb="poisson:gain=0.1")
    assert together(pictures, replace(IMAGES, reuse=reuse), 1, torch.device("cpu")).pool is None
    draw = together(pictures, settings, 1, torch.device("cpu"))
    firsts = []
    for step in (0, AHEAD, 3 * AHEAD):
        list(batches(settings, draw, step, range(3), torch.device("cpu"), filled))
        firsts.append(None if draw.pool is None else draw.pool._shapes[0][0].clean)
    assert [one is firsts[0] for one in firsts] == ([True] * 3 if reuse == 1 else [True, True, False])


@pytest.mark.parametrize("perturb", ["jpeg:quality=100", "gaussian:sigma=0 + jpeg:quality=100"])
def test_what_was_compressed_is_looked_for_with_colour_at_half_resolution_where_that_is_asked_for(perturb):
    """Then hardly anything is left to undo. Breaks: the others' colour halved as well; compositions passed over."""
    clean = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.4 + 0.3
    off = {}
    for half in (False, True):
        settings = replace(COLOUR, perturb=f"{perturb} | blur:sigma=0", half_colour=half)
        ((wanted, made),) = settings.perturbing(clean.repeat(10, 1, 1, 1), torch.Generator().manual_seed(0))
        compressed = (made.values != wanted).flatten(1).any(1)
        assert 5 < compressed.sum() < 25
        off[half] = float((made.values - wanted)[compressed].square().mean().sqrt())
        kept = wanted[~compressed][:, None] == clean
        assert kept.flatten(2).all(2).any(1).all()
    assert off[True] < 0.01
    assert off[False] > 0.05


def _steps(values: torch.Tensor) -> torch.Tensor:
    return values.diff(dim=-1)


@pytest.mark.parametrize("change", [{"enlarge": 2.0}, {"reuse": 2}], ids=str)
def test_crops_of_signals_are_not_enlarged_nor_learned_from_again(change, tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=4000).astype(np.float32))
    with pytest.raises(UsageError, match="of images alone"):
        crops(replace(LINE, network=UNetSettings(dims=1), **change), open_stretches([tmp_path / "a.npy"]))


@pytest.mark.parametrize(
    "settings", [replace(IMAGES, perturb="jpeg:quality=90"), replace(COLOUR, perturb="blur:sigma=1"), LINE], ids=str
)
def test_colour_at_half_resolution_is_looked_for_where_there_is_colour_that_was_compressed(settings):
    with pytest.raises(UsageError, match="images in colour, under a perturbation with JPEG"):
        replace(settings, half_colour=True)
