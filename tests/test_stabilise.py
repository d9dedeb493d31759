"""Variance stabilisation: noise of one strength, the exact way back, and answers to the noise of counting."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch._subclasses import FakeTensorMode

from unperturb.app.diagnosing import counted, diagnose_files, noise_in
from unperturb.data.recording import read
from unperturb.errors import UsageError
from unperturb.infer.counted import Tangent
from unperturb.infer.evaluate import evaluate_image
from unperturb.infer.observe import observe
from unperturb.infer.restore import restore
from unperturb.infer.sample import sample
from unperturb.infer.tiled import Compute
from unperturb.model.checkpoint import load
from unperturb.model.perturbation import Gaussian, PoissonGaussian
from unperturb.model.spec import parse
from unperturb.model.stabilise import Stabiliser, is_noise, stabiliser

SENSORS = [
    Stabiliser(0.25),
    Stabiliser(0.05, 0.05, 0.1, 1.2),
    Stabiliser(0.01, 0.2),
    Stabiliser(1e-3, 0.0, -2.0, 5.0),
    Stabiliser(30.0, 12.0, 100.0, 4000.0),
]


def brightnesses(sensor: Stabiliser) -> list[float]:
    span = sensor.top - sensor.offset
    return [sensor.offset + share * span for share in (0.0, 0.01, 0.1, 0.5, 1.0)]


def seen(sensor: Stabiliser, brightness: float, count: int = 100_000) -> torch.Tensor:
    process = PoissonGaussian(sensor.gain, sensor.read, sensor.offset)
    clean = torch.full((1, 1, count), brightness, dtype=torch.float64)
    return process(clean, torch.Generator().manual_seed(0)).values[0, 0]


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_mean_of_stabilised_values_is_what_it_says(sensor):
    """Within 4 standard errors. Breaks: 3/8 left out; the read noise left out of the root, and of the sum."""
    for brightness in brightnesses(sensor):
        stabilised = sensor.forward(seen(sensor, brightness))
        error = float(stabilised.std()) / math.sqrt(len(stabilised))
        expected = float(sensor.mean(torch.tensor([brightness], dtype=torch.float64)))
        assert abs(float(stabilised.mean()) - expected) <= 4 * error + 1e-9


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_way_back_is_the_inverse_of_the_mean(sensor):
    """Break: the inverse of the transform itself, which is too dark by up to a quarter of a count."""
    clean = torch.linspace(sensor.offset, sensor.top, 4001, dtype=torch.float64)
    back = sensor.inverse(sensor.mean(clean))
    assert float((back - clean).abs().max()) < 1e-4 * sensor.gain + 1e-9
    assert float(sensor.inverse(torch.tensor([-3.0]))) == pytest.approx(sensor.offset)


def test_noise_has_one_strength_from_a_few_counts_on():
    """And the variance that is told of clean values is theirs. Break: the offset counted as light."""
    for sensor in SENSORS:
        for brightness in brightnesses(sensor):
            values = seen(sensor, brightness)
            told = float(sensor.variance(torch.tensor([brightness], dtype=torch.float64)))
            assert told == pytest.approx(float(values.var()) + 0.1 * sensor.gain**2, rel=0.03)
            if told > 4 * sensor.gain**2:
                assert float(sensor.forward(values).std()) == pytest.approx(sensor.sigma, rel=0.05)


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_noise_of_stabilised_values_is_as_strong_as_it_says(sensor):
    """Of few counts it is weaker than 1. Breaks: 1 everywhere; the variance for the deviation."""
    for brightness in brightnesses(sensor):
        told = float(sensor.deviation(torch.tensor([brightness], dtype=torch.float64)))
        one_more = sensor.forward(seen(sensor, brightness + 0.1 * sensor.gain))
        assert told == pytest.approx(float(one_more.std()), rel=0.03)


@pytest.mark.parametrize("sensor", SENSORS)
def test_the_slope_is_that_of_the_way_back(sensor):
    """Against differences, within a percent. Break: that of the transform's own inverse."""
    step = 1e-3 * sensor.gain
    clean = torch.linspace(sensor.offset, sensor.top, 997, dtype=torch.float64) + 2 * step
    rise = (sensor.mean(clean + step) - sensor.mean(clean - step)) / (2 * step)
    assert float((sensor.slope(clean) * rise - 1).abs().max()) < 0.02


def test_black_becomes_zero_and_the_brightest_one():
    for sensor in SENSORS:
        ends = sensor.forward(torch.tensor([sensor.offset, sensor.top], dtype=torch.float64))
        assert ends.tolist() == pytest.approx([0, 1])


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("poisson:gain=0.1", (0.1, 0, 0)),
        ("poisson-gaussian:gain=0.1,read=0.03,offset=0.2", (0.1, 0.03, 0.2)),
        ("poisson-gaussian:gain=0.1,read=0.03 + gaussian:sigma=0.04", (0.1, 0.05, 0)),
        ("gaussian:sigma=0.1", None),
        ("poisson:gain=0.1 + blur:sigma=1", None),
        ("gaussian:sigma=0.1 + poisson:gain=0.1", None),
    ],
)
def test_what_counts_and_what_does_not(spec, expected):
    found = stabiliser(parse(spec), np.linspace(0, 2, 2001))
    assert (None if found is None else pytest.approx((found.gain, found.read, found.offset))) == expected
    assert found is None or found.top == pytest.approx(1.998, abs=0.01)
    assert is_noise(parse(spec)) == (expected is not None or spec == "gaussian:sigma=0.1")


@pytest.mark.parametrize("spec", ["poisson:gain=0.1..0.2", "poisson:gain=0.1 + gaussian:sigma=0..1"])
def test_noise_of_no_stated_strength_is_refused(spec):
    with pytest.raises(UsageError, match="how strong"):
        stabiliser(parse(spec), np.ones(4))


# --- Answers ----------------------------------------------------------------------------------------------------------

CPU = Compute(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def natural():
    return load("natural")


@pytest.fixture(scope="module")
def photograph():
    return (data.camera()[100:356:2, 150:406:2] / 255).astype(np.float32)


def noisy(clean: np.ndarray, spec: str) -> np.ndarray:
    return parse(spec)(torch.from_numpy(clean)[None, None], torch.Generator().manual_seed(0)).values[0, 0].numpy()


@pytest.mark.parametrize(("spec", "gain"), [("poisson:gain=0.1", 0.5), ("poisson-gaussian:gain=0.02,read=0.02", 0.5)])
def test_knowing_how_noise_grows_is_worth_half_a_decibel(natural, photograph, spec, gain):
    """Break: the level of the mean brightness everywhere."""
    told = evaluate_image(photograph, natural, parse(spec), name="camera", compute=CPU)
    blind = evaluate_image(photograph, natural, parse(spec), name="camera", blind=True, compute=CPU)
    assert told.psnr > blind.psnr + gain


def test_the_level_is_that_of_the_noise_everywhere(natural, photograph):
    spec = "poisson-gaussian:gain=0.02,read=0.02,offset=0.1"
    clean = 0.1 + 0.9 * photograph
    level = observe(noisy(clean, spec), natural, perturbation=parse(spec), compute=CPU).posterior.level_map[0, 0]
    truth = np.sqrt(0.02 * (clean - 0.1) + 0.02**2)
    assert np.abs(level.numpy() / truth - 1).mean() < 0.1


def test_few_counts_are_answered_among_stabilised_values(natural, photograph):
    """Of two photons that is worth an eighth of the error of the values themselves, and with reading noise it costs.

    Breaks: the noise of stabilised values as strong everywhere; the tangent of another slope; values at any reading
    noise; stabilised ones at any.
    """

    def errors(spec: str) -> tuple[float, float]:
        values, truth = noisy(photograph, spec), torch.from_numpy(photograph)
        noise, start = stabiliser(parse(spec), values), torch.from_numpy(values)[None, None]
        with torch.no_grad():
            first = noise.inverse(natural(noise.forward(start), noise.sigma))
            themselves = natural(start, noise.variance(first).sqrt())
        answer = observe(values, natural, perturbation=parse(spec), compute=CPU).posterior.mean
        return tuple(float((each - truth).square().mean()) for each in (answer, themselves))

    ours, themselves = errors("poisson:gain=0.5")
    assert ours < 0.93 * themselves
    ours, themselves = errors("poisson-gaussian:gain=0.5,read=0.5")
    assert ours < 1.01 * themselves


@pytest.mark.parametrize("channels", [1, 3])
def test_a_tangent_is_a_denoise_function_of_values(channels):
    """Where its denoiser keeps what it sees, so does it; a part of it, or an item, is that of the whole.

    Breaks: rise and its inverse exchanged; the items of a batch not taken in turn; a part cut elsewhere.
    """
    generator = torch.Generator().manual_seed(0)
    at, stable, rise = (torch.rand(2, channels, 6, 5, generator=generator) + 0.5 for _ in range(3))
    sigma = rise * torch.rand(2, 1, 6, 5, generator=generator)
    levels = []

    def shrink(x: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        levels.append(level)
        return x / (1 + level**2)

    tangent = Tangent(shrink, at, stable, rise)
    u = torch.rand(4, channels, 6, 5, generator=generator)
    twice = sigma.repeat(2, 1, 1, 1)
    answer = tangent(tangent.values(u), twice)
    told = (twice / rise.repeat(2, 1, 1, 1))[:, :1]
    torch.testing.assert_close(levels[-1], told)
    torch.testing.assert_close(answer, tangent.values(u / (1 + told**2)))
    space = (slice(1, 5), slice(0, 3))
    part = tangent.cut(3, space)
    window = (slice(3, 4), slice(None), *space)
    torch.testing.assert_close(part(tangent.values(u)[window], twice[window]), answer[window])


def test_a_tangent_on_a_gpu_tells_of_levels_that_are_not_there():
    """Seen by tensors that stand for those of a GPU, where there is none. Break: inflation by the noise of values."""

    class Knowing:
        def expected_error(self, sigma: torch.Tensor, channels: int) -> torch.Tensor:  # noqa: ARG002
            return sigma**2

        def inflation(self, sigma: torch.Tensor) -> torch.Tensor:
            return 1 + sigma

    with FakeTensorMode():
        there = torch.ones(2, 1, 4, 4, device="cuda")
        tangent = Tangent(Knowing(), there, there, there)
        for level in (torch.ones(()), torch.ones(4, 1, 4, 4)):
            assert tangent.expected_error(level, 1).device.type == "cpu"
            assert tangent.inflation(level).device.type == "cpu"
    at, rise = torch.ones(2, 3, 4, 4), torch.tensor([2.0, 4.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    found = Tangent(Knowing(), at, at, rise).inflation(torch.full((4, 1, 4, 4), 0.8))
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([1.4, 1.2, 1.4, 1.2]))
    assert found.shape == (4, 1, 4, 4)


def test_tiles_of_counts_are_the_whole(natural, photograph):
    """Break: the tangent not cut along with the tile."""
    values = noisy(photograph, "poisson:gain=0.1")
    whole, tiles = (
        restore(values, natural, perturbation=parse("poisson:gain=0.1"), compute=Compute("cpu", "float32", size, 48))
        for size in (None, 16)
    )
    assert np.abs(whole - tiles).max() < 0.01


@pytest.mark.parametrize("spec", ["poisson:gain=0.25", "poisson-gaussian:gain=0.02,read=0.02,offset=0.3"])
def test_counts_are_known_by_the_noise_of_a_picture_from_black_to_white(natural, photograph, spec):
    """Break: the brightest of what was counted, which is twice as bright where counts are four."""
    sensor = stabiliser(parse(spec), np.ones(4))
    clean = sensor.offset + (1 - sensor.offset) * photograph
    posterior = observe(noisy(clean, spec), natural, perturbation=parse(spec), compute=CPU).posterior
    assert posterior.counted == pytest.approx(Stabiliser(sensor.gain, sensor.read, sensor.offset).sigma, rel=0.1)


def test_draws_of_counts_are_off_by_twice_the_error(natural, photograph):
    spec = "poisson:gain=0.02"
    posterior = observe(noisy(photograph, spec), natural, perturbation=parse(spec), compute=CPU).posterior
    best, drawn = (
        float((x - torch.from_numpy(photograph)).square().mean()) for x in (posterior.mean, sample(posterior, 1))
    )
    assert 1.7 < drawn / best < 2.2


def test_values_in_other_units_are_restored_alike(natural, photograph):
    """Homogeneity. Break: `top` taken to be 1."""
    values = noisy(photograph, "poisson-gaussian:gain=0.02,read=0.02")
    one = restore(values, natural, perturbation=PoissonGaussian(0.02, 0.02), compute=CPU)
    other = restore(1000 * values, natural, perturbation=PoissonGaussian(20, 20), compute=CPU)
    assert np.abs(other / 1000 - one).max() < 1e-3


# --- Found by itself --------------------------------------------------------------------------------------------------


def ramp(gain: float, read: float, offset: float) -> np.ndarray:
    clean = offset + np.linspace(0.02, 0.8, 256, dtype=np.float32) * np.ones((256, 1), np.float32)
    return noisy(clean, f"poisson-gaussian:gain={gain},read={read},offset={offset}")


def saved(path, values: np.ndarray):
    Image.fromarray(values.astype(np.float32)).save(path)
    return path


@pytest.mark.parametrize("offset", [0.0, 0.3])
def test_the_noise_of_a_file_is_found_with_its_offset(tmp_path, offset):
    """Break: what is below 0 of the line thrown away."""
    path = saved(tmp_path / "a.tif", ramp(0.01, 0.002, offset))
    found = noise_in(path)
    assert isinstance(found, PoissonGaussian)
    assert found.gain == pytest.approx(0.01, rel=0.1)
    assert found.offset == pytest.approx(offset, abs=0.03)
    diagnosed = diagnose_files([path])
    assert str(counted(diagnosed.noise)) == diagnosed.spec
    assert ("offset" in diagnosed.spec) == (offset > 0)


def test_noise_as_strong_everywhere_is_gaussian(tmp_path):
    clean = np.linspace(0.1, 0.9, 256, dtype=np.float32) * np.ones((256, 1), np.float32)
    found = noise_in(saved(tmp_path / "a.tif", noisy(clean, "gaussian:sigma=0.05")))
    assert isinstance(found, Gaussian)
    assert found.sigma == pytest.approx(0.05, rel=0.05)


def test_files_are_restored_by_the_noise_that_is_told_or_found(tmp_path, natural, photograph, run):
    spec = "poisson-gaussian:gain=0.02,read=0.01"
    values = noisy(photograph, spec)
    path = saved(tmp_path / "a.tif", values)
    code, out, _ = run("restore", path, "--noise", spec, "-o", tmp_path / "told.tif")
    assert code == 0
    expected = restore(values, natural, perturbation=parse(spec))
    assert np.abs(read(tmp_path / "told.tif").values - expected).max() < 1e-5
    code, out, _ = run("restore", path, "--noise", "auto", "-o", tmp_path / "found.tif")
    assert (code, "poisson-gaussian:gain=" in out) == (0, True)
    assert np.abs(read(tmp_path / "found.tif").values - expected).mean() < 0.01


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--noise", "blur:sigma=1"], "--noise is gaussian, poisson"),
        (["--noise", "auto", "--sigma", "3"], "leave --sigma"),
        (["--noise", "auto", "--missing", "nan"], "leave --sigma"),
        (["--noise", "auto", "--model", "missing"], "for a model of noise"),
        (["--noise", "gaussian:sigma=0..0.2"], "how strong"),
        (["--noise", "gaussian:sigma=0.1 + gaussian:sigma=0.1"], "--noise is gaussian, poisson"),
        (["--noise", "poisson:gain=0.1..0.2"], "how strong"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path, photograph, run, options, text):
    path = saved(tmp_path / "a.tif", photograph)
    code, _, error = run("restore", path, *options, "-o", tmp_path / "b.tif")
    assert code in (1, 2)
    assert text in error
    assert not (tmp_path / "b.tif").exists()
