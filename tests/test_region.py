from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from rasterio.features import geometry_mask

import resegeo
from resegeo.errors import ResegeoError, UsageError
from resegeo.region import region_of
from resegeo.scene import open_scene
from resegeo.windows import Rect

WORDS = ["water", "forest", "road"]


def codes_of(result):
    with rasterio.open(result.raster) as raster:
        return raster.read(1)


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(700, 600))


@pytest.fixture
def aoi(tmp_path):
    """A triangle inside the scene, in degrees."""
    triangle = shapely.Polygon([(501_000, 5_199_000), (504_500, 5_198_000), (502_000, 5_195_500)])
    frame = gpd.GeoDataFrame(geometry=[triangle], crs="EPSG:32633")
    frame.to_crs(4326).to_file(tmp_path / "aoi.geojson")
    return tmp_path / "aoi.geojson"


def test_labels_inside_equal_those_of_the_whole_and_outside_is_nodata(scene, aoi, tmp_path):
    whole = codes_of(resegeo.segment(scene, WORDS, tmp_path / "whole", vector=()))
    part = resegeo.segment(scene, WORDS, tmp_path / "part", aoi=aoi)
    with rasterio.open(scene) as raster:
        triangle = gpd.read_file(aoi).to_crs(raster.crs).geometry
        outside = geometry_mask(triangle, whole.shape, raster.transform)
    assert np.array_equal(codes_of(part), np.where(outside, 255, whole))
    assert 0.05 < (~outside).mean() < 0.5
    import json

    windows = json.loads(part.report.read_text("utf-8"))["windows"]
    assert windows["skipped"] > 0
    assert windows["done"] + windows["skipped"] == windows["planned"]


def test_a_box_in_the_scenes_crs(scene, tmp_path):
    codes = codes_of(resegeo.segment(scene, WORDS, tmp_path / "out", bbox=(501_000, 5_198_000, 502_000, 5_199_000)))
    inside = codes != 255
    assert inside[100:200, 100:200].all()
    assert inside.sum() == 100 * 100


def test_only_some_classes_are_written(scene, tmp_path):
    whole = codes_of(resegeo.segment(scene, WORDS, tmp_path / "whole", vector=()))
    result = resegeo.segment(scene, WORDS, tmp_path / "only", only=["forest"])
    assert np.array_equal(codes_of(result), np.where(whole == 2, 2, 0))
    names = gpd.read_file(result.vectors[0], layer="scene").class_name.unique().tolist()
    assert names in ([], ["forest"])
    with pytest.raises(UsageError, match="--only lake: there is no such class; the class file has water, forest"):
        resegeo.segment(scene, WORDS, tmp_path / "x", only=["lake"])


def test_any_rectangle_of_a_region_is_the_same_part_of_the_whole(scene, aoi):
    region = region_of(open_scene(scene), str(aoi), None)
    assert region is not None
    whole = region.mask(Rect(0, 0, 700, 600))
    assert np.array_equal(region.mask(Rect(90, 130, 200, 150)), whole[90:290, 130:280])
    assert not region.mask(Rect(-500, -500, 100, 100)).any()


def test_mistakes_are_one_sentence(scene, aoi, tmp_path, make_raster):
    opened = open_scene(scene)
    with pytest.raises(UsageError, match="exclude each other"):
        region_of(opened, str(aoi), (0, 0, 1, 1))
    with pytest.raises(UsageError, match="is empty; expected left,bottom,right,top"):
        region_of(opened, None, (5, 0, 1, 1))
    with pytest.raises(ResegeoError, match="lies beside the scene"):
        region_of(opened, None, (0, 0, 1, 1))
    with pytest.raises(ResegeoError, match="no such file"):
        region_of(opened, "none.gpkg", None)
    with pytest.raises(ResegeoError, match="cannot be opened as a vector file"):
        region_of(opened, str(scene), None)
    points = tmp_path / "points.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:32633").to_file(points)
    with pytest.raises(ResegeoError, match="holds no polygons"):
        region_of(opened, str(points), None)


def test_polygons_of_the_user_are_segments_one_level_a_file(scene, tmp_path):
    from resegeo.canvas import Canvas
    from resegeo.segments import segment_source

    boxes = [shapely.box(500_000 + 1000 * k, 5_194_000, 500_900 + 1000 * k, 5_199_000) for k in range(5)]
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32633").to_crs(3857).to_file(tmp_path / "parcels.gpkg")
    gpd.GeoDataFrame(geometry=boxes[:1], crs="EPSG:32633").to_file(tmp_path / "houses.shp")
    name = f"{tmp_path / 'parcels.gpkg'},{tmp_path / 'houses.shp'}"
    ids = segment_source(name, Canvas(open_scene(scene)), areas=()).ids(Rect(0, 0, 700, 600))
    assert ids.shape == (2, 700, 600)
    assert ids[0, 300, [50, 150, 250, 95]].tolist() == [1, 2, 3, 0]
    assert set(np.unique(ids[1])) == {0, 1}
    result = resegeo.segment(scene, WORDS, tmp_path / "out", segments=name, vector=())
    assert (codes_of(result) < 254).all()
