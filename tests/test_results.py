"""What a run does with files that lie where its results go: its own, an earlier run's, and those of the user."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely

import resegeo
import resegeo.run
from resegeo.errors import ResegeoError
from resegeo.features import Store
from resegeo.scene import Scene

WORDS = ["water", "forest", "road"]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(150, 160))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_no_result_replaces_a_file_that_the_run_reads(scene):
    folder = scene.parent
    with rasterio.open(scene) as raster:
        area = gpd.GeoDataFrame(geometry=[shapely.box(*raster.bounds)], crs=raster.crs)
    area.to_file(folder / "scene.gpkg")
    before = (folder / "scene.gpkg").read_bytes()
    for given, what in (
        ({"aoi": folder / "scene.gpkg"}, "--aoi"),
        ({"segments": str(folder / "scene.gpkg")}, "--segm"),
    ):
        for overwrite in (False, True):
            with pytest.raises(ResegeoError, match=f"would replace .*{what}"):
                resegeo.segment(scene, WORDS, folder, overwrite=overwrite, **given)
    assert (folder / "scene.gpkg").read_bytes() == before
    assert not (folder / "scene.store.zarr").exists()


@pytest.mark.parametrize("name", ["scene.gpkg", "scene.png", "scene.classes.tif"])
def test_a_file_of_the_users_own_is_replaced_only_when_told_to(scene, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("mine")
    with pytest.raises(ResegeoError, match=rf"{name} exists and is not known .*--overwrite"):
        resegeo.segment(scene, WORDS, out)
    assert names(out) == {name}
    assert (out / name).read_text() == "mine"
    resegeo.segment(scene, WORDS, out, overwrite=True)
    assert (out / name).read_bytes() != b"mine"


def test_an_interrupted_run_knows_its_own_files(scene, tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run, "write_overlay", stop)
        with pytest.raises(KeyboardInterrupt):
            resegeo.segment(scene, WORDS, tmp_path / "out")
    assert {"scene.gpkg", "scene.classes.tif"} <= names(tmp_path / "out")
    assert not resegeo.segment(scene, WORDS, tmp_path / "out").reused


def test_replaced_results_leave_nothing_beside_the_new_ones(scene, tmp_path):
    out = tmp_path / "out"
    resegeo.segment(scene, WORDS, out, vector=("gpkg", "shp"))
    (out / "notes.txt").write_text("mine")
    resegeo.segment(scene, ["grass", "sand"], out, vector=("geojson",), overwrite=True)
    fresh = tmp_path / "fresh"
    resegeo.segment(scene, ["grass", "sand"], fresh, vector=("geojson",))
    assert names(out) == names(fresh) | {"notes.txt"}


def test_features_can_be_had_of_a_finished_run_that_kept_none(scene, tmp_path):
    out = tmp_path / "out"
    first = resegeo.segment(scene, WORDS, out, keep_features=False)
    raster = first.raster.read_bytes()
    with pytest.raises(ResegeoError, match="--keep-features --overwrite"):
        resegeo.segment(out / "scene.store.zarr", ["grass"])
    with pytest.raises(ResegeoError, match=r"keep_features .*--overwrite"):
        resegeo.segment(scene, WORDS, out, keep_features=True)
    resegeo.segment(scene, WORDS, out, keep_features=True, overwrite=True)
    assert first.raster.read_bytes() == raster
    resegeo.segment(out / "scene.store.zarr", ["grass"])
    gone = tmp_path / "gone"
    resegeo.segment(scene, WORDS, gone, discard_store=True)
    assert not resegeo.segment(scene, WORDS, gone, keep_features=True).reused
    store = Store.open(str(gone / "scene.store.zarr"))
    assert store is not None
    assert store.header["features"]


def test_the_store_of_a_finished_run_can_be_discarded(scene, tmp_path):
    resegeo.segment(scene, WORDS, tmp_path)
    assert resegeo.segment(scene, WORDS, tmp_path, discard_store=True).reused
    assert not (tmp_path / "scene.store.zarr").exists()


def test_blocks_that_could_not_be_read_for_labels_are_tried_again(scene, tmp_path, monkeypatch):
    whole = resegeo.segment(scene, WORDS, tmp_path / "whole")
    label, inner = resegeo.run.label_scene, Scene.read

    def lost(self, *args):
        raise ResegeoError("the share is gone")

    def labelling(plan, *args, **kwargs):
        monkeypatch.setattr(Scene, "read", lost)
        monkeypatch.setattr(Scene, "valid", lost)
        return label(plan, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run, "label_scene", labelling)
        broken = resegeo.segment(scene, WORDS, tmp_path / "out")
    monkeypatch.undo()
    assert Scene.read is inner
    assert broken.failed > 0
    assert json.loads(broken.report.read_text("utf-8"))["unreadable_blocks"] > 0
    again = resegeo.segment(scene, WORDS, tmp_path / "out")
    assert (again.failed, again.reused) == (0, False)
    assert again.raster.read_bytes() == whole.raster.read_bytes()
    assert dataclasses.replace(again, reused=True) == resegeo.segment(scene, WORDS, tmp_path / "out")
    with rasterio.open(again.raster) as raster:
        assert not np.isin(raster.read(1), 254).any()


def test_a_class_raster_that_was_cut_or_lost_its_sidecars_is_made_anew(scene, tmp_path):
    first = resegeo.segment(scene, WORDS, tmp_path)
    expected = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for name, damage in (
        ("scene.classes.tif", lambda path: path.write_bytes(path.read_bytes()[:-1000])),
        ("scene.classes.tif", lambda path: path.write_bytes(b"")),
        ("scene.classes.qml", Path.unlink),
        ("scene.classes.tif.aux.xml", Path.unlink),
    ):
        damage(tmp_path / name)
        assert not resegeo.segment(scene, WORDS, tmp_path).reused
        assert (tmp_path / name).read_bytes() == expected[name]
    raster = bytearray(expected["scene.classes.tif"])
    raster[len(raster) // 2] ^= 255  # of the same size: noticed where the polygons are to be drawn from it
    first.raster.write_bytes(raster)
    resegeo.segment(scene, WORDS, tmp_path, simplify=1, overwrite=True)
    assert first.raster.read_bytes() == expected["scene.classes.tif"]


def test_a_report_that_lacks_what_is_asked_of_it_is_not_taken_for_one(scene, tmp_path):
    report = resegeo.segment(scene, WORDS, tmp_path).report
    document = json.loads(report.read_text("utf-8"))
    for missing in ("windows", "raster", "pixels", "resegeo"):
        report.write_text(json.dumps({key: value for key, value in document.items() if key != missing}), "utf-8")
        with pytest.raises(ResegeoError, match="was not written by this program"):
            resegeo.segment(scene, WORDS, tmp_path)
    assert not resegeo.segment(scene, WORDS, tmp_path, overwrite=True).reused
