"""Lengths and areas as people write them."""

from __future__ import annotations

import pytest

from resegeo.errors import UsageError
from resegeo.units import Measure, area, length, metres


@pytest.mark.parametrize(
    ("text", "value", "pixels"),
    [
        ("50m2", 50, False),
        ("50 m²", 50, False),
        ("0.5ha", 5000, False),
        ("1e-3km2", 1000, False),
        ("20px", 20, True),
        ("20", 20, True),
        (20, 20, True),
    ],
)
def test_areas(text, value, pixels):
    found = area(text, "min_area")
    assert found.value == pytest.approx(value)
    assert found.pixels is pixels


def test_lengths():
    assert length("1.5m", "simplify") == Measure(1.5, pixels=False)
    assert length("20cm", "simplify").value == pytest.approx(0.2)
    assert length("1.5px", "simplify") == length(1.5, "simplify") == Measure(1.5, pixels=True)
    assert metres("20cm", "gsd") == pytest.approx(0.2)
    assert metres("0.2", "gsd") == metres(0.2, "gsd") == 0.2


def test_into_pixels():
    assert area("50m2", "min_area").in_pixels(0.25, "min_area") == 200
    assert area("7px", "min_area").in_pixels(None, "min_area") == 7
    with pytest.raises(UsageError, match=r"min_area: the scene has no pixel size"):
        area("50m2", "min_area").in_pixels(None, "min_area")


@pytest.mark.parametrize("text", ["", "m2", "50 parsec", "-3m2", "nan", "inf", "1.5m", True, "1" * 400 + "m2"])
def test_what_is_no_area_is_told(text):
    with pytest.raises(UsageError, match=r"min_area is .*expected 50m2, 0.5ha or 20px"):
        area(text, "min_area")


def test_a_ground_distance_is_not_in_pixels():
    with pytest.raises(UsageError, match="gsd is '3px'; expected a length on the ground"):
        metres("3px", "gsd")
