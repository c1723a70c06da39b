from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import rasterio.features
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.rpc import RPC
from rasterio.transform import Affine, from_origin
from test_raster import UTM, write

from resegeo.errors import InputNotice, ResegeoError
from resegeo.outputs import polygons
from resegeo.outputs.borders import Borders
from resegeo.outputs.polygons import polygonize
from resegeo.outputs.strips import Areas, Codes
from resegeo.scene.source import GeoReference

reuse_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


@reuse_folder
@given(
    hnp.arrays(
        np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 1, 2, 3, 255])
    )
)
def test_polygons_are_a_valid_coverage_of_exactly_the_classed_pixels(tmp_path, codes):
    write(tmp_path / "a.tif", codes)
    frame = polygonize(tmp_path / "a.tif")
    shapes = frame.geometry.values
    assert shapely.is_valid(shapes).all()
    drawn = (codes > 0) & (codes < 254)
    assert frame.area_m2.sum() == drawn.sum() * 100
    if len(frame):
        assert shapely.coverage_is_valid(shapes)
        assert shapely.union_all(shapes).area == pytest.approx(drawn.sum() * 100)
        back = rasterio.features.rasterize(
            zip(shapes, frame.class_id, strict=True), out_shape=codes.shape, transform=UTM.transform, dtype="uint8"
        )
        assert np.array_equal(back, np.where(drawn, codes, 0))


@reuse_folder
@given(hnp.arrays(np.uint8, (12, 12), elements=st.sampled_from([0, 1, 2])), st.sampled_from([0.7, 1.5, 3.0]))
def test_simplified_polygons_still_share_their_borders(tmp_path, codes, tolerance):
    write(tmp_path / "a.tif", codes)
    frame = polygonize(tmp_path / "a.tif", simplify=tolerance, keep_background=True)
    assert shapely.coverage_is_valid(frame.geometry.values)
    assert shapely.is_valid(frame.geometry.values).all()


def test_a_ring_that_does_not_enclose_its_pixels_is_refused(tmp_path):
    codes = np.random.default_rng(5).integers(0, 3, (8, 9)).astype(np.uint8)
    borders = Borders.trace(Areas.find(Codes.of(codes), lambda part: part > 0))
    polygons._refuse_faults(tmp_path, borders)
    wrong = borders.areas.sizes.copy()
    wrong[[1, 2]] += 1, -1
    with pytest.raises(ResegeoError, match="a defect of resegeo"):
        polygons._refuse_faults(tmp_path, replace(borders, areas=replace(borders.areas, sizes=wrong)))


def test_the_sieve_gives_small_areas_to_a_neighbour_and_leaves_nodata(tmp_path):
    codes = np.ones((10, 10), np.uint8)
    codes[3, 3] = 2
    codes[6:, :] = 255
    codes[6, 5] = 254
    write(tmp_path / "a.tif", codes)
    frame = polygonize(tmp_path / "a.tif", min_area=4)
    assert frame.class_id.tolist() == [1]
    assert frame.area_m2.sum() == 60 * 100
    for size in (100, 101, 10**12):  # from the whole raster on
        assert polygonize(tmp_path / "a.tif", min_area=size).class_id.tolist() == [1]


def test_areas_are_geodesic_in_degrees_and_absent_without_a_crs(tmp_path):
    codes = np.ones((10, 10), np.uint8)
    degrees = GeoReference(CRS.from_epsg(4326), from_origin(10, 50, 0.01, 0.01))
    write(tmp_path / "a.tif", codes, degrees)
    # about 11.13 km × 7.17 km at 50 degrees north
    assert polygonize(tmp_path / "a.tif").area_m2.sum() == pytest.approx(79.8e6, rel=0.01)
    write(tmp_path / "b.tif", codes, GeoReference(None, from_origin(0, 0, 1, 1)))
    assert polygonize(tmp_path / "b.tif").area_m2.isna().all()
    feet = GeoReference(CRS.from_epsg(2263), from_origin(980_000, 200_000, 10, 10))
    write(tmp_path / "c.tif", codes, feet)
    assert polygonize(tmp_path / "c.tif").area_m2.sum() == pytest.approx(10_000 * 0.3048006096**2, rel=1e-6)


def test_rotated_and_south_up_scenes_keep_shared_vertices(tmp_path):
    codes = np.random.default_rng(0).integers(1, 4, (30, 30)).astype(np.uint8)
    for transform in (Affine(0.3, 0.1, 7, -0.1, 0.3, 9), Affine(10, 0, 0, 0, 10, 0)):
        write(tmp_path / "a.tif", codes, GeoReference(CRS.from_epsg(32633), transform))
        frame = polygonize(tmp_path / "a.tif")
        assert shapely.coverage_is_valid(frame.geometry.values)
        assert frame.area_m2.sum() == pytest.approx(900 * abs(transform.determinant))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_gcp_scenes_are_drawn_in_the_crs_of_their_gcps(tmp_path):
    gcps = tuple(GroundControlPoint(r, c, 10 + c / 100, 50 - r / 100, 0) for r in (0, 15, 30) for c in (0, 20, 40))
    write(tmp_path / "a.tif", np.ones((30, 40), np.uint8), GeoReference(None, None, gcps, CRS.from_epsg(4326)))
    frame = polygonize(tmp_path / "a.tif")
    assert frame.crs.to_epsg() == 4326
    assert frame.total_bounds == pytest.approx([10, 49.7, 10.4, 50], abs=1e-9)


def regions_by_flood(codes):
    """Number the 4-connected regions of equal code in reading order, pixel by pixel: the naive oracle."""
    found = np.full(codes.shape, -1)
    firsts = []
    for start in np.ndindex(codes.shape):
        if found[start] >= 0:
            continue
        stack = [start]
        while stack:
            row, col = stack.pop()
            inside = 0 <= row < codes.shape[0] and 0 <= col < codes.shape[1]
            if inside and found[row, col] < 0 and codes[row, col] == codes[start]:
                found[row, col] = len(firsts)
                stack += [(row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)]
        firsts.append(start)
    return found, firsts


@reuse_folder
@given(hnp.arrays(np.uint8, (9, 8), elements=st.sampled_from([1, 2, 3])))
def test_one_polygon_a_region_in_reading_order_with_a_vertex_wherever_three_meet(tmp_path, codes):
    write(tmp_path / "a.tif", codes, GeoReference(None, from_origin(0, 0, 1, 1)))
    frame = polygonize(tmp_path / "a.tif")
    regions, firsts = regions_by_flood(codes)
    assert frame.class_id.tolist() == [codes[first] for first in firsts]
    assert frame.geometry.area.tolist() == np.bincount(regions.ravel()).tolist()
    assert shapely.is_ccw(shapely.get_exterior_ring(frame.geometry.values)).all()
    vertices = [{(x, -y) for x, y in shapely.get_coordinates(shape)} for shape in frame.geometry]
    around = np.pad(regions, 1, constant_values=-1)
    for row, col in np.ndindex(codes.shape[0] + 1, codes.shape[1] + 1):
        meeting = set(around[row : row + 2, col : col + 2].ravel().tolist())
        if len(meeting) >= 3:
            assert all((col, row) in vertices[region] for region in meeting - {-1})


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_scene_without_any_place_is_drawn_in_pixels_downwards(tmp_path):
    write(tmp_path / "a.tif", np.ones((30, 40), np.uint8), GeoReference(None, None))
    frame = polygonize(tmp_path / "a.tif")
    assert frame.crs is None
    assert frame.total_bounds.tolist() == [0, -30, 40, 0]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_rpcs_alone_give_no_polygons_and_one_sentence(tmp_path):
    offsets = {
        f"{axis}_{kind}": 10.0 for axis in ("height", "lat", "line", "long", "samp") for kind in ("off", "scale")
    }
    names = ("line_den_coeff", "line_num_coeff", "samp_den_coeff", "samp_num_coeff")
    rpcs = RPC(**offsets, **dict.fromkeys(names, [1.0] * 20))
    write(tmp_path / "a.tif", np.ones((30, 40), np.uint8), GeoReference(None, None, rpcs=rpcs))
    with pytest.raises(ResegeoError, match="without an elevation model there are no polygons"):
        polygonize(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_what_the_control_points_are_missed_by_is_said(tmp_path):
    gcps = [GroundControlPoint(r, c, c, -r, 0) for r in (0, 15, 30) for c in (0, 20, 40)]
    gcps[4] = GroundControlPoint(15, 20, 23, -15, 0)  # 3 m off; with an affine fit the middle one keeps 8/9 of it
    write(tmp_path / "a.tif", np.ones((30, 40), np.uint8), GeoReference(None, None, tuple(gcps), CRS.from_epsg(32633)))
    with pytest.warns(InputNotice, match=r"9 ground control points, missed by 0\.\d+ metre") as caught:
        polygonize(tmp_path / "a.tif")
    said = float(str(caught[0].message).split("missed by ")[1].split()[0])
    # Second order through 9 points (GDAL's choice), by numpy as the oracle.
    cols, rows = np.array([(g.col, g.row) for g in gcps]).T
    design = np.stack([np.ones(9), cols, rows, cols**2, rows * cols, rows**2], axis=1)
    x = np.array([g.x for g in gcps], dtype=float)
    left = x - design @ np.linalg.lstsq(design, x, rcond=None)[0]
    assert said == pytest.approx(np.sqrt((left**2).mean()), rel=0.01)


def test_background_is_drawn_on_demand_and_nodata_never(tmp_path):
    codes = np.repeat(np.array([0, 1, 254, 255], np.uint8), 5)[None].repeat(4, axis=0)
    write(tmp_path / "a.tif", codes)
    assert polygonize(tmp_path / "a.tif").class_name.tolist() == ["water"]
    assert polygonize(tmp_path / "a.tif", keep_background=True).class_name.tolist() == ["background", "water"]


@pytest.mark.parametrize("rows", [-0.001, 0.001], ids=["north-up", "south-up"])
def test_a_hole_is_subtracted_from_a_geodesic_area(tmp_path, rows):
    codes = np.ones((9, 9), np.uint8)
    codes[3:6, 3:6] = 2
    write(tmp_path / "a.tif", codes, GeoReference(CRS.from_epsg(4326), Affine(0.001, 0, 10, 0, rows, 50)))
    for simplify in (0.0, 0.3):
        frame = polygonize(tmp_path / "a.tif", simplify=simplify).set_index("class_id")
        assert frame.area_m2[1] == pytest.approx(8 * frame.area_m2[2], rel=1e-3)
        assert shapely.is_ccw(shapely.get_exterior_ring(frame.geometry.values)).all()


def test_score_means_are_those_of_the_regions_in_reading_order(tmp_path):
    """Against scipy's labels, whatever the shapes: spirals, nested rings, single pixels."""
    from scipy import ndimage

    from resegeo.outputs.polygons import _score_means

    for seed in range(20):
        random = np.random.default_rng(seed)
        codes = random.integers(0, 3, (23, 31)).astype(np.uint8)
        if seed % 2:
            codes = codes.repeat(3, axis=0).repeat(3, axis=1)
        wanted = random.random(codes.shape) > 0.1
        scores = random.integers(0, 201, codes.shape).astype(np.uint8)
        found = {}
        for code in range(3):
            labels, count = ndimage.label((codes == code) & wanted)
            for number in range(1, count + 1):
                inside = labels == number
                found[np.flatnonzero(inside.ravel())[0]] = scores[inside].mean() / 200
        expected = [found[first] for first in sorted(found)]
        for rows in (5, 23):
            areas = Areas.find(Codes.of(np.where(wanted, codes, 9)), lambda part: part != 9, rows)
            assert np.allclose(_score_means(areas, scores), expected, atol=5.1e-5)
    nothing = Areas.find(Codes.of(codes), lambda part: np.zeros(part.shape, dtype=bool))
    assert _score_means(nothing, scores).shape == (0,)
