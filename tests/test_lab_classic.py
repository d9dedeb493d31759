"""The lab's classics: copying beside restoring, layers trained one by one, and the files that digits come in."""

import gzip
import json
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unperturb.app.lab import autoencoders, missing, stacked
from unperturb.app.lab.autoencoders import (
    RATES,
    Training,
    block_sides,
    erase,
    erasures,
    error_on_erased,
    seeded,
    train_autoencoder,
)
from unperturb.app.lab.idx import find_idx, read_idx
from unperturb.app.lab.images import ImageSet, digits
from unperturb.app.lab.missing import compare, run_missing
from unperturb.app.lab.stacked import (
    Batches,
    Settings,
    fine_tune,
    forward,
    fresh_layers,
    pretrain,
    pretrain_layer,
    read_digits,
)
from unperturb.errors import FileError

QUICK = Training(validation=40, steps=300, rate=3e-3, shift=0, repeats=1, blocks="2..3", drawing_steps=300)
SMALL = Settings(widths=(20, 20, 20), epochs=2, steps=20, batch=10, label_batch=10)


def flat_images(count: int = 200) -> ImageSet:
    """Return images of 4 × 4 equal components: from any one of them all the others are known."""
    images = torch.rand(count, 1, 1, 1, generator=seeded(0)).expand(count, 1, 4, 4).clone()
    return replace(digits(), train=images[50:], held_out=images[:50], held_out_labels=np.empty(0, np.int64))


# --- to copy is not to restore ----------------------------------------------------------------------------------------


def test_the_plain_one_copies_and_the_denoising_one_restores():
    """Where one component says all, half of them say all; with the mean filled in, the error is the variance, 1/12.

    Breaks: the denoising one trained on whole images; its mask the other way round.
    """
    images = flat_images()
    plain, denoising = (train_autoencoder(images, QUICK, 16, denoising=kind) for kind in (False, True))
    clean = images.held_out
    whole = torch.ones_like(clean, dtype=torch.bool)
    assert float((plain(clean, whole) - clean).square().mean()) < 0.01 / 12
    for kind in ("single", "block"):
        mask = erase(clean, kind, 0.5, seeded(1))
        copied, restored = (
            error_on_erased(each.restore(clean * mask, mask), clean, mask) for each in (plain, denoising)
        )
        assert restored < 0.05 / 12
        assert copied > 4 * restored


@pytest.mark.parametrize("denoising", [False, True], ids=["plain", "denoising"])
def test_hidden_values_say_nothing_and_observed_ones_stay(denoising):
    """Breaks: erased components not taken out of what the network sees; the whole answer in place of its holes."""
    images = flat_images()
    network = train_autoencoder(images, QUICK._replace(steps=3), 4, denoising=denoising)
    mask = erase(images.held_out, "single", 0.5, seeded(0))
    restored = network.restore(images.held_out, mask)
    assert torch.equal(restored, network.restore(images.held_out.masked_fill(~mask, 7), mask))
    assert torch.equal(restored[mask], images.held_out[mask])
    assert not torch.equal(restored[~mask], images.held_out[~mask])


@pytest.mark.parametrize("rate", RATES)
def test_single_components_are_erased_at_the_rate(rate):
    """Break: each with a chance."""
    mask = erase(torch.zeros(30, 1, 8, 8), "single", rate, seeded(0))
    assert ((~mask).flatten(1).sum(1) == round(rate * 64)).all()
    assert mask.float().mean(0).std() > 0


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("side", [8, 25])
def test_a_block_is_one_rectangle_within_the_image(rate, side):
    """Break: a block that may be cut off at the border."""
    tall, wide = block_sides(rate, side, side)
    assert tall * wide < side**2
    assert tall * wide == pytest.approx(rate * side**2, abs=0.06 * side**2)
    for mask in erase(torch.zeros(40, 1, side, side), "block", rate, seeded(0))[:, 0]:
        rows, columns = ((~mask).any(axis) for axis in (1, 0))
        assert sorted((int(rows.sum()), int(columns.sum()))) == sorted((tall, wide))
        assert int((~mask).sum()) == tall * wide


def test_errors_are_of_what_was_erased_alone():
    """Break: of all components."""
    mask = torch.tensor([True, False, False, True]).view(1, 1, 2, 2)
    answer = torch.tensor([9.0, 1.0, 3.0, 9.0]).view(1, 1, 2, 2)
    assert error_on_erased(answer, torch.zeros(1, 1, 2, 2), mask) == 5
    assert error_on_erased(torch.stack([answer, 0 * answer]), torch.zeros(1, 1, 2, 2), mask) == 2.5


def test_bottlenecks_are_chosen_apart_from_what_is_measured(monkeypatch):
    """Break: those to choose on taken from the images held out, or left among those to learn from."""
    seen = []

    def watch(images, *rest, **named):
        seen.append(images)
        return train_autoencoder(images, *rest, **named)

    monkeypatch.setattr(missing, "train_autoencoder", watch)
    monkeypatch.setitem(missing.TRAINING, "digits", QUICK)
    images = replace(digits(), train=torch.rand(100, 1, 8, 8, generator=seeded(3)))
    comparison = compare(images, widths=(2, 4), steps=3)
    assert torch.equal(seen[0].train, images.train[40:])
    assert torch.equal(seen[0].held_out, images.train[:40])
    assert comparison.images is images
    best = min(comparison.widths, key=lambda row: row["denoising"])
    assert comparison.denoising.width == best["width"]


def test_missing_is_the_same_for_a_seed_and_writes_its_pictures(tmp_path, monkeypatch):
    """Breaks: erasures by torch's global generator; weights by it."""
    monkeypatch.setattr(missing, "IMAGE_SETS", {"digits": lambda: digits(12)})
    monkeypatch.setattr(missing, "WIDTHS", (4, 8))
    monkeypatch.setattr(missing, "SHOWN", (("single", 0.5), ("block", 0.9)))
    monkeypatch.setitem(missing.TRAINING, "digits", QUICK)
    one = run_missing(tmp_path / "one", ["digits"], steps=4)
    torch.rand(5)
    same = run_missing(tmp_path / "same", ["digits"], steps=4)
    other = run_missing(tmp_path / "other", ["digits"], steps=4, seed=1)
    one, same, other = (told["sets"]["digits"] for told in (one, same, other))
    for part in ("errors", "widths", "draws"):
        assert one[part] == same[part]
        assert one[part] != other[part]
    assert [(row["kind"], row["rate"]) for row in one["errors"]] == [
        (kind, rate) for kind in ("single", "block") for rate in RATES
    ]
    names = {"missing_digits.png", "missing_digits_errors.png"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    for name in names:
        assert_is_picture(tmp_path / "one" / name)
    with pytest.raises(FileError, match="overwrite"):
        run_missing(tmp_path / "one", ["digits"], steps=4)


def test_all_rates_of_a_kind_are_of_the_same_images():
    masks = erasures(torch.zeros(5, 1, 8, 8), seed=4)
    assert len(masks) == len(autoencoders.KINDS) * len(RATES)
    assert all(mask.shape == (5, 1, 8, 8) for _, _, mask in masks)


def assert_is_picture(path) -> None:
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert min(image.size) > 300
    assert 5_000 < path.stat().st_size < 300_000


# --- the idx format ---------------------------------------------------------------------------------------------------


def idx(values: np.ndarray, kind: int = 0x08) -> bytes:
    return bytes([0, 0, kind, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("kind", "code"), [(0x08, ">u1"), (0x09, ">i1"), (0x0B, ">i2"), (0x0C, ">i4"), (0x0D, ">f4"), (0x0E, ">f8")]
)
def test_idx_files_are_read(tmp_path, kind, code, pack):
    """Break: the machine's own byte order."""
    values = np.arange(-3, 21).reshape(2, 3, 4).astype(code)
    (tmp_path / "file").write_bytes(pack(idx(values, kind)))
    read = read_idx(tmp_path / "file")
    assert read.dtype == np.dtype(code).newbyteorder("=")
    np.testing.assert_array_equal(read, values)


WHOLE = idx(np.arange(60, dtype=np.uint8).reshape(3, 4, 5))
PACKED = gzip.compress(WHOLE)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        WHOLE[:3],
        WHOLE[:11],
        WHOLE[:-1],
        WHOLE + b"\0",
        b"\1" + WHOLE[1:],
        WHOLE[:2] + b"\7" + WHOLE[3:],
        WHOLE[:3] + b"\0" + WHOLE[4:],
        WHOLE[:4] + b"\xff" * 12 + WHOLE[16:],
        PACKED[:-9],
        PACKED[:10] + b"\xff" * 30,
        PACKED[:-8] + b"\0\0\0\0" + PACKED[-4:],
    ],
    ids=[
        *("empty", "no head", "half a head", "short", "long", "not zero", "no type", "no axes", "huge", "cut gzip"),
        *("broken gzip", "wrong sum"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, damaged):
    """In one sentence that names the file. Breaks: no look beyond the last value; `zlib.error` let through."""
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(damaged)
    with pytest.raises(FileError, match=str(path)) as refused:
        read_idx(path)
    assert "\n" not in str(refused.value)


def test_an_idx_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileError, match="nothing"):
        read_idx(tmp_path / "nothing")


@pytest.mark.parametrize("name", ["t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz", "t10k-images.idx3-ubyte"])
def test_idx_files_are_found_as_they_go_about(tmp_path, name):
    assert find_idx(tmp_path, "t10k-images-idx3-ubyte") is None
    (tmp_path / name).write_bytes(WHOLE)
    assert find_idx(tmp_path, "t10k-images-idx3-ubyte") == tmp_path / name


# --- a stack ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def mnist(tmp_path, monkeypatch):
    """Make a folder like MNIST's, of a hundred images, no two alike: 70 to learn from, 20 of these for validation."""
    monkeypatch.setattr(stacked, "UNLABELLED", 70)
    monkeypatch.setattr(stacked, "VALIDATION", 20)
    return write_digits(tmp_path / "mnist", "t10k", 100)


def write_digits(folder, part, count, first=0):
    """Write images whose first pixel is their number, and whose label is its last figure."""
    folder.mkdir(exist_ok=True)
    images = np.random.default_rng(first).integers(0, 255, (count, 28, 28), np.uint8)
    images[:, 0, 0] = first + np.arange(count)
    labels = images[:, 0, 0] % 10
    (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return folder


def numbers(images: torch.Tensor) -> list[int]:
    return (255 * images[:, 0]).round().int().tolist()


def test_what_is_tested_on_is_not_learned_from(mnist):
    """Breaks: the test a part of those to learn from; images dealt out without their labels."""
    for problem, learned, tested in ((read_digits(mnist), 70, 30), (read_digits(mnist).on_validation(), 50, 20)):
        assert len(problem.images) == len(problem.labels) == learned
        assert len(problem.test_images) == len(problem.test_labels) == tested
        assert not set(numbers(problem.images)) & set(numbers(problem.test_images))
        for images, labels in ((problem.images, problem.labels), (problem.test_images, problem.test_labels)):
            assert [number % 10 for number in numbers(images)] == labels.tolist()
        assert 0 <= float(problem.images.min()) < float(problem.images.max()) <= 1
    held_out = set(numbers(read_digits(mnist).test_images))
    validation = read_digits(mnist).on_validation()
    assert not held_out & {*numbers(validation.images), *numbers(validation.test_images)}


def test_where_there_is_a_training_file_the_other_is_the_test(mnist):
    """Break: part of the test file learned from."""
    write_digits(mnist, "train", 90, first=120)
    problem = read_digits(mnist)
    assert sorted(numbers(problem.test_images)) == list(range(100))
    assert len(problem.images) == 70
    assert min(numbers(problem.images)) >= 120


def test_files_that_do_not_go_together_are_refused(mnist):
    (mnist / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(99, np.uint8)))
    with pytest.raises(FileError, match="do not go together"):
        read_digits(mnist)
    (mnist / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileError, match="no t10k-labels-idx1-ubyte"):
        read_digits(mnist)
    with pytest.raises(FileError, match="too few"):
        read_digits(write_digits(mnist, "t10k", 60))


def test_a_layer_restores_what_it_was_trained_to_restore():
    """From images of equal components, half of them erased: one trained to restore does, one trained to copy does not.

    Breaks: nothing erased in training; the erased image as the target.
    """
    images = torch.rand(300, 1, generator=seeded(0)).expand(300, 16).clone()
    seen = images * (torch.rand(images.shape, generator=seeded(1)) >= 0.5)
    errors = []
    for erased in (0.0, 0.5):
        (layer,) = fresh_layers((16, 20), seeded(2))
        back = pretrain_layer(layer, images, erased, replace(SMALL, epochs=10, rate=5e-3), seeded(3))
        answer = (forward([layer], seen) @ layer[0] + back).sigmoid()
        errors.append(float((answer - images).square().mean()))
    copied, restored = errors
    assert restored < 0.5 / 12
    assert copied > 2 * restored


def test_layers_are_trained_one_on_top_of_the_other():
    """Every layer, and the lowest without regard to those above. Break: the lowest alone."""
    images = torch.rand(60, 16, generator=seeded(0))
    layers = fresh_layers((16, 12, 8), seeded(1))
    (lowest, *_) = fresh_layers((16, 12, 8), seeded(1))
    before = layers[1][0].clone()
    pretrain(layers, images, 0.25, SMALL, seeded(2))
    pretrain_layer(lowest, images, 0.25, SMALL, seeded(2))
    assert torch.equal(layers[0][0], lowest[0])
    assert not torch.equal(layers[1][0], before)


def test_training_on_labels_leaves_where_it_began_alone():
    """All numbers of labels begin from the same layers. Break: tuned in place."""
    layers = fresh_layers((8, 5, 10), seeded(0))
    before = [part.clone() for layer in layers for part in layer]
    images, labels = torch.rand(40, 8, generator=seeded(1)), torch.arange(40) % 10
    tuned = fine_tune(layers, images, labels, SMALL, seeded(2))
    assert all(torch.equal(was, part) for was, part in zip(before, sum(layers, ()), strict=True))
    assert all(not torch.equal(was, part) for was, part in zip(before, sum(tuned, ()), strict=True))


def test_every_image_is_seen_once_before_any_is_seen_again():
    """Break: batches drawn with replacement."""
    batches = Batches(10, 4, seeded(0))
    first, second = (torch.cat([batches.next() for _ in range(3)]).tolist() for _ in range(2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


def test_stacked_is_the_same_for_a_seed_and_writes_its_picture(mnist, tmp_path):
    """Break: weights by torch's global generator."""
    same = {"labels": (10, 30), "seeds": 2, "settings": SMALL}
    first, again = (stacked.run_stacked(mnist, tmp_path / name, **same) for name in ("first", "again"))
    other = stacked.run_stacked(mnist, tmp_path / "other", seed=5, **same)
    assert first["errors"] == again["errors"] != other["errors"]
    assert first["tested_on"] == 30
    assert [row["labels"] for row in first["errors"]] == [10, 30]
    for row in first["errors"]:
        for name in stacked.BEGINNINGS:
            of = row[name]
            assert of["error"] == pytest.approx(sum(of["all"]) / 2)
            assert of["standard_error"] == pytest.approx(abs(of["all"][0] - of["all"][1]) / 2)
    assert_is_picture(tmp_path / "first" / "stacked.png")
    with pytest.raises(FileError, match="overwrite"):
        stacked.run_stacked(mnist, tmp_path / "first", **same)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_erases_and_tells(run, tmp_path, monkeypatch):
    monkeypatch.setattr(missing, "IMAGE_SETS", {"digits": lambda: digits(12)})
    monkeypatch.setattr(missing, "WIDTHS", (4,))
    monkeypatch.setattr(missing, "SHOWN", (("single", 0.5),))
    monkeypatch.setitem(missing.TRAINING, "digits", QUICK._replace(steps=3, drawing_steps=3))
    options = ("demo", "missing", "--set", "digits", "-o", tmp_path)
    code, out, _ = run(*options, "--json")
    assert code == 0
    assert len(json.loads(out)["sets"]["digits"]["errors"]) == 10
    code, out, _ = run(*options, "--overwrite")
    assert code == 0
    assert "denoising" in out
    assert str(tmp_path / "missing_digits.png") in out


def test_the_command_stacks_and_tells(run, mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(stacked, "Settings", lambda: SMALL)
    monkeypatch.setattr(stacked.run_stacked, "__kwdefaults__", {**stacked.run_stacked.__kwdefaults__, "seeds": 2})
    code, out, _ = run("demo", "stacked", mnist, "-o", tmp_path / "out")
    assert code == 0
    assert "1000" in out
    assert str(tmp_path / "out" / "stacked.png") in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("stacked",),
        ("stacked", "no such folder"),
        ("stacked", "FOLDER", "--set", "digits"),
        ("missing", "FOLDER"),
        ("missing", "--sigma", "0.3"),
        ("missing", "--set", "moons"),
        ("photo", "FOLDER"),
    ],
    ids=" ".join,
)
def test_what_does_not_apply_is_refused(arguments, run, tmp_path):
    """Break: a folder taken in silence by a kind that reads none."""
    code, out, err = run(
        "demo", *(tmp_path if word == "FOLDER" else word for word in arguments), "-o", tmp_path / "out"
    )
    assert code == 2
    assert err
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_folder_without_mnist_is_refused_in_one_sentence(run, tmp_path):
    code, _, err = run("demo", "stacked", tmp_path, "-o", tmp_path / "out")
    assert code == 1
    assert "t10k-images-idx3-ubyte" in err
    assert len(err.strip().splitlines()) == 1
