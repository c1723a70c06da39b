"""Scores of all classes as rasters beside the class raster."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from affine import Affine

import resegeo

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]
WHERE = {"crs": "EPSG:32633", "transform": Affine(1, 0, 500_000, 0, -1, 5_190_080)}


@pytest.fixture
def scene(make_raster, picture):
    pixels = picture(64, 80)
    pixels[:, :, 40:] //= 4
    pixels[:, :9, :9] = 0
    return make_raster("scene.tif", pixels, nodata=0, **WHERE)


def read(path):
    with rasterio.open(path) as raster:
        facts = {name: getattr(raster, name) for name in ("count", "dtypes", "nodata", "descriptions", "scales", "crs")}
        return raster.read(), SimpleNamespace(**facts)


def test_scores_are_a_band_a_class_and_agree_with_the_labels(scene, tmp_path):
    result = resegeo.segment(scene, WORDS, tmp_path / "out", vector="gpkg", scores=True)
    assert [path.name for path in result.beside[:2]] == ["scene.scores.tif", "scene.confidence.tif"]
    codes = read(result.raster)[0][0]
    scores, file = read(result.beside[0])
    assert (file.count, file.dtypes[0], file.nodata) == (3, "uint8", 255)
    assert file.descriptions == ("water", "forest", "road")
    assert np.allclose(file.scales, 0.005)
    assert file.crs == "EPSG:32633"
    none = codes == 255
    assert (scores[:, none] == 255).all()
    assert (abs(scores[:, ~none].astype(int).sum(axis=0) - 200) <= 2).all()
    top, at = scores.max(axis=0), np.where(none, 0, codes - 1)
    assert (np.take_along_axis(scores, at[None].astype(int), axis=0)[0] == top)[~none].all()
    confidence, file = read(result.beside[1])
    assert file.descriptions == ("best class", "second class", "best score", "margin")
    assert np.allclose(file.scales, (1, 1, 0.005, 0.005))
    assert (confidence[0] == codes).all()
    assert (confidence[2] == top).all()
    assert (confidence[:, none] == 255).all()
    second = np.sort(scores, axis=0)[1]
    assert (abs(top.astype(int) - second - confidence[3])[~none] <= 1).all()
    report = json.loads(result.report.read_text())
    assert report["resegeo"]["scores"] is True
    assert {"scene.scores.tif", "scene.confidence.tif"} <= report["files"].keys()
    assert resegeo.segment(scene, WORDS, tmp_path / "out", vector="gpkg", scores=True).reused


def test_scores_made_from_the_store_are_those_of_the_scene_and_a_lost_file_comes_again(scene, tmp_path):
    first = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), scores=True)
    later = resegeo.segment(tmp_path / "out/scene.store.zarr", WORDS, tmp_path / "b", vector=(), scores=True)
    for one, two in zip(first.beside[:2], later.beside[:2], strict=True):
        assert one.read_bytes() == two.read_bytes()
    first.beside[1].unlink()
    again = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), scores=True)
    assert not again.reused
    assert again.beside[1].read_bytes() == later.beside[1].read_bytes()
    plain = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), overwrite=True)
    assert not first.beside[0].exists()
    assert "scores" not in json.loads(plain.report.read_text())["resegeo"]


def test_a_lost_picture_keeps_the_scores(scene, tmp_path):
    first = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), scores=True)
    before = json.loads(first.report.read_text())["files"]
    first.picture.unlink()
    again = resegeo.segment(scene, WORDS, tmp_path / "out", vector=(), scores=True)
    assert json.loads(again.report.read_text())["files"] == before
