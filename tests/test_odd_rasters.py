"""Scenes whose bands, values or alpha are other than usual."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import rasterio

from resegeo import open_scene
from resegeo.errors import InputNotice, UsageError
from resegeo.scene.reader import describe


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def numbers(count=3, dtype="uint16", size=40):
    return np.random.default_rng(0).integers(0, 200, (count, size, size)).astype(dtype)


def described(path, names, **tags):
    with rasterio.open(path, "r+") as raster:
        raster.descriptions = names
        for key, values in tags.items():
            for band, value in enumerate(values, 1):
                raster.update_tags(band, **{key: value})
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("nodata", [-3.40282e38, -3.4028234663852886e38, -3.402823e38])
def test_a_nodata_value_rounded_in_the_text_is_nodata(make_raster, dtype, nodata):
    values = numbers(dtype=dtype).astype(np.float32)
    values[:, :, :20] = np.finfo(np.float32).min
    scene = open_scene(make_raster("a.tif", values, nodata=nodata))
    assert not scene.valid(0, 0, 40, 20).any()
    assert scene.valid(0, 20, 40, 20).all()
    assert 0 <= min(scene.stretch.low) < max(scene.stretch.high) <= 200


def test_a_nodata_value_within_two_last_places_is_nodata_and_a_third_is_not(make_raster):
    values = numbers(dtype="float32")
    near = np.nextafter(np.float32(-9999.9), np.float32(0))
    values[:, 0, 0], values[:, 0, 1] = near, np.float32(-9999.8)
    scene = open_scene(make_raster("a.tif", values, nodata=-9999.9), stretch=(0, 200))
    assert scene.valid(0, 0, 1, 3).tolist() == [[False, True, True]]


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("blue", "green", "red"), (3, 2, 1)),
        (("Band 1 (Blue)", "Band 2 (Green)", "B3 - RED", "near infrared"), (3, 2, 1)),
        (("red edge", "red", "green", "blue"), (2, 3, 4)),
        (("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12"), (4, 3, 2)),
        (("B02", "B03", "B04", "B08", "B11"), (3, 2, 1)),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4", "SR_B5", "SR_B7"), (1, 2, 3)),  # Landsat 5 and 8 use the same names
        (
            (
                "B2, central wavelength 490 nm",
                "B3, central wavelength 560 nm",
                "B4, central wavelength 665 nm",
                "B8, central wavelength 842 nm",
            ),
            (3, 2, 1),
        ),
        ((None,) * 13, (4, 3, 2)),
        ((None,) * 12, (4, 3, 2)),
        ((None,) * 4, (1, 2, 3)),
    ],
)
def test_bands_are_found_by_what_the_file_calls_them(make_raster, names, bands):
    path = described(make_raster("a.tif", numbers(len(names)), photometric="minisblack"), names)
    with pytest.warns(InputNotice):
        assert open_scene(path).bands == bands


def test_bands_are_found_by_wavelength_tags(make_raster):
    path = make_raster("a.tif", numbers(4), photometric="minisblack")
    described(path, (None,) * 4, wavelength=("842", "0.665", "560 nm", "490"))
    with pytest.warns(InputNotice, match="by their wavelengths bands 2, 3, 4"):
        assert open_scene(path).bands == (2, 3, 4)


def test_names_go_before_what_a_tiff_of_three_bytes_says_by_default(make_raster):
    path = described(make_raster("a.tif", numbers(dtype="uint8"), photometric="rgb"), ("blue", "green", "red"))
    with pytest.warns(InputNotice, match="by their names bands 3, 2, 1"):
        assert open_scene(path).bands == (3, 2, 1)


@pytest.mark.parametrize("bits", [1, 4])
def test_values_of_few_bits_reach_from_black_to_white(make_raster, bits):
    values = np.arange(1600, dtype=np.uint8).reshape(1, 40, 40) % 2**bits
    rgb, _ = open_scene(make_raster("a.tif", values, nbits=bits)).read(0, 0, 40, 40)
    assert np.array_equal(rgb[..., 0], np.rint(values[0] * (255 / (2**bits - 1))).astype(np.uint8))


def test_a_palette_without_a_table_is_grey(tmp_path, make_raster):
    values = numbers(1, "uint8")
    make_raster("a.tif", values)
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="40" rasterYSize="40"><VRTRasterBand dataType="Byte" band="1"><ColorInterp>Palette'
        '</ColorInterp><SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    with pytest.warns(InputNotice, match="no table of colours; its values are taken as grey"):
        scene = open_scene(tmp_path / "a.vrt")
    assert np.array_equal(scene.read(0, 0, 40, 40)[0][..., 1], values[0])


def test_an_alpha_that_is_infrared_is_told_and_can_be_ignored(make_raster):
    values = numbers(4, "uint8")
    values[3, 0, 0] = 0
    path = make_raster("a.png", values, driver="PNG", crs=None, transform=None)
    with pytest.warns(InputNotice, match="band 4 is called alpha but holds many values"):
        usual = open_scene(path)
    assert not usual.valid(0, 0, 1, 1).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputNotice)
        ignored, used = open_scene(path, alpha="ignore"), open_scene(path, alpha="use")
    assert ignored.valid(0, 0, 40, 40).all()
    assert not used.valid(0, 0, 1, 1).any()
    assert usual.fingerprint == used.fingerprint != ignored.fingerprint
    said = [describe(scene)["alpha"] for scene in (usual, used, ignored)]
    assert said == [
        "band 4: pixels where it is 0 are invalid, though band 4 holds many values, as data does",
        "band 4: pixels where it is 0 are invalid",
        "band 4 is ignored",
    ]
    with pytest.raises(UsageError, match=r"alpha=.?perhaps.? is none of auto, ignore, use"):
        open_scene(path, alpha="perhaps")


def test_an_infrared_that_is_dark_nearly_everywhere_is_told_too(make_raster):
    values = numbers(4, "uint8")
    values[3, :30] = 0
    with pytest.warns(InputNotice, match="band 4 is called alpha but holds many values"):
        open_scene(make_raster("a.png", values, driver="PNG", crs=None, transform=None))


def test_an_alpha_with_soft_edges_is_alpha(make_raster):
    values = numbers(4, "uint8", 80)
    values[3] = np.clip(np.arange(80) * 12 - 200, 0, 255)
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputNotice)
        open_scene(make_raster("a.tif", values, alpha="yes", photometric="rgb"))
