"""SAM through the whole line: from a checkpoint's name to the class raster, in both modes."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import rasterio
from test_sam import discs, paper_or_zero, rich_levels, small_sam

import resegeo
from resegeo.errors import IgnoredSettingWarning, UsageError
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect
from resegeo.segments.sam_levels import SamLevel
from resegeo.segments.sam_masks import SamSegmenter
from resegeo.segments.segment_sources import SAM_TILE, SamTiles, SamWindows

WORDS = ["water", "forest", "road"]
LEVELS = (SamLevel(4, 0.2, 0.3, 20), SamLevel(2, 0.1, 0.2, 40))


@pytest.fixture(scope="module")
def model():
    return small_sam()


@pytest.fixture
def scene(make_raster):
    return make_raster("scene.tif", discs(200, 260, 3).transpose(2, 0, 1))


@pytest.fixture
def checkpoint(tmp_path, monkeypatch, model):
    """A file whose name stands for the small SAM: loading real architectures is tested in test_sam."""
    path = tmp_path / "sam.pth"
    path.write_bytes(b"small")
    monkeypatch.setattr("resegeo.segments.sam.load_sam", lambda *args, **kwargs: model)
    return path


def test_exact_proposals_are_the_librarys_on_each_window(scene, model):
    segmenter = SamSegmenter(model, LEVELS)
    source = SamWindows(segmenter)
    rgb, _ = open_scene(scene).read(0, 0, 200, 260)
    windows = [Rect(0, 0, 128, 128), Rect(72, 132, 128, 128)]
    pixels = np.stack([rgb[w.row : w.bottom, w.col : w.right] for w in windows])
    found = source.propose(windows, pixels)
    assert found.shape == (2, 2, 128, 128)
    assert rich_levels(found[0]) == 2
    for window, ids in zip(pixels, found, strict=True):
        for level, expected in zip(ids, LEVELS, strict=True):
            assert np.array_equal(level, paper_or_zero(model, window, expected))


def test_tile_ids_are_unique_over_the_scene_and_cut_to_windows(make_raster, model, tmp_path):
    """A scene of two tiles and a bit each way; ids of a window do not depend on which others are asked for."""
    canvas = Canvas(open_scene(make_raster("wide.tif", discs(300, SAM_TILE + 200, 5).transpose(2, 0, 1))))
    source = SamTiles(canvas, SamSegmenter(model, LEVELS), folder=tmp_path / "tiles")
    whole = source.ids(Rect(0, 0, 300, SAM_TILE + 200))
    assert rich_levels(whole) == 2
    for level in whole:
        left, right = np.unique(level[:, :SAM_TILE]), np.unique(level[:, SAM_TILE:])
        assert set(left[left > 0]).isdisjoint(right[right > 0])
        assert len(right[right > 0]) > 0
    across = Rect(100, SAM_TILE - 60, 128, 128)
    found = source.propose([across, Rect(0, 0, 128, 128)], np.zeros((2, 128, 128, 3), np.uint8))
    assert np.array_equal(found[0], whole[:, 100:228, SAM_TILE - 60 : SAM_TILE + 68])
    assert sorted(path.name for path in (tmp_path / "tiles").iterdir()) == ["0_0.npy", "0_1.npy"]

    class Never:
        levels = LEVELS

        def tile_ids(self, rgb, valid=None):
            raise AssertionError("a finished tile is read, not computed again")

    again = SamTiles(canvas, Never(), folder=tmp_path / "tiles")
    assert np.array_equal(again.ids(across), whole[:, 100:228, SAM_TILE - 60 : SAM_TILE + 68])


@pytest.mark.parametrize("mode", ["tile", "exact"])
def test_segments_from_sam_reach_the_labels_and_the_report(tmp_path, scene, checkpoint, mode):
    table = [
        {
            "points_per_side": level.points_per_side,
            "pred_iou_thresh": level.pred_iou_thresh,
            "stability_score_thresh": level.stability_score_thresh,
            "min_mask_region_area": level.min_mask_region_area,
        }
        for level in LEVELS
    ]
    options = {"sam_checkpoint": checkpoint, "sam_levels": table, "sam_mode": mode, "segment_layers": 2, "stride": 128}
    result = resegeo.segment(scene, WORDS, tmp_path / mode, segments="sam", vector=(), **options)
    report = json.loads(result.report.read_text("utf-8"))
    assert report["resegeo"]["settings"]["sam_levels"] == table
    assert len(report["resegeo"]["sam"]) == 64
    assert not (tmp_path / mode / "scene.store.zarr/tiles").exists()
    free = resegeo.segment(scene, WORDS, tmp_path / "none", segments="none", vector=(), segment_layers=2, stride=128)
    with rasterio.open(result.raster) as one, rasterio.open(free.raster) as two:
        assert (one.read(1) != two.read(1)).any()


def test_the_paper_preset_runs_and_implies_sam(tmp_path, scene, checkpoint):
    result = resegeo.segment(scene, WORDS, tmp_path / "out", preset="paper", sam_checkpoint=checkpoint, vector=())
    settings = json.loads(result.report.read_text("utf-8"))["resegeo"]["settings"]
    assert (settings["segments"], settings["sam_mode"]) == ("sam", "exact")
    with pytest.raises(UsageError, match=r"give sam_checkpoint=.?sam-vit-b.?, or a file"):
        resegeo.segment(scene, WORDS, tmp_path / "other", preset="paper")
    with warnings.catch_warnings():
        warnings.simplefilter("error", IgnoredSettingWarning)
        resegeo.segment(scene, WORDS, tmp_path / "third", preset="paper", segments="superpixels", vector=())


def test_sam_options_without_sam_are_said_to_be_idle(tmp_path, scene, checkpoint):
    with pytest.warns(IgnoredSettingWarning, match="SAM is not used"):
        resegeo.segment(scene, WORDS, tmp_path / "out", sam_checkpoint=checkpoint, vector=())


def test_a_scene_segmented_by_sam_takes_new_words_without_sam(tmp_path, scene, checkpoint):
    given = {"segments": "sam", "sam_checkpoint": checkpoint, "sam_levels": LEVELS}
    resegeo.segment(scene, WORDS, tmp_path / "out", **given)
    fresh = resegeo.segment(scene, ["grass", "building"], tmp_path / "fresh", **given)
    checkpoint.unlink()
    scene.unlink()
    again = resegeo.segment(tmp_path / "out/scene.store.zarr", ["grass", "building"])
    assert again.raster.read_bytes() == fresh.raster.read_bytes()
