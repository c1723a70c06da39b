"""Features at clicks are those that the labels are made of."""

from __future__ import annotations

import numpy as np
import pytest

from resegeo.clip.blending import Blender, Grouping, WindowScores
from resegeo.clip.fitting import probabilities
from resegeo.clip.scores import patch_scores, unit
from resegeo.run.example_features import Places, Words, gather
from resegeo.run.store import ItemResult
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect, window_grid


class Kept:
    """Random features of every window but those of one item."""

    def __init__(self, grid, width, seed=0, lost=()):
        random = np.random.default_rng(seed)
        self.items = {}
        for item in grid.items():
            count = len(item.windows)
            values = {
                "features": random.normal(size=(count, 4, 4, width)).astype(np.float16),
                "cls": random.normal(size=(count, width)).astype(np.float16),
            }
            if item.index not in lost:
                self.items[item.index] = ItemResult(np.ones(count, dtype=bool), values)

    def get(self, index):
        return self.items.get(index)


@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.7, 0.8)])
@pytest.mark.parametrize("subtract", [0.0, 0.3])
def test_the_words_say_at_a_click_what_the_blended_labels_say_there(make_raster, picture, factors, subtract):
    canvas = Canvas(open_scene(make_raster("scene.tif", picture(90, 110))), *factors)
    grid = window_grid(canvas.height, canvas.width, window=16, stride=8)
    store = Kept(grid, 6)
    random = np.random.default_rng(1)
    texts = unit(random.normal(size=(4, 6)))
    grouping = Grouping((0, 1, 1, 2), 3)
    places = Places(random.integers(0, 90, 40), random.integers(0, 110, 40), np.arange(40) % 3)
    found, kept = gather(store, canvas, grid, places, Words(texts, grouping, 8.0, subtract), taper=True)
    assert kept.all()
    windows = [
        WindowScores(window, patch_scores(values["features"][n : n + 1], texts)[0], unit(values["cls"][n]) @ texts.T)
        for item in grid.items()
        for values in [store.get(item.index).values]
        for n, window in enumerate(item.windows)
    ]
    whole = Blender(canvas, grouping, 8.0, taper=True, subtract_cls=subtract).blend(Rect(0, 0, 90, 110), windows)
    assert np.allclose(probabilities(found, None), whole[:, places.rows, places.cols].T, atol=1e-5)


def test_a_click_without_a_computed_window_is_left_out(make_raster, picture):
    canvas = Canvas(open_scene(make_raster("scene.tif", picture(90, 110))))
    grid = window_grid(90, 110, window=16, stride=16)
    words = Words(unit(np.eye(2, 6)), Grouping((0, 1), 2), 1.0)
    places = Places(np.array([2, 88]), np.array([2, 108]), np.array([0, 1]))
    found, kept = gather(Kept(grid, 6, lost=(0,)), canvas, grid, places, words, taper=False)
    assert kept.tolist() == [False, True]
    assert found.label.tolist() == [1]
    found, kept = gather(Kept(grid, 6, lost=range(99)), canvas, grid, places, words, taper=False)
    assert not kept.any()
    assert len(found.label) == 0


def test_thinned_places_are_those_of_any_order_and_far_apart():
    random = np.random.default_rng(0)
    rows, cols = (part.ravel() for part in np.mgrid[:100, :100])
    places = Places(rows, cols, (cols > 10).astype(np.int64))
    turned = random.permutation(10_000)
    one, two = places.thinned(50), places.part(np.concatenate([turned, turned[:99]])).thinned(50)
    assert np.array_equal(one.rows, two.rows)
    assert np.array_equal(one.cols, two.cols)
    assert np.bincount(one.label).tolist() == [50, 50]
    assert one.rows.min() < 20 < 80 < one.rows.max()
