"""Smooth outlines: neighbours share them to the bit, nothing overlaps, areas stay, stairs go."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from test_polygon_borders import CLASSES, patches
from test_raster import write

from resegeo.outputs import polygons, strips
from resegeo.outputs.polygons import polygonize

PIXEL = 100.0
"""Square metres."""


def drawn(folder, codes, **options):
    write(folder / "a.tif", codes, classes=CLASSES)
    return polygonize(folder / "a.tif", **options)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 3, 255])
    ),
    st.booleans(),
)
def test_smooth_polygons_are_valid_and_share_their_borders(tmp_path, codes, background):
    shapes = drawn(tmp_path, codes, smooth=True, keep_background=background).geometry.values
    assert shapely.is_valid(shapes).all()
    if len(shapes):
        assert shapely.coverage_is_valid(shapes)
        assert shapely.get_num_coordinates(shapes).min() >= 5


@pytest.mark.parametrize("scale", [3.0, 6.0])
def test_areas_stay_and_nothing_overlaps_or_gapes(tmp_path, scale):
    codes = patches(0, 200, scale)
    sharp = drawn(tmp_path, codes, keep_background=True)
    smooth = drawn(tmp_path, codes, keep_background=True, smooth=True)
    assert smooth.class_id.tolist() == sharp.class_id.tolist()
    total = sharp.area_m2.sum()
    assert smooth.area_m2.sum() == pytest.approx(total, rel=0.005)
    union = shapely.coverage_union_all(smooth.geometry.values)
    assert union.area == pytest.approx(smooth.area_m2.sum(), rel=1e-9)  # no overlap
    assert len(union.interiors) == len(shapely.coverage_union_all(sharp.geometry.values).interiors)  # no gap
    by_class = [frame.groupby("class_id").area_m2.sum() for frame in (sharp, smooth)]
    assert np.allclose(by_class[1], by_class[0], rtol=0.02)
    moved = shapely.hausdorff_distance(sharp.geometry.values, smooth.geometry.values, densify=0.5)
    assert moved.max() <= np.sqrt(PIXEL)  # a pixel


def test_small_areas_keep_their_size_and_do_not_become_triangles(tmp_path):
    codes = np.ones((14, 60), np.uint8)
    col = 2
    sizes = [(1, 1), (1, 2), (2, 2), (2, 3), (1, 4), (3, 3), (5, 5), (8, 8)]
    for height, width in sizes:
        codes[3 : 3 + height, col : col + width] = 2
        col += width + 2
    frame = drawn(tmp_path, codes, smooth=True)
    islands = frame[frame.class_id == 2]
    found = sorted((islands.area_m2 / PIXEL).tolist())
    assert np.allclose(found, sorted(height * width for height, width in sizes), rtol=0.005)
    assert (shapely.get_num_coordinates(islands.geometry.values) >= 5).all()


def turns(line):
    """Angles in degrees at the inner points of a line."""
    way = np.diff(shapely.get_coordinates(line), axis=0)
    angle = np.unwrap(np.arctan2(way[:, 1], way[:, 0]))
    return np.abs(np.degrees(np.diff(angle)))


@pytest.mark.parametrize("slope", [1.0, 0.5, 0.3])
def test_a_straight_border_that_slopes_has_no_stairs(tmp_path, slope):
    row, col = np.indices((60, 60))
    codes = np.where(row > 10 + slope * col, 1, 2).astype(np.uint8)
    sharp, smooth = (drawn(tmp_path, codes, smooth=smooth).geometry.values for smooth in (False, True))
    for shapes, steepest in ((sharp, None), (smooth, 12)):
        border = shapely.line_merge(shapely.intersection(shapes[0].exterior, shapes[1].exterior))
        inner = turns(border)[4:-4]
        if steepest is None:
            assert inner.max() == 90
        else:
            assert inner.max(initial=0) < steepest


def test_the_edge_of_the_raster_stays(tmp_path):
    frame = drawn(tmp_path, patches(1, 80, 3.0)[20:], keep_background=True, smooth=True)
    assert shapely.coverage_union_all(frame.geometry.values).equals(shapely.box(500_000, 5_199_400, 500_800, 5_200_000))
    one = drawn(tmp_path, np.ones((5, 7), np.uint8), smooth=True).geometry.values
    assert shapely.get_num_coordinates(one).tolist() == [5]
    assert one[0].area == 35 * PIXEL


def test_curves_do_not_depend_on_strips_and_batches_and_can_be_simplified(tmp_path, monkeypatch):
    codes = patches(2, 90, 2.0)
    expected = drawn(tmp_path, codes, smooth=True)
    simple = drawn(tmp_path, codes, smooth=True, simplify=1)
    assert shapely.coverage_is_valid(simple.geometry.values)
    assert (
        shapely.get_num_coordinates(simple.geometry.values).sum()
        < shapely.get_num_coordinates(expected.geometry.values).sum()
    )
    for rows, vertices in ((7, 80), (40, 4000)):
        monkeypatch.setattr(strips, "ROWS", rows)
        monkeypatch.setattr(polygons, "_VERTICES", vertices)
        assert (drawn(tmp_path, codes, smooth=True).geometry.to_wkb() == expected.geometry.to_wkb()).all()


def test_curves_lie_where_the_scene_does(tmp_path):
    codes = patches(3, 60, 3.0)
    frame = drawn(tmp_path, codes, smooth=True, keep_background=True)
    sharp = drawn(tmp_path, codes, keep_background=True)
    assert np.allclose(frame.total_bounds, sharp.total_bounds, atol=10)
    shared = shapely.area(shapely.intersection(frame.geometry.values, sharp.geometry.values)).sum()
    assert shared > 0.9 * sharp.area_m2.sum()
