from __future__ import annotations

import numpy as np
import pytest

from resegeo.canvas import Canvas
from resegeo.class_file import class_list
from resegeo.labels import Blender, Voting, WindowScores, class_codes, class_probabilities
from resegeo.scene import open_scene
from resegeo.scores import axis_weights, blend_weights, patch_scores, pixel_centres, pixel_cosines, softmax
from resegeo.windows import Rect, blocks, window_grid


@pytest.fixture
def canvas(make_raster, picture):
    return Canvas(open_scene(make_raster("scene.tif", picture(70, 90))))


def scored(grid, texts, features, cls=None, segments=None):
    """Windows of ``grid`` with the scores of ``features`` (B, g, g, D)."""
    windows = [window for item in grid.items() for window in item.windows]
    reduced = patch_scores(features[: len(windows)], texts)
    return [
        WindowScores(
            window,
            reduced[i],
            np.zeros(len(texts), np.float32) if cls is None else cls[i],
            None if segments is None else segments[i],
        )
        for i, window in enumerate(windows)
    ]


def test_blended_blocks_equal_the_naive_average_over_the_whole_scene(canvas):
    """Every window evaluated whole and accumulated over the whole scene, against the block-wise form."""
    random = np.random.default_rng(0)
    grid = window_grid(70, 90, window=32, stride=20)
    texts = random.normal(size=(3, 8)).astype(np.float32)
    cls = random.normal(size=(grid.count, 3)).astype(np.float32)
    windows = scored(grid, texts, random.normal(size=(grid.count, 4, 4, 8)).astype(np.float32), cls)
    at = pixel_centres(32)
    axis, taper = axis_weights(4, at), blend_weights(at, taper=True)
    total, weight = np.zeros((3, 70, 90)), np.zeros((70, 90))
    for window in windows:
        share = np.outer(taper, taper)
        span = np.s_[window.rect.row : window.rect.bottom, window.rect.col : window.rect.right]
        cosines = pixel_cosines(window.reduced, axis, axis) - np.float32(0.3) * window.cls[:, None, None]
        total[:, *span] += softmax(10 * cosines) * share
        weight[span] += share
    expected = total / weight
    blender = Blender(canvas, logit_scale=10, taper=True, subtract_cls=0.3)
    for block in blocks(70, 90, 33):
        found = blender.blend(block, windows, 3)
        assert np.allclose(found, expected[:, block.row : block.bottom, block.col : block.right], atol=1e-5)


def test_votes_are_shared_within_a_segment_and_averaged_over_windows(canvas):
    """Against loops over windows, segments and pixels."""
    random = np.random.default_rng(1)
    grid = window_grid(70, 90, window=32, stride=20)
    texts = random.normal(size=(3, 8)).astype(np.float32)
    segments = random.integers(0, 3, (grid.count, 4, 4)).repeat(8, axis=1).repeat(8, axis=2)
    windows = scored(grid, texts, random.normal(size=(grid.count, 4, 4, 8)).astype(np.float32), None, segments)
    axis = axis_weights(4, pixel_centres(32))
    total, weight = np.zeros((2, 70, 90)), np.zeros((70, 90))
    for window in windows:
        p = softmax(10 * pixel_cosines(window.reduced, axis, axis))
        label = np.stack([p[0], p[1:].max(axis=0)]).argmax(axis=0)
        votes = np.stack([label == 0, label == 1]).astype(float)
        for segment in (1, 2):
            inside = window.segments == segment
            for c in (0, 1):
                votes[c][inside] = (label[inside] == c).mean() if inside.any() else 0
        span = np.s_[window.rect.row : window.rect.bottom, window.rect.col : window.rect.right]
        total[:, *span] += votes
        weight[span] += 1
    blender = Blender(canvas, logit_scale=10, taper=False, voting=Voting((0, 1, 1), 2, "max"))
    for block in blocks(70, 90, 33):
        found = blender.blend(block, windows, 2)
        expected = (total / weight)[:, block.row : block.bottom, block.col : block.right]
        assert np.allclose(found, expected, atol=1e-5)
        assert np.allclose(found.sum(axis=0), 1, atol=1e-5)


def test_a_class_takes_its_best_prompt_or_the_mean_or_the_sum():
    p = np.array([0.5, 0.1, 0.4], np.float32).reshape(3, 1, 1)
    owner = (0, 1, 1)
    assert class_probabilities(p, owner, 2).ravel().tolist() == pytest.approx([0.5, 0.4])
    assert class_probabilities(p, owner, 2, reduction="mean").ravel().tolist() == pytest.approx([0.5, 0.25])
    assert class_probabilities(p, owner, 2, reduction="logsumexp").ravel().tolist() == pytest.approx([0.5, 0.5])


def test_codes_thresholds_background_and_nodata():
    classes = class_list(["a", {"name": "shade", "background": True}, "b"])
    p = np.array([[0.6, 0.1, 0.3, 0.4], [0.3, 0.8, 0.3, 0.3], [0.1, 0.1, 0.4, 0.3]], np.float32)[:, None]
    valid = np.array([[True, True, True, False]])
    assert class_codes(p, valid, classes, [None] * 3).tolist() == [[1, 0, 2, 255]]
    assert class_codes(p, valid, classes, [0.7, None, 0.4]).tolist() == [[0, 0, 2, 255]]


def test_ties_go_to_the_class_named_first():
    p = np.full((2, 1, 1), 0.5, np.float32)
    assert class_codes(p, np.ones((1, 1), bool), class_list(["a", "b"]), [None, None]).item() == 1


def test_a_rectangle_meets_another_only_in_shared_pixels():
    assert Rect(0, 0, 5, 5).intersection(Rect(5, 0, 5, 5)) is None
    assert Rect(0, 0, 5, 5).intersection(Rect(4, 3, 5, 5)) == Rect(4, 3, 1, 2)
