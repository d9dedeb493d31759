"""`sample` and `uncertainty` on real files: what they write, and that it depends on the seed alone."""

import json
import re

import numpy as np
import pytest
import tifffile
import torch
from pictures import opened, picture

from unperturb.app import examining
from unperturb.app.examining import Examining
from unperturb.app.observing import Looking
from unperturb.infer.interval import Drawing
from unperturb.infer.observe import observe
from unperturb.infer.places import surroundings
from unperturb.infer.tiled import Compute
from unperturb.model.card import Card
from unperturb.model.checkpoint import load, save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings

FEW = ("--sigma", "20", "-n", "3", "--steps", "2")


def pixels(path):
    return np.asarray(opened(path))


def test_sample_writes_its_draws_and_a_sheet(run, model, tmp_path):
    picture(tmp_path / "a.png", mode="RGBA")
    code, out, _ = run("sample", tmp_path / "a.png", "--model", model, *FEW)
    names = ["a_sample01.png", "a_sample02.png", "a_sample03.png", "a_samples.png"]
    assert code == 0
    assert out.split() == [str(tmp_path / name) for name in names]
    draws = [pixels(tmp_path / name) for name in names[:3]]
    assert all(draw.shape == (24, 31, 4) for draw in draws)
    assert (draws[0][..., :3] != draws[1][..., :3]).mean() > 0.5
    assert (draws[0][..., 3] == pixels(tmp_path / "a.png")[..., 3]).all()


def test_the_same_seed_gives_the_same_draws_in_any_company(run, model, tmp_path):
    """Alone and among others, in any order, and in any number.

    Break: noise that goes on from file to file.
    """
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png", seed=ord(name))
    assert run("sample", tmp_path / "in", "--model", model, *FEW, "-o", tmp_path / "all")[0] == 0
    files = [tmp_path / "in" / f"{name}.png" for name in "ca"]
    assert run("sample", *files, "--model", model, *FEW, "-o", tmp_path / "some")[0] == 0
    alone = ("--sigma", "20", "-n", "2", "--steps", "2", "--tile", "16")
    assert run("sample", files[0], "--model", model, *alone, "-o", tmp_path / "one")[0] == 0
    assert run("sample", files[0], "--model", model, *FEW, "--seed", "1", "-o", tmp_path / "other")[0] == 0
    for number in (1, 2):
        name = f"c_sample{number:02}.png"
        whole = pixels(tmp_path / "all" / name)
        assert (whole == pixels(tmp_path / "some" / name)).all()
        assert np.abs(whole.astype(int) - pixels(tmp_path / "one" / name)).max() <= 1
        assert (whole != pixels(tmp_path / "other" / name)).any()


def test_planes_of_a_stack_are_drawn_with_noise_of_their_own(run, model, tmp_path):
    """Two planes that hold the same have other draws. Break: the same noise for every plane."""
    plane = np.random.default_rng(0).integers(20000, 40000, (20, 24), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", np.stack([plane, plane]), photometric="minisblack")
    code, out, _ = run("sample", tmp_path / "s.tif", "--model", model, "--sigma", "900", "-n", "1", "--json")
    assert code == 0
    told = json.loads(out)["results"][0]
    assert told["sigma"] == [900.0, 900.0]
    drawn = tifffile.imread(told["outputs"][0])
    assert drawn.dtype == np.uint16
    assert (drawn[0] != drawn[1]).mean() > 0.5


def test_one_draw_may_go_to_one_file_and_more_may_not(run, model, tmp_path):
    picture(tmp_path / "a.png")
    code, _, err = run("sample", tmp_path / "a.png", "--model", model, "-n", "2", "-o", tmp_path / "b.png")
    assert (code, "folder" in err) == (2, True)
    assert not (tmp_path / "b.png").exists()


def test_nothing_is_drawn_over_and_results_are_no_inputs(run, model, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a_sample03.png").write_bytes(b"mine")
    code, _, err = run("sample", tmp_path / "a.png", "--model", model, *FEW)
    assert code == 1
    assert "a_sample03.png" in err
    assert not (tmp_path / "a_sample01.png").exists()
    assert run("sample", tmp_path / "a.png", "--model", model, *FEW, "--overwrite")[0] == 0
    _, out, _ = run("restore", tmp_path, "--model", model, "--dry-run", "--json")
    assert [job["input"] for job in json.loads(out)["results"]] == [str(tmp_path / "a.png")]


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_uncertainty_writes_a_map_directions_and_a_report(run, model, tmp_path, mode):
    picture(tmp_path / "a.png", mode=mode, size=(40, 36))
    code, out, _ = run("uncertainty", tmp_path / "a.png", "--model", model, *FEW, "--components", "2", "--json")
    assert code == 0
    told = json.loads(out)["results"][0]
    spread = tifffile.imread(tmp_path / "a_std.tiff")
    assert spread.shape == (40, 36, 3)[: 2 + (mode == "RGB")]
    assert spread.dtype == np.float32
    assert (spread > 0).all()
    assert told["mean_std"] == pytest.approx(float(spread.mean(dtype=np.float64)), rel=1e-4)
    assert tifffile.imread(tmp_path / "a_components.tiff").shape[0] == 2
    report = (tmp_path / "a_report.html").read_text()
    for sentence in told["verdict"]:
        assert sentence.split("`")[0][:40] in report
    assert not re.search(r"""(src|href)=["'](?!data:)""", report), "the page needs nothing but itself"
    assert told["mean_half_width"] is None, "this model is not calibrated, and the report says so"
    assert "not calibrated" in report


def test_uncertainty_of_a_region_tells_its_mean(run, model, tmp_path):
    values = picture(tmp_path / "a.png", mode="L", size=(40, 36))
    arguments = ("--model", model, *FEW, "--region", "4,8,16,10", "--json")
    code, out, _ = run("uncertainty", tmp_path / "a.png", *arguments)
    assert code == 0
    region = json.loads(out)["results"][0]["region"]
    assert region["mean"][0] == pytest.approx(values[8:18, 4:20].mean(), abs=20)
    assert tifffile.imread(tmp_path / "a_components.tiff").shape[1:] == (10, 16)


@pytest.mark.parametrize("region", ["1,2,3", "a,b,c,d", "30,0,10,10", "0,0,0,4", "-1,0,4,4"])
def test_a_region_that_is_none_is_refused_in_one_sentence(run, model, tmp_path, region):
    picture(tmp_path / "a.png", mode="L", size=(20, 31))
    code, _, err = run("uncertainty", tmp_path / "a.png", "--model", model, *FEW, "--region", region)
    assert code in (1, 2)
    assert "region" in err
    assert not list(tmp_path.glob("a_*"))


def test_a_model_that_answers_with_medians_is_refused(run, model, tmp_path):
    """Break: the objective on the card ignored."""
    denoiser = load(model)
    save_model(denoiser.with_card(recipe={"objective": "absolute"}), tmp_path / "median.safetensors")
    picture(tmp_path / "a.png")
    for verb in ("sample", "uncertainty"):
        code, _, err = run(verb, tmp_path / "a.png", "--model", tmp_path / "median.safetensors", *FEW)
        assert code == 1
        assert "absolute error" in err
    assert run("restore", tmp_path / "a.png", "--model", tmp_path / "median.safetensors", "--sigma", "9")[0] == 0


def test_one_bad_file_does_not_stop_the_others(run, model, tmp_path):
    picture(tmp_path / "a.png", mode="L", size=(24, 24))
    (tmp_path / "b.png").write_text("no image")
    for verb in ("sample", "uncertainty"):
        code, _, err = run(verb, tmp_path / "a.png", tmp_path / "b.png", "--model", model, *FEW)
        assert code == 3
        assert "b.png" in err


@pytest.mark.parametrize(("side", "alone"), [(96, 0), (512, 3)])
def test_places_of_small_images_take_draws_of_the_whole(monkeypatch, side, alone):
    """Of a conditional model, where a few more do for all of them. Breaks: each by itself; of large images as well."""
    looked, told = [], []
    monkeypatch.setattr(examining, "look", lambda _, window, **__: looked.append(window))
    monkeypatch.setattr(
        examining, "sample", lambda posterior, numbers, **_: torch.zeros(len(numbers), *posterior.start.shape)
    )
    network = UNetSettings(widths=(4, 8), blocks=1, given=True)
    denoiser = Denoiser(Card(network, "erase:fraction=0.5")).requires_grad_(False)
    seen = np.random.default_rng(0).random((side, side), np.float32)
    posterior = observe(seen, denoiser, missing=seen > 0.5, compute=Compute("cpu", "float32")).posterior
    windows = [(slice(at, at + 16), slice(at, at + 16)) for at in (0, 8, 16)]
    draws = torch.randn(2, *posterior.start.shape)
    found = Examining(Looking(denoiser), Drawing(2, 2))._places(
        posterior, windows, draws, lambda done, total: told.append((done, total))
    )
    assert (len(found), len(looked)) == (3, alone)
    assert told == [(number, 3) for number in range(1, alone + 1)]
    assert examining._effort(posterior, 2) == pytest.approx(22 if not alone else 6 * 24 * near_share(posterior))


def near_share(posterior):
    """Return what a place in the middle has about it, as a share of the whole."""
    middle = posterior.start.shape[-1] // 2
    window = (slice(middle - 16, middle + 16),) * 2
    return surroundings(posterior, window)[0].start.numel() / posterior.start.numel()
