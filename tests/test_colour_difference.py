"""Colours and their differences as scikit-image computes them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from resegeo.classes.colour_difference import difference, lab

STEPS = [*itertools.product((0, 1, 10, 51, 128, 200, 254, 255), repeat=3)]


def test_lab_and_ciede2000_are_scikit_images():
    expected = rgb2lab(np.array(STEPS, dtype=np.float64)[None] / 255)[0]
    found = lab(STEPS)
    assert np.allclose(found, expected, atol=1e-9)
    one, two = expected[::3, None], expected[None, ::2]
    assert np.allclose(difference(one, two), deltaE_ciede2000(one, two), atol=1e-9)


@pytest.mark.parametrize(
    ("one", "two", "wanted"),
    [
        ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
        ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
        ((50.0, 2.5, 0.0), (58.0, 24.0, 15.0), 19.4535),
        ((2.0776, 0.0795, -1.135), (0.9033, -0.0636, -0.5514), 0.9082),
    ],
)
def test_pairs_of_the_paper_that_defined_its_corner_cases(one, two, wanted):
    assert difference(np.array(one), np.array(two)) == pytest.approx(wanted, abs=1e-4)
