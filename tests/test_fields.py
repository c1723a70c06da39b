"""Fields of the polygons: perimeter, prompts and scene, in every format."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin
from test_raster import write

from resegeo.classes.class_file import class_list
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.vectors import write_polygons
from resegeo.scene.source import GeoReference

WORDS = class_list(
    [
        {"name": "water", "prompts": ["lake", "river"]},
        {"name": "field", "prompts": ["maïs"]},
        {"name": "else", "background": True, "prompts": ["cloud"]},
    ]
)


@pytest.fixture
def codes():
    codes = np.ones((10, 12), np.uint8)
    codes[3:6, 4:8] = 2
    codes[8:, :5] = 0
    return codes


def test_perimeters_count_holes_in_metres(tmp_path, codes):
    for where in (
        GeoReference(CRS.from_epsg(32633), from_origin(500_000, 5_200_000, 2, 2)),
        GeoReference(CRS.from_epsg(2263), from_origin(980_000, 200_000, 2 / 0.3048006096, 2 / 0.3048006096)),
    ):
        write(tmp_path / "a.classes.tif", codes, where, classes=WORDS)
        frame = polygonize(tmp_path / "a.classes.tif")
        assert frame.perim_m.tolist() == pytest.approx([2 * (44 + 14), 2 * 14])
    write(tmp_path / "a.classes.tif", codes, GeoReference(None, from_origin(0, 0, 1, 1)), classes=WORDS)
    assert polygonize(tmp_path / "a.classes.tif").perim_m.isna().all()


@pytest.mark.parametrize("code", [4326, 3857])
def test_perimeters_are_geodesic_where_the_plane_tells_none(tmp_path, codes, code):
    crs = CRS.from_epsg(code)
    step = 0.001 if crs.is_geographic else 100
    origin = (10, 60) if crs.is_geographic else (1_113_194.9, 8_399_737.9)
    write(tmp_path / "a.classes.tif", codes, GeoReference(crs, from_origin(*origin, step, step)), classes=WORDS)
    frame = polygonize(tmp_path / "a.classes.tif")
    geod = pyproj.Geod(ellps="WGS84")
    expected = [geod.geometry_length(shape.boundary) for shape in frame.geometry.to_crs(4326)]
    assert frame.perim_m.tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb", "parquet"])
def test_prompts_and_scene_are_in_every_format_under_their_own_names(tmp_path, codes, suffix):
    write(tmp_path / "Gößl 7.classes.tif", codes, classes=WORDS)
    frame = polygonize(tmp_path / "Gößl 7.classes.tif", keep_background=True)
    assert all(len(name) <= 10 for name in frame.columns)
    write_polygons(frame, tmp_path / f"b.{suffix}", WORDS)
    if suffix == "parquet":
        back = gpd.read_parquet(tmp_path / "b.parquet")
    else:
        back = pyogrio.read_dataframe(tmp_path / f"b.{suffix}", layer="b" if suffix == "gpkg" else None)
    back = back.sort_values("class_id")
    assert set(frame.columns) == set(back.columns)
    assert back.prompts.tolist() == ["cloud", "lake, river", "maïs"]
    assert back.scene.unique().tolist() == ["Gößl 7"]
    assert back.perim_m.notna().all()
    assert shapely.is_valid(back.geometry.values).all()
