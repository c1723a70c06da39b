from __future__ import annotations

import numpy as np
import pytest
from rasterio.features import sieve
from skimage.measure import label
from skimage.segmentation import find_boundaries

from resegeo.outputs.sieve import without_small_areas


def areas(codes, seen):
    """Masks of all 4-connected areas, one by one."""
    numbers = label(np.where(seen, codes.astype(int) + 1, 0), background=0, connectivity=1)
    return [numbers == number for number in range(1, numbers.max() + 1)]


def has_neighbour(area, seen):
    return bool((find_boundaries(area, connectivity=1, mode="outer") & seen).any())


def smooth(seed, side=60):
    """Random codes 1 … 4 in patches of a few pixels, a part of them not seen."""
    random = np.random.default_rng(seed)
    field = random.normal(size=(side, side))
    for axis in (0, 1, 0, 1):
        field = field + np.roll(field, 1, axis)
    codes = (1 + np.digitize(field, np.quantile(field, (0.25, 0.5, 0.75)))).astype(np.uint8)
    return codes, random.random(codes.shape) > 0.1


@pytest.mark.parametrize("least", [2, 9, 40, 10**6])
def test_no_small_area_is_left_that_has_a_neighbour(least):
    for codes, seen in (
        smooth(0),
        smooth(1),
        (np.indices((30, 31)).sum(axis=0).astype(np.uint8) % 2, np.ones((30, 31))),
    ):
        shown = seen.astype(bool)
        after = without_small_areas(codes, shown, least)
        assert after.dtype == codes.dtype
        assert (after[~shown] == codes[~shown]).all()
        assert all(area.sum() >= least or not has_neighbour(area, shown) for area in areas(after, shown))
        assert (without_small_areas(after, shown, least) == after).all()


def test_where_every_small_area_touches_a_large_one_it_is_gdals_sieve():
    random = np.random.default_rng(0)
    codes = np.repeat(np.repeat(random.integers(1, 5, (5, 6)), 20, 0), 20, 1).astype(np.uint8)
    for row, col in random.integers(2, 98, (40, 2)):
        codes[row : row + 2, col] = 9
    seen = np.ones(codes.shape, dtype=bool)
    seen[40:60, 40:60] = False
    expected = np.where(seen, sieve(codes, 10, mask=seen, connectivity=4), codes)
    assert not (expected == 9).all()
    assert (without_small_areas(codes, seen, 10) == expected).all()


def test_of_two_small_areas_alone_the_larger_stays():
    codes = np.array([[255, 255, 255, 255, 255], [255, 1, 2, 2, 255], [255, 255, 255, 255, 255], [3, 3, 3, 3, 3]], "u1")
    after = without_small_areas(codes, codes != 255, 4)
    assert after[1].tolist() == [255, 2, 2, 2, 255]
    assert (after[[0, 2, 3]] == codes[[0, 2, 3]]).all()


def test_nothing_seen_and_a_single_pixel_are_left_alone():
    codes = np.full((3, 4), 7, np.uint16)
    assert (without_small_areas(codes, np.zeros(codes.shape, bool), 5) == 7).all()
    assert without_small_areas(codes[:1, :1], np.ones((1, 1), bool), 5).tolist() == [[7]]
