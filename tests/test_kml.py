"""KML: read back by GDAL, coloured as Google Earth shows it."""

from __future__ import annotations

import shutil
import subprocess
from xml.etree import ElementTree as ET

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.transform import from_origin
from test_globe import polygons
from test_polygon_borders import patches
from test_raster import CLASSES, write

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.errors import ResegeoError
from resegeo.outputs.areas import areas
from resegeo.outputs.kml import read_kml
from resegeo.outputs.polygons import draw, polygonize
from resegeo.outputs.vectors import write_polygons
from resegeo.scene.source import GeoReference

KML = "{http://www.opengis.net/kml/2.2}"


@pytest.fixture
def frame(tmp_path):
    write(tmp_path / "a.tif", patches(0, 60, 2.0).clip(0, 3))
    return polygonize(tmp_path / "a.tif")


def test_gdal_reads_fields_and_shapes_back(tmp_path, frame):
    write_polygons(frame, tmp_path / "b.kml", CLASSES)
    back = pyogrio.read_dataframe(tmp_path / "b.kml")
    assert back.crs.to_epsg() == 4326
    for name in ("class_id", "class_name", "prompts", "scene"):
        assert back[name].tolist() == frame[name].tolist()
    assert back.Name.tolist() == frame.class_name.tolist()
    assert back.area_m2.tolist() == frame.area_m2.tolist()
    there = frame.to_crs(4326).geometry
    assert shapely.is_valid(back.geometry.values).all()
    assert (
        np.abs(shapely.get_coordinates(shapely.force_2d(back.geometry)) - shapely.get_coordinates(there)).max() < 1e-8
    )
    if shutil.which("ogrinfo"):
        told = subprocess.run(["ogrinfo", "-so", "-al", tmp_path / "b.kml"], capture_output=True, text=True, check=True)
        assert f"Feature Count: {len(frame)}" in told.stdout
        assert "Layer name: b" in told.stdout


def test_every_polygon_has_the_colour_of_its_class(tmp_path, frame):
    write_polygons(frame, tmp_path / "b.kml", CLASSES)
    root = ET.parse(tmp_path / "b.kml").getroot()
    styles = {f"#{style.get('id')}": style.findtext(f"{KML}PolyStyle/{KML}color") for style in root.iter(f"{KML}Style")}
    assert len(styles) == frame.class_id.nunique()
    for place, code in zip(root.iter(f"{KML}Placemark"), frame.class_id, strict=True):
        colour = styles[place.findtext(f"{KML}styleUrl")]
        red, green, blue = CLASSES.color_of(code)
        assert colour == f"bf{blue:02x}{green:02x}{red:02x}"  # alpha first, red last


def test_batches_of_polygons_are_read_as_they_were_written(tmp_path, monkeypatch):
    from resegeo.outputs import kml
    from resegeo.outputs import polygons as module

    monkeypatch.setattr(module, "_VERTICES", 50)
    monkeypatch.setattr(kml, "_BATCH", 7)
    write(tmp_path / "a.tif", patches(0, 60, 2.0).clip(0, 3))
    drawing = draw(tmp_path / "a.tif")
    write_polygons(drawing, tmp_path / "b.kml", CLASSES)
    whole = polygonize(tmp_path / "a.tif")
    parts = list(read_kml(tmp_path / "b.kml"))
    assert len(parts) > 3
    assert np.concatenate([codes for codes, _ in parts]).tolist() == whole.class_id.tolist()


def test_a_scene_over_the_date_line_is_cut_there(tmp_path):
    frame = polygons(tmp_path, Affine(10_000, 0, 100_000, 0, -10_000, 7_000_000), 32601)
    write_polygons(frame, tmp_path / "b.kml", class_list(["water", "forest"]))
    back = pyogrio.read_dataframe(tmp_path / "b.kml")
    parts = back.explode()
    assert (np.abs(back.total_bounds[[0, 2]]) <= 180).all()
    flat = shapely.orient_polygons(np.asarray(shapely.force_2d(parts.geometry.values)))
    summed = np.bincount(parts.index, weights=areas(flat, CRS.from_epsg(4326)))
    assert summed == pytest.approx(back.area_m2.to_numpy(), rel=0.02)


def test_names_with_signs_of_xml_are_kept(tmp_path):
    strange = class_list(["a < b & c", 'say "hé"', "水"])
    write(tmp_path / "a.tif", np.array([[1, 2, 3]], np.uint8), classes=strange)
    resegeo.vectorize(tmp_path / "a.tif", tmp_path / "b.kml")
    assert pyogrio.read_dataframe(tmp_path / "b.kml").class_name.tolist() == [spec.name for spec in strange.classes]


def test_no_polygons_make_a_document_without_any(tmp_path):
    write(tmp_path / "a.tif", np.zeros((5, 5), np.uint8))
    resegeo.vectorize(tmp_path / "a.tif", tmp_path / "b.kml")
    assert len(pyogrio.read_dataframe(tmp_path / "b.kml")) == 0


def test_a_raster_without_crs_is_refused_in_a_sentence(tmp_path):
    write(tmp_path / "a.tif", np.ones((5, 5), np.uint8), GeoReference(None, from_origin(0, 0, 1, 1)))
    with pytest.raises(ResegeoError, match=r"has no CRS, and KML is always in EPSG:4326"):
        resegeo.vectorize(tmp_path / "a.tif", tmp_path / "b.kml")
    assert not (tmp_path / "b.kml").exists()
