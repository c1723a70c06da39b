from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.transform import Affine, GCPTransformer, from_gcps

import resegeo
from resegeo.errors import GeoreferenceWarning, UsageError
from resegeo.outputs.polygons import polygonize
from resegeo.scene.gcps import fit_affine, mapped, missed_by, unplaced
from resegeo.scene.resampling import canvas_of, ground_sample_distance
from resegeo.scene.source import GeoReference

TURNED = Affine(8, 3, 500_000, 3, -8, 5_200_000)


def points(places, transform=TURNED, noise=0.0):
    shifts = np.random.default_rng(0).normal(0, noise, (len(places), 2)) if noise else np.zeros((len(places), 2))
    found = []
    for (row, col), (dx, dy) in zip(places, shifts, strict=True):
        x, y = transform @ (col, row)
        found.append(GroundControlPoint(row, col, x + dx, y + dy))
    return found


@given(st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 40)), min_size=3, max_size=9, unique=True))
def test_the_affine_fit_passes_through_points_that_span_the_scene(places):
    found = fit_affine(points(places))
    rows, cols = np.array(places).T
    level = np.linalg.matrix_rank(np.stack([rows - rows[0], cols - cols[0]]))
    assert (found is None) == (level < 2)
    if found is not None:  # however nearly in a line they lie
        assert np.allclose(found @ (cols, rows), TURNED @ (cols, rows), rtol=0, atol=1e-4)


def test_the_affine_fit_of_points_that_miss_it_is_gdals():
    noisy = points([(r, c) for r in (0, 40, 90) for c in (0, 55, 60, 70)], noise=5.0)
    assert np.allclose(tuple(fit_affine(noisy))[:6], tuple(from_gcps(noisy))[:6], rtol=1e-9, atol=1e-6)


def test_two_points_settle_a_transform_without_rotation():
    straight = Affine(10, 0, 500, 0, -20, 900)
    two = points([(0, 0), (60, 70)], straight)
    assert fit_affine(two).almost_equals(straight, 1e-9)
    assert mapped(two, np.array([[7.0, 6.0]])).tolist() == [[570.0, 780.0]]


@pytest.mark.parametrize(
    "places",
    [[(5, 5)], [(5, 5)] * 4, [(5, 0), (5, 9)], [(0, 0), (10, 13), (20, 26)], [(k, 2 * k) for k in range(12)]],
    ids=["one", "one place", "two in a row", "three in a line", "twelve in a line"],
)
def test_points_in_a_line_settle_nothing_as_gdal_says_too(places):
    where = points(places)
    with pytest.raises(Exception, match=r"Not enough points|not solvable"):
        GCPTransformer(where)
    assert fit_affine(where) is None
    assert "not tell where its pixels lie: there are no polygons" in unplaced(GeoReference(None, None, tuple(where)))
    with pytest.raises(ValueError, match="settle no transform"):
        mapped(where, np.array([[1.0, 2.0]]))


def test_points_all_at_one_place_of_the_map_settle_nothing():
    assert fit_affine([GroundControlPoint(r, c, 10, 50) for r, c in ((0, 0), (0, 9), (9, 0))]) is None


def test_points_of_a_long_strip_lie_on_no_line():
    where = points([(0, 0), (0, 7), (100_000, 0), (100_000, 7)])
    assert fit_affine(where).almost_equals(TURNED, 1e-3)


def test_what_a_polynomial_cannot_pass_through_goes_by_the_affine_fit(capfd):
    """Six points in two rows settle no polynomial of second order, which is GDAL's choice for six."""
    two_rows = points([(r, c) for r in (0, 60) for c in (0, 35, 70)])
    with pytest.raises(Exception, match="not solvable"):
        GCPTransformer(two_rows)
    capfd.readouterr()
    pixels = np.array([[3.0, 4.0], [70.0, 60.0]])
    assert np.allclose(mapped(two_rows, pixels), [TURNED @ tuple(at) for at in pixels], rtol=0, atol=1e-6)
    assert missed_by(two_rows) < 1e-6
    assert capfd.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_a_place_is_told_at_once_and_has_neither_polygons_nor_a_pixel_size(make_raster, tmp_path):
    import rasterio

    bands = np.random.default_rng(0).integers(1, 250, (3, 60, 70)).astype(np.uint8)
    path = make_raster("a.tif", bands, crs=None, transform=None)
    with rasterio.open(path, "r+") as raster:
        raster.gcps = (points([(30, 35)]), CRS.from_epsg(32633))
    scene = resegeo.open_scene(path)
    assert ground_sample_distance(scene) is None
    with pytest.raises(
        UsageError, match=r"has one ground control point, which does not tell where its pixels lie. Leave"
    ):
        canvas_of(scene, 5.0)
    with pytest.warns(GeoreferenceWarning, match="there are no polygons") as caught:
        result = resegeo.segment(path, ["water", "forest"], tmp_path / "out", segments="none")
    assert [str(note.message) for note in caught if "pixels of" in str(note.message)] == []
    assert result.vectors == ()
    with rasterio.open(result.raster) as raster:
        assert len(raster.gcps[0]) == 1
    with pytest.raises(resegeo.ResegeoError, match=r"has one ground control point.*there are no polygons"):
        polygonize(result.raster)
    assert resegeo.segment(path, ["water", "forest"], tmp_path / "out", segments="none").reused
