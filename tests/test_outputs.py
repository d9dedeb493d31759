"""Where results go: what cannot be written is said before anything is computed."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unperturb.app.outputs import plan
from unperturb.atomic import check_place
from unperturb.errors import FileError


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    return path


def test_a_place_is_tried_and_left_as_it_was(tmp_path, monkeypatch):
    """Breaks: the file that was tried is left; folders are made; the name is not looked at."""
    (tmp_path / "file").write_text("")
    (tmp_path / "old").write_text("old")
    (tmp_path / "folder.png").mkdir()
    check_place(tmp_path / "new")
    check_place(tmp_path / "old")
    check_place(tmp_path / "not" / "yet" / "there.png")
    wrong = {"folder.png": "is a folder", "file/a.png": "could not be written", f"{'n' * 300}.png": "too long"}
    for name, reason in wrong.items():
        with pytest.raises(FileError, match=reason):
            check_place(tmp_path / name)
    monkeypatch.setattr(Path, "touch", _refuse)
    with pytest.raises(FileError, match="permissions"):
        check_place(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png", "old"]
    assert (tmp_path / "old").read_text() == "old"


@pytest.mark.parametrize(
    "command",
    [
        ["restore", "{}"],
        ["sample", "{}"],
        ["uncertainty", "{}"],
        ["diagnose", "{}"],
        ["calibrate", "{}"],
        ["fit", "{}"],
        ["impute", "table.csv"],
    ],
    ids=lambda command: command[0],
)
def test_commands_say_it_before_they_begin(command, picture, run, monkeypatch):
    """Break, for each command: the check left out."""
    monkeypatch.chdir(picture.parent)
    Path("table.csv").write_text("a,b\n" + "\n".join(f"{number},{2 * number}" for number in range(30)) + "\n,4\n")
    monkeypatch.setattr(Path, "touch", _refuse)
    monkeypatch.setattr("torch.nn.Module.__call__", _computed)
    suffix = {"diagnose": "html", "calibrate": "safetensors", "fit": "safetensors", "impute": "csv"}.get(command[0])
    output = f"new/result.{suffix}" if suffix else "new"
    code, _, told = run(*(part.format(picture) for part in command), "-o", output)
    assert code == 1
    assert "could not be written: its folder may not be written to" in told
    assert told.count("\n") == 1
    assert not Path("new").exists()


def test_where_one_folder_can_be_written_the_others_are_told_of_in_turn(picture, run, model, monkeypatch):
    """Break: all is refused."""
    closed = picture.parent / "closed"
    closed.mkdir()
    Image.open(picture).save(closed / "b.png")
    touch = Path.touch
    monkeypatch.setattr(
        Path, "touch", lambda path, *rest, **more: _refuse() if closed in path.parents else touch(path, *rest, **more)
    )
    code, _, told = run("restore", picture, closed / "b.png", "--sigma", "10", "--model", model)
    assert code == 3
    assert "b_restored.png could not be written" in told
    assert picture.with_name("a_restored.png").is_file()


def _refuse(*_, **__):
    raise PermissionError(13, os.strerror(13))


def _computed(*_, **__):
    raise AssertionError("something was computed")


def test_what_is_done_already_needs_no_place(picture, monkeypatch):
    """Break: places are tried before what is there is left out."""
    plan((picture,), None, "restored")[0].target.write_bytes(b"")
    monkeypatch.setattr(Path, "touch", _refuse)
    assert plan((picture,), None, "restored", resume=True) == []
