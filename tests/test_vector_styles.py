"""Styles of polygons: inside a GeoPackage, beside every other format, of the classes that occur."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from test_raster import CLASSES, write

import resegeo
from resegeo.errors import ResegeoError
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.vectors import write_polygons

SLD = "{http://www.opengis.net/sld}"


@pytest.mark.parametrize("suffix", [".shp", ".geojson", ".fgb", ".parquet", ".kml"])
def test_a_style_of_the_classes_that_occur_lies_beside_every_format(tmp_path, suffix):
    write(tmp_path / "a.tif", np.full((8, 9), 2, dtype=np.uint8))
    write_polygons(polygonize(tmp_path / "a.tif"), tmp_path / f"b{suffix}", CLASSES)
    category = ET.parse(tmp_path / "b.qml").getroot().find(".//category")
    assert category.get("label") == CLASSES.name_of(2)
    assert [entry.get("value") for entry in ET.parse(tmp_path / "b.qml").iter("category")] == ["2"]
    assert [rule.findtext(f"{SLD}Name") for rule in ET.parse(tmp_path / "b.sld").iter(f"{SLD}Rule")] == [
        CLASSES.name_of(2)
    ]


def test_a_geopackage_holds_its_style_itself(tmp_path):
    write(tmp_path / "a.tif", np.full((8, 9), 2, dtype=np.uint8))
    write_polygons(polygonize(tmp_path / "a.tif"), tmp_path / "b.gpkg", CLASSES)
    assert not list(tmp_path.glob("b.[qs]*"))


def test_a_style_of_the_users_is_not_replaced(tmp_path):
    write(tmp_path / "a.tif", np.full((8, 9), 2, dtype=np.uint8))
    (tmp_path / "b.qml").write_text("mine")
    with pytest.raises(ResegeoError, match=r"b\.qml exists"):
        resegeo.vectorize(tmp_path / "a.tif", tmp_path / "b.fgb")
    assert (tmp_path / "b.qml").read_text() == "mine"
