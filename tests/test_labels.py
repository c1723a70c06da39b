from __future__ import annotations

import numpy as np
import pytest

from resegeo.classes import class_list
from resegeo.features import PatchStore
from resegeo.labels import blend, class_codes, class_probabilities
from resegeo.scores import axis_weights, blend_weights, patch_scores, pixel_cosines, softmax
from resegeo.windows import Rect, blocks, window_grid


def test_blended_blocks_equal_the_naive_average_over_the_whole_scene():
    """Every window evaluated whole and accumulated over the whole scene, against the block-wise form."""
    random = np.random.default_rng(0)
    grid = window_grid(70, 90, window=32, stride=20)
    texts = random.normal(size=(3, 8)).astype(np.float32)
    windows = [window for item in grid.items() for window in item.windows]
    reduced = patch_scores(random.normal(size=(len(windows), 4, 4, 8)).astype(np.float32), texts)
    axis, taper = axis_weights(4, 32), blend_weights(32, taper=True)
    total, weight = np.zeros((3, 70, 90)), np.zeros((70, 90))
    for window, values in zip(windows, reduced, strict=True):
        share = np.outer(taper, taper)
        span = np.s_[window.row : window.bottom, window.col : window.right]
        total[:, *span] += softmax(10 * pixel_cosines(values, axis, axis)) * share
        weight[span] += share
    expected = total / weight
    for block in blocks(70, 90, 33):
        found = blend(block, zip(windows, reduced, strict=True), prompts=3, logit_scale=10, axis=axis, taper=taper)
        assert np.allclose(found, expected[:, block.row : block.bottom, block.col : block.right], atol=1e-5)


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


def test_the_store_gives_back_what_was_put_and_goes_with_its_context(tmp_path):
    path = tmp_path / "store.zarr"
    values = np.random.default_rng(0).normal(size=(2, 7, 4, 4)).astype(np.float32)
    flags = np.array([True, False, True])
    with PatchStore(path, items=3, channels=7, grid=4) as store:
        store.put(1, flags, values)
        assert store.get(0) is None
        found = store.get(1)
        assert found is not None
        assert np.array_equal(found[0], flags)
        assert np.array_equal(found[1][[0, 2]], values)
        assert path.is_dir()
    assert not path.exists()


def test_a_rectangle_meets_another_only_in_shared_pixels():
    assert Rect(0, 0, 5, 5).intersection(Rect(5, 0, 5, 5)) is None
    assert Rect(0, 0, 5, 5).intersection(Rect(4, 3, 5, 5)) == Rect(4, 3, 1, 2)
