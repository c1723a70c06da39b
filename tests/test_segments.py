from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest
import shapely
from rasterio.transform import from_origin

from resegeo.errors import ResegeoError
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import Canvas
from resegeo.scene.windows import Rect
from resegeo.segments.segment_sources import TILE, LabelRaster, NoSegments, Superpixels, segment_source
from resegeo.settings import Settings


@pytest.fixture
def scene(make_raster, picture):
    return Canvas(open_scene(make_raster("scene.tif", picture(600, 700))))


def test_superpixels_of_a_pixel_do_not_depend_on_the_rectangle_asked_for(scene):
    whole = Superpixels(scene, (400,)).ids(Rect(0, 0, 600, 700))
    other = Superpixels(scene, (400,))  # another cache, another order of tiles
    for rect in (Rect(500, 500, 64, 128), Rect(0, 0, 50, 50), Rect(450, 480, 150, 220)):
        assert np.array_equal(other.ids(rect), whole[:, rect.row : rect.bottom, rect.col : rect.right])


def test_superpixels_have_the_size_asked_for_and_unique_ids_across_tiles(scene):
    source = Superpixels(scene, (2500, 400))
    ids = source.ids(Rect(0, 0, 600, 700))
    assert source.levels == 2
    counts = [len(np.unique(level)) for level in ids]
    assert 600 * 700 / 2500 / 2 < counts[0] < 600 * 700 / 2500 * 2
    assert 600 * 700 / 400 / 2 < counts[1] < 600 * 700 / 400 * 2
    for level in ids:
        assert not set(np.unique(level[:, :TILE])) & set(np.unique(level[:, TILE:]))


def test_superpixels_follow_a_sharp_edge(make_raster):
    bands = np.full((3, 200, 200), 40, np.uint8)
    bands[:, :, 73:] = 220
    ids = Superpixels(Canvas(open_scene(make_raster("edge.tif", bands))), (400,)).ids(Rect(0, 0, 200, 200))[0]
    assert not set(np.unique(ids[:, :73])) & set(np.unique(ids[:, 73:]))


def test_superpixels_at_half_the_size_are_the_scene_s_whatever_is_asked_for_and_end_at_even_pixels(
    make_raster, picture
):
    scene = Canvas(open_scene(make_raster("odd.tif", picture(601, 703))))
    whole = Superpixels(scene, (400,), scale="half").ids(Rect(0, 0, 601, 703))
    part = Superpixels(scene, (400,), scale="half").ids(Rect(450, 480, 151, 223))
    assert np.array_equal(part, whole[:, 450:, 480:])
    assert np.array_equal(whole[0, :600:2, :702:2], whole[0, 1:601:2, 1:703:2])
    assert (whole > 0).all()
    count = len(np.unique(whole))
    assert "superpixel_scale" not in Settings().as_dict()  # or every result would tell of it, and differ
    assert 601 * 703 / 400 / 2 < count < 601 * 703 / 400 * 2


@pytest.mark.parametrize("name", ["superpixels", "none"])
def test_outside_the_scene_nothing_breaks(scene, name):
    source = segment_source(name, scene, areas=(400,))
    assert source.ids(Rect(-30, 650, 100, 128)).shape == (1, 100, 128)
    assert source.ids(Rect(5000, 5000, 10, 10)).shape == (1, 10, 10)


def test_invalid_pixels_are_in_no_superpixel(make_raster, picture):
    bands = np.maximum(picture(100, 100), 1)
    bands[:, 40:60] = 0
    ids = Superpixels(Canvas(open_scene(make_raster("hole.tif", bands, nodata=0))), (200,)).ids(Rect(0, 0, 100, 100))[0]
    assert (ids[40:60] == 0).all()
    assert (ids[:40] > 0).all()


def test_a_label_raster_gives_its_ids_and_0_for_nodata_and_outside(make_raster, picture):
    scene = Canvas(open_scene(make_raster("scene.tif", picture(50, 60))))
    labels = np.arange(3000, dtype=np.int32).reshape(1, 50, 60)
    source = LabelRaster(make_raster("ids.tif", labels, nodata=70), scene)
    ids = source.ids(Rect(-2, -3, 40, 80))[0]
    assert (ids[:2] == 0).all()
    assert (ids[:, :3] == 0).all()
    assert (ids[:, 63:] == 0).all()
    expected = np.where(labels[0, :38] == 70, 0, labels[0, :38])
    assert np.array_equal(ids[2:, 3:63], expected)


def test_a_label_raster_that_does_not_fit_is_refused(make_raster, picture):
    scene = Canvas(open_scene(make_raster("scene.tif", picture(50, 60))))
    with pytest.raises(ResegeoError, match="holds float32 values"):
        LabelRaster(make_raster("float.tif", np.zeros((1, 50, 60), np.float32)), scene)
    with pytest.raises(ResegeoError, match="40 × 60 pixels"):
        LabelRaster(make_raster("small.tif", np.zeros((1, 40, 60), np.uint8)), scene)
    elsewhere = make_raster(
        "far.tif",
        np.zeros((1, 50, 60), np.uint8),
        transform=scene.scene.georeference.transform * (scene.scene.georeference.transform.translation(10, 0)),
    )
    with pytest.raises(ResegeoError, match="lies elsewhere"):
        LabelRaster(elsewhere, scene)
    with pytest.raises(ResegeoError, match=r"has 3 bands; expected one, of ids. Give a label raster"):
        LabelRaster(make_raster("scene.tif", picture(50, 60)), scene)


@pytest.mark.parametrize(
    ("ours", "theirs", "same"),
    [
        ("EPSG:32633", "EPSG:32633", True),
        ("EPSG:32633", "EPSG:32634", False),
        ("EPSG:32633", "EPSG:4326", False),
        ("EPSG:32633", None, True),
        ("EPSG:32633", "+proj=utm +zone=33 +datum=WGS84", True),
        ("EPSG:7415", "EPSG:28992", True),
        ("EPSG:32633", 'LOCAL_CS["building site",UNIT["metre",1]]', False),
    ],
)
def test_a_label_raster_in_another_crs_is_refused_unless_that_means_the_same_place(
    make_raster, picture, ours, theirs, same
):
    place = from_origin(100_000, 450_000, 10, 10)
    scene = Canvas(open_scene(make_raster("scene.tif", picture(50, 60), crs=ours, transform=place)))
    labels = make_raster("ids.tif", np.ones((1, 50, 60), np.uint8), crs=theirs, transform=place)
    if same:
        assert (LabelRaster(labels, scene).ids(Rect(0, 0, 50, 60)) == 1).all()
    else:
        with pytest.raises(ResegeoError, match=r"ids.tif.? is in '.*', the scene in 'WGS 84 / UTM zone 33N'. Give"):
            LabelRaster(labels, scene)


def test_polygons_beside_the_scene_are_no_segments(scene, tmp_path):
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "far.gpkg")
    with pytest.raises(ResegeoError, match=r"segments=.?.*far.gpkg.? lies beside the scene, which reaches over"):
        segment_source(str(tmp_path / "far.gpkg"), scene)


def test_no_segments_are_one_segment(scene):
    assert (NoSegments().ids(Rect(0, 0, 4, 5)) == 1).all()
