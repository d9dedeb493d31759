"""Files with missing pixels, from the mark to the result: nothing hidden leaks, nothing observed changes."""

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from pictures import opened, picture
from PIL import Image, ImageOps
from safetensors.torch import load_file

from unperturb.data.missing import blanked, find_missing
from unperturb.data.recording import Recording, read, write
from unperturb.errors import FileError, TrainingError, UnperturbError, UsageError
from unperturb.model.card import Card
from unperturb.model.checkpoint import load, save_model
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings

SIZE = (14, 17)
HIDDEN = np.zeros(SIZE, bool)
HIDDEN[3:8, 4:9] = HIDDEN[10, :] = HIDDEN[::4, 13] = True
"""A block, a line and a few single pixels."""

FEW = ("-n", "2", "--steps", "2")
ERRORS = {kind: {"0.05": 1e-3, "0.5": 1e-2, "inf": 0.05} for kind in ("gray", "colour")}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Few draws of a place, on one thread: these tests are about values, not about quality."""
    monkeypatch.setattr("unperturb.app.examining.BUDGET", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_file(folder: Path, channels: int, *, given: bool) -> str:
    """Write a small untrained model whose answer depends on all that it is shown."""
    spec = "erase:fraction=0.5" if given else "gaussian:sigma=0..0.25"
    torch.manual_seed(0)
    denoiser = Denoiser(
        Card(UNetSettings(channels=channels, widths=(4,), blocks=1, given=given), spec, name="small", errors=ERRORS)
    )
    with torch.no_grad():
        denoiser.network.tail.weight.mul_(10)
    path = folder / f"{channels}{'given' if given else 'plain'}.safetensors"
    save_model(denoiser, path)
    return str(path)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "conditional": model_file(folder, 3, given=True),
        "conditional gray": model_file(folder, 1, given=True),
        "plain": model_file(folder, 3, given=False),
    }


def is_one_sentence(words: str) -> bool:
    """Whether it is one; a number or a file's name has full stops of its own."""
    return "\n" not in words.strip() and ". " not in words


# --- Marks ------------------------------------------------------------------------------------------------------------


def samples(dtype: str, channels: int, *, planes: int = 0, seed: int = 0) -> np.ndarray:
    """Draw values from the middle of the range of a type; floats are in units of their own."""
    shape = (*((planes,) if planes else ()), *SIZE, *((channels,) if channels > 1 else ()))
    drawn = np.random.default_rng(seed).normal(0.5, 0.12, shape).clip(0.1, 0.9)
    if np.dtype(dtype).kind == "f":
        return (3 + 2 * drawn).astype(dtype)
    return (drawn * np.iinfo(dtype).max).astype(dtype)


MASKS: dict[str, Callable[[Path], None]] = {
    "gray.png": lambda path: Image.fromarray((7 * HIDDEN).astype(np.uint8)).save(path),
    "colour.png": lambda path: Image.fromarray(
        np.stack([0 * HIDDEN, 255 * HIDDEN, 0 * HIDDEN], -1).astype(np.uint8)
    ).save(path),
    "bit.png": lambda path: Image.fromarray(HIDDEN).save(path),
    "deep.png": lambda path: write(Recording(HIDDEN.astype(np.uint16), "YX"), path),
    "float.tif": lambda path: tifffile.imwrite(path, 0.1 * HIDDEN.astype(np.float32)),
    "lossless.webp": lambda path: Image.fromarray((255 * HIDDEN).astype(np.uint8)).save(path, lossless=True),
}  # fmt: skip


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_an_image_whose_pixels_are_not_zero(tmp_path, name):
    """In any channel, by however little. Breaks: only white counts; only the first channel counts."""
    MASKS[name](tmp_path / name)
    for values, axes in ((samples("uint8", 1), "YX"), (samples("uint16", 3), "YXC")):
        missing = find_missing(Recording(values, axes), str(tmp_path / name), "a.png")
        assert (missing == HIDDEN).all()
    stack = find_missing(Recording(samples("uint8", 3, planes=2), "ZYXC"), str(tmp_path / name), "a.tif")
    assert (stack == HIDDEN).all()
    assert stack.shape == (2, *SIZE)


def test_a_stack_of_masks_marks_plane_by_plane(tmp_path):
    """Break: the first plane's mask for all."""
    masks = np.stack([HIDDEN, ~HIDDEN])
    tifffile.imwrite(tmp_path / "m.tif", masks.astype(np.uint8), photometric="minisblack")
    missing = find_missing(Recording(samples("uint16", 1, planes=2), "TYX"), str(tmp_path / "m.tif"), "a.tif")
    assert (missing == masks).all()


@pytest.mark.parametrize(("mode", "suffix"), [("LA", "png"), ("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "tif")])
def test_what_is_wholly_transparent_is_missing_by_alpha(tmp_path, mode, suffix):
    """And nothing that is transparent in part. Break: all that is not opaque."""
    values = picture(tmp_path / "a.png", mode=mode, size=SIZE)
    values[..., -1] = np.where(HIDDEN, 0, np.maximum(values[..., -1], 1))
    if suffix == "tif":
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=["unassalpha"])
    else:
        Image.fromarray(values).save(
            tmp_path / f"a.{suffix}", **({"lossless": True, "exact": True} if suffix == "webp" else {})
        )
    recording = read(tmp_path / f"a.{suffix}")
    missing = find_missing(recording, "alpha", "a")
    assert (missing == HIDDEN).all()
    forgotten = blanked(recording, missing)
    assert (forgotten.values[HIDDEN] == 0).all()
    assert (forgotten.alpha[HIDDEN] == 255).all()
    assert (forgotten.alpha[~HIDDEN] == values[..., -1][~HIDDEN]).all()
    assert (recording.values == values[..., :-1].reshape(recording.values.shape)).all(), "what was read is unchanged"


@pytest.mark.parametrize("channels", [1, 3])
def test_what_is_not_a_number_is_missing_by_nan(tmp_path, channels):
    """In any channel. Break: in all of them."""
    values = samples("float32", channels)
    (values if channels == 1 else values[..., 1])[HIDDEN] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb" if channels == 3 else "minisblack")
    assert (find_missing(read(tmp_path / "a.tif"), "nan", "a") == HIDDEN).all()


@pytest.mark.parametrize(
    ("dtype", "bits", "stored"),
    [
        ("uint8", None, (255, 0, 128)),
        ("uint16", None, (65535, 0, 32896)),
        ("uint16", 12, (4095, 0, 2056)),
        ("int8", None, (127, -128, 0)),
        ("float16", None, (1, 0, 128 / 255)),
        ("float32", None, (1, 0, 128 / 255)),
        ("float64", None, (1, 0, 128 / 255)),
    ],
)
def test_what_has_exactly_a_colour_is_missing_by_it(dtype, bits, stored):
    """Whatever the depth of the samples.

    Breaks: floats in units of 255; signed samples as they are stored; a colour that is off by one in one channel.
    """
    values = np.full((*SIZE, 3), stored, dtype)
    values[~HIDDEN, 2] += values.dtype.type(1 if values.dtype.kind in "ui" else 0.01)
    metadata = {} if bits is None else {"bits": bits}
    assert (find_missing(Recording(values, "YXC", metadata=metadata), "#ff0080", "a") == HIDDEN).all()
    gray = Recording(values[..., 2].copy(), "YX", metadata=metadata)
    assert (find_missing(gray, "#808080", "a") == HIDDEN).all()


def test_several_colours_are_missing_together():
    """Pixels that a fault has made black or white. Break: the first colour alone."""
    values = samples("uint8", 1).clip(1, 254)
    values[0, :3], values[1, :2] = 0, 255
    found = find_missing(Recording(values, "YX"), "#000000, #ffffff", "a")
    assert np.array_equal(found, (values == 0) | (values == 255))


GRAY = Recording(samples("uint8", 1), "YX")
REFUSED = {
    "no such mask": (GRAY, "there/is/none.png", FileError, "there is no mask"),
    "no alpha": (GRAY, "alpha", UsageError, "no alpha channel"),
    "whole numbers": (GRAY, "nan", UsageError, "whole numbers"),
    "no colour": (GRAY, "#ff", UsageError, "six hexadecimal digits"),
    "colour of a gray image": (GRAY, "#ff0000", UsageError, "no gray"),
    "none": (GRAY, "#ffffff", FileError, "no pixel is marked as missing by #ffffff$"),
    "all": (Recording(np.zeros(SIZE, np.uint8), "YX"), "#000000", FileError, "marked as missing by #000000$"),
    "no nan": (Recording(samples("float32", 1), "YX"), "nan", FileError, "no pixel is marked"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_marks_that_mean_nothing_are_refused_in_one_sentence(name):
    """Break: a mark that marks nothing let through."""
    recording, mark, kind, words = REFUSED[name]
    with pytest.raises(kind, match=words) as error:
        find_missing(recording, mark, "a.png")
    assert is_one_sentence(str(error.value))


@pytest.mark.parametrize(
    ("axes", "planes", "shape", "words"),
    [("YX", 0, (5, 6), "6 × 5 and 17 × 14"), ("ZYX", 3, (2, *SIZE), "17 × 14 × 2 and 17 × 14 × 3")],
)
def test_a_mask_of_another_size_is_refused(tmp_path, axes, planes, shape, words):
    """Break: the sizes of pages alone told apart."""
    tifffile.imwrite(tmp_path / "m.tif", np.ones(shape, np.uint8), photometric="minisblack")
    with pytest.raises(FileError, match=words) as error:
        find_missing(Recording(samples("uint8", 1, planes=planes), axes), str(tmp_path / "m.tif"), "a.tif")
    assert is_one_sentence(str(error.value))


def test_a_mask_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "m.png").write_text("no image")
    with pytest.raises(UnperturbError) as error:
        find_missing(GRAY, str(tmp_path / "m.png"), "a.png")
    assert "m.png" in str(error.value)
    assert is_one_sentence(str(error.value))


# --- Whole commands ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of file, and how it says what is missing."""

    suffix: str
    dtype: str
    channels: int
    mark: str = "mask"
    planes: int = 0

    def write(self, folder: Path, hidden: int) -> tuple[Path, str]:
        """Write a file, what is under its mask drawn from a seed; return it, and the mark."""
        folder.mkdir(parents=True)
        values = samples(self.dtype, self.channels, planes=self.planes)
        other = samples(self.dtype, self.channels, planes=self.planes, seed=hidden)
        if values.dtype.kind == "f" and hidden > 1:
            other.flat[:: hidden + 1] = np.inf
        masks = np.stack([HIDDEN, HIDDEN[::-1]]) if self.planes else HIDDEN
        values[masks] = other[masks]
        axes = "ZYXC"[0 if self.planes else 1 : None if self.channels > 1 else -1]
        alpha = None
        if self.mark == "alpha":
            alpha = np.where(HIDDEN, 0, 200).astype(self.dtype)
        if self.mark == "nan":
            (values[..., 0] if self.channels > 1 else values)[masks] = np.nan
        path = folder / f"a.{self.suffix}"
        write(Recording(values, axes, alpha=alpha), path)
        if self.mark != "mask":
            return path, self.mark
        write(Recording(masks.astype(np.uint8), axes.removesuffix("C")), folder / "mask.tif")
        return path, str(folder / "mask.tif")


KINDS = {
    "png 8 gray": Kind("png", "uint8", 1),
    "png 8 colour, alpha": Kind("png", "uint8", 3, "alpha"),
    "png 16 gray, alpha": Kind("png", "uint16", 1, "alpha"),
    "png 16 colour": Kind("png", "uint16", 3),
    "tiff float, nan": Kind("tif", "float32", 1, "nan"),
    "tiff double colour, nan": Kind("tif", "float64", 3, "nan"),
    "tiff double": Kind("tif", "float64", 1),
    "tiff stack": Kind("tif", "uint16", 1, planes=2),
    "webp, alpha": Kind("webp", "uint8", 3, "alpha"),
}
"""One row a kind of file; a new one is a new row."""


def results(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize("way", ["conditional", "conditional gray", "plain"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_hidden_leaks_and_nothing_observed_changes(run, models, tmp_path, kind, way):
    """Whatever stands under the mask, no byte of any result changes; what is observed comes back bit for bit.

    A model of colour, one of gray that takes channels one by one, and one of noise alone, whose answer is approximate.

    Breaks: hidden values not forgotten when a file is read; observed pixels by way of 32-bit floats; alpha kept.
    """
    made, model = KINDS[kind], models[way]
    found = []
    for hidden in (1, 2):
        path, mark = made.write(tmp_path / str(hidden), hidden)
        for verb in ("restore", "sample", "uncertainty"):
            few = () if verb == "restore" else FEW
            folder = tmp_path / f"{hidden} out"
            code, _, err = run(verb, path, "--missing", mark, "--model", model, "-o", folder, *few)
            assert code == 0, err
            assert ("approximate" in err) == (way == "plain" and verb != "uncertainty")
        found.append(results(folder))
    assert found[0] == found[1]
    before = read(path)
    missing = find_missing(before, mark, path)
    for name in ("restored", "sample01", "sample02"):
        after = read(folder / f"a_{name}.{made.suffix}")
        assert (after.values.dtype, after.axes) == (before.values.dtype, before.axes)
        assert np.array_equal(after.values[~missing], before.values[~missing])
        assert np.isfinite(after.values[missing]).all()
        assert (after.values[missing] != 0).any()
        if before.alpha is not None and after.alpha is not None:
            assert (after.alpha[missing] == np.iinfo(before.alpha.dtype).max).all()
            assert (after.alpha[~missing] == before.alpha[~missing]).all()


def test_several_places_of_a_large_image_are_looked_at_with_a_model_of_noise(run, models, tmp_path):
    """Larger than a window and its surroundings, where a guess of the whole is of no size for a part.

    Break: the start cut to a window, and not what was seen.
    """
    picture(tmp_path / "a.png", mode="L", size=(40, 120))
    Image.fromarray(np.indices((40, 120)).sum(0) % 3 == 0).save(tmp_path / "mask.png")
    code, out, err = run(
        "uncertainty",
        tmp_path / "a.png",
        "--missing",
        tmp_path / "mask.png",
        "--model",
        models["plain"],
        *FEW,
        "--json",
    )
    assert code == 0, err
    told = json.loads(out)["results"][0]
    assert len(told["places"]) == 3
    assert "approximate" in told["caveat"]


def test_noise_in_what_was_observed_is_taken_away_where_it_is_told(run, models, tmp_path):
    """By --sigma, or by --perturb for a model of noise. Break: what was observed put back whatever was told."""
    path, mark = KINDS["png 16 colour"].write(tmp_path / "in", 1)
    told = {
        "sigma": ("--model", models["conditional"], "--sigma", "900"),
        "plain": ("--model", models["plain"], "--sigma", "900"),
        "perturb": ("--model", models["plain"], "--perturb", "gaussian:sigma=0.02"),
        "erase": ("--model", models["plain"], "--perturb", "erase:fraction=0.3 + gaussian:sigma=0.02"),
    }
    for name, options in told.items():
        code, _, err = run("restore", path, "--missing", mark, *options, "-o", tmp_path / f"{name}.png")
        assert code == 0, err
        after, before = read(tmp_path / f"{name}.png").values, read(path).values
        assert (after != before)[~HIDDEN].mean() > 0.5


def test_bundled_models_fill_in_what_is_missing(run, tmp_path):
    """By `missing`; `natural` will do, and says that it is approximate.

    Breaks: `natural` for all; a model for noise that is given the mask and not told what it means.
    """
    picture(tmp_path / "a.png", mode="L", size=SIZE)
    Image.fromarray(HIDDEN).save(tmp_path / "mask.png")
    mask = ("--missing", tmp_path / "mask.png")
    for verb, few in (("restore", ()), ("sample", FEW)):
        code, _, err = run(verb, tmp_path / "a.png", *mask, *few)
        assert (code, "approximate" in err) == (0, False)
    code, _, err = run("restore", tmp_path / "a.png", *mask, "--model", "natural", "-o", tmp_path / "b.png")
    assert (code, "a.png: approximate" in err) == (0, True)
    before = np.asarray(opened(tmp_path / "a.png"))
    for name in ("a_restored.png", "a_sample01.png", "b.png"):
        after = np.asarray(opened(tmp_path / name))
        assert np.array_equal(after[~HIDDEN], before[~HIDDEN])


def test_what_was_done_is_undone_approximately_and_says_so(run, models, tmp_path):
    """Breaks: no note; blur and missing pixels taken together, and the mask forgotten."""
    spec = ("--perturb", "blur:sigma=1.5 + gaussian:sigma=0.02")
    picture(tmp_path / "a.png", mode="L", size=SIZE)
    for verb in ("restore", "sample"):
        few = () if verb == "restore" else FEW
        code, _, err = run(verb, tmp_path / "a.png", *spec, "--model", models["plain"], *few)
        assert code == 0
        assert "a.png: approximate" in err
    assert (np.asarray(opened(tmp_path / "a_restored.png")) != np.asarray(opened(tmp_path / "a.png"))).mean() > 0.5
    Image.fromarray(HIDDEN).save(tmp_path / "mask.png")
    masked = ("--missing", tmp_path / "mask.png", "-o", tmp_path / "b.png")
    code, _, err = run("restore", tmp_path / "a.png", *spec, "--model", models["plain"], *masked)
    assert code == 1
    assert "missing besides" in err
    assert is_one_sentence(err)
    code, _, err = run("restore", tmp_path / "a.png", *spec, "--model", models["plain"], "--sigma", "3", "--overwrite")
    assert code == 2
    assert "--sigma" in err


def test_a_file_without_marks_is_named_and_the_others_are_filled(run, models, tmp_path):
    path, _ = KINDS["png 8 colour, alpha"].write(tmp_path / "in", 1)
    picture(tmp_path / "in" / "b.png", size=SIZE)
    code, _, err = run("restore", tmp_path / "in", "--missing", "alpha", "--model", models["conditional"])
    assert code == 3
    assert "b.png has no alpha channel" in err
    assert is_one_sentence(err)
    assert path.with_name("a_restored.png").exists()


# --- Training, evaluation and calibration -----------------------------------------------------------------------------

TINY = (
    *("--network", "tiny", "--widths", "4", "--blocks", "1", "--channels", "3", "--steps", "4", "--batch", "2"),
    *("--patch-size", "16", "--validate", "2", "--warmup", "1", "--held-out", "2", "--precision", "float32"),
    *("--threads", "1", "--checkpoint", "0"),
)
SPEC = "erase:fraction=0.5"


@pytest.fixture
def photographs(tmp_path) -> Path:
    for seed in range(3):
        picture(tmp_path / "photographs" / f"{seed}.png", size=(32, 32), seed=seed)
    return tmp_path / "photographs"


def train(run, data, output, *more) -> int:
    common = ("-o", output, "--cache", output.parent / "cache", "--perturb", SPEC)
    code, _, err = run("fit", data, *common, *TINY, *more)
    assert code == 0, err
    return code


def test_a_conditional_model_from_the_command_line(run, tmp_path, photographs):
    """Trained, told of, evaluated, calibrated, and its intervals measured.

    Breaks: a card without the error where x says nothing; erased pixels scored together with all others.
    """
    model, known = tmp_path / "model.safetensors", tmp_path / "known.safetensors"
    train(run, photographs, model)
    card = load(model).card
    assert card.network.given
    assert card.perturbation == SPEC
    for kind in ("gray", "colour"):
        by_level = {float(level): error for level, error in card.errors[kind].items()}
        assert max(by_level) == float("inf")
        assert all(0 < error < np.inf for error in by_level.values())
    code, out, _ = run("evaluate", photographs, "--model", model, "--perturb", SPEC, "--json")
    told = json.loads(out)
    assert code == 0
    # Half of the pixels are as they were: over all of them the error is about half, which is 3 dB.
    assert told["psnr"] - told["psnr_missing"] == pytest.approx(10 * np.log10(2), abs=0.4)
    assert all(np.isfinite(image["psnr_missing"]) for image in told["per_image"])
    few = ("--steps", "2", "-n", "2", "--crop", "16")
    code, out, err = run("calibrate", photographs, "--model", model, "-o", known, *few, "--json")
    assert code == 0, err
    made = json.loads(out)["calibration"]
    assert {each["statistic"] for each in made} >= {"pixel", "region mean 8"}
    assert all(list(each["scales"]) == ["1.0"] for each in made)
    code, out, err = run("calibrate", photographs, "--model", known, "--check", "--crop", "16", "--json")
    assert code == 0, err
    covered = {each["statistic"]: each["measured"] for each in json.loads(out)["coverage"]}
    assert covered["pixel"] == pytest.approx(0.9, abs=0.01), "measured on what it was learned from"
    code, _, err = run("calibrate", photographs, "--model", model, "--sigma", "5", "-o", tmp_path / "no.safetensors")
    assert code in (1, 2)
    assert "see --perturb" in err


def test_a_conditional_run_that_was_stopped_goes_on_to_the_same_weights(run, tmp_path, photographs, monkeypatch):
    """Law 17, from the command line. Break: masks from torch's global generator."""
    from unperturb.app import training

    whole, parted = tmp_path / "whole.safetensors", tmp_path / "parted.safetensors"
    train(run, photographs, whole)

    def stopped(*arguments, **options):
        for number, report in enumerate(real(*arguments, **options)):
            yield report
            if number == 1:
                raise TrainingError("the lights went out")

    real = training.train_model
    with monkeypatch.context() as patched:
        patched.setattr(training, "train_model", stopped)
        code, _, err = run("fit", photographs, "-o", parted, "--cache", tmp_path / "cache", "--perturb", SPEC, *TINY)
        assert code == 1
        assert "lights" in err
    assert not parted.exists()
    train(run, photographs, parted, "--resume")
    one, other = load_file(whole), load_file(parted)
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_conditional_run_may_begin_with_a_model_of_noise(run, tmp_path, photographs, models):
    """Break: a network of another number of inputs refused."""
    output = tmp_path / "model.safetensors"
    train(run, photographs, output, "--from", models["plain"])
    card = load(output).card
    assert card.network.given
    # Four steps do not take it far from where it began.
    before, after = (load(path).network.middle.state_dict() for path in (models["plain"], output))
    alike = (torch.nn.functional.cosine_similarity(before[key].flatten(), after[key].flatten(), 0) for key in before)
    assert all(cosine > 0.8 for cosine in alike)


def thumbnailed(path: Path, orientation: int) -> None:
    """Write a JPEG that is displayed turned, with the small picture in it that a camera puts there."""
    exif = Image.Exif()
    exif[274] = orientation
    exif[271] = "Maker"
    head = exif.tobytes()[6:]
    order = "<" if head[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", head, 4)
    (count,) = struct.unpack_from(order + "H", head, first)
    block = bytearray(head)
    block += bytes(len(block) % 2)
    struct.pack_into(order + "I", block, first + 2 + 12 * count, len(block))
    small = b"\xff\xd8 what was there \xff\xd9"
    at = len(block) + 2 + 24 + 4
    block += struct.pack(order + "H", 2) + struct.pack(order + "HHII", 0x201, 4, 1, at)
    block += struct.pack(order + "HHII", 0x202, 4, 1, len(small)) + bytes(4) + small
    values = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    Image.fromarray(values).save(path, exif=b"Exif\0\0" + bytes(block), quality=95)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_mask_lies_on_the_picture_as_it_is_displayed(tmp_path, orientation):
    """Break: on the picture as it is stored."""
    thumbnailed(tmp_path / "a.jpg", orientation)
    shown = ImageOps.exif_transpose(opened(tmp_path / "a.jpg"))
    marks = np.zeros((shown.height, shown.width), np.uint8)
    marks[:3, :5] = 255
    Image.fromarray(marks).save(tmp_path / "mask.png")
    recording = read(tmp_path / "a.jpg")
    found = find_missing(recording, str(tmp_path / "mask.png"), "a.jpg")
    painted = Image.fromarray(found.astype(np.uint8) * 255)
    painted.getexif()[274] = orientation
    assert np.array_equal(np.asarray(ImageOps.exif_transpose(painted)), marks)


def test_no_small_picture_shows_what_was_hidden(tmp_path):
    """Break: the camera's data are carried as they are."""
    thumbnailed(tmp_path / "a.jpg", 6)
    recording = read(tmp_path / "a.jpg")
    assert b"what was there" in recording.metadata["exif"]
    hidden = blanked(recording, HIDDEN)
    write(hidden, tmp_path / "b.jpg")
    assert b"what was there" not in (tmp_path / "b.jpg").read_bytes()
    kept = opened(tmp_path / "b.jpg").getexif()
    assert (kept[271], kept[274]) == ("Maker", 6)


def test_what_is_infinite_is_no_number_either(tmp_path):
    """Break: NaN alone."""
    values = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    values[2, 3] = np.inf
    tifffile.imwrite(tmp_path / "a.tif", values)
    assert find_missing(read(tmp_path / "a.tif"), "nan", "a.tif").sum() == 1


def test_a_mask_whose_small_values_are_white_marks_what_is_white(tmp_path):
    """Break: what is stored as something else than 0 is marked."""
    picture(tmp_path / "a.png", SIZE)
    tifffile.imwrite(tmp_path / "mask.tif", np.where(HIDDEN, 0, 255).astype(np.uint8), photometric="miniswhite")
    found = find_missing(read(tmp_path / "a.png"), str(tmp_path / "mask.tif"), "a.png")
    assert np.array_equal(found, HIDDEN)
