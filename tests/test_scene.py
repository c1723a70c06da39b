from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest
import rasterio
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.enums import ColorInterp

from resegeo.errors import GeoreferenceWarning, InputNotice, ResegeoError, UsageError
from resegeo.scene import Stretch, describe, open_scene


def everything(scene):
    return scene.read(0, 0, scene.height, scene.width)


def random_bands(count=3, height=40, width=50, dtype="uint8", seed=0):
    top = 255 if dtype == "uint8" else 4000
    return np.random.default_rng(seed).integers(1, top, (count, height, width)).astype(dtype)


def test_uint8_passes_through_and_is_what_rasterio_reads(make_raster):
    bands = random_bands(height=700, width=600)
    rgb, valid = everything(open_scene(make_raster("a.tif", bands)))
    assert np.array_equal(rgb, bands.transpose(1, 2, 0))
    assert valid.all()


@pytest.mark.parametrize("profile", [{}, {"tiled": True, "blockxsize": 256, "blockysize": 16, "compress": "lzw"}])
def test_a_rectangle_equals_the_same_part_of_the_whole_and_is_zero_outside(make_raster, profile):
    scene = open_scene(make_raster("a.tif", random_bands(height=600, width=700), **profile))
    whole, _ = everything(scene)
    rgb, valid = scene.read(500, -10, 200, 300)
    assert np.array_equal(rgb[:100, 10:], whole[500:, :290])
    assert not rgb[100:].any()
    assert not rgb[:, :10].any()
    assert np.array_equal(valid, np.pad(np.ones((100, 290), bool), ((0, 100), (10, 0))))


def test_bands_by_colour_by_order_and_by_choice(make_raster):
    path = make_raster("a.tif", random_bands(4))
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    assert open_scene(path).bands == (3, 2, 1)
    assert open_scene(make_raster("b.tif", random_bands(13))).bands == (1, 2, 3)
    assert open_scene(make_raster("c.tif", random_bands(13)), bands=(4, 3, 2)).bands == (4, 3, 2)
    with pytest.raises(UsageError, match=r"--bands 0,1,2 does not fit .*13 band"):
        open_scene(make_raster("d.tif", random_bands(13)), bands=(0, 1, 2))


@pytest.mark.parametrize("count", [1, 2])
def test_one_band_is_repeated_with_a_notice(make_raster, count):
    with pytest.warns(InputNotice, match="serves as red, green and blue"):
        scene = open_scene(make_raster("a.tif", random_bands(count)))
    rgb, _ = everything(scene)
    assert np.array_equal(rgb[..., 0], rgb[..., 2])


def test_a_palette_image_is_expanded(make_raster):
    path = make_raster("a.tif", np.array([[[0, 1], [2, 1]]], np.uint8))
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {0: (1, 2, 3, 255), 1: (9, 8, 7, 255), 2: (50, 60, 70, 255)})
        raster.colorinterp = [ColorInterp.palette]
    rgb, _ = everything(open_scene(path))
    assert rgb.tolist() == [[[1, 2, 3], [9, 8, 7]], [[50, 60, 70], [9, 8, 7]]]


def test_other_types_are_stretched_between_percentiles_of_the_valid_pixels(make_raster):
    bands = random_bands(dtype="uint16")
    bands[:, :10] = 0
    scene = open_scene(make_raster("a.tif", bands, nodata=0))
    expected = np.percentile(bands[:, 10:].reshape(3, -1), (2, 98), axis=1)
    assert scene.stretch is not None
    assert np.allclose(scene.stretch.low, expected[0])
    assert np.allclose(scene.stretch.high, expected[1])
    rgb, valid = everything(scene)
    assert not valid[:10].any()
    assert rgb[10:].min() == 0
    assert rgb[10:].max() == 255


def test_a_given_stretch_is_taken_and_an_empty_one_refused(make_raster):
    path = make_raster("a.tif", np.full((3, 4, 4), 1150, np.uint16))
    assert (everything(open_scene(path, stretch=(200, 2100)))[0] == 128).all()
    with pytest.raises(UsageError, match="--stretch 5:5 is empty"):
        open_scene(path, stretch=(5, 5))


def test_the_sample_of_a_large_scene_is_small_and_near_the_truth(make_raster):
    rows = np.linspace(0, 10_000, 3000).astype(np.uint16)
    scene = open_scene(make_raster("a.tif", np.broadcast_to(rows[:, None], (3, 3000, 400)).copy()))
    assert scene.stretch is not None
    assert scene.stretch.low[0] == pytest.approx(200, abs=250)
    assert scene.stretch.high[0] == pytest.approx(9800, abs=250)


def test_overviews_do_not_change_the_stretch(make_raster):
    path = make_raster("a.tif", random_bands(dtype="uint16", height=1200, width=1200))
    before = open_scene(path)
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4, 8])
    after = open_scene(path)
    assert (before.stretch, before.fingerprint) == (after.stretch, after.fingerprint)


@given(hnp.arrays(np.float64, (3, 5, 5), elements=st.floats(-1e6, 1e6)), st.floats(-1e5, 1e5), st.floats(0, 1e5))
def test_a_stretch_is_monotone_and_stays_in_range(bands, low, span):
    stretched = Stretch((low,) * 3, (low + span,) * 3).apply(bands)
    order = np.argsort(bands.ravel(), kind="stable")
    assert (np.diff(stretched.ravel()[order].astype(int)) >= 0).all()
    if span == 0:
        assert not stretched.any()


def test_nan_and_infinity_are_invalid(make_raster):
    bands = np.random.default_rng(0).normal(size=(3, 30, 30)).astype(np.float32)
    bands[0, 0, 0], bands[1, 5, 5], bands[2, 7, 7] = np.nan, np.inf, -np.inf
    scene = open_scene(make_raster("a.tif", bands, nodata=np.nan))
    _, valid = everything(scene)
    assert (~valid).sum() == 3
    assert scene.stretch is not None
    assert np.isfinite([*scene.stretch.low, *scene.stretch.high]).all()


def test_validity_is_what_gdals_dataset_mask_says(make_raster):
    bands = random_bands(4)
    bands[:3, :10, :10] = 0
    bands[0, 20:, 20:] = 0  # one band alone is no nodata
    bands[3] = 255
    bands[3, :, 45:] = 0
    for name, used, options in (
        ("nodata.tif", bands[:3], {"nodata": 0}),
        ("alpha.tif", bands, {"photometric": "RGB", "alpha": "YES"}),
    ):
        path = make_raster(name, used, **options)
        with rasterio.open(path) as raster:
            expected = raster.dataset_mask() != 0
        assert np.array_equal(everything(open_scene(path))[1], expected)
        assert not expected.all()


def test_an_external_mask_is_honoured(make_raster):
    path = make_raster("a.tif", random_bands())
    with rasterio.open(path, "r+") as raster:
        mask = np.full((40, 50), 255, np.uint8)
        mask[:7] = 0
        raster.write_mask(mask)
    assert np.array_equal(everything(open_scene(path))[1], mask != 0)


def test_no_crs_is_warned_of_and_may_be_assigned(make_raster):
    path = make_raster("a.tif", random_bands(), crs=None)
    with pytest.warns(GeoreferenceWarning, match="Pass --assign-crs EPSG:xxxx"):
        assert open_scene(path).georeference.crs is None
    assert open_scene(path, assign_crs="EPSG:2056").georeference.crs.to_epsg() == 2056
    with pytest.raises(UsageError, match="--assign-crs nonsense is no CRS"):
        open_scene(path, assign_crs="nonsense")


def test_a_dataarray_reads_like_its_file(make_raster):
    path = make_raster("a.tif", random_bands(dtype="uint16"), nodata=7)
    for array in (rioxarray.open_rasterio(path), rioxarray.open_rasterio(path, chunks=16)):
        one, two = open_scene(path), open_scene(array)
        assert np.array_equal(everything(one)[0], everything(two)[0])
        assert np.array_equal(everything(one)[1], everything(two)[1])
        assert (one.stretch, one.georeference.transform) == (two.stretch, two.georeference.transform)


def test_a_dataarray_of_other_dimensions_is_refused():
    with pytest.raises(ResegeoError, match=r"expected \(band, y, x\)"):
        open_scene(xr.DataArray(np.zeros((2, 3, 4, 5), np.uint8)))


def test_the_array_is_lazy_and_survives_pickling(make_raster):
    scene = open_scene(make_raster("a.tif", random_bands(height=1100, width=1100)))
    assert scene.array.dims == ("band", "y", "x")
    assert scene.array.chunks is not None
    assert len(scene.array.chunks[1]) > 1
    again = pickle.loads(pickle.dumps(scene.array))
    assert np.array_equal(again[:3, 1000:, 1000:].values, scene.array[:3, 1000:, 1000:].values)


def test_the_fingerprint_knows_pixels_and_place_but_not_the_path(make_raster):
    bands = random_bands()
    one, copy = (open_scene(make_raster(name, bands)).fingerprint for name in ("a.tif", "b.tif"))
    bands[0, 3, 3] += 1
    assert one == copy
    assert open_scene(make_raster("c.tif", bands)).fingerprint != one


def test_damaged_and_foreign_files_are_one_sentence(make_raster, tmp_path):
    whole = make_raster("whole.tif", random_bands(height=400, width=400))
    (tmp_path / "cut.tif").write_bytes(whole.read_bytes()[:200_000])
    (tmp_path / "text.tif").write_text("hello")
    (tmp_path / "empty.tif").write_bytes(b"")
    for name, words in (
        ("cut.tif", "is damaged: rows"),
        ("text.tif", "cannot be opened as a raster"),
        ("empty.tif", "cannot be opened as a raster"),
        ("none.tif", "no such file"),
    ):
        with pytest.raises(ResegeoError, match=words):
            everything(open_scene(tmp_path / name))
    with pytest.raises(ResegeoError, match="is a folder"):
        open_scene(tmp_path)
    with pytest.raises(ResegeoError, match="complex"):
        open_scene(make_raster("c.tif", np.ones((1, 4, 4), np.complex64)))


@pytest.mark.filterwarnings("ignore")
def test_real_rasters_keep_their_georeference(test_data):
    found = 0
    for path in sorted((test_data / "scenes").glob("*/*")):
        if path.name == "corrupt.tif":
            with pytest.raises(ResegeoError, match="is damaged"):
                everything(open_scene(path))
            continue
        scene = open_scene(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path) as raster:
                assert (scene.height, scene.width, scene.count) == (raster.height, raster.width, raster.count)
                assert scene.georeference.crs == raster.crs
                assert (scene.georeference.transform or rasterio.Affine.identity()) == raster.transform
                assert len(scene.georeference.gcps) == len(raster.gcps[0])
        assert describe(scene)["size"] == f"{scene.height} rows × {scene.width} columns"
        found += 1
    assert found >= 20
