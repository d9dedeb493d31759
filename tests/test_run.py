"""A run with its files: what it leaves, how it is taken up again, and what it is validated on."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from runs import COLOUR, EVERYTHING, IMAGES, LINE, QUIET, assert_same, on_a_line, six_pictures

from unperturb.data.decoded import Preparation, open_patches
from unperturb.data.patches import Patches
from unperturb.errors import FileError, TrainingError, UsageError
from unperturb.model.checkpoint import load, save_model
from unperturb.model.network import VectorNetSettings
from unperturb.model.operators import half_colour
from unperturb.model.spec import parse
from unperturb.train import validate as validate_module
from unperturb.train.fit import fit
from unperturb.train.material import crops
from unperturb.train.run import Habits, RunFiles, train_model
from unperturb.train.settings import FitSettings
from unperturb.train.state import FitState
from unperturb.train.validate import LEVELS


@pytest.fixture
def pictures(tmp_path) -> Patches:
    return six_pictures(tmp_path)


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


def test_a_new_run_has_nothing_of_the_old_one_to_go_on_from(pictures, tmp_path):
    """Break: the checkpoint of the old run stays until there is a new one."""
    files = RunFiles(tmp_path / "model.safetensors")
    finish(pictures, files)
    begun = train_model(IMAGES, pictures, files, replace(QUIET, checkpoint=1e9))
    next(begun)
    begun.close()
    assert not files.state.exists()


def test_what_cannot_be_learned_changes_nothing(pictures, tmp_path, monkeypatch):
    """Break: the log is begun anew before the first step."""
    files = RunFiles(tmp_path / "model.safetensors")
    finish(pictures, files)
    before = [file.read_bytes() for file in (files.model, files.state, files.log)]

    def refused(*_: object) -> None:
        raise TrainingError("this perturbation is of other signals")

    monkeypatch.setattr("unperturb.train.fit._gradients", refused)
    with pytest.raises(TrainingError, match="other signals"):
        finish(pictures, files)
    assert [file.read_bytes() for file in (files.model, files.state, files.log)] == before


def test_a_run_that_is_done_leaves_its_model_alone(pictures, tmp_path):
    """Break: it is written anew, and what was put on its card since is lost."""
    files = RunFiles(tmp_path / "model.safetensors")
    finish(pictures, files)
    save_model(load(files.model).with_card(description="calibrated since"), files.model)
    assert finish(pictures, files, resume=True) == []
    assert load(files.model).card.description == "calibrated since"


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
