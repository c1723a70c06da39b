"""Many scenes: what is found and where it goes, options of a scene's own, failures, resume, mosaics."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
import yaml
from click.testing import CliRunner
from rasterio.transform import from_origin
from test_store import bytes_of

import resegeo
import resegeo.encoder
from resegeo.batch import segment_many
from resegeo.errors import IgnoredSettingWarning, ResegeoError, UsageError
from resegeo.manifest import read_manifest
from resegeo_cli.main import main

WORDS = ["water", "forest", "road"]


@pytest.fixture
def scenes(tmp_path, make_raster, picture, monkeypatch):
    """A folder of three small scenes in two folders, a class file, and the test's own working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scenes/north").mkdir(parents=True)
    for number, name in enumerate(("a.tif", "b.tif", "north/c.tif")):
        make_raster(f"scenes/{name}", picture(70, 90, seed=number))
    (tmp_path / "classes.yml").write_text(yaml.safe_dump({"classes": WORDS}))
    return tmp_path / "scenes"


def run(*arguments):
    return CliRunner().invoke(main, ["batch", *map(str, arguments)])


def table(folder: str = "out") -> dict[str, tuple[str, str]]:
    with Path(folder, "batch.csv").open(newline="", encoding="utf-8") as lines:
        return {line["results"]: (line["state"], line["reason"]) for line in csv.DictReader(lines)}


def test_a_pattern_takes_every_scene_to_a_folder_of_its_own_and_equals_single_runs(scenes):
    result = run("scenes/**/*.tif", "--prompts", "classes.yml", "-o", "out")
    assert result.exit_code == 0, result.output
    assert table() == {"a": ("done", ""), "b": ("done", ""), "north/c": ("done", "")}
    assert result.stdout.splitlines()[-1] == f"3 done, 0 skipped, 0 failed; {Path('out/batch.csv')}"
    for name in ("a", "b", "north/c"):
        alone = resegeo.segment(f"scenes/{name}.tif", "classes.yml", Path("alone") / name)
        folder = Path("out", name)
        stem = folder.name
        together = resegeo.Segmentation(
            folder / f"{stem}.classes.tif",
            (folder / f"{stem}.gpkg",),
            folder / f"{stem}.png",
            folder / f"{stem}.json",
            reused=False,
        )
        assert all(path.exists() for path in together.files())
        assert bytes_of(together) == bytes_of(alone)
