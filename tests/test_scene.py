from __future__ import annotations

import pickle
import sys
import warnings

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import rioxarray
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from resegeo.errors import GeoreferenceWarning, IgnoredSettingWarning, InputNotice, ResegeoError, UsageError
from resegeo.scene.reader import Stretch, describe, open_scene


def everything(scene):
    return scene.read(0, 0, scene.height, scene.width)


def vrt(path, *bands, srs="EPSG:32633", extra=""):
    """Write a VRT of 40 × 50 pixels; each band is (dtype, file, band in it, XML of its own)."""
    parts = "".join(
        f'<VRTRasterBand dataType="{dtype}" band="{number}">{xml}<SimpleSource><SourceFilename relativeToVRT="1">'
        f"{file}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource></VRTRasterBand>"
        for number, (dtype, file, band, xml) in enumerate(bands, 1)
    )
    head = f'<VRTDataset rasterXSize="50" rasterYSize="40"><SRS>{srs}</SRS>'
    path.write_text(f"{head}<GeoTransform>500000, 10, 0, 5200000, 0, -10</GeoTransform>{parts}{extra}</VRTDataset>")
    return path


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
    with pytest.warns(InputNotice, match="bands 1, 2, 3 are taken"):
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
    with pytest.raises(UsageError, match="--stretch 5:5 is no range"):
        open_scene(path, stretch=(5, 5))
    with pytest.raises(UsageError, match="--stretch 0:inf is no range"):
        open_scene(path, stretch=(0, float("inf")))


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


RGB = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]


@pytest.mark.parametrize(
    ("name", "dtype", "opaque", "alpha_at", "nodata"),
    [
        ("last", "uint8", 255, 3, None),
        ("first", "uint8", 255, 0, None),
        ("beside a nodata value", "uint8", 255, 3, 0),
        ("uint16", "uint16", 65535, 3, None),
        ("uint16 of 0 and 1", "uint16", 1, 3, None),
        ("int16", "int16", 1, 3, None),
        ("float", "float32", 1.0, 3, None),
    ],
)
def test_alpha_of_any_type_and_place_is_validity(make_raster, name, dtype, opaque, alpha_at, nodata):
    bands = random_bands(4, dtype=dtype)
    bands[alpha_at], bands[alpha_at, :10] = opaque, 0
    path = make_raster("a.tif", bands, nodata=nodata)
    with rasterio.open(path, "r+") as raster:
        raster.colorinterp = [*RGB[:alpha_at], ColorInterp.alpha, *RGB[alpha_at:]]
    rgb, valid = everything(open_scene(path))
    assert np.array_equal(valid, bands[alpha_at] != 0)
    if dtype == "uint8":
        colours = np.delete(bands, alpha_at, axis=0).transpose(1, 2, 0)
        assert np.array_equal(rgb, np.where(valid[..., None], colours, 0))


def test_an_alpha_band_chosen_as_a_colour_is_data(make_raster):
    bands = random_bands(4)
    bands[3, :10] = 0
    path = make_raster("a.tif", bands, photometric="RGB", alpha="YES")
    assert not everything(open_scene(path))[1].all()
    rgb, valid = everything(open_scene(path, bands=(4, 1, 2)))
    assert valid.all()
    assert np.array_equal(rgb, bands[[3, 0, 1]].transpose(1, 2, 0))


def test_a_pixel_is_invalid_where_all_used_bands_are_nodata_each_by_its_own_value(make_raster, tmp_path):
    bands = random_bands()
    bands[:, :5] = np.array([1, 2, 3], np.uint8)[:, None, None]
    bands[0, 20:] = 1  # nodata in one band alone
    make_raster("a.tif", bands)
    path = vrt(tmp_path / "a.vrt", *(("Byte", "a.tif", k, f"<NoDataValue>{k}</NoDataValue>") for k in (1, 2, 3)))
    scene = open_scene(path)
    assert scene.nodata == (1, 2, 3)
    expected = ~((bands[0] == 1) & (bands[1] == 2) & (bands[2] == 3))
    assert np.array_equal(everything(scene)[1], expected)
    with rasterio.open(path) as raster:
        assert np.array_equal(expected, raster.dataset_mask() != 0)


def test_nodata_in_one_band_stays_out_of_the_stretch(make_raster):
    bands = random_bands(dtype="int16")
    bands[0, :10] = -9999
    scene = open_scene(make_raster("a.tif", bands, nodata=-9999))
    assert everything(scene)[1].all()
    assert scene.stretch is not None
    assert scene.stretch.low[0] == pytest.approx(np.percentile(bands[0, 10:], 2))
    assert scene.stretch.low[1] == pytest.approx(np.percentile(bands[1], 2))


@pytest.mark.parametrize("value", ["-9999", "nan", "1e300"])
def test_nodata_that_the_type_cannot_hold_marks_nothing(make_raster, tmp_path, value):
    make_raster("a.tif", random_bands())
    path = vrt(tmp_path / "a.vrt", *(("Byte", "a.tif", k, f"<NoDataValue>{value}</NoDataValue>") for k in (1, 2, 3)))
    assert everything(open_scene(path))[1].all()


def test_masks_of_single_bands_count_where_all_used_bands_are_masked(make_raster, tmp_path):
    path = make_raster("a.tif", random_bands())
    masks = np.full((3, 40, 50), 255, np.uint8)
    masks[:, :10], masks[0, 20:] = 0, 0
    flags = {f"INTERNAL_MASK_FLAGS_{band}": "0" for band in (1, 2, 3)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = {"count": 3, "height": 40, "width": 50, "dtype": "uint8"}
        with rasterio.open(f"{path}.msk", "w", driver="GTiff", **size) as raster:
            raster.write(masks)
            raster.update_tags(**flags)
    assert np.array_equal(everything(open_scene(path))[1], masks.any(axis=0))


def test_masks_inside_the_file_and_in_a_mosaic_are_honoured(make_raster, tmp_path):
    mask = np.full((40, 50), 255, np.uint8)
    mask[:, :9] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = make_raster("a.tif", random_bands())
        with rasterio.open(path, "r+") as raster:
            raster.write_mask(mask)
    assert not (tmp_path / "a.tif.msk").exists()
    assert np.array_equal(everything(open_scene(path))[1], mask != 0)
    make_raster("m.tif", mask[None])
    source = '<SimpleSource><SourceFilename relativeToVRT="1">m.tif</SourceFilename></SimpleSource>'
    extra = f'<MaskBand><VRTRasterBand dataType="Byte">{source}</VRTRasterBand></MaskBand>'
    mosaic = vrt(tmp_path / "a.vrt", *(("Byte", "a.tif", k, "") for k in (1, 2, 3)), extra=extra)
    assert np.array_equal(everything(open_scene(mosaic))[1], mask != 0)


def test_bands_of_different_types_are_read_in_the_one_that_holds_them_all(make_raster, tmp_path):
    small, large = random_bands(), random_bands(dtype="uint16", seed=1) + np.uint16(60_000)
    make_raster("small.tif", small)
    make_raster("large.tif", large)
    path = vrt(
        tmp_path / "a.vrt",
        ("Byte", "small.tif", 1, ""),
        ("UInt16", "large.tif", 2, ""),
        ("Float32", "small.tif", 3, ""),
        ("Byte", "small.tif", 2, ""),
    )
    scene = open_scene(path)
    assert scene.dtype == "float32"
    assert np.array_equal(scene.array[:3].values, np.stack([small[0], large[1], small[2]]).astype(np.float32))
    assert open_scene(path, bands=(4, 2, 1)).dtype == "uint16"
    assert open_scene(path, bands=(1, 4, 1)).stretch is None


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int32", "int64", "uint64", "float64"])
def test_any_real_type_is_stretched(make_raster, dtype):
    rgb, valid = everything(open_scene(make_raster("a.tif", random_bands(dtype="int16").astype(dtype) // 40)))
    assert valid.all()
    assert (rgb.min(), rgb.max()) == (0, 255)


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers_are_refused_wherever_they_are_used(tmp_path, make_raster, dtype):
    make_raster("real.tif", random_bands())
    with rasterio.open(tmp_path / "c.tif", "w", driver="GTiff", count=1, height=40, width=50, dtype=dtype):
        pass
    kind = {"complex64": "CFloat32", "complex_int16": "CInt16"}[dtype]
    path = vrt(tmp_path / "a.vrt", *(("Byte", "real.tif", k, "") for k in (1, 2, 3)), (kind, "c.tif", 1, ""))
    assert everything(open_scene(path))[1].all()
    with pytest.raises(ResegeoError, match=f"holds complex numbers .{dtype}"):
        open_scene(path, bands=(4, 1, 2))


def test_scale_and_offset_tags_change_nothing(make_raster):
    one, two = (make_raster(name, random_bands(dtype="int16")) for name in ("a.tif", "b.tif"))
    with rasterio.open(two, "r+") as raster:
        raster.scales, raster.offsets = (0.0001,) * 3, (-0.1,) * 3
    for stretch in (None, (200, 3000)):
        assert np.array_equal(
            everything(open_scene(one, stretch=stretch))[0], everything(open_scene(two, stretch=stretch))[0]
        )


def test_transparent_colours_of_a_palette_are_invalid(make_raster, tmp_path):
    values = random_bands(1) % 3
    make_raster("a.tif", values)
    table = "".join(f'<Entry c1="{k}" c2="7" c3="9" c4="{0 if k == 1 else 255}"/>' for k in range(3))
    xml = f"<ColorInterp>Palette</ColorInterp><ColorTable>{table}</ColorTable>"
    scene = open_scene(vrt(tmp_path / "a.vrt", ("Byte", "a.tif", 1, xml)))
    rgb, valid = everything(scene)
    assert np.array_equal(valid, values[0] != 1)
    assert np.array_equal(rgb[valid], np.stack([values[0], values[0] * 0 + 7, values[0] * 0 + 9], -1)[valid])


def test_a_palette_of_sixteen_bits_is_expanded_unless_bands_are_named(make_raster):
    path = make_raster("a.tif", np.array([[[300, 40_000]]], np.uint16))
    with rasterio.open(path, "r+") as raster:
        raster.write_colormap(1, {300: (1, 2, 3, 255), 40_000: (9, 8, 7, 255)})
        raster.colorinterp = [ColorInterp.palette]
    scene = open_scene(path)
    assert everything(scene)[0].tolist() == [[[1, 2, 3], [9, 8, 7]]]
    with pytest.warns(IgnoredSettingWarning, match="palette image: --stretch does not apply"):
        open_scene(path, stretch=(0, 5))
    assert everything(open_scene(path, bands=(1, 1, 1), stretch=(300, 40_000)))[0].tolist() == [[[0] * 3, [255] * 3]]


def test_other_colours_than_red_green_and_blue_are_refused_unless_bands_are_named(make_raster, tmp_path):
    make_raster("a.tif", random_bands())
    colours = ("Cyan", "Magenta", "Yellow", "Black")
    bands = [("Byte", "a.tif", 1, f"<ColorInterp>{colour}</ColorInterp>") for colour in colours]
    path = vrt(tmp_path / "a.vrt", *bands)
    with pytest.raises(ResegeoError, match="has the colours cyan, magenta, yellow, black; expected red, green and"):
        open_scene(path)
    assert open_scene(path, bands=(3, 2, 1)).bands == (3, 2, 1)


def test_a_crs_that_cannot_be_read_is_refused_unless_one_is_assigned(make_raster, tmp_path):
    make_raster("good.tif", random_bands())
    data = (tmp_path / "good.tif").read_bytes()
    key = np.array([3072, 0, 1, 32633], "<u2").tobytes()
    assert key in data
    (tmp_path / "a.tif").write_bytes(data.replace(key, np.array([3072, 0, 1, 9], "<u2").tobytes()))
    vrt(tmp_path / "a.vrt", ("Byte", "good.tif", 1, ""), srs="nonsense")
    for name, words in (("a.tif", "EPSG:9 is unknown to PROJ"), ("a.vrt", "nonsense is none")):
        with pytest.raises(ResegeoError, match=f"has a CRS that cannot be read .{words}.*--assign-crs EPSG:xxxx"):
            open_scene(tmp_path / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert open_scene(tmp_path / name, assign_crs="EPSG:3857").georeference.crs.to_epsg() == 3857


def test_gdals_own_words_stay_off_the_terminal(make_raster, tmp_path, caplog):
    data = make_raster("a.tif", random_bands()).read_bytes()
    keys = (np.array([3072, 0, 1, code], "<u2").tobytes() for code in (32633, 9))
    (tmp_path / "a.tif").write_bytes(data.replace(*keys))
    everything(open_scene(tmp_path / "a.tif", assign_crs="EPSG:32633"))
    assert not [record for record in caplog.records if record.levelname != "DEBUG"]
    with rasterio.open(tmp_path / "a.tif"):
        assert "crs not found: EPSG:9" in caplog.text  # so that the above means something


def test_a_local_system_of_the_users_own_is_no_unreadable_crs(make_raster):
    crs = CRS.from_wkt('LOCAL_CS["building site",UNIT["metre",1]]')
    scene = open_scene(make_raster("a.tif", random_bands(), crs=crs))
    assert scene.georeference.crs == crs
    assert describe(scene)["pixel"] == "10 × 10 metre"


def test_wide_strips_are_read_in_pieces(make_raster):
    path = make_raster("a.tif", random_bands(height=30, width=20_000))
    with rasterio.open(path) as raster:
        assert raster.block_shapes[0][1] == 20_000
    scene = open_scene(path)
    assert max(scene.array.chunks[2]) <= 512
    rgb, _ = scene.read(0, 11_000, 30, 700)
    with rasterio.open(path) as raster:
        assert np.array_equal(rgb, raster.read()[:, :, 11_000:11_700].transpose(1, 2, 0))


def test_a_mosaic_with_a_missing_file_names_it(make_raster, tmp_path):
    make_raster("a.tif", random_bands())
    path = vrt(tmp_path / "a.vrt", *(("Byte", "gone.tif", k, "") for k in (1, 2, 3)))
    with pytest.raises(ResegeoError, match=r"gone.tif: No such file.*Check the files that it is made of"):
        open_scene(path)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("what?.tif", "what_"),
        ("10:30.tif", "10_30"),
        ("a#b c.tif", "a#b c"),
        ("bäume 日本.tif", "bäume 日本"),
        ("line\nbreak.tif", "line_break"),
        ("wow!.tif", "wow_"),
        ("a.zip!b.tif", "a.zip_b"),
        ("a;b.tif", "a_b"),
        ("-dash.tif", "-dash"),
        (".hidden.tif", ".hidden"),
        ("x.y.tif", "x.y"),
        ("noext", "noext"),
    ],
)
def test_names_of_outputs_come_from_the_files_name(make_raster, file, name):
    assert open_scene(make_raster(file, random_bands())).name == name


def test_paths_that_lead_nowhere_are_one_sentence(make_raster, tmp_path):
    path = make_raster("a.tif", random_bands())
    assert everything(open_scene(f"{path}/"))[1].all()
    for wrong, words in (
        ("", "path is empty"),
        ("x" * 5000, "cannot be a file's name"),
        ("C:\\data\\x.tif", "no such file"),
        ("NETCDF:none.nc:x", "cannot be opened as a raster"),
        ("/vsizip/none.zip/a.tif", "does not exist.*Check the address"),
        ("http://127.0.0.1:9/a.tif", "Check the address and that it can be reached"),
        (np.zeros((3, 4, 4)), "of type ndarray; expected a path, a URL or a DataArray"),
    ):
        with pytest.raises(ResegeoError, match=words):
            open_scene(wrong)


def test_a_folder_that_gdal_opens_is_a_raster(make_raster, tmp_path):
    source = make_raster("a.tif", random_bands(1))
    rasterio.shutil.copy(source, tmp_path / "grid.zarr", driver="Zarr")
    for name in (tmp_path / "grid.zarr", f"ZARR:{tmp_path / 'grid.zarr'}:/grid"):
        with pytest.warns(InputNotice):
            scene = open_scene(name)
        with rasterio.open(source) as raster:
            assert np.array_equal(everything(scene)[0][..., 0], raster.read(1))


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


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
def test_a_dataarray_without_pixels_or_with_other_dimensions_is_refused():
    for array, words in (
        (xr.DataArray(np.zeros((2, 3, 4, 5), np.uint8)), r"expected \(band, y, x\)"),
        (xr.DataArray(np.zeros((3, 0, 5), np.uint8), dims=("band", "y", "x")), r"no pixels: its shape is \(3, 0, 5\)"),
        (
            xr.DataArray(
                np.zeros((3, 0, 5), np.uint8), dims=("band", "y", "x"), coords={"y": np.zeros(0), "x": range(5)}
            ),
            r"no pixels: its shape is \(3, 0, 5\)",
        ),
        (
            xr.DataArray(np.zeros((3, 5), np.uint8), dims=("y", "x"), coords={"y": [0, 1, 5], "x": range(5)}),
            "coordinates of y are not evenly spaced",
        ),
    ):
        with pytest.raises(ResegeoError, match=words):
            open_scene(array)


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


def test_the_fingerprint_knows_control_points_and_colours(make_raster):
    found = set()
    for name, shift in (("a.tif", 0), ("b.tif", 0), ("c.tif", 1)):
        path = make_raster(name, random_bands(), crs=None, transform=None)
        with rasterio.open(path, "r+") as raster:
            points = [GroundControlPoint(r, c, c + shift, 50 - r) for r, c in ((0, 0), (0, 50), (40, 0), (40, 50))]
            raster.gcps = (points, CRS.from_epsg(4326))
        found.add(open_scene(path).fingerprint)
    assert len(found) == 2
    for red in (1, 2):
        path = make_raster("p.tif", random_bands(1) % 2)
        with rasterio.open(path, "r+") as raster:
            raster.write_colormap(1, {0: (red, 0, 0, 255), 1: (9, 9, 9, 255)})
            raster.colorinterp = [ColorInterp.palette]
        found.add(open_scene(path).fingerprint)
    assert len(found) == 4


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
