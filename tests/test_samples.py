from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import rasterio
import rioxarray
from hypothesis import given
from hypothesis import strategies as st

from resegeo.errors import InputNotice
from resegeo.scene import stretch as samples
from resegeo.scene.reader import Stretch, open_scene
from resegeo.scene.stretch import _Thinned

SIDE = 2000
"""Of the scenes here: the sample's squares lie 129 pixels apart."""


def squares_of_the_sample():
    """Tell which pixels of a scene of SIDE² the sample sees."""
    seen = np.zeros((SIDE, SIDE), bool)
    starts = [int(k * (SIDE - 64) / 15) for k in range(16)]
    for row in starts:
        for col in starts:
            seen[row : row + 64, col : col + 64] = True
    return seen


@pytest.fixture
def patch():
    """Bands (3, SIDE, SIDE) of uint16, 0 but for 40 × 50 pixels that the sample does not see, and those pixels."""
    bands = np.zeros((3, SIDE, SIDE), np.uint16)
    rows, cols = slice(205, 245), slice(200, 250)
    bands[:, rows, cols] = np.random.default_rng(0).integers(200, 4000, (3, 40, 50))
    assert not squares_of_the_sample()[rows, cols].all()
    bands[:, squares_of_the_sample()] = 0
    return bands


def ends(values):
    return np.percentile(values, (2, 98))


def is_stretch_of(stretch: Stretch | None, bands: np.ndarray, *, within: float = 1e-8) -> bool:
    assert stretch is not None
    expected = np.array([ends(band[band > 0]) for band in bands])
    return np.allclose(expected, np.stack([stretch.low, stretch.high], axis=1), atol=within)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
def test_values_that_lie_between_the_squares_of_the_sample_are_found(make_raster, patch, dtype):
    scene = open_scene(make_raster("a.tif", patch.astype(dtype), nodata=0, compress="deflate"))
    assert is_stretch_of(scene.stretch, patch)


def test_a_value_that_fills_nearly_all_of_a_band_does_not_make_it_black(make_raster, patch):
    """Zeros around the data that nothing declares as nodata; the sample sees them alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputNotice)
        scene = open_scene(make_raster("a.tif", patch, compress="deflate"))
    assert is_stretch_of(scene.stretch, patch, within=150)  # of many values every fourth is kept
    two = (patch > 0).astype(np.uint16) * 900
    assert open_scene(make_raster("b.tif", two, compress="deflate")).stretch == Stretch((0,) * 3, (900,) * 3)


@pytest.mark.parametrize(("fill", "said"), [(-9999, "-9999"), (-3.4028234663852886e38, "-3.4028234663852886e+38")])
def test_a_fill_value_that_spoils_the_stretch_is_told(make_raster, fill, said):
    bands = np.random.default_rng(0).random((3, 60, 70)).astype(np.float32)
    bands[:, :, :20] = fill
    remedy = (
        rf"holds {re.escape(said)} in 29% of band 1, far .* gdal_edit.py -a_nodata {re.escape(said)}; .*stretch=.?0.0"
    )
    with pytest.warns(InputNotice, match=remedy) as told:
        open_scene(make_raster("a.tif", bands))
    assert sum(warning.category is InputNotice for warning in told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputNotice)
        open_scene(make_raster("b.tif", bands, nodata=fill))
        open_scene(make_raster("c.tif", np.where(bands == np.float32(fill), 0, bands * 9 + 1)))  # sea beside land


def test_they_are_the_same_whatever_the_files_blocks_and_in_an_array(make_raster, patch):
    found = [
        open_scene(make_raster(f"{number}.tif", patch, nodata=0, compress="deflate", **profile)).stretch
        for number, profile in enumerate(
            ({}, {"tiled": True, "blockxsize": 256, "blockysize": 128}, {"blockysize": 333, "interleave": "band"})
        )
    ]
    found.append(open_scene(rioxarray.open_rasterio(make_raster("d.tif", patch, nodata=0))).stretch)
    assert found == [found[0]] * 4


def test_overviews_play_no_part(make_raster, patch):
    path = make_raster("a.tif", patch, nodata=0)
    before = open_scene(path).stretch
    with rasterio.open(path, "r+") as raster:
        raster.build_overviews([2, 4, 8], rasterio.enums.Resampling.average)
    assert open_scene(path).stretch == before


def test_one_band_is_looked_for_where_the_others_are_found(make_raster, patch):
    patch[1:] = np.random.default_rng(1).integers(300, 3000, (2, SIDE, SIDE))
    scene = open_scene(make_raster("a.tif", patch, nodata=0))
    assert is_stretch_of(Stretch(scene.stretch.low[:1], scene.stretch.high[:1]), patch[:1])
    sampled = patch[1][squares_of_the_sample()]
    assert scene.stretch.low[1] == pytest.approx(ends(sampled)[0], abs=2)


def test_a_few_values_in_the_sample_do_not_stand_for_the_scene(make_raster, patch):
    patch[:, :20, :20] = 65_000
    assert squares_of_the_sample()[:20, :20].all()
    assert is_stretch_of(open_scene(make_raster("a.tif", patch, nodata=0)).stretch, patch)


def test_what_the_sample_covers_is_read_once(make_raster, monkeypatch):
    bands = np.zeros((3, 200, 300), np.uint16)
    bands[:, 70:72, 90:95] = 7
    bands[:, 70, 90] = 9
    monkeypatch.setattr(samples, "_Thinned", None)
    assert is_stretch_of(open_scene(make_raster("a.tif", bands, nodata=0)).stretch, bands)


@pytest.mark.parametrize("size", [60, SIDE])
def test_a_band_of_nothing_is_black_and_named(make_raster, size):
    bands = np.random.default_rng(0).integers(200, 4000, (3, size, size)).astype(np.uint16)
    bands[1] = 65_535
    with pytest.warns(InputNotice, match=r"a\.tif holds nothing but nodata in band 2, which is shown as black"):
        scene = open_scene(make_raster("a.tif", bands, nodata=65_535))
    rgb, valid = scene.read(0, 0, size, size)
    assert valid.all()
    assert not rgb[..., 1].any()
    assert rgb[..., 0].max() == 255


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 30))
def test_thinned_values_are_every_nth_in_order_and_never_more_than_the_most(sizes, most):
    everything = np.arange(sum(sizes))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(samples, "MOST", most)
        thinned = _Thinned()
        thinned.add(everything[:0])
        for part in np.split(everything, np.cumsum(sizes)[:-1]) if sizes else []:
            thinned.add(part)
    kept = thinned.values()
    steps = {1 << power for power in range(10) if np.array_equal(kept, everything[:: 1 << power])}
    assert steps
    assert len(kept) <= most
    assert len(everything[:: max(min(steps) // 2, 1)]) > most or min(steps) == 1


def test_of_many_values_no_more_than_the_most_are_kept(make_raster, patch, monkeypatch):
    monkeypatch.setattr(samples, "MOST", 300)
    stretch = open_scene(make_raster("a.tif", patch, nodata=0)).stretch
    assert stretch.low[0] == pytest.approx(ends(patch[0][patch[0] > 0])[0], abs=250)
    assert stretch.high[0] == pytest.approx(ends(patch[0][patch[0] > 0])[1], abs=250)


def bytes_with_holes(make_raster, **profile):
    bands = np.random.default_rng(0).integers(1, 250, (3, 60, 70)).astype(np.uint8)
    bands[:, :9], bands[1, 20:40] = 7, 7
    return make_raster("a.tif", bands, **profile)


def everything(scene):
    return scene.read(0, 0, scene.height, scene.width)


@pytest.mark.parametrize("how", [{"masked": True}, {"mask_and_scale": True}, {"masked": True, "chunks": 16}])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16"])
@pytest.mark.parametrize("nodata", [None, 0, 7])
def test_an_array_masked_on_reading_reads_like_its_file(make_raster, how, dtype, nodata):
    path = bytes_with_holes(make_raster, nodata=nodata)
    if dtype != "uint8":
        with rasterio.open(path) as raster:
            path = make_raster("b.tif", raster.read().astype(dtype) * 13 % 1000, nodata=nodata)
    array = rioxarray.open_rasterio(path, **how)
    assert array.dtype == np.float32
    one, two = open_scene(path), open_scene(array)
    assert np.array_equal(everything(one)[1], everything(two)[1])
    assert np.array_equal(everything(one)[0], everything(two)[0])


def test_an_array_that_was_changed_since_is_stretched(make_raster):
    array = rioxarray.open_rasterio(bytes_with_holes(make_raster), masked=True)
    array /= 255
    assert array.encoding["dtype"] == "uint8"
    scene = open_scene(array)
    assert 0 < scene.stretch.high[0] < 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert everything(scene)[0].max() == 255
