"""What a user gets from the wheel: every module, the model, the vocabulary, both typed markers."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_every_module_and_the_model(tmp_path):
    source = tmp_path / "source"  # a copy: building in place leaves a build folder behind
    for folder in ("resegeo", "cli"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "-w", tmp_path, source], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "resegeo").rglob("*.py")}
    expected |= {f"resegeo_cli/{path.name}" for path in (ROOT / "cli").glob("*.py")}
    expected |= {"resegeo/py.typed", "resegeo_cli/py.typed", "resegeo/reports/page.css", "resegeo/reports/page.js"}
    expected |= {
        f"resegeo/bundled/{name}"
        for name in ("resegeo-small.json", "resegeo-small.safetensors", "vocabulary.txt", "MODEL_CARD.md")
    }
    assert expected <= names
    assert not [name for name in names if name.startswith(("cli/", "tests/", "examples/"))]


def test_the_bundled_model_is_small():
    assert (ROOT / "resegeo/bundled/resegeo-small.safetensors").stat().st_size < 25_000_000


def imports():
    """For each module of the library those that it imports from, anywhere in it."""
    found = {}
    for path in (ROOT / "resegeo").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
        found[name] = {node.module for node in nodes if (node.module or "").startswith("resegeo.")}
    return found


def test_imports_go_one_way():
    """No module imports one that imports it, directly or by others; the top of the package names them all lazily."""
    left = {name: targets for name, targets in imports().items() if name != "resegeo"}
    while left:
        free = {name for name, targets in left.items() if not targets & left.keys()}
        assert free, f"in a cycle, or above one: {sorted(left)}"
        left = {name: targets for name, targets in left.items() if name not in free}


ORDER = (
    "errors",
    "process",
    "progress",
    "files",
    "units",
    "declare",
    "documents",
    "qgis",
    "scene",
    "classes",
    "checkpoints",
    "clip",
    "segments",
    "composition",
    "settings",
    "outputs",
    "evaluation",
    "run",
    "batches",
    "datasets",
    "reports",
    "xarray_accessor",
)
"""Packages and modules at the top, each importing only from those before it."""


def test_packages_stand_in_their_order():
    rank = {name: number for number, name in enumerate(ORDER)}
    top = {name.split(".")[1] for name in imports() if name != "resegeo"}
    assert top == set(ORDER)
    for name, targets in imports().items():
        if name == "resegeo":
            continue
        for target in targets:
            here, there = name.split(".")[1], (target or "").split(".")[1]
            assert here == there or rank[there] < rank[here], f"{name} imports {target}"


def test_every_package_is_listed():
    """A list of packages does not recurse: one that is not in it would be missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]["packages"]
    there = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "resegeo").rglob("__init__.py")}
    assert set(listed) == there | {"resegeo_cli"}
