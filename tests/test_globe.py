"""Scenes that span the globe, lie across the antimeridian or over a pole, or in a projection that distorts."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from resegeo.classes.class_file import class_list
from resegeo.errors import InputNotice, ResegeoError
from resegeo.outputs.areas import areas
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.raster import write_class_raster
from resegeo.outputs.vectors import no_degrees, write_polygons
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import canvas_of, ground_sample_distance
from resegeo.scene.source import GeoReference

pytestmark = pytest.mark.filterwarnings("ignore")

CLASSES = class_list(["water", "forest"])


def polygons(folder, transform, crs, codes=None):
    if codes is None:
        codes = np.ones((36, 72), np.uint8)
        codes[10:20, 10:30] = 2
    path = folder / "a.classes.tif"
    where = GeoReference(CRS.from_user_input(crs), transform)
    height, width = codes.shape
    write_class_raster(path, [(0, 0, codes)], height=height, width=width, georeference=where, classes=CLASSES, tags={})
    return polygonize(path)


@pytest.mark.parametrize(
    ("transform", "crs"),
    [
        (Affine(359.99 / 72, 0, -180, 0, -5, 90), 4326),
        (Affine(358 / 72, 0, -179, 0, -178 / 36, 89), 4326),
        (Affine(5, 0, -180, 0, -5, 90), 4326),
        (Affine(5, 0, 0, 0, -5, 90), 4326),
        (Affine(0.5, 0, 170, 0, -0.5, 0), 4326),
        (Affine(200_000, 0, 15_000_000, 0, -200_000, 3_600_000), 3857),
        (Affine(10_000, 0, 100_000, 0, -10_000, 7_000_000), 32601),
    ],
)
def test_geojson_holds_the_whole_of_every_polygon(tmp_path, transform, crs):
    """The oracle is area_m2, which is taken from the polygons before they are turned to degrees."""
    frame = polygons(tmp_path, transform, crs)
    write_polygons(frame, tmp_path / "a.geojson", CLASSES)
    found = gpd.read_file(tmp_path / "a.geojson")
    assert found.geometry.is_valid.all()
    assert (np.abs(found.total_bounds[[0, 2]]) <= 180).all()
    parts = found.explode()
    there = areas(shapely.orient_polygons(np.asarray(parts.geometry.values)), CRS.from_epsg(4326))
    summed = np.bincount(parts.index, weights=there)
    assert summed == pytest.approx(found.area_m2.to_numpy(), rel=0.02 if crs == 32601 else 1e-3)


def test_a_polygon_over_a_pole_is_refused_as_geojson_and_before_the_run(tmp_path):
    transform = Affine(100_000, 0, -3_600_000, 0, -100_000, 1_800_000)
    frame = polygons(tmp_path, transform, 3413)
    with pytest.raises(ResegeoError, match="lies over a pole"):
        write_polygons(frame, tmp_path / "a.geojson", CLASSES)
    assert not (tmp_path / "a.geojson").exists()
    assert "lies over a pole" in no_degrees(CRS.from_epsg(3413), shapely.box(-1e5, -1e5, 1e5, 1e5))
    assert no_degrees(CRS.from_epsg(3413), shapely.box(1e5, 1e5, 3e5, 3e5)) is None


@pytest.mark.parametrize("crs", [3857, 3395, 4087])
def test_areas_in_a_cylindrical_projection_are_those_on_the_ellipsoid(crs):
    """A square at 60° N: the oracle is the geodesic area of its outline in degrees, with many points an edge."""
    x, y = pyproj.Transformer.from_crs(4326, crs, always_xy=True).transform(10, 60)
    square = np.array([shapely.box(x, y, x + 1000, y + 1000).reverse()])
    square = shapely.orient_polygons(square)
    back = pyproj.Transformer.from_crs(crs, 4326, always_xy=True)
    dense = shapely.transform(shapely.segmentize(square[0], 1), lambda xy: np.column_stack(back.transform(*xy.T)))
    expected = pyproj.Geod(ellps="WGS84").geometry_area_perimeter(dense)[0]
    found = areas(square, CRS.from_epsg(crs))
    assert found == pytest.approx(expected, rel=1e-6)
    assert found < 0.6e6


def test_areas_beyond_the_antimeridian_go_on():
    box = shapely.orient_polygons(np.array([shapely.box(20_037_000, 0, 20_039_000, 1000)]))
    inside = shapely.orient_polygons(np.array([shapely.box(0, 0, 2000, 1000)]))
    assert areas(box, CRS.from_epsg(3857)) == pytest.approx(areas(inside, CRS.from_epsg(3857)), rel=1e-9)


def test_areas_of_utm_are_planar():
    square = shapely.orient_polygons(np.array([shapely.box(500_000, 5e6, 501_000, 5_001_000)]))
    assert areas(square, CRS.from_epsg(32633)) == [1e6]


def test_gsd_in_web_mercator_is_that_on_the_ground(make_raster):
    x, y = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(10, 60)
    path = make_raster("a.tif", np.ones((3, 40, 40), np.uint8), crs="EPSG:3857", transform=Affine(2, 0, x, 0, -2, y))
    scene = open_scene(path)
    assert ground_sample_distance(scene) == pytest.approx((1, 1), rel=0.005)
    with pytest.warns(InputNotice, match=r"lengths 2\.00 times as long as they are there"):
        canvas = canvas_of(scene, 2.0)
    assert canvas.down == pytest.approx(2, rel=0.005)


def test_gsd_in_utm_is_the_transforms(make_raster):
    assert ground_sample_distance(open_scene(make_raster("a.tif", np.ones((3, 40, 40), np.uint8)))) == (10, 10)


def test_polygons_of_a_distorting_scene_come_with_a_notice(tmp_path):
    with pytest.warns(InputNotice, match="area_m2 and perim_m are on the ellipsoid"):
        polygons(tmp_path, Affine(10, 0, 0, 0, -10, 8_000_000), 3857)
