"""A denoiser answers in its own units, and a model file gives it back as it was or says plainly why not."""

import errno
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from unperturb.errors import FileError, ModelError
from unperturb.model.card import Card
from unperturb.model.checkpoint import FORMAT, bundled, load, read_tensors, save_model, write_tensors
from unperturb.model.denoiser import Denoiser
from unperturb.model.network import UNetSettings, VectorNetSettings

UNET, VECTOR = UNetSettings(channels=3, widths=(4, 8), blocks=1), VectorNetSettings(3, 8, 2)
FULL = Card(
    network=UNET,
    perturbation="gaussian:sigma=0..0.25",
    offset=0.1,
    scale=1.7,
    name="näme",
    description="A sentence.",
    data="Photographs",
    licence="CC0",
    recipe={"steps": 10, "network": {"widths": [4, 8]}},
    training={"seconds": 3, "torch": "2"},
    errors={"gray": {"0.1": 0.001}, "colour": {"0.1": 0.0005}},
)


def denoiser(card: Card) -> Denoiser:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Denoiser(card).requires_grad_(False)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


# --- Units ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "shape", "level"),
    [
        (UNET, (2, 3, 8, 8), 0.3),
        (UNET, (2, 1, 8, 8), torch.tensor([0.1, 0.5])),
        (UNET, (1, 3, 8, 6), torch.linspace(0.1, 0.5, 48).view(1, 1, 8, 6)),
        (VECTOR, (4, 3), 0.3),
        (VECTOR, (4, 3), torch.tensor([0.1, 0.2, 0.3, 0.4])),
    ],
)
def test_offset_and_scale_are_a_change_of_units(network, shape, level):
    """D in other units, of values in those units, is D.

    Breaks: sigma not divided by the scale; the offset not added.
    """
    plain = denoiser(Card(network))
    other = denoiser(Card(network, offset=100.0, scale=50.0))
    x = noise(*shape)
    torch.testing.assert_close(other(100 + 50 * x, 50 * level), 100 + 50 * plain(x, level), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("network", "shape"), [(UNET, (2, 3, 8, 8)), (VECTOR, (4, 3))])
def test_values_used_as_they_are_go_straight_to_the_network(network, shape):
    model, x = denoiser(Card(network)), noise(*shape)
    assert torch.equal(model(x, 0.3), model.network(x, torch.tensor(0.3)))


def test_another_card_shares_the_network():
    model = denoiser(FULL)
    other = model.with_card(name="other", scale=2.0)
    assert other.network is model.network
    assert (other.card.name, other.card.scale, other.card.data) == ("other", 2.0, FULL.data)
    assert (model.card.name, model.card.scale) == (FULL.name, FULL.scale)
    assert set(other.state_dict()) == set(model.state_dict())


def test_a_card_gives_no_other_network():
    with pytest.raises(ModelError, match="another network"):
        denoiser(FULL).with_card(network=VECTOR)


# --- Cards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", [FULL, Card(UNET), Card(VECTOR)])
def test_cards_read_and_written_are_the_same(card):
    assert Card.from_dict(json.loads(json.dumps(card.as_dict()))) == card


@pytest.mark.parametrize("change", [{"network": None}, {"network": {"kind": "other"}}, {"colour": 3}], ids=str)
def test_cards_that_this_version_does_not_know_are_refused(change):
    with pytest.raises(ModelError):
        Card.from_dict({**FULL.as_dict(), **change})


def test_a_card_without_a_network_is_refused():
    with pytest.raises(ModelError, match="network"):
        Card.from_dict({"name": "x"})


# --- Files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("card", [FULL, Card(VECTOR)], ids=["unet", "vector"])
def test_a_model_comes_back_bit_for_bit(card, tmp_path):
    model, path = denoiser(card), tmp_path / "model.safetensors"
    save_model(model, path)
    again = load(path)
    assert again.card == model.card
    assert list(again.state_dict()) == list(model.state_dict())
    for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
    assert not again.training
    assert not any(weight.requires_grad for weight in again.parameters())
    assert load(str(path)).card == card


def test_half_precision_is_half_as_large_and_close(tmp_path):
    """Weights are rounded to 11 bits: what the network takes for noise changes by about that share."""
    model = denoiser(Card(UNetSettings(widths=(16, 32), blocks=1)))
    paths = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_model(model, paths[0])
    save_model(model, paths[1], dtype=torch.float16)
    assert paths[1].stat().st_size < 0.55 * paths[0].stat().st_size
    again = load(paths[1])
    x = noise(1, 1, 32, 32)
    removed = x - model(x, 0.3)
    assert 0 < (again(x, 0.3) - model(x, 0.3)).norm() < 2**-10 * removed.norm()
    for one, other in zip(again.state_dict().values(), model.state_dict().values(), strict=True):
        assert torch.equal(one, other.half().float())


def test_saving_replaces_what_was_there_and_changes_nothing_in_memory(tmp_path):
    model, path = denoiser(FULL), tmp_path / "model.safetensors"
    path.write_text("old")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    save_model(model, path, dtype=torch.float16)
    assert load(path).card == FULL
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize("name", ["natural"])
def test_models_come_with_the_package(name):
    assert name in bundled()
    assert isinstance(load(name), Denoiser)


@pytest.mark.parametrize("name", ["no-such-model", "no/such/file.safetensors", "."])
def test_a_missing_model_is_named_beside_those_there_are(name):
    with pytest.raises(ModelError) as error:
        load(name)
    assert name in str(error.value)
    assert all(known in str(error.value) for known in bundled())


def model_bytes(tmp_path: Path) -> bytes:
    path = tmp_path / "whole.safetensors"
    save_model(denoiser(FULL), path)
    return path.read_bytes()


def pickled(path: Path, _: bytes) -> None:
    torch.save({"weight": torch.zeros(3)}, path)


def foreign(path: Path, _: bytes) -> None:
    save_file({"weight": torch.zeros(3)}, path)


def of_another_kind(path: Path, _: bytes) -> None:
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt", "card": "{}"})


DAMAGED: dict[str, Callable[[Path, bytes], object]] = {
    "empty": lambda path, _: path.write_bytes(b""),
    "text": lambda path, _: path.write_text("this is a letter to a friend, and nothing else\n" * 20),
    "zeros": lambda path, _: path.write_bytes(bytes(4096)),
    "first bytes": lambda path, whole: path.write_bytes(whole[:5]),
    "half its header": lambda path, whole: path.write_bytes(whole[:400]),
    "all but the last byte": lambda path, whole: path.write_bytes(whole[:-1]),
    "one byte more": lambda path, whole: path.write_bytes(whole + b"\0"),
    "pickle": pickled,
    "foreign": foreign,
    "other kind": of_another_kind,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_what_is_no_model_is_refused_by_name(damage, tmp_path):
    path = tmp_path / "model.safetensors"
    DAMAGED[damage](path, model_bytes(tmp_path))
    with pytest.raises(
        ModelError, match=r"model\.safetensors is (not a model file, or it is damaged|a safetensors file, but)"
    ):
        load(path)


def test_a_pickle_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "exploded",))

    path = tmp_path / "model.safetensors"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError):
        load(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "texts",
    [
        {},
        {"card": ""},
        {"card": "{"},
        {"card": "[]"},
        {"card": "3"},
        {"card": '{"network": 3}'},
        {"card": '{"network": {}}'},
    ],
    ids=str,
)
def test_a_card_that_cannot_be_read_is_refused(texts, tmp_path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, FORMAT, {"weight": torch.zeros(3)}, texts)
    with pytest.raises(ModelError):
        load(path)


@pytest.mark.parametrize("change", ["missing", "more", "another shape"])
def test_weights_that_the_card_does_not_describe_are_refused(change, tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(denoiser(FULL), path)
    tensors, header = read_tensors(path, FORMAT)
    if change == "missing":
        del tensors["head.weight"]
    elif change == "more":
        tensors["more"] = torch.zeros(3)
    else:
        tensors["head.weight"] = tensors["head.weight"][:1]
    write_tensors(path, FORMAT, tensors, {"card": header["card"]})
    with pytest.raises(ModelError, match="does not hold the weights that its card describes"):
        load(path)


# --- Whole or not at all ----------------------------------------------------------------------------------------------


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileError, match="does not exist"):
        save_model(denoiser(FULL), tmp_path / "none" / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_model_and_nothing_else(tmp_path, monkeypatch):
    """Break: `write_tensors` writes to the path itself."""
    path = tmp_path / "model.safetensors"
    save_model(denoiser(FULL), path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileError, match="no space is left"):
        save_model(denoiser(FULL).with_card(name="new"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_inflation_is_read_between_the_levels_of_the_card():
    """Over the logarithm, and not beyond the last ones. Breaks: over sigma itself; the line continued."""
    denoiser = Denoiser(Card(UNetSettings(widths=(4, 8), blocks=1), inflation={"0.1": 1.0, "0.4": 1.02}))
    found = denoiser.inflation(torch.tensor([[0.01], [0.1], [0.2], [0.4], [3.0]]))
    torch.testing.assert_close(found, torch.tensor([[1.0], [1.0], [1.01], [1.02], [1.02]]))
    assert denoiser.with_card(inflation={}).inflation(torch.tensor(0.2)) == 1
    assert denoiser.with_card(inflation={"1.0": 1.01}).inflation(torch.tensor([0.2, 5.0])).tolist() == pytest.approx(
        [1.01, 1.01]
    )
