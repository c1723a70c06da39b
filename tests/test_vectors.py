from __future__ import annotations

import sqlite3
import sys

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin
from test_raster import CLASSES, write

from resegeo.errors import ResegeoError
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.vector_files import layer_name
from resegeo.outputs.vectors import no_degrees, shapefile_bytes, write_polygons
from resegeo.scene.source import GeoReference

MARS = CRS.from_wkt(
    'GEOGCS["Mars 2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447223612]],'
    'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
)


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
    assert {"class_id", "class_name", "area_m2", "perim_m", "prompts", "scene", "geometry"} == set(back.columns)
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
    write(tmp_path / "a.tif", np.ones((9, 9), np.uint8), GeoReference(MARS, from_origin(10, 5, 0.1, 0.1)))
    frame = polygonize(tmp_path / "a.tif")
    assert frame.area_m2.sum() == pytest.approx((0.9 * np.pi / 180 * 3396190) ** 2, rel=0.02)
    write_polygons(frame, tmp_path / "b.gpkg", CLASSES)
    with pytest.raises(ResegeoError, match="from which no way leads to EPSG:4326"):
        write_polygons(frame, tmp_path / "b.geojson", CLASSES)
    assert not (tmp_path / "b.geojson").exists()


def test_a_rewritten_shapefile_keeps_nothing_of_the_one_before(tmp_path, frame):
    write_polygons(frame, tmp_path / "b.shp", CLASSES)
    assert (tmp_path / "b.prj").exists()
    write_polygons(frame.set_crs(None, allow_override=True), tmp_path / "b.shp", CLASSES)
    assert not (tmp_path / "b.prj").exists()
    assert gpd.read_file(tmp_path / "b.shp").crs is None


def test_the_size_of_a_shapefile_is_known_before_it_is_written(tmp_path, frame, monkeypatch):
    write_polygons(frame, tmp_path / "b.shp", CLASSES)
    real = max((tmp_path / f"b.{end}").stat().st_size for end in ("shp", "dbf"))
    assert real <= shapefile_bytes(frame) <= 1.5 * real
    monkeypatch.setattr("resegeo.outputs.vectors._SHAPEFILE_LIMIT", real - 1)
    with pytest.raises(ResegeoError, match="exceed the 2 GB"):
        write_polygons(frame, tmp_path / "c.shp", CLASSES)
    assert not list(tmp_path.glob("c.*"))


def test_the_geopackages_date_is_fixed(tmp_path, frame):
    write_polygons(frame, tmp_path / "b.gpkg", CLASSES)
    with sqlite3.connect(tmp_path / "b.gpkg") as database:
        dates = [row[0] for row in database.execute("SELECT last_change FROM gpkg_contents")]
        dates += [row[0] for row in database.execute("SELECT update_time FROM layer_styles")]
    assert len(dates) == 3
    assert all(date.startswith("2000") for date in dates)
    assert dates[-1].endswith(":00.000000Z")


def test_a_file_that_cannot_be_written_is_answered_by_a_sentence(tmp_path, frame):
    with pytest.raises(ResegeoError, match="could not be written"):
        write_polygons(frame, tmp_path / "absent" / "b.gpkg", CLASSES)
    with pytest.raises(ResegeoError, match="unknown polygon format"):
        write_polygons(frame, tmp_path / "b.dxf", CLASSES)


STRANGE = ["-dash", ".hidden", "..x", "(1) a", "[S2] a", "#3", "~a", "a;b", "wow!", "a.zip!b", "a b", "'q'", "é 日本"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb", "parquet", "kml"])
@pytest.mark.parametrize("stem", STRANGE)
def test_any_name_that_a_file_may_have_will_do(tmp_path, frame, stem, suffix):
    (tmp_path / "out").mkdir()
    write_polygons(frame, tmp_path / "out" / f"{stem}.{suffix}", CLASSES)
    written = list((tmp_path / "out").iterdir())
    assert {part.stem for part in written} == {stem}
    for part in written:  # pyogrio would not find it under its name
        part.rename(tmp_path / "out" / f"plain{part.suffix}")
    plain = tmp_path / "out" / f"plain.{suffix}"
    back = gpd.read_parquet(plain) if suffix == "parquet" else gpd.read_file(plain)
    assert len(back) == len(frame)
    if suffix != "gpkg":
        return
    with sqlite3.connect(plain) as database:
        styled = database.execute("SELECT f_table_name FROM layer_styles").fetchall()
        features = database.execute("SELECT table_name FROM gpkg_contents WHERE data_type = 'features'").fetchall()
    assert styled == features == [(layer_name(stem),)]
    assert stem.endswith(layer_name(stem))


@pytest.mark.parametrize("stem", ["gpkg_contents", "GPKG x", "layer_styles", "sqlite_a", "rtree_a_geom", "!?", ""])
def test_a_layer_never_has_a_name_that_a_geopackage_keeps_for_itself(tmp_path, frame, stem):
    write_polygons(frame, tmp_path / "b.gpkg", CLASSES)
    pyogrio.write_dataframe(frame, tmp_path / "c.gpkg", layer=layer_name(stem))
    assert layer_name(stem).startswith("polygons")
    write_polygons(frame, tmp_path / f"{stem or 'x'}.gpkg", CLASSES)


@pytest.mark.parametrize("name", ["out;put", "out!put", "a.zip!b"])
def test_a_folder_of_any_name_will_do(tmp_path, frame, name):
    folder = tmp_path / name
    folder.mkdir()
    for suffix in ("gpkg", "shp"):
        write_polygons(frame, folder / f"b.{suffix}", CLASSES)
    folder.rename(tmp_path / "plain")
    assert sorted(path.name for path in (tmp_path / "plain").iterdir()) == [
        f"b.{end}" for end in ("cpg", "dbf", "gpkg", "prj", "qml", "shp", "shx", "sld")
    ]
    assert len(gpd.read_file(tmp_path / "plain" / "b.gpkg")) == len(frame)


def test_the_suffix_is_written_as_the_user_did(tmp_path, frame):
    write_polygons(frame, tmp_path / "B.GPKG", CLASSES)
    write_polygons(frame, tmp_path / "B.SHP", CLASSES)
    assert {"B.GPKG", "B.SHP", "B.dbf"} <= {path.name for path in tmp_path.iterdir()}
    assert len(gpd.read_file(tmp_path / "B.GPKG", layer="B")) == len(frame)


def test_whether_geojson_can_be_had_is_known_by_the_crs_alone():
    assert no_degrees(CRS.from_epsg(32633)) is None
    assert no_degrees(CRS.from_string("ESRI:102008")) is None
    assert no_degrees(None) == "has no CRS, and GeoJSON is always in EPSG:4326"
    for crs in (MARS, CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')):
        assert "from which no way leads to EPSG:4326" in no_degrees(crs)
