"""A best guess of missing pixels is polished by a denoiser of noise: nearer to the truth, and nothing else touched."""

import json

import numpy as np
import pytest
import torch

import unperturb as up
from unperturb.app.sample import sample_photograph
from unperturb.errors import UsageError
from unperturb.infer.polish import LEVELS, STEPS, polish
from unperturb.infer.restore import restore
from unperturb.infer.tiled import Compute
from unperturb.model.checkpoint import save_model
from unperturb.model.denoiser import Denoiser

pytestmark = pytest.mark.usefixtures("one_thread")

EXACTLY = Compute(device="cpu", precision="float32")


def holes(*shape: int, share: float = 0.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def photograph(size: int = 96) -> np.ndarray:
    return sample_photograph().as_float()[100 : 100 + size, 150 : 150 + size].mean(-1)


def halved(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return x / 2


def error(answer: np.ndarray, clean: np.ndarray, missing: np.ndarray) -> float:
    return float(np.square(answer - clean)[missing].mean())


@pytest.fixture(scope="module")
def bundled() -> tuple[Denoiser, Denoiser]:
    return up.load("missing"), up.load("natural")


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_a_photograph_comes_nearer_to_what_it_was(bundled, share):
    """Breaks: one level for all steps; levels that rise; the answer is not put in."""
    missing, natural = bundled
    clean = photograph()
    gone = holes(*clean.shape, share=share)
    plain = restore(clean, missing, missing=gone, quality="fast", compute=EXACTLY)
    better = polish(plain, gone, natural, compute=EXACTLY)
    assert error(better, clean, gone) < 0.93 * error(plain, clean, gone)


def test_of_gaussian_signals_it_comes_nearer_to_the_exact_mean(monkeypatch):
    """All is known in closed form: a field, its denoiser, its conditional mean. Steps that go further get there sooner.

    Breaks: y is not put back; no step goes further than the denoiser says.
    """
    rng, side = np.random.default_rng(0), 16
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    spectrum = 1 / (0.02 + frequency) ** 3
    spectrum /= spectrum.mean()
    clean = np.fft.ifft2(np.fft.fft2(rng.standard_normal((side, side))) * np.sqrt(spectrum)).real
    gone = holes(side, side, share=0.4)
    kernel = np.fft.ifft2(spectrum).real
    place = np.stack(np.unravel_index(np.arange(side**2), (side, side)))
    apart = (place[:, :, None] - place[:, None]) % side
    covariance = kernel[apart[0], apart[1]]
    seen = ~gone.ravel()
    exact = clean.copy().ravel()
    exact[~seen] = covariance[np.ix_(~seen, seen)] @ np.linalg.solve(covariance[np.ix_(seen, seen)], exact[seen])
    exact = exact.reshape(side, side)

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        gain = torch.from_numpy(spectrum) / (torch.from_numpy(spectrum) + float(sigma) ** 2)
        return torch.fft.ifft2(torch.fft.fft2(x.double()) * gain).real.float()

    start = np.where(gone, exact + 0.2 * rng.standard_normal(exact.shape), exact).astype(np.float32)
    after = [error(polish(start, gone, denoise, steps=steps, compute=EXACTLY), exact, gone) for steps in (8, 16, 200)]
    assert error(start, exact, gone) > after[0] > after[1] > 5 * after[2]
    monkeypatch.setattr("unperturb.infer.polish.RELAXATION", 1.0)
    timid = error(polish(start, gone, denoise, steps=8, compute=EXACTLY), exact, gone)
    assert after[0] < 0.75 * timid


def test_steps_begin_twice_as_long_and_end_where_the_denoiser_says():
    """Breaks: the last step goes too far; lengths rise; a single step goes further than it is told."""
    gone, shown = holes(16, 16), []
    start = np.random.default_rng(1).standard_normal((16, 16)).astype(np.float32)

    def nothing(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
        shown.append(x[0, 0].numpy()[gone])
        return torch.zeros_like(x)

    answer = polish(start, gone, nothing, steps=3, compute=EXACTLY)
    np.testing.assert_allclose(shown, np.outer([1, -1, 0.5], start[gone]), rtol=1e-6)
    np.testing.assert_array_equal(answer[gone], 0)
    np.testing.assert_array_equal(polish(start, gone, nothing, steps=1, compute=EXACTLY)[gone], 0)


def test_what_was_observed_stays_and_nothing_hidden_leaks(bundled):
    """Breaks: the denoiser's answer is taken for observed pixels as well; an input is written to."""
    clean, gone = photograph(48), holes(48, 48)
    start = np.where(gone, clean.mean(), clean).astype(np.float32)
    before = start.copy()
    answer = polish(start, gone, bundled[1], compute=EXACTLY)
    np.testing.assert_array_equal(start, before)
    np.testing.assert_array_equal(polish(start, gone.tolist(), bundled[1], compute=EXACTLY), answer)
    np.testing.assert_array_equal(answer[~gone], clean[~gone])
    assert (answer != start)[gone].mean() > 0.9


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize(("factor", "offset"), [(255, 0), (1, 1000), (20, 280), (0.01, 0.5)])
def test_units_make_no_difference(bundled, axis, factor, offset):
    """Elsewhere a network is no other, but does not err alike.

    Breaks: levels in units of 1; the unit is the mean square, or that of all values, missing ones too.
    """
    clean, gone = photograph(48), holes(48, 48)
    start = (clean + 0.03 * gone * np.random.default_rng(0).standard_normal(clean.shape)).astype(np.float32)
    if axis is not None:
        clean, start = (np.stack([one, one**2, 1 - one], axis) for one in (clean, start))
    before = float(np.square(start - clean).mean())
    one, other = (
        (polish(add + times * start, gone, bundled[1], channel_axis=axis, compute=EXACTLY) - add) / times
        for times, add in ((1, 0), (factor, offset))
    )
    assert np.square(one - clean).mean() < 0.7 * before
    assert np.square(other - clean).mean() < 1.05 * np.square(one - clean).mean()
    if offset == 0:
        np.testing.assert_allclose(other, one, atol=1e-4)


def test_channels_that_are_not_taken_together_have_units_of_their_own(bundled):
    """Break: one unit for all."""
    clean, gone, told = photograph(48), holes(48, 48), []
    start = np.where(gone, clean.mean(), clean).astype(np.float32)
    alone = polish(start, gone, bundled[1], compute=EXACTLY)
    both = np.stack([start, 1000 * start], -1)
    answer = polish(both, gone, bundled[1], channel_axis=-1, compute=EXACTLY, progress=lambda *done: told.append(done))
    np.testing.assert_allclose(answer, np.stack([alone, 1000 * alone], -1), rtol=1e-3)
    assert told == [(step, 16) for step in range(1, 17)]


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_only_what_is_near_is_looked_at(axis):
    """Breaks: all of the image is denoised; the box ends a pixel early; the axis of channels is cut."""
    values = np.random.default_rng(0).random((300, 400)).astype(np.float32)
    gone = np.zeros(values.shape, bool)
    gone[140:160, 0:30] = gone[150, 100] = True
    if axis is not None:
        values = np.stack([values, 5 + values], axis)
    shapes, levels = [], []

    def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(x.shape[-2:]))
        levels.append(float(sigma))
        return x + 1

    told: list[tuple[int, int]] = []
    answer = polish(
        values, gone, denoise, channel_axis=axis, steps=3, compute=EXACTLY, progress=lambda *done: told.append(done)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert shapes == [(20 + 2 * 64, 101 + 64)] * 3
    hidden = gone if axis is None else np.stack([gone] * 2, axis)
    unit = np.sqrt(np.moveaxis(values, axis or 0, 0)[..., ~gone].var(-1).mean())
    np.testing.assert_allclose(levels, unit * np.geomspace(*LEVELS, 3), rtol=1e-5)
    np.testing.assert_allclose(answer, values + (2 + 1.5 + 1) * hidden, rtol=1e-5)


@pytest.mark.parametrize(("share", "steps"), [(0.0, 8), (1.0, 8), (0.5, 0)])
def test_where_nothing_or_all_is_missing_there_is_nothing_to_polish(share, steps):
    """Break: of steps that there is nothing to do in, nothing is told."""
    values, gone, told = photograph(16), holes(16, 16, share=share), []
    answer = polish(values, gone, halved, steps=steps, compute=EXACTLY, progress=lambda *done: told.append(done))
    np.testing.assert_array_equal(answer, values)
    assert told == [(8, 8)] * (steps > 0)


def test_what_cannot_be_polished_is_refused(bundled):
    values, gone = photograph(32), holes(32, 32)
    with pytest.raises(UsageError, match="denoiser of noise"):
        polish(values, gone, bundled[0])
    for wrong in (gone[:-1], gone.astype(int), None):
        with pytest.raises(UsageError, match=r"boolean array of shape \(32, 32\)"):
            polish(values, wrong, bundled[1])
    for wrong in (values[0], values[None]):
        with pytest.raises(UsageError, match="has two axes"):
            polish(wrong, gone, bundled[1])
    for wrong in (-1, 2.5, "8", True, None):
        with pytest.raises(UsageError, match="steps are a whole number"):
            polish(values, gone, bundled[1], steps=wrong)
    for wrong in (np.nan, np.inf):
        with pytest.raises(UsageError, match="NaN or infinite"):
            polish(np.where(gone, wrong, values), gone, bundled[1])


def test_quality_says_how_much(monkeypatch, tmp_path, run, bundled):
    """And every answer says that it was. Breaks: "fast" is, or what has noise, or what a person's own model found."""
    asked, said = [], []
    monkeypatch.setattr(
        "unperturb.app.restoring.polish", lambda answer, *_, steps, **__: (asked.append(steps), answer)[1]
    )
    clean, gone = np.rint(255 * photograph(32)).astype(np.uint8), holes(32, 32)
    up.write(up.Recording(clean, "YX", "png"), tmp_path / "a.png")
    up.write(up.Recording(gone.astype(np.uint8) * 255, "YX", "png"), tmp_path / "m.png")
    save_model(bundled[0], tmp_path / "own.safetensors")
    told = ("restore", tmp_path / "a.png", "--missing", tmp_path / "m.png", "--overwrite", "-o", tmp_path / "o.png")
    for more in (
        ["--quality", "fast"],
        [],
        ["--quality", "best"],
        ["--model", "missing"],
        ["--sigma", "10"],
        ["--model", "natural"],
        ["--model", tmp_path / "own.safetensors"],
    ):
        code, text, _ = run(*told, *more)
        said.append("polished: approximate" in text)
        assert code == 0
        said.append("approximate" in json.loads(run(*told, *more, "--json")[1])["results"][0].get("polished", ""))
    assert asked == 2 * [STEPS["auto"]] + 2 * [STEPS["best"]] + 2 * [STEPS["auto"]]
    assert said == 2 * [False] + 6 * [True] + 6 * [False]


def test_the_command_polishes_with_natural(run, tmp_path):
    """Breaks: the command hands over no denoiser; evaluate none."""
    clean, gone = photograph(), holes(96, 96)
    levels = np.rint(255 * clean).astype(np.uint8)
    up.write(up.Recording(levels, "YX", "png"), tmp_path / "a.png")
    up.write(up.Recording(gone.astype(np.uint8) * 255, "YX", "png"), tmp_path / "m.png")
    errors = {}
    for quality in ("fast", "auto"):
        out = tmp_path / f"{quality}.png"
        run("restore", tmp_path / "a.png", "--missing", tmp_path / "m.png", "--quality", quality, "-o", out)
        errors[quality] = error(up.read(out).as_float(), levels / 255, gone)
    assert errors["auto"] < 0.95 * errors["fast"]
    found = {}
    for quality in ("fast", "auto"):
        told = ("--perturb", "erase:fraction=0.5", "--model", "missing", "--quality", quality)
        summary = json.loads(run("evaluate", tmp_path / "a.png", *told, "--json")[1])
        found[quality] = summary["psnr_missing"]
        assert ("polished" in summary) == (quality == "auto")
        assert ("polished: approximate" in run("evaluate", tmp_path / "a.png", *told)[1]) == (quality == "auto")
    assert found["auto"] > found["fast"] + 0.25


@pytest.mark.parametrize("blind", [False, True])
@pytest.mark.parametrize(
    ("noise", "steps"),
    [("", 8), ("gaussian:sigma=0 + ", 8), ("gaussian:sigma=0.1 + ", 0), ("poisson:gain=0.01 + ", 0)],
)
def test_where_there_is_noise_in_what_is_evaluated_nothing_is_polished(bundled, noise, steps, blind):
    """Breaks: noise of unknown level counts as none; where its level is to be estimated nothing is polished."""
    seen = []
    spec = up.parse(noise + "erase:fraction=0.5")
    score = up.evaluate_image(
        photograph(32), bundled[0], spec, name="a", blind=blind, polisher=lambda x, _: (seen.append(x), x)[1]
    )
    assert len(seen) == steps
    assert score.polished == (steps > 0)


def test_a_network_looks_at_every_step_in_another_way(monkeypatch, bundled):
    """Breaks: always the same way; what was turned is not turned back; functions are turned."""
    natural, seen = bundled[1], []
    forward = Denoiser.forward

    def watched(denoiser: Denoiser, x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(x.clone())
        return x if len(seen) > 1 else forward(denoiser, x, *rest)

    monkeypatch.setattr(Denoiser, "forward", watched)
    values, gone = photograph(40)[:, :30], holes(40, 30)
    answer = polish(values, gone, natural, steps=9, compute=EXACTLY)
    assert len({each.numpy().tobytes() for each in seen}) == 8 + 1  # the first is not of what the others are
    assert [tuple(each.shape[-2:]) for each in seen[:3]] == [(40, 30), (30, 40), (40, 30)]
    np.testing.assert_array_equal(seen[-1][0, 0], answer)
    functions: list[tuple[int, ...]] = []
    polish(values, gone, lambda x, _: (functions.append(tuple(x.shape[-2:])), x)[1], compute=EXACTLY)
    assert set(functions) == {(40, 30)}
