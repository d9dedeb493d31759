"""The command line, with real files: what it writes, what it says, and how it ends."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from pictures import opened, picture
from PIL import Image, ImageOps

from unperturb.model.checkpoint import load, save_model


def test_restore_writes_beside_its_input(run, model, tmp_path):
    picture(tmp_path / "a.png")
    code, out, _ = run("restore", tmp_path / "a.png", "--model", model, "--sigma", "20")
    assert code == 0
    assert out.strip().startswith(str(tmp_path / "a_restored.png"))
    assert opened(tmp_path / "a_restored.png").size == (31, 24)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_restore_keeps_the_kind_of_image_and_its_alpha(run, model, tmp_path, mode):
    values = picture(tmp_path / "a.png", mode=mode)
    assert run("restore", tmp_path / "a.png", "--model", model, "--sigma", "20")[0] == 0
    result = opened(tmp_path / "a_restored.png")
    assert result.mode == mode
    if mode.endswith("A"):
        assert (np.asarray(result)[..., -1] == values[..., -1]).all()


def test_restore_a_stack_page_by_page(run, model, tmp_path):
    stack = np.random.default_rng(0).integers(0, 65535, (3, 20, 24), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "s.tif", stack, photometric="minisblack")
    code, out, _ = run("restore", tmp_path / "s.tif", "--model", model, "--sigma", "900", "--json")
    told = json.loads(out)
    assert code == 0
    assert told["results"][0]["sigma"] == [900.0] * 3
    restored = tifffile.imread(tmp_path / "s_restored.tif")
    assert restored.shape == stack.shape
    assert restored.dtype == np.uint16


def test_planes_of_a_stack_are_looked_at_once(run, model, tmp_path):
    """By default images as small as these are looked at four times. Break: planes are as well."""
    known = load(model)
    trained = tmp_path / "trained.safetensors"
    save_model(known.with_card(training={"steps": 1}), trained)
    values = np.random.default_rng(0).random((2, 20, 24), dtype=np.float32)
    for name, shown in (("stack", values), ("image", values[0])):
        tifffile.imwrite(tmp_path / f"{name}.tif", shown, photometric="minisblack")
        found = []
        for quality in ("auto", "fast"):
            target = tmp_path / f"{name}_{quality}.tif"
            options = "--model", trained, "--sigma", "0.1", "--quality", quality
            assert run("restore", tmp_path / f"{name}.tif", "-o", target, *options)[0] == 0
            found.append(tifffile.imread(target))
        assert np.array_equal(*found) == (name == "stack")


def test_restore_keeps_the_units_of_a_float_file(run, tmp_path, model):
    values = (np.random.default_rng(0).normal(0, 1, (32, 32)) * 1000 + 5000).astype(np.float32)
    tifffile.imwrite(tmp_path / "f.tif", values)
    assert run("restore", tmp_path / "f.tif", "--model", model, "--sigma", "0")[0] == 0
    restored = tifffile.imread(tmp_path / "f_restored.tif")
    assert restored.dtype == np.float32
    assert np.abs(restored.mean() / values.mean() - 1) < 0.5


def test_a_tree_of_folders_is_kept_and_results_are_not_restored_again(run, model, tmp_path):
    for name in ("in/a.png", "in/deep/b.jpg", "in/deep/c.webp"):
        picture(tmp_path / name)
    code, _, _ = run("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--sigma", "9", "--compare")
    assert code == 0
    found = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    assert [name for name in found if "compare" not in name] == [
        "a_restored.png",
        "deep/b_restored.jpg",
        "deep/c_restored.webp",
    ]
    assert len(found) == 6
    code, out, _ = run("restore", tmp_path / "out", "--dry-run", "--json", "--overwrite", "--model", model)
    assert code == 1
    assert not out


def test_outputs_that_cannot_end_well_are_refused_before_anything_is_done(run, model, tmp_path):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "a.jpg")
    common = ["--model", model, "--sigma", "5", "--overwrite"]
    assert run("restore", tmp_path / "in", "-o", tmp_path / "x.bmp", *common)[0] == 2
    assert run("restore", tmp_path / "in", "-o", tmp_path / "x.png", *common)[0] == 2
    assert run("restore", tmp_path / "in/a.png", "-o", tmp_path / "x.png", "--format", "jpeg", *common)[0] == 2
    assert run("restore", tmp_path / "in/a.png", "-o", tmp_path / "in/../in/a.png", *common)[0] == 2
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["a.jpg", "a.png"]
    code, out, _ = run("restore", tmp_path / "in", tmp_path / "in/a.png", "--compare", "-o", tmp_path / "out", *common)
    assert (code, len(out.strip().splitlines())) == (0, 4)
    assert {path.name for path in (tmp_path / "out").glob("*compare*")} == {
        "a_restored_png_compare.png",
        "a_restored_jpg_compare.png",
    }


def test_before_and_after_stand_upright_side_by_side(run, model, tmp_path):
    """Break: the picture as its pixels are stored."""
    exif = Image.Exif()
    exif[274] = 6
    picture(tmp_path / "a.png", size=(40, 60))
    with Image.open(tmp_path / "a.png") as stored:
        stored.convert("RGB").save(tmp_path / "a.jpg", exif=exif.tobytes())
    assert run("restore", tmp_path / "a.jpg", "--model", model, "--sigma", "5", "--compare")[0] == 0
    with Image.open(tmp_path / "a_restored_compare.png") as pair, Image.open(tmp_path / "a.jpg") as stored:
        seen = np.asarray(pair.convert("RGB"))
        wanted = np.asarray(ImageOps.exif_transpose(stored))
    np.testing.assert_array_equal(seen[:, : wanted.shape[1]], wanted)
    assert seen.shape[1] > 2 * wanted.shape[1]


def test_fit_never_loses_an_earlier_run(run, tmp_path):
    for number in range(2):
        picture(tmp_path / "in" / f"{number}.png", size=(48, 48), seed=number)
    (tmp_path / "m.state.safetensors").write_text("precious")
    arguments = ["fit", tmp_path / "in", "-o", tmp_path / "m.safetensors", "--network", "tiny", "--steps", "2",
                 "--patch-size", "32", "--cache", tmp_path / "cache"]  # fmt: skip
    code, _, err = run(*arguments)
    assert (code, "--resume" in err) == (1, True)
    assert (tmp_path / "m.state.safetensors").read_text() == "precious"
    assert run(*arguments, "--perturb", "gausian:sigma=1", "--overwrite")[0] == 2
    assert not (tmp_path / "cache").exists()
    assert run(*arguments, "--overwrite")[0] == 0


def test_nothing_is_overwritten_without_being_told(run, model, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "a_restored.png").write_text("mine")
    code, _, err = run("restore", tmp_path / "a.png", "--model", model)
    assert code == 1
    assert "--overwrite" in err
    assert (tmp_path / "a_restored.png").read_text() == "mine"
    assert run("restore", tmp_path / "a.png", "--model", model, "--overwrite", "--sigma", "5")[0] == 0
    assert opened(tmp_path / "a_restored.png").size == (31, 24)


def test_dry_run_writes_nothing(run, model, tmp_path):
    picture(tmp_path / "a.png")
    code, out, _ = run("restore", tmp_path / "a.png", "--dry-run", "--model", model)
    assert code == 0
    assert "a_restored.png" in out
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_one_bad_file_does_not_stop_the_others(run, model, tmp_path):
    for number in range(4):
        picture(tmp_path / f"{number}.png", seed=number)
    (tmp_path / "2.png").write_text("this is text")
    code, out, err = run("restore", tmp_path, "-o", tmp_path / "out", "--model", model, "--sigma", "9", "--json")
    told = json.loads(out)
    assert code == 3
    assert len(told["results"]) == 3
    assert len(told["failures"]) == 1
    assert "2.png" in err
    assert len(list((tmp_path / "out").iterdir())) == 3


BAD = {
    "text": b"this is text, not an image",
    "empty": b"",
    "truncated": None,
    "huge": None,
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(run, model, tmp_path, kind):
    path = tmp_path / "bad.png"
    picture(path)
    whole = path.read_bytes()
    content = BAD[kind]
    if kind == "truncated":
        content = whole[: len(whole) // 2]
    if kind == "huge":
        import struct
        import zlib

        header = b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
        content = whole[:8] + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]
    path.write_bytes(content)
    code, out, err = run("restore", path, "--model", model)
    assert code == 1
    assert not out
    assert err.startswith("unperturb: ")
    assert "bad.png" in err
    assert len(err.strip().splitlines()) == 1
    assert "Traceback" not in err
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.png"]


def test_values_that_are_not_finite(run, model, tmp_path):
    values = np.ones((16, 16), np.float32)
    values[3, 7] = np.nan
    tifffile.imwrite(tmp_path / "n.tif", values)
    code, _, err = run("restore", tmp_path / "n.tif", "--model", model)
    assert code == 1
    assert "row 3" in err
    assert not (tmp_path / "n_restored.tif").exists()


def test_missing_input_missing_model_and_wrong_model(run, model, tmp_path):
    picture(tmp_path / "a.png")
    assert run("restore", tmp_path / "no.png", "--model", model)[0] == 1
    code, _, err = run("restore", tmp_path / "a.png", "--model", "nothing")
    assert (code, "natural" in err) == (1, True)
    code, _, err = run("restore", tmp_path / "a.png", "--model", tmp_path / "a.png")
    assert (code, "not a model file" in err) == (1, True)


@pytest.mark.parametrize(
    "arguments",
    ["--sigma -3", "--sigma many", "--tile 2", "--quality great", "--nonsense", "--format gif"],
)
def test_wrong_usage_is_exit_code_2(run, model, tmp_path, arguments):
    picture(tmp_path / "a.png")
    code, _, err = run("restore", tmp_path / "a.png", "--model", model, *arguments.split())
    assert code == 2
    assert err
    assert len(list(tmp_path.iterdir())) == 1


def test_an_unwritable_place_is_one_sentence(run, model, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "file").write_text("in the way")
    code, _, err = run("restore", tmp_path / "a.png", "-o", tmp_path / "file" / "sub", "--model", model, "--sigma", "5")
    assert code == 1
    assert len(err.strip().splitlines()) == 1


def test_where_no_noise_is_found_it_is_said(run, model, tmp_path):
    Image.fromarray(np.full((40, 40), 90, np.uint8)).save(tmp_path / "flat.png")
    code, _, err = run("restore", tmp_path / "flat.png", "--model", model)
    assert code == 0
    assert "no white noise" in err
    assert (
        "no white noise"
        not in run("restore", tmp_path / "flat.png", "--model", model, "--sigma", "9", "--overwrite")[2]
    )


def test_noise_of_a_spec_is_in_units_of_white(run, model, tmp_path):
    """Break: 15 taken as it is, of values of which the largest is 1: gray, with exit code 0."""
    picture(tmp_path / "a.png")
    for spec, code in (("gaussian:sigma=15", 1), ("blur:sigma=1.5 + gaussian:sigma=2", 1), ("gaussian:sigma=0.05", 0)):
        found, _, err = run("restore", tmp_path / "a.png", "--model", model, "--perturb", spec, "--overwrite")
        assert (found, "white is 1" in err) == (code, code == 1)
    assert (tmp_path / "a_restored.png").exists()


def test_what_was_cut_off_at_white_is_told_of(run, model, tmp_path):
    """Breaks: not told; told of float files too, whose values have no end; of a level of 0, which changes nothing."""
    noisy = np.full((24, 32), 0.5) + np.random.default_rng(0).normal(0, 0.1, (24, 32))
    noisy[:6] += 0.5
    Image.fromarray((noisy.clip(0, 1) * 255).round().astype(np.uint8)).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", noisy.clip(0, 1).astype(np.float32))
    for name, sigma, told in (("a.png", "25", True), ("a.png", "0", False), ("b.tif", "0.1", False)):
        code, _, err = run("restore", tmp_path / name, "--model", model, "--sigma", sigma, "--overwrite")
        assert code == 0
        assert ("cut off" in err) == told, err


def test_jpeg_to_png(run, model, tmp_path):
    picture(tmp_path / "a.jpg")
    assert run("restore", tmp_path / "a.jpg", "--model", model, "--format", "png", "--sigma", "5")[0] == 0
    assert opened(tmp_path / "a_restored.png").format == "PNG"


def test_evaluate_tells_the_same_in_any_order_and_is_seeded_by_image(run, model, tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name, seed=ord(name[0]), mode="L")
    spec = "gaussian:sigma=0.1"
    code, out, _ = run("evaluate", tmp_path, "--model", model, "--perturb", spec, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["images"] == 2
    assert {"psnr", "ssim", "per_image"} <= told.keys()
    one = json.loads(run("evaluate", tmp_path / "b.png", "--model", model, "--perturb", spec, "--json")[1])
    assert one["per_image"][0]["psnr"] == told["per_image"][1]["psnr"]
    assert told["per_image"][0]["psnr_perturbed"] == pytest.approx(20, abs=0.6)


def test_evaluate_tells_what_there_is_of_small_images_and_of_each_once(run, model, tmp_path):
    """Breaks: a mean of nothing as a number; a file twice, or in its folder as well; links in a circle."""
    image = np.random.default_rng(0).integers(0, 256, (6, 6), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    spec = ("--model", model, "--perturb", "gaussian:sigma=0.1")
    code, out, err = run("evaluate", tmp_path / "a.png", tmp_path, tmp_path / "." / "a.png", *spec)
    assert (code, err) == (0, "")
    assert out.startswith("1 images, gaussian:sigma=0.1: PSNR ")
    assert out.endswith("SSIM – (–)\n")
    (tmp_path / "b.png").symlink_to(tmp_path / "c.png")
    (tmp_path / "c.png").symlink_to(tmp_path / "b.png")
    code, out, err = run("evaluate", tmp_path, *spec)
    assert (code, out[:9], "b.png" in err) == (3, "1 images,", True)


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("gaussian:sigma=25", ["sigma=0.09804"]),
        ("blur:sigma=4 + gaussian:sigma=0..15", ["sigma=0.05882"]),
        ("gaussian:sigma=25|gaussian:sigma=0.1", ["sigma=0.09804"]),
        ("gaussian:sigma=2", []),
        ("blur:sigma=4", []),
        ("speckle:sigma=4", []),
    ],
)
def test_noise_that_drowns_everything_is_taken_for_grey_levels(run, model, tmp_path, spec, told):
    """Said once, and done all the same.

    Breaks: the width of a blur for a noise level; parts not looked at; silence; said of signals, which have no white.
    """
    picture(tmp_path / "a.png", (16, 16))
    code, _, err = run("evaluate", tmp_path, "--model", model, "--perturb", spec, "--blind")
    assert code == 0
    assert [word for word in told if word in err] == told
    assert ("255 grey levels" in err) == bool(told)
    fit = ["--network", "tiny", "--steps", "1", "--batch", "1", "--held-out", "2", "--cache", tmp_path / "cache"]
    for name in "bc":
        picture(tmp_path / f"{name}.png", (64, 64))
    code, _, err = run("fit", tmp_path, *fit, "--patch-size", "32", "--perturb", spec, "-o", tmp_path / "m.safetensors")
    assert code == 0, err
    assert err.count("255 grey levels") == len(told)
    np.save(tmp_path / "s.npy", np.random.default_rng(0).normal(size=4000).astype(np.float32))
    signal = ["--network", "tiny", "--steps", "1", "--batch", "1", "--patch-size", "64", "-o"]
    code, _, err = run("fit", tmp_path / "s.npy", "--perturb", "gaussian:sigma=5", *signal, tmp_path / "s.safetensors")
    assert code == 0, err
    assert "255 grey levels" not in err


def test_evaluate_refuses_a_spec_it_cannot_read(run, model, tmp_path):
    picture(tmp_path / "a.png")
    code, _, err = run("evaluate", tmp_path, "--model", model, "--perturb", "gausian:sigma=0.1")
    assert code == 2
    assert "gaussian" in err


def test_info_of_a_calibrated_model_is_short(run):
    """Break: every width of every calibration on a line of its own, some 250 of them."""
    code, out, _ = run("info", "natural")
    assert code == 0
    assert len(out.splitlines()) < 80
    assert "gray pixel 0.9 central: half widths of " in out
    assert "scales" in json.loads(run("info", "natural", "--json")[1])["calibration"]["gray pixel 0.9 central"]


def test_info(run, model):
    assert "natural" in run("info")[1]
    assert json.loads(run("info", model, "--json")[1])["name"] == "small"


def test_demo_names_the_pictures_it_wrote(run, model, tmp_path):
    code, out, _ = run("demo", "-o", tmp_path / "demo", "--model", model, "--json")
    told = json.loads(out)
    assert code == 0
    assert all((tmp_path / "demo" / path.split("/")[-1]).is_file() for path in told["pictures"])


def test_debug_shows_where_it_failed(run, model, tmp_path):
    (tmp_path / "a.png").write_text("no image")
    assert "Traceback" in run("--debug", "restore", tmp_path / "a.png", "--model", model)[2]
    assert "Traceback" not in run("restore", tmp_path / "a.png", "--model", model)[2]


def test_json_is_json_where_numbers_are_not_finite(run, model, tmp_path):
    picture(tmp_path / "a.png", size=(9, 9), mode="L")
    code, out, _ = run("evaluate", tmp_path, "--model", model, "--perturb", "gaussian:sigma=0", "--json")
    assert code == 0
    assert json.loads(out, parse_constant=pytest.fail)["per_image"][0]["psnr_perturbed"] is None


def test_fit_then_restore_with_it(run, tmp_path):
    for number in range(3):
        picture(tmp_path / "in" / f"{number}.png", size=(48, 48), seed=number)
    target = tmp_path / "mine.safetensors"
    arguments = ["fit", tmp_path / "in", "-o", target, "--network", "tiny", "--steps", "4", "--patch-size", "32",
                 "--held-out", "2", "--cache", tmp_path / "cache", "--validate", "2", "--json"]  # fmt: skip
    code, out, _ = run(*arguments)
    assert code == 0
    assert json.loads(out)["steps"] == 4
    assert [json.loads(line)["step"] for line in (tmp_path / "mine.log.jsonl").read_text().splitlines()] == [2, 4]
    assert run(*arguments)[0] == 1
    assert run(*arguments, "--overwrite", "--from", target)[0] == 0
    assert run(*arguments, "--overwrite", "--channels", "3", "--from", target)[0] == 2
    assert run("restore", tmp_path / "in" / "0.png", "--model", target, "--sigma", "9")[0] == 0


def test_blocks_may_differ_by_level_and_the_network_grow(run, tmp_path):
    """Breaks: --blocks read as one number alone; the weights to begin with not found to be of a smaller network."""
    for number in range(4):
        picture(tmp_path / "data" / f"{number}.png", size=(48, 40))
    common = ("fit", tmp_path / "data", "--perturb", "gaussian:sigma=0.1", "--cache", tmp_path / "cache")
    common += ("--network", "tiny", "--steps", "1", "--held-out", "2", "--patch-size", "16")
    assert run(*common, "-o", tmp_path / "small.safetensors")[0] == 0
    grown = ("-o", tmp_path / "grown.safetensors", "--from", tmp_path / "small.safetensors")
    assert run(*common, *grown, "--blocks", "1,3")[0] == 0
    assert load(tmp_path / "grown.safetensors").card.network.blocks == (1, 3)
    for wrong, told in (("1,2,3", "each of the 2 levels"), ("1,x", "such as 2,2,4"), ("0", "at least 1")):
        code, _, err = run(*common, *grown, "--overwrite", "--blocks", wrong)
        assert (code, told in err) == (2, True)


def test_a_recipe_sets_options_and_the_command_line_wins(run, tmp_path):
    picture(tmp_path / "in" / "0.png", size=(48, 48))
    picture(tmp_path / "in" / "1.png", size=(48, 48))
    recipe = tmp_path / "recipe.toml"
    recipe.write_text('network = "tiny"\nsteps = 9\npatch-size = 32\nheld-out = 2\n')
    code, out, _ = run("fit", tmp_path / "in", "--recipe", recipe, "--steps", "2", "-o", tmp_path / "m.safetensors",
                       "--cache", tmp_path / "cache", "--json")  # fmt: skip
    assert code == 0
    assert json.loads(out)["steps"] == 2
    recipe.write_text("stepps = 9\n")
    code, _, err = run("fit", tmp_path / "in", "--recipe", recipe, "-o", tmp_path / "n.safetensors")
    assert code == 2
    assert "stepps" in err


def test_what_a_recipe_says_of_crops_is_kept_with_the_model(run, tmp_path):
    """Break: an option that is taken and goes nowhere."""
    for number in range(2):
        picture(tmp_path / "in" / f"{number}.png", size=(48, 48))
    recipe = tmp_path / "recipe.toml"
    said = {"gray": 0.25, "enlarge": 2.5, "reuse": 8, "half_colour": True, "patch_size": 32, "steps": 1}
    lines = [f"{name.replace('_', '-')} = {json.dumps(value)}\n" for name, value in said.items()]
    recipe.write_text('network = "tiny"\nchannels = 3\nperturb = "jpeg:quality=90"\nheld-out = 2\n' + "".join(lines))
    target = tmp_path / "m.safetensors"
    assert run("fit", tmp_path / "in", "--recipe", recipe, "-o", target, "--cache", tmp_path / "cache")[0] == 0
    kept = load(target).card.recipe
    assert {name: kept[name] for name in said} == said


def test_import_loads_no_torch_and_progress_is_not_on_stdout():
    code = "import sys, unperturb; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_strength_takes_away_a_share(run, model, tmp_path):
    """Break: the share that is left for the share that is taken."""
    picture(tmp_path / "a.png", mode="L")
    seen = np.asarray(opened(tmp_path / "a.png"), float)
    found = {}
    for strength in ("0", "0.25", "1"):
        target = tmp_path / f"{strength}.png"
        assert run("restore", tmp_path / "a.png", "--model", model, "--strength", strength, "-o", target)[0] == 0
        found[strength] = np.asarray(opened(target), float)
    assert np.array_equal(found["0"], seen)
    assert np.abs(found["0.25"] - (0.75 * seen + 0.25 * found["1"])).max() <= 1
    code, _, told = run("restore", tmp_path / "a.png", "--missing", "#000000", "--strength", "0.5")
    assert (code, "--strength is of noise" in told) == (2, True)


def test_restoring_many_files_goes_on_after_an_interruption(run, model, tmp_path):
    """Breaks: what is there done again; what is half there left out."""
    for name in "abc":
        picture(tmp_path / f"{name}.png", mode="L", seed=ord(name))
    there = ("restore", tmp_path, "--model", model, "-o", tmp_path / "out", "--compare")
    assert run(*there)[0] == 0
    first = (tmp_path / "out" / "a_restored.png").stat().st_mtime_ns
    (tmp_path / "out" / "b_restored.png").unlink()
    (tmp_path / "out" / "c_restored_compare.png").unlink()
    code, out, _ = run(*there, "--resume", "--json")
    assert code == 0
    assert [result["input"] for result in json.loads(out)["results"]] == [
        str(tmp_path / f"{name}.png") for name in "bc"
    ]
    assert (tmp_path / "out" / "a_restored.png").stat().st_mtime_ns == first
    assert run(*there, "--resume")[0] == 0
    assert run(*there)[0] == 1
    assert run(*there, "--resume", "--overwrite")[0] == 2


def test_pictures_of_samples_are_pictures(run, model, tmp_path):
    """Break: what is called a sample is taken for a result, and left out in silence."""
    for name in ("blood_sample1", "annual_report", "a", "a_sample1"):
        picture(tmp_path / "in" / f"{name}.png")
    _, out, _ = run("restore", tmp_path / "in", "--dry-run", "--json", "--model", model)
    assert {Path(each["input"]).stem for each in json.loads(out)["results"]} == {"blood_sample1", "annual_report", "a"}


def test_a_path_that_leads_in_circles_stops_no_other(run, model, tmp_path):
    """Break: the path is followed before anything is begun."""
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").symlink_to("b.png")
    code, _, err = run("restore", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--sigma", "9")
    assert code == 3
    assert "should not have happened" not in err
    assert (tmp_path / "out" / "a_restored.png").is_file()


@pytest.mark.parametrize("command", ["diagnose", "calibrate", "fit"])
def test_no_input_is_replaced_though_it_is_said_so(run, model, tmp_path, command):
    """Breaks: `--overwrite` is taken at its word; of a folder the files in it are not looked at."""
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    before = (tmp_path / "in" / "a.png").read_bytes()
    more = {"diagnose": (), "calibrate": ("--model", model, "-n", 2, "--steps", 2), "fit": ("--steps", 1)}[command]
    code, _, err = run(command, tmp_path / "in", "-o", tmp_path / "in" / "a.png", "--overwrite", *more)
    assert (code, (tmp_path / "in" / "a.png").read_bytes()) == (2, before)
    assert "would be replaced" in err


def test_what_finds_out_by_itself_is_told_no_level(run, tmp_path):
    """Break: the level is dropped, and reported as used."""
    picture(tmp_path / "a.png")
    for more in (("--sigma", 9), ("--perturb", "gaussian:sigma=0.1")):
        code, _, err = run("restore", tmp_path / "a.png", "--model", "photo", *more)
        assert code == 2
        assert "by itself" in err


@pytest.mark.parametrize("line", ["steps = [1, 2]", "steps = 2.9", "batch = true", "rate = 2026-01-01"])
def test_a_recipe_sets_options_to_what_they_can_be(run, tmp_path, line):
    """Breaks: what is no number is made one, or falls over."""
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "recipe.toml").write_text(line + "\n")
    code, _, err = run("fit", tmp_path / "in", "--recipe", tmp_path / "recipe.toml", "-o", tmp_path / "m.safetensors")
    assert code == 2
    assert "the recipe" in err
    assert line.split()[0] in err


def test_a_recipe_calls_options_by_their_names(run, tmp_path):
    """Break: by those that the program has for them."""
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png")
    (tmp_path / "recipe.toml").write_text('from = "nothing.safetensors"\n')
    code, _, err = run("fit", tmp_path / "in", "--recipe", tmp_path / "recipe.toml", "-o", tmp_path / "m.safetensors")
    assert code
    assert "nothing.safetensors" in err
