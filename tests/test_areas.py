from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import assume, given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin
from test_raster import write

from resegeo.outputs.areas import areas
from resegeo.outputs.polygons import polygonize
from resegeo.scene.source import GeoReference

DEGREES = CRS.from_epsg(4326)
EARTH = 510_065_621_724_078.9
"""Surface of the ellipsoid of WGS 84 in m²."""

_EQUAL_AREA = pyproj.Transformer.from_crs(4326, 6933, always_xy=True)


def projected_area(polygon):
    """Area of a polygon with many more points, in a projection that keeps areas: the oracle."""
    dense = shapely.segmentize(polygon, 0.002)
    return shapely.transform(dense, lambda xy: np.column_stack(_EQUAL_AREA.transform(*xy.T))).area


def of(*polygons, crs=DEGREES):
    return areas(shapely.orient_polygons(np.array(polygons, dtype=object)), crs)


@given(
    st.floats(-170, 130),
    st.floats(-85, 60),
    st.floats(0.01, 40),
    st.floats(0.01, 25),
    st.floats(-3, 3),
)
def test_areas_in_degrees_are_those_of_an_equal_area_projection(west, south, wide, high, slope):
    box = shapely.Polygon([(0, 0), (wide, slope * high / 10), (wide, high), (wide / 3, 1.2 * high), (0, high)])
    hole = shapely.affinity.scale(box, 0.4, 0.4)
    polygon = shapely.transform(shapely.difference(box, hole), lambda xy: xy + np.array([west, south]))
    _, south, _, north = polygon.bounds
    assume(south >= -90 and north <= 90)
    # As near as steps of 0.002° come where an edge slopes.
    assert of(polygon)[0] == pytest.approx(projected_area(polygon), rel=1e-6)


def test_the_whole_globe_has_the_earths_surface():
    assert of(shapely.box(-180, -90, 180, 90))[0] == pytest.approx(EARTH, rel=1e-12)
    halves = of(shapely.box(0, -90.25, 360, 0), shapely.box(0, 0, 360, 90.25))
    assert halves.tolist() == pytest.approx([EARTH / 2] * 2, rel=1e-12)
    paris = CRS.from_epsg(4807)  # grads, on an ellipsoid of its own
    radius, flattening = 6_378_249.2, 1 / 293.466021293627
    e2 = flattening * (2 - flattening)
    whole = 2 * np.pi * radius**2 * (1 + (1 - e2) / np.sqrt(e2) * np.arctanh(np.sqrt(e2)))
    assert of(shapely.box(-200, -100, 200, 100), crs=paris)[0] == pytest.approx(whole, rel=1e-9)


def test_a_sphere_is_an_ellipsoid_too():
    sphere = CRS.from_string("+proj=longlat +R=1000 +no_defs")
    octant = shapely.box(0, 0, 90, 90)
    assert of(octant, crs=sphere)[0] == pytest.approx(np.pi / 2 * 1000**2, rel=1e-12)


def test_small_polygons_are_measured_as_pyproj_does():
    """An edge of a few metres is a geodesic."""
    geod = pyproj.Geod(ellps="WGS84")
    random = np.random.default_rng(0)
    for west, south in random.uniform((-180, -80), (180, 80), (30, 2)):
        polygon = shapely.transform(shapely.Point(0, 0).buffer(1e-4), lambda xy, at=(west, south): xy + np.array(at))
        assert of(polygon)[0] == pytest.approx(abs(geod.geometry_area_perimeter(polygon)[0]), rel=1e-6)


def test_without_degrees_or_metres_there_is_no_area():
    box = shapely.box(0, 0, 1, 1)
    assert np.isnan(of(box, crs=None)).all()
    assert np.isnan(of(box, crs=CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]'))).all()
    assert of(box, crs=CRS.from_epsg(32633)).tolist() == [1.0]
    assert of(crs=DEGREES).tolist() == []


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (from_origin(-180, 90, 5, 5), (36, 72)),
        (Affine(5, 0, -180, 0, 5, -90), (36, 72)),
        (from_origin(-20, 65, 0.5, 0.5), (40, 52)),
    ],
    ids=["the globe", "the globe upside down", "northern seas"],
)
def test_polygons_of_a_raster_in_degrees_add_up_to_what_it_covers(tmp_path, transform, shape):
    codes = np.random.default_rng(0).integers(1, 4, shape).astype(np.uint8)
    codes[:, : shape[1] // 2] = 1  # long edges along parallels
    codes[10:20] = 2
    write(tmp_path / "a.tif", codes, GeoReference(DEGREES, transform))
    frame = polygonize(tmp_path / "a.tif")
    corners = [transform @ (0, 0), transform @ shape[::-1]]
    (west, east), (south, north) = (sorted(values) for values in zip(*corners, strict=True))
    whole = projected_area(shapely.box(west, south, east, north))
    assert frame.area_m2.sum() == pytest.approx(whole, rel=1e-9)
    assert frame.area_m2.tolist() == pytest.approx([projected_area(shape) for shape in frame.geometry], rel=1e-9)
