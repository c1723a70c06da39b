"""What a user gets from the wheel: every module, the model, the vocabulary, both typed markers."""

from __future__ import annotations

import shutil
import subprocess
import sys
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
    expected |= {"resegeo/py.typed", "resegeo_cli/py.typed"}
    expected |= {
        f"resegeo/bundled/{name}"
        for name in ("resegeo-small.json", "resegeo-small.safetensors", "vocabulary.txt", "MODEL_CARD.md")
    }
    assert expected <= names
    assert not [name for name in names if name.startswith(("cli/", "tests/", "examples/"))]


def test_the_bundled_model_is_small():
    assert (ROOT / "resegeo/bundled/resegeo-small.safetensors").stat().st_size < 25_000_000


def test_imports_go_one_way():
    """Each module imports from those above it in this list only."""
    import ast

    floors = [
        ["errors", "stamps", "registry", "land_cover", "tensors", "areas", "sieve"],
        ["files", "colors", "clusters", "classes", "sound", "hugging_face", "normalisation"],
        ["fetch", "archives", "class_file", "sources"],
        ["checkpoints", "pixels", "control", "shelf"],
        ["identify", "samples", "distances"],
        ["scene", "tags"],
        ["sam", "windows", "scores", "attention", "weights", "sam_predictor", "metrics"],
        ["styles", "features", "sam_masks", "legend", "carry", "fitting"],
        ["canvas", "region", "stored", "raster"],
        ["settings", "segments", "encoder", "labels", "figures", "mosaic", "separation"],
        ["polygons", "vectors", "truth", "compose", "examples"],
        ["plan", "evaluate", "manifest", "recipe", "models"],
        ["machine", "report"],
        ["execute"],
        ["produce", "options"],
        ["products", "resume"],
        ["run", "estimation", "prepare"],
        ["pipeline"],
        ["places", "spread"],
        ["batch"],
    ]
    rank = {name: level for level, floor in enumerate(floors) for name in floor}
    modules = {path.stem for path in (ROOT / "resegeo").glob("*.py")} - {"__init__"}
    assert modules == set(rank)
    for name in modules:
        tree = ast.parse((ROOT / f"resegeo/{name}.py").read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("resegeo."):
                target = (node.module or "").split(".")[1]
                assert rank[target] < rank[name], f"{name} imports {target}"
