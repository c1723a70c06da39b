"""Names that no file can have, wherever a name is asked for: one sentence, and nothing written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from affine import Affine
from click.testing import CliRunner
from rasterio.crs import CRS

import resegeo
from resegeo.batches.batch import segment_many
from resegeo.batches.mosaic import build_mosaic
from resegeo.checkpoints.transfer import export, imported
from resegeo.classes.class_file import class_list
from resegeo.composition.models import averaged
from resegeo.errors import ResegeoError
from resegeo.evaluation.evaluate import evaluate, read_pairs, write_confusion
from resegeo.evaluation.sampling import ClassRaster, judge, write_points
from resegeo.files import is_file, is_folder, is_there
from resegeo.outputs.raster import write_class_raster
from resegeo.run.commands import info, vectorize
from resegeo.scene.source import GeoReference
from resegeo_cli.main import main

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("quick_model")]

NAMES = {
    "too long": "n" * 300,
    "long below a folder": f"{'n' * 300}/x",
    "a NUL": "a\0b",
    "long path": "deep/" * 2000 + "x",
}


@pytest.fixture
def scene(tmp_path, monkeypatch, make_raster, picture):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    make_raster("in/scene.tif", picture(64, 64))
    where = GeoReference(CRS.from_epsg(32633), Affine(10, 0, 0, 0, -10, 0))
    codes = np.ones((1, 9), np.uint8).repeat(9, 0)
    write_class_raster(
        tmp_path / "in/map.classes.tif", [(0, 0, codes)], height=9, width=9, georeference=where,
        classes=class_list(["water"]), tags={},
    )  # fmt: skip
    return tmp_path / "in/scene.tif"


OPTIONS = ("aoi", "examples", "model", "settings", "store", "segments", "arch", "sam_checkpoint")


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_no_file_can_have_is_a_sentence(scene, tmp_path, name):
    raster = tmp_path / "in/map.classes.tif"
    calls = {
        "scene": lambda: resegeo.segment(name, ["water"]),
        "classes": lambda: resegeo.segment(scene, Path(name)),
        "output": lambda: resegeo.segment(scene, ["water"], name, segments="none"),
        "info": lambda: info(name),
        "batch": lambda: segment_many(name, ["water"]),
        "batch output": lambda: segment_many(scene, ["water"], name),
        "mosaic": lambda: build_mosaic([name], tmp_path / "out", "m"),
        "prediction": lambda: evaluate([(name, raster)]),
        "truth": lambda: evaluate([(raster, name)]),
        "truth polygons": lambda: evaluate([(raster, f"{name}.gpkg")]),
        "map": lambda: evaluate([(raster, raster)], legend=f"{name}.yml"),
        "pairs": lambda: read_pairs(name),
        "confusion": lambda: write_confusion(evaluate([(raster, raster)]), Path(name)),
        "vectorize": lambda: vectorize(name, tmp_path / "out.gpkg"),
        "vectorize to": lambda: vectorize(raster, f"{name}.gpkg"),
        "sample": lambda: ClassRaster.open(Path(name)),
        "sample to": lambda: write_points(ClassRaster.open(raster), np.zeros((1, 3), np.int64), Path(f"{name}.gpkg")),
        "points": lambda: judge(ClassRaster.open(raster), name),
        "compose": lambda: averaged([name, name], tmp_path / "out.safetensors"),
        "compose to": lambda: averaged(["vit-b-32", "vit-b-32"], Path(name)),
        "export": lambda: export([name], tmp_path / "m.zip"),
        "export to": lambda: export([str(tmp_path / "in/scene.tif")], name),
        "import": lambda: imported(name),
        **{option: _segmented(scene, option, name) for option in OPTIONS},
    }
    before = sorted(tmp_path.rglob("*"))
    for what, call in calls.items():
        with pytest.raises(ResegeoError) as told:
            call()
        assert "defect" not in str(told.value), what
        assert len(str(told.value)) < 2500 or len(name) > 1000, what
    assert sorted(tmp_path.rglob("*")) == before
    assert [look(name) for look in (is_there, is_file, is_folder)] == [False] * 3


def _segmented(scene, option, name):
    more = {"arch": {"model": str(scene)}, "sam_checkpoint": {"segments": "sam"}}.get(option, {})
    return lambda: resegeo.segment(scene, ["water"], "out", **({"segments": "none"} | more | {option: name}))


def test_a_store_in_a_place_that_takes_none_is_a_sentence(scene):
    with pytest.raises(ResegeoError, match="cannot be written to"):
        resegeo.segment(scene, ["water"], "out", segments="none", store="/proc/nowhere")


@pytest.mark.parametrize(
    "words", [["models", "check"], ["models", "import"], ["models", "fetch"], ["classes", "check"]]
)
def test_so_it_is_for_what_only_the_command_line_takes(tmp_path, words):
    said = CliRunner().invoke(main, [*words, "n" * 300])
    assert said.exit_code in (1, 2)
    assert said.output.count("Error: ") == 1
    assert "defect" not in said.output


def test_a_table_of_scenes_with_such_a_name_is_told(scene, tmp_path):
    for name in ("n" * 300, '"a\0b"'):
        (tmp_path / "scenes.csv").write_text(f"scene\n{name}\n")
        try:
            reason = segment_many(tmp_path / "scenes.csv", ["water"], "out").scenes[0].reason
        except ResegeoError as error:
            reason = str(error)
        assert reason
        assert "defect" not in reason
