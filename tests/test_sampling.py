"""A sample of a class raster: random in every class, labelled by a person, and what it then says."""

from __future__ import annotations

import json
import sqlite3
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner

from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError
from resegeo.evaluation.sampling import ClassRaster, draw, judge, pixel_area, write_points
from resegeo.outputs.raster import CLASSES_TAG
from resegeo_cli.main import main


@pytest.fixture
def mapped(make_raster):
    """600 × 700 pixels of two classes, some background, nodata at the left; and the truth, which is another one."""
    random = np.random.default_rng(0)
    codes = random.choice([0, 1, 2], (1, 600, 700), p=[0.1, 0.2, 0.7]).astype(np.uint8)
    codes[:, :, :50] = 255
    path = make_raster("scene.classes.tif", codes, nodata=255)
    with rasterio.open(path, "r+") as raster:
        raster.update_tags(**{CLASSES_TAG: json.dumps(class_list(["water", "forest"]).to_json())})
    truth = np.where(random.random(codes[0].shape) < 0.2, random.choice([0, 1, 2], codes[0].shape), codes[0])
    return path, codes[0], truth


def labelled(raster, points, truth, path):
    write_points(raster, points, path)
    frame = gpd.read_file(path, layer=0)
    names = np.array(["background", "water", "forest"])
    frame["class_name"] = names[truth[points[:, 0], points[:, 1]]]
    frame.to_file(path.with_name("done.gpkg"))
    return path.with_name("done.gpkg")


def test_every_class_gets_its_points_and_no_pixel_two(mapped):
    raster = ClassRaster.open(mapped[0])
    points = draw(raster, 200, least=40)
    assert len(points) == 200 == len(np.unique(points[:, :2], axis=0))
    assert (np.bincount(points[:, 2]) >= 40).all()
    assert (mapped[1][points[:, 0], points[:, 1]] == np.array(raster.codes)[points[:, 2]]).all()
    assert np.array_equal(points, draw(raster, 200, least=40))
    assert not np.array_equal(points, draw(raster, 200, seed=1, least=40))
    assert points[:, 1].min() >= 50  # never on nodata


def test_every_pixel_of_a_class_is_drawn_as_often_as_any_other(mapped):
    raster = ClassRaster.open(mapped[0])
    rows = np.concatenate([draw(raster, 300, seed=seed)[:, 0] for seed in range(40)])
    thirds = np.bincount(rows // 200, minlength=3) / len(rows)
    assert np.abs(thirds - 1 / 3).max() < 0.02


def test_labelled_points_give_the_areas_of_the_truth(mapped, tmp_path):
    raster = ClassRaster.open(mapped[0])
    path = labelled(raster, draw(raster, 1500), mapped[2], tmp_path / "points.gpkg")
    found, area = judge(raster, path)
    inside = mapped[1] != 255
    assert area == pytest.approx(100, rel=1e-3)
    assert found.names == ("background", "water", "forest")
    for code in range(3):
        real = (mapped[2][inside] == code).mean()
        assert abs(found.area[code].value - real) < 2 * found.area[code].half_width
    done = CliRunner().invoke(main, ["evaluate", str(mapped[0]), str(path), "--design"])
    assert done.exit_code == 0, done.output
    assert "overall accuracy" in done.output
    assert "water" in done.output


def test_the_form_offers_the_classes_and_hides_the_maps_own_answer(mapped, tmp_path):
    done = CliRunner().invoke(main, ["sample", str(mapped[0]), "-n", "90", "-o", str(tmp_path / "points.gpkg")])
    assert done.exit_code == 0, done.output
    frame = gpd.read_file(tmp_path / "points.gpkg", layer=0)
    assert list(frame.columns) == ["point", "class_name", "note", "geometry"]
    assert frame["class_name"].isna().all()
    with sqlite3.connect(tmp_path / "points.gpkg") as database:
        (qml,) = database.execute("SELECT styleQML FROM layer_styles").fetchone()
    widget = ET.fromstring(qml.split("\n", 1)[1]).find("fieldConfiguration/field/editWidget")
    assert [option.get("value") for option in widget.iter("Option") if option.get("value")] == [
        "water",
        "forest",
        "background",
    ]


def test_mistakes_are_one_sentence(mapped, tmp_path):
    raster = ClassRaster.open(mapped[0])
    points = draw(raster, 90)
    path = labelled(raster, points, mapped[2], tmp_path / "points.gpkg")
    frame = gpd.read_file(path, layer=0)
    with pytest.raises(ResegeoError, match="has no field 'kind'"):
        judge(raster, path, field="kind")
    strange = frame.assign(class_name="swamp")
    strange.to_file(tmp_path / "strange.gpkg")
    with pytest.raises(ResegeoError, match="'swamp', which is no class"):
        judge(raster, tmp_path / "strange.gpkg")
    moved = frame.set_geometry(frame.translate(1e6))
    moved.to_file(tmp_path / "moved.gpkg")
    with pytest.raises(ResegeoError, match="lies beside"):
        judge(raster, tmp_path / "moved.gpkg")
    some = frame.copy()
    some.loc[::2, "class_name"] = None
    some.to_file(tmp_path / "some.gpkg")
    with pytest.warns(match="45 of 90 points"):
        judge(raster, tmp_path / "some.gpkg")
    done = CliRunner().invoke(main, ["sample", str(mapped[0]), "-o", str(tmp_path / "points.gpkg")])
    assert done.exit_code == 1
    assert "exists" in done.output
    done = CliRunner().invoke(main, ["evaluate", "--pairs", "x.csv", "--design"])
    assert done.exit_code == 2


def test_a_mercator_pixel_has_its_area_on_the_ground():
    """At 60° north a metre of EPSG:3857 is half a metre."""
    transform = rasterio.transform.from_origin(0, 8_399_737.9, 10, 10)
    area = pixel_area(rasterio.CRS.from_epsg(3857), transform, 1, 1)
    assert area == pytest.approx(100 / 4, rel=0.02)
    assert pixel_area(rasterio.CRS.from_epsg(4326), transform, 1, 1) is None
