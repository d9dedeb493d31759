"""Training: what is made small, settings, steps, and resuming. Law 17, resuming, is in `test_laws`."""

import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from runs import COLOUR, IMAGES, LINE, assert_same, on_a_line, run, snapshot

from unperturb.errors import ModelError, TrainingError, UsageError
from unperturb.model.card import Card
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Conditioned, Denoiser
from unperturb.model.filling import filled
from unperturb.model.network import UNetSettings, VectorNetSettings
from unperturb.train.batches import batches
from unperturb.train.fit import fit
from unperturb.train.objective import FLOOR, squared_error
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState


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


def test_what_is_made_small_is_the_error_of_what_is_answered():
    """Of a network whose answers keep the coarse part of photographs, too. Breaks: its own coarse part is judged."""
    settings = replace(COLOUR, perturb="camera:iso=1600", network=replace(COLOUR.network, given=True), patch_size=40)
    state = FitState.start(settings)
    with torch.no_grad():
        list(state.denoiser.parameters())[-1].add_(0.5)

    def draw(generator: np.random.Generator, _: int) -> np.ndarray:
        return np.broadcast_to(generator.random((3, 1, 1), np.float32), (3, 40, 40)).copy()

    losses = []
    with torch.no_grad():
        for _, task in batches(settings, draw, 0, range(settings.batch), torch.device("cpu"), filled):
            answer = Conditioned(state.denoiser, task.given, whole=task.given.values)(task.x, task.sigma)
            losses += squared_error(*task.measured(answer)).tolist()
    first = next(iter(fit(state, draw, precision="float32", threads=1)))
    assert first.loss == pytest.approx(np.mean(losses), rel=1e-4)


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


def test_a_network_grows_out_of_a_smaller_one_and_answers_as_that_did_at_first():
    """Breaks: the second kernels of new blocks left as they are drawn; the weights of the smaller one not taken."""
    small = replace(IMAGES, network=UNetSettings(widths=(4, 8), blocks=(1, 2)))
    torch.manual_seed(3)
    model = Denoiser(Card(small.network)).requires_grad_(False)
    model.network.tail.weight.mul_(30)
    image = torch.rand(1, 1, 16, 24)
    noisy = image + 0.1 * torch.randn(image.shape)
    for blocks in ((1, 4), (3, 2), (2, 3)):
        grown = replace(small, network=replace(small.network, blocks=blocks))
        state = FitState.start(grown, weights=model)
        assert torch.equal(state.denoiser(noisy, 0.1), model(noisy, 0.1))
        assert all(weight.any() for name, weight in state.denoiser.named_parameters() if name.endswith("first.weight"))
    shown = FitState.start(replace(grown, perturb="erase:fraction=0.5"), weights=model)
    assert shown.settings.network.blocks == (2, 3)
    with pytest.raises(UsageError, match="another network"):
        FitState.start(replace(small, network=replace(small.network, blocks=(1, 1))), weights=model)


def test_blocks_are_one_number_or_one_a_level():
    with pytest.raises(UsageError, match=r"2 levels.*\(1, 2, 3\)"):
        UNetSettings(widths=(4, 8), blocks=(1, 2, 3))
    with pytest.raises(UsageError, match="at least 1"):
        UNetSettings(widths=(4, 8), blocks=(1, 0))
    assert UNetSettings(widths=(4, 8), blocks=[1, 2]).depths == (1, 2)


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
    """By 1 − min(average, (k+1)/(k+10)) in step k. Breaks: it keeps its start; it follows when it is asked for."""
    state = FitState.start(LINE)
    average = state.averaged
    expected = {key: value.clone().double() for key, value in state.denoiser.state_dict().items()}
    for progress in fit(state, on_a_line, precision="float32", threads=1):
        share = 1 - min(0.9, progress.step / (progress.step + 9))
        for key, value in state.denoiser.state_dict().items():
            expected[key] += share * (value.double() - expected[key])
    for key, value in average.state_dict().items():
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
