from __future__ import annotations

import sqlite3

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio.features
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from test_raster import CLASSES, UTM, write

from resegeo.errors import ResegeoError
from resegeo.polygons import polygonize, write_polygons
from resegeo.scene import GeoReference

reuse_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@reuse_folder
@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 1, 2, 3, 255])
    )
)
def test_polygons_are_a_valid_coverage_of_exactly_the_classed_pixels(tmp_path, codes):
    write(tmp_path / "a.tif", codes)
    frame = polygonize(tmp_path / "a.tif")
    shapes = frame.geometry.values
    assert shapely.is_valid(shapes).all()
    drawn = (codes > 0) & (codes < 254)
    assert frame.area_m2.sum() == drawn.sum() * 100
    if len(frame):
        assert shapely.coverage_is_valid(shapes)
        assert shapely.union_all(shapes).area == pytest.approx(drawn.sum() * 100)
        back = rasterio.features.rasterize(
            zip(shapes, frame.class_id, strict=True), out_shape=codes.shape, transform=UTM.transform, dtype="uint8"
        )
        assert np.array_equal(back, np.where(drawn, codes, 0))


@reuse_folder
@given(hnp.arrays(np.uint8, (12, 12), elements=st.sampled_from([0, 1, 2])), st.sampled_from([0.7, 1.5, 3.0]))
def test_simplified_polygons_still_share_their_borders(tmp_path, codes, tolerance):
    write(tmp_path / "a.tif", codes)
    frame = polygonize(tmp_path / "a.tif", simplify=tolerance, keep_background=True)
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert shapely.is_valid(frame.geometry.values).all()


def test_the_sieve_gives_small_areas_to_a_neighbour_and_leaves_nodata(tmp_path):
    codes = np.ones((10, 10), np.uint8)
    codes[3, 3] = 2
    codes[6:, :] = 255
    codes[6, 5] = 254
    write(tmp_path / "a.tif", codes)
    frame = polygonize(tmp_path / "a.tif", min_area=4)
    assert frame.class_id.tolist() == [1]
    assert frame.area_m2.sum() == 60 * 100


def test_areas_are_geodesic_in_degrees_and_absent_without_a_crs(tmp_path):
    codes = np.ones((10, 10), np.uint8)
    degrees = GeoReference(CRS.from_epsg(4326), from_origin(10, 50, 0.01, 0.01))
    write(tmp_path / "a.tif", codes, degrees)
    # about 11.13 km × 7.17 km at 50 degrees north
    assert polygonize(tmp_path / "a.tif").area_m2.sum() == pytest.approx(79.8e6, rel=0.01)
    write(tmp_path / "b.tif", codes, GeoReference(None, from_origin(0, 0, 1, 1)))
    assert polygonize(tmp_path / "b.tif").area_m2.isna().all()
    feet = GeoReference(CRS.from_epsg(2263), from_origin(980_000, 200_000, 10, 10))
    write(tmp_path / "c.tif", codes, feet)
    assert polygonize(tmp_path / "c.tif").area_m2.sum() == pytest.approx(10_000 * 0.3048006096**2, rel=1e-6)


def test_rotated_and_south_up_scenes_keep_shared_vertices(tmp_path):
    codes = np.random.default_rng(0).integers(1, 4, (30, 30)).astype(np.uint8)
    for transform in (Affine(0.3, 0.1, 7, -0.1, 0.3, 9), Affine(10, 0, 0, 0, 10, 0)):
        write(tmp_path / "a.tif", codes, GeoReference(CRS.from_epsg(32633), transform))
        frame = polygonize(tmp_path / "a.tif")
        assert shapely.coverage_is_valid(frame.geometry.values)
        assert frame.area_m2.sum() == pytest.approx(900 * abs(transform.determinant))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gcp_scenes_are_drawn_in_the_crs_of_their_gcps(tmp_path):
    gcps = tuple(GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100, 0) for r in (0, 15, 30) for c in (0, 20, 40))
    write(tmp_path / "a.tif", np.ones((30, 40), np.uint8), GeoReference(None, None, gcps, CRS.from_epsg(4326)))
    frame = polygonize(tmp_path / "a.tif")
    assert frame.crs.to_epsg() == 4326
    assert frame.total_bounds == pytest.approx([10, 49.7, 10.4, 50], abs=1e-9)


@pytest.fixture
def frame(tmp_path):
    write(tmp_path / "a.tif", np.random.default_rng(1).integers(0, 4, (40, 50)).astype(np.uint8))
    return polygonize(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb", "parquet"])
@pytest.mark.parametrize("empty", [False, True])
def test_every_format_is_read_back(tmp_path, frame, suffix, empty):
    given_frame = frame.iloc[:0] if empty else frame
    path = tmp_path / f"b.{suffix}"
    write_polygons(given_frame, path, CLASSES)
    if suffix == "parquet":
        back = gpd.read_parquet(path)
    else:
        back = gpd.read_file(path, layer=None if suffix != "gpkg" else "b")
    assert len(back) == len(given_frame)
    if suffix == "geojson" and empty:  # the format has no schema of its own
        return
    assert {"class_id", "class_name", "area_m2", "geometry"} == set(back.columns)
    assert not [part for part in tmp_path.iterdir() if part.name.startswith(".tmp")]
    if empty:
        return
    if suffix == "geojson":
        assert back.crs.to_epsg() == 4326
        back = back.to_crs(frame.crs)
    order = ["class_id", "area_m2"]
    assert back.sort_values(order).class_name.tolist() == frame.sort_values(order).class_name.tolist()
    assert back.geometry.area.sum() == pytest.approx(frame.geometry.area.sum(), rel=1e-4)


def test_the_geopackage_carries_its_style_where_qgis_looks(tmp_path, frame):
    write_polygons(frame, tmp_path / "b.gpkg", CLASSES)
    with sqlite3.connect(tmp_path / "b.gpkg") as database:
        schema, table, column, default, qml = database.execute(
            "SELECT f_table_schema, f_table_name, f_geometry_column, useAsDefault, styleQML FROM layer_styles"
        ).fetchone()
        kind = database.execute("SELECT data_type FROM gpkg_contents WHERE table_name = 'layer_styles'").fetchone()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert (schema, table, default) == ("", "b", 1)
    assert column == pyogrio.read_info(tmp_path / "b.gpkg", layer="b")["geometry_name"]
    assert kind == ("attributes",)
    assert "categorizedSymbol" in qml
    assert "<layerGeometryType>2</layerGeometryType>" in qml


def test_equal_polygons_give_equal_bytes(tmp_path, frame):
    for suffix in ("gpkg", "fgb", "geojson"):
        for name in ("one", "two"):
            (tmp_path / name).mkdir(exist_ok=True)
            write_polygons(frame, tmp_path / name / f"b.{suffix}", CLASSES)
        assert (tmp_path / f"one/b.{suffix}").read_bytes() == (tmp_path / f"two/b.{suffix}").read_bytes()


def test_geojson_from_mars_is_refused_in_a_sentence(tmp_path):
    mars = CRS.from_wkt(
        'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447223612]],'
        'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
    )
    write(tmp_path / "a.tif", np.ones((9, 9), np.uint8), GeoReference(mars, from_origin(10, 5, 0.1, 0.1)))
    frame = polygonize(tmp_path / "a.tif")
    assert frame.area_m2.sum() == pytest.approx((0.9 * np.pi / 180 * 3396190) ** 2, rel=0.02)
    write_polygons(frame, tmp_path / "b.gpkg", CLASSES)
    with pytest.raises(ResegeoError, match="GeoJSON is in EPSG:4326"):
        write_polygons(frame, tmp_path / "b.geojson", CLASSES)
    assert not (tmp_path / "b.geojson").exists()
