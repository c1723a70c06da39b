"""What a run does with files that lie where its results go: its own, an earlier run's, and those of the user."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
import rioxarray  # noqa: F401 -- the accessor
import shapely

import resegeo
import resegeo.run.commands
import resegeo.run.execution
import resegeo.run.results
from resegeo.errors import ResegeoError
from resegeo.run.store import Store
from resegeo.scene.reader import Scene

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(150, 160))


def drawn(path: Path) -> gpd.GeoDataFrame:
    return gpd.read_file(path, layer=path.stem)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def test_no_result_replaces_a_file_that_the_run_reads(scene):
    folder = scene.parent
    with rasterio.open(scene) as raster:
        area = gpd.GeoDataFrame(geometry=[shapely.box(*raster.bounds)], crs=raster.crs)
    area.to_file(folder / "scene.gpkg")
    before = (folder / "scene.gpkg").read_bytes()
    for given, what in (
        ({"aoi": folder / "scene.gpkg"}, "file of aoi"),
        ({"segments": str(folder / "scene.gpkg")}, "file of segm"),
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
    with pytest.raises(ResegeoError, match=rf"{name} exists and is not known .*overwrite"):
        resegeo.segment(scene, WORDS, out)
    assert names(out) == {name}
    assert (out / name).read_text() == "mine"
    resegeo.segment(scene, WORDS, out, overwrite=True)
    assert (out / name).read_bytes() != b"mine"


def test_an_interrupted_run_knows_its_own_files(scene, tmp_path, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run.execution, "write_overlay", stop)
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
    with pytest.raises(ResegeoError, match="keep_features=True overwrite=True"):
        resegeo.segment(out / "scene.store.zarr", ["grass"])
    with pytest.raises(ResegeoError, match=r"keep_features .*overwrite"):
        resegeo.segment(scene, WORDS, out, keep_features=True)
    resegeo.segment(scene, WORDS, out, keep_features=True, overwrite=True)
    assert first.raster.read_bytes() == raster
    resegeo.segment(out / "scene.store.zarr", ["grass"])
    gone = tmp_path / "gone"
    resegeo.segment(scene, WORDS, gone, discard_store=True)
    assert not resegeo.segment(scene, WORDS, gone, keep_features=True).reused
    store = Store.open(str(gone / "scene.store.zarr"))
    assert store is not None
    assert store.header.features


def test_the_store_of_a_finished_run_can_be_discarded(scene, tmp_path):
    resegeo.segment(scene, WORDS, tmp_path)
    assert resegeo.segment(scene, WORDS, tmp_path, discard_store=True).reused
    assert not (tmp_path / "scene.store.zarr").exists()


def test_blocks_that_could_not_be_read_for_labels_are_tried_again(scene, tmp_path, monkeypatch):
    whole = resegeo.segment(scene, WORDS, tmp_path / "whole")
    label, inner = resegeo.run.execution.label_scene, Scene.read

    def lost(self, *args):
        raise ResegeoError("the share is gone")

    def labelling(plan, *args, **kwargs):
        monkeypatch.setattr(Scene, "read", lost)
        monkeypatch.setattr(Scene, "valid", lost)
        return label(plan, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(resegeo.run.execution, "label_scene", labelling)
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
    resegeo.segment(scene, WORDS, tmp_path, simplify=1, overwrite=True, replace_edited=True)
    assert first.raster.read_bytes() == expected["scene.classes.tif"]


def test_a_report_that_lacks_what_is_asked_of_it_is_not_taken_for_one(scene, tmp_path):
    report = resegeo.segment(scene, WORDS, tmp_path).report
    document = json.loads(report.read_text("utf-8"))
    for missing in ("windows", "files", "pixels", "resegeo"):
        report.write_text(json.dumps({key: value for key, value in document.items() if key != missing}), "utf-8")
        with pytest.raises(ResegeoError, match="was not written by this program"):
            resegeo.segment(scene, WORDS, tmp_path)
    assert not resegeo.segment(scene, WORDS, tmp_path, overwrite=True).reused


def test_polygons_know_the_mean_score_of_their_pixels(scene, tmp_path):
    """Against loops over the pixels; with words that differ, thresholds and background."""
    from resegeo.clip.blending import Blender, class_scores

    caught = []
    blend = Blender.blend

    def noting(self, rect, *args):
        caught.append((rect, result := blend(self, rect, *args)))
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Blender, "blend", noting)
        made = resegeo.segment(scene, WORDS, tmp_path, threshold=0.4, keep_background=True)
    ((_, by_class),) = caught
    frame = drawn(made.vectors[0])
    scores = class_scores(by_class).astype(float) / 200
    assert np.abs(scores - by_class.max(axis=0)).max() <= 0.0025 + 1e-6
    with rasterio.open(made.raster) as raster:
        for shape, value in zip(frame.geometry, frame["score_mean"], strict=True):
            inside = rasterio.features.geometry_mask([shape], scores.shape, raster.transform, invert=True)
            assert abs(scores[inside].mean() - value) <= 1e-4
    assert frame["score_mean"].between(1 / 3, 1).all()
    assert (frame.loc[frame["class_id"] == 0, "score_mean"] < 0.4 + 0.0025).all()
    assert (frame.loc[frame["class_id"] > 0, "score_mean"] >= 0.4 - 0.0025).all()


def test_scores_belong_to_the_raster_that_lies_there(scene, tmp_path):
    """Other words, no polygons, other words again: the polygons never get the scores of an earlier raster."""
    fresh = resegeo.segment(scene, WORDS, tmp_path / "fresh").vectors[0].read_bytes()
    out = tmp_path / "out"
    resegeo.segment(scene, ["grass", "sand"], out)
    resegeo.segment(scene, WORDS, out, vector=(), overwrite=True)
    assert resegeo.segment(scene, WORDS, out, overwrite=True).vectors[0].read_bytes() == fresh
    store = out / "scene.store.zarr"
    again = resegeo.segment(store, WORDS)
    assert drawn(again.vectors[0]).equals(drawn(tmp_path / "fresh/scene.gpkg"))
    assert (out / "scene.gpkg").read_bytes() == fresh


def test_scores_are_never_those_of_a_raster_of_the_same_name_in_another_folder(scene, tmp_path):
    """One store serves several folders; the raster that lies in one was not scored last."""
    given = {"store": str(tmp_path / "stores"), "segments": "none"}
    first = resegeo.segment(scene, WORDS, tmp_path / "first", **given)
    plain = drawn(first.vectors[0])
    resegeo.segment(scene, WORDS, tmp_path / "second", logit_scale=5.0, **given)
    frame = drawn(resegeo.run.commands.vectorize(first.raster, tmp_path / "again.gpkg"))
    assert "score_mean" not in frame  # better none than another's
    resegeo.segment(scene, WORDS, tmp_path / "first", keep_background=True, overwrite=True, **given)
    assert drawn(first.vectors[0]).equals(plain)


def test_new_words_for_a_store_that_may_only_be_read_have_scores_too(scene, tmp_path, monkeypatch):
    first = resegeo.segment(scene, WORDS, tmp_path / "out")

    def refused(*_, **__):
        raise PermissionError(13, "Permission denied")

    for name in ("keep_array", "drop_array", "_note"):
        monkeypatch.setattr(Store, name, refused)
    again = resegeo.segment(tmp_path / "out/scene.store.zarr", WORDS, tmp_path / "again")
    assert drawn(again.vectors[0]).equals(drawn(first.vectors[0]))


def test_vectorize_finds_the_scores_of_a_run_that_lies_there_whole(scene, tmp_path):
    made = resegeo.segment(scene, WORDS, tmp_path / "out")
    made_again = resegeo.run.commands.vectorize(made.raster, tmp_path / "again.gpkg")
    assert drawn(made_again).equals(drawn(made.vectors[0]))
    (tmp_path / "out").rename(tmp_path / "moved")
    raster = tmp_path / "moved/scene.classes.tif"
    made_again = resegeo.run.commands.vectorize(raster, tmp_path / "moved.gpkg")
    assert drawn(made_again).equals(drawn(tmp_path / "again.gpkg"))
    with rasterio.open(
        raster, "r+", IGNORE_COG_LAYOUT_BREAK="YES"
    ) as changed:  # by the user's own hand: the scores are another raster's
        codes = changed.read(1)
        codes[:20] = 2
        changed.write(codes, 1)
    frame = drawn(resegeo.run.commands.vectorize(raster, tmp_path / "changed.gpkg"))
    assert list(frame.columns) == ["class_id", "class_name", "area_m2", "perim_m", "prompts", "scene", "geometry"]


def test_the_minimum_mapping_unit_holds_in_raster_and_polygons_alike(make_raster, picture, tmp_path):
    bands = np.maximum(picture(150, 160), 1)
    bands[:, 40:60, 30:90] = 0
    scene = make_raster("scene.tif", bands, nodata=0)
    plain = resegeo.segment(scene, WORDS, tmp_path / "plain", segments="none")
    least = 400
    made = resegeo.segment(scene, WORDS, tmp_path / "made", segments="none", min_area=least)
    with rasterio.open(plain.raster) as raster:
        before = raster.read(1)
    with rasterio.open(made.raster) as raster:
        after = raster.read(1)
        pixel = abs(raster.transform.a * raster.transform.e)
        assert raster.overviews(1) == [] or max(raster.shape) > 512
    assert ((before == 255) == (after == 255)).all()
    assert (before != after).any()
    sizes = (drawn(made.vectors[0])["area_m2"] / pixel).round()
    assert (drawn(plain.vectors[0])["area_m2"] / pixel).min() < least
    assert sizes.min() >= least
    assert sizes.sum() == (after != 255).sum()
    report = json.loads(made.report.read_text("utf-8"))
    _, counts = np.unique(after, return_counts=True)
    assert sorted(report["pixels"].values()) == sorted(counts.tolist())
    assert report["resegeo"]["settings"]["min_area"] == least
    again = resegeo.segment(tmp_path / "plain/scene.store.zarr", WORDS, tmp_path / "plain", min_area=least)
    assert again.raster.read_bytes() == made.raster.read_bytes()
    import xarray as xr  # the same for a scene in memory

    with rasterio.open(scene) as raster:
        array = xr.DataArray(raster.read(), dims=("band", "y", "x")).rio.write_crs(raster.crs)
        array = array.rio.write_transform(raster.transform).rio.write_nodata(0)
    assert (resegeo.segment(array, WORDS, segments="none", min_area=least).values == after).all()
