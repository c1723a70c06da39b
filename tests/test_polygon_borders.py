"""Borders traced in strips: against GDAL's polygonizer, GEOS's check of coverages, and themselves in other strips."""

from __future__ import annotations

import os

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import gaussian_filter
from test_raster import write

from resegeo.classes.class_file import class_list
from resegeo.outputs import polygons, strips
from resegeo.outputs.borders import Borders, chains
from resegeo.outputs.polygons import draw, polygonize
from resegeo.outputs.raster import sieved
from resegeo.outputs.sieve import without_small, without_small_areas
from resegeo.outputs.strips import Areas, Codes

SMALL = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.sampled_from([0, 1, 2, 3])
)
CLASSES = class_list(["water", "forest", "roof", "road", "grass"])


def patches(seed, side, scale=4.0):
    """Codes 0 … 4 in patches, some nodata in between."""
    random = np.random.default_rng(seed)
    field = gaussian_filter(random.standard_normal((side, side), dtype=np.float32), scale)
    codes = np.digitize(field, np.quantile(field, (0.2, 0.4, 0.6, 0.8))).astype(np.uint8)
    codes[: side // 9, side // 2 :] = 255
    return codes


def drawn(codes):
    return codes > 0


def rings(codes, rows, vertices=10**6):
    borders = Borders.trace(Areas.find(Codes.of(codes), drawn, rows))
    found = []
    for batch in borders.batches(vertices):
        for ring, area in enumerate(batch.area_of.tolist()):
            found.append((area, batch.points[batch.ring_of == ring].tolist()))
    return found


def corners(ring):
    """Points of a ring (open) at which it turns."""
    points = np.asarray(ring, dtype=int)
    turns = ((points - np.roll(points, 1, 0)) * (np.roll(points, -1, 0) - points)).sum(axis=1) == 0
    return points[turns].tolist()


@settings(max_examples=60)
@given(SMALL)
def test_rings_turn_where_those_of_gdal_do_whatever_the_strips(codes):
    shapes = [shape["coordinates"] for shape, _ in rasterio.features.shapes(codes, mask=drawn(codes), connectivity=4)]
    shapes.sort(key=lambda shape: shape[0][0][::-1])
    expected = [(area, corners(ring[:-1])) for area, shape in enumerate(shapes, start=1) for ring in shape]
    whole = rings(codes, 100)
    assert [(area, corners(ring)) for area, ring in whole] == expected
    for rows in (1, 2, 5):
        assert rings(codes, rows) == whole
        assert rings(codes, rows, vertices=7) == whole


@settings(max_examples=60)
@given(SMALL, st.sampled_from([2, 5, 30]))
def test_sieve_and_numbers_of_areas_do_not_depend_on_the_strips(codes, least):
    whole = Areas.find(Codes.of(codes), drawn, 100)
    expected = without_small_areas(codes, drawn(codes), least)
    for rows in (1, 2, 5):
        areas = Areas.find(Codes.of(codes), drawn, rows)
        assert np.array_equal(areas.sizes, whole.sizes)
        assert np.array_equal(areas.values[1:], whole.values[1:])
        numbers = np.concatenate([part for _, _, part in areas.strips()])
        assert np.array_equal(numbers, next(whole.strips())[2])
        small = without_small(Codes.of(codes), drawn, least, rows)
        for other in (1, 3, 100):
            assert np.array_equal(np.concatenate([part for _, part in small.strips(other)]), expected)


@pytest.mark.parametrize("options", [{}, {"simplify": 1.5}, {"min_area": 9}], ids=str)
def test_polygons_are_the_same_to_the_bit_whatever_strips_and_batches(tmp_path, monkeypatch, options):
    codes = patches(0, 90, 2.0)
    write(tmp_path / "a.tif", codes, classes=CLASSES)
    expected = polygonize(tmp_path / "a.tif", keep_background=True, **options)
    assert shapely.coverage_is_valid(expected.geometry.values)
    for rows, vertices in ((1, 50), (13, 400), (64, 10**6)):
        monkeypatch.setattr(strips, "ROWS", rows)
        monkeypatch.setattr(polygons, "_VERTICES", vertices)
        found = polygonize(tmp_path / "a.tif", keep_background=True, **options)
        assert (found.geometry.to_wkb() == expected.geometry.to_wkb()).all()
        assert found.drop(columns="geometry").equals(expected.drop(columns="geometry"))


def check_against_gdal(folder, codes):
    """Areas, union and validity of polygons against those that GDAL draws of the same raster."""
    write(folder / "a.tif", codes, classes=CLASSES)
    frame = polygonize(folder / "a.tif")
    shapes = frame.geometry.values
    seen = (codes > 0) & (codes < 254)
    theirs = sorted(
        (shape["coordinates"][0][0][::-1], int(value))
        for shape, value in rasterio.features.shapes(codes, mask=seen, connectivity=4)
    )
    assert frame.class_id.tolist() == [value for _, value in theirs]
    assert shapely.is_valid(shapes).all()
    assert shapely.area(shapes).sum() == seen.sum() * 100
    assert shapely.coverage_is_valid(shapes)
    x, y = frame.total_bounds[0], frame.total_bounds[3]
    assert x >= 500_000
    assert y <= 5_200_000
    back = rasterio.features.rasterize(
        zip(shapes, frame.class_id, strict=True),
        out_shape=codes.shape,
        transform=rasterio.transform.from_origin(500_000, 5_200_000, 10, 10),
        dtype="uint8",
    )
    assert np.array_equal(back, np.where(seen, codes, 0))


def test_polygons_of_patches_are_those_of_gdal(tmp_path, monkeypatch):
    monkeypatch.setattr(strips, "ROWS", 64)
    check_against_gdal(tmp_path, patches(1, 300))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_polygons_of_large_rasters_are_those_of_gdal(tmp_path, seed):
    check_against_gdal(tmp_path, patches(seed, 2000, 6.0 + seed))


OPTIONS = [{"smooth": True}, {"simplify": 1.5}, {"min_area": 25}, {"keep_background": True, "smooth": True}]


def check_after(folder, options):
    """Whether polygons are a valid coverage of what is drawn after an option; no area is lost or there twice."""
    frame = polygonize(folder / "a.tif", **options)
    shapes = frame.geometry.values
    assert shapely.is_valid(shapes).all()
    assert shapely.coverage_is_valid(shapes)
    apart, together = shapely.area(shapes).sum(), shapely.area(shapely.coverage_union_all(shapes))
    assert apart == pytest.approx(together, rel=1e-9)
    return apart


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_after_every_option_large_rasters_give_a_valid_coverage(tmp_path, options, seed):
    codes = patches(seed, 2000, 6.0 + seed)
    write(tmp_path / "a.tif", codes, classes=CLASSES)
    background = options.get("keep_background", False)
    wanted = ((codes < 254) & (background | (codes > 0))).sum() * 100
    close = 5e-3 if "smooth" in options or "simplify" in options or "min_area" in options else 0
    assert check_after(tmp_path, options) == pytest.approx(wanted, rel=close)


@pytest.mark.slow
@pytest.mark.parametrize(
    "tiles",
    [
        2,
        pytest.param(
            5,
            marks=pytest.mark.skipif(
                "RESEGEO_LARGE_TESTS" not in os.environ, reason="takes a quarter of an hour: set RESEGEO_LARGE_TESTS"
            ),
        ),
    ],
)
def test_a_very_large_raster_gives_a_valid_coverage_of_its_pixels_across_all_seams(tmp_path, tiles):
    tile = patches(11, 2000, 20.0)
    tile[tile == 255] = 0
    rows = [np.concatenate([tile[:, :: 1 - 2 * (col % 2)] for col in range(tiles)], axis=1) for _ in range(tiles)]
    codes = np.concatenate([row[:: 1 - 2 * (number % 2)] for number, row in enumerate(rows)])
    assert codes.shape == (2000 * tiles, 2000 * tiles)
    check_against_gdal(tmp_path, codes)
    assert check_after(tmp_path, {"smooth": True}) == pytest.approx((codes > 0).sum() * 100, rel=5e-3)


def test_a_drawing_counts_its_polygons_and_is_gone_through_again(tmp_path, monkeypatch):
    write(tmp_path / "a.tif", patches(2, 60, 2.0), classes=CLASSES)
    monkeypatch.setattr(polygons, "_VERTICES", 40)
    drawing = draw(tmp_path / "a.tif")
    first, again = list(drawing), list(drawing)
    assert len(first) > 2
    assert [len(frame) for frame in first] == [len(frame) for frame in again]
    assert sum(map(len, first)) == len(drawing)
    assert set().union(*(frame.class_id for frame in first)) == drawing.class_ids


def test_the_sieve_of_a_class_raster_is_that_of_its_codes_in_memory(tmp_path):
    from test_raster import UTM

    from resegeo.outputs.raster import write_class_raster

    codes = np.repeat(patches(3, 300, 1.5), 4, axis=0)  # three strips
    blocks = [(row, 0, codes[row : row + 256]) for row in range(0, len(codes), 256)]
    counts = write_class_raster(
        tmp_path / "a.tif",
        blocks,
        height=codes.shape[0],
        width=codes.shape[1],
        georeference=UTM,
        classes=CLASSES,
        tags={},
        min_area=30,
    )
    expected = sieved(codes, CLASSES, 30)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert np.array_equal(raster.read(1), expected)
    values, times = np.unique(expected, return_counts=True)
    assert counts == dict(zip(values.tolist(), times.tolist(), strict=True))
    assert not np.array_equal(expected, codes)


@pytest.mark.parametrize("seed", range(3))
def test_chains_and_cycles_are_followed_to_their_end(seed):
    random = np.random.default_rng(seed)
    nodes = random.permutation(50)
    following = np.full(50, -1)
    parts = np.split(nodes, [1, 9, 10, 30])
    for number, part in enumerate(parts):
        following[part[:-1]] = part[1:]
        if number % 2:
            following[part[-1]] = part[0]
    order, lengths = chains(following)
    assert sorted(order.tolist()) == list(range(50))
    found = np.split(order, np.cumsum(lengths)[:-1])
    expected = [np.roll(part, -np.argmin(part)) if number % 2 else part for number, part in enumerate(parts)]
    assert sorted(part.tolist() for part in found) == sorted(part.tolist() for part in expected)
    assert [len(part) for part in chains(np.empty(0, dtype=np.int64))] == [0, 0]
