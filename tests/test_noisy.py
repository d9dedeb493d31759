"""Learning from noisy signals alone: losses, what they assume, gains, recordings, and runs from the command line."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from unperturb.app.adapting import _recordings, choose
from unperturb.app.commands.fit import fit as fit_command
from unperturb.app.shots import Shots, read_shots
from unperturb.errors import TrainingError, UsageError
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model.card import Card
from unperturb.model.checkpoint import load
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings
from unperturb.model.spec import parse
from unperturb.model.stabilise import Counting
from unperturb.train import adapt
from unperturb.train.adapt import learn_noisy
from unperturb.train.batches import NoisyDraw
from unperturb.train.fit import fit
from unperturb.train.gains import Gains
from unperturb.train.noisy import (
    ALPHA,
    NOISY,
    STRIDE,
    Denoise,
    Noisy,
    _picked,
    _two_of_four,
    check_noisy,
    recorrupted,
    steins_estimate,
    sure,
    together,
)
from unperturb.train.objective import FLOOR, OBJECTIVES
from unperturb.train.recordings import KEPT, Estimate, Recordings
from unperturb.train.run import Habits, RunFiles
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState

SIGMA = 0.3
UNIT = SIGMA**2 + FLOOR**2
TINY = UNetSettings(widths=(4, 8), blocks=1)


def fixed(x: Tensor, sigma: Tensor) -> Tensor:
    """Return an answer that is no linear function: a soft threshold, and a little of the neighbours."""
    near = (x.roll(1, 2) + x.roll(-1, 2) + x.roll(1, 3) + x.roll(-1, 3)) / 4
    return torch.sign(x) * (x.abs() - 0.5 * sigma).clamp(min=0) * 0.8 + 0.1 * near


def scene(count: int = 400, side: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, side, side, generator=generator, dtype=torch.float64).cumsum(2) / 3


def noisy(clean: Tensor, sigma: Tensor | float = SIGMA) -> Noisy:
    generator = torch.Generator().manual_seed(2)
    first, again = (clean + sigma * torch.randn(clean.shape, generator=generator, dtype=clean.dtype) for _ in range(2))
    return Noisy.of(first, torch.as_tensor(sigma, dtype=clean.dtype), generator, again)


def within(values: Tensor, expected: float) -> None:
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) <= 4 * error


def error(estimate: Tensor, clean: Tensor) -> Tensor:
    return (estimate.float() - clean).square().flatten(1).mean(1)


def judged(answer: Denoise, seen: Noisy, clean: Tensor, step: float = STRIDE) -> Tensor:
    """Return the error of both answers that `sure` asks for, on average."""
    probe, level = step * seen.sigma * seen.normal, seen.sigma * math.sqrt(1 + step**2)
    return (error(answer(seen.values + probe, level), clean) + error(answer(seen.values - probe, level), clean)) / 2


# --- Law 12: the mean over the noise is that of learning from the clean ones ------------------------------------------


def test_a_second_shot_costs_its_own_noise():
    """Break: the same shot taken twice."""
    clean = scene()
    seen = noisy(clean)
    within(UNIT * NOISY["noise2noise"](fixed, seen) - error(fixed(seen.values, seen.sigma), clean), SIGMA**2)


def test_two_halves_of_one_recording_cost_the_noise_of_the_second():
    """Breaks: α z taken off rather than z / α; the noise of the first half given to the second."""
    clean = scene()
    seen = noisy(clean)
    more = seen.values + ALPHA * seen.sigma * seen.normal
    supervised = error(fixed(more, seen.sigma * math.sqrt(1 + ALPHA**2)), clean)
    within(UNIT * recorrupted(fixed, seen) - supervised, (1 + ALPHA**-2) * SIGMA**2)


def test_halves_are_taken_with_both_signs_where_both_are_as_likely():
    """Break: one sign alone."""
    seen = noisy(scene())
    other = replace(seen, more=-seen.more)
    assert torch.equal(recorrupted(fixed, seen), recorrupted(fixed, other))
    one, two = (recorrupted(fixed, replace(each, mirrored=False)) for each in (seen, other))
    torch.testing.assert_close((one + two) / 2, recorrupted(fixed, seen))


@pytest.mark.parametrize("varying", [False, True])
def test_steins_estimate_is_the_squared_error(varying):
    """Also where noise is not as strong everywhere. Breaks: the divergence once; the variance of the noise kept."""
    clean = scene()
    sigma = torch.linspace(0.1, 0.5, 16, dtype=torch.float64).expand(len(clean), 1, 16, 16) if varying else SIGMA
    seen = noisy(clean, sigma)
    unit = seen.level.square() + FLOOR**2
    within(sum(steins_estimate(fixed, seen)) - error(fixed(seen.values, seen.sigma), clean), 0.0)
    within(unit * sure(fixed, seen) - judged(fixed, seen, clean), 0.0)


def wary(x: Tensor, sigma: Tensor) -> Tensor:
    """Return an answer that bends within the noise."""
    return fixed(x, sigma) * torch.cos(4 * x)


@pytest.mark.parametrize("step", [0.05, 0.35, 1.5])
@pytest.mark.parametrize("answer", [fixed, wary])
def test_steins_estimate_is_unbiased_however_long_its_steps(monkeypatch, answer, step):
    """Of the mean of both answers, or of each. Breaks: the answer to what was seen beside that divergence; one side."""
    monkeypatch.setattr("unperturb.train.noisy.STEP", step)
    monkeypatch.setattr("unperturb.train.noisy.STRIDE", step)
    clean = scene(1600)
    seen = noisy(clean)
    probe = step * seen.sigma * seen.normal
    mean = (answer(seen.values + probe, seen.sigma) + answer(seen.values - probe, seen.sigma)) / 2
    within(sum(steins_estimate(answer, seen)) - error(mean, clean), 0.0)
    within(UNIT * sure(answer, seen) - judged(answer, seen, clean, step), 0.0)


@pytest.mark.parametrize("share", [0.0, 0.3, -0.2])
def test_without_the_strength_of_the_noise_an_answer_that_does_not_move_with_it_costs_that_noise(share):
    """Mixed with what was seen it costs what it did, and a little for that. Breaks: d not taken out; nothing for d."""
    clean = scene(100, side=96)
    seen = noisy(clean)

    def still(x: Tensor, _: Tensor) -> Tensor:
        return (x.roll(1, 2) + x.roll(-1, 2) + x.roll(1, 3) + x.roll(-1, 3)) / 4

    supervised = error(still(seen.values, seen.sigma), clean)
    found = UNIT * NOISY["unsure"](lambda x, sigma: share * x + (1 - share) * still(x, sigma), seen)
    assert float(found.mean() / (supervised.mean() + SIGMA**2)) == pytest.approx(1 + share**2, rel=0.01)


def test_without_the_strength_of_the_noise_what_was_seen_is_no_answer():
    """Networks begin there, and stayed. Break: no more than the largest share taken out, and nothing lost beyond."""
    clean = scene(100, side=96)
    seen = noisy(clean)
    losses = [
        float(NOISY["unsure"](lambda x, _, share=share: share * x + (1 - share) * clean, seen).mean())
        for share in (1.0, 0.98, 0.95, 0.5, 0.0)
    ]
    assert losses == sorted(losses, reverse=True)


COUNTING = Counting(gain=0.05, read=0.04, offset=0.1)


def counted(count: int = 400) -> tuple[Tensor, Noisy]:
    """Return a scene of some ten photons a pixel, and it as a camera of little read noise sees it."""
    clean = 0.6 + 0.4 * torch.tanh(scene(count))
    spec = f"poisson-gaussian:gain={COUNTING.gain},read={COUNTING.read},offset={COUNTING.offset}"
    generator = torch.Generator().manual_seed(3)
    values = parse(spec)(clean, generator).values
    variance = COUNTING.gain * (clean.mean() - COUNTING.offset) + COUNTING.read**2
    return clean, Noisy.of(values, variance.sqrt(), generator, counting=COUNTING)


def smooth(x: Tensor, sigma: Tensor) -> Tensor:
    """Return an answer for which Stein's formula for counts is good: to the first order, it is a line."""
    near = (x.roll(1, 2) + x.roll(-1, 2) + x.roll(1, 3) + x.roll(-1, 3)) / 4
    return 0.5 * near + 0.4 * x + 0.1 * torch.tanh(x) + 0 * sigma


def test_steins_estimate_of_counts_is_the_squared_error():
    """Breaks: the variance at the mean brightness for that of every value; the offset left in; read noise left out."""
    clean, seen = counted(2000)
    assert not seen.mirrored
    unit = seen.level.square() + FLOOR**2
    within(sum(steins_estimate(smooth, seen)) - error(smooth(seen.values, seen.sigma), clean), 0.0)
    within(unit * sure(smooth, seen) - judged(smooth, seen, clean), 0.0)


def bent(x: Tensor, _: Tensor) -> Tensor:
    """Return an answer that follows the noise more where it is bright."""
    return x.square() / 2


def test_two_halves_of_one_count_cost_the_noise_of_the_second():
    """Breaks: Gaussian noise in place of thinning; the noise of reading not parted."""
    clean, seen = counted(2000)
    unit = seen.level.square() + FLOOR**2
    supervised = error(bent(seen.values + ALPHA * seen.more, seen.sigma), clean)
    variance = (COUNTING.gain * (clean - COUNTING.offset) + COUNTING.read**2).flatten(1).mean(1)
    within(unit * recorrupted(bent, seen) - supervised - (1 + ALPHA**-2) * variance, 0.0)


@pytest.mark.parametrize("read", [0.0, 0.01, 0.2])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_parted_counts_have_no_noise_in_common(read, share):
    """The mean of both is the signal, and each has its share of the counts. Break: a half for the share."""
    noise, n = Counting(gain=0.1, read=read, offset=0.2), 400_000
    generator = torch.Generator().manual_seed(4)
    clean = torch.full((n, 1), 1.4, dtype=torch.float64)
    spec = f"poisson-gaussian:gain={noise.gain},read={noise.read},offset={noise.offset}"
    seen = parse(spec)(clean, generator).values
    more = noise.parted(seen, share, torch.randn(n, 1, generator=generator, dtype=torch.float64), generator)
    alpha = math.sqrt(1 / share - 1)
    one, two = seen + alpha * more - clean, seen - more / alpha - clean
    variance = noise.gain * 1.2 + read**2
    for part, factor in ((one, 1 + alpha**2), (two, 1 + alpha**-2)):
        within(part, 0.0)
        within(part.square() / factor, variance)
    within(one * two, 0.0)
    assert noise.scaled(3.0).unbiased_variance(3 * seen).mean() == pytest.approx(9 * variance, rel=0.01)


def test_halves_of_counts_without_read_noise_are_independent():
    """Squares as well. Break: Gaussian noise in place of thinning, which is uncorrelated and no more."""
    noise, n = Counting(gain=0.5), 400_000
    generator = torch.Generator().manual_seed(5)
    seen = parse("poisson:gain=0.5")(torch.full((n, 1), 1.0, dtype=torch.float64), generator).values
    more = noise.parted(seen, 0.5, torch.zeros(n, 1, dtype=torch.float64), generator)
    one, two = (seen + more).square(), (seen - more).square()
    within((one - one.mean()) * (two - two.mean()), 0.0)


def test_neighbours_of_one_brightness_cost_the_noise_of_the_second():
    """For an answer as bright everywhere, of which nothing is taken off. Break: a pixel against itself."""

    def even(x: Tensor, _: Tensor) -> Tensor:
        return 0.9 * x.mean((2, 3), keepdim=True).expand_as(x)

    clean = torch.full((400, 1, 16, 16), 0.7, dtype=torch.float64)
    seen = noisy(clean)
    taken = _picked(seen.values, _two_of_four(seen.uniform)[0])
    supervised = error(even(taken, seen.sigma), clean[..., :8, :8])
    within(UNIT * NOISY["neighbours"](even, seen) - supervised, SIGMA**2)


def test_what_an_answer_makes_of_neighbours_is_taken_off():
    """Of a signal without noise that is answered as it is nothing is left but a third of the difference of the two."""
    clean = scene()
    seen = replace(noisy(clean), values=clean)
    first, second = _two_of_four(seen.uniform)
    differ = [_picked(clean, one) - _picked(clean, two) for one, two in ((first, second), (3 - first, 3 - second))]
    found = NOISY["neighbours"](lambda x, _: x, seen) * UNIT
    squares = sum(error(each, torch.zeros_like(each)) for each in differ) / 2
    torch.testing.assert_close(found, squares / 9, rtol=1e-4, atol=0)


def uneven(x: Tensor, sigma: Tensor) -> Tensor:
    """Return an answer that is not symmetric, and depends on what it is told of the noise."""
    return 0.5 * x + 0.3 * x.roll(1, 3).square() + sigma


@pytest.mark.parametrize("sides", [(16, 16), (15, 17)], ids=str)
def test_every_pixel_of_two_by_two_is_held_against_its_neighbour(sides):
    """Breaks: one of a pair alone; the noise of another pixel."""
    generator = torch.Generator().manual_seed(9)
    values = torch.rand(3, 1, *sides, generator=generator, dtype=torch.float64)
    seen = Noisy.of(values, 0.1 + values[:1], generator)
    first, second = _two_of_four(seen.uniform)
    whole = uneven(seen.values, seen.sigma)
    errors = []
    for one, two in ((first, second), (second, first), (3 - first, 3 - second), (3 - second, 3 - first)):
        taken, against, mine, theirs, sigma = (
            _picked(each, which)
            for each, which in ((values, one), (values, two), (whole, one), (whole, two), (seen.sigma, one))
        )
        errors.append(error(uneven(taken, sigma), against + 2 / 3 * (mine - theirs)))
    found = NOISY["neighbours"](uneven, seen) * (seen.level.square() + FLOOR**2)
    torch.testing.assert_close(found.double(), sum(errors) / 4, rtol=1e-4, atol=0)


def test_steins_estimate_goes_to_both_sides():
    """What bends alike on both sides tells nothing, so that the sign of the probe is all the same. Break: one side."""
    seen = noisy(scene())
    torch.testing.assert_close(sure(bent, seen), sure(bent, replace(seen, normal=-seen.normal)))


def test_hidden_pixels_cost_their_noise_and_are_not_seen():
    """Break: the hidden pixel left where it is."""
    clean = scene(2000)
    seen = noisy(clean)
    answers = []

    def watched(x: Tensor, sigma: Tensor) -> Tensor:
        answers.append(x)
        return fixed(x, sigma)

    loss = NOISY["blind-spot"](watched, seen)
    hidden = seen.uniform < 0.02
    assert (answers[0] != seen.values).sum() == hidden.sum()
    count = hidden.flatten(1).sum(1)
    some = count > 0
    supervised = ((fixed(answers[0], seen.sigma) - clean).square() * hidden).flatten(1).sum(1) / count.clamp(min=1)
    within(((UNIT * loss - supervised) * count)[some] / count[some].double().mean(), SIGMA**2)


# --- What they assume -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("objective", sorted(NOISY))
def test_an_objective_is_refused_where_it_cannot_work(objective):
    """Break: blind spots allowed where neighbours have noise in common."""
    assert check_noisy(objective, paired=True, correlated=False) is None
    if objective == "noise2noise":
        assert check_noisy(objective, paired=True, correlated=True) is None
        with pytest.raises(UsageError, match="--again"):
            check_noisy(objective, paired=False, correlated=False)
    elif objective in ("neighbours", "blind-spot"):
        with pytest.raises(UsageError, match="in common"):
            check_noisy(objective, paired=True, correlated=True)
    else:
        assert "in common" in check_noisy(objective, paired=True, correlated=True)


def test_the_command_line_names_all_objectives():
    choices = next(parameter for parameter in fit_command.params if parameter.name == "objective").type.choices
    assert {*choices} == {*OBJECTIVES, *NOISY, "auto"}


def test_several_as_one_are_what_they_were():
    parts = [noisy(scene(2)), noisy(scene(3))]
    whole = together(parts)
    for name, loss in NOISY.items():
        each = torch.cat([loss(fixed, part) for part in parts])
        torch.testing.assert_close(loss(fixed, whole), each, msg=name)


# --- Gains ------------------------------------------------------------------------------------------------------------


def test_gains_multiply_features_and_change_nothing_else():
    """The ratio to what it was is one number a feature. Breaks: the axis of what doubles resolution; a step added."""
    state = FitState.start(FitSettings("gaussian:sigma=0.1", TINY, tune="gains"))
    before = {name: value.clone() for name, value in state.denoiser.network.named_parameters()}
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        gradients = [torch.randn(value.shape, generator=generator) for value in state.denoiser.network.parameters()]
        state.optimizer.step(gradients, 0.01)
    for name, value in state.denoiser.network.named_parameters():
        axis = 1 if name.startswith("up.") else 0
        ratio = (value / before[name]).detach().movedim(axis, 0).flatten(1)
        assert (ratio - ratio[:, :1]).abs().max() < 1e-5
        assert 0.005 < (ratio[:, 0] - 1).abs().max() < 0.06
        assert (ratio[:, 0] - ratio[0, 0]).abs().max() > 1e-3
    assert isinstance(state.optimizer, Gains)


@pytest.mark.parametrize(("objective", "tune"), [("sure", "gains"), ("recorrupted", "all"), ("noise2noise", "all")])
def test_learning_is_taken_up_again_bit_for_bit(tmp_path, objective, tune):
    recordings = flat(again=objective == "noise2noise")
    settings = FitSettings("gaussian:sigma=0.1", TINY, steps=6, batch=2, objective=objective, tune=tune, patch_size=16)

    def draw(generator, _):
        return recordings.crop(generator, 16, paired=objective == "noise2noise")

    whole = FitState.start(settings)
    list(fit(whole, NoisyDraw(draw), precision="float32", threads=1))
    part = FitState.start(settings)
    for progress in fit(part, NoisyDraw(draw), precision="float32", threads=1):
        if progress.step == 3:
            part.save(tmp_path / "state")
            break
    again = FitState.resume(tmp_path / "state", settings)
    list(fit(again, NoisyDraw(draw), precision="float32", threads=1))
    for one, other in zip(whole.denoiser.parameters(), again.denoiser.parameters(), strict=True):
        assert torch.equal(one, other)


# --- Recordings -------------------------------------------------------------------------------------------------------


def flat(count: int = 2, *, again: bool = False, sigma: float = 0.1) -> Recordings:
    generator = np.random.default_rng(0)
    clean = [np.full((1, 200, 64), 0.3 + 0.2 * number, np.float32) for number in range(count)]
    shots = [[np.float32(x + sigma * generator.standard_normal(x.shape)) for x in clean] for _ in range(2)]
    sigmas = tuple(np.full((1, 200, 64), sigma, np.float32) for _ in clean)
    return Recordings(tuple(shots[0]), sigmas, tuple(shots[1]) if again else ())


def test_crops_are_from_what_is_not_kept():
    recordings = flat(1)
    kept = round((1 - KEPT) * 200)
    recordings.planes[0][:, kept:] = 7.0
    generator = np.random.default_rng(0)
    crops = [recordings.crop(generator, 40) for _ in range(200)]
    assert {crop.shape for crop in crops} == {(2, 40, 40)}
    assert max(crop[0].max() for crop in crops) < 7
    assert all((crop[1] == np.float32(0.1)).all() for crop in crops)


@pytest.mark.parametrize("again", [False, True])
def test_the_error_is_told_without_clean_values(again):
    """Of what does nothing it is that of the noise. Break: the noise of the second shot counted as error."""
    recordings = flat(again=again)
    idle = Denoiser(Card(TINY))
    with torch.no_grad():
        idle.network.tail.weight.zero_()
    found = recordings.estimated_error(idle)
    assert found.told == pytest.approx(0.01, rel=0.12)  # 4 standard errors
    assert found.less == pytest.approx(found.told * (1 if again else 0.9), rel=0.02)
    assert found.more == pytest.approx(found.told * (1 if again else 1.1), rel=0.02)
    assert recordings.noise == pytest.approx(0.01)


def test_what_is_better_is_so_whatever_the_noise_is():
    """Break: better by what is told alone."""
    assert Estimate(1.0, 0.9, 1.1).better_than(Estimate(1.1, 1.0, 1.2))
    assert not Estimate(1.0, 0.9, 1.3).better_than(Estimate(1.1, 1.0, 1.2))
    assert not Estimate(1.0, 1.1, 1.1).better_than(Estimate(1.1, 1.0, 1.2))


def test_recordings_that_are_too_small_are_refused():
    with pytest.raises(TrainingError, match="too small"):
        Recordings((np.zeros((1, 100, 64), np.float32),), (np.ones((1, 100, 64), np.float32),))


def test_a_run_ends_with_the_best_there_was(tmp_path):
    """A rate that ruins everything leaves the weights it began with. Break: the last weights written."""
    natural = load("natural")
    recordings = flat(1)
    settings = FitSettings(
        "gaussian:sigma=0.1", natural.card.network, steps=14, batch=1, rate=0.5, warmup=0, patch_size=32,
        objective="sure", tune="gains", average=0.0,
    )  # fmt: skip
    reports = list(learn_noisy(settings, recordings, RunFiles(tmp_path / "m.safetensors"), HABITS, weights=natural))
    found = load(tmp_path / "m.safetensors")
    assert reports[-1].gain == 0
    assert reports[-1].progress.step == 12  # six estimates without a better one
    for one, other in zip(natural.parameters(), found.parameters(), strict=True):
        assert torch.equal(one, other)


HABITS = Habits(checkpoint=0, validate=2, precision="float32", threads=1)


def test_a_run_that_was_stopped_goes_on_to_the_same_model(tmp_path):
    settings = FitSettings(
        "gaussian:sigma=0.1", TINY, steps=8, batch=2, rate=3e-3, patch_size=32, objective="recorrupted"
    )
    list(learn_noisy(settings, flat(), RunFiles(tmp_path / "a.safetensors"), HABITS))
    stopped = learn_noisy(settings, flat(), RunFiles(tmp_path / "b.safetensors"), HABITS)
    for report in stopped:
        if report.progress is not None and report.progress.step == 5:
            break
    stopped.close()
    list(learn_noisy(settings, flat(), RunFiles(tmp_path / "b.safetensors"), HABITS, resume=True))
    one, other = (load(tmp_path / f"{name}.safetensors") for name in "ab")
    assert all(torch.equal(x, y) for x, y in zip(one.parameters(), other.parameters(), strict=True))
    logs = [(tmp_path / f"{name}.log.jsonl").read_text() for name in "ab"]
    assert logs[0] == logs[1]
    with pytest.raises(UsageError, match="other settings"):
        list(
            learn_noisy(replace(settings, rate=1e-3), flat(), RunFiles(tmp_path / "b.safetensors"), HABITS, resume=True)
        )


# --- From the command line --------------------------------------------------------------------------------------------

SPEC = "poisson-gaussian:gain=0.02,read=0.02"


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """Two shots of a made-up thing, under noise that grows with brightness."""
    folder = tmp_path_factory.mktemp("shots")
    down, across = np.mgrid[:200, :160] / 20
    clean = np.float32(0.5 + 0.25 * np.sin(down) * np.cos(across) + 0.2 * (np.hypot(down - 5, across - 4) < 2))
    for number in (0, 1):
        made = parse(SPEC)(torch.from_numpy(clean)[None, None], torch.Generator().manual_seed(number)).values
        tifffile.imwrite(folder / f"{number}.tif", made[0, 0].numpy())
    return folder, clean


def test_a_bundled_model_is_tuned_to_a_recording_and_knows_its_noise(tmp_path, shots, run):
    folder, clean = shots
    out = tmp_path / "mine.safetensors"
    code, told, words = run("fit", "--from", "natural", "--noisy", folder / "0.tif", "-o", out, "--steps", 4,
                            "--validate", 2, "--batch", 1, "--patch-size", 32, "--noise", SPEC, "--json")  # fmt: skip
    assert code == 0, words
    summary = json.loads(told)
    assert (summary["objective"], summary["noise"]) == ("recorrupted", SPEC)
    assert summary["gain"] >= 0
    card = load(out).card
    assert (card.perturbation, card.recipe["tune"]) == (SPEC, "gains")
    assert run("restore", folder / "0.tif", "--model", out, "-o", tmp_path / "a.tif")[0] == 0
    assert run("sample", folder / "0.tif", "--model", out, "-n", 1, "--steps", 2, "-o", tmp_path / "drawn")[0] == 0
    values = tifffile.imread(folder / "0.tif")
    expected = restore(values, load(out), perturbation=parse(SPEC), compute=Compute())
    assert np.abs(tifffile.imread(tmp_path / "a.tif") - expected).max() < 1e-5
    assert np.square(expected - clean).mean() < 0.1 * np.square(values - clean).mean()


def test_two_shots_teach_a_network_from_nothing(tmp_path, shots, run):
    folder, _ = shots
    out = tmp_path / "mine.safetensors"
    code, told, words = run(
        *("fit", "--noisy", folder / "0.tif", "--again", folder / "1.tif", "-o", out, "--network", "tiny"),
        *("--steps", 60, "--validate", 20, "--patch-size", 32, "--rate", 3e-3, "--noise", SPEC, "--json"),
    )
    assert code == 0, words
    summary = json.loads(told)
    assert summary["objective"] == "noise2noise"
    assert summary["estimated_error"]["after"] < 0.8 * summary["estimated_error"]["noise"]


@pytest.mark.parametrize("objective", sorted(NOISY))
def test_second_shots_are_no_colours(tmp_path, shots, run, objective):
    """Any objective may have them: they tell the error. Break: put into every crop."""
    folder, _ = shots
    code, _, words = run(
        *(
            "fit",
            "--noisy",
            folder / "0.tif",
            "--again",
            folder / "1.tif",
            "-o",
            tmp_path / "m.safetensors",
            "--noise",
            SPEC,
        ),
        *("--network", "tiny", "--objective", objective, "--steps", 2, "--validate", 1, "--patch-size", 32),
    )
    assert code == 0, words


def test_a_gray_recording_stored_as_colour_is_gray(tmp_path, shots):
    """Break: one noise three times taken for three."""
    values = np.rint(255 * tifffile.imread(shots[0] / "0.tif").clip(0, 1)).astype(np.uint8)
    Image.fromarray(np.stack([values] * 3, -1)).save(tmp_path / "a.png")
    assert [plane.shape for plane in read_shots((tmp_path / "a.png",), ()).firsts] == [(1, 200, 160)]


def test_a_run_whose_log_is_gone_is_not_resumed(tmp_path, shots, run):
    arguments = (
        *("fit", "--noisy", shots[0] / "0.tif", "-o", tmp_path / "m.safetensors", "--noise", SPEC),
        *("--network", "tiny", "--steps", 2, "--validate", 1, "--patch-size", 32),
    )
    assert run(*arguments)[0] == 0
    (tmp_path / "m.log.jsonl").unlink()
    code, _, words = run(*arguments, "--resume")
    assert (code, "is gone" in words) == (1, True)


def test_a_recording_that_is_too_small_is_named(tmp_path, shots, run):
    tifffile.imwrite(tmp_path / "small.tif", tifffile.imread(shots[0] / "0.tif")[:100])
    code, _, words = run("fit", "--noisy", tmp_path / "small.tif", "-o", tmp_path / "m.safetensors", "--noise", SPEC)
    assert (code, "small.tif is too small to learn from: 160 rows" in words) == (1, True)


def test_noise_is_found_and_said(shots):
    folder, _ = shots
    found = choose((folder,), (), Shots(()), "auto", "auto", adapting=False)
    assert str(found.noise).startswith("poisson-gaussian:gain=0.0")
    assert found.objective == "recorrupted"
    assert len(found.told) == 3
    assert "compare with --noise" in found.told[2]
    assert len(choose((folder,), (), Shots(()), "gaussian:sigma=0.1", "auto", adapting=False).told) == 2


def test_counts_are_told_of_in_the_units_that_are_learned_in(tmp_path, shots, run, monkeypatch):
    """Breaks: counting not told to the recordings, or not to the losses; in units of the file."""
    told = []
    monkeypatch.setattr(
        adapt, "fit", lambda state, draw, **options: (told.append(draw), fit(state, draw, **options))[1]
    )
    code, _, words = run("fit", "--noisy", shots[0] / "0.tif", "-o", tmp_path / "m.safetensors", "--steps", 2,
                         "--noise", SPEC, "--network", "tiny", "--batch", 1, "--patch-size", 32)  # fmt: skip
    assert code == 0, words
    top = np.quantile(np.abs(tifffile.imread(shots[0] / "0.tif")), 0.999)
    assert (told[0].counting.gain, told[0].counting.read) == pytest.approx((0.02 / top, 0.02 / top), rel=1e-5)


STACKED = f"gaussian:sigma={100 / 65535:.6f}"


def _stack(path, clean, moves, *, axes="TYX", sigma=0.1):
    """Write frames of a thing that moves down by so many pixels, under noise, in two channels where there are such."""
    generator = np.random.default_rng(6)
    frames = np.stack([np.roll(clean, move, 0) for move in moves])
    frames = np.stack([frames, 0.5 * frames], 1) if "C" in axes else frames
    noisy = (1000 * (frames + generator.normal(0, sigma, frames.shape)) + 2000).round().clip(0, 65535).astype(np.uint16)
    tifffile.imwrite(path, noisy, imagej=True, metadata={"axes": axes})


@pytest.mark.parametrize("axes", ["TYX", "ZYX", "TCYX"])
def test_frames_that_show_the_same_are_shots_of_it(tmp_path, shots, run, axes):
    """Each is learned from against the next, and the other way round, a channel at a time."""
    _stack(tmp_path / "stack.tif", shots[1], (0, 0, 0), axes=axes)
    read = read_shots((tmp_path / "stack.tif",), ()).looked_at(parse(STACKED), correlated=False)
    channels = 2 if "C" in axes else 1
    assert (len(read.firsts), len(read.pairs), read.apart) == (3 * channels, 4 * channels, 0)
    for number, (one, other) in enumerate(read.pairs):
        assert (one is read.pairs[number ^ 1][1], other is read.pairs[number ^ 1][0]) == (True, True)
        assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.3
        assert abs(one.mean() - other.mean()) < 0.001
    code, told, words = run("fit", "--noisy", tmp_path / "stack.tif", "-o", tmp_path / "m.safetensors", "--steps", 2,
                            "--network", "tiny", "--batch", 1, "--patch-size", 32, "--json")  # fmt: skip
    assert code == 0, words
    summary = json.loads(told)
    assert summary["objective"] == "noise2noise"
    assert any("frames that follow each other show the same" in sentence for sentence in summary["told"])


def _things(shots, kind):
    """Return six frames that are not shots of the same, and the noise that they are said to have."""
    generator = np.random.default_rng(7)
    white = generator.normal(0, 0.03, (6, *shots[1].shape))
    if kind == "moving":
        return np.stack([np.roll(shots[1], 3 * number, 0) for number in range(6)]) + white
    if kind == "other things":
        return gaussian_filter(generator.normal(0, 1, white.shape), (0, 2, 2)) + white
    same = shots[1] + np.broadcast_to(white[:1], white.shape)
    return same if kind == "copies" else np.stack([(shots[1] + white)[number // 4 : 5].mean(0) for number in range(6)])


@pytest.mark.parametrize("kind", ["moving", "other things", "copies", "means"])
def test_frames_that_are_not_shots_of_the_same_are_recordings_by_themselves(tmp_path, shots, run, kind):
    """Breaks: not to look; shifts alone; no lower end of how much they differ."""
    tifffile.imwrite(tmp_path / "stack.tif", _things(shots, kind).astype(np.float32), metadata={"axes": "TYX"})
    file, told = (tmp_path / "stack.tif",), "gaussian:sigma=0.03"
    found = choose(file, (), read_shots(file, ()), told, "auto", adapting=False)
    assert found.objective == "recorrupted"
    assert "of the frames that follow each other differ by more, or by less, than noise" in found.told[0]
    code, _, words = run("fit", "--noisy", *file, "-o", tmp_path / "m.safetensors", "--objective", "noise2noise",
                         "--noise", told)  # fmt: skip
    assert (code, "noise2noise would blur or keep it" in words) == (2, True)
    assert not (tmp_path / "m.safetensors").exists()


def test_a_cut_in_a_stack_and_what_has_no_second_shot_are_left_out(tmp_path, shots):
    """Break: a few pairs looked at for all."""
    generator = np.random.default_rng(8)
    scenes = [shots[1]] * 5 + [shots[1][::-1]] * 5
    frames = np.stack(scenes) + generator.normal(0, 0.03, (10, *shots[1].shape))
    tifffile.imwrite(tmp_path / "stack.tif", frames.astype(np.float32), metadata={"axes": "TYX"})
    tifffile.imwrite(tmp_path / "single.tif", frames[0].astype(np.float32))
    files = (tmp_path / "stack.tif", tmp_path / "single.tif")
    found = choose(files, (), read_shots(files, ()), "gaussian:sigma=0.03", "auto", adapting=False)
    assert (found.objective, len(found.shots.pairs), found.shots.left_out) == ("noise2noise", 16, 1)
    assert found.told[-1] == "1 of 11 planes have no second shot, and are left out"


def test_a_gray_frame_among_colour_stays_in_colour(tmp_path, shots):
    colour = np.repeat(shots[1][None, ..., None], 3, -1).repeat(3, 0) + np.random.default_rng(9).normal(
        0, 0.03, (3, 200, 160, 3)
    )
    colour[1] = colour[1, ..., :1]
    tifffile.imwrite(tmp_path / "stack.tif", colour.astype(np.float32), photometric="rgb", metadata={"axes": "TYXS"})
    assert {plane.shape for plane in read_shots((tmp_path / "stack.tif",), ()).firsts} == {(3, 200, 160)}


def test_counts_in_colour_are_learned_from(tmp_path, shots, run):
    """With one map for all colours, of the noise of values. Break: that of the posterior, a map a colour."""
    clean = np.clip(np.repeat(shots[1][..., None], 3, -1) * (0.9, 0.6, 0.3), 0.05, 1)
    counts = np.random.default_rng(3).poisson(clean / 0.05) * 0.05
    tifffile.imwrite(tmp_path / "a.tif", counts.astype(np.float32), photometric="rgb")
    code, _, words = run("fit", "--noisy", tmp_path / "a.tif", "--from", "natural", "--noise", "poisson:gain=0.05",
                         "--steps", 1, "--batch", 1, "--patch-size", 32, "-o", tmp_path / "m.safetensors")  # fmt: skip
    assert code == 0, words
    choice = choose((tmp_path / "a.tif",), (), read_shots((tmp_path / "a.tif",), ()), "poisson:gain=0.05", "sure",
                    adapting=True)  # fmt: skip
    made = _recordings(choice, load("natural"))
    truth = np.sqrt(0.05 * clean.mean(-1))
    assert made.sigmas[0].shape == (1, 200, 160)
    top = np.quantile(counts, 0.999)
    assert np.abs(top * made.sigmas[0][0] / truth - 1).mean() < 0.1


def test_a_run_that_was_stopped_at_its_beginning_is_taken_up_again(tmp_path):
    """Break: the line of the beginning taken out of the log."""
    settings = FitSettings("gaussian:sigma=0.1", TINY, steps=4, batch=1, rate=3e-3, patch_size=32, objective="sure")
    begun = learn_noisy(settings, flat(1), RunFiles(tmp_path / "m.safetensors"), replace(HABITS, checkpoint=1e9))
    for report in begun:
        if report.steps == 1:
            break
    begun.close()
    reports = list(learn_noisy(settings, flat(1), RunFiles(tmp_path / "m.safetensors"), HABITS, resume=True))
    assert reports[-1].steps == 4
    assert len((tmp_path / "m.log.jsonl").read_text().splitlines()) == 3
    list(learn_noisy(settings, flat(1), RunFiles(tmp_path / "m.safetensors"), HABITS))
    assert len((tmp_path / "m.log.jsonl").read_text().splitlines()) == 3, "a new run has a log of its own"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--noise", "blur:sigma=1", "--noisy"], "--noise is gaussian"),
        (["--objective", "noise2noise", "--noisy"], "--again"),
        (["--objective", "squared", "--noisy"], "of noisy data the objective"),
        (["--perturb", "gaussian:sigma=1", "--noisy"], "--perturb says nothing here"),
        (["--reuse", "2", "--noisy"], "--reuse says nothing here"),
        (["--half-colour", "--noisy"], "--half-colour says nothing here"),
        (["--objective", "sure"], "say --noisy"),
        (["--tune", "gains"], "say --noisy"),
        (["--from", "natural", "--network", "tiny", "--noisy"], "--network says nothing here"),
        (["--noise", "gaussian:sigma=0.1..0.2", "--noisy"], "how strong"),
        (["--noise", "gaussian:sigma=0", "--noisy"], "nothing to learn from"),
        (["--from", "missing", "--noisy", "--noise", SPEC], "not a denoiser of noise"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, shots, run, options, text):
    code, _, words = run("fit", shots[0] / "0.tif", *options, "-o", tmp_path / "m.safetensors")
    assert code in (1, 2)
    assert text in words
    assert not (tmp_path / "m.safetensors").exists()
