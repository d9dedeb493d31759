"""Images are decoded once, and every crop is a piece of one of them, turned or mirrored."""

import os
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from unperturb.data import decoded as module
from unperturb.data.decoded import Preparation, open_patches
from unperturb.data.patches import LUMINANCE, Patches
from unperturb.errors import FileError, TrainingError, UsageError
from unperturb.train.crops import Crops


def picture(height: int = 40, width: int = 56, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Noise: every place is recognisable by its values."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8).squeeze()


def folder_of(path, *pictures, suffix=".png"):
    path.mkdir(exist_ok=True)
    for number, values in enumerate(pictures):
        Image.fromarray(values).save(path / f"{number:02}{suffix}")
    return path


def opened(tmp_path, *pictures, **preparation) -> Patches:
    return open_patches([folder_of(tmp_path / "images", *pictures)], tmp_path / "cache", Preparation(**preparation))


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def turns(image: np.ndarray) -> list[np.ndarray]:
    """Return the eight flips and rotations of the first two axes."""
    return [np.rot90(flipped, turn) for flipped, turn in product((image, image[:, ::-1]), range(4))]


# --- Decoding ---------------------------------------------------------------------------------------------------------


def test_images_are_decoded_once(tmp_path, monkeypatch):
    """Break: the cache is not looked for."""
    first = opened(tmp_path, picture(), picture(seed=1))
    monkeypatch.setattr(module, "read", lambda path: pytest.fail(f"{path} was decoded again"))
    again = open_patches([tmp_path / "images"], tmp_path / "cache", Preparation())
    assert again.key == first.key
    assert again.places == first.places
    assert np.array_equal(again.samples, first.samples)


def test_samples_are_those_of_the_files_and_stay_on_the_disk(tmp_path):
    pictures = [picture(), picture(30, 20, seed=1), picture(channels=1, seed=2)]
    patches = opened(tmp_path, *pictures)
    assert isinstance(patches.samples, np.memmap)
    assert patches.samples.dtype == np.uint8
    assert patches.full_scale == 255
    assert patches.pixels == sum(image.shape[0] * image.shape[1] for image in pictures)
    for place, image in zip(patches.places, pictures, strict=True):
        assert (place.height, place.width, place.channels) == np.atleast_3d(image).shape
        stored = patches.samples[place.offset : place.offset + image.size]
        assert np.array_equal(stored, image.ravel())


def test_other_content_or_another_preparation_is_another_cache(tmp_path):
    keys = {opened(tmp_path, picture()).key, opened(tmp_path, picture(), picture(seed=1)).key}
    keys |= {
        opened(tmp_path, **preparation).key for preparation in ({"scales": (1, 2)}, {"jpeg": (70, 90)}, {"held_out": 3})
    }
    assert len(keys) == 5
    os.utime(tmp_path / "images" / "00.png", (1, 1))
    changed = opened(tmp_path)
    assert changed.key not in keys
    Image.fromarray(picture(seed=3)).save(tmp_path / "images" / "00.png")
    assert np.array_equal(opened(tmp_path).samples[:100], picture(seed=3).ravel()[:100])


def test_files_and_folders_come_in_the_order_given(tmp_path):
    folder = folder_of(tmp_path / "images", picture(20, 20), picture(20, 24, seed=1))
    patches = open_patches([folder / "01.png", folder], tmp_path / "cache")
    assert [place.width for place in patches.places] == [24, 20]  # a file that is named twice is one


def test_decoding_tells_how_far_it_is(tmp_path):
    folder = folder_of(tmp_path / "images", picture(), picture(), picture())
    told = []
    open_patches([folder], tmp_path / "cache", progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 65535), (np.float32, 1)])
def test_deeper_images_keep_their_depth(dtype, scale, tmp_path):
    import tifffile

    values = (generator().random((20, 24)) * scale).astype(dtype)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "deep.tif", values)
    patches = open_patches([tmp_path / "images"], tmp_path / "cache")
    assert patches.samples.dtype == dtype
    centre = patches.centre(0, 20, gray=False)
    np.testing.assert_allclose(centre[0], values[:, 2:22] / np.float32(scale), rtol=1e-6)


# --- Reduced copies ---------------------------------------------------------------------------------------------------


def test_images_are_also_kept_reduced(tmp_path):
    """Of the first nothing is left that is 16 pixels high; the second is held out."""
    patches = opened(tmp_path, picture(20, 20), picture(48, 64), picture(48, 64), scales=(1, 1.5, 3))
    sizes = [(place.height, place.width) for place in patches.places]
    assert sizes == [(20, 20), (48, 64), (48, 64), (32, 43), (16, 21)]


def test_reduced_copies_show_the_same(tmp_path):
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8)
    patches = opened(tmp_path, ramp, scales=(2,))
    small = patches.centre(0, 24, gray=False)[0] * 255
    np.testing.assert_allclose(small, ramp[0:48:2, 8:56:2] + 1, atol=1.5)


def test_reduced_copies_go_through_jpeg_where_that_is_asked_for(tmp_path):
    plain, coarse = (opened(tmp_path, picture(48, 48), scales=(1, 2), jpeg=jpeg) for jpeg in (None, (5, 5)))
    assert plain.places == coarse.places
    for index, reduced in enumerate([False, True]):
        one, other = (patches.centre(index, 24, gray=False) for patches in (plain, coarse))
        assert (np.abs(one - other).max() > 0.05) == reduced


# --- Held out ---------------------------------------------------------------------------------------------------------


def test_held_out_images_are_never_trained_on(tmp_path):
    pictures = [picture(20, 20 + index, seed=index) for index in range(7)]
    patches = opened(tmp_path, *pictures, held_out=3, scales=(1, 1.2))
    train, validation = patches.of(held_out=False), patches.of(held_out=True)
    widths = {place.width for place in validation.places}
    assert widths == {21, 24}, "as they are, without reduced copies"
    assert len(train.places) == 2 * 5
    assert not {place.offset for place in train.places} & {place.offset for place in validation.places}


@pytest.mark.parametrize("number", range(2, 7))
def test_of_a_few_images_one_is_held_out(number, tmp_path):
    patches = opened(tmp_path, *(picture(seed=index) for index in range(number)), held_out=20)
    assert len(patches.of(held_out=True).places) == 1
    assert len(patches.of(held_out=False).places) == number - 1


# --- Crops ------------------------------------------------------------------------------------------------------------


def test_crops_lie_within_an_image_turned_in_all_eight_ways(tmp_path):
    """Breaks: one of the eight is another's twin; the last place along an axis never taken."""
    image = np.zeros((12, 14, 3), np.uint8)
    image[..., 0], image[..., 1] = np.mgrid[:12, :14]  # so that pixels say where they are
    patches, source = opened(tmp_path, image), generator()
    seen = set()
    for _ in range(400):
        crop = patches.crop(source, 8, gray=False)
        assert (crop.shape, crop.dtype, crop.flags.c_contiguous) == ((3, 8, 8), np.float32, True)
        pixels = np.rint(crop.transpose(1, 2, 0) * 255).astype(np.uint8)
        top, left, _ = pixels.min((0, 1))
        turn = [np.array_equal(way, pixels) for way in turns(image[top : top + 8, left : left + 8])]
        assert sum(turn) == 1
        seen.add((int(top), int(left), turn.index(True)))
    assert {turn for _, _, turn in seen} == set(range(8))
    assert {(top, left) for top, left, _ in seen} == set(product(range(5), range(7)))


def test_crops_are_functions_of_the_generator(tmp_path):
    patches = opened(tmp_path, picture(), picture(seed=1))
    one, again, other = (patches.crop(generator(seed), 16, gray=False) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_larger_images_are_cropped_more_often(tmp_path):
    dark, bright = np.zeros((20, 20), np.uint8), np.full((20, 60), 255, np.uint8)
    patches = opened(tmp_path, dark, bright)
    source = generator()
    share = np.mean([patches.crop(source, 8, gray=False)[0, 0, 0] for _ in range(800)])
    assert share == pytest.approx(0.77, abs=0.07), "three quarters by area, four fifths by places"


def test_gray_is_luminance(tmp_path):
    image = picture()
    patches = opened(tmp_path, image)
    middle = image[:, 8:48] / 255
    np.testing.assert_allclose(patches.centre(0, 40, gray=True)[0], middle @ np.array(LUMINANCE), atol=1e-6)
    np.testing.assert_allclose(patches.centre(0, 40, gray=False), middle.transpose(2, 0, 1), atol=1e-7)
    assert sum(LUMINANCE) == pytest.approx(1)


def test_gray_images_are_gray_either_way(tmp_path):
    patches = opened(tmp_path, picture(channels=1))
    assert np.array_equal(patches.centre(0, 40, gray=True), patches.centre(0, 40, gray=False))


def test_images_too_small_for_a_crop_are_left_out(tmp_path):
    patches = opened(tmp_path, picture(20, 60), picture(40, 40), picture(60, 31))
    assert [place.height for place in patches.at_least(32).places] == [40]
    assert [place.height for place in patches.at_least(31).places] == [40, 60]
    with pytest.raises(TrainingError, match="at least 41 pixels"):
        patches.at_least(41)


# --- What cannot be ---------------------------------------------------------------------------------------------------


def test_no_images_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileError, match=r"there are no images in .*empty"):
        open_patches([tmp_path / "empty"], tmp_path / "cache")


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileError, match=r"none\.png"):
        open_patches([tmp_path / "none.png"], tmp_path / "cache")


def test_a_file_that_is_no_image_is_named_and_leaves_no_cache(tmp_path):
    folder = folder_of(tmp_path / "images", picture())
    (folder / "99.png").write_text("not an image")
    with pytest.raises(FileError, match=r"99\.png"):
        open_patches([folder], tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_one_kind_of_samples_is_asked_for(tmp_path):
    folder = folder_of(tmp_path / "images", picture(channels=1))
    Image.fromarray(picture(channels=1).astype(np.uint16) * 257).save(folder / "99.png")
    with pytest.raises(FileError, match=r"99\.png holds uint16, the files before it uint8"):
        open_patches([folder], tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(FileError, match="cache is a file, not a folder"):
        opened(tmp_path, picture())


@pytest.mark.parametrize(
    "change",
    [{"scales": ()}, {"scales": (0.5,)}, {"jpeg": (90, 70)}, {"jpeg": (0, 90)}, {"jpeg": (90, 101)}, {"held_out": 1}],
    ids=str,
)
def test_impossible_preparations_are_refused(change):
    with pytest.raises(UsageError):
        Preparation(**change)


# --- Whole batches, on a device ---------------------------------------------------------------------------------------


def test_crops_of_a_batch_are_parts_of_images_in_every_pose(tmp_path):
    """Breaks: rows and columns taken from one share; channels of a gray image read on into the next pixel."""
    pictures = [picture(20, 24, channels=1), picture(18, 30, channels=1, seed=1)]
    patches = opened(tmp_path, *pictures)
    crops = Crops.of(patches, torch.device("cpu")).draw(400, 16, torch.Generator().manual_seed(0), gray=False)
    assert crops.shape == (400, 1, 16, 16)
    known = {}
    for number, image in enumerate(pictures):
        for top in range(image.shape[0] - 15):
            for left in range(image.shape[1] - 15):
                for turn, pose in enumerate(turns(image[top : top + 16, left : left + 16])):
                    known[pose.tobytes()] = (number, top, left, turn)
    found = {known[(crop * 255).round().to(torch.uint8).numpy().tobytes()] for crop in crops[:, 0]}
    assert {number for number, *_ in found} == {0, 1}
    assert {turn for *_, turn in found} == set(range(8))
    assert {(top, left) for number, top, left, _ in found if number == 1} == {
        (t, n) for t in range(3) for n in range(15)
    }


def test_crops_of_a_batch_are_of_images_by_their_area(tmp_path):
    """Break: every image as likely as any other."""
    patches = opened(tmp_path, np.full((20, 20), 10, np.uint8), np.full((40, 80), 200, np.uint8))
    crops = Crops.of(patches, torch.device("cpu")).draw(900, 12, torch.Generator().manual_seed(0), gray=False)
    share = float((crops.flatten(1).mean(1) < 0.5).float().mean())
    assert abs(share - 400 / 3600) < 0.04


def test_crops_of_a_batch_in_gray_are_the_luminance_of_those_in_colour(tmp_path):
    patches = opened(tmp_path, picture(20, 24), picture(20, 24, channels=1))
    crops = Crops.of(patches, torch.device("cpu"))
    colour, gray = (crops.draw(50, 12, torch.Generator().manual_seed(1), gray=gray) for gray in (False, True))
    assert colour.shape == (50, 3, 12, 12)
    luminance = sum(weight * colour[:, channel] for channel, weight in enumerate(LUMINANCE))
    torch.testing.assert_close(gray[:, 0], luminance)
    alike = (colour[:, :1] == colour).flatten(1).all(1)
    assert 10 < alike.sum() < 40


def test_deeper_images_keep_their_depth_on_a_device(tmp_path):
    import tifffile

    values = generator().integers(0, 65536, (20, 24), dtype=np.uint16)
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images" / "deep.tif", values)
    patches = open_patches([tmp_path / "images"], tmp_path / "cache")
    crops = Crops.of(patches, torch.device("cpu")).draw(3, 20, torch.Generator().manual_seed(0), gray=False)
    assert set((crops * 65535).round().int().flatten().tolist()) <= set(values.flatten().tolist())


def test_pictures_of_one_bit_are_black_and_white(tmp_path):
    """Break: their floats are read as bits."""
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(2):
        bits = picture(channels=1, seed=number) > 60
        Image.fromarray(bits).save(folder / f"{number}.png")
    found = open_patches([folder], tmp_path / "cache")
    for number in range(2):
        bits = np.asarray(Image.open(folder / f"{number}.png"))
        assert np.array_equal(found.centre(number, 40, gray=True)[0], bits[:, 8:48].astype(np.float32))


@pytest.mark.parametrize("damage", ["cut", "empty", "no places", "no words"])
def test_a_damaged_cache_is_made_anew(tmp_path, damage):
    """Break: a file that is there is taken for whole."""
    first = opened(tmp_path, picture(), picture(seed=1)).centre(0, 32, gray=False)
    samples, index = next((tmp_path / "cache").glob("*.bin")), next((tmp_path / "cache").glob("*.json"))
    if damage in ("cut", "empty"):
        samples.write_bytes(samples.read_bytes()[:100] if damage == "cut" else b"")
    else:
        index.write_text("{}" if damage == "no places" else "{")
    again = open_patches([tmp_path / "images"], tmp_path / "cache", Preparation())
    assert np.array_equal(again.centre(0, 32, gray=False), first)
