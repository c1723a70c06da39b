"""Truths as they come: nodata of every type, masks, polygons in other CRSs, layers and collections."""

from __future__ import annotations

import zipfile

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from resegeo.classes.class_file import class_list
from resegeo.evaluation.evaluate import evaluate
from resegeo.outputs.raster import write_class_raster
from resegeo.scene.reader import open_scene
from resegeo.scene.region import Region, read_polygons
from resegeo.scene.source import GeoReference

pytestmark = pytest.mark.filterwarnings("ignore")

PLACE = Affine(10, 0, 500_000, 0, -10, 5_200_000)
CODES = np.repeat(np.array([[0, 1], [2, 1]], np.uint8), 20, 0).repeat(20, 1)


@pytest.fixture
def predicted(tmp_path):
    def write(codes=CODES, transform=PLACE, crs="EPSG:32633"):
        path = tmp_path / "scene.classes.tif"
        where = GeoReference(CRS.from_user_input(crs), transform)
        height, width = codes.shape
        classes = class_list(["water", "forest"])
        write_class_raster(
            path, [(0, 0, codes)], height=height, width=width, georeference=where, classes=classes, tags={}
        )
        return path

    return write


NODATA = [
    ("float32", -3.4028234663852886e38),
    ("float32", -3.40282e38),
    ("float32", float("inf")),
    ("float32", float("nan")),
    ("float32", -9999.9),
    ("float64", -1.7976931348623157e308),
    ("int16", -9999),
    ("uint16", 65535),
]


@pytest.mark.parametrize(("dtype", "nodata"), NODATA)
def test_nodata_of_a_truth_is_not_counted(predicted, make_raster, dtype, nodata):
    real = CODES.astype(dtype)
    real[:, :10] = np.dtype(dtype).type(nodata)
    found = evaluate([(predicted(), make_raster("t.tif", real[None], nodata=nodata))])
    assert found.unlabelled == 400
    assert found.accuracy.mean_iou == 1


@pytest.mark.parametrize(("dtype", "nodata"), [("int64", -(2**63)), ("uint64", 2**64 - 1), ("int64", -9999)])
def test_nodata_of_64_bits_is_not_counted(predicted, make_raster, tmp_path, dtype, nodata):
    real = CODES.astype(dtype)
    real[:, :10] = np.dtype(dtype).type(nodata)
    path = make_raster("t.tif", real[None])
    found = (
        f'<VRTRasterBand dataType="{dtype.title().replace("Ui", "UI")}" band="1"><NoDataValue>{nodata}</NoDataValue>'
    )
    place = ", ".join(map(str, PLACE.to_gdal()))
    (tmp_path / "t.vrt").write_text(
        f'<VRTDataset rasterXSize="40" rasterYSize="40"><SRS>EPSG:32633</SRS><GeoTransform>{place}'
        f'</GeoTransform>{found}<SimpleSource><SourceFilename relativeToVRT="1">{path.name}</SourceFilename>'
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    found = evaluate([(predicted(), tmp_path / "t.vrt")])
    assert found.unlabelled == 400
    assert found.accuracy.mean_iou == 1


def test_declared_nodata_zero_is_no_background_unless_the_legend_says_so(predicted, make_raster):
    pair = (predicted(), make_raster("t.tif", CODES[None], nodata=0))
    assert evaluate([pair]).unlabelled == (CODES == 0).sum()
    assert evaluate([pair], legend="0=background,1=water,2=forest").unlabelled == 0


@pytest.mark.parametrize("internal", [True, False])
def test_what_a_mask_of_the_truth_leaves_out_is_not_counted(predicted, make_raster, internal):
    real = CODES.copy()
    real[:, :10] = 2
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = make_raster("t.tif", real[None])
        with rasterio.open(path, "r+") as raster:
            raster.write_mask(np.where(np.arange(40) < 10, 0, 255).astype(np.uint8)[None].repeat(40, 0))
    found = evaluate([(predicted(), path)])
    assert found.unlabelled == 400
    assert found.accuracy.mean_iou == 1


def test_infinity_and_fractions_beside_nodata_are_told_apart(predicted, make_raster):
    real = CODES.astype(np.float32)
    real[0, 0] = 0.5
    from resegeo.errors import ResegeoError

    with pytest.raises(ResegeoError, match="holds fractions"):
        evaluate([(predicted(), make_raster("t.tif", real[None], nodata=-9999.9))])


def field(edge: float, crs: str, codes_crs: str = "EPSG:32633"):
    """A strip along the parallel of the scene's upper half, whose northern edge is one long line of a CRS."""
    return gpd.GeoDataFrame(
        {"class_name": ["water"]}, geometry=[shapely.box(15 - edge, 46.5, 15 + edge, 46.93)], crs=crs
    )


@pytest.mark.parametrize("edge", [1, 15, 30])
def test_long_edges_of_polygons_stay_straight_where_they_were_drawn(predicted, tmp_path, edge):
    """The oracle turns each pixel's centre to degrees and asks which side of the parallel it lies on."""
    import pyproj

    field(edge, "EPSG:4326").to_file(tmp_path / "t.gpkg")
    rows, cols = np.mgrid[0:400:1, 0:400:1]
    place = Affine(100, 0, 480_000, 0, -100, 5_220_000)
    x, y = place @ (cols + 0.5, rows + 0.5)
    latitude = pyproj.Transformer.from_crs(32633, 4326, always_xy=True).transform(x, y)[1]
    expected = ((latitude < 46.93) & (latitude > 46.5)).astype(np.uint8)
    assert 0 < expected.mean() < 1
    found = evaluate([(predicted(expected, place), tmp_path / "t.gpkg")], legend="outside=background,water=water")
    assert found.accuracy.counts.sum() - np.trace(found.accuracy.counts[:, : len(found.accuracy.names)]) <= 4


def test_polygons_of_a_later_layer_and_in_collections_are_found(predicted, tmp_path):
    box = shapely.box(500_000, 5_199_800, 500_400, 5_200_000)
    lines = gpd.GeoDataFrame({"a": [1]}, geometry=[box.boundary], crs="EPSG:32633")
    inside = shapely.GeometryCollection([box, shapely.Point(0, 0)])
    polygons = gpd.GeoDataFrame({"class_name": ["water"]}, geometry=[inside], crs="EPSG:32633")
    other = gpd.GeoDataFrame({"b": [1]}, geometry=[box], crs="EPSG:32633")
    for name, frame in (("lines", lines), ("other", other), ("fields", polygons)):
        frame.to_file(tmp_path / "t.gpkg", layer=name)
    found = evaluate([(predicted(), tmp_path / "t.gpkg")])
    assert found.accuracy.counts.sum() == 800


def test_a_path_of_gdals_own_keeps_its_slashes(predicted, make_raster, tmp_path):
    path = make_raster("t.tif", CODES[None])
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.write(path, "t.tif")
    predicted()
    for truth in (f"/vsizip/{tmp_path}/t.zip/t.tif", f"zip://{tmp_path}/t.zip!t.tif"):
        assert evaluate([(tmp_path / "scene.classes.tif", truth)]).accuracy.mean_iou == 1


def test_a_polygon_that_crosses_itself_keeps_both_lobes_in_another_crs(make_raster, tmp_path):
    scene = open_scene(make_raster("a.tif", np.ones((3, 80, 80), np.uint8)))
    corners = [(500_003, 5_199_999), (500_803, 5_199_199), (500_803, 5_199_999), (500_003, 5_199_199)]
    bow = shapely.Polygon(corners)
    frame = gpd.GeoDataFrame(geometry=[bow], crs="EPSG:32633")
    frame.to_file(tmp_path / "here.gpkg")
    frame.to_crs(4326).to_file(tmp_path / "there.gpkg")
    from resegeo.scene.windows import Rect

    here, there = (
        Region(read_polygons(str(tmp_path / name), scene, "--aoi"), PLACE).mask(Rect(0, 0, 80, 80))
        for name in ("here.gpkg", "there.gpkg")
    )
    assert here.sum() == pytest.approx(3200, abs=80)
    assert (here != there).sum() <= 4


def test_segments_leave_out_what_a_mask_leaves_out(make_raster):
    from resegeo.scene.resampling import Canvas
    from resegeo.scene.windows import Rect
    from resegeo.segments.segment_sources import LabelRaster

    scene = open_scene(make_raster("a.tif", np.ones((3, 40, 40), np.uint8)))
    path = make_raster("s.tif", CODES[None] + 1)
    with rasterio.open(path, "r+") as raster:
        raster.write_mask(np.where(np.arange(40) < 10, 0, 255).astype(np.uint8)[None].repeat(40, 0))
    ids = LabelRaster(path, Canvas(scene)).ids(Rect(0, 0, 40, 40))[0]
    assert (ids[:, :10] == 0).all()
    assert (ids[:, 10:] == CODES[:, 10:] + 1).all()
