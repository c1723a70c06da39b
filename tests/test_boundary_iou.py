"""Borders: by distance transforms of whole images, mask by mask, where the library filters blocks of labels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_cdt, distance_transform_edt
from test_evaluate import predicted, random_codes  # noqa: F401  a fixture

import resegeo.scene.windows
from resegeo.errors import UsageError
from resegeo.evaluation.borders import boundaries, near_borders
from resegeo.evaluation.evaluate import evaluate
from resegeo.evaluation.metrics import UNKNOWN

LEGEND = "1=water,2=forest,3=road,0=background"


def naive_boundary_iou(real, said, width, code):
    """|(G_d ∩ G) ∩ (P_d ∩ P)| / |(G_d ∩ G) ∪ (P_d ∩ P)|, the edge of the image being a contour."""
    parts = []
    for labels in (real, said):
        mask = np.pad((labels == code) & (real >= 0), 1)
        parts.append((mask & (distance_transform_cdt(mask, metric="chessboard") <= width))[1:-1, 1:-1])
    union = (parts[0] | parts[1]).sum()
    return (parts[0] & parts[1]).sum() / union if union else np.nan


def naive_near(real, radius):
    near = np.zeros(real.shape, dtype=bool)
    for code in np.unique(real[real >= 0]):
        others = (real >= 0) & (real != code)
        if others.any():
            near |= (real == code) & (distance_transform_edt(~others) <= radius)
    return near


@settings(max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(0, 3))
def test_maps_of_one_block_are_counted_as_the_naive_form_counts(seed, width, more):
    random = np.random.default_rng(seed)
    shape = random.integers(1, 40, 2)
    real, said = (random.integers(-1 if real else 0, 4, shape // 6 + 1).repeat(6, 0).repeat(6, 1) for real in (1, 0))
    real, said = real[: shape[0], : shape[1]], said[: shape[0], : shape[1]]
    margin = width + more
    wide_real, wide_said = (np.pad(labels, margin, constant_values=UNKNOWN) for labels in (real, said))
    expected = [naive_boundary_iou(real, said, width, code) for code in range(4)]
    assert boundaries(wide_real, wide_said, margin, width, 4).iou == pytest.approx(expected, nan_ok=True)
    assert (near_borders(wide_real, margin, width) == naive_near(real, width)).all()


def test_blocks_of_an_image_add_up_to_the_naive_form(predicted, make_raster, monkeypatch):  # noqa: F811
    monkeypatch.setattr(resegeo.scene.windows.blocks, "__defaults__", (16,))
    guess, real = random_codes(1), random_codes(2)
    real[20:40, 30:50] = 9  # nobody named it
    pair = [(predicted(guess), make_raster("truth.tif", real[None]))]
    found = evaluate(pair, legend=LEGEND, boundary="3px", ignore_border="2.4px")
    labels = np.where(real == 9, -1, real.astype(int))
    assert found.accuracy.names == ("water", "forest", "road", "background")
    expected = [naive_boundary_iou(labels, guess, 3, code) for code in (1, 2, 3, 0)]
    assert found.boundary is not None
    assert found.boundary.iou == pytest.approx(expected)
    assert found.mean_boundary_iou == pytest.approx(np.mean(expected[:3]))
    left = (labels >= 0) & ~naive_near(labels, 2)
    assert found.near == naive_near(labels, 2).sum()
    assert found.accuracy.overall == pytest.approx((labels == guess)[left].mean())
    assert found.accuracy.pixels == left.sum()
    assert found.as_dict()["pixels_near_borders"] == found.near


def test_a_map_that_is_right_has_boundary_iou_1_whatever_is_not_labelled(predicted, make_raster):  # noqa: F811
    guess = random_codes(1)
    real = guess.copy()
    real[:, 40:] = 9
    found = evaluate([(predicted(guess), make_raster("truth.tif", real[None]))], legend=LEGEND, boundary="2%")
    assert found.boundary is not None
    assert found.boundary.iou.tolist() == [1, 1, 1, 1]


@pytest.mark.parametrize(("text", "pixels"), [("20m", 2), ("3px", 3), ("10%", 11)])
def test_widths_are_lengths_or_shares_of_the_diagonal(predicted, make_raster, text, pixels):  # noqa: F811
    guess, real = random_codes(1), random_codes(2)
    pair = [(predicted(guess), make_raster("truth.tif", real[None]))]  # pixels of 10 m
    found = evaluate(pair, legend=LEGEND, boundary=text)
    expected = [naive_boundary_iou(real.astype(int), guess, pixels, code) for code in (1, 2, 3, 0)]
    assert found.boundary is not None
    assert found.boundary.iou == pytest.approx(expected)


@pytest.mark.parametrize("text", ["0px", "x", "-1px", "9km", "1.2.3%", "2000%", "900px"])
def test_a_width_that_makes_no_sense_is_refused(predicted, make_raster, text):  # noqa: F811
    pair = [(predicted(random_codes(1)), make_raster("truth.tif", random_codes(2)[None]))]
    with pytest.raises(UsageError, match="ignore_border"):
        evaluate(pair, legend=LEGEND, ignore_border=text)
