from __future__ import annotations

import numpy as np
import pytest

from resegeo.classes.class_file import class_list
from resegeo.clip.blending import Blender, Grouping, WindowScores, class_codes, class_logits, class_probabilities
from resegeo.clip.scores import axis_weights, blend_weights, patch_scores, pixel_cosines, softmax
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect, blocks, window_grid


def pixel_centres(pixels):
    """Centres of the pixels of a window, as shares of its side."""
    return (np.arange(pixels) + 0.5) / pixels


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
    blender = Blender(canvas, Grouping((0, 1, 2), 3), 10, taper=True, subtract_cls=0.3)
    for block in blocks(70, 90, 33):
        found = blender.blend(block, windows)
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
    blender = Blender(canvas, Grouping((0, 1, 1), 2), 10, taper=False, vote=True)
    for block in blocks(70, 90, 33):
        found = blender.blend(block, windows)
        expected = (total / weight)[:, block.row : block.bottom, block.col : block.right]
        assert np.allclose(found, expected, atol=1e-5)
        assert np.allclose(found.sum(axis=0), 1, atol=1e-5)


def test_a_class_takes_its_best_prompt_or_the_mean_or_the_sum():
    p = np.array([0.5, 0.1, 0.4], np.float32).reshape(3, 1, 1)
    owner = (0, 1, 1)
    assert class_probabilities(p, owner, 2).ravel().tolist() == pytest.approx([0.5, 0.4])
    assert class_probabilities(p, owner, 2, reduction="mean").ravel().tolist() == pytest.approx([0.5, 0.25])
    assert class_probabilities(p, owner, 2, reduction="logsumexp").ravel().tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("reduction", ["max", "mean", "logsumexp"])
def test_a_class_of_five_equal_words_scores_like_one_word(canvas, reduction):
    random = np.random.default_rng(2)
    grid = window_grid(70, 90, window=32, stride=20)
    texts = random.normal(size=(3, 8)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    features = random.normal(size=(grid.count, 4, 4, 8)).astype(np.float32)
    block = Rect(10, 20, 40, 50)

    def shares(repeats):
        owners = tuple(np.repeat([0, 1, 2], repeats))
        blender = Blender(canvas, Grouping(owners, 3, reduction), 20, taper=True)
        return blender.blend(block, scored(grid, np.repeat(texts, repeats, axis=0), features))

    assert np.allclose(shares([1, 1, 1]), shares([5, 1, 2]), atol=1e-5)
    assert np.allclose(shares([1, 1, 1]).sum(axis=0), 1, atol=1e-5)


def test_the_published_order_takes_the_softmax_over_prompts_first(canvas):
    """Averages of probabilities of prompts, reduced at the end: against the loop over windows."""
    random = np.random.default_rng(3)
    grid = window_grid(70, 90, window=32, stride=20)
    texts = random.normal(size=(3, 8)).astype(np.float32)
    windows = scored(grid, texts, random.normal(size=(grid.count, 4, 4, 8)).astype(np.float32))
    axis = axis_weights(4, pixel_centres(32))
    total, weight = np.zeros((3, 70, 90)), np.zeros((70, 90))
    for window in windows:
        span = np.s_[window.rect.row : window.rect.bottom, window.rect.col : window.rect.right]
        total[:, *span] += softmax(10 * pixel_cosines(window.reduced, axis, axis))
        weight[span] += 1
    p = total / weight
    expected = np.stack([p[0], np.maximum(p[1], p[2])])
    found = Blender(canvas, Grouping((0, 1, 1), 2, "max", "prompts"), 10, taper=False).blend(
        Rect(0, 0, 70, 90), windows
    )
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("everywhere", [True, False])
def test_what_examples_add_to_a_class_joins_its_logit(canvas, everywhere):
    """Against the interpolated unit feature itself, at one pixel of one window; the same added everywhere, or not."""
    random = np.random.default_rng(4)
    grid = window_grid(32, 32, window=32, stride=32)
    texts = random.normal(size=(3, 8)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    residuals = 7 * random.normal(size=(3, 8)).astype(np.float32)
    added = random.normal(size=(3, 1, 1) if everywhere else (3, 32, 32)).astype(np.float32)
    features = random.normal(size=(1, 4, 4, 8)).astype(np.float32)
    grouping = Grouping((0, 0, 2), 3, corrected=True)  # the second class has no words
    windows = scored(grid, grouping.corrected_by(texts, residuals, 5), features)
    blender = Blender(canvas, grouping, 5, taper=False)
    found = blender.blend(Rect(0, 0, 32, 32), windows, added)[:, 10, 17]
    here = added[:, 8:24, 12:30] if not everywhere else added
    assert (blender.blend(Rect(8, 12, 16, 18), windows, here)[:, 2, 5] == found).all()  # whatever the block
    y, x = (10 + 0.5) / 8 - 0.5, (17 + 0.5) / 8 - 0.5
    i, j = int(y), int(x)
    b, d = y - i, x - j
    f = features[0]
    u = (1 - b) * ((1 - d) * f[i, j] + d * f[i, j + 1]) + b * ((1 - d) * f[i + 1, j] + d * f[i + 1, j + 1])
    u /= np.linalg.norm(u)
    words = texts @ u * 5
    logits = (
        np.array([max(words[0], words[1]), 0, words[2]])
        + residuals @ u
        + (added[:, 0, 0] if everywhere else added[:, 10, 17])
    )
    assert np.allclose(found, np.exp(logits) / np.exp(logits).sum(), atol=1e-5)


def test_class_logits_are_the_best_the_mean_or_the_log_of_the_mean():
    logits = np.array([1.0, 2.0, 4.0], np.float32).reshape(3, 1, 1)
    owner = (0, 1, 1)
    assert class_logits(logits, owner, 3).ravel().tolist() == pytest.approx([1, 4, 0])
    assert class_logits(logits, owner, 2, reduction="mean").ravel().tolist() == pytest.approx([1, 3])
    expected = float(np.log((np.exp(2) + np.exp(4)) / 2))
    assert class_logits(logits, owner, 2, reduction="logsumexp").ravel().tolist() == pytest.approx([1, expected])


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
