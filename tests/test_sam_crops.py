"""Crops of SAM's exact mode, a level: as many as its numbers say."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
from test_sam import discs, library_ids, model  # noqa: F401

from resegeo.errors import UsageError
from resegeo.segments.sam_levels import PAPER_LEVELS, SamLevel
from resegeo.segments.sam_masks import SamSegmenter
from resegeo.settings import Settings, resolve_settings


def test_a_level_without_crops_equals_the_library(model):  # noqa: F811
    rgb = discs(96, 96, 3)
    level = SamLevel(4, 0.3, 0.3, 20, crop_n_layers=0)
    expected = library_ids(model, rgb, level, points_per_side=4, crop_n_layers=0)
    assert expected.any()
    np.testing.assert_array_equal(SamSegmenter(model, [level]).window_ids(rgb)[0], expected)


def test_the_usual_crops_leave_the_identity_of_a_run_as_it_was():
    plain = Settings().as_dict()["sam_levels"]
    assert [set(level) for level in plain] == [
        {"points_per_side", "pred_iou_thresh", "stability_score_thresh", "min_mask_region_area"}
    ] * 4
    assert resolve_settings({"sam_levels": plain}).sam_levels == PAPER_LEVELS
    other = {**asdict(PAPER_LEVELS[0]), "crop_n_layers": 0}
    kept = resolve_settings({"sam_levels": [other]}).as_dict()["sam_levels"][0]
    assert kept["crop_n_layers"] == 0
    assert resolve_settings({"sam_levels": [kept]}).sam_levels[0].crop_n_layers == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"crop_n_layers": 4}, "crop_n_layers 4 is not possible; expected a whole number from 0 to 3"),
        ({"crop_n_points_downscale_factor": 0}, "downscale_factor 0 is not possible"),
        ({"crop_n_layers": 2, "points_per_side": 2}, "points_per_side 2 is not possible; .* of 4 or more, a point"),
    ],
)
def test_crops_that_cannot_be_are_refused(changes, expected):
    with pytest.raises(UsageError, match=expected):
        SamLevel(**{**asdict(PAPER_LEVELS[0]), **changes})
