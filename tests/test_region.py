from __future__ import annotations

import warnings
import zipfile

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.transform import from_origin

import resegeo
from resegeo.errors import GeoreferenceWarning, InputNotice, ResegeoError, UsageError
from resegeo.scene.reader import open_scene
from resegeo.scene.region import Region, read_polygons, region_of
from resegeo.scene.windows import Rect

WORDS = ["water", "forest", "road"]
TRANSFORM = from_origin(500_000, 5_200_000, 10, 10)


def codes_of(result):
    with rasterio.open(result.raster) as raster:
        return raster.read(1)


def centres_inside(scene, frame):
    """Pixels whose centre lies in the polygons, each centre brought into their CRS: edges are straight there."""
    with rasterio.open(scene) as raster:
        rows, cols = np.indices((raster.height, raster.width)) + 0.5
        t, crs = raster.transform, raster.crs
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    forth = pyproj.Transformer.from_crs(crs.to_wkt(), frame.crs, always_xy=True)
    return shapely.contains_xy(shapely.union_all(frame.geometry.values), *forth.transform(x, y))


@pytest.fixture
def scene(make_raster, picture):
    return make_raster("scene.tif", picture(700, 600))


@pytest.fixture
def aoi(tmp_path):
    """A triangle inside the scene, in degrees."""
    triangle = shapely.Polygon([(501_000, 5_199_000), (504_500, 5_198_000), (502_000, 5_195_500)])
    frame = gpd.GeoDataFrame(geometry=[triangle], crs="EPSG:32633")
    frame.to_crs(4326).to_file(tmp_path / "aoi.geojson")
    return tmp_path / "aoi.geojson"


def test_labels_inside_equal_those_of_the_whole_and_outside_is_nodata(scene, aoi, tmp_path):
    whole = codes_of(resegeo.segment(scene, WORDS, tmp_path / "whole", vector=()))
    part = resegeo.segment(scene, WORDS, tmp_path / "part", aoi=aoi)
    outside = ~centres_inside(scene, gpd.read_file(aoi))
    assert np.array_equal(codes_of(part), np.where(outside, 255, whole))
    assert 0.05 < (~outside).mean() < 0.5
    import json

    windows = json.loads(part.report.read_text("utf-8"))["windows"]
    assert windows["skipped"] > 0
    assert windows["done"] + windows["skipped"] == windows["planned"]


def test_a_box_in_the_scenes_crs(scene, tmp_path):
    codes = codes_of(resegeo.segment(scene, WORDS, tmp_path / "out", bbox=(501_000, 5_198_000, 502_000, 5_199_000)))
    inside = codes != 255
    assert inside[100:200, 100:200].all()
    assert inside.sum() == 100 * 100


def mask_of(scene, aoi=None, bbox=None):
    opened = open_scene(scene)
    region = region_of(opened, None if aoi is None else str(aoi), bbox)
    assert region is not None
    return region.mask(Rect(0, 0, opened.height, opened.width))


BOX = shapely.box(501_000, 5_198_000, 502_000, 5_199_000)


@pytest.mark.parametrize("suffix", ["gpkg", "shp", "geojson", "fgb", "parquet"])
def test_any_vector_file_will_do(scene, tmp_path, suffix):
    path = tmp_path / f"aoi.{suffix}"
    frame = gpd.GeoDataFrame(geometry=[BOX], crs="EPSG:32633")
    frame.to_parquet(path) if suffix == "parquet" else frame.to_crs(4326).to_file(path)
    inside = mask_of(scene, path)
    assert inside[101:199, 101:199].all()
    assert abs(inside.sum() - 100 * 100) < 250


def test_a_vector_file_inside_an_archive(scene, tmp_path):
    gpd.GeoDataFrame(geometry=[BOX], crs="EPSG:32633").to_file(tmp_path / "aoi.gpkg")
    with zipfile.ZipFile(tmp_path / "aoi.zip", "w") as archive:
        archive.write(tmp_path / "aoi.gpkg", "aoi.gpkg")
    assert mask_of(scene, f"/vsizip/{tmp_path / 'aoi.zip'}/aoi.gpkg").sum() == 100 * 100


def test_a_polygon_around_the_globe_holds_the_scene(scene, tmp_path):
    gpd.GeoDataFrame(geometry=[shapely.box(-180, -90, 180, 90)], crs=4326).to_file(tmp_path / "world.geojson")
    assert mask_of(scene, tmp_path / "world.geojson").all()


def test_long_edges_are_straight_in_the_files_own_crs(make_raster, tmp_path):
    """A parallel is no straight line in UTM: over a kilometre off halfway between corners four degrees apart."""
    scene = make_raster(
        "wide.tif", np.ones((3, 40, 1100), np.uint8), transform=from_origin(445_000, 6_654_000, 100, 100)
    )
    frame = gpd.GeoDataFrame(geometry=[shapely.box(13, 60, 17, 61)], crs=4326)
    frame.to_file(tmp_path / "aoi.geojson")
    inside = mask_of(scene, tmp_path / "aoi.geojson")
    assert 0.05 < inside.mean() < 0.95
    assert np.array_equal(inside, centres_inside(scene, frame))


@pytest.mark.parametrize(
    "transform",
    [Affine(10, 0, 500_000, 0, 10, 5_195_000), Affine(8, 3, 500_000, 3, -8, 5_200_000)],
    ids=["up", "turned"],
)
def test_south_up_and_rotated_scenes(make_raster, tmp_path, transform):
    scene = make_raster("a.tif", np.ones((3, 400, 500), np.uint8), transform=transform)
    frame = gpd.GeoDataFrame(
        geometry=[shapely.Polygon([(501_003, 5_196_011), (503_011, 5_198_933), (503_333, 5_197_055)])], crs="EPSG:32633"
    )
    frame.to_file(tmp_path / "aoi.gpkg")
    expected = centres_inside(scene, frame)
    assert expected.any()
    assert np.array_equal(mask_of(scene, tmp_path / "aoi.gpkg"), expected)


def test_longitudes_a_full_turn_away_are_the_same_place(make_raster, tmp_path):
    scene = make_raster(
        "a.tif", np.ones((3, 40, 50), np.uint8), crs="EPSG:4326", transform=from_origin(179.95, 10, 0.002, 0.002)
    )
    expected = np.zeros((40, 50), bool)
    expected[:, 30:] = True  # east of 180.01
    for west in (-179.99, 180.01):
        aoi = tmp_path / f"aoi{west}.geojson"
        gpd.GeoDataFrame(geometry=[shapely.box(west, 9, west + 0.09, 11)], crs=4326).to_file(aoi)
        assert np.array_equal(mask_of(scene, aoi), expected)
        assert np.array_equal(mask_of(scene, bbox=(west, 9, west + 0.09, 11)), expected)
    assert np.array_equal(mask_of(scene, bbox=(180.01, 9, -179.9, 11)), expected)


def test_what_is_assumed_of_a_vector_file_is_said(scene, tmp_path):
    gpd.GeoDataFrame(geometry=[BOX]).to_file(tmp_path / "bare.shp")
    with pytest.warns(GeoreferenceWarning, match="bare.shp has no CRS; its coordinates are taken to be in the scene's"):
        assert mask_of(scene, tmp_path / "bare.shp").sum() == 100 * 100
    for layer in ("first", "second"):
        gpd.GeoDataFrame(geometry=[BOX], crs="EPSG:32633").to_file(tmp_path / "two.gpkg", layer=layer)
    with pytest.warns(InputNotice, match="has the layers first, second; the polygons of first are taken"):
        mask_of(scene, tmp_path / "two.gpkg")


def test_polygons_inside_a_collection_count(scene, tmp_path):
    beside = shapely.box(503_000, 5_198_000, 504_000, 5_199_000)
    inner = shapely.GeometryCollection([shapely.MultiPolygon([beside]), shapely.Point(0, 0)])
    collection = shapely.GeometryCollection([shapely.Point(501_000, 5_198_000), BOX, inner])
    lines = shapely.GeometryCollection([shapely.LineString([(501_000, 5_198_000), (502_000, 5_198_000)])])
    for name, shapes in (("alone", [collection]), ("among others", [lines, BOX, collection])):
        gpd.GeoDataFrame(geometry=shapes, crs="EPSG:32633").to_file(tmp_path / f"{name}.gpkg")
        assert mask_of(scene, tmp_path / f"{name}.gpkg").sum() == 2 * 100 * 100
    region = Region(read_polygons(str(tmp_path / "alone.gpkg"), open_scene(scene), "--segments"), TRANSFORM)
    assert set(np.unique(region.ids(Rect(0, 0, 700, 600)))) == {0, 1}  # one feature, one segment


KML = """<?xml version="1.0"?><kml xmlns="http://www.opengis.net/kml/2.2"><Document>
<Folder><name>roads</name><Placemark><LineString><coordinates>15,46 15.1,47</coordinates></LineString></Placemark>
</Folder><Folder><name>fields</name><Placemark><MultiGeometry><Point><coordinates>15,46.9</coordinates></Point>
<Polygon><outerBoundaryIs><LinearRing><coordinates>14,46 16,46 16,48 14,48 14,46</coordinates></LinearRing>
</outerBoundaryIs></Polygon></MultiGeometry></Placemark></Folder></Document></kml>"""


def test_the_layer_that_holds_polygons_is_found(scene, tmp_path):
    line = shapely.LineString([(501_000, 5_198_000), (502_000, 5_198_000)])
    for layer, shape in (("roads", line), ("names", shapely.Point(501_000, 5_198_000)), ("fields", BOX)):
        gpd.GeoDataFrame(geometry=[shape], crs="EPSG:32633").to_file(tmp_path / "all.gpkg", layer=layer)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputNotice)  # the only layer that may hold polygons is no choice
        assert mask_of(scene, tmp_path / "all.gpkg").sum() == 100 * 100
    (tmp_path / "all.kml").write_text(KML)
    with pytest.warns(InputNotice, match="has the layers roads, fields; the polygons of fields are taken"):
        assert mask_of(scene, tmp_path / "all.kml").all()


def test_only_some_classes_are_written(scene, tmp_path):
    whole = codes_of(resegeo.segment(scene, WORDS, tmp_path / "whole", vector=()))
    result = resegeo.segment(scene, WORDS, tmp_path / "only", only=["forest"])
    assert np.array_equal(codes_of(result), np.where(whole == 2, 2, 0))
    names = gpd.read_file(result.vectors[0], layer="scene").class_name.unique().tolist()
    assert names in ([], ["forest"])
    with pytest.raises(UsageError, match="--only lake: there is no such class; the class file has water, forest"):
        resegeo.segment(scene, WORDS, tmp_path / "x", only=["lake"])


def test_any_rectangle_of_a_region_is_the_same_part_of_the_whole(scene, aoi):
    region = region_of(open_scene(scene), str(aoi), None)
    assert region is not None
    whole = region.mask(Rect(0, 0, 700, 600))
    assert np.array_equal(region.mask(Rect(90, 130, 200, 150)), whole[90:290, 130:280])
    assert not region.mask(Rect(-500, -500, 100, 100)).any()


def test_mistakes_are_one_sentence(scene, aoi, tmp_path, make_raster):
    opened = open_scene(scene)
    with pytest.raises(UsageError, match="exclude each other"):
        region_of(opened, str(aoi), (0, 0, 1, 1))
    for box in ((5, 0, 1, 1), (0, 0, float("inf"), 1), (float("nan"), 0, 1, 1), (1, 2, 3)):
        with pytest.raises(UsageError, match="is empty; expected left,bottom,right,top"):
            region_of(opened, None, box)
    with pytest.raises(ResegeoError, match="lies beside the scene"):
        region_of(opened, None, (0, 0, 1, 1))
    with pytest.raises(ResegeoError, match="no such file"):
        region_of(opened, "none.gpkg", None)
    with pytest.raises(ResegeoError, match="cannot be opened as a vector file"):
        region_of(opened, str(scene), None)
    points = tmp_path / "points.gpkg"
    gpd.GeoDataFrame(geometry=[shapely.Point(0, 0)], crs="EPSG:32633").to_file(points)
    with pytest.raises(ResegeoError, match="holds no polygons"):
        region_of(opened, str(points), None)


def test_polygons_of_the_user_are_segments_one_level_a_file(scene, tmp_path):
    from resegeo.scene.resampling import Canvas
    from resegeo.segments.segment_sources import segment_source

    boxes = [shapely.box(500_000 + 1000 * k, 5_194_000, 500_900 + 1000 * k, 5_199_000) for k in range(5)]
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32633").to_crs(3857).to_file(tmp_path / "parcels.gpkg")
    gpd.GeoDataFrame(geometry=boxes[:1], crs="EPSG:32633").to_file(tmp_path / "houses.shp")
    name = f"{tmp_path / 'parcels.gpkg'},{tmp_path / 'houses.shp'}"
    ids = segment_source(name, Canvas(open_scene(scene)), areas=()).ids(Rect(0, 0, 700, 600))
    assert ids.shape == (2, 700, 600)
    assert ids[0, 300, [50, 150, 250, 95]].tolist() == [1, 2, 3, 0]
    assert set(np.unique(ids[1])) == {0, 1}
    result = resegeo.segment(scene, WORDS, tmp_path / "out", segments=name, vector=())
    assert (codes_of(result) < 254).all()
