"""Documentation that cannot lie: every command and public name is documented, and what is documented is there."""

import importlib
import inspect
import re
from pathlib import Path

import click
import numpy as np
import pytest
from PIL import Image

import unperturb
from unperturb.app.cli import VERBS, cli
from unperturb.app.reference import reference

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def test_no_public_name_is_that_of_a_package():
    """Importing the package would take its place. Break: the function that trains, exported as `train`."""
    packages = {path.stem for path in Path(unperturb.__file__).parent.iterdir() if path.suffix in {"", ".py"}}
    assert not packages & set(unperturb.__all__)


def test_exports_are_true():
    for name in unperturb.__all__:
        assert getattr(unperturb, name) is not None, name
    assert set(dir(unperturb)) == set(unperturb.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = unperturb.nonsense


@pytest.mark.parametrize("name", [name for name in unperturb.__all__ if not name.startswith("_")])
def test_every_public_name_is_documented(name):
    value = getattr(unperturb, name)
    if callable(value):
        assert inspect.getdoc(value), f"{name} has no docstring"
    assert re.search(rf"`{name}`", (DOCS / "library.md").read_text()), f"{name} is not in docs/library.md"


def test_library_page_names_nothing_that_is_gone():
    table = (DOCS / "library.md").read_text().split("## Names")[1]
    for name in re.findall(r"^\| `(\w+)`", table, re.MULTILINE):
        assert name in unperturb.__all__, f"docs/library.md documents {name}, which is not exported"


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_and_option_has_help(verb):
    command = cli.get_command(click.Context(cli), verb)
    assert command.help
    for parameter in command.params:
        assert isinstance(parameter, click.Argument) or parameter.help, f"{verb} {parameter.name}"
    assert f"unperturb {verb}" in (DOCS / "commands.md").read_text()


def test_commands_page_is_what_help_says():
    written = (DOCS / "commands.md").read_text()
    assert written == reference(), "run `make docs` to write docs/commands.md anew"


@pytest.mark.parametrize("channels", [(), (3,)], ids=["gray", "colour"])
@pytest.mark.parametrize("page", ["README.md", "docs/library.md", "docs/posterior.md", "docs/missing.md"])
def test_code_that_is_shown_first_runs(page, channels, tmp_path, monkeypatch):
    """On small files of our own. Breaks: colours looked for in what has none; a mask in colour for what is missing."""
    code = re.search(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL).group(1)
    noisy = np.random.default_rng(0).normal(128, 25, (40, 56, *channels)).clip(0, 255).astype(np.uint8)
    mask = np.zeros((40, 56, 3), np.uint8)
    mask[8:12, 20:30, 1] = 255
    for name, picture in (("noisy.png", noisy), ("noisy.tif", noisy), ("photo.png", noisy), ("mask.png", mask)):
        Image.fromarray(picture).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, page, "exec"), names)
    answer = names["filled" if page.endswith("missing.md") else "best"]
    assert answer.shape == noisy.shape
    assert np.isfinite(answer).all()


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))], ids=lambda p: p.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), f"{page.name}: {target}"


def test_modules_that_are_named_exist():
    for home in unperturb._HOMES:
        importlib.import_module(home)
