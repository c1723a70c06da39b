"""What was made quicker comes to the same numbers, bit by bit, as the plain way of writing it down."""

from __future__ import annotations

import numpy as np
import pytest

from resegeo.clip.blending import best_class, class_ranks
from resegeo.clip.scores import axis_weights, patch_scores, pixel_cosines, unit
from resegeo.outputs.raster import _counted
from resegeo.run.compute import reduced
from resegeo.run.quantisation import quantise, restore


def plain_scores(features, texts):
    """Neighbours as copies of all patches, moved by one and clamped at the border."""
    f = features.astype(np.float32)
    right = np.concatenate([f[:, :, 1:], f[:, :, -1:]], axis=2)
    lower = np.concatenate([f[:, 1:], f[:, -1:]], axis=1)
    beyond = np.concatenate([right[:, 1:], right[:, -1:]], axis=1)

    def dot(a, b):
        return np.einsum("brcd,brcd->brc", a, b)

    products = [dot(f, f), dot(f, right), dot(f, lower), dot(f, beyond) + dot(right, lower)]
    return np.concatenate([np.moveaxis(f @ texts.T, -1, 1), np.stack(products, axis=1)], axis=1, dtype=np.float32)


@pytest.mark.parametrize(("windows", "grid", "dimension"), [(3, 14, 512), (2, 16, 128), (1, 2, 7), (1, 1, 5)])
def test_products_of_neighbours_are_those_of_moved_copies(windows, grid, dimension):
    random = np.random.default_rng(grid)
    features = random.normal(size=(windows, grid, grid, dimension)).astype(np.float32)
    texts = unit(random.normal(size=(5, dimension)))
    assert np.array_equal(patch_scores(features, texts), plain_scores(features, texts))


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_windows_are_scored_one_by_one_as_all_together(dtype):
    random = np.random.default_rng(3)
    features = random.normal(size=(5, 14, 14, 96)).astype(np.float32)
    kept = quantise(features, dtype) | {"cls": random.normal(size=(5, 96)).astype(np.float16)}
    texts = unit(random.normal(size=(4, 96)))
    assert np.array_equal(reduced(kept, texts)["reduced"], plain_scores(restore(kept), texts))


def test_every_number_of_two_bytes_is_restored_exactly():
    codes = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(4, 8, 16, 128)
    found = restore({"features": codes})
    assert np.array_equal(found, codes.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(found), np.signbit(codes))
    codes.setflags(write=False)
    assert np.array_equal(restore({"features": codes[:, ::2]}), codes[:, ::2].astype(np.float32), equal_nan=True)


@pytest.mark.parametrize("count", [1, 2, 7, 300])
def test_the_best_class_is_that_of_argmax_ties_and_missing_ones_too(count):
    random = np.random.default_rng(count)
    by_class = random.integers(0, 4, (count, 30, 40)).astype(np.float32)  # full of ties
    by_class[:, 3:5, 7:] = np.nan
    best, top = best_class(by_class)
    assert np.array_equal(best, by_class.argmax(axis=0))
    assert np.array_equal(top, by_class.max(axis=0), equal_nan=True)
    if count > 1:
        first, second, margin = class_ranks(by_class)
        order = np.argsort(-np.nan_to_num(by_class, nan=-9), axis=0, kind="stable")
        seen = ~np.isnan(margin)
        assert np.array_equal(first, best)
        assert np.array_equal(second[seen], order[1][seen])
        assert (seen == ~np.isnan(by_class[0])).all()


def test_cosines_written_into_given_memory_are_the_same():
    random = np.random.default_rng(5)
    window = patch_scores(random.normal(size=(1, 4, 4, 8)).astype(np.float32), unit(random.normal(size=(3, 8))))[0]
    axis = axis_weights(4, (np.arange(20) + 0.5) / 20)
    room = np.full((3, 20, 20), np.nan, dtype=np.float32)
    found = pixel_cosines(window, axis, axis, out=room)
    assert found.base is room or found is room
    assert np.array_equal(found, pixel_cosines(window, axis, axis))


def test_codes_are_counted_as_numpy_counts_them():
    codes = np.random.default_rng(6).choice([0, 3, 254, 255, 65535], size=(9, 11)).astype(np.uint16)
    found, times = np.unique(codes, return_counts=True)
    assert _counted(codes) == dict(zip(found.tolist(), times.tolist(), strict=True))
