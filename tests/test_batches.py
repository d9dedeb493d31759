"""What a step learns from: whole batches, crops, what is perturbed ahead, and what is looked for."""

import math
from collections import Counter
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from runs import COLOUR, EVERYTHING, IMAGES, LINE, assert_same, run, six_pictures, snapshot

from unperturb.data.patches import Patches
from unperturb.data.stretches import open_stretches
from unperturb.errors import UsageError
from unperturb.model.filling import filled
from unperturb.model.network import UNetSettings
from unperturb.model.spec import parse
from unperturb.train.batches import Together, batches
from unperturb.train.crops import AS_THEY_ARE, enlarged
from unperturb.train.fit import _Learning, _tensors, fit
from unperturb.train.material import crops, together
from unperturb.train.objective import squared_error
from unperturb.train.pool import AHEAD, Pool
from unperturb.train.settings import FitSettings
from unperturb.train.showing import Task, joined, perturbed, task_of
from unperturb.train.state import FitState


@pytest.fixture
def pictures(tmp_path) -> Patches:
    return six_pictures(tmp_path)


# --- Whole batches ----------------------------------------------------------------------------------------------------


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


SHOT = "gaussian:sigma=0.1..0.5", "blur:sigma=0.5..1.5 | poisson:gain=0.02", "camera:iso=800"
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


# --- Crops ------------------------------------------------------------------------------------------------------------


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
    np.testing.assert_allclose(
        factors[~stay].log() / math.log(2.5), (chance[~stay] - AS_THEY_ARE) / (1 - AS_THEY_ARE), atol=0.05
    )
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
