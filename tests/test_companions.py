"""What lies beside results for other programs: read by other programs' libraries, and the same for equal runs."""

from __future__ import annotations

import hashlib
import json
import zipfile
from xml.etree import ElementTree as ET

import numpy as np
import pystac
import pytest
import rasterio

import resegeo

WORDS = ["water", "forest", "road"]

pytestmark = pytest.mark.usefixtures("quick_model")


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(64, 80))


def test_a_stac_item_tells_of_every_result_with_its_checksum(scene, tmp_path):
    made = resegeo.segment(scene, WORDS, tmp_path / "out", vector=("gpkg", "shp"), scores=True)
    item = pystac.Item.from_file(str(tmp_path / "out/scene.stac.json"))
    assert item.id == "scene"
    for asset in item.assets.values():
        path = tmp_path / "out" / asset.href
        assert asset.extra_fields["file:size"] == path.stat().st_size
        assert asset.extra_fields["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
    told = {(tmp_path / "out" / asset.href).name for asset in item.assets.values()}
    assert told >= {path.name for path in made.files()} - {"scene.json", "scene.stac.json"}
    classes = item.assets["classes"].extra_fields["classification:classes"]
    assert [entry["title"] for entry in classes][:3] == WORDS
    (link,) = [link for link in item.links if link.rel == "derived_from"]
    assert (tmp_path / "out" / link.href).resolve() == scene.resolve()


def project(path):
    with zipfile.ZipFile(path) as archive:
        return ET.fromstring(archive.read(f"{path.stem}.qgs").split(b"\n", 1)[1])


def test_a_project_names_its_layers_by_relative_paths_and_says_areas(scene, tmp_path):
    made = resegeo.segment(scene, WORDS, tmp_path / "out")
    root = project(tmp_path / "out/scene.qgz")
    sources = [layer.findtext("datasource") for layer in root.iter("maplayer")]
    assert sources == ["./scene.gpkg|layername=scene", "./scene.classes.tif", "../scene.tif"]
    report = json.loads(made.report.read_text("utf-8"))
    there = {row["class_name"]: row["ha"] for row in report["areas"] if row["pixels"]}
    labels = [entry.get("label") for entry in root.iter("category")]
    assert sorted(labels) == sorted(f"{name}  {ha:,.2f} ha" for name, ha in there.items())
    with rasterio.open(made.raster) as raster:
        bounds = raster.bounds
    extent = [float(part.text) for part in root.find("mapcanvas/extent")]
    assert extent == pytest.approx([bounds.left, bounds.bottom, bounds.right, bounds.top])


def test_a_project_shows_a_scene_of_16_bits_as_the_model_sees_it(make_raster, picture, tmp_path):
    pixels = picture(64, 80).astype(np.uint16) * 30 + 500
    path = make_raster("wide.tif", np.concatenate([pixels, pixels[:1]]), crs="EPSG:32633")
    resegeo.segment(path, WORDS, tmp_path / "out", vector=(), bands=(4, 2, 1))
    (renderer,) = [each for each in project(tmp_path / "out/wide.qgz").iter("rasterrenderer") if each.get("redBand")]
    assert [renderer.get(f"{name}Band") for name in ("red", "green", "blue")] == ["4", "2", "1"]
    stretch = resegeo.open_scene(path, bands=(4, 2, 1)).stretch
    for name, least, most in zip(("red", "green", "blue"), stretch.low, stretch.high, strict=True):
        found = renderer.find(f"{name}ContrastEnhancement")
        assert (float(found.findtext("minValue")), float(found.findtext("maxValue"))) == (least, most)
    # Bytes are shown as they are.
    resegeo.segment(make_raster("plain.tif", picture(64, 80)), WORDS, tmp_path / "out", vector=())
    assert not [each for each in project(tmp_path / "out/plain.qgz").iter("rasterrenderer") if each.get("redBand")]


def test_equal_runs_beside_each_other_have_equal_companions_and_a_saved_project_counts_as_complete(scene, tmp_path):
    for folder in ("one", "two"):
        resegeo.segment(scene, WORDS, tmp_path / folder)
    for name in ("scene.qgz", "scene.stac.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with zipfile.ZipFile(tmp_path / "one/scene.qgz", "a") as archive:
        archive.writestr("scene.qgd", b"what QGIS keeps")
    saved = (tmp_path / "one/scene.qgz").read_bytes()
    assert resegeo.segment(scene, WORDS, tmp_path / "one").reused
    assert (tmp_path / "one/scene.qgz").read_bytes() == saved


def test_results_without_a_place_have_an_item_without_a_geometry(make_raster, picture, tmp_path):
    scene = make_raster("bare.tif", picture(64, 64), crs=None, transform=None)
    with pytest.warns(resegeo.ResegeoWarning):
        resegeo.segment(scene, WORDS, tmp_path / "out")
    item = json.loads((tmp_path / "out/bare.stac.json").read_text("utf-8"))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert project(tmp_path / "out/bare.qgz").find("mapcanvas/units") is not None
