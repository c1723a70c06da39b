"""The table of areas: against numbers worked out by hand, and against the polygons of the same raster."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from test_raster import CLASSES, write

import resegeo
from resegeo.outputs.area_table import class_areas
from resegeo.outputs.polygons import polygonize
from resegeo.scene.source import GeoReference
from resegeo_cli.main import main
from resegeo_cli.tables import of_areas

pytestmark = pytest.mark.usefixtures("quick_model")

UTM, DEGREES, MERCATOR = (CRS.from_epsg(code) for code in (32633, 4326, 3857))
CODES = np.random.default_rng(3).integers(0, 4, (30, 40)).astype(np.uint8)
POINTS = [GroundControlPoint(row, col, 500_000 + 10 * col, 5_200_000 - 12 * row) for row in (0, 30) for col in (0, 40)]
PLACES = {
    "planar": GeoReference(UTM, from_origin(500_000, 5_200_000, 10, 10)),
    "degrees": GeoReference(DEGREES, from_origin(15, 60, 0.01, 0.02)),
    "turned degrees": GeoReference(
        DEGREES, Affine.translation(15, 60) @ Affine.rotation(20) @ Affine.scale(0.01, -0.01)
    ),
    "mercator": GeoReference(MERCATOR, from_origin(1_700_000, 8_000_000, 10, 10)),
    "control points": GeoReference(None, None, tuple(POINTS), UTM),
}


@pytest.mark.parametrize("where", PLACES)
def test_areas_are_those_of_the_polygons(tmp_path, where):
    write(tmp_path / "a.tif", CODES, georeference=PLACES[where])
    frame = polygonize(tmp_path / "a.tif", keep_background=True)
    drawn = frame.groupby("class_name").area_m2.sum()
    rows = {row.class_name: row for row in class_areas(tmp_path / "a.tif", CLASSES)}
    assert rows.keys() >= set(drawn.index)
    for name, area in drawn.items():
        assert rows[name].m2 == pytest.approx(area, rel=1e-6)
        assert rows[name].ha == pytest.approx(area / 10_000, rel=1e-4)
        assert rows[name].share == pytest.approx(area / drawn.sum(), abs=1e-6)


def test_without_a_place_shares_count_pixels_and_nodata_none(tmp_path):
    codes = np.array([[1, 1, 2], [CLASSES.nodata, CLASSES.nodata, 1]], dtype=np.uint8)
    write(tmp_path / "a.tif", codes, georeference=GeoReference(None, None))
    scores = np.array([[200, 100, 50], [255, 255, 0]], dtype=np.uint8)
    first, second, *_ = class_areas(tmp_path / "a.tif", CLASSES, scores)
    assert (first.pixels, first.m2, first.ha, first.share, first.mean_score) == (3, None, None, 0.75, 0.5)
    assert (second.share, second.mean_score) == (0.25, 0.25)
    assert "75.0%" in of_areas([first])


def test_a_run_writes_the_table_lists_it_and_shows_it(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(64, 64))
    words = tmp_path / "classes.yml"
    words.write_text("classes: [water, forest]\n")
    shown = CliRunner().invoke(main, ["segment", str(scene), "--prompts", str(words), "-o", str(tmp_path / "out")])
    assert shown.exit_code == 0, shown.output
    report = json.loads((tmp_path / "out/scene.json").read_text("utf-8"))
    with (tmp_path / "out/scene.areas.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["class"] for row in rows] == ["water", "forest"]
    assert sum(float(row["m2"]) for row in rows) == 64 * 64 * 100
    assert [float(row["share"]) for row in rows] == [row["share"] for row in report["areas"]]
    assert "scene.areas.csv" in report["outputs"]
    assert "scene.areas.csv" in report["files"]
    assert "class" in shown.stderr
    assert "scene.areas.csv" in shown.stdout
    assert resegeo.segment(scene, words, tmp_path / "out").reused
