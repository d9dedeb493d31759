"""Which bundled model fits a file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from unperturb.app import deciding, observing
from unperturb.app.deciding import Decision, decide, decided, is_photograph
from unperturb.app.diagnosing import diagnose_files
from unperturb.data.recording import Recording, read, write
from unperturb.model.card import Card
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNet, UNetSettings
from unperturb.model.spec import parse

SCENES = {"astronaut": data.astronaut()[:448], "coffee": data.coffee()[:400], "chelsea": data.chelsea()}


def shot(path: Path, scene: str, spec: str | None) -> tuple[Path, Recording]:
    """Write a photograph under a perturbation, and return its file and what is in it."""
    clean = torch.from_numpy(SCENES[scene].astype(np.float32) / 255).permute(2, 0, 1)[None]
    seen = clean if spec is None else parse(spec)(clean, torch.Generator().manual_seed(0)).values
    levels = (255 * seen[0].permute(1, 2, 0).numpy()).round().clip(0, 255).astype(np.uint8)
    write(Recording(levels, "YXC", path.suffix[1:].replace("jpg", "jpeg")), path)
    return path, read(path)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize(
    ("spec", "model"),
    [
        ("gaussian:sigma=0.03", "natural"),
        ("gaussian:sigma=0.15", "natural"),
        ("camera:iso=1600,reduction=1", "photo"),
        ("camera:iso=6400 + jpeg:quality=90", "photo"),
    ],
)
def test_white_noise_is_for_natural_and_that_of_a_camera_for_photo(tmp_path, scene, spec, model):
    """Break: whiteness taken the other way round."""
    suffix = "jpg" if "jpeg" in spec else "png"
    assert decide(*shot(tmp_path / f"shot.{suffix}", scene, spec)).model == model


def test_what_compression_has_left_is_for_photo_unless_its_noise_is_white(tmp_path):
    """Break: whatever was compressed for photo."""
    assert decide(*shot(tmp_path / "clean.jpg", "astronaut", None)).model == "photo"
    path, _ = shot(tmp_path / "noisy.png", "astronaut", "jpeg:quality=80 + gaussian:sigma=0.1")
    assert decided(diagnose_files([path]), compressed=True).model == "natural"


def test_noise_that_neighbours_have_in_common_is_that_of_a_camera_in_photographs_alone(tmp_path):
    """Break: not to look what kind of file it is."""
    _, photograph = shot(tmp_path / "shot.png", "astronaut", "camera:iso=6400,reduction=1")
    write(Recording(photograph.values[..., 1], "YX", "tiff"), tmp_path / "gray.tif")
    assert decide(tmp_path / "shot.png", photograph).model == "photo"
    assert decide(tmp_path / "gray.tif", read(tmp_path / "gray.tif")).model == "natural"


@pytest.mark.parametrize(
    ("values", "axes", "kind", "expected"),
    [
        (np.zeros((9, 9, 3), np.uint8), "YXC", "png", True),
        (np.zeros((9, 9, 3), np.uint16), "YXC", "tiff", True),
        (np.zeros((9, 9), np.uint8), "YX", "jpeg", True),
        (np.zeros((9, 9), np.uint16), "YX", "tiff", False),
        (np.zeros((9, 9, 3), np.float32), "YXC", "tiff", False),
        (np.zeros((2, 9, 9), np.uint8), "CYX", "tiff", False),
    ],
)
def test_only_finished_photographs_have_gone_through_a_camera(values, axes, kind, expected):
    """Recordings of microscopes keep natural. Break: every file a photograph."""
    assert is_photograph(Recording(values, axes, kind)) is expected


def test_what_is_too_small_to_tell_keeps_natural(tmp_path):
    write(Recording(np.zeros((12, 12, 3), np.uint8), "YXC", "png"), tmp_path / "small.png")
    assert decide(tmp_path / "small.png", read(tmp_path / "small.png")).model == "natural"


def test_restore_says_which_model_and_why_and_does_not_choose_where_something_is_told(tmp_path, run, monkeypatch):
    """Breaks: a choice in spite of --sigma or --model; nothing said."""
    chosen = []

    def choice(path: Path, recording: Recording) -> Decision:
        chosen.append((path.name, recording.is_colour))
        return Decision("natural", "because")

    monkeypatch.setattr(observing, "decide", choice)
    shot(tmp_path / "a.png", "chelsea", None)
    code, _, told = run("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--tile", "256")
    assert (code, chosen) == (0, [("a.png", True)])
    assert "a.png: by natural: because" in told
    for options in (("--sigma", 2), ("--model", "natural"), ("--noise", "gaussian:sigma=0.01")):
        assert run("restore", tmp_path / "a.png", "-o", tmp_path / "out", "--overwrite", *options)[0] == 0
    assert len(chosen) == 1


@pytest.mark.parametrize(("command", "key"), [("sample", "model"), ("uncertainty", "chosen")])
def test_draws_and_uncertainty_are_of_the_model_that_restores(tmp_path, run, monkeypatch, command, key):
    """Where nothing is told, and it is said. Breaks: natural in any case; the card of another in the report."""
    network = UNetSettings(widths=(4, 8), channels=3, blocks=1, given=True)
    torch.manual_seed(0)
    other = Denoiser(Card(network, "camera:iso=0..200", name="other")).requires_grad_(False)
    monkeypatch.setattr(deciding, "_loaded", lambda _: other)
    monkeypatch.setattr(observing, "decide", lambda *_: Decision("photo", "because"))
    asked = []
    monkeypatch.setattr(UNet, "forward", lambda self, x, *_: asked.append(self.settings.given) or torch.zeros_like(x))
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)).save(tmp_path / "a.png")
    more = ("-n", 2, "--steps", 2, "--json", "-o", tmp_path / "out")
    code, out, told = run(command, tmp_path / "a.png", *more)
    assert (code, json.loads(out)["results"][0][key]) == (0, "photo: because"), told
    assert asked
    assert all(asked)
    told = run(command, tmp_path / "a.png", *more[:4], "-o", tmp_path / "again")[2]
    assert "a.png: by photo: because" in told
    if command == "uncertainty":
        assert "other" in (tmp_path / "out" / "a_report.html").read_text()


def test_a_decision_has_its_model(monkeypatch):
    monkeypatch.setattr(
        "unperturb.app.deciding.load", lambda name: Denoiser(Card(UNetSettings(widths=(4,)), name=name))
    )
    assert Decision("other", "").denoiser.card.name == "other"
