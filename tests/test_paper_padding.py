"""The paper's edges: padding belongs to the segments that SAM's map, or a label raster continued by 0, gives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_sam import discs, library_ids, model  # noqa: F401

import resegeo
from resegeo.checkpoints.sources import resolve_model
from resegeo.classes.class_file import class_list
from resegeo.clip.attention import INVALID_GROUP
from resegeo.clip.encoder import load_encoder
from resegeo.run.compute import read_item
from resegeo.run.plan import Plan, make_plan
from resegeo.scene.reader import open_scene
from resegeo.segments.sam_levels import SamLevel
from resegeo.segments.sam_masks import SamSegmenter
from resegeo.segments.segment_sources import LabelRaster, SamWindows
from resegeo.settings import resolve_settings

SIZE = (100, 170)
HOLE = (slice(20, 60), slice(30, 90))
"""Pixels that the scene marks invalid."""


def naive(ids: np.ndarray, hole: np.ndarray, side: int, patch: int) -> np.ndarray:
    """Patch ids (g, g) of one window of ids (S, S) by counting, pixel by pixel; a patch mostly of the hole is alone."""
    grid = side // patch
    found = np.empty((grid, grid), dtype=np.int64)
    for row in range(grid):
        for col in range(grid):
            cell = slice(row * patch, (row + 1) * patch), slice(col * patch, (col + 1) * patch)
            values, counts = np.unique(ids[cell], return_counts=True)
            found[row, col] = values[counts.argmax()] if 2 * hole[cell].sum() <= patch * patch else INVALID_GROUP
    return found


@pytest.fixture
def laid(make_raster, request) -> Any:
    """A scene with a hole, its pixels padded to whole windows, and a plan after the paper."""
    size = getattr(request, "param", SIZE)
    rgb = discs(*size, 4)
    rgb[rgb == 0] = 1
    rgb[HOLE] = 0
    path = make_raster("scene.tif", rgb.transpose(2, 0, 1), nodata=0)
    settings = resolve_settings({"segments": "none"}, preset="paper")
    plan = make_plan(open_scene(path), class_list(["water", "forest"]), settings, resolve_model())
    side = plan.geometry.image_size
    assert plan.grid.stride == side
    high, wide = (-(-length // side) * side for length in size)
    pad = ((0, high - size[0]), (0, wide - size[1]))
    return plan, path, np.pad(rgb, (*pad, (0, 0))), pad


def windows_of(plan: Plan, whole: np.ndarray) -> list[np.ndarray]:
    side = plan.geometry.image_size
    (item,) = plan.grid.items()
    return [whole[each.row : each.row + side, each.col : each.col + side] for each in item.windows]


def hole_of(pad: Any, size: tuple[int, int] = SIZE) -> np.ndarray:
    hole = np.zeros(size, dtype=bool)
    hole[HOLE] = True
    return np.pad(hole, pad)


def test_padding_takes_the_segments_of_a_label_raster_continued_by_0(laid, make_raster):
    plan, _, padded, pad = laid
    labels = np.kron(np.arange(1, 5).reshape(2, 2), np.ones((50, 85))).astype(np.uint8)
    labels[:, -40:] = 0
    source = LabelRaster(make_raster("labels.tif", labels[None]), plan.canvas)
    (item,) = plan.grid.items()
    batch = read_item(plan, source, item)
    np.testing.assert_array_equal(batch.rgb, windows_of(plan, padded))
    side, patch = plan.geometry.image_size, plan.geometry.patch_size
    both = zip(windows_of(plan, np.pad(labels, pad)), windows_of(plan, hole_of(pad)), strict=True)
    expected = [naive(ids, hole, side, patch) for ids, hole in both]
    np.testing.assert_array_equal(batch.levels[:, 0], expected)
    assert (batch.levels == INVALID_GROUP).any()  # the hole stays alone
    right = batch.levels[1, 0]
    assert (right[:, -1] == 0).all()  # padding, in one group with valid patches of no segment
    assert (right[:, :2] == 0).any()


@pytest.mark.parametrize("laid", [(100, 100)], indirect=True)
def test_padding_takes_the_segments_that_sam_gives_it(laid, model):  # noqa: F811
    plan, _, padded, pad = laid
    level = SamLevel(4, 0.3, 0.3, 20)
    (item,) = plan.grid.items()
    batch = read_item(plan, SamWindows(SamSegmenter(model, [level])), item)
    side, patch = plan.geometry.image_size, plan.geometry.patch_size
    ids = library_ids(model, padded, level, points_per_side=4, crop_n_layers=1, crop_n_points_downscale_factor=2)
    expected = naive(ids, hole_of(pad, (100, 100)), side, patch)
    np.testing.assert_array_equal(batch.levels, expected[None, None])
    assert (expected[:, -1] > 0).any()  # SAM has masks over padding, else nothing was tried


def test_padding_changes_what_its_segment_sees_and_the_run_knows(laid, make_raster):
    """Features of the valid patches beside padding equal those that the encoder gives for the oracle's groups."""
    plan, _, _, pad = laid
    source = LabelRaster(make_raster("labels.tif", np.zeros((1, *SIZE), np.uint8)), plan.canvas)
    (item,) = plan.grid.items()
    batch = read_item(plan, source, item)
    encoder = load_encoder(plan.source, device="cpu")
    with torch.inference_mode():

        def seen(levels: np.ndarray) -> np.ndarray:
            given = batch.rgb[1:2], batch.valid[1:2], levels[None, None]
            return encoder.encode_windows(*given, plan.schedule, fill="black")[0]

        joined = seen(batch.levels[1, 0])
        outside = ~windows_of(plan, np.pad(np.ones(SIZE, bool), pad))[1]
        patch = plan.geometry.patch_size
        apart = batch.levels[1, 0].copy()
        apart[outside[patch // 2 :: patch, patch // 2 :: patch]] = INVALID_GROUP
        assert np.abs(joined - seen(apart)).max() > 1e-3
    assert plan.image_options()["settings"]["padding"] == "has segments"


@pytest.mark.parametrize("knobs", [{}, {"edge": "overhang"}, {"fill": "black"}])
def test_elsewhere_padding_stays_alone(make_raster, knobs):
    path = make_raster("scene.tif", discs(*SIZE, 4).transpose(2, 0, 1), nodata=None)
    settings = resolve_settings({"segments": "none", "overlap": 0.0, **knobs})
    plan = make_plan(open_scene(path), class_list(["water"]), settings, resolve_model())
    assert "padding" not in plan.image_options()["settings"]
    assert not settings.padding_has_segments


def test_a_paper_run_with_padding_goes_through(laid, tmp_path):
    _, path, _, _ = laid
    made = resegeo.segment(
        path, ["water", "forest"], tmp_path / "out", preset="paper", segments="superpixels", vector=()
    )
    codes = made.codes().values
    assert (codes[HOLE] == 255).all()
    assert (np.delete(codes, np.s_[:60], axis=0) < 3).all()
