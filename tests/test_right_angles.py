"""Right-angled outlines: near the buildings that pixels were made of, in a layer of their own."""

from __future__ import annotations

import json

import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from click.testing import CliRunner
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.features import rasterize, shapes
from shapely import affinity
from test_companions import project
from test_raster import write

import resegeo
from resegeo.classes.class_file import class_list
from resegeo.errors import UsageError
from resegeo.outputs.right_angles import right_angled
from resegeo.run.commands import vectorize
from resegeo.scene.source import GeoReference
from resegeo_cli.main import main

CLASSES = class_list(["building", "other"])
BUILDINGS = {
    "rectangle": shapely.box(0, 0, 30, 18),
    "small": shapely.box(0, 0, 8, 8),
    "L": shapely.Polygon([(0, 0), (32, 0), (32, 14), (14, 14), (14, 30), (0, 30)]),
    "U": shapely.Polygon([(0, 0), (36, 0), (36, 30), (24, 30), (24, 12), (12, 12), (12, 30), (0, 30)]),
    "T": shapely.Polygon([(0, 0), (40, 0), (40, 10), (26, 10), (26, 32), (14, 32), (14, 10), (0, 10)]),
    "courtyard": shapely.box(0, 0, 40, 36) - shapely.box(12, 12, 28, 24),
    "cross": shapely.box(0, 10, 34, 24) | shapely.box(10, 0, 24, 34),
    "bar": shapely.box(0, 0, 44, 5),
    "stairs": shapely.Polygon([(0, 0), (36, 0), (36, 10), (24, 10), (24, 20), (12, 20), (12, 30), (0, 30)]),
    "square": shapely.box(0, 0, 20, 20),
}


def placed(shape, angle, side=80):
    """Turn a building, with its middle in that of a raster of so many pixels."""
    turned = affinity.rotate(shape, angle, origin=(0, 0))
    middle = turned.envelope.centroid
    return affinity.translate(turned, side // 2 + 0.3 - middle.x, side // 2 - 0.2 - middle.y)


def pixels(shape, side=80):
    """Codes (side, side) of a building, and its area as a polygon of pixels."""
    codes = rasterize([(shape, 1)], (side, side)).astype(np.uint8)
    found = [shapely.geometry.shape(each) for each, value in shapes(codes, connectivity=4) if value == 1]
    return codes, max(found, key=lambda each: each.area)


def share(one, other):
    return one.intersection(other).area / one.union(other).area


def corners(polygon):
    """Angles in degrees by which the outline turns at its corners."""
    found = []
    for ring in (polygon.exterior, *polygon.interiors):
        points = np.array(ring.coords[:-1])
        before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
        cross = before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]
        found += np.degrees(np.arctan2(cross, (before * after).sum(axis=1))).tolist()
    return np.abs(found)


@pytest.mark.parametrize("angle", [0, 17, 45, 73])
@pytest.mark.parametrize("name", BUILDINGS)
def test_an_outline_is_right_angled_and_near_the_building(name, angle):
    truth = placed(BUILDINGS[name], angle)
    _, area = pixels(truth)
    outline, fit = right_angled(area)
    assert outline.is_valid
    assert np.allclose(corners(outline), 90, atol=1e-6)
    assert fit == pytest.approx(share(outline, area))
    assert share(outline, truth) > min(0.9, share(area, truth) - 0.06)
    if angle == 0:
        assert outline.equals(area)
    if name not in ("bar", "small"):  # of few pixels across
        assert len(corners(outline)) == len(corners(BUILDINGS[name]))


def test_an_outline_says_more_of_a_building_than_ragged_pixels_do():
    from scipy import ndimage

    random = np.random.default_rng(1)
    before, after = [], []
    for name in BUILDINGS:
        truth = placed(BUILDINGS[name], 17)
        codes, _ = pixels(truth)
        ragged = ndimage.gaussian_filter(random.normal(size=codes.shape), 1.5)
        depth = ndimage.distance_transform_edt(codes) - ndimage.distance_transform_edt(1 - codes)
        codes = (depth + ragged / ragged.std() > 0).astype(np.uint8)
        found = [shapely.geometry.shape(each) for each, value in shapes(codes, connectivity=4) if value == 1]
        area = max(found, key=lambda each: each.area)
        before.append(share(area, truth))
        after.append(share(right_angled(area)[0], truth))
    assert np.mean(after) > np.mean(before)


def test_what_has_no_right_angles_keeps_its_outline():
    ring = shapely.Point(30, 30).buffer(25) - shapely.Point(30, 30).buffer(23)
    half = ring.intersection(shapely.box(0, 0, 60, 20))
    assert right_angled(half) == (half, 1.0)


def test_one_pixel_and_a_hole_of_noise():
    one = shapely.box(3, 4, 4, 5)
    assert right_angled(one)[0].equals(one)
    holed = shapely.box(0, 0, 20, 20) - shapely.box(9, 9, 10, 10)
    assert right_angled(holed)[0].equals(shapely.box(0, 0, 20, 20))


def town(path, transform=None, crs=32633):
    """A class raster of three buildings among other things."""
    codes = np.full((80, 160), 2, np.uint8)
    for name, angle, col in (("L", 17, 0), ("rectangle", 30, 80)):
        part = pixels(placed(BUILDINGS[name], angle))[0] > 0
        codes[:, col : col + 80][part] = 1
    codes[:4, :4], codes[70:, 150:] = 1, 255
    where = GeoReference(CRS.from_epsg(crs), transform or Affine(0.5, 0, 500_000, 0, -0.5, 5_200_000))
    write(path, codes, where, classes=CLASSES)
    return path


def test_a_geopackage_holds_outlines_in_a_second_layer_and_the_first_is_as_ever(tmp_path):
    raster = town(tmp_path / "town.classes.tif")
    vectorize(raster, tmp_path / "plain.gpkg")
    vectorize(raster, tmp_path / "town.gpkg", regularize=("building",))
    plain, with_them = (pyogrio.read_dataframe(tmp_path / f"{n}.gpkg", layer=n) for n in ("plain", "town"))
    assert plain.equals(with_them)
    found = pyogrio.read_dataframe(tmp_path / "town.gpkg", layer="town_regularized")
    assert found.crs == plain.crs
    assert set(found.class_name) == {"building"}
    own = plain[plain.class_name == "building"]
    assert len(found) == len(own) == 3
    for outline, area, fit in zip(found.geometry, own.geometry, found.iou, strict=True):
        assert np.allclose(corners(outline), 90, atol=1e-4)
        assert share(outline, area) == pytest.approx(fit, abs=1e-4)
    assert found.area_m2.tolist() == pytest.approx(found.area.tolist())
    assert found.columns.tolist() == [
        *("class_id", "class_name", "area_m2", "perim_m", "iou", "prompts", "scene", "geometry")
    ]
    styles = pyogrio.read_dataframe(tmp_path / "town.gpkg", layer="layer_styles", read_geometry=False)
    assert styles.f_table_name.tolist() == ["town", "town_regularized"]
    assert ["other" in text for text in styles.styleQML] == [True, False]


@pytest.mark.parametrize("suffix", ["shp", "geojson", "fgb", "parquet", "kml"])
def test_a_format_of_one_layer_gets_a_second_file_with_styles(tmp_path, suffix):
    import geopandas as gpd

    raster = town(tmp_path / "town.classes.tif")
    vectorize(raster, tmp_path / f"town.{suffix}", regularize="building")
    path = tmp_path / f"town.regularized.{suffix}"
    found = gpd.read_parquet(path) if suffix == "parquet" else pyogrio.read_dataframe(path)
    assert len(found) == 3
    assert {"town.regularized.qml", "town.regularized.sld"} <= {each.name for each in tmp_path.iterdir()}
    (tmp_path / f"town.{suffix}").unlink()
    with pytest.raises(resegeo.ResegeoError, match=r"town.* exists"):
        vectorize(raster, tmp_path / f"town.{suffix}", regularize="building")


def test_angles_are_right_on_the_ground_where_pixels_are_not_square(tmp_path):
    degrees = Affine(1e-5, 0, 10.0, 0, -0.6e-5, 60.0)
    raster = town(tmp_path / "town.classes.tif", degrees, 4326)
    vectorize(raster, tmp_path / "town.gpkg", regularize="building")
    found = pyogrio.read_dataframe(tmp_path / "town.gpkg", layer="town_regularized")
    geod = Geod(ellps="WGS84")
    for outline in found.geometry:
        lon, lat = np.array(outline.exterior.coords).T
        ahead, _, _ = geod.inv(lon[:-1], lat[:-1], lon[1:], lat[1:])
        turns = (np.diff([*ahead, ahead[0]]) + 180) % 360 - 180
        assert np.allclose(np.abs(turns), 90, atol=0.1)


def test_scenes_are_collected_with_their_outlines(tmp_path):
    for name, col in (("a", 0), ("b", 200)):
        town(tmp_path / f"{name}.classes.tif", Affine(0.5, 0, 500_000 + col, 0, -0.5, 5_200_000))
    vectorize(tmp_path / "a.classes.tif", tmp_path / "all.gpkg", append=True)
    for name in ("b", "a"):
        given = {"overwrite": True, "append": True, "regularize": ["building"]}
        vectorize(tmp_path / f"{name}.classes.tif", tmp_path / "all.gpkg", **given)
    found = pyogrio.read_dataframe(tmp_path / "all.gpkg", layer="all_regularized")
    assert found.scene.tolist() == ["b"] * 3 + ["a"] * 3
    assert len(pyogrio.read_dataframe(tmp_path / "all.gpkg", layer="all")) == 8
    styles = pyogrio.read_dataframe(tmp_path / "all.gpkg", layer="layer_styles", read_geometry=False)
    assert styles.f_table_name.tolist() == ["all", "all_regularized"]


def test_a_class_that_does_not_occur_gives_an_empty_layer_and_one_that_is_none_a_sentence(tmp_path):
    write(tmp_path / "a.classes.tif", np.full((9, 9), 2, np.uint8), classes=CLASSES)
    command = ["vectorize", str(tmp_path / "a.classes.tif"), "-o", str(tmp_path / "a.gpkg"), "--regularize"]
    assert CliRunner().invoke(main, [*command, "building"]).exit_code == 0
    assert len(pyogrio.read_dataframe(tmp_path / "a.gpkg", layer="a_regularized")) == 0
    with pytest.raises(UsageError, match=r'regularize="Building": there is no such class; did you mean building'):
        vectorize(tmp_path / "a.classes.tif", tmp_path / "b.gpkg", regularize=["Building"])
    assert not (tmp_path / "b.gpkg").exists()


@pytest.mark.usefixtures("quick_model")
def test_a_run_writes_outlines_tells_of_them_and_knows_them_again(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(64, 80))
    given = {"vector": ("gpkg", "fgb"), "regularize": ["water", "road"]}
    made = resegeo.segment(scene, ["water", "forest", "road"], tmp_path / "out", **given)
    assert [path.name for path in made.vectors] == ["scene.gpkg", "scene.fgb", "scene.regularized.fgb"]
    found = pyogrio.read_dataframe(made.vectors[2])
    assert len(found)
    assert set(found.class_name) <= {"water", "road"}
    assert found.score_mean.between(0, 1).all()
    sources = [layer.findtext("datasource") for layer in project(tmp_path / "out/scene.qgz").iter("maplayer")]
    assert sources[:2] == ["./scene.gpkg|layername=scene_regularized", "./scene.gpkg|layername=scene"]
    assets = json.loads((tmp_path / "out/scene.stac.json").read_text("utf-8"))["assets"]
    assert assets["regularized_fgb"]["href"] == "./scene.regularized.fgb"
    assert resegeo.segment(scene, ["water", "forest", "road"], tmp_path / "out", **given).reused
    # Without them the file of its own is gone: it would stand there as if the new run's.
    resegeo.segment(scene, ["water", "forest", "road"], tmp_path / "out", vector="fgb", overwrite=True)
    assert not made.vectors[2].exists()
    with pytest.raises(UsageError, match=r'regularize="house": there is no such class'):
        resegeo.segment(scene, ["water", "forest"], tmp_path / "other", regularize="house")
