"""Every vector format in every situation: places, names and counts are read back by other programs."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from xml.etree import ElementTree as ET

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from test_polygon_borders import patches
from test_raster import write

from resegeo import vectorize
from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.qgis_project import Layer, write_project
from resegeo.scene.source import GeoReference

FORMATS = ("gpkg", "shp", "geojson", "fgb", "parquet", "kml")
UTM = CRS.from_epsg(32633)
LAEA = CRS.from_user_input("+proj=laea +lat_0=47 +lon_0=9 +x_0=100 +units=m")
GCPS = tuple(
    GroundControlPoint(row, col, 10 + col / 1000 + row / 9000, 50 - row / 1000)
    for row in (0, 40)
    for col in (0, 20, 40)
)
PLACES = {
    "plain": GeoReference(UTM, Affine(10, 0, 500_000, 0, -10, 5_200_000)),
    "rotated": GeoReference(UTM, Affine(8, 6, 500_000, 6, -8, 5_200_000)),
    "gcps": GeoReference(None, None, gcps=GCPS, gcps_crs=CRS.from_epsg(4326)),
    "no crs": GeoReference(None, Affine(10, 0, 0, 0, -10, 0)),
    "degrees": GeoReference(CRS.from_epsg(4326), Affine(1e-4, 0, 10, 0, -1e-4, 50)),
    "dateline": GeoReference(CRS.from_epsg(4326), Affine(1e-3, 0, 179.98, 0, -1e-3, 10)),
    "dateline in metres": GeoReference(CRS.from_epsg(32601), Affine(1000, 0, 100_000 + 68_000, 0, -1000, 1_000_000)),
    "no code": GeoReference(LAEA, Affine(10, 0, 0, 0, -10, 0)),
}
LONG = "a class whose name is far longer than any legend, table or field of a Shapefile was ever meant to take " * 2
NAMES = {
    "umlauts": ["Wälder", "Grünfläche", "Straße"],
    "chinese": ["水", "森林", "道路"],
    "quotes": ['a "b" c', "it's; DROP TABLE x", "<b>&amp;</b>"],
    "very long": [LONG[:200], LONG[1:200], "short"],
    "one class": ["only"],
    "300 classes": [f"class {number}" for number in range(300)],
}


def read(path):
    """A layer of polygons as GeoPandas or pyogrio reads it."""
    if path.suffix == ".parquet":
        return gpd.read_parquet(path)
    return pyogrio.read_dataframe(path, layer=path.stem if path.suffix == ".gpkg" else None)


def sorted_by_shape(frame):
    return frame.iloc[np.argsort(shapely.to_wkb(shapely.normalize(frame.geometry.values)))].reset_index(drop=True)


def ogrinfo(path):
    """What GDAL's own program says of a file; None where it or the driver is not there."""
    if not shutil.which("ogrinfo") or path.suffix not in (".gpkg", ".kml"):
        return None
    layers = [path.stem] if path.suffix == ".gpkg" else ["-al"]
    return subprocess.run(["ogrinfo", "-so", path, *layers], capture_output=True, text=True, check=True).stdout


def some(names, quick):
    """All of some names, of which the quick suite takes but a few."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", some(PLACES, ("gcps", "dateline in metres")))
def test_polygons_lie_where_the_scene_does_in_every_format(tmp_path, place):
    where = PLACES[place]
    write(tmp_path / "a.classes.tif", patches(3, 30, 3.0).clip(0, 3), where)
    expected = sorted_by_shape(polygonize(tmp_path / "a.classes.tif"))
    for suffix in FORMATS:
        path = tmp_path / f"b.{suffix}"
        degrees = suffix in ("geojson", "kml")
        if degrees and place == "no crs":
            with pytest.raises(ResegeoError, match="has no CRS, and"):
                vectorize(tmp_path / "a.classes.tif", path)
            assert not path.exists()
            continue
        vectorize(tmp_path / "a.classes.tif", path, overwrite=True)
        found = read(path)
        assert len(found) == len(expected)
        assert sorted(found.class_name) == sorted(expected.class_name)
        assert np.allclose(np.sort(found.area_m2), np.sort(expected.area_m2), equal_nan=True)
        shapes = shapely.force_2d(found.geometry.values)
        if degrees:
            assert found.crs.to_epsg() == 4326
            assert (np.abs(found.total_bounds[[0, 2]]) <= 180).all()
            assert shapely.is_valid(shapes).all()
            if "dateline" in place:
                assert {"Polygon", "MultiPolygon"} >= set(found.geom_type)
                continue
            there = shapely.get_coordinates(expected.to_crs(4326).geometry.values)
            assert np.allclose(np.sort(shapely.get_coordinates(shapes), 0), np.sort(there, 0), atol=2e-7)
        else:
            found = sorted_by_shape(found)  # FlatGeobuf has an order of its own
            assert found.class_name.tolist() == expected.class_name.tolist()
            assert (found.crs is None) == (expected.crs is None)
            if found.crs is not None:
                assert pyproj.CRS(found.crs).equals(pyproj.CRS(expected.crs), ignore_axis_order=True) or suffix == "shp"
            assert shapely.equals_exact(found.geometry.values, expected.geometry.values, 0, normalize=True).all()
            assert shapely.coverage_is_valid(found.geometry.values)
        said = ogrinfo(path)
        assert said is None or f"Feature Count: {len(expected)}" in said


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("names", some(NAMES, ("quotes",)))
def test_names_of_classes_are_the_same_in_every_format_style_and_project(tmp_path, names):
    classes = class_list(NAMES[names])
    count = len(classes.classes)
    codes = (np.arange(900, dtype=np.uint16).reshape(30, 30) % count + 1).astype(classes.dtype)
    write(tmp_path / "b.tif", codes, classes=classes)
    titles = {spec.code: spec.name for spec in classes.drawn}
    assert classes.dtype == ("uint16" if count == 300 else "uint8")
    for suffix in FORMATS:
        vectorize(tmp_path / "b.tif", tmp_path / f"b.{suffix}", overwrite=True)
        found = read(tmp_path / f"b.{suffix}")
        assert dict(zip(found.class_id.tolist(), found.class_name.tolist(), strict=True)) == titles
        styled = tmp_path / "b.qml"
        if suffix == "gpkg":
            with sqlite3.connect(tmp_path / "b.gpkg") as database:
                styled.write_text(*database.execute("SELECT styleQML FROM layer_styles").fetchone(), "utf-8")
        legend = {int(entry.get("value")): entry.get("label") for entry in ET.parse(styled).iter("category")}
        assert legend == titles
        styled.unlink()
    where = {"crs": UTM, "extent": (0, 0, 1, 1), "title": names, "areas": None}
    write_project(tmp_path / "b.qgz", [Layer("polygons", str(tmp_path / "b.gpkg"), "polygons")], classes, **where)
    with rasterio.open(tmp_path / "b.tif") as raster:
        told = json.loads(raster.tags()["RESEGEO_CLASSES"])["classes"]
    assert {entry["code"]: entry["name"] for entry in told} == titles


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "codes", [np.zeros((20, 20)), np.full((20, 20), 255), np.full((1, 1), 1)], ids=["background", "nodata", "one pixel"]
)
def test_nothing_to_draw_is_an_empty_layer_and_one_pixel_is_one_polygon(tmp_path, codes):
    write(tmp_path / "a.tif", codes.astype(np.uint8))
    many = int((codes == 1).sum())
    for suffix in FORMATS:
        vectorize(tmp_path / "a.tif", tmp_path / f"b.{suffix}", regularize="water", smooth=True, overwrite=True)
        found = read(tmp_path / f"b.{suffix}")
        assert len(found) == many
        if suffix == "gpkg":
            assert len(pyogrio.read_dataframe(tmp_path / "b.gpkg", layer="b_regularized")) == many
        said = ogrinfo(tmp_path / f"b.{suffix}")
        assert said is None or not many or "Feature Count: 1" in said
