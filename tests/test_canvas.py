from __future__ import annotations

import json
import math
import warnings

import numpy as np
import pytest
import rasterio
import torch
from rasterio.enums import Resampling
from rasterio.transform import Affine, from_origin
from rasterio.warp import reproject

import resegeo
from resegeo.checkpoints.model_card import ModelCardNotice
from resegeo.clip.blending import Blender, Grouping, WindowScores
from resegeo.clip.scores import patch_scores
from resegeo.errors import UsageError
from resegeo.scene.reader import open_scene
from resegeo.scene.resampling import VALID, Canvas, canvas_of, ground_sample_distance
from resegeo.scene.windows import Rect, blocks, window_grid

pytestmark = pytest.mark.usefixtures("quick_model")

WORDS = ["water", "forest", "road"]


def test_the_canvas_of_no_distance_is_the_scene(make_raster, picture):
    scene = open_scene(make_raster("scene.tif", picture(50, 60)))
    canvas = canvas_of(scene, None)
    assert canvas.native
    assert (canvas.height, canvas.width) == (50, 60)
    assert canvas_of(scene, 10.000001).native
    for one, two in zip(canvas.read(-3, 5, 70, 20), scene.read(-3, 5, 70, 20), strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize("factor", [2, 3, 7])
def test_coarser_pixels_are_means_as_gdal_takes_them(make_raster, picture, factor):
    bands = picture(84, 126)
    scene = open_scene(make_raster("scene.tif", bands))
    canvas = canvas_of(scene, 10.0 * factor)
    rgb, share = canvas.read(0, 0, canvas.height, canvas.width)
    there = scene.georeference.transform
    expected = np.zeros((3, 84 // factor, 126 // factor), np.float32)
    reproject(
        bands.astype(np.float32),
        expected,
        src_transform=there,
        dst_transform=there @ Affine.scale(factor),
        src_crs="EPSG:32633",
        dst_crs="EPSG:32633",
        resampling=Resampling.average,
    )
    assert (share == 1).all()
    assert np.abs(rgb.transpose(2, 0, 1) - expected).max() <= 0.51


def test_finer_pixels_are_interpolated_as_torch_does_it(make_raster, picture):
    bands = picture(40, 50)
    canvas = canvas_of(open_scene(make_raster("scene.tif", bands)), 2.5)
    rgb, share = canvas.read(0, 0, 160, 200)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(bands)[None].float(), scale_factor=4, mode="bilinear", align_corners=False
    )[0]
    assert (share > 0.999).all()
    assert np.abs(rgb.transpose(2, 0, 1) - expected.numpy()).max() <= 0.51


@pytest.mark.parametrize(("down", "across"), [(3.7, 2.2), (0.37, 0.6), (5.0, 0.5)])
def test_a_pixel_does_not_depend_on_the_rectangle_it_is_read_with(make_raster, picture, monkeypatch, down, across):
    canvas = Canvas(open_scene(make_raster("scene.tif", picture(90, 110), nodata=7)), down, across)
    whole = canvas.read(0, 0, canvas.height, canvas.width)
    monkeypatch.setattr("resegeo.scene.resampling.STRIP_PIXELS", 500)
    for rect in (Rect(3, 5, 9, 11), Rect(canvas.height - 6, canvas.width - 8, 20, 20), Rect(-4, -4, 9, 9)):
        rgb, share = canvas.read(rect.row, rect.col, rect.height, rect.width)
        inside = rect.intersection(Rect(0, 0, canvas.height, canvas.width))
        part = np.s_[inside.row - rect.row : inside.bottom - rect.row, inside.col - rect.col : inside.right - rect.col]
        there = np.s_[inside.row : inside.bottom, inside.col : inside.right]
        assert np.abs(rgb[part].astype(int) - whole[0][there]).max() <= 1  # a sum in another order, rounded
        assert np.allclose(share[part], whole[1][there], atol=1e-5)
        outside = np.ones(rgb.shape[:2], bool)
        outside[part] = False
        assert (share[outside] == 0).all()


def test_colours_of_invalid_pixels_do_not_bleed_and_half_is_enough(make_raster):
    bands = np.full((3, 4, 8), 100, np.uint8)
    bands[:, :, :3] = 0  # nodata: canvas columns 0 (all), 1 (half)
    canvas = Canvas(open_scene(make_raster("scene.tif", bands, nodata=0)), 2.0, 2.0)
    rgb, share = canvas.read(0, 0, 2, 4)
    assert share[0].tolist() == [0, 0.5, 1, 1]
    assert rgb[0, :, 0].tolist() == [0, 100, 100, 100]
    assert (share >= VALID).tolist() == [[False, True, True, True]] * 2


def test_every_scene_pixel_lies_in_one_cell_of_a_partition(make_raster, picture):
    scene = open_scene(make_raster("scene.tif", picture(97, 61)))
    for down, across in ((1.0, 1.0), (2.5, 3.3), (0.31, 0.7)):
        canvas = Canvas(scene, down, across)
        count = np.zeros((97, 61), int)
        for cell in blocks(canvas.height, canvas.width, 7):
            rect = canvas.scene_rect(cell)
            count[max(0, rect.row) : rect.bottom, max(0, rect.col) : rect.right] += 1
            rows, cols = canvas.positions(rect, cell)
            assert ((rows >= -1e-9) & (rows <= 1 + 1e-9)).all()
            assert ((cols >= -1e-9) & (cols <= 1 + 1e-9)).all()
        assert (count == 1).all()


def test_scores_at_scene_pixels_equal_the_naive_form(make_raster, picture):
    """Features interpolated at each pixel's own centre, one pixel and one window at a time."""
    canvas = Canvas(open_scene(make_raster("scene.tif", picture(40, 50))), 1.7, 0.8)
    random = np.random.default_rng(0)
    grid = window_grid(canvas.height, canvas.width, window=16, stride=8)
    windows = [window for item in grid.items() for window in item.windows]
    features = random.normal(size=(len(windows), 4, 4, 6)) + 0.5
    texts = random.normal(size=(3, 6)).astype(np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    reduced = patch_scores(features.astype(np.float32), texts)
    scored = [WindowScores(w, r, np.zeros(3, np.float32)) for w, r in zip(windows, reduced, strict=True)]
    block = Rect(7, 11, 20, 25)
    found = Blender(canvas, Grouping((0, 1, 2), 3), 4.0, taper=False).blend(block, scored)
    for row, col in ((7, 11), (13, 20), (26, 35), (19, 30)):
        y, x = (row + 0.5) / 1.7, (col + 0.5) / 0.8
        total, count = np.zeros(3), 0
        for window, f in zip(windows, features, strict=True):
            v, u = (y - window.row) / 4 - 0.5, (x - window.col) / 4 - 0.5  # in patches of 4 pixels
            if not (window.row <= y < window.bottom and window.col <= x < window.right):
                continue
            v, u = min(max(v, 0), 3), min(max(u, 0), 3)
            i, j = min(int(v), 2), min(int(u), 2)
            a, b = v - i, u - j
            mixed = (1 - a) * (1 - b) * f[i, j] + (1 - a) * b * f[i, j + 1]
            mixed += a * (1 - b) * f[i + 1, j] + a * b * f[i + 1, j + 1]
            logits = 4.0 * (texts @ mixed) / np.linalg.norm(mixed)
            total += np.exp(logits) / np.exp(logits).sum()
            count += 1
        assert count > 0
        assert np.allclose(found[:, row - block.row, col - block.col], total / count, atol=1e-4)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({}, (10, 10)),
        ({"transform": Affine(8, 3, 5e5, 6, -4, 5.2e6)}, (5, 10)),
        ({"crs": "EPSG:2263", "transform": from_origin(1e6, 2e5, 2, 3)}, (3 * 0.3048006096, 2 * 0.3048006096)),
        ({"crs": None}, None),
        ({"crs": 'LOCAL_CS["site",UNIT["metre",1]]'}, None),
    ],
)
@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_ground_sample_distance_follows_the_units_of_the_crs(make_raster, picture, profile, expected):
    assert ground_sample_distance(open_scene(make_raster("scene.tif", picture(20, 30), **profile))) == (
        expected if expected is None else pytest.approx(expected)
    )


def test_degrees_are_measured_at_the_scenes_centre(make_raster, picture):
    scene = open_scene(
        make_raster("scene.tif", picture(200, 100), crs="EPSG:4326", transform=from_origin(10, 61, 0.01, 0.01))
    )
    down, across = ground_sample_distance(scene)
    # A second way: length of one degree of the WGS 84 ellipsoid at 60° north, from its formula.
    e2, a, phi = 0.00669437999014, 6378137.0, math.radians(60)
    assert across == pytest.approx(0.01 * math.radians(1) * a * math.cos(phi) / math.sqrt(1 - e2 * math.sin(phi) ** 2))
    meridian = a * (1 - e2) / (1 - e2 * math.sin(phi) ** 2) ** 1.5
    assert down == pytest.approx(0.01 * math.radians(1) * meridian, rel=1e-5)


@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_a_distance_that_cannot_be_had_is_refused(make_raster, picture):
    bare = open_scene(make_raster("bare.tif", picture(20, 30), crs=None))
    with pytest.raises(UsageError, match=r"gsd=.?0.3.? needs the size of a pixel in metres"):
        canvas_of(bare, 0.3)
    scene = open_scene(make_raster("scene.tif", picture(20, 30)))
    with pytest.raises(UsageError, match=r"too far from the scene's own 10 × 10 m"):
        canvas_of(scene, 1000.0)
    with pytest.raises(UsageError, match="too far"):
        canvas_of(scene, 0.01)


@pytest.mark.filterwarnings("ignore::resegeo.ResegeoWarning")
def test_a_run_at_a_coarser_distance_sees_what_a_coarser_scene_shows(make_raster, picture, tmp_path):
    """A scene of blocks of 4 × 4 equal pixels, run at 40 m, against the same scene kept at 40 m."""
    small = picture(160, 170)
    coarse = make_raster("coarse.tif", small, transform=from_origin(500_000, 5_200_000, 40, 40))
    fine = make_raster("fine.tif", small.repeat(4, axis=1).repeat(4, axis=2))
    one = resegeo.segment(coarse, WORDS, tmp_path / "coarse", vector=())
    two = resegeo.segment(fine, WORDS, tmp_path / "fine", gsd=40.0)
    codes = []
    for path in (one.raster, two.raster):
        with rasterio.open(path) as raster:
            codes.append(raster.read(1))
    assert codes[1].shape == (640, 680)
    assert len(np.unique(codes[0])) > 1
    assert (codes[0].repeat(4, axis=0).repeat(4, axis=1) == codes[1]).mean() > 0.97
    planned = [json.loads(run.report.read_text("utf-8"))["windows"]["planned"] for run in (one, two)]
    assert planned[0] == planned[1]


def test_label_rasters_and_polygons_of_the_user_work_at_another_distance(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(150, 140))
    labels = np.arange(4, dtype=np.int32).reshape(1, 2, 2).repeat(75, axis=1).repeat(70, axis=2) + 1
    raster = make_raster("ids.tif", labels)
    from resegeo.segments.segment_sources import segment_source

    polygons = tmp_path / "parcels.geojson"
    _parcels(polygons)
    for canvas in (Canvas(open_scene(scene), 2.5, 3.5), Canvas(open_scene(scene), 0.5, 0.7)):
        whole = Rect(0, 0, canvas.height, canvas.width)
        from_raster = segment_source(str(raster), canvas, areas=()).ids(whole)[0]
        from_polygons = segment_source(str(polygons), canvas, areas=()).ids(whole)[0]
        assert set(np.unique(from_raster)) == {1, 2, 3, 4}
        assert np.array_equal(from_raster, from_polygons)


def _parcels(path):
    import geopandas as gpd
    import shapely

    boxes = [
        shapely.box(500_000 + 700 * c, 5_200_000 - 750 * (r + 1), 500_000 + 700 * (c + 1), 5_200_000 - 750 * r)
        for r in (0, 1)
        for c in (0, 1)
    ]
    gpd.GeoDataFrame(geometry=boxes, crs="EPSG:32633").to_file(path)


def test_a_region_at_another_distance_gives_the_labels_of_the_whole(make_raster, picture, tmp_path):
    scene = make_raster("scene.tif", picture(300, 310))
    box = (500_600.0, 5_198_000.0, 501_230.0, 5_199_210.0)
    for gsd in (4.0, 23.0):
        whole = resegeo.segment(scene, WORDS, tmp_path / f"whole{gsd}", gsd=gsd, vector=())
        part = resegeo.segment(scene, WORDS, tmp_path / f"part{gsd}", gsd=gsd, bbox=box, vector=())
        with rasterio.open(whole.raster) as one, rasterio.open(part.raster) as two:
            inside = two.read(1) != 255
            assert inside.sum() == 63 * 121
            assert np.array_equal(one.read(1)[inside], two.read(1)[inside])


def test_leaving_the_bundled_models_range_is_noticed(make_raster, picture, tmp_path):
    wide = make_raster("wide.tif", picture(60, 60), transform=from_origin(0, 0, 250, 250))
    with pytest.warns(ModelCardNotice, match=r"pixels of 250 m: coarser than the 0.1 to 30 m that it is made for"):
        resegeo.prepare(wide, WORDS, tmp_path / "one", vector=())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        resegeo.prepare(wide, WORDS, tmp_path / "two", vector=(), gsd=30.0)
        resegeo.prepare(make_raster("fit.tif", picture(60, 60)), WORDS, tmp_path / "three", vector=())
    assert not any("made for" in str(note.message) for note in caught)
