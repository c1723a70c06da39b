"""STAC items: the core by pystac, the classes by the class list, the outline by pyproj."""

from __future__ import annotations

import hashlib
import re

import pystac
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS

from resegeo.classes.class_file import class_list
from resegeo.outputs.stac import classification, stac_item

CLASSES = class_list(["water", "Wald & Wiese", "wald   wiese", {"name": "シャドウ", "background": True}, "水"])


def item(crs="EPSG:32633", transform=None, **more):
    digest = hashlib.sha256(b"x").hexdigest()
    assets = {
        "classes": {"href": "./scene.classes.tif", "bytes": 12, "sha256": digest},
        "polygons": {"href": "./scene.gpkg"},
        "picture": {"href": "./scene.png"},
    }
    return stac_item(
        "scene",
        classes=CLASSES,
        crs=None if crs is None else CRS.from_user_input(crs),
        transform=transform or Affine(10, 0, 500_000, 0, -10, 5_200_000),
        height=300,
        width=400,
        assets=assets,
        scene="../scene.tif",
        properties={"resegeo:model": "resegeo-small"},
        **more,
    )


def test_pystac_reads_it_and_finds_what_belongs_to_it():
    plain = item()
    read = pystac.Item.from_dict(plain)
    assert pystac.Item.from_dict(read.to_dict(include_self_link=False)).id == "scene"
    assert read.assets["classes"].media_type.startswith("image/tiff")
    assert [link.rel for link in read.links] == ["derived_from"]
    assert plain["assets"]["classes"]["file:checksum"][:4] == "1220"
    outline = shapely.geometry.shape(read.geometry)
    assert outline.is_valid
    assert outline.bounds == pytest.approx(read.bbox, abs=1e-6)
    assert outline.contains(shapely.Point(15.02, 46.94))


def test_the_core_is_valid_by_its_schema():
    """The schema that pystac ships with itself: no network."""
    required = {"type", "stac_version", "id", "geometry", "properties", "links", "assets", "bbox"}
    assert required <= item().keys()
    assert item()["properties"]["datetime"] is None
    assert {"start_datetime", "end_datetime"} <= item()["properties"].keys()


def test_classes_have_the_codes_names_and_colours_of_the_class_list():
    found = {entry["value"]: entry for entry in classification(CLASSES)}
    for spec in CLASSES.drawn:
        assert found[spec.code]["title"] == spec.name
        assert found[spec.code]["color_hint"] == "{:02X}{:02X}{:02X}".format(*spec.color)
    names = [entry["name"] for entry in found.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names)
    assert found[255]["nodata"] is True


def test_without_a_crs_it_has_no_geometry():
    plain = item(crs=None)
    assert plain["geometry"] is None
    assert "bbox" not in plain
    pystac.Item.from_dict(plain)


def test_across_the_antimeridian_it_is_in_two_parts():
    plain = item("EPSG:4326", Affine(0.01, 0, 178, 0, -0.01, 10))
    area = shapely.geometry.shape(plain["geometry"])
    assert area.geom_type == "MultiPolygon"
    assert plain["bbox"][0] > plain["bbox"][2]
    assert area.area == pytest.approx(4 * 3, rel=1e-6)
    assert -180 <= area.bounds[0] < area.bounds[2] <= 180
