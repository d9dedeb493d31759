"""The lab: point sets and their exact answers, what is measured, and what the demonstrations write."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unperturb.app.cli import main
from unperturb.app.commands.demo import SETS
from unperturb.app.lab import blur, four_or_nine, pictures, two_d
from unperturb.app.lab.blur import IMAGE_SETS, gradient_energy, run_blur
from unperturb.app.lab.four_or_nine import TWO_MODES, Ambiguous
from unperturb.app.lab.images import digits, faces
from unperturb.app.lab.learn import learn_points
from unperturb.app.lab.losses import compare, draw_picture, energy_distance, posterior_median, posterior_mode
from unperturb.app.lab.points import PEN, POINT_SETS, mixture
from unperturb.app.lab.two_d import experience, run_two_d
from unperturb.data.recording import read
from unperturb.errors import FileError, UsageError
from unperturb.model.checkpoint import load
from unperturb.model.exact import Empirical, GaussianMixture


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- a cloud of points, and its exact answer --------------------------------------------------------------------------

CLOUD = torch.randn(40, 3, generator=seeded(), dtype=torch.float64)
SEEN = torch.randn(7, 3, generator=seeded(1), dtype=torch.float64)


@pytest.mark.parametrize("sigma", [0.3, 1.0, torch.linspace(0.2, 2, 7, dtype=torch.float64)], ids=["0.3", "1", "each"])
def test_a_cloud_is_a_mixture_of_narrow_components(sigma):
    """Mean and covariance, to 1e-6. Breaks: the half missing in the exponent; one sigma for the whole batch."""
    narrow = GaussianMixture.isotropic(torch.full((40,), 1 / 40, dtype=torch.float64), CLOUD, 1e-5)
    torch.testing.assert_close(Empirical(CLOUD)(SEEN, sigma), narrow(SEEN, sigma), atol=1e-6, rtol=0)
    both = (each.covariance(SEEN, sigma) for each in (Empirical(CLOUD), narrow))
    torch.testing.assert_close(*both, atol=1e-6, rtol=0)


def test_the_covariance_of_a_cloud_is_the_derivative_of_its_mean():
    """Law 4, to 1e-6. Break: the mean not taken off the second moment."""
    cloud, sigma = Empirical(CLOUD), 0.8
    slope = torch.stack([torch.autograd.functional.jacobian(lambda y: cloud(y[None], sigma)[0], y) for y in SEEN])
    torch.testing.assert_close(sigma**2 * slope, cloud.covariance(SEEN, sigma), atol=1e-6, rtol=0)


def test_draws_of_a_cloud_come_as_often_as_they_should():
    """Each point's frequency within 4 SE over 20,000 draws. Break: the most likely point alone."""
    cloud, n = Empirical(CLOUD[:5].float()), 20_000
    y = SEEN[:1].float()
    share = cloud.shares(y, 1.0)[0]
    draws = cloud.sample_posterior(y.expand(n, 3), 1.0, seeded())
    found = (draws[:, None] == cloud.points).all(2).float().mean(0)
    assert ((found - share).abs() <= 4 * (share * (1 - share) / n).sqrt() + 1e-6).all()
    prior = (cloud.sample(n, seeded())[:, None] == cloud.points).all(2).float().mean(0)
    assert ((prior - 0.2).abs() <= 4 * (0.16 / n) ** 0.5).all()


@pytest.mark.parametrize("sigma", [0.0, 1e-12, 1e-3])
def test_without_noise_a_cloud_answers_with_its_nearest_point(sigma):
    """Break: distances by way of x² + p² − 2 x·p."""
    points = 100 + torch.tensor([[0.0, 0.0], [0.01, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(Empirical(points)(points + 0.001, sigma), points, atol=1e-4, rtol=0)


def test_what_is_no_cloud_is_refused():
    with pytest.raises(UsageError, match="point, feature"):
        Empirical(torch.zeros(3))
    with pytest.raises(UsageError, match="batch, 3"):
        Empirical(CLOUD)(torch.zeros(2, 4), 1.0)


# --- point sets -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("points", POINT_SETS.values(), ids=list(POINT_SETS))
def test_point_sets_are_what_a_network_expects(points):
    """About unit variance, drawn by the generator alone, and held by their own exact answer."""
    drawn = points.draw(np.random.default_rng(0), 2000)
    assert drawn.shape == (2000, 2)
    assert drawn.dtype == np.float32
    assert ((drawn.std(0) > 0.5) & (drawn.std(0) < 1.7)).all()
    assert np.array_equal(drawn, points.draw(np.random.default_rng(0), 2000))
    assert not np.array_equal(drawn, points.draw(np.random.default_rng(1), 2000))
    y = torch.from_numpy(drawn[:50])
    assert float((points.exact(2000)(y, 0.05) - y).norm(dim=1).max()) < 0.3


def test_rings_are_rings():
    """Break: a pen twice as wide as stated."""
    for name, gap in (("ring", False), ("open-ring", True)):
        drawn = POINT_SETS[name].draw(np.random.default_rng(0), 4000)
        radius = np.hypot(*drawn.T)
        assert abs(radius.mean() - 1.4) < 4 * PEN / 4000**0.5 + PEN**2
        assert abs(radius.std() / PEN - 1) < 0.05
        assert bool((np.abs(np.arctan2(drawn[:, 1], drawn[:, 0])) < 0.7).any()) is not gap


# --- points of the posterior ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def skewed() -> GaussianMixture:
    """Return a mixture with components that are not round."""
    root = torch.randn(3, 2, 2, generator=seeded(3))
    covariances = root @ root.transpose(1, 2) + 0.1 * torch.eye(2)
    return GaussianMixture(torch.tensor([0.44, 0.46, 0.1]), torch.randn(3, 2, generator=seeded(4)), covariances)


def test_half_of_the_draws_lie_below_the_median(skewed):
    """Within 4 SE of 100,000 draws, in each component. Break: the mean in its place."""
    draws = skewed.sample(100_000, seeded())
    share = (draws < posterior_median(skewed)).float().mean(0)
    assert ((share - 0.5).abs() < 4 * 0.5 / 100_000**0.5).all()


def test_nothing_is_likelier_than_the_mode(skewed):
    """Neither any of many draws nor a step in any direction. Break: the centre of the heaviest component."""
    mode = posterior_mode(skewed)
    density = skewed.log_density(mode[None])
    assert (skewed.log_density(skewed.sample(20_000, seeded())) <= density + 1e-5).all()
    assert float(skewed.score(mode[None], 0.0).norm()) < 1e-2


def test_the_energy_distance_is_that_of_the_distributions():
    """On a line, of N(0, 1) and N(m, 1): 2 E|N(m, 2)| − 2·2/√π, exactly; of two samples of one, about 0."""
    generator = seeded()
    one, same = torch.randn(2, 3000, 1, generator=generator)
    shift = torch.tensor(2.0)
    between = 2 * (shift * torch.erf(shift / 2) + 2 / torch.pi**0.5 * torch.exp(-(shift**2) / 4))
    expected = float((between - 4 / torch.pi**0.5).sqrt())
    assert energy_distance(one, same + shift) == pytest.approx(expected, rel=0.05)
    assert energy_distance(one, same) < 0.06


def test_only_draws_keep_the_posterior(tmp_path):
    """Each answer is the best in its own respect, and draws in theirs. Break: draws along the flow."""
    comparison = compare(steps=300, n=600)
    told = comparison.figures()
    assert min(told, key=lambda name: told[name]["squared_error"]) == "mean"
    assert min(told, key=lambda name: told[name]["absolute_error"]) == "median"
    off = {name: figures["energy_distance"] for name, figures in told.items()}
    assert all(off["draw"] < 0.7 * off[name] for name in ("mean", "median", "mode"))
    assert told["mean"]["variance_kept"] < told["median"]["variance_kept"] < 0.9
    assert told["draw"]["squared_error"] / told["mean"]["squared_error"] == pytest.approx(2, abs=0.3)
    standard_error = (0.09 / 1200) ** 0.5
    assert abs(comparison.coverage() - 0.9) < 4 * standard_error
    draw_picture(comparison, tmp_path / "losses.png")
    assert_is_picture(tmp_path / "losses.png")


# --- two-d ------------------------------------------------------------------------------------------------------------


def assert_is_picture(path, least: int = 600) -> None:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > least
    assert 5_000 < path.stat().st_size < 150_000


def test_means_leave_the_ring_and_draws_do_not():
    """Squared error is learned to within a tenth, draws are ten times as close to the ring as means are.

    Breaks: draws by the flow, of too small an error; means in place of draws.
    """
    told = experience(POINT_SETS["ring"], 0.8, steps=300).figures()
    assert told["mse_over_mmse"] < 1.1
    assert told["draw_mse_over_mmse"] == pytest.approx(2, abs=0.15)
    assert told["exact_draw_mse_over_mmse"] == pytest.approx(2, abs=0.15)
    assert told["means_to_data"] > 0.15
    assert told["draws_to_data"] < 0.1 * told["means_to_data"]
    assert told["clean_to_data"] < 0.01


def test_two_d_writes_a_picture_and_overwrites_none(tmp_path, monkeypatch):
    monkeypatch.setattr(two_d, "CLOUD", 400)
    told = run_two_d(tmp_path / "new", ["open-ring"], steps=20)
    (path,) = (tmp_path / "new").iterdir()
    assert told["pictures"] == [str(path)]
    assert path.name == "two_d_open_ring.png"
    assert_is_picture(path)
    with pytest.raises(FileError, match="overwrite"):
        run_two_d(tmp_path / "new", ["open-ring", "ring"], steps=20)
    assert len(list((tmp_path / "new").iterdir())) == 1


# --- blur -------------------------------------------------------------------------------------------------------------


def test_gradients_are_counted_along_both_axes():
    image = torch.zeros(1, 1, 4, 4)
    image[..., 2:] = 2.0
    assert gradient_energy(image) == pytest.approx(4 / 3)
    assert gradient_energy(image.transpose(-1, -2)) == pytest.approx(4 / 3)


@pytest.mark.parametrize(
    ("images", "count", "size"), [(digits(), 1797, 8), (faces(), 100, 25)], ids=["digits", "faces"]
)
def test_images_are_held_out(images, count, size):
    """Break: the held-out images left among those to learn from."""
    assert len(images.train) + len(images.held_out) == count
    assert images.held_out.shape[1:] == (1, size, size)
    assert 0 <= float(images.train.min()) < float(images.train.max()) <= 1
    apart = torch.cdist(images.held_out.flatten(1), images.train.flatten(1)).amin(1)
    assert (apart > 0).all()
    drawn = images.draw(np.random.default_rng(0), 0)
    assert drawn.shape == (1, size, size)


def ambiguous(places: torch.Tensor) -> Ambiguous:
    """Digits that differ along one direction alone; to the left of 0 they are fours."""
    line = torch.randn(1, 1, 8, 8, generator=seeded())
    draws = 0.5 + places[:, None, None, None] * line / line.norm()
    readings = np.where(places.numpy() < 0, 4, 9)
    image = torch.full((1, 1, 8, 8), 0.5)
    return Ambiguous(4, image, image, image, draws, readings, 0.3)


def test_two_modes_are_told_from_one():
    """Break: the direction with the least variance."""
    z = torch.randn(600, generator=seeded(2))
    told = ambiguous(torch.where(z > 0, 1.0, -1.0) + 0.3 * torch.randn(600, generator=seeded(3))).figures()
    assert told["kurtosis"] < TWO_MODES
    assert told["draws_between"] < 0.5 * min(told["draws_left"], told["draws_right"])
    assert told["mean_lies_at"] == pytest.approx(0, abs=0.2)
    assert told["fours"] + told["nines"] == 1
    assert ambiguous(z).figures()["kurtosis"] > TWO_MODES
    assert pytest.approx(2.1884, abs=1e-4) == TWO_MODES


def test_fours_are_on_the_left():
    along = ambiguous(torch.randn(400, generator=seeded(5))).along()
    assert along.places[along.readings == 4].max() < along.places[along.readings == 9].min()


def test_blur_writes_pictures_a_digit_and_its_network(tmp_path, monkeypatch):
    """In forty steps means have lost their gradients and draws have not; the files that are left fit each other.

    Breaks: means in place of draws; the noisy digit of another noise level; the clean digit in its place.
    """
    monkeypatch.setattr(blur, "IMAGE_SETS", {"digits": lambda: digits(60)})
    monkeypatch.setattr(four_or_nine, "CANDIDATES", 4)
    monkeypatch.setattr(four_or_nine, "TRIAL", 12)
    told = run_blur(tmp_path, ["digits"], steps=40)
    models = {"four_or_nine.safetensors", "digits.safetensors"}
    names = {"blur_digits.png", "blur_four_or_nine.png", "four_or_nine.tif"}
    assert {path.name for path in tmp_path.iterdir()} == names | models
    for path in told["pictures"]:
        assert_is_picture(tmp_path / path)
    figures = told["sets"]["digits"]
    assert figures["noisy_gradients"] > 2
    assert figures["mean_gradients"] < 0.9 < figures["draw_gradients"] < 1.1
    assert 1.3 < figures["draw_mse_over_mse"] < 2.1
    model = load(tmp_path / "digits.safetensors")
    assert model.card.errors["gray"]["0.3"] == pytest.approx(figures["mse"], rel=0.1)
    model, image = load(tmp_path / "four_or_nine.safetensors"), read(tmp_path / "four_or_nine.tif")
    assert (image.values.shape, image.values.dtype) == ((8, 8), np.float32)
    sigma = told["four_or_nine"]["sigma"]
    assert f"{sigma:g}" in model.card.errors["gray"]
    assert f"{sigma * 1.25:g}" in model.card.perturbation
    seen = torch.from_numpy(image.values)[None, None]
    away = float((model(seen, sigma) - seen).square().mean().sqrt())
    assert away == pytest.approx(sigma, rel=0.4)


def test_faces_leave_a_picture_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(blur, "IMAGE_SETS", {"faces": lambda: faces(6)})
    told = run_blur(tmp_path, ["faces"], steps=5)
    assert told["files"] == []
    assert [path.name for path in tmp_path.iterdir()] == ["blur_faces.png"]
    with pytest.raises(FileError, match="overwrite"):
        run_blur(tmp_path, ["faces"], steps=5)


# --- the command ------------------------------------------------------------------------------------------------------


def call(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
        sys.exit(0)
    told = capsys.readouterr()
    return stopped.value.code or 0, told.out, told.err


def test_the_command_knows_all_sets():
    """It lists them itself, for its help to need nothing heavy."""
    assert {"two-d": tuple(POINT_SETS), "blur": tuple(IMAGE_SETS)} == SETS


def test_the_command_trains_and_tells(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(two_d, "CLOUD", 400)
    monkeypatch.setattr(two_d, "learn_points", lambda *all, **named: learn_points(*all, **{**named, "steps": 10}))
    options = ("demo", "two-d", "--set", "moons", "--sigma", "0.5", "-o", tmp_path)
    code, out, _ = call(capsys, *options, "--json")
    assert code == 0
    assert json.loads(out)["sets"]["moons"]["sigma"] == 0.5
    code, out, _ = call(capsys, *options, "--overwrite")
    assert code == 0
    assert "moons" in out
    assert str(tmp_path / "two_d_moons.png") in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("--set", "ring"),
        ("two-d", "--set", "digits"),
        ("two-d", "--model", "natural"),
        ("blur", "--tile", "64"),
        ("blur", "--sigma", "0"),
        ("three-d",),
    ],
    ids=" ".join,
)
def test_what_does_not_apply_is_refused(arguments, capsys, tmp_path):
    """Break: options of another kind taken in silence."""
    code, out, err = call(capsys, "demo", *arguments, "-o", tmp_path)
    assert code == 2
    assert err
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(UsageError, match=r"no_such_package.*unperturb\[lab\]"):
        pictures.need("json", "no_such_package")


def test_the_toy_is_that_of_the_laws():
    """LAWS: four round components of deviation 0.35."""
    toy = mixture()
    assert toy.means.shape == (4, 2)
    torch.testing.assert_close(toy.covariances, 0.35**2 * torch.eye(2).expand(4, 2, 2))
    assert replace(toy).weights.tolist() == pytest.approx([0.3, 0.3, 0.2, 0.2])
