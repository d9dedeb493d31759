"""Imports point down only, nothing optional is needed to begin, and the command line answers at once."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import unperturb

ROOT = Path(unperturb.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}

BELOW = {
    "model": {"model"},
    "data": {"data"},
    "train": {"train", "data", "model"},
    "infer": {"infer", "data", "model"},
    "app": {"app", "infer", "train", "data", "model"},
}
"""What each package may import, besides the modules at the root."""

FROM_DATA = {"infer": {"unperturb.data.noise", "unperturb.data.tiling"}}
"""Where only some of the modules that lie below are for use."""

ROOT_MODULES = {"unperturb", "unperturb.errors", "unperturb.atomic"}

OPTIONAL = {
    *("bm3d", "cv2", "pywt", "matplotlib", "hypothesis", "pytest"),
    *("zarr", "dask", "sklearn", "pandas", "pyarrow", "wfdb", "soundfile", "fastapi", "uvicorn", "onnx", "onnxruntime"),
}
"""What comes with an extra is imported where it is used."""

HEAVY = {"torch", "scipy", "skimage", "PIL", "tifffile", "imagecodecs", "safetensors", "rich"}
LIGHT = [
    "unperturb",
    "unperturb.__main__",
    "unperturb.errors",
    "unperturb.atomic",
    "unperturb.app",
    "unperturb.app.cli",
]


def imports(tree: ast.AST, *, at_once: bool = False) -> Iterator[str]:
    """Yield the names of imported modules; `at_once`: of those that are imported together with the module itself."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names if f"{node.module}.{name.name}" in MODULES)
        elif not (at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield from imports(node, at_once=at_once)


def imports_of(module: str, *, at_once: bool = False) -> set[str]:
    return set(imports(ast.parse(MODULES[module].read_text(encoding="utf-8")), at_once=at_once))


def package_of(module: str) -> str | None:
    """Return the part of the package that a module belongs to, None for the modules at the root."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and (ROOT / parts[1]).is_dir() else None


def python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter, and return what it prints."""
    environment = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment
    ).stdout


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down_only(module):
    """Also those within functions. Break: a metric imported in `data.noise`."""
    package = package_of(module)
    for name in imports_of(module):
        if name.partition(".")[0] != "unperturb" or name in ROOT_MODULES:
            continue
        if package is None:
            assert module in ("unperturb", "unperturb.__main__"), f"{module} lies below all, and imports {name}"
            continue
        below = package_of(name)
        assert below in BELOW[package], f"{module} imports {name}"
        if below == "data" and package in FROM_DATA:
            assert name in {*FROM_DATA[package], "unperturb.data"}, f"{module} imports {name}"


def test_every_package_has_its_place():
    folders = {path.name for path in ROOT.iterdir() if (path / "__init__.py").is_file()}
    assert folders == set(BELOW)


@pytest.mark.parametrize("module", MODULES)
def test_optional_packages_are_imported_where_they_are_used(module):
    """But for the estimators, which are scikit-learn's classes. Break: `import matplotlib` at the head of a module."""
    needed = {"sklearn"} if module in ("unperturb.app.estimator", "unperturb.app.autoencoder") else set()
    assert not {name.partition(".")[0] for name in imports_of(module, at_once=True)} & (OPTIONAL - needed)


@pytest.mark.parametrize("module", [name for name in MODULES if package_of(name) == "data"])
def test_data_needs_no_torch(module):
    assert not {name.partition(".")[0] for name in imports_of(module)} & {"torch", "safetensors"}


@pytest.mark.parametrize("module", [*LIGHT, "unperturb.data.recording"])
def test_what_is_always_loaded_is_light(module):
    """Break: `from PIL import Image` at the head of `data.recording`."""
    assert not {name.partition(".")[0] for name in imports_of(module, at_once=True)} & HEAVY


def test_importing_the_package_loads_nothing_heavy():
    loaded = json.loads(python("import json, sys, unperturb; print(json.dumps(sorted(sys.modules)))"))
    assert not {name.partition(".")[0] for name in loaded} & (HEAVY | OPTIONAL | {"numpy"})


def test_data_works_where_there_is_no_torch():
    code = "import sys; sys.modules['torch'] = None\n" + "\n".join(
        f"import {name}" for name in MODULES if package_of(name) == "data"
    )
    python(code)


def test_help_answers_at_once():
    """Processor time of the best of three, not the time on the wall: that depends on what else the machine does."""
    command = [sys.executable, "-m", "unperturb", "--help"]

    def seconds() -> float:
        before = os.times()
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        after = os.times()
        assert "restore" in shown
        return after.children_user + after.children_system - before.children_user - before.children_system

    assert min(seconds() for _ in range(3)) < 0.5
